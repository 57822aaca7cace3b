"""What a build would do, before it does anything: supply and demand, size, time, training cost.

A component whose parts are all in `work` is *measured*: its supply is counted in the cache. Any
other is costed from recorded sizes (`mixtures/recorded.csv`); own files are known once read.
Nothing is downloaded; the hub is asked for its listing only with `hub=true`.
"""

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from mixtures import pick as picking
from mixtures import plan as costing
from mixtures.allocate import binding, human_count
from mixtures.checks import check_licences
from mixtures.config import Mixture, annotations_of, reads_all, schedules_of
from mixtures.mixture_file import load
from mixtures.optional import LeftOut, differences
from mixtures.reading import bundled_mixtures, variants_of
from pipelines.availability import Lack, settled
from pipelines.engine import tables
from pipelines.enough import read_whole
from pipelines.index import index_of, whole_rows
from pipelines.main_path import finished_recipe
from pipelines.survey import (
    Piece,
    Place,
    component_terms,
    licences_of,
    listing_of,
    pieces_of,
    source_of,
    told,
)
from tokenization.terminal import human_time, sentence

WIDTH = 100
"""Characters of a line."""
UNKNOWN = "is known before it is read: a build measures it."
"""How the sentence ends that names components of which only reading tells the size."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build would do; `str(plan)` is the text that the command prints."""

    mixture: str
    output: str
    can_be_finished: str
    """`yes`, `needs` and what, or that only reading tells."""
    components: pl.DataFrame
    """A line per component: `mixtures.plan.demand` has its columns."""
    expected: dict[str, float]
    """Of the train split: samples, tokens, learned, crops, bytes, rows, fill, shards."""
    training: pl.DataFrame
    """A line per model: FLOPs of one pass over it, hours of one GPU; empty where nothing is known
    of the sizes."""
    lacks: list[Lack] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    """A sentence per component that cannot fill its ratio."""
    text: str = ""

    def __str__(self) -> str:
        """At most 100 columns."""
        return self.text

    def data(self) -> dict[str, Any]:
        """What JSON can hold of it: all but the text."""
        rows = {"components": self.components.to_dicts(), "training": self.training.to_dicts()}
        parts = {"lacks": [asdict(lack) for lack in self.lacks],
                 "left_out": [asdict(left) for left in self.left_out]}  # fmt: skip
        names = ("mixture", "output", "can_be_finished", "expected", "short")
        return {**{name: getattr(self, name) for name in names}, **rows, **parts}

    def _repr_html_(self) -> str:
        """In a notebook: the text as it stands."""
        return f"<pre>{escape(self.text)}</pre>"


def plan(mixture: Mixture, place: Place, *, hub: bool, gpu: str, mfu: float) -> Plan:
    """The plan; nothing is run.

    Raises:
        ValueError: a mistake in the mixture. FileNotFoundError: data that is not there.
    """
    asked = mixture
    mixture, left_out, lacks = settled(asked, place, asking=hub)
    check_licences(mixture, component_terms(mixture))
    lacking = {lack.component for lack in lacks}
    listings = {
        name: listing_of(mixture, name, place)
        for name in mixture.components
        if name not in lacking and (hub or is_local(mixture, name, place))
    }
    pieces = pieces_of(mixture, listings, place)
    measured = [name for name, found in pieces.items() if found and all(map(is_cached, found))]
    supply = supply_of(mixture, {name: pieces[name] for name in measured})
    needs = costing.demand(supply, mixture)
    lines = [heading(mixture, place), "", *table(needs, mixture, pieces), ""]
    lines += finish_lines(mixture, left_out, lacks, shortage_lines(needs))
    lines += paragraph("", *binding(costing.planned_use(supply, mixture), mixture))
    expected = costing.totals(needs, mixture)
    training = training_of(expected, mixture, gpu=gpu, mfu=mfu)
    if expected["rows"]:
        lines += size_lines(expected, mixture, supply)
        lines += cost_lines(supply, expected, mixture, gpu=gpu, mfu=mfu)
    lines += work_lines(pieces, mixture)
    lines += [f"  {name}: {line}" for name, found in told(listings).items() for line in found]
    short = shortage_lines(needs)
    return Plan(
        mixture=mixture.name, output=place.output, can_be_finished=finish_word(lacks, short),
        components=needs, expected=expected,
        training=training if expected["rows"] else training.clear(),
        lacks=list(lacks), left_out=list(left_out), short=short, text="\n".join(lines),
    )  # fmt: skip


