"""The main path: a mixture's name in, a finished mixture out.

| step    | what is true afterwards                                                |
|---------|------------------------------------------------------------------------|
| survey  | the parts of every component and what determines each; nothing is read |
| run     | ingest, judge, encode of every part that was not in `work`       (Ray) |
| index   | one line per sample ever read, with its verdict and counts             |
| pick    | how often each sample is used; its copies are dealt to shards          |
| run     | pack: the shards are written                                     (Ray) |
| publish | index, card and, last, `recipe.json`, which marks the mixture finished |
"""

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

import filters
from mixtures import pick as picking
from mixtures.config import Component, Mixture, check_licences, encoding_of, rules_of, to_yaml
from pipelines import card, recipe, sources, tables
from pipelines.clean import refer
from pipelines.finished import finished_of
from pipelines.report import report
from pipelines.runner import File, Report, Task, connected, run
from pipelines.sources import Part
from pipelines.sources.table import terms_of
from pipelines.stages import STAGES
from pipelines.stats import row_facts
from pipelines.stats import stats as stats_of
from tokenization.schema import Encoding


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a build runs; nothing in it enters a fingerprint."""

    output: str
    work: str = "out/work"
    data: str = ""
    """A local mirror of hub repositories (`MIRROR/<org>/<name>/`); empty: the hub."""
    ray: str = "local"
    workers: int | None = None
    """CPUs to use; 0: this process alone, without Ray; None: all there are."""
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a component, and the files it becomes."""

    component: str
    part: Part
    samples: str
    verdicts: str
    tokens: str
    rules: list[tuple[str, dict[str, Any]]]
    weight_by: str
    encoding: Encoding


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a build would do: the pieces in order, and the recipe that determines their content."""

    pieces: list[Piece]
    recipe: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that determines the mixture; its name is not part of it."""
        return str(self.recipe["fingerprint"])


def survey(mixture: Mixture, place: Place) -> Survey:
    """The parts of every component, without reading a sample.

    Raises:
        ValueError: an unknown source, rule or subset.
        FileNotFoundError: data that is not there.
    """
    check_licences(mixture, {n: terms_of(c.source) for n, c in mixture.components.items()})
    pieces = [p for name in mixture.components for p in pieces_of(mixture, name, place)]
    inputs = {f"{p.component}/{p.part.subset}": p.part.identity for p in pieces}
    return Survey(pieces=pieces, recipe=recipe_of(mixture, inputs))


def pieces_of(mixture: Mixture, name: str, place: Place) -> list[Piece]:
    """The parts of one component, and the files they become."""
    component = mixture.components[name]
    rules = list(checked_rules(mixture, name).items())
    encoding = encoding_of(mixture, name)
    parts = sources.list_parts(
        component=name,
        source=component.source,
        subsets=component.subsets,
        data=component.data,
        media=component.media,
        mirror=place.data or None,
        select={
            subset: {"keep": settings.keep, "max_samples": settings.max_samples}
            for subset, settings in component.subsets.items()
        },
        frames={**asdict(component.frames), "size": encoding.crop_size},
        seed=mixture.seed,
    )
    repairs = filters.identity(filters.rewriting(dict(rules)))
    judging = [filters.identity(dict(rules)), mixture.weight_by]
    pieces = []
    for part in parts:
        read = recipe.fingerprint("ingest", STAGES["ingest"].identity, part.identity)
        judged = recipe.fingerprint(read, "judge", STAGES["judge"].identity, judging)
        encoded = recipe.fingerprint(read, "encode", STAGES["encode"].identity, encoding, repairs)
        file = f"{part.number:05d}.arrow"
        pieces.append(
            Piece(
                component=name,
                part=part,
                samples=tables.join(place.work, "samples", read, file),
                verdicts=tables.join(place.work, "verdicts", judged, file),
                tokens=tables.join(place.work, "tokens", encoded, file),
                rules=rules,
                weight_by=mixture.weight_by,
                encoding=encoding,
            )
        )
    return pieces


def checked_rules(mixture: Mixture, component: str) -> dict[str, dict[str, Any]]:
    """The component's rules in order, each known and each setting of its type; else ValueError."""
    filters.validate(mixture.filters, where=f"{mixture.name}: filters")
    rules = rules_of(mixture, component)
    filters.validate_weight(mixture.weight_by, rules=rules, where=mixture.name)
    filters.validate(rules, where=f"{mixture.name}: components.{component}.filters")
    return rules


