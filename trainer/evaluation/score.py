"""A finished mixture's samples, scored by a checkpoint: one line per sample in a Parquet file.

```
shards --> windows of rows --> answer losses --> OUTPUT.parts/SHARD.parquet --> OUTPUT
```

The file is an annotation: a mixture that names it under `annotations` has its columns as facts, for
rules and `weight_by`. A shard that is scored is not scored again; a stopped command goes on.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenization.command_line import Answer
from tokenization.terminal import log
from tokenization.vocab import load_tokenizer, vocab
from trainer.arguments import did_you_mean, local_path, split_pairs
from trainer.data import integrity
from trainer.data.batches import Batch, collate, cores, made_ahead
from trainer.data.shards import Mixture, Row, Rows, open_mixture
from trainer.evaluation import held_out
from trainer.evaluation.answer import open_checkpoint
from trainer.evaluation.visual_gain import AnswerLosses, answer_losses
from trainer.parallel import torch_threads

OPTIONS = {"data": "", "like": "", "output": "", "split": "all", "device": "auto",
           "threads": "0", "cache": "", "cache_bytes": "0"}  # fmt: skip
SPLITS = {"train": ("train",), "val": ("val",), "all": ("train", "val")}
WINDOW = 8
"""Rows whose images are exchanged with each other; their crops are in memory together (82 MB a row
of a hundred crops)."""
SCORES = pa.schema(
    {
        "id": pa.string(),
        "learned": pa.int32(),  # tokens, of all its answers
        "loss": pa.float32(),  # mean per learned token, natural logarithm
        "loss_without_images": pa.float32(),
        "loss_other_images": pa.float32(),
        "visual_gain": pa.float32(),  # loss_without_images - loss
        "image_match": pa.float32(),  # loss_other_images - loss
        "answer_loss": pa.list_(pa.float32()),
        "answer_visual_gain": pa.list_(pa.float32()),
    }
)
"""A line per sample; null where the sample has no image, or no other one to compare it with."""
LOGITS_CHUNK = 512


def score_command(arguments: Sequence[str]) -> Answer:
    """`score CHECKPOINT ...`: the file, and what it says of each component or of the likeness."""
    if not arguments or "=" in arguments[0]:
        raise ValueError("score: expected a checkpoint: python -m trainer score RUN data=DIR")
    pairs = split_pairs(arguments[1:])
    for key in pairs:
        if key not in OPTIONS:
            raise ValueError(f"score: unknown key '{key}'. {did_you_mean(key, list(OPTIONS))}")
    options = OPTIONS | pairs
    file = score(arguments[0], **options)
    if options["like"]:
        found = told_likeness(file)
        text = f"{found['sentence']}\nscores {file}".lstrip()
        return Answer(text, {"scores": str(file), **found})
    mixture = open_mixture(
        options["data"], cache=options["cache"], cache_bytes=int(options["cache_bytes"])
    )
    lines = by_component(pq.read_table(file), held_out.components(mixture))
    return Answer(
        "\n".join([*summary(lines), f"scores {file}"]),
        {"scores": str(file), "components": lines},
    )


def score(
    checkpoint: str,
    *,
    data: str,
    like: str = "",
    output: str = "",
    split: str = "all",
    device: str = "auto",
    threads: str = "0",
    cache: str = "",
    cache_bytes: str = "0",
) -> Path:
    """The Parquet file of SCORES of the mixture's samples; written, or there already.

    `like`: a finished mixture of a target set; the file then is of LIKENESS (likeness.py).
    `cache`, `cache_bytes`: of a mixture at a URL, as of the trainer's settings.

    Raises:
        ValueError: a mistake in the options; the split has no rows; the mixture is not made for
            this checkpoint (crops, tokens per crop, ids).
    """
    if split not in SPLITS:
        raise ValueError(f"score: split={split}: expected one of {', '.join(SPLITS)}.")
    for key, value in (("threads", threads), ("cache_bytes", cache_bytes)):
        if not value.isdigit():
            raise ValueError(f"score: {key}={value}: expected a whole number.")
    if not data:
        raise ValueError("score: data is not set. Expected data=DIR, a finished mixture.")
    if output:
        local_path(output, "score: output")
    mixture = open_mixture(data, cache=cache, cache_bytes=int(cache_bytes))
    splits = [Rows(mixture, name) for name in SPLITS[split]]
    if not any(len(rows) for rows in splits):
        raise ValueError(
            f"score: split={split}: {data} has no rows of it.\nway out: score split=all, or build "
            "the mixture with val_fraction above 0."
        )
    target = open_mixture(like, cache=cache, cache_bytes=int(cache_bytes)) if like else None
    with torch_threads(int(threads)):
        return _scored(
            checkpoint, mixture, splits, target, output=output, split=split, device=device
        )


def _scored(
    checkpoint: str, mixture: Mixture, splits: Sequence[Rows], target: Mixture | None, *,
    output: str, split: str, device: str,
) -> Path:  # fmt: skip
    from trainer.evaluation import likeness
    from trainer.model.attention import choose_attention
    from trainer.model.smolvlm import Objective, use_attention

    model, tokenizer, encoding, folder = open_checkpoint(checkpoint, device=device)
    refuse_other_encoding(mixture, encoding, tokenizer, where=folder)
    name = mixture.name if split == "all" else f"{mixture.name}-{split}"
    if target:
        likeness.refuse_shared(mixture, target)
        refuse_other_encoding(target, encoding, tokenizer, where=folder)
        name += f"-like-{target.name}"
    final = Path(output or folder / "scores" / f"{name}.parquet")
    weights = sorted(folder.glob("*.safetensors"))
    identity = {
        "mixture": mixture.fingerprint,
        "weights": " ".join(integrity.sha256_of(path) for path in weights),
        "split": split,
        **({"like": target.fingerprint} if target else {}),
    }
    if is_of(final, identity):
        log(f"{final} is there already: nothing to do.")
        return final
    if final.exists():
        log(f"{final} is of other weights or another mixture: it is written anew.")
    where = model.device
    dtype = "bfloat16" if where.type == "cuda" else "float32"
    use_attention(model, choose_attention("auto", where, dtype))
    objective = Objective(model, logits_chunk=LOGITS_CHUNK, neftune=0.0).eval()
    parts = final.with_name(f"{final.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    marks = vocab(tokenizer, replace(mixture.encoding, tokenizer=str(folder)))
    if target:
        theirs = [Rows(target, name) for name in SPLITS["all"]]
        found = likeness.likeness(
            objective, splits, theirs, image_token=marks.image, parts=parts, identity=identity
        )
        write(final, found, identity)
        shutil.rmtree(parts)
        return final
    for rows in splits:
        _score_split(objective, rows, marks, parts=parts, identity=identity)
    tables = [
        pq.read_table(part) for part in sorted(parts.glob("*.parquet")) if is_of(part, identity)
    ]
    scores = once_each(pa.concat_tables(tables), copies_of(mixture))
    write(final, scores, identity)
    shutil.rmtree(parts)
    return final


def _score_split(
    objective: Any, rows: Rows, marks: Any, *, parts: Path, identity: Mapping[str, str]
) -> None:
    """Every shard of the split has its file in `parts`."""
    for shard, numbers in shards_of(rows):
        part = parts / f"{shard}.parquet"
        if is_of(part, identity):
            continue
        found = [
            losses
            for window, batches in windows(rows, numbers, image_token=marks.image)
            for losses in answer_losses(
                objective, window, batches,
                image_token=marks.image, fake_token=marks.fake, device=objective.model.device,
            )
        ]  # fmt: skip
        write(part, table_of(found), identity)
        log(f"scored {shard}: {len(found)} samples of {len(numbers)} rows")


def refuse_other_encoding(mixture: Mixture, encoding: Any, tokenizer: Any, *, where: Path) -> None:
    """Raises ValueError where the shards hold other crops or ids than the checkpoint reads."""
    for name in ("crop_size", "tokens_per_crop"):
        ours, theirs = getattr(mixture.encoding, name), getattr(encoding, name)
        if ours != theirs:
            raise ValueError(
                f"{name}: {ours} in the shards of {mixture.folder}, {theirs} in {where}.\n"
                "way out: score a mixture that was built for this checkpoint "
                f"(encoding: {{like: {where}}})."
            )
    own = load_tokenizer(str(mixture.folder / "tokenizer"))
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"vocabulary: the tokenizer in {mixture.folder} gives other ids than that of {where}.\n"
            f"way out: build the mixture with encoding.tokenizer={where}."
        )


def shards_of(rows: Rows) -> Iterator[tuple[str, range]]:
    """(name without ending, numbers of its rows) of each shard, in order."""
    first = 0
    for name, count in zip(rows.shards, rows.shard_rows, strict=True):
        yield Path(name).stem, range(first, first + count)
        first += count


def windows(
    rows: Rows, numbers: Sequence[int], *, image_token: int
) -> Iterator[tuple[list[Row], list[Batch]]]:
    """WINDOW rows at a time, and each one collated."""

    def make(row: Row) -> tuple[Row, Batch]:
        return row, collate([row], image_token=image_token)

    held: list[tuple[Row, Batch]] = []
    read = (rows[number] for number in numbers)
    for made in made_ahead(read, make, workers=cores(), ahead=WINDOW):
        held.append(made)
        if len(held) == WINDOW:
            yield [row for row, _ in held], [batch for _, batch in held]
            held = []
    if held:
        yield [row for row, _ in held], [batch for _, batch in held]


def table_of(found: Sequence[AnswerLosses]) -> pa.Table:
    """SCORES, a line per sample of a packed row."""
    lines = []
    for sample in found:
        total = int(sample.learned.sum())
        own, without, other = (
            float((values * sample.learned).sum() / total) if total else float("nan")
            for values in (sample.own, sample.without, sample.other)
        )
        lines.append(
            {
                "id": sample.id,
                "learned": total,
                "loss": own,
                "loss_without_images": without,
                "loss_other_images": other,
                "visual_gain": without - own,
                "image_match": other - own,
                "answer_loss": sample.own,
                "answer_visual_gain": sample.without - sample.own,
            }
        )
    columns = {}
    for field in SCORES:
        values = [line[field.name] for line in lines]
        if pa.types.is_floating(field.type):
            columns[field.name] = pa.array(values, field.type, from_pandas=True)  # NaN: null
        elif pa.types.is_list(field.type):
            flat = np.concatenate([np.empty(0), *values])
            ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
            columns[field.name] = pa.ListArray.from_arrays(
                ends, pa.array(flat, pa.float32(), from_pandas=True)
            )
        else:
            columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=SCORES)


def once_each(table: pa.Table, copies: Mapping[str, int]) -> pa.Table:
    """A line per id, in order of ids. `copies`: how often the shards hold a sample, if not once.

    A copy is scored beside other images: numbers are means over copies. Pieces of a document that
    was cut are one sample, and one answer: their tokens add up, means are by learned tokens, and
    where some have images those without lose nothing by being without.
    """
    import polars as pl

    found = pl.DataFrame(pl.from_arrow(table))
    known = {"id": list(copies), "copies": list(copies.values())}
    found = found.join(
        pl.DataFrame(known, schema={"id": pl.String, "copies": pl.Int32}), on="id", how="left"
    ).with_columns(pl.col("copies").fill_null(1))
    bare = pl.col("loss_without_images").is_null() & (pl.col("learned") > 0)
    for loss, gain in (
        ("loss_without_images", "visual_gain"), ("loss_other_images", "image_match"),
    ):  # fmt: skip
        same = bare & pl.col(gain).is_not_null().any().over("id")
        found = found.with_columns(
            pl.when(same).then(pl.col("loss")).otherwise(loss).alias(loss),
            pl.when(same).then(0.0).otherwise(gain).alias(gain),
        )
    means = [field.name for field in SCORES if pa.types.is_floating(field.type)]
    lists = [field.name for field in SCORES if pa.types.is_list(field.type)]
    known_tokens = {n: pl.col("learned").filter(pl.col(n).is_not_null()).sum() for n in means}
    lines = found.group_by("id", maintain_order=True).agg(
        pl.col("learned").sum() // pl.col("copies").first(),
        (pl.len() // pl.col("copies").first()).alias("pieces"),
        *(
            ((pl.col(name) * pl.col("learned")).sum() / known_tokens[name]).alias(name)
            for name in means
        ),
        *(pl.col(name).first() for name in lists),
    )
    lines = lines.with_columns(pl.col(means).fill_nan(None))
    whole = {"answer_loss": "loss", "answer_visual_gain": "visual_gain"}
    lines = lines.with_columns(
        pl.when(pl.col("pieces") > 1).then(pl.concat_list(one)).otherwise(name).alias(name)
        for name, one in whole.items()
    )
    return lines.select(SCORES.names).sort("id").to_arrow().cast(SCORES)


def copies_of(mixture: Mixture) -> dict[str, int]:
    """How often the shards hold each sample that they hold more than once."""
    found: dict[str, int] = {}
    with pa.ipc.open_file(pa.memory_map(str(mixture.folder / "index.arrow"))) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).select(["id", "copies"])
            more = batch.filter(pc.greater(batch["copies"], 1)).to_pydict()
            found.update(zip(more["id"], more["copies"], strict=True))
    return found


def is_of(path: Path, identity: Mapping[str, str]) -> bool:
    """The file is there, and of these weights and this mixture."""
    if not path.is_file():
        return False
    held = pq.read_schema(path).metadata or {}
    return bool(held.get(b"scored") == json.dumps(identity).encode())


def write(path: Path, table: pa.Table, identity: Mapping[str, str]) -> None:
    """The file appears whole, with what its table says of itself."""
    arriving = path.with_name(f".{path.name}.arriving")
    said = {**(table.schema.metadata or {}), b"scored": json.dumps(identity).encode()}
    pq.write_table(table.replace_schema_metadata(said), arriving)
    arriving.rename(path)


def told_likeness(file: Path) -> dict[str, Any]:
    """What a file of LIKENESS says of itself: `auroc`, `effective_samples`, ..., `sentence`."""
    found: dict[str, Any] = json.loads((pq.read_schema(file).metadata or {}).get(b"told", b"{}"))
    return {"sentence": ""} | found


def by_component(scores: pa.Table, components: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per component: samples, mean loss, visual gain and image match, the share below 0 of the
    gains.
    """
    import polars as pl

    prefix = pl.col("id").str.replace("/[^/]*$", "")
    frame = (
        pl.DataFrame(pl.from_arrow(scores))
        .with_columns(component=prefix.replace_strict(components, default=prefix))
        .group_by("component")
        .agg(
            pl.len().alias("samples"),
            pl.col("loss", "visual_gain", "image_match").mean(),
            misled=(pl.col("visual_gain") < 0).mean(),
        )
        .sort("component")
    )
    return list(frame.iter_rows(named=True))


def summary(means: Sequence[Mapping[str, Any]]) -> list[str]:
    """`by_component` as lines of text."""
    head = f"{'component':<24}{'samples':>9}{'loss':>9}{'visual gain':>13}{'image match':>13}"
    head += f"{'below 0':>9}"
    lines = [head, "-" * len(head)]
    for line in means:
        numbers = [line["loss"], line["visual_gain"], line["image_match"]]
        loss, gain, match = ("-" if n is None else f"{n:.3f}" for n in numbers)
        misled = "-" if line["misled"] is None else f"{line['misled']:.0%}"
        lines.append(
            f"{line['component'][:23]:<24}{line['samples']:>9}{loss:>9}{gain:>13}{match:>13}{misled:>9}"
        )
    return lines
