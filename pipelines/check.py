"""Whether a finished mixture keeps its contracts: what anybody can verify who has the folder.

| what        | must be                                                                       |
|-------------|-------------------------------------------------------------------------------|
| files       | those of the recipe, byte for byte (SHA-256); no shard besides                |
| fingerprint | that of the recipe beside it                                                  |
| rows        | counts, lengths, limits, ids, masks, image tokens, grids against decoded      |
|             | images                                                                        |
| lineage     | every sample in a row is in the index, as often as `copies`, where `shard`    |
|             | says, with as many tokens, learned tokens and crops                           |
| index       | ids unique; a rejected sample is never used; the numbers of stats.json; no    |
|             | sample of a part that is said not to have been read                           |
| ratios      | within one sample of the target, unless a shortage was settled otherwise      |
| schedule    | where ratios follow one: so much of each component so far, at every train row |

What cannot be read is a fault as well, not an exception: a damaged file can raise anything.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from mixtures.pick import INDEX
from pipelines import recipe
from pipelines.engine import tables
from pipelines.report import digests
from pipelines.report.divided import Divided, divided
from pipelines.report.evenness import asked_along, schedules_in
from pipelines.report.finished import Finished, open_finished
from tokenization import check as rows_check
from tokenization.pack import stretch_rows
from tokenization.schema import Encoding

SHOWN = 5
"""Samples that a fault is told of."""
ROWS = 1 << 18
"""Train rows whose amounts of each component are in memory."""
COUNTED = ["sample_ids", "seq_lengths", "loss_mask", "grids"]
STREAM = ["component", "subset", "copies"]
"""Samples that are spread alike."""
AMOUNTS = ["copies", "num_tokens", "num_learned", "num_crops"]


def folder_faults(folder: str, *, rows: int) -> Iterator[str]:
    """Every broken contract of the mixture in the folder, as a sentence.

    Raises:
        FileNotFoundError: no recipe.json there.
    """
    try:
        mixture = open_finished(folder)
    except tables.DamagedError as error:
        yield str(error)
        return
    yield from faults(mixture, rows=rows)


def faults(mixture: Finished, *, rows: int) -> Iterator[str]:
    """Every broken contract as a sentence, the cheap checks first.

    `rows`: packed rows per shard to look into, evenly spread; 0: all of them.
    """
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("recipe.json", lambda: _fingerprint(mixture.recipe)),
        ("files", lambda: _files(mixture)),
        ("index.arrow", lambda: _index(mixture)),
        ("lineage", lambda: _lineage(mixture)),
        ("ratios", lambda: _ratios(mixture)),
        ("schedule", lambda: _schedule(mixture)),
    ]
    for split in mixture.shards.values():
        for name in split:
            checks.append((f"shards/{name}", lambda name=name: _rows(mixture, name, rows)))  # type: ignore[misc]
    for what, check in checks:
        try:
            yield from check()
        except tables.DamagedError as error:
            yield str(error)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            yield f"{what}: cannot be checked: {type(error).__name__} {first}"


def _rows(mixture: Finished, name: str, rows: int) -> Iterator[str]:
    encoding = Encoding(**mixture.recipe["mixture"]["encoding"])
    own = tables.join(mixture.folder, "tokenizer")
    if not tables.is_remote(own) and tables.exists(own):
        encoding = replace(encoding, tokenizer=own)
    components = mixture.recipe["mixture"]["components"].values()
    if any(settings.get("learn") or settings.get("encoding") for settings in components):
        encoding = replace(encoding, learn="all")  # of whom a token is depends on the component
    reader = tables.open_file(mixture.path(name))
    count = tables.num_rows(mixture.path(name))
    chosen = np.unique(np.linspace(0, count - 1, min(rows or count, count)).astype(np.int64))
    for start in range(0, len(chosen), 64):
        part = chosen[start : start + 64]
        table = tables.take_rows(mixture.path(name), part, columns=reader.schema.names)
        found = rows_check.violations(table, encoding=encoding, decode=True, numbers=part.tolist())
        yield from (f"shards/{name}, {fault}" for fault in found)


def _fingerprint(found: dict[str, Any]) -> Iterator[str]:
    now = recipe.fingerprint(recipe.identity(found))
    if now != found["fingerprint"]:
        yield f"recipe.json: fingerprint {found['fingerprint']}, but its content gives {now}"
    if "files" not in found:
        yield "recipe.json: no hashes of the files: an earlier version made it; build it again"
    elif digests.recipe_digest(found) != found.get("digest"):
        yield "recipe.json: its digest is of another content"


def _files(mixture: Finished) -> Iterator[str]:
    if "files" in mixture.recipe:
        yield from (
            f"{name}: {why}" for name, why in digests.differing(mixture.folder, mixture.recipe)
        )


def _index(mixture: Finished) -> Iterator[str]:
    schema = tables.open_file(tables.join(mixture.folder, "index.arrow")).schema
    if schema.names != INDEX.names:
        yield f"index.arrow: columns {schema.names}, expected {INDEX.names}"
        return
    read = kept = 0
    rejected: list[str] = []
    parts: dict[tuple[str, str], set[int]] = {}
    with divided(mixture.stats["read"]) as ranges:
        for some in mixture.lines(["id", "rule", "copies", "component", "subset", "part"]):
            read, kept = read + len(some), kept + some["rule"].null_count()
            ranges.add("index", some.select("id"))
            used = some.filter(pl.col("rule").is_not_null() & (pl.col("copies") > 0))
            rejected += [
                f"index.arrow: {line['id']} has rule {line['rule']}, yet {line['copies']} copies"
                for line in used.head(1 - len(rejected)).iter_rows(named=True)
            ]
            names = some.select(pl.col("component", "subset", "part").cast(pl.String)).unique()
            for component, subset, part in names.iter_rows():
                parts.setdefault((component, subset), set()).add(int(part.rpartition("/")[2]))
        for (ids,) in ranges.each("index"):
            twice = ids.filter(pl.col("id").is_duplicated())["id"]
            if len(twice):
                yield f"index.arrow: {twice[0]} has {(twice == twice[0]).sum()} lines"
                break
    yield from rejected
    for what, number in {"read": read, "kept": kept}.items():
        if mixture.stats[what] != number:
            yield f"stats.json: {what} is {mixture.stats[what]}, the index has {number}"
    yield from _reading(mixture, parts)


def _reading(mixture: Finished, parts: Mapping[tuple[str, str], set[int]]) -> Iterator[str]:
    """`parts`: (component, subset) -> the numbers of those that the index has samples of."""
    for component, about in mixture.stats.get("reading", {}).items():
        for subset, told in about["subsets"].items():
            mine = parts.get((component, subset), set())
            if both := sorted(mine & numbers_in(told["unread"])):
                yield (
                    f"stats.json: part {both[0]} of {component}, subset {subset}, was not read, "
                    "but the index has samples of it"
                )
            if len(mine) > told["parts"]:
                yield (
                    f"stats.json: {told['parts']} parts of {component}, subset {subset}, were "
                    f"read, the index has samples of {len(mine)}"
                )


def numbers_in(ranges: str) -> set[int]:
    """The numbers of `0-3, 7`, as stats.json names parts that were not read."""
    found: set[int] = set()
    for stretch in filter(None, ranges.split(", ")):
        first, _, last = stretch.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _lineage(mixture: Finished) -> Iterator[str]:
    crops = said = 0
    wrong: list[str] = []
    off: dict[str, list[str]] = {"num_tokens": [], "num_learned": []}
    with divided(mixture.stats["read"]) as ranges:
        for split, shards in mixture.shards.items():
            for number, name in enumerate(shards):
                here, in_grids = _sequences(tables.read(mixture.path(name), columns=COUNTED))
                crops += in_grids
                ranges.add("shards", here.with_columns(split=pl.lit(split), at=pl.lit(number)))
        for some in mixture.lines(["id", "split", "shard", *AMOUNTS]):
            used = some.filter(pl.col("copies") > 0).with_columns(pl.col("split").cast(pl.String))
            ranges.add("index", used)
            said += int((used["num_crops"].cast(pl.Int64) * used["copies"].cast(pl.Int64)).sum())
        for index, sequences in ranges.each("index", "shards"):
            both = _both(index, sequences)
            wrong += _wrong(both)
            for column, found in off.items():
                found += _amounts_off(both, column)
    for found in (wrong, *off.values()):
        yield from found[:SHOWN]
    if crops != said:
        yield f"index.arrow: {said:,} crops, the shards hold {crops:,}"


def _both(index: pl.DataFrame, sequences: pl.DataFrame) -> pl.DataFrame:
    """A line per sample of either side: what the index says and what the shards hold of it."""
    found = sequences.group_by("id", "split").agg(
        pl.col("at").unique().sort(),
        pl.col("tokens", "learned").sum(),
        times=pl.struct("at", "row").n_unique().cast(pl.Int32),
    )
    return index.join(found, on=["id", "split"], how="full", coalesce=True)


def _wrong(both: pl.DataFrame) -> list[str]:
    """Samples that do not lie where, or as often as, the index says.

    A cut document lies in several rows: then `times` counts its rows, not its copies.
    """
    wrong = both.filter(
        pl.col("copies").is_null()
        | pl.col("times").is_null()
        | (pl.col("times") < pl.col("copies"))
        | (pl.col("shard").list.unique().list.sort().cast(pl.List(pl.Int64)) != pl.col("at"))
    )
    return [
        f"{line['id']} ({line['split']}): the index says {line['copies']} copies in shards "
        f"{line['shard']}, found {line['times']} in {line['at']}"
        for line in wrong.head(SHOWN).iter_rows(named=True)
    ]


def _amounts_off(both: pl.DataFrame, column: str) -> list[str]:
    """Samples of which the shards hold other amounts than the index says."""
    what = column.removeprefix("num_")
    said = pl.col(column).cast(pl.Int64) * pl.col("copies").cast(pl.Int64)
    off = both.filter(pl.col(what) != said)
    return [
        f"{line['id']} ({line['split']}): the index says {line['copies']} x {line[column]} "
        f"{what}, the shards hold {line[what]}"
        for line in off.head(SHOWN).iter_rows(named=True)
    ]


def _sequences(table: Any) -> tuple[pl.DataFrame, int]:
    """(A line per sequence of a shard: id, row, tokens, learned; crops of all its images)."""
    table = table.combine_chunks()
    rows = pl.DataFrame(table.select(["sample_ids", "seq_lengths"])).with_row_index("row")
    both = rows.explode("sample_ids", "seq_lengths", empty_as_null=False, keep_nulls=False)
    mask = pl.Series(table["loss_mask"].combine_chunks().flatten()).to_numpy()
    lengths = both["seq_lengths"].to_numpy().astype(np.int64)
    if lengths.sum() != len(mask):
        raise ValueError(f"{int(lengths.sum()):,} tokens by seq_lengths, {len(mask):,} in masks")
    running = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    ends = np.cumsum(lengths)
    lines = pl.DataFrame(
        {
            "id": both["sample_ids"],
            "row": both["row"],
            "tokens": lengths,
            "learned": running[ends] - running[ends - lengths],
        }
    )
    grids = pl.DataFrame({"grid": pl.Series(table["grids"].combine_chunks().flatten())})
    cells = pl.col("grid").struct.field("rows").cast(pl.Int64) * pl.col("grid").struct.field("cols")
    return lines, int(grids.select((cells + 1).sum()).item() or 0)


def _ratios(mixture: Finished) -> Iterator[str]:
    settings = mixture.recipe["mixture"]
    if settings["on_shortage"] == "redistribute":
        return
    names = {"tokens": "num_tokens", "learned_tokens": "num_learned"}
    unit = pl.col(names[settings["measure"]]) if settings["measure"] in names else pl.lit(1)
    amounts: Counter[str] = Counter()
    largest = 0  # one sample of a component's own, and its share of the one the whole may miss
    for some in mixture.lines(["component", "split", "copies", *names.values()]):
        used = some.filter((pl.col("split") == "train") & (pl.col("copies") > 0))
        units = used.select("component", "copies", unit=unit.cast(pl.Int64))
        sums = units.group_by("component").agg((pl.col("unit") * pl.col("copies")).sum())
        amounts.update(dict(sums.iter_rows()))
        largest = max(largest, int(units["unit"].max() or 0))  # type: ignore[arg-type]
    whole = amounts.total()
    for name, component in settings["components"].items():
        got, target = amounts[name], component["ratio"] * whole
        if abs(got - target) > largest:
            yield (
                f"component {name}: {got:,} {settings['measure']}, its ratio {component['ratio']} "
                f"of {whole:,} is {target:,.0f}; off by more than a sample ({largest:,})"
            )


def _schedule(mixture: Finished) -> Iterator[str]:
    """Until every train row each component has given what its ratio asks until there, to a few
    samples, and to the rows that are packed together.
    """
    settings = mixture.recipe["mixture"]
    if not schedules_in(settings):
        return
    column = {"tokens": "tokens", "learned_tokens": "learned"}.get(settings["measure"])
    start, together, largest = 0, 1, 1
    streams: set[tuple[str, str, int]] = set()
    with divided(mixture.stats["read"]) as ranges:
        for name in mixture.shards.get("train", []):
            table = tables.read(mixture.path(name), columns=COUNTED)
            lines, _ = _sequences(table)
            ranges.add("shards", lines.with_columns(pl.col("row").cast(pl.Int64) + start))
            start += len(table)
            together = max(together, stretch_rows(len(table)) + 1)
        for some in mixture.lines(["id", "split", *STREAM, *AMOUNTS[1:]]):
            used = some.filter((pl.col("split") == "train") & (pl.col("copies") > 0))
            streams.update(used.select(STREAM).unique().iter_rows())
            if column:
                largest = max(largest, int(used[f"num_{column}"].max() or 0))  # type: ignore[arg-type]
            ranges.add("index", used.select("id", pl.col("component").cast(pl.String)))
        with divided(start, lines=ROWS) as places:
            whole = 0.0
            for sequences, index in ranges.each("shards", "index"):
                lines = sequences.join(index, on="id").select(
                    "row", "component", unit=column or pl.lit(1, pl.Int64)
                )
                whole += int(lines["unit"].sum())
                place = lines["row"].to_numpy() * places.ranges // max(1, start)
                places.put("rows", lines, place)
            furthest, mixed = _furthest(
                places, settings, rows=start, whole=whole, together=together
            )
    slack = 2 * len(streams) * largest + mixed
    for name, (off, row, got, due) in furthest.items():
        if off > slack:
            yield (
                f"component {name}: {got:,} {settings['measure']} until train row {row}, its "
                f"schedule asks for {due:,.0f}; off by more than {slack:,.0f}: what {together} "
                "rows that are packed together hold, and a few samples"
            )


def _furthest(
    places: Divided, settings: Mapping[str, Any], *, rows: int, whole: float, together: int
) -> tuple[dict[str, tuple[float, int, int, float]], float]:
    """(Component -> how far it is off where most, the train row, what it has until there and what
    is due; the most that `together` neighbouring rows hold). `places` has a line per sequence of
    the `rows`, divided by them.
    """
    names = list(settings["components"])
    code = pl.DataFrame({"component": names}).with_row_index("code")
    so_far = np.zeros(len(names))
    furthest = dict.fromkeys(names, (-1.0, 0, 0, 0.0))
    mixed, tail, start = 0.0, np.zeros(0), 0
    for number, (lines,) in enumerate(places.each("rows")):
        stop = -(-rows * (number + 1) // places.ranges)
        found = lines.join(code, on="component")
        cell = (found["row"].to_numpy() - start) * len(names) + found["code"].to_numpy()
        units = np.bincount(cell, found["unit"].to_numpy(), (stop - start) * len(names))
        through = so_far + np.cumsum(units.reshape(-1, len(names)), axis=0)  # [rows, components]
        here = units.reshape(-1, len(names)).sum(axis=1)
        asked = asked_along(settings, through.sum(axis=1) / whole)
        for n, name in enumerate(names):
            off = np.abs(through[:, n] - asked[name] * whole)
            row = int(off.argmax())
            if off[row] > furthest[name][0]:
                due = float(asked[name][row] * whole)
                furthest[name] = float(off[row]), start + row, int(through[row, n]), due
        window = np.concatenate([tail, here])
        sums = np.convolve(window, np.ones(min(together, len(window))))
        mixed, tail = max(mixed, float(sums.max())), window[max(0, len(window) - together + 1) :]
        so_far, start = through[-1], stop
    return furthest, mixed
