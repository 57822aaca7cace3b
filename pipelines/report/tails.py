"""The samples at both ends of each fact of annotations, as the report shows them.

stats.facts (ids and numbers) --find--> a row of a shard, or the sample in `work`
                              --thumbnail--> per fact and component: lowest, highest
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.report.finished import Finished
from pipelines.report.row_view import SampleView, sample_views
from pipelines.report.texts import messages_of, tells_roles
from pipelines.report.thumbnails import SHEET_SIDE, Budget, shortened, thumbnail

TAIL_BYTES = 1_500_000
"""Of images at the ends of all facts, as base64; each end of a component has an equal part."""
SAID = 90
"""Characters of a question, and of an answer."""
ENDS = ("lowest", "highest")


def tails(mixture: Finished, *, work: str = "") -> list[dict[str, Any]]:
    """Per fact and component its `lowest` and `highest` samples. Of samples in no shard only id,
    number and rule are told, with `work` their image and texts as read.
    """
    facts: Mapping[str, Any] = mixture.stats.get("facts", {})
    every = [
        each["id"] for about in facts.values() for end in ENDS for tail in about[end].values()
        for each in tail
    ]  # fmt: skip
    mixture.remember(every)
    groups = sum(len(about[end]) for about in facts.values() for end in ENDS)
    shown: dict[str, dict[str, Any]] = {}
    return [
        {
            "fact": fact,
            "component": name,
            **{
                end: [
                    {"value": each["value"], **view}
                    for each, view in with_views(mixture, about[end][name], shown, work=work,
                                                 most=TAIL_BYTES // groups)
                ]
                for end in ENDS
            },
        }
        for fact, about in facts.items()
        for name in mixture.stats["components"]
        if name in about["lowest"]
    ]  # fmt: skip


def with_views(
    mixture: Finished, tail: list[dict[str, Any]], shown: dict[str, dict[str, Any]], *, work: str,
    most: int,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:  # fmt: skip
    """(sample of a tail, how it is shown); a sample at several ends is looked up once."""
    budget = Budget(left=most)
    for each in tail:
        if each["id"] not in shown:
            shown[each["id"]] = view_of(mixture, each["id"], budget=budget, work=work)
        yield each, shown[each["id"]]


def view_of(mixture: Finished, sample: str, *, budget: Budget, work: str) -> dict[str, Any]:
    """A sample's first image, of a video the middle one, its first question and last answer."""
    line = mixture.line(sample)
    view: dict[str, Any] = {
        "id": sample, "rule": line["rule"] or "", "asked": "", "answered": "", "images": 0,
        "source": "", "note": "",
    }  # fmt: skip
    places = mixture.find(sample)
    images: list[bytes | None] = []
    said: list[tuple[str, str]] = []
    if places:
        row = mixture.rows(places[0][0], [places[0][1]])[0]
        size = mixture.recipe["mixture"]["encoding"]["tokens_per_crop"]
        found = sample_views(row, mixture.tokenizer, tokens_per_crop=size)
        piece = next(each for each in found if each.id == sample)
        images = images_of(piece, row)
        if tells_roles(mixture):
            said = [(m.role, m.text) for m in messages_of(piece, mixture.tokenizer)]
    elif work and (read := mixture.sample(sample, work=work)):
        images = [image["bytes"] for image in read["images"] or []]
        said = [
            (m["role"], " ".join(p["text"] or "" for p in m["content"] or []))
            for m in read["messages"] or []
        ]
    asked = [text for role, text in said if role == "user"]
    answered = [text for role, text in said if role in ("assistant", "document")]
    view["asked"] = shortened(asked[0] if asked else "", SAID)
    view["answered"] = shortened(answered[-1] if answered else "", SAID)
    view["images"] = len(images)
    shown = images[len(images) // 2 if line["modality"] == "video" else 0] if images else None
    if shown is not None:
        view |= thumbnail(shown, longest=SHEET_SIDE, budget=budget, quality=50)
    return view


def images_of(piece: SampleView, row: Mapping[str, Any]) -> list[bytes | None]:
    """The images of a sample of a packed row."""
    return [row["images"][s.image]["bytes"] for s in piece.spans if s.kind == "image"]
