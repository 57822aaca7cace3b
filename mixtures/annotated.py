"""Annotations in a mixture: files beside the data whose fields become facts of samples."""

import difflib
import re
from dataclasses import dataclass, field

KEY = "__key__"
"""What WebDataset calls the name that the members of a sample share."""
SAMPLE_ID = "__id__"
"""The sample's own id, as the index of a mixture has it and `trainer score` writes it."""
PLACES = ("subset", "shard")
PLACE = re.compile(r"\{([^{}]*)\}")
NAME = re.compile(r"[A-Za-z_]\w*\Z")
LATER = {"identity": "where_changed"}
"""Of a setting that came after mixtures were finished: no part of their identity at its default."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Files beside the data, joined by a key, whose numbers are facts like a sample's own."""

    files: str = ""
    """Where they lie, local, in a store or on the hub (`hf://datasets/ORG/NAME/...`): `{subset}`
    stands for the subset, `{shard}` for the name of the file that a row comes from, without its
    ending: `{subset}/{shard}.json` is `ai2d/000000.json` of `ai2d/000000.tar`. JSON (key -> fields,
    or rows), JSON lines, CSV, Parquet; compressed too. Empty: none."""
    key: str = "__key__"
    """The column that names a sample in the rows; of tars, what its members share. `__id__`: the
    sample's id in the index, for one file of a whole mixture (`trainer score`)."""
    file_key: str = ""
    """The column that names it in the files, where they are rows. Empty: as `key`."""
    fields: dict[str, str] = field(default_factory=dict)
    """Fact -> its field in the files, or one inside another (`scores.clip`); numbers."""
    ratings: bool = field(default=False, metadata=LATER)
    """Ratings of single turns out of what `pipelines judge prompt=finevision` wrote, for
    `low_rating`, in place of those that the source brings; with key `__id__`."""
    incomplete: bool = False
    """Where a shard has no file: its samples have no facts and are counted. false: an error."""


def check_annotations(found: Annotations, *, key: str, where: str) -> None:
    """They can be joined, or ValueError says what is missing."""
    if not found.files:
        if found != Annotations():
            raise ValueError(f"{where}: {key}.files is missing. Say where the annotations lie.")
        return
    for place in PLACE.findall(found.files):
        if place == "shard" and found.key == SAMPLE_ID:
            raise ValueError(
                f"{where}: {key}.files holds {{shard}}, and {key}.key is {SAMPLE_ID}: an id says "
                "nothing of a shard. Leave {shard} out."
            )
        if place not in PLACES:
            close = difflib.get_close_matches(place, PLACES, 1, cutoff=0)
            raise ValueError(
                f"{where}: {key}.files holds {{{place}}}; expected {{subset}} and {{shard}} alone. "
                f"Did you mean {{{close[0]}}}?"
            )
    if found.ratings and (found.key != SAMPLE_ID or "{" in found.files):
        raise ValueError(
            f"{where}: {key}.ratings is true, key is {found.key}, files {found.files!r}; ratings "
            f"of turns come from one table that `pipelines judge` wrote: key: {SAMPLE_ID}."
        )
    if not found.fields and not found.ratings:
        raise ValueError(f"{where}: {key}.fields is empty; expected `fact: field` pairs.")
    for fact, path in found.fields.items():
        if not NAME.match(fact):
            raise ValueError(
                f"{where}: {key}.fields has a fact {fact!r}; expected letters, digits and _."
            )
        if not path:
            raise ValueError(f"{where}: {key}.fields.{fact} is empty; expected a field.")
