"""What the model is fed, in the terminal: packed rows, stories of samples, what rules rejected.

    show DIR               the first row of the train split
    show DIR row=N         that row: learned text green, special tokens and images marked
    show DIR id=SAMPLE     read from where, which rules fired, tokens, which shards and rows
    show DIR rule=NAME     what it rejected: counts, then samples
    show DIR component=C   asked and got, then samples

Without colours learned text stands between >> and <<.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from pipelines.engine import private
from pipelines.report.card import (
    how_much_is_read,
    human_amount,
    human_epochs,
    percent,
    rule_meaning,
)
from pipelines.report.finished import Finished, did_you_mean, open_finished, ordered
from pipelines.report.leaks import leak_lines, leaks_of
from pipelines.report.row_view import SampleView, sample_views, visible_text
from pipelines.revised import TAG

EXAMPLES = 5
"""Samples shown of a rule or component."""
FOUND = {"line": pl.Int64, "id": pl.String, "component": pl.String}
"""What is known of a sample that a rule took."""

MOST_NUMBERS = 60
"""Characters of the numbers of parts that were not read, on a line."""
CODES = {"learned": "32", "special": "2;36", "image": "35", "border": "1", "reason": "33"}


def show(
    folder: str,
    *,
    row: int = 0,
    split: str = "train",
    id: str = "",
    rule: str = "",
    component: str = "",
    work: str = "out/work",
    color: bool = True,
) -> str:
    """What was asked for of the mixture in `folder`, as text for a terminal.

    `work` is where the build kept its samples: rejected ones are in no shard.

    Raises:
        ValueError: no such row, sample, rule or component.
        FileNotFoundError: no finished mixture in `folder`.
    """
    mixture = open_finished(folder)
    if id:
        return sample_story(mixture, id, work=work, color=color)
    if rule:
        return rejected(mixture, rule, component=component, work=work, color=color)
    if component:
        return component_samples(mixture, component, work=work, color=color)
    return packed_row(mixture, row, split=split, color=color)


def colour_text(text: str, kind: str, *, color: bool) -> str:
    """The text in the colour of its kind, line by line; marked otherwise where learned."""
    if not text:
        return ""
    if not color:
        return f">>{text}<<" if kind == "learned" else text
    return "\n".join(
        f"\x1b[{CODES[kind]}m{line}\x1b[0m" if line else "" for line in text.split("\n")
    )


def packed_row(mixture: Finished, place: int, *, split: str, color: bool) -> str:
    """A packed row as the model sees it: its limits, then each sample between borders."""
    shard, within, row = mixture.row(place, split=split)
    encoding = mixture.recipe["mixture"]["encoding"]
    crops = sum(grid["rows"] * grid["cols"] + 1 for grid in row["grids"])
    found = sample_views(row, mixture.tokenizer, tokens_per_crop=encoding["tokens_per_crop"])
    title = (
        f"{split} row {place:,} ({shard}, row {within}): "
        f"{len(row['input_ids']):,} of {encoding['seq_len']:,} tokens, "
        f"{sum(row['loss_mask']):,} learned, {crops} of {encoding['max_crops']} crops, "
        f"{len(row['images'])} images, {len(found)} samples"
    )
    lines = [colour_text(title, "border", color=color)]
    mixture.remember(piece.id for piece in found)
    for number, piece in enumerate(found, 1):
        line = mixture.line(piece.id)
        lines += [
            "",
            colour_text(
                f"--- {number}/{len(found)} {line['component']}: {visible_text(piece.id)}, "
                f"{piece.num_tokens:,} tokens, {piece.num_learned:,} learned ",
                "border",
                color=color,
            ),
            piece_text(piece, row, color=color),
        ]
    return "\n".join(lines)


def piece_text(piece: SampleView, row: dict[str, Any], *, color: bool) -> str:
    """The sample's text as the model sees it, each image on one line of its own size and cut."""
    shown = []
    for span in piece.spans:
        if span.kind == "image":
            text = image_line(row, span.image, tokens=span.tokens)
            shown.append(colour_text(text, "image", color=color))
        elif span.learned:
            shown.append(colour_text(visible_text(span.text), "learned", color=color))
        elif span.kind == "special":
            shown.append(colour_text(visible_text(span.text), "special", color=color))
        else:
            shown.append(visible_text(span.text))
    if piece.rejected is not None:
        shown.append(f"\nRejected: {visible_text(piece.rejected)}")
    return "".join(shown)


def image_line(row: dict[str, Any], number: int, *, tokens: int) -> str:
    """One image of a packed row: size, kind of file, cut, tokens."""
    from tokenization.images import image_size

    data = row["images"][number]["bytes"]
    width, height = image_size(data)
    grid = row["grids"][number]
    cut = (
        f"{grid['rows']}x{grid['cols']} crops + global view"
        if grid["rows"] * grid["cols"]
        else "global view"
    )
    return f"[image {number}: {width}x{height} px, {len(data):,} bytes, {cut}, {tokens} tokens]"