def finish_lines(
    mixture: Mixture, left_out: Sequence[LeftOut], lacks: Sequence[Lack], short: Sequence[str]
) -> list[str]:
    """`can be finished: yes`, or what it needs; what is left out; how a variant differs."""
    lines = paragraph("", f"can be finished: {finish_word(lacks, short)}")
    for lack in lacks:
        lines += paragraph("  ", f"{lack.component}: {sentence(lack.what)}")
        lines += paragraph("    ", f"way out: {sentence(lack.way)}")
    lines += [line for said in short for line in paragraph("  ", said)]
    lines += [line for left in left_out for line in paragraph("  ", left.sentence)]
    others = variants_of(mixture.name) if lacks else []
    for name in [mixture.variant_of] if mixture.variant_of else others:
        other = load(name, encoding=type(mixture.encoding))
        published = other if mixture.variant_of else mixture
        variant = mixture if mixture.variant_of else other
        shares = ", ".join(
            f"{component} {100 * was:.4g} -> {100 * now:.4g} %"
            for component, (was, now) in differences(variant, published).items()
        )
        head = (
            f"of {name} it differs" if mixture.variant_of else f"mixture={name} stands in; differs"
        )
        lines += paragraph("  ", f"{head} in shares: {shares}.")
    return [*lines, ""]


def finish_word(lacks: Sequence[Lack], short: Sequence[str]) -> str:
    """`yes`, `needs` and what, or that only reading tells."""
    if not lacks and short and all(said.endswith(UNKNOWN) for said in short):
        return "not known yet"
    if not lacks:
        return "yes" if not short else "not as it stands"
    return f"needs {', '.join(dict.fromkeys(lack.need for lack in lacks))}"


