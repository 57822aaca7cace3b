"""report.html: the mixture to look at, in one file that needs no network.

| function | gives                                                                          |
|----------|--------------------------------------------------------------------------------|
| report   | the whole page: asked and got, flow, plots, a gallery of rows and of rejections |
| page     | only the gallery, of one row, sample, rule or component (`show --html`)        |

The page is a pure function of the finished mixture: it shows what the shards hold, and of rejected
samples no content, since `push` publishes it. `show --html` makes pages beside it, which show
rejected samples as `work` has them. Text of datasets reaches it only through autoescaping, and a
content security policy allows no script but the page's own. Images are small copies; the crop grid
is drawn over them.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from mixtures import draw
from pipelines.engine import tables
from pipelines.report import plots
from pipelines.report.card import MEASURES, human_amount, human_epochs, percent, rule_meaning
from pipelines.report.finished import Finished
from pipelines.report.leaks import leak_view, leaks_of, matched_views
from pipelines.report.near_pairs import near_pairs
from pipelines.report.row_view import SampleView, frame_times, sample_views, visible_text
from pipelines.report.tails import tails
from pipelines.report.thumbnails import Budget, contact_sheets, sheet_summary, thumbnail
from tokenization import pages

ROWS = 12
"""Packed rows in the gallery, chosen so that every component is in it."""
REJECTED = 4
"""Samples shown of each rule."""
TURNS, CHARACTERS, IMAGES = 12, 2000, 6
"""Of a rejected sample, at most: turns, characters of each, images."""
STILL, FRAME = 512, 192
"""px, longer side of an image's copy; a video frame's."""
NO_VAL: Mapping[str, Any] = {"components": {}}
"""Of a mixture built before val was counted beside train."""
LOCAL = re.compile(r"<!--local-->.*?<!--/local-->", re.DOTALL)
"""Of the page; texts of datasets are escaped and cannot hold it."""
MEASURED = 600
"""Images whose sizes are plotted."""


def report(
    mixture: Finished, *, work: str = "", matched: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """The whole page, under 10 MB. Of rejected samples it says rule and id; with `work`, where the
    build kept them, it shows them too, and is not to be published. `matched`: `matched_views`,
    whose `local` part `published` takes out.
    """
    budget = Budget()
    rules = list(mixture.stats["rejected"])
    refused = list(rejected_views(mixture, rules, work=work, budget=budget, most=REJECTED))
    rows = row_views(mixture, chosen_rows(mixture), budget=budget)
    stats = mixture.stats
    return render(
        mixture,
        rows=rows,
        refused=refused,
        budget=budget,
        flow=[
            plots.flow(stats, title="Samples from the components to the shards", narrow=narrow)
            for narrow in (False, True)
        ],
        plots=list(stat_plots(mixture)),
        sheets=contact_sheets(mixture),
        pairs=near_pairs(mixture),
        tails=tails(mixture, work=work),
        matched=matched_views(mixture, work=work) if matched is None else matched,
    )


def published(page: str) -> str:
    """The page without what is shown only where the mixture was built: what benchmarks ask, and
    the samples beside it.
    """
    return LOCAL.sub("", page)


def page_of(
    mixture: Finished,
    *,
    work: str,
    row: int = 0,
    split: str = "train",
    id: str = "",
    rule: str = "",
    component: str = "",
) -> str:
    """The page of one packed row, of the rows of a sample or component, or of a rule's samples.

    Raises:
        ValueError: no such row, sample, rule or component.
    """
    budget, refused = Budget(), []
    places: list[tuple[str, int]] = []
    if id:
        places = mixture.find(id)
        if not places:
            refused = [sample_view(mixture, id, work=work, budget=budget)]
    elif rule:
        refused = list(rejected_views(mixture, [rule], work=work, budget=budget, most=40))
    elif component:
        places = chosen_rows(mixture, component=component)
    else:
        shard, within, _ = mixture.row(row, split=split)
        places = [(shard, within)]
    rows = row_views(mixture, places[:ROWS], budget=budget)
    lists: dict[str, Any] = {key: [] for key in ("flow", "plots", "tails", "matched", "pairs")}
    return render(mixture, rows=rows, refused=refused, budget=budget, sheets={}, **lists)


@cache
def _template() -> Any:
    """The compiled page.html.jinja, which escapes what it is given."""
    return pages.template(
        Path(__file__).with_name("page.html.jinja"),
        amount=human_amount,
        percent=percent,
        times=human_epochs,
        meaning=lambda rule: rule_meaning(rule).replace("`", ""),
        visible=visible_text,
        on_sheet=sheet_summary,
    )


def render(mixture: Finished, **parts: Any) -> str:
    """The template filled; everything but the plots is escaped."""
    folder = Path(__file__).parent
    script = (folder / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        stats=mixture.stats,
        recipe=mixture.recipe,
        measures=MEASURES,
        most=largest_share(mixture.stats),
        held_out=mixture.stats.get("held_out"),
        texts=mixture.stats.get("texts"),
        alike=mixture.stats.get("alike"),
        checked=mixture.stats.get("contamination", {"lists": {}, "unmade": []}),
        style=pages.css() + (folder / "page.css").read_text(),
        styles=pages.place_styles([list(mixture.stats["components"])]),
        script=script,
        script_hash=digest,
        **parts,
    )


def largest_share(stats: Mapping[str, Any]) -> float:
    """The largest share asked or got of any component in any measure, in train or val: the length
    of a full bar.
    """
    shares = [stats["components"][name]["got"] for name in stats["components"]]
    shares += [part["share"] for part in stats.get("held_out", NO_VAL)["components"].values()]
    asked = [part["asked"] for part in stats["components"].values()]
    return max([*asked, *(max(share.values()) for share in shares)], default=1.0) or 1.0


def stat_plots(mixture: Finished) -> Iterator[dict[str, str]]:
    """Title, note and SVG of each plot that has something to show."""
    histograms = mixture.stats["histograms"]
    for key, title, unit in (
        ("tokens", "Tokens of a sample", "tokens"),
        ("learned_share", "Learned share of a sample", "learned tokens / tokens"),
        ("crops", "Crops of a sample", "crops"),
        ("seconds", "Length of a video", "seconds"),
        ("fill", "Fill of the packed rows", "tokens / seq_len"),
    ):
        if sum(histograms[key]["counts"]):
            names = list(mixture.stats["components"])
            drawn = plots.histogram(histograms[key], title=title, unit=unit, components=names)
            note = "rows" if key == "fill" else "samples in the train split, each once"
            yield {"title": title, "note": note, "svg": drawn}
    yield from text_plots(mixture)
    yield from fact_plots(mixture)
    if "schedule" in mixture.stats:
        title = "Ratios along the run"
        drawn = plots.schedule(mixture.stats["schedule"], title=title)
        yield {"title": title, "note": "asked: lines; got: points", "svg": drawn}
    elif len(mixture.stats["prefix"]["at"]) > 1:
        title = "Every prefix is the mixture"
        drawn = plots.prefix(mixture.stats["prefix"], title=title)
        note = f"shares so far, in {mixture.stats['measure'].replace('_', ' ')}"
        yield {"title": title, "note": note, "svg": drawn}
    sizes = image_sizes(mixture)
    if sizes:
        title = "Sizes of images"
        drawn = plots.sizes(*zip(*sizes, strict=True), title=title)
        yield {"title": title, "note": f"{len(sizes):,} images of the shards", "svg": drawn}


def text_plots(mixture: Finished) -> Iterator[dict[str, str]]:
    """The same of the lengths of questions and answers, in the samples drawn."""
    found = mixture.stats.get("texts", {})
    names = list(mixture.stats["components"])
    for key, title in (("questions", "Length of a question"), ("answers", "Length of an answer")):
        if key in found and sum(found[key]["counts"]):
            drawn = plots.histogram(found[key], title=title, unit="tokens", components=names)
            looked = sum(found["sample"]["components"].values())
            note = f"{key} of {looked:,} samples, at most {found['sample']['each']} of a component"
            yield {"title": title, "note": note, "svg": drawn}


def fact_plots(mixture: Finished) -> Iterator[dict[str, str]]:
    """The same of the facts that annotations give."""
    names = list(mixture.stats["components"])
    for fact, counts in mixture.stats.get("facts", {}).items():
        drawn = plots.histogram(counts, title=fact, unit=fact, components=names)
        note = f"{sum(counts['counts']):,} samples read that have it, by annotations; the first "
        note += "and last bar hold what lies beyond"
        yield {"title": fact, "note": note, "svg": drawn}


def image_sizes(mixture: Finished) -> list[tuple[int, int]]:
    """(width, height) in px of up to MEASURED images, from rows spread over the train shards."""
    from tokenization.images import image_size

    found: list[tuple[int, int]] = []
    shards = mixture.shards["train"]
    for shard in shards[:: max(1, len(shards) // 8)]:
        reader = tables.open_file(mixture.path(shard), columns=["images"])
        step = max(1, reader.num_record_batches // 4)
        for number in range(0, reader.num_record_batches, step):
            images = reader.get_batch(number)["images"].flatten().field("bytes")
            stride = max(1, len(images) // 64)
            found += [image_size(images[k].as_py()) for k in range(0, len(images), stride)]
        if len(found) >= MEASURED:
            break
    return found[:MEASURED]


def chosen_rows(mixture: Finished, *, component: str = "") -> list[tuple[str, int]]:
    """(shard, row) of up to ROWS packed rows that hold samples of every component and subset.

    Samples are taken in turns: one of each component, each time of another subset, by a hash of
    their ids.
    """
    from pipelines.report.show import known_component

    most = 4 * ROWS
    if component:
        known_component(mixture, component)
    first = pl.col("id", "draw").bottom_k_by("draw", most)
    of = ("component", "subset")
    used = pl.DataFrame(schema={**dict.fromkeys([*of, "id"], pl.String), "draw": pl.UInt64})
    for lines in mixture.lines([*of, "copies", "shard", "id"]):
        some = lines.filter((pl.col("copies") > 0) & (pl.col("shard").list.len() > 0))
        if component:
            some = some.filter(pl.col("component") == component)
        drawn = draw.rehash(draw.sample_keys(some["id"], seed=0), "gallery")
        named = some.select(pl.col(*of).cast(pl.String), "id", draw=pl.Series(drawn))
        used = pl.concat([used, named]).group_by(of).agg(first).explode("id", "draw")
    turn = pl.int_range(pl.len()).over(of).alias("turn")
    again = pl.int_range(pl.len()).over("component").alias("again")
    used = used.sort("draw").with_columns(turn).sort("turn", "draw")
    ids = used.with_columns(again).sort("again", "draw")["id"].head(most)
    mixture.remember(ids)
    places: list[tuple[str, int]] = []
    for sample in ids:
        place = mixture.find(sample)[0]
        if place not in places:
            places.append(place)
        if len(places) == ROWS:
            break
    return sorted(places)


def row_views(
    mixture: Finished, places: Sequence[tuple[str, int]], *, budget: Budget
) -> list[dict[str, Any]]:
    """Packed rows as the template shows them."""
    rows = [(shard, within, mixture.rows(shard, [within])[0]) for shard, within in places]
    mixture.remember(sample for _, _, row in rows for sample in row["sample_ids"])
    return [row_view(mixture, *place, budget=budget) for place in rows]


def row_view(
    mixture: Finished, shard: str, within: int, row: dict[str, Any], *, budget: Budget
) -> dict[str, Any]:
    """A packed row as the template shows it: its limits and its samples."""
    encoding = mixture.recipe["mixture"]["encoding"]
    found = sample_views(row, mixture.tokenizer, tokens_per_crop=encoding["tokens_per_crop"])
    return {
        "title": f"{shard}, row {within}",
        "tokens": len(row["input_ids"]),
        "seq_len": encoding["seq_len"],
        "learned": sum(row["loss_mask"]),
        "crops": sum(grid["rows"] * grid["cols"] + 1 for grid in row["grids"]),
        "max_crops": encoding["max_crops"],
        "samples": [piece_view(mixture, piece, row, budget=budget) for piece in found],
    }


def piece_view(
    mixture: Finished, piece: SampleView, row: Mapping[str, Any], *, budget: Budget
) -> dict[str, Any]:
    """A sample of a packed row: where it is from, and its spans with their images."""
    line = mixture.line(piece.id)
    when = frame_times(piece.spans)
    spans = []
    for span in piece.spans:
        view: dict[str, Any] = {"kind": span.kind, "text": span.text, "learned": span.learned}
        if span.kind == "image":
            grid = row["grids"][span.image]
            view |= {
                "rows": grid["rows"],
                "cols": grid["cols"],
                "tokens": span.tokens,
                "when": when.get(span.image, ""),
                **thumbnail(
                    row["images"][span.image]["bytes"],
                    longest=FRAME if span.image in when else STILL,
                    budget=budget,
                ),
            }
        spans.append(view)
    return {
        "id": piece.id,
        "component": line["component"],
        "subset": line["subset"],
        "modality": line["modality"],
        "tokens": piece.num_tokens,
        "learned": piece.num_learned,
        "copies": line["copies"],
        "leaks": leak_views(mixture, line, budget=budget),
        "spans": spans,
        "rejected": piece.rejected,
    }


def rejected_views(
    mixture: Finished, rules: Sequence[str], *, work: str, budget: Budget, most: int
) -> Iterator[dict[str, Any]]:
    """Samples that each rule removed (or marked, if it removes none), of each component in turn."""
    from pipelines.report.show import of_rules

    found = of_rules(mixture, rules, most=most)
    turn = pl.int_range(pl.len()).over("component").alias("turn")
    shown = {
        rule: of.first.with_columns(turn).sort("turn", "line")["id"].head(most)
        for rule, of in found.items()
    }
    mixture.remember(sample for ids in shown.values() for sample in ids)
    for rule, ids in shown.items():
        for sample in ids:
            yield {**sample_view(mixture, sample, work=work, budget=budget), "shown_for": rule}


def sample_view(mixture: Finished, sample: str, *, work: str, budget: Budget) -> dict[str, Any]:
    """A sample in no shard: its reason, and its turns and images as read, where `work` has it;
    without `work` its reason alone.
    """
    line = mixture.line(sample)
    read = (mixture.sample(sample, work=work) if work else None) or {}
    messages, images = read.get("messages") or [], read.get("images") or []
    turns, copies = [], []
    for message in messages[:TURNS]:
        parts = message["content"] or []
        text = " ".join("[image]" if p["type"] == "image" else p["text"] or "" for p in parts)
        turns.append({"role": message["role"], "text": shorten_text(text)})
    for image in images[:IMAGES]:
        if image["bytes"] is None:
            size = {"width": image["width"], "height": image["height"]}
            copies.append({"source": "", "note": "does not decode", **size})
        else:
            copies.append(thumbnail(image["bytes"], longest=320, budget=budget))
    return {
        "id": sample,
        "component": line["component"],
        "rule": line["rule"] or "",
        "shown_for": line["rule"] or "",
        "fired": [rule for rule in line["fired"] or [] if rule != line["rule"]],
        "part": line["part"],
        "row": line["row"],
        "found": bool(read),
        "withheld": not work,
        "more_turns": len(messages) - len(turns),
        "more_images": len(images) - len(copies),
        "turns": turns,
        "images": copies,
        "leaks": leak_views(mixture, line, budget=budget) if work else [],
    }


def leak_views(
    mixture: Finished, line: Mapping[str, Any], *, budget: Budget
) -> list[dict[str, Any]]:
    """The items of benchmarks that a sample has."""
    found = leaks_of(mixture, [line]).get(line["id"], [])
    return [leak_view(leak, budget=budget) for leak in found]


def shorten_text(text: str) -> str:
    """The text, or its beginning and how much was cut."""
    over = len(text) - CHARACTERS
    return text if over <= 0 else f"{text[:CHARACTERS]} [... {over:,} characters more]"