def sample_story(mixture: Finished, sample: str, *, work: str, color: bool) -> str:
    """One sample from the repository to the shards, and its text."""
    line = mixture.line(sample)
    places = mixture.find(sample)
    fired = [rule for rule in line["fired"] or [] if rule != line["rule"]]
    facts = [
        ("component", f"{line['component']}, {line['modality']}, split {line['split']}"),
        (
            "read from",
            f"{component_origin(mixture, line['component'])}, subset {line['subset']}, "
            f"part {line['part']}, row {line['row']}",
        ),
        (
            "verdict",
            "kept" if line["rule"] is None else f"{line['rule']}: {rule_meaning(line['rule'])}",
        ),
        ("found", line.get("detail") or ""),
        ("also fired", ", ".join(fired)),
        ("tags", ", ".join(line["tags"] or [])),
        ("video", f"{line['duration']:.1f} s" if line["duration"] is not None else ""),
        (
            "cost",
            f"{line['num_tokens'] or 0:,} tokens, {line['num_learned'] or 0:,} learned, "
            f"{line['num_crops'] or 0} crops",
        ),
        (
            "used",
            f"{line['copies']} times: " + ", ".join(f"{shard} row {row}" for shard, row in places)
            if places
            else "never",
        ),
    ]
    lines = [colour_text(visible_text(sample), "border", color=color)]
    told = [(label, text) for label, text in facts if text]
    for leak in leaks_of(mixture, [line]).get(sample, ()):
        told += [("benchmark", leak_lines(leak)[0]), *(("", text) for text in leak_lines(leak)[1:])]
    lines += [f"  {label:<11}{visible_text(text)}" for label, text in told]
    return "\n".join([*lines, "", _text(mixture, sample, places, work=work, color=color)])


def component_origin(mixture: Finished, component: str) -> str:
    """Where a component's rows come from: its own files, or a repository at a revision."""
    data = mixture.recipe["mixture"]["components"][component].get("data")
    if data:
        return private.found_again(str(data))
    source = mixture.recipe["sources"][component]
    revision = source.get("revision")
    return f"{source['hub']} at {revision}" if revision else str(source["hub"] or "files")


def _text(
    mixture: Finished, sample: str, places: list[tuple[str, int]], *, work: str, color: bool
) -> str:
    """The sample as packed where it is in a shard, else as read."""
    if places:
        shard, at = places[0]
        row = mixture.rows(shard, [at])[0]
        encoding = mixture.recipe["mixture"]["encoding"]
        found = sample_views(row, mixture.tokenizer, tokens_per_crop=encoding["tokens_per_crop"])
        packed = "\n".join(piece_text(p, row, color=color) for p in found if p.id == sample)
        return packed + as_it_was(mixture, sample, work=work, color=color)
    read = mixture.sample(sample, work=work)
    if read is None:
        return f"(In no shard, and no longer in {work}: say work=DIR where the build kept it.)"
    return sample_text(read, color=color) + as_it_was(mixture, sample, work=work, color=color)


def as_it_was(mixture: Finished, sample: str, *, work: str, color: bool) -> str:
    """The texts of a sample that a model has rewritten, as they were read; else nothing."""
    if not any(tag.startswith(TAG) for tag in mixture.line(sample)["tags"] or []):
        return ""
    title = colour_text("as it was read, before it was rewritten", "border", color=color)
    found = mixture.sample(sample, work=work)
    text = (
        f"(no longer in {work}: say work=DIR where the build kept it)"
        if found is None
        else sample_text(found.get("read", found), color=color)
    )
    return f"\n\n{title}\n{text}"


def sample_text(sample: dict[str, Any], *, color: bool) -> str:
    """The sample as it was read (SAMPLE): each turn after its role, images by their size."""
    images = iter(sample["images"] or [])
    lines = []
    if sample["defect"]:
        lines.append(colour_text(f"defect: {sample['defect']}", "reason", color=color))
    for message in sample["messages"] or []:
        shown = []
        for part in message["content"] or []:
            if part["type"] == "image":
                image = next(images, None)
                size = f"{image['width']}x{image['height']} px" if image else "missing"
                broken = "" if image and image["bytes"] is not None else ", not decodable"
                shown.append(colour_text(f"[image: {size}{broken}]", "image", color=color))
            else:
                kind = "learned" if message["role"] == "assistant" else ""
                text = visible_text(part["text"] or "")
                shown.append(colour_text(text, kind, color=color) if kind else text)
        lines.append(f"{message['role']}: " + "".join(shown))
    return "\n".join(lines) or "(empty)"


def rejected(mixture: Finished, rule: str, *, component: str, work: str, color: bool) -> str:
    """How many samples the rule removed, of which components, and a few of them."""
    if component:
        known_component(mixture, component)
    found = of_rules(mixture, [rule], most=EXAMPLES, component=component)[rule]
    removed = found.components.total() if found.removes else 0
    title = f"{rule}: removed {human_amount(removed)} samples, {rule_meaning(rule)}"
    details = ordered(found.details)[:EXAMPLES]
    head = [
        colour_text(title, "border", color=color),
        "  "
        + ("" if removed else "only marked: ")
        + ", ".join(f"{name} {human_amount(n)}" for name, n in ordered(found.components)),
        *(f"  {human_amount(n):>9}  {visible_text(detail)}" for detail, n in details),
        "",
    ]
    ids = found.first["id"].head(EXAMPLES)
    mixture.remember(ids)
    return "\n".join(head) + "\n\n".join(
        sample_story(mixture, i, work=work, color=color) for i in ids
    )


