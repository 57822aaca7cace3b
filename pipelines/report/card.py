"""The card of a finished mixture: README.md with the hub's header, and the table that ends a build.

| function | reads                          | gives                                               |
|----------|--------------------------------|-----------------------------------------------------|
| card     | stats (report/stats.py)        | README.md: YAML for the hub and viewer, then prose  |
| terminal | stats                          | a table of at most 100 columns                      |

Both are pure: every number in them is in `stats.json`.
"""

import json
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipelines.report.stats import MEASURES, stats
from tokenization.terminal import visible_text

__all__ = ["card", "human_amount", "rule_meaning", "stats", "terminal_table"]

WIDTH = 100
CELL = 160
"""Characters of a question or an answer in a table of the card."""
_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0
epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3
llama3.1 llama3.2 llama3.3 mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0
pddl postgresql unknown unlicense wtfpl zlib"""
HUB_LICENCES = frozenset(_LICENCES.split())
"""The hub's names of licences, mostly SPDX in small letters:
https://huggingface.co/docs/hub/repositories-licenses"""
ALIASES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "yours": "unknown"}
"""Others -> the hub's name."""

MEANINGS = {
    "keep": "Left out by a component's or subset's `keep` fraction.",
    "max_samples": "Left out by a component's or subset's `max_samples`.",
    "limits": "Left out by a cap of the mixture.",
    "too_long": "Longer than a packed row (`seq_len` tokens or `max_crops` crops).",
    "duplicate": "The same sample was kept from another row or component.",
    "near_duplicate": "Nearly the same text was kept from another row or component.",
    "contaminated": "Overlaps a benchmark's questions or images.",
    "undecodable_image": "An image did not decode.",
    "undecodable_video": "A video did not decode.",
    "missing_media": "An image or video named by the row was not found.",
    "remote_media": "The row names an image or video by an address; nothing is fetched.",
    "unsafe_path": "The row names a path outside its media folder.",
    "placeholder_mismatch": "Placeholders in the text and media of the row do not come out even.",
    "missing_answer": "The row has no answer, or an empty one.",
    "ambiguous_answer": "The answer fits different choices of the row.",
    "no_preference": "The chosen and the rejected answer are the same, or rated alike.",
    "truncated_file": "The file breaks off in the middle.",
    "wrong_schema": "A cell of the row is not of the type that its source has there.",
    "broken_json": "The row is no JSON.",
    "broken_text": "A text of the row is no UTF-8.",
    "broken_rows": "The file's block of rows does not decode.",
}
"""Of reasons that are no registered rule: defects of ingest, and what the whole mixture decides."""
MARKS = re.compile(r"[\\`*_{}\[\]<>|#!$~&^@]|(?<=[a-z]):(?=//)|(?<=\bwww)\.", re.IGNORECASE)
"""What means something in Markdown, in the middle of a line; addresses would become links."""
ESCAPED = {mark: f"&#{ord(mark)};" for mark in "&<>|@:."} | {"$": "<span>&#36;</span>"}
"""Those that a backslash does not escape everywhere."""


def human_amount(number: float) -> str:
    """The number for people: 812, 4,096, 1.24 M, 2.00 B."""
    for size, unit in ((1e9, " B"), (1e6, " M")):
        if abs(number) >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """The share with two decimals of a percent; more where it would show as nothing."""
    return f"{100 * share:.2f} %" if share == 0 or abs(share) >= 1e-4 else f"{100 * share:.2g} %"