def recipe_of(mixture: Mixture, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `recipe.json` holds: the resolved mixture, its inputs, versions, and the fingerprint."""
    resolved = recipe.plain(mixture)
    versions: dict[str, Any] = {name: spec.identity for name, spec in STAGES.items()}
    versions["rules"] = {
        name: filters.identity(rules_of(mixture, name)) for name in mixture.components
    }
    content = {"mixture": resolved, "inputs": inputs, "versions": versions}
    return {
        "name": mixture.name,
        "fingerprint": recipe.fingerprint(recipe.identity(content)),
        "mixture": resolved,
        "sources": {
            name: described(name, component, inputs)
            for name, component in mixture.components.items()
        },
        "inputs": inputs,
        "versions": versions,
        "packages": packages(),
    }


def described(name: str, component: Component, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the card says of a component's source; its revision is the commit that was read."""
    about = sources.describe(component.source)
    mine = [value for key, value in inputs.items() if key.startswith(f"{name}/")]
    commits = [identity["revision"] for identity in mine if "revision" in identity]
    return {**about, "revision": commits[0]} if commits else about


def packages() -> dict[str, str]:
    """Versions of the packages whose behaviour shows in the result."""
    from importlib.metadata import version

    names = (
        "datasets",
        "datatrove",
        "pillow",
        "polars",
        "pyarrow",
        "ray",
        "tokenizers",
        "transformers",
    )
    return {name: version(name) for name in names}


def standing(place: Place) -> dict[str, Any] | None:
    """The recipe of the mixture that stands finished at `output`, or None."""
    path = tables.join(place.output, "recipe.json")
    return tables.read_json(path) if tables.exists(path) else None


def refuse_drift(found: dict[str, Any], now: dict[str, Any], place: Place) -> None:
    """Raises ValueError where another recipe's mixture stands at `output`, naming what changed."""
    keys = ("mixture", "inputs", "versions")
    changed = recipe.drift({k: found.get(k) for k in keys}, {k: now[k] for k in keys})
    shown = "\n  ".join(changed[:8]) + (f"\n  and {len(changed) - 8} more" if changed[8:] else "")
    raise ValueError(
        f"{place.output} holds mixture '{found['name']}' made by another recipe "
        f"({found['fingerprint']}, now {now['fingerprint']}):\n  {shown}\n"
        "Say overwrite=true to replace it, or name=ANOTHER (or output=DIR) to keep both."
    )


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Only this build writes in `folder` (a local one: an object store has no locks)."""
    if tables.is_remote(folder):
        yield
        return
    path = Path(folder.removeprefix("file://"))
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another build is writing {folder}; waiting for it to end.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(mixture: Mixture, place: Place) -> dict[str, Any]:
    """The finished mixture stands at `place.output`; returns its stats.

    Raises:
        ValueError: a mistake in the mixture, a shortage, or another recipe's mixture at `output`.
    """
    begun = time.monotonic()
    todo = survey(mixture, place)
    with locked(place.output):
        found = standing(place)
        if found is not None:
            if found["fingerprint"] == todo.fingerprint:
                print(f"{place.output} is finished (recipe {todo.fingerprint}); nothing to do.")
                return dict(tables.read_json(tables.join(place.output, "stats.json")))
            if not place.overwrite:
                refuse_drift(found, todo.recipe, place)
        with connected(place.ray, workers=place.workers) as slots:
            reports = run(tasks_of(todo.pieces), slots=slots)
            index = picked(todo.pieces, mixture)
            copies = picking.deal(index, mixture)
            index = picking.with_shards(index, copies)
            clear(place, todo.fingerprint)
            reports += run(pack_tasks(copies, index, todo.pieces, mixture, place), slots=slots)
        stats = publish(index, todo, mixture, place)
    write_timings(reports, place, seconds=time.monotonic() - begun)
    return stats


def picked(pieces: Sequence[Piece], mixture: Mixture) -> pl.DataFrame:
    """The index with the reason, split and number of copies of every sample read."""
    index = index_of(pieces, mixture)
    return picking.pick(index, mixture, rows=whole_rows(pieces), licences=licences_of(mixture))


def whole_rows(pieces: Sequence[Piece]) -> dict[tuple[str, str], int]:
    """(component, subset) -> rows of the subset, where only some of its parts are read."""
    rows: dict[tuple[str, str], float] = {}
    for p in pieces:
        if p.part.share < 1:
            key = (p.component, p.part.subset)
            rows[key] = rows.get(key, 0.0) + tables.num_rows(p.verdicts) / p.part.share
    return {key: round(count) for key, count in rows.items()}


def licences_of(mixture: Mixture) -> dict[str, str]:
    """Component -> the licence of its source."""
    return {
        name: sources.describe(component.source)["licence"]
        for name, component in mixture.components.items()
    }


def tasks_of(pieces: Sequence[Piece]) -> list[Task]:
    """Ingest, judge and encode of every part; equal files of two components are made once."""
    tasks: dict[str, Task] = {}
    for p in pieces:
        part = p.part.name
        samples = File(p.samples)
        for task in (
            Task(stage=STAGES["ingest"], part=part, settings={"part": p.part}, out=p.samples),
            Task(
                stage=STAGES["judge"],
                part=part,
                settings={"samples": samples, "rules": p.rules, "weight_by": p.weight_by},
                out=p.verdicts,
                after=(p.samples,),
            ),
            Task(
                stage=STAGES["encode"],
                part=part,
                settings={
                    "samples": samples,
                    "encoding": p.encoding,
                    "rewriting": list(filters.rewriting(dict(p.rules)).items()),
                },
                out=p.tokens,
                after=(p.samples,),
            ),
        ):
            tasks.setdefault(task.out, task)
    return list(tasks.values())


def index_of(pieces: Sequence[Piece], mixture: Mixture) -> pl.DataFrame:
    """One line per sample read, with the first reason it must go, before anything is picked.

    Reads: verdicts and the counts beside the ids. The order of reasons: the defect or rule of the
    sample itself, then what prevents its encoding, `too_long`, then the rules on the whole mixture.
    """
    frames = []
    counts = ["id", "num_tokens", "num_learned", "num_crops", "problem", "splittable"]
    for number, p in enumerate(pieces):
        verdicts = pl.DataFrame(tables.read(p.verdicts))
        tokens = pl.DataFrame(tables.read(p.tokens, columns=counts))
        if not verdicts["id"].equals(tokens["id"]):
            raise AssertionError(f"{p.verdicts} and {p.tokens} hold other rows")
        frames.append(
            verdicts.hstack(tokens.drop("id")).with_columns(
                source=pl.lit(p.part.source),
                component=pl.lit(p.component),
                subset=pl.lit(p.part.subset),
                part=pl.lit(p.part.name),
                piece=pl.lit(number, pl.Int32),
                row=pl.int_range(pl.len(), dtype=pl.Int32),
                tags=pl.concat_list(
                    pl.col("tags").fill_null([]),
                    pl.lit(mixture.components[p.component].tags, pl.List(pl.String)),
                ),
                seq_len=pl.lit(p.encoding.seq_len),
                max_crops=pl.lit(p.encoding.max_crops),
            )
        )
    index = pl.concat(frames)
    refuse_repeats(index)
    too_long = filters.RULES["too_long"].function()
    problem = pl.coalesce("rule", "problem", pl.when(too_long).then(pl.lit("too_long")))
    index = index.with_columns(rule=problem, priority=priorities(mixture))
    own = {name: c.filters for name, c in mixture.components.items()}
    taken = filters.mixture_rules(index, settings=mixture.filters, components=without_off(own))
    return with_taken(index, taken)


def without_off(rules: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Component -> its own rules, without those of the mixture that it turns off."""
    return {
        name: {rule: settings for rule, settings in own.items() if settings is not False}
        for name, own in rules.items()
    }


def priorities(mixture: Mixture) -> pl.Expr:
    """Of two duplicates the one of the smaller number stays: by `priority`, then as in the file."""
    names = sorted(mixture.components, key=lambda name: -mixture.components[name].priority)
    return pl.col("component").replace_strict({name: i for i, name in enumerate(names)})


def with_taken(index: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """The index with what the rules on the whole mixture took (`mode` drop) or marked."""
    fired = taken.group_by("id", maintain_order=True).agg(also=pl.col("rule"))
    dropped = taken.filter(mode="drop").select("id", later="rule", why="detail")
    return (
        index.join(dropped, on="id", how="left", maintain_order="left")
        .join(fired, on="id", how="left", maintain_order="left")
        .with_columns(
            rule=pl.coalesce("rule", "later"),
            detail=pl.coalesce("detail", "why"),
            fired=pl.concat_list(pl.col("fired").fill_null([]), pl.col("also").fill_null([])),
        )
        .drop("later", "why", "also")
    )


def refuse_repeats(index: pl.DataFrame) -> None:
    """Raises ValueError where two components read the same sample: it would be counted twice."""
    twice = index.filter(pl.col("id").is_duplicated())
    if len(twice):
        first = twice["id"][0]
        names = twice.filter(pl.col("id") == first)["component"].to_list()
        raise ValueError(
            f"components {', '.join(dict.fromkeys(names))} read the same samples ({first} and "
            f"{twice['id'].n_unique() - 1:,} more). A subset belongs to one component: name other "
            "subsets in one of them."
        )


def clear(place: Place, fingerprint: str) -> None:
    """`output` holds nothing of another recipe; shards of this one, from a run cut short, stay."""
    marker = tables.join(place.output, ".building.json")
    if tables.exists(marker) and tables.read_json(marker) == {"fingerprint": fingerprint}:
        return
    for name in ("recipe.json", "shards"):
        tables.remove(tables.join(place.output, name))
    tables.write_json(marker, {"fingerprint": fingerprint})


def shard_path(place: Place, split: str, shard: int) -> str:
    """`DIR/shards/train-00000.arrow`."""
    return tables.join(place.output, "shards", f"{split}-{shard:05d}.arrow")


def pack_tasks(
    copies: pl.DataFrame,
    index: pl.DataFrame,
    pieces: Sequence[Piece],
    mixture: Mixture,
    place: Place,
) -> list[Task]:
    """One task per shard, with the rows it must gather in deal order."""
    where = index.select("piece", "row")[copies["index_row"]]
    dealt = copies.hstack(where).sort("split", "shard", "order")
    tasks = []
    for (split, shard), group in dealt.group_by(["split", "shard"], maintain_order=True):
        used, part = np.unique(group["piece"].to_numpy(), return_inverse=True)
        picks = pa.table(
            {
                "part": pa.array(part.astype(np.int32)),
                "row": pa.array(group["row"].to_numpy()),
            }
        )
        tasks.append(
            Task(
                stage=STAGES["pack"],
                part=f"{split}-{shard:05d}",
                settings={
                    "picks": picks,
                    "parts": [(pieces[i].samples, pieces[i].tokens) for i in used],
                    "encoding": mixture.encoding,
                    "seed": mixture.seed + int(shard),
                },
                out=shard_path(place, str(split), int(shard)),
            )
        )
    return tasks


def publish(index: pl.DataFrame, todo: Survey, mixture: Mixture, place: Place) -> dict[str, Any]:
    """Everything beside the shards is written, `recipe.json` last; returns the stats."""
    shards = tables.join(place.output, "shards")
    facts = [
        row_facts(tables.read(tables.join(shards, name)), shard=name)
        for name in tables.listing(shards)
        if name.endswith(".arrow")
    ]
    narrow = picking.as_table(index)
    found = stats_of(pl.DataFrame(narrow), pl.concat(facts), todo.recipe)
    tables.write(narrow, tables.join(place.output, "index.arrow"), rows_per_batch=1 << 16)
    tables.write_json(tables.join(place.output, "stats.json"), found)
    tables.write_text(tables.join(place.output, "mixture.yaml"), to_yaml(mixture))
    tables.write_text(tables.join(place.output, "README.md"), card.card(found, todo.recipe))
    save_tokenizer(mixture.encoding, place)
    page = report(finished_of(place.output, recipe=todo.recipe, stats=found), work=place.work)
    tables.write_text(tables.join(place.output, "report.html"), page)
    tables.write_json(tables.join(place.output, "recipe.json"), todo.recipe)
    tables.remove(tables.join(place.output, ".building.json"))
    used = [path for p in todo.pieces for path in (p.samples, p.verdicts, p.tokens)]
    refer(place.work, output=place.output, fingerprint=todo.fingerprint, files=used)
    return found


def save_tokenizer(encoding: Encoding, place: Place) -> None:
    """`DIR/tokenizer/` holds the tokenizer as `transformers` saves it."""
    import tempfile

    from tokenization.vocab import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        for path in load_tokenizer(encoding.tokenizer).save_pretrained(folder):
            if Path(path).is_file():
                target = tables.join(place.output, "tokenizer", Path(path).name)
                tables.write_text(target, Path(path).read_text())


def write_timings(reports: Sequence[Report], place: Place, *, seconds: float) -> None:
    """`DIR/timings.json`: what each task of this run took. Not part of the mixture's identity."""
    value = {"seconds": round(seconds, 3), "tasks": [asdict(report) for report in reports]}
    tables.write_text(tables.join(place.output, "timings.json"), json.dumps(value, indent=1) + "\n")