def paragraph(indent: str, *sentences: str) -> list[str]:
    """The sentences wrapped to WIDTH, each on lines of its own."""
    return [
        line
        for said in sentences
        for line in textwrap.wrap(
            said,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    ]


def overview(place: Place, *, encoding: type) -> list[dict[str, Any]]:
    """A line per bundled mixture: what it is made of, and whether it can be finished from here."""
    found = []
    for name in bundled_mixtures():
        asked = load(name, encoding=encoding)
        mixture, left_out, lacks = settled(asked, place, asking=False)
        supply = costing.recorded_supply(mixture, licences=licences_of(mixture))
        count, seconds = costing.videos(supply, mixture)
        word = finish_word(lacks, shortage_lines(costing.demand(supply, mixture)))
        if missing := [c.data for c in mixture.components.values() if c.data and gone(c.data)]:
            word = f"needs {missing[0]} and {len(missing) - 1} more of your files"
        if left_out:
            word += f"; without {', '.join(left.component for left in left_out)}"
        found.append({"mixture": name, "tokens": mixture.tokens, "can_be_finished": word,
                      "seconds_of_a_video": seconds if count else None})  # fmt: skip
    return found


def overview_table(lines: Sequence[dict[str, Any]]) -> str:
    """The same as text."""
    shown = [f"{'mixture':<30}{'tokens':>8}{'videos':>9}  can be finished", "-" * WIDTH]
    for line in lines:
        tokens, seconds = line["tokens"], line["seconds_of_a_video"]
        amount = tokens if isinstance(tokens, str) else human_count(tokens)
        length = f"{seconds / 60:.1f} min" if seconds is not None else "-"
        first, *more = textwrap.wrap(line["can_be_finished"], WIDTH - 49, break_long_words=False)
        shown.append(f"{line['mixture']:<30}{amount:>8}{length:>9}  {first}")
        shown += [" " * 49 + text for text in more]
    return "\n".join(shown)


def gone(data: str) -> bool:
    """Whether nothing lies at a local path; of a glob, where its first wildcard stands."""
    fixed = re.split(r"[*?]", data, maxsplit=1)[0]
    return "://" not in data and not Path(fixed if fixed == data else f"{fixed}x").parent.exists()


def is_local(mixture: Mixture, name: str, place: Place) -> bool:
    """True where the component's files can be listed without the hub."""
    component = mixture.components[name]
    if annotations_of(mixture, name).files.startswith("hf://") and not place.data:
        return False
    if component.data is not None:
        return True
    repository = source_of(component).hub
    return bool(place.data) and tables.exists(tables.join(place.data, repository))


def is_cached(piece: Piece) -> bool:
    """True where the part's verdicts and tokens are in `work`."""
    return tables.exists(piece.verdicts) and tables.exists(piece.tokens)


def supply_of(mixture: Mixture, measured: dict[str, list[Piece]]) -> pl.DataFrame:
    """Supply of every component: counted for the measured ones, recorded for the others."""
    others = {name: c for name, c in mixture.components.items() if name not in measured}
    recorded = costing.recorded_supply(
        replace(mixture, components=others), licences=licences_of(mixture)
    )
    if not measured:
        return recorded
    mine = replace(
        mixture,
        components={name: mixture.components[name] for name in measured},
        tokens="max",
        on_shortage="error",
    )
    index = index_of([p for found in measured.values() for p in found], mine)
    licences = licences_of(mine)
    rows = whole_rows([p for found in measured.values() for p in found])
    judged, supply = picking.apply_caps(index, mine, rows=rows, licences=licences)
    counted = supply.with_columns(modality=pl.lit(None, pl.String), basis=pl.lit("measured"))
    seconds = (
        judged.filter(pl.col("rule").is_null())
        .group_by("component", "subset")
        .agg(seconds=pl.col("duration").cast(pl.Float64).mean())
        .with_columns(pl.col("component", "subset").cast(pl.String))
    )
    counted = counted.join(seconds, on=["component", "subset"], how="left")
    return pl.concat([counted, recorded], how="diagonal_relaxed")


def heading(mixture: Mixture, place: Place) -> str:
    """What is asked for, and what stands at the output."""
    tokens = mixture.tokens if isinstance(mixture.tokens, str) else human_count(mixture.tokens)
    found = finished_recipe(place)
    there = f"{place.output} holds recipe {found['fingerprint']}" if found else "no output yet"
    return f"{mixture.name}: {tokens} tokens, ratios in {mixture.measure}; {there}. Nothing is run."


def table(needs: pl.DataFrame, mixture: Mixture, pieces: dict[str, list[Piece]]) -> list[str]:
    """Supply and demand, a line per component."""
    head = (
        f"{'component':<20}{'ratio':>9}{'samples':>10}{'needs':>9}{'gives':>9}"
        f"{'epochs':>8}{'tokens':>9}{'cached':>9}  figures"
    )
    lines = [head, "-" * len(head)]
    for line in needs.iter_rows(named=True):
        found = pieces.get(line["component"])
        done = f"{sum(map(is_cached, found))}/{len(found)}" if found else "-"
        mark = " binds" if line["binds"] else ""
        unread = line["basis"] == "not recorded"
        amounts = {
            name: "unknown" if unread else human_count(line[name])
            for name in ("samples", "gives", "used_tokens")
        }
        epochs = f"{line['epochs']:.2f}" if line["epochs"] is not None else "-"
        lines.append(
            f"{line['component'][:19]:<20}{100 * line['ratio']:>7.4g} %"
            f"{amounts['samples']:>10}{human_count(line['needs']):>9}{amounts['gives']:>9}{epochs:>8}"
            f"{amounts['used_tokens']:>9}{done:>9}  {line['basis'][:11]}{mark}"
        )
    unit = {"samples": "samples"}.get(mixture.measure, mixture.measure.replace("_", " "))
    lines.append(f"(needs and gives in {unit}; cached: parts of those that are known)")
    for name, points in schedules_of(mixture).items():
        told = ", ".join(f"{100 * share:.4g} % at {place:g}" for place, share in points)
        lines.append(f"{name} follows a schedule over the run, its ratio is the mean: {told}")
    return lines


def shortage_lines(needs: pl.DataFrame) -> list[str]:
    """A sentence per component that cannot fill its ratio."""
    short = needs.filter("short")
    unread = short.filter(basis="not recorded")["component"].to_list()
    lines = [
        f"{line['component']} gives {human_count(line['gives'])}, but its ratio asks for "
        f"{human_count(line['needs'])}: lower tokens, its ratio, or raise its max_epochs."
        for line in short.filter(pl.col("basis") != "not recorded").iter_rows(named=True)
    ]
    if unread:
        which = "" if len(unread) == len(needs) else f" of {', '.join(unread)}"
        lines.append(f"No size{which} {UNKNOWN}")
    return lines


def size_lines(expected: dict[str, float], mixture: Mixture, supply: pl.DataFrame) -> list[str]:
    """Rows, tokens, bytes, and shares by modality."""
    lines = [
        f"train split   {human_count(expected['samples'])} samples, "
        f"{human_count(expected['tokens'])} tokens "
        f"({100 * expected['learned'] / expected['tokens']:.1f} % learned), "
        f"{human_count(expected['rows'])} rows of {mixture.encoding.seq_len:,}",
        f"              {human_count(expected['crops'])} crops, {expected['shards']:,.0f} shards, "
        f"{tables.human_bytes(expected['bytes'] + 5 * expected['tokens'])}",
    ]
    count, seconds = costing.videos(supply, mixture)
    if count:
        lines.append(
            f"              videos of {seconds / 60:.1f} minutes on average "
            f"({human_count(count)} samples)"
        )
    shares = costing.by_modality(supply, mixture).filter(pl.col("modality").is_not_null())
    if shares["share_of_samples"].sum() > 0.999:
        parts = [
            f"{m} {100 * a:.2f} % ({100 * b:.2f} %)"
            for m, a, b in shares.select(
                "modality", "share_of_samples", "share_of_tokens"
            ).iter_rows()
        ]
        lines.append("              shares of samples (of tokens):")
        lines += [f"              {', '.join(parts[i : i + 3])}" for i in range(0, len(parts), 3)]
    return lines


def cost_lines(
    supply: pl.DataFrame, expected: dict[str, float], mixture: Mixture, *, gpu: str, mfu: float
) -> list[str]:
    """Hours to build on this machine's cores, FLOPs and hours to train."""
    cores = os.cpu_count() or 1
    known = supply.with_columns(pl.col("modality").fill_null("image"))
    read = costing.what_is_read(known, mixture)
    there = known.select(costing.before_limits(known, "samples").sum())
    hours = costing.build_hours(read, expected, mixture, cores=cores, speed=costing.BuildSpeed())
    parts = ", ".join(
        f"{stage} {human_time(3600 * h)}" for stage, h in hours.items() if stage != "all"
    )
    lines = [
        f"build         about {human_time(3600 * hours['all'])} on {cores} cores from nothing",
        f"              {parts}",
        f"              reads about {human_count(float(read['samples'].sum()))} of "
        f"{human_count(float(there.item()))} samples",
    ]
    training = training_of(expected, mixture, gpu=gpu, mfu=mfu)
    if training.is_empty():
        e = mixture.encoding
        lines.append(
            f"train         no cost is known: crops of {e.crop_size} px and {e.tokens_per_crop} "
            "tokens are no published SmolVLM's"
        )
    for name, flops, spent in training.select("model", "flops", "gpu_hours").iter_rows():
        lines.append(
            f"train {name:<8}{flops:.2e} FLOPs, {human_time(3600 * spent)} of one {gpu} at "
            f"{100 * mfu:.0f} % MFU"
        )
    return lines


def training_of(
    expected: dict[str, float], mixture: Mixture, *, gpu: str, mfu: float
) -> pl.DataFrame:
    """The cost of training each model whose crops the mixture's are."""
    e = mixture.encoding
    whose = [
        name
        for name, model in costing.MODELS.items()
        if (model.crop_size, model.tokens_per_crop) == (e.crop_size, e.tokens_per_crop)
    ]
    return costing.training_cost(expected, gpu=gpu, mfu=mfu).filter(pl.col("model").is_in(whose))


def work_lines(pieces: dict[str, list[Piece]], mixture: Mixture) -> list[str]:
    """What a build would read."""
    found = [p for each in pieces.values() for p in each]
    todo = [p for p in found if not is_cached(p)]
    unread: Sequence[Piece] = [p for p in found if not tables.exists(p.samples)]
    size = tables.human_bytes(sum(p.part.num_bytes or 0 for p in unread))
    lines = []
    if found:
        every = all(reads_all(mixture, name) for name in pieces)
        lines.append(
            f"would run     {len(todo):,} of {len(found):,} parts; would read {size} of files"
            + ("" if every else ", less where fewer cover the budget")
        )
    for name, mine in pieces.items():
        if (sentence := read_whole(mine)) and not reads_all(mixture, name):
            lines += paragraph("", f"read whole    {name}: {sentence}")
    unknown = [name for name in mixture.components if name not in pieces]
    if unknown:
        lines.append(
            f"not listed    {len(unknown)} components lie on the hub: hub=true asks it for their "
            "files and bytes"
        )
    return lines