def schedule_steps(along: Mapping[str, Any], *, most: int = 8) -> list[dict[str, Any]]:
    """At most so many stretches of the run: `at` its middle, mean shares `asked` and `got`."""
    at = along["at"]
    cuts = [len(at) * k // most for k in range(most + 1)]
    stretches = [(a, b) for a, b in pairwise(cuts) if a < b]

    def mean_of(values: Sequence[float], a: int, b: int) -> float:
        return sum(values[a:b]) / (b - a)

    return [
        {
            "at": mean_of(at, a, b),
            "asked": {name: mean_of(values, a, b) for name, values in along["asked"].items()},
            "got": {name: mean_of(values, a, b) for name, values in along["got"].items()},
        }
        for a, b in stretches
    ]


def human_epochs(number: float) -> str:
    """Epochs with two decimals."""
    return f"{number:.2f}"


def rule_meaning(rule: str) -> str:
    """One sentence: why a sample with this reason is not in the shards."""
    from filters import RULES

    if rule in RULES:
        return RULES[rule].sentence
    return MEANINGS.get(rule, rule.replace("_", " ").capitalize() + ".")


def terminal_table(stats: Mapping[str, Any], *, output: str, report: bool = True) -> str:
    """What was asked and got, rejected, packed, and what to run next; at most 100 columns."""
    # Longer than a screen: reads as the table that it prints, top to bottom.
    measure = stats["measure"]
    short = {"tokens": "tokens", "learned_tokens": "learned", "samples": "samples"}
    others = [name for name in MEASURES if name != measure]
    head = (
        f"{'component':<20} {'asked':>9} {'got: ' + short[measure]:>13} "
        + " ".join(f"{short[name]:>9}" for name in others)
        + f" {'samples':>9} {'epochs':>7} {'rejected':>9}"
    )
    lines = [f"{stats['name']}: asked and got, as shares of the train split", "", head]
    lines.append("-" * len(head))
    for name, part in stats["components"].items():
        lines.append(
            f"{_clip(name, 20):<20} {percent(part['asked']):>9} "
            + f"{percent(part['got'][measure]):>13} "
            + " ".join(f"{percent(part['got'][other]):>9}" for other in others)
            + f" {human_amount(part['samples']):>9} {human_epochs(part['epochs']):>7}"
            + f" {human_amount(part['read'] - part['kept']):>9}"
        )
    train = stats["train"]
    lines.append("-" * len(head))
    lines.append(
        f"{'together':<20} {'':>9} {human_amount(train[measure]):>13} "
        + " ".join(f"{human_amount(train[other]):>9}" for other in others)
        + f" {human_amount(train['samples']):>9} {'':>7} "
        + f"{human_amount(stats['read'] - stats['kept']):>9}"
    )
    lines += [text for note in stats.get("notes", []) for text in _wrapped("  ", note)]
    lines += [
        text
        for name, found in stats.get("unread", {}).items()
        for line in found
        for text in _wrapped("  ", f"{name}: {line}")
    ]
    lines += [
        text
        for name, part in stats.get("reading", {}).items()
        if part["share"] < 1
        for text in _wrapped("  ", f"{name}: {how_much_is_read(part)}")
    ]
    lines += ["", "rejected, by the first rule that fired"]
    lines += [
        line
        for name, part in stats["components"].items()
        for line in _wrapped(
            f"  {_clip(name, 20):<20} ",
            ", ".join(f"{rule} {human_amount(n)}" for rule, n in part["rejected"].items())
            or "none",
        )
    ]
    lines += ["", "packed"]
    for split in ("train", "val"):
        packing = stats["packing"][split]
        if packing["rows"]:
            crops = packing["crops_per_row"]
            lines += _wrapped(
                f"  {split:<7}",
                f"{human_amount(packing['rows'])} rows in "
                f"{human_amount(packing['shards'])} shards, "
                f"{human_amount(packing['tokens'])} tokens "
                f"({percent(packing['learned_share'])} learned), "
                f"{percent(packing['fill'])} full of {percent(packing['fill_bound'])} possible, "
                f"crops per row {crops['mean']:.1f} (most {crops['max']:.0f} "
                f"of {packing['max_crops']})",
            )
    folder = shlex.quote(output)
    repository = re.sub(r"[^\w.-]+", "-", stats["name"])
    drawn = f"{output}/report.html" if report else f"python -m pipelines show {folder} --html"
    lines += [
        "",
        f"card and report   {output}/README.md  {drawn}",
        f"look at a row     python -m pipelines show {folder} row=0",
        f"train             python -m trainer config=tiny data={folder}",
        f"publish           python -m pipelines push {folder} repo=ORG/{repository}",
    ]
    return "\n".join(lines)


def table_data(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of that table, and what identifies the mixture."""
    keys = ("name", "fingerprint", "measure", "read", "kept", "train", "components", "rejected",
            "packing", "notes", "unread")  # fmt: skip
    return {key: stats[key] for key in keys if key in stats}


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def how_much_is_read(part: Mapping[str, Any]) -> str:
    """Of a component of which not all is read: how much is."""
    return (
        f"read {part['parts']:,} of {part['of']:,} parts ({percent(part['share'])}); all of it "
        f"would give about {human_amount(part['supply'])} samples"
    )


def _wrapped(label: str, text: str) -> list[str]:
    """The text beside its label, continued below itself, within WIDTH."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    )


@cache
def template(file: Path) -> Any:
    """The compiled template of a page in Markdown."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: every text of a dataset passes `markdown_cell`
    )
    environment.filters |= {
        "amount": human_amount,
        "percent": percent,
        "times": human_epochs,
        "cell": markdown_cell,
        "meaning": rule_meaning,
        "in_words": in_words,
        "short": short,
    }
    return environment.get_template(file.name)


def card(
    stats: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    home: str = "path/to/this/folder",
    format: str = "arrow",
    preview: Sequence[str] = (),
    matched: Sequence[Mapping[str, Any]] = (),
    report: bool = True,
) -> str:
    """README.md: the hub's header (splits, licences), then asked and got, why, packing, sources.

    `home` is what a reader loads it by: the folder, or ORG/NAME at the hub; `format` is the ending
    of the shards' names; `preview`: the splits of which preview/ shows samples; `matched`: those
    that have items of benchmarks (leaks.py), what is said and asked where it is not published;
    `report`: whether report.html is there.
    """
    sources = stats["sources"].items()
    return template(Path(__file__).with_name("card.md.jinja")).render(
        mapped={name: source["columns"] for name, source in sources if source.get("columns")},
        header=header(stats, format=format, preview=preview),
        preview=preview,
        matched=matched,
        report=report,
        stats=stats,
        recipe=recipe,
        measures=MEASURES,
        schedule_steps=schedule_steps(stats.get("schedule", {"at": []})),
        home=home,
        format=format,
    )


def in_words(columns: object) -> str:
    """The columns that a mixture names, as one line: a name, or a list or mapping of names."""
    return columns if isinstance(columns, str) else json.dumps(columns, ensure_ascii=False)


def short(text: str) -> str:
    """The text on one line, or its beginning."""
    flat = " ".join(text.split())
    return flat if len(flat) <= CELL else flat[: CELL - 1] + "\u2026"


def markdown_cell(text: object) -> str:
    """Text that cannot leave its Markdown table cell, nor become HTML, a link, code or a formula,
    and reads as it is: each mark is escaped once.

    A formula's `$` is what GitHub's documentation asks for, in an entity that the hub's takes for
    text: https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting.
    """
    flat = visible_text(" ".join(str(text).split()))
    return MARKS.sub(lambda mark: ESCAPED.get(mark[0]) or "\\" + mark[0], flat)


def header(stats: Mapping[str, Any], *, format: str = "arrow", preview: Sequence[str] = ()) -> str:
    """The YAML that tells `datasets` and the viewer which files are which split."""
    splits = [
        {"split": split, "path": f"shards/{split}-*.{format}"}
        for split in ("train", "val")
        if stats["packing"][split]["rows"]
    ]
    rows = sum(stats["packing"][split]["rows"] for split in ("train", "val"))
    fields: dict[str, Any] = {
        "pretty_name": stats["name"],
        "license": licences(licensed(stats)),
        "license_name": other_licences(licensed(stats)),
        "license_link": "README.md" if other_licences(licensed(stats)) else "",
        "task_categories": ["image-text-to-text", "video-text-to-text"],
        "tags": ["smolvlm", "packed", "vision-language", "multimodal"],
        "size_categories": [_size(rows)],
        "source_datasets": sorted(
            {
                source["hub"]
                for source in stats["sources"].values()
                if source["hub"] and not source["own_files"]
            }
        ),
        "configs": [
            {"config_name": "default", "data_files": splits, "default": True},
            {"config_name": "index", "data_files": [{"split": "train", "path": f"index.{format}"}]},
        ],
    }
    if preview:
        shown = [{"split": split, "path": f"preview/{split}.parquet"} for split in preview]
        fields["configs"].append({"config_name": "preview", "data_files": shown})
    fields = {key: value for key, value in fields.items() if value}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)


def licensed(stats: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What has a licence: the sources, and texts of models that rewrote some."""
    models = [one for one in stats.get("models", ()) if one["command"] == "rewrite"]
    return {**stats["sources"], **{f"texts of {one['name']}": one for one in models}}


def licences(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The hub's names of the sources' licences, each once."""
    return sorted(
        {hub_licence(source.get("licence")) for source in sources.values()} or {"unknown"}
    )


def hub_licence(licence: str | None) -> str:
    """The hub's name of a licence; `other` where it has none for it."""
    name = (licence or "unknown").lower()
    name = ALIASES.get(name, name)
    return name if name in HUB_LICENCES else "other"


def other_licences(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """What the hub shows of licences that it has no name for: theirs, in its letters."""
    names = {str(source.get("licence")) for source in sources.values()}
    others = sorted(name for name in names if hub_licence(name) == "other")
    slugs = [re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] for name in others]
    return "-and-".join(slugs) if len(slugs) < 3 else "several"


def _size(rows: int) -> str:
    """The hub's class of size; https://huggingface.co/docs/hub/datasets-cards."""
    below = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")]
    below += [(1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")]
    return next((name for limit, name in below if rows < limit), "n>100M")