@dataclass
class OfRule:
    """Samples that a rule removed or, where it removes none, those it fired on."""

    removes: bool = False
    components: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    """What was found in them."""
    first: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FOUND))
    """Line, id, component of the first of each component."""

    def add(self, some: pl.DataFrame, *, most: int) -> None:
        """Other samples, in the order of the index."""
        self.components.update(dict(some["component"].value_counts(sort=True).iter_rows()))
        told = some["detail"].drop_nulls().cast(pl.String)
        self.details.update(dict(told.value_counts(sort=True).iter_rows()))
        both = pl.concat([self.first, some.select(pl.col(n).cast(t) for n, t in FOUND.items())])
        self.first = both.filter(pl.int_range(pl.len()).over("component") < most)


def of_rules(
    mixture: Finished, rules: Sequence[str], *, most: int, component: str = ""
) -> dict[str, OfRule]:
    """What each rule removed (or marked), the first `most` of each component by name; of one
    component alone where it is named. The index is read once.

    Raises:
        ValueError: a rule did neither.
    """
    for rule in rules:
        known_rule(mixture, rule)
    removed, fired = {rule: OfRule(True) for rule in rules}, {rule: OfRule() for rule in rules}
    start = 0
    for some in mixture.lines(["id", "component", "rule", "fired", "detail"]):
        numbered = some.with_columns(line=pl.int_range(pl.len()) + start)
        start += len(some)
        if component:
            numbered = numbered.filter(pl.col("component") == component)
        touched = numbered.filter(pl.col("rule").is_not_null() | (pl.col("fired").list.len() > 0))
        for rule in rules:
            removed[rule].add(touched.filter(pl.col("rule") == rule), most=most)
            if not removed[rule].components:
                fired[rule].add(touched.filter(pl.col("fired").list.contains(rule)), most=most)
    return {rule: removed[rule] if removed[rule].components else fired[rule] for rule in rules}


def known_rule(mixture: Finished, rule: str) -> str:
    """The rule, which rejected samples of this mixture or fired on some that were kept.

    Raises:
        ValueError: it did neither.
    """
    known = list(mixture.stats["rejected"])
    if rule not in known:
        raise ValueError(
            f"{mixture.folder}: no sample was rejected by '{rule}'; found "
            f"{', '.join(known) or 'no rejected samples'}.{did_you_mean(rule, known)}"
        )
    return rule


def known_component(mixture: Finished, component: str) -> str:
    """The component, which the mixture has.

    Raises:
        ValueError: it has not.
    """
    known = list(mixture.stats["components"])
    if component not in known:
        raise ValueError(
            f"{mixture.folder}: no component '{component}'; found {', '.join(known)}."
            f"{did_you_mean(component, known)}"
        )
    return component


def component_samples(mixture: Finished, component: str, *, work: str, color: bool) -> str:
    """A component's account, and a few of its samples as they lie in the shards."""
    account = mixture.stats["components"][known_component(mixture, component)]
    reasons = ", ".join(f"{rule} {human_amount(n)}" for rule, n in account["rejected"].items())
    got = ", ".join(f"{percent(s)} of {m.replace('_', ' ')}" for m, s in account["got"].items())
    head = [
        colour_text(f"{component} ({account['source']})", "border", color=color),
        f"  asked      {percent(account['asked'])} of {mixture.stats['measure']}",
        f"  got        {got}",
        f"  samples    {human_amount(account['samples'])} ("
        f"{human_epochs(account['epochs'])} epochs of {human_amount(account['train_kept'])}), "
        f"{human_amount(account['kept'])} kept of "
        f"{human_amount(account['read'])} read",
        f"  rejected   {reasons or 'none'}",
        *reading_lines(mixture.stats, component),
        "",
    ]
    ids: list[str] = []
    for some in mixture.lines(["id", "component", "copies"]):
        used = some.filter((pl.col("component") == component) & (pl.col("copies") > 0))
        ids += used["id"].head(EXAMPLES - len(ids)).to_list()
        if len(ids) == EXAMPLES:
            break
    mixture.remember(ids)
    return "\n".join(head + [sample_story(mixture, i, work=work, color=color) + "\n" for i in ids])


def reading_lines(stats: Mapping[str, Any], component: str) -> list[str]:
    """How much of a component was read where that is not all, and which parts were not."""
    part = stats.get("reading", {}).get(component)
    if part is None or part["share"] == 1:
        return []
    lines = [f"  parts      {how_much_is_read(part)}"]
    for name, subset in part["subsets"].items():
        numbers = subset["unread"]
        shown = numbers if len(numbers) <= MOST_NUMBERS else f"{numbers[:MOST_NUMBERS]}..."
        lines.append(f"  unread     {name}: {shown}")
    return lines
