"""A sample that has items of benchmarks, and those items beside it: a leak, or a false alarm?

    detail of its verdict --matches_of--> benchmark, item, how
                                          --items beside the hash list--> what it asks

What a benchmark asks is shown where the mixture was built, and is no part of what is published.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import filters
from mixtures.benchmark_sets import SETS, list_path
from mixtures.config import hash_list_path
from pipelines.engine import private
from pipelines.report.finished import Finished
from pipelines.report.thumbnails import Budget, thumbnail

RULE = "contaminated"
CHARACTERS = 600
"""Of a question or an answer, at most."""
IMAGES, SIDE = 3, 192
"""Of a sample that are shown beside an item; px, their longer side."""
BYTES = 1_500_000
"""Of all images beside items."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One item that a sample has."""

    match: filters.Match
    item: filters.ShownItem | None
    why: str
    """Why the item is not known; or empty."""

    @property
    def name(self) -> str:
        """BENCHMARK/ITEM."""
        return f"{self.match.benchmark}/{self.match.item}"


def matches_in(line: Mapping[str, Any]) -> list[filters.Match]:
    """What `contaminated` found, of a line of the index."""
    taken = line["rule"] == RULE or RULE in (line["fired"] or ())
    return filters.matches_of(line.get("detail") or "") if taken else []


def lists_named(recipe: Mapping[str, Any]) -> list[str]:
    """The hash lists that the mixture of a recipe names, as paths on this machine."""
    stated = recipe["mixture"]
    paths: list[str] = []
    for name in map(private.found_again, stated.get("benchmarks") or ()):
        of_set = [list_path(name, benchmark) for benchmark in SETS.get(name, ())]
        paths += of_set or [hash_list_path(name)]
    for part in (stated, *stated["components"].values()):
        own = (part.get("filters") or {}).get(RULE) or {}
        paths += map(private.found_again, own.get("benchmarks") or ())
    return list(dict.fromkeys(paths))


def leaks_of(mixture: Finished, lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Leak]]:
    """Id -> the items that a sample has, of every line of the index with any."""
    matches = {line["id"]: found for line in lines if (found := matches_in(line))}
    wanted: dict[str, set[str]] = defaultdict(set)
    for found in matches.values():
        for match in found:
            wanted[match.benchmark].add(match.item)
    known: dict[tuple[str, str], filters.ShownItem] = {}
    why: dict[str, list[str]] = defaultdict(list)
    for path in lists_named(mixture.recipe) if wanted else ():
        if (name := filters.benchmarks.list_name(path)) in wanted:
            items, reason = filters.read_items(path, wanted[name])
            known |= {(name, item): shown for item, shown in items.items()}
            why[name] += [reason] if reason else []
    return {
        sample: [
            Leak(
                match=match,
                item=(item := known.get((match.benchmark, match.item))),
                why="" if item else "; ".join(why[match.benchmark]) or "its hash list is not here",
            )
            for match in found
        ]
        for sample, found in matches.items()
    }


def cut(text: str) -> str:
    """The text, or its beginning and how much was cut."""
    over = len(text) - CHARACTERS
    return text if over <= 0 else f"{text[:CHARACTERS]} [... {over:,} characters more]"


def leak_lines(leak: Leak) -> list[str]:
    """The item in a terminal, below what was found."""
    if leak.item is None:
        return [f"{leak.name}: not known here: {leak.why}"]
    item = leak.item
    asked = [
        ("asks", item.question),
        ("options", " | ".join(item.options)),
        ("answer", item.answer),
    ]
    pictured = f"{item.num_images} image{'' if item.num_images == 1 else 's'}"
    shown = [f"{label} {cut(' '.join(text.split()))}" for label, text in asked if text]
    return [
        f"{leak.name}: {', '.join([pictured] if item.num_images else []) or 'no image'}",
        *shown,
    ]


def leak_view(leak: Leak, *, budget: Budget) -> dict[str, Any]:
    """The item as the template shows it."""
    item = leak.item
    return {
        "name": leak.name,
        "how": leak.match.how,
        "why": leak.why,
        "question": cut(item.question) if item else "",
        "options": [cut(option) for option in item.options] if item else [],
        "answer": cut(item.answer) if item else "",
        "num_images": item.num_images if item else 0,
        "images": [
            thumbnail(data, longest=SIDE, budget=budget) for data in (item.images if item else ())
        ],
    }


def matched_views(mixture: Finished, *, work: str) -> list[dict[str, Any]]:
    """The samples that stats name as having items of benchmarks, each beside its items; `local`:
    what of it is shown only here. Without `work`, ids and items alone.
    """
    lists = mixture.stats.get("contamination", {"lists": {}})["lists"]
    ids = list(dict.fromkeys(id for found in lists.values() for id in found.get("examples", ())))
    mixture.remember(ids)
    budget = Budget(left=BYTES)
    leaks = leaks_of(mixture, map(mixture.line, ids)) if work else {}
    views = []
    for sample in ids:
        matches = matches_in(mixture.line(sample))
        view: dict[str, Any] = {"id": sample, "component": mixture.line(sample)["component"]}
        view["found"] = [
            {"name": f"{match.benchmark}/{match.item}", "how": match.how} for match in matches
        ]
        view["local"] = None
        if work:
            items = [leak_view(leak, budget=budget) for leak in leaks.get(sample, ())]
            view["local"] = {**sample_side(mixture, sample, matches, work, budget), "items": items}
        views.append(view)
    return views


def sample_side(
    mixture: Finished, sample: str, matches: Sequence[filters.Match], work: str, budget: Budget
) -> dict[str, Any]:
    """The sample as it was read: its questions and answers, and of its images those that match
    first.
    """
    read = mixture.sample(sample, work=work) or {}
    said: dict[str, list[str]] = defaultdict(list)
    for message in read.get("messages") or ():
        parts = message["content"] or ()
        text = " ".join(part["text"] or "" for part in parts if part["type"] == "text")
        said[message["role"]].append(text)
    images = read.get("images") or []
    sought = [max(match.image, 1) - 1 for match in matches if match.by == "image"]
    order = [n for n in dict.fromkeys([*sought, *range(len(images))]) if n < len(images)]
    return {
        "here": bool(read),
        "question": cut("\n".join(said["user"]) or "\n".join(said["document"])),
        "answer": cut("\n".join(said["assistant"])),
        "num_images": len(images),
        "images": [
            thumbnail(images[n]["bytes"] or b"", longest=SIDE, budget=budget)
            for n in order[:IMAGES]
        ],
    }
