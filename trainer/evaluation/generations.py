"""A few val samples, the same at every checkpoint, and what the model says to them.

The prompt is the packed row's own ids up to the first learned token, so nothing is rendered again.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenization.schema import Encoding
from trainer.data.batches import images_per_sample
from trainer.data.shards import Mixture, Row, Rows
from trainer.evaluation import held_out
from trainer.evaluation.answer import Prompt, replies

LOOKED_AT = 64
"""Val rows of a mixture among which samples are chosen."""
NEW_TOKENS = 48
"""Generated at most."""
IMAGE = re.compile(
    r"(?:<fake_token_around_image>(?:<global-img>|<row_\d+_col_\d+>)?(?:<image>)+\n*)+"
    r"<fake_token_around_image>"
)


MODALITIES = ("image", "multi_image", "video", "text")
TIME = re.compile(r"(\d\d:\d\d):?\s*$")
"""At the end of the text before a frame: when it stands in its video."""


@dataclass(frozen=True)
class ShownSample:
    """A val sample up to where its first answer begins."""

    id: str
    component: str
    question: str
    """The prompt with its special tokens, each image one mark."""
    expected: str
    images: list[bytes]
    prompt: Prompt
    encoding: Encoding
    modality: str = "text"
    """text, image, multi_image or video."""
    times: tuple[str, ...] = ()
    """Of each image, when it stands in its video ("00:03"); empty for a still."""


def choose_samples(mixtures: Sequence[Mixture], tokenizer: Any, *, count: int) -> list[ShownSample]:
    """`count` val samples of all modalities and components, as evenly as they are there.

    Only samples that ask before they answer: all of their images come before the first learned
    token.
    """
    found: dict[str, ShownSample] = {}
    for mixture in mixtures:
        names = held_out.components(mixture)
        rows = Rows(mixture, "val")
        for number in range(min(len(rows), LOOKED_AT)):
            for shown in _samples(rows[number], tokenizer, names):
                found.setdefault(shown.id, shown)
    queues: dict[tuple[str, str], list[ShownSample]] = {}
    for shown in found.values():
        queues.setdefault((shown.component, shown.modality), []).append(shown)
    chosen: list[ShownSample] = []
    seen: Counter[str] = Counter()
    while queues and len(chosen) < count:
        # The modality seen least, and of it the component seen least; images before text.
        component, modality = min(
            queues, key=lambda k: (seen[k[1]], seen[k[0]], MODALITIES.index(k[1]), k[0])
        )
        chosen.append(queues[component, modality].pop(0))
        seen.update((component, modality))
        if not queues[component, modality]:
            del queues[component, modality]
    return chosen


def _samples(row: Row, tokenizer: Any, names: dict[str, str]) -> Iterator[ShownSample]:
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    counts = images_per_sample(
        row.input_ids == image_token,
        row.seq_lengths,
        row.grids,
        tokens_per_crop=row.encoding.tokens_per_crop,
    )
    start = image = 0
    for name, length, count in zip(
        row.sample_ids, row.seq_lengths.tolist(), counts.tolist(), strict=True
    ):
        ids, mask = (values[start : start + length] for values in (row.input_ids, row.loss_mask))
        images = slice(image, image + count)
        start, image = start + length, image + count
        begin = int(mask.argmax())
        asks = mask.any() and begin > 1 and not (ids[begin:] == image_token).any()
        if not asks:
            continue
        rest = np.flatnonzero(~mask[begin:])
        end = begin + int(rest[0]) if len(rest) else length
        prefix = name.rpartition("/")[0]
        asked = tokenizer.decode(ids[:begin])
        stated = [TIME.search(text) for text in IMAGE.split(asked)[:count]]
        times = tuple(each[1] if each else "" for each in stated)
        yield ShownSample(
            id=name,
            component=names.get(prefix, prefix),
            question=IMAGE.sub("[image]", asked),
            expected=tokenizer.decode(ids[begin:end], skip_special_tokens=True).strip(),
            images=row.images[images],
            prompt=Prompt(ids[:begin].astype(np.int64), row.grids[images]),
            encoding=row.encoding,
            modality="video" if any(times) else ("text", "image", "multi_image")[min(count, 2)],
            times=times,
        )


def generate_answers(model: Any, tokenizer: Any, samples: Sequence[ShownSample]) -> dict[str, str]:
    """What the model says to each sample, by its id; greedy, one after the other."""
    return {
        shown.id: replies(
            model, tokenizer, [shown.prompt], [shown.images], encoding=shown.encoding,
            max_new_tokens=NEW_TOKENS, batch_size=1,
        )[0].text
        for shown in samples
    }  # fmt: skip
