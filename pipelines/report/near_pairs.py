"""Samples of the shards that are near each other, side by side.

stats: pairs of ids --their places in the shards--> images, question and answer of both
"""

from typing import Any

import polars as pl

from pipelines.report.drawn import TEXT, ids_in, views
from pipelines.report.finished import Finished
from pipelines.report.leaks import cut
from pipelines.report.row_view import frame_times
from pipelines.report.texts import messages_of, tells_roles
from pipelines.report.thumbnails import Budget, thumbnail

IMAGES, SIDE = 3, 192
"""Of a sample that are shown; px, their longer side."""
BYTES = 1_200_000
"""Of the images of all pairs."""


def near_pairs(mixture: Finished) -> list[list[dict[str, Any]]]:
    """Both samples of each pair that stats name, the one that stands for the other first."""
    stats = mixture.stats
    pairs = [*stats.get("alike", {}).get("pairs", ())]
    pairs += stats.get("texts", {}).get("near", {}).get("pairs", ())
    ids = list(dict.fromkeys(sample for pair in pairs for sample in pair))
    mixture.remember(ids)
    lines = {sample: mixture.line(sample) for sample in ids}
    shards = {f"{line['split']}-{line['shard'][0]:05d}.arrow" for line in lines.values()}
    places = ids_in(mixture, sorted(shards)).unique("id", keep="first", maintain_order=True)
    budget, told = Budget(left=BYTES), tells_roles(mixture)
    sides: dict[str, dict[str, Any]] = {}
    wanted = places.filter(pl.col("id").is_in(pl.Series(ids, dtype=pl.String).implode()))
    for _, row, view in views(mixture, wanted, columns=[*TEXT, "images"]):
        messages = list(messages_of(view, mixture.tokenizer)) if told else []
        images, video = row["images"], bool(frame_times(view.spans))
        first = len(images) // 2 if video else 0
        shown = images[first : first + (1 if video else IMAGES)]
        sides[view.id] = {
            "id": view.id,
            "component": lines[view.id]["component"],
            "split": lines[view.id]["split"],
            "question": cut("\n".join(m.text for m in messages if m.role == "user")),
            "answer": cut("\n".join(m.text for m in messages if m.role[0] in "ad")),
            "num_images": len(images),
            "images": [thumbnail(i["bytes"], longest=SIDE, budget=budget) for i in shown],
        }
    return [[sides[sample] for sample in pair] for pair in pairs]
