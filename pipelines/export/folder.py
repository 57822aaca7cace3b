"""A finished mixture for another trainer: `export DIR output=FOLDER format=NAME`.

    DIR --records, shard by shard--> FOLDER/messages/SPLIT-N.parquet | FOLDER/shards/SPLIT-N.tar
                                     | FOLDER/preferences/SPLIT-N.parquet
                                     FOLDER/README.md mixture.yaml, and export.json, written last

Samples stand as often, in the order and in the split in which the shards hold them. The same
command again goes on where it was; mixture.yaml builds a mixture of the same tokens from the
folder.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import yaml

from pipelines.engine import ownership, tables
from pipelines.export.card import card
from pipelines.export.conversations import Record, about_shards, opened_tools, records
from pipelines.export.files import (
    CONTENTS,
    FORMATS,
    altered_in,
    documents_of,
    file_of,
    write_messages,
    write_preferences,
    write_table,
    write_webdataset,
)
from pipelines.report.finished import Finished, open_finished
from tokenization.decode import PLAIN
from tokenization.terminal import log
from tokenization.vocab import Vocab

VERSION = 2
"""Of the layout: bumped when the same mixture would give other files."""
MARK = "export.json"
PREVIEWED = 100
"""Samples of each split that a preview shows."""
PREVIEW_BYTES = 32 << 20
"""Of images in a preview, about, at most."""


def export(
    folder: str, *, output: str, format: str = "messages", content: str = "parts"
) -> dict[str, Any]:
    """The mixture in `folder` lies in `output` in another trainer's format; returns what is in it,
    by split and component.

    Raises:
        ValueError: a bad word, another export in `output`, shards that cannot be turned back.
        FileNotFoundError: no finished mixture in `folder`.
    """
    check_words(format=format, content=content)
    mixture = open_finished(folder)
    check_pairs(mixture, format=format)
    claim(output, export_of(mixture, format=format, content=content))
    return write(mixture, output, format=format, content=content)


def summary(made: Mapping[str, Any], output: str) -> str:
    """What an export holds, in a few lines."""
    lines = []
    for split, parts in made["splits"].items():
        samples, tokens = (sum(part[key] for part in parts) for key in ("samples", "tokens"))
        lines.append(f"{split}: {samples:,} samples, {tokens:,} tokens")
    return "\n".join([*lines, f"{output}/README.md says how each trainer loads it"])


def check_words(*, format: str, content: str) -> None:
    """Raises ValueError where a format or a content is none of ours."""
    if format not in FORMATS:
        raise ValueError(f"format={format}: expected one of {', '.join(FORMATS)}.")
    if content not in CONTENTS:
        raise ValueError(f"content={content}: expected one of {', '.join(CONTENTS)}.")
    if format != "messages" and content != "parts":
        raise ValueError(f"content={content}: of format=messages alone; {format} has typed parts.")


def check_pairs(mixture: Finished, *, format: str) -> None:
    """Raises ValueError where pairs are asked for and the mixture has none."""
    shard = next((name for names in mixture.shards.values() for name in names), None)
    if format != "preferences" or shard is None:
        return
    if "rejected" not in tables.open_file(mixture.path(shard)).schema.names:
        components = ", ".join(mixture.recipe["mixture"]["components"])
        raise ValueError(
            f"format=preferences: {mixture.folder} has no pairs of answers (components: "
            f"{components}).\nway out: format=messages, or build of a source of pairs: "
            "preferences, rlaif_v, ..., or a table with columns: {chosen: ..., rejected: ...} "
            "(docs/align.md)."
        )


def export_of(mixture: Finished, *, format: str, content: str) -> dict[str, Any]:
    """What determines an export."""
    about = {"mixture": mixture.recipe["name"], "recipe": mixture.recipe["fingerprint"]}
    return {**about, "format": format, "content": content, "version": VERSION}


def claim(output: str, wanted: Mapping[str, Any]) -> None:
    """`output` is empty or holds this export, begun or finished; else ValueError."""
    path = tables.join(output, MARK)
    found = tables.json_if_there(path)
    if found is None:
        if names := tables.listing(output):
            raise ValueError(
                f"output={output} is not empty and holds no export, but {ownership.listed(names)}. "
                "Nothing was written. Name a new folder with output=DIR."
            )
        tables.write_json(path, dict(wanted))
        return
    differs = [
        f"{key} {found.get(key)}, now {value}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if differs:
        raise ValueError(
            f"output={output} holds another export ({'; '.join(differs)}). Name a new folder with "
            "output=DIR, or remove that one."
        )


def write(
    mixture: Finished, output: str, *, format: str, content: str, home: str = "path/to/this/folder"
) -> dict[str, Any]:
    """Every shard's file is in `output`, then the card, by which a reader loads it from `home`;
    returns what is in them.
    """
    parts: list[pl.DataFrame] = []
    altered = left_out = 0
    pairs = False
    with opened_tools(mixture) as tools, about_shards(mixture) as about:
        names = [(split, n) for split, of in about.names.items() for n in of]
        for number, (split, shard) in enumerate(names, 1):
            name, here = shard.removesuffix(".arrow"), about.of(shard)
            found = counted(mixture, shard, here, split=split, vocab=tools.vocab)
            if format == "preferences":
                left_out += int(found.filter(~pl.col("pair"))["samples"].sum())
                found = found.filter("pair")
            pairs |= bool(found["pair"].any())
            found = found.drop("pair")
            wanted = [file_of(output, name, format=format)]
            if format == "messages" and found["document"].any():
                wanted.append(documents_of(output, name))
            if not all(tables.exists(path) for path in wanted):
                there = records(mixture, shard, here, tools)
                if format == "messages":
                    write_messages(there, output, name, content=content)
                elif format == "preferences":
                    write_preferences(there, output, name)
                else:
                    write_webdataset(there, output, name)
                log(f"{number} of {len(names)}: {wanted[0]}")
            altered += altered_in(wanted[0]) if content == "text" else 0
            parts.append(found)
    counts = summed(parts)
    made = {**export_of(mixture, format=format, content=content), "splits": counts}
    made["altered"] = altered
    if format == "preferences":
        made["left_out"] = left_out
    made["rebuilt_otherwise"] = rebuilt_otherwise(
        mixture, pl.concat(parts), format=format, pairs=pairs
    )
    for reason in made["rebuilt_otherwise"]:
        log(f"mixture.yaml of the export builds other shards than these: {reason}")
    rebuilding = rebuilding_mixture(mixture, counts, format=format)
    tables.write_text(
        tables.join(output, "mixture.yaml"),
        yaml.safe_dump(rebuilding, sort_keys=False, allow_unicode=True, width=100),
    )
    tables.write_text(tables.join(output, "README.md"), card(mixture, made, home=home))
    tables.write_json(tables.join(output, MARK), made)
    return made


def write_preview(mixture: Finished, output: str) -> list[str]:
    """preview/SPLIT.parquet in `output` shows the first samples of each split as messages and
    images, for viewers, to whom packed rows are lists of ids; returns the splits.

    Raises:
        ValueError: the shards cannot be turned back to messages.
    """
    written = []
    with opened_tools(mixture) as tools, about_shards(mixture) as about:
        for split, names in about.names.items():
            found = (r for name in names for r in records(mixture, name, about.of(name), tools))
            path = tables.join(output, "preview", f"{split}.parquet")
            if mixture.shards[split]:
                write_table(first_of(found), path)
                written.append(split)
    return written


def first_of(found: Iterator[Record]) -> Iterator[Record]:
    """The records of a preview."""
    held = 0
    for record in islice(found, PREVIEWED):
        held += sum(map(len, record.images))
        if held > PREVIEW_BYTES:
            return
        yield record


def counted(
    mixture: Finished, shard: str, about: pl.DataFrame, *, split: str, vocab: Vocab
) -> pl.DataFrame:
    """{split, component, document, pair, samples, tokens, cut} of a shard's sequences, from its
    columns; `cut`: how many do not end a raw document.
    """
    path, names = mixture.path(shard), ["sample_ids", "seq_lengths", "input_ids"]
    paired = "rejected" in tables.open_file(path).schema.names
    columns = tables.read(path, columns=[*names, "rejected"] if paired else names)
    flat = {
        name: pl.Series(pl.from_arrow(columns[name])).explode() for name in columns.column_names
    }
    lengths = flat["seq_lengths"].to_numpy().astype(np.int64)
    ids, ends = flat["input_ids"].to_numpy(), np.cumsum(lengths)
    document = ids[ends - lengths] != vocab.begin
    cut = document & (ids[ends - 1] != vocab.document_end)
    sequences = pl.DataFrame(
        {
            "id": flat["sample_ids"],
            "tokens": lengths,
            "document": document,
            "pair": flat["rejected"].is_not_null() if paired else False,
            "cut": cut,
        }
    )
    return (
        sequences.join(about.select("id", pl.col("component").cast(pl.String)), on="id")
        .group_by("component", "document", "pair")
        .agg(samples=pl.len(), tokens=pl.col("tokens").sum(), cut=pl.col("cut").sum())
        .with_columns(split=pl.lit(split))
    )


def summed(parts: list[pl.DataFrame]) -> dict[str, Any]:
    """Split -> per component, conversations and raw documents apart: samples (sequences), tokens,
    and their share of the split's tokens.
    """
    by = ["split", "component", "document"]
    whole = pl.concat(parts).drop("cut").group_by(by).sum().sort(by)
    found: dict[str, Any] = {}
    for split in whole["split"].unique(maintain_order=True):
        lines = whole.filter(split=split)
        total = lines["tokens"].sum()
        found[split] = [
            {
                **{k: line[k] for k in (*by[1:], "samples", "tokens")},
                "share": line["tokens"] / total,
            }
            for line in lines.iter_rows(named=True)
        ]
    return found


def rebuilt_otherwise(
    mixture: Finished, found: pl.DataFrame, *, format: str, pairs: bool
) -> list[str]:
    """Why mixture.yaml would not build the same sequences in the same order, each in a sentence."""
    resolved = mixture.recipe["mixture"]
    components = resolved["components"]
    scheduled = [name for name, about in components.items() if about.get("schedule")]
    own = [name for name, about in components.items() if about.get("encoding")]
    documents = found.filter(pl.col("document"), split="train")
    reasons = {
        f"the ratio of {', '.join(scheduled)} is a schedule, which lies in the order of these rows "
        "and not in mixture.yaml": bool(scheduled),
        f"{', '.join(own)} has an encoding of its own, and mixture.yaml one for all": bool(own),
        "tiles: random drew crops by the samples' ids, which are others there": resolved[
            "encoding"
        ].get("tiles") == "random",
        f"{documents['samples'].sum():,} raw documents are not read back from tars": (
            format == "webdataset" and len(documents) > 0
        ),
        f"{documents['cut'].sum():,} parts of raw documents that were cut at a row's end are "
        "documents there": format == "messages" and documents["cut"].sum() > 0,
        "it holds no rejected answers: format=preferences has them": (
            format != "preferences" and pairs
        ),
    }  # fmt: skip
    return [reason for reason, holds in reasons.items() if holds]


def rebuilding_mixture(
    mixture: Finished, counts: Mapping[str, Any], *, format: str
) -> dict[str, Any]:
    """The mixture that is built from the export: the same tokens, sample by sample."""
    resolved = mixture.recipe["mixture"]
    encoding = {**resolved["encoding"], **PLAIN}
    if encoding.get("images") == "fitted":
        encoding |= {"images": "original", "upscale": False}
    source = {"source": format, "data": f"./{format}/train-*.parquet"}
    if format == "webdataset":
        source = {"source": "webdataset", "data": "./shards/train-*.tar"}
    components: dict[str, Any] = {"conversations": {**source, "placeholders": "literal"}}
    raw = sum(line["share"] for line in counts.get("train", []) if line["document"])
    if raw and format == "messages":
        components["documents"] = {"source": "documents", "data": "./documents/train-*.parquet"}
        components["documents"]["ratio"] = raw
    components["conversations"]["ratio"] = 1 - raw if format == "messages" else 1.0
    return {
        "description": f"{resolved['description']} (The export of recipe "
        f"{mixture.recipe['fingerprint']}; prompts are in its messages.)".strip(),
        "tokens": "max",
        "val_fraction": 0.0,
        "encoding": encoding,
        "components": {name: c for name, c in components.items() if c["ratio"] > 0},
    }
