"""SAMPLE -> TOKENS: ids, loss mask and crop grids of every sample, in the same order.

Reads `id source subset messages images.{width,height,seconds} duration defect tags`; never a pixel.
What cannot be encoded becomes a row with a `problem` and no ids; no row is left out. What a batch
says goes through the tokenizer in one call, by words (words.py); image ids are spliced in, and the
mask is built on the way. Choices are hashes of the sample id, so the result does not depend on
order or batching.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization import chat, prompts, templates
from tokenization.assemble import Plan, assembled, count, learned_tokens, lists
from tokenization.images import grid
from tokenization.prompts import Conversation
from tokenization.schema import GRIDS, PAIRED_TOKENS, SAMPLE, TOKENS, Encoding
from tokenization.vocab import (
    Vocab,
    image_ids,
    load_tokenizer,
    plain_tokenizer,
    vocab,
)
from tokenization.words import Words, words_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_READS = ["id", "source", "subset", "messages", "images", "duration", "defect", "tags"]

_SIZES = ("width", "height", "seconds")
"""Of an image."""

BATCH = 512
"""Samples per call of the tokenizer: enough to amortise it, few enough to bound memory."""

MANY_TILES = ((2, 0.4), (3, 0.3), (4, 0.2), (5, 0.1))
FEW_TILES = ((1, 0.5), (2, 0.3), (3, 0.2))
"""(crops on the longer side, probability) of SmolVLM's image stages, above and up to 3 crops;
https://github.com/huggingface/smollm, vision/m4/training/utils.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of SAMPLE as Python values, without image bytes."""

    id: str
    source: str
    subset: str
    conversation: Conversation
    sizes: list[tuple[int | None, int | None]]
    """(width, height) per image, px."""
    seconds: list[float | None]
    duration: float | None
    defect: str | None
    tags: list[str]
    rejected: str | None = None
    """The answer that the last one was preferred to; it is no part of `conversation`."""


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch of SAMPLE.

    Placeholders get the numbers 0, 1, ... of the images they stand for, also where there are none.
    """
    column = lambda name: batch.column(batch.schema.get_field_index(name))
    messages = column("messages")
    flat = messages.flatten()
    content = pc.struct_field(flat, "content")
    parts = content.flatten()
    texts = pc.struct_field(parts, "text").to_pylist()
    is_image = pc.equal(pc.struct_field(parts, "type"), "image").to_pylist()
    roles = pc.struct_field(flat, "role").to_pylist()
    lengths = lambda lists: pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
    num_parts = lengths(content)
    images = column("images")
    stills = images.flatten()
    widths, heights, seconds = (pc.struct_field(stills, name).to_pylist() for name in _SIZES)
    scalars = [column(n).to_pylist() for n in ("id", "source", "subset", "duration", "defect")]
    message = part = image = 0
    for id_, source, subset, duration, defect, tags, num_messages, num_images in zip(
        *scalars, column("tags").to_pylist(), lengths(messages), lengths(images), strict=True
    ):
        conversation: Conversation = []
        rejected = None
        number = 0
        for at in range(message, message + num_messages):
            said: list[str | int] = []
            for here in range(part, part + num_parts[at]):
                if is_image[here]:
                    said.append(number)
                    number += 1
                else:
                    said.append(texts[here] or "")
            part += num_parts[at]
            if roles[at] == "rejected":
                rejected = "".join(map(str, said))
            else:
                conversation.append((roles[at], said))
        message += num_messages
        upto = image + num_images
        yield Row(
            id=id_,
            source=source or "",
            subset=subset or "",
            conversation=conversation,
            sizes=list(zip(widths[image:upto], heights[image:upto], strict=True)),
            seconds=seconds[image:upto],
            duration=duration,
            defect=defect,
            tags=tags or [],
            rejected=rejected,
        )
        image = upto


def tiles_of(sample_id: str, image: int, *, encoding: Encoding) -> int:
    """The random number of crops on the longer side of a still, never above `longest_edge`."""
    most = -(-encoding.longest_edge // encoding.crop_size)
    table = MANY_TILES if most > 3 else FEW_TILES
    drawn = prompts.hashed_choice(encoding, f"tiles/{image}", sample_id, 1 << 32) / (1 << 32)
    bounds = accumulate(share for _, share in table)
    tiles = next((n for (n, _), bound in zip(table, bounds, strict=True) if drawn < bound), most)
    return min(tiles, most)


def grids_of(row: Row, *, encoding: Encoding) -> list[tuple[int, int]]:
    """The crop grid of every image of a row."""
    grids = []
    for number, ((width, height), seconds) in enumerate(zip(row.sizes, row.seconds, strict=True)):
        if width is None or height is None:
            raise ValueError(
                f"sample {row.id}: image {number} has no size, yet no defect is named."
            )
        settings = encoding
        if encoding.tiles == "random" and seconds is None:
            edge = tiles_of(row.id, number, encoding=encoding) * encoding.crop_size
            settings = replace(encoding, longest_edge=min(edge, encoding.longest_edge))
        grids.append(grid(width, height, encoding=settings, video=seconds is not None))
    return grids


def _turn_order(row: Row, *, encoding: Encoding) -> list[int] | None:
    """A permutation of the question-answer pairs, or None where they stay as they are."""
    number = chat.num_pairs(row.conversation) if encoding.shuffle_turns else 0
    if number < 2:
        return None
    rank = lambda turn: prompts.hashed_choice(encoding, f"turn/{turn}", row.id, 1 << 62)
    return sorted(range(number), key=rank)


def is_plain(sample_id: str, *, encoding: Encoding) -> bool:
    """Whether the sample is among those that `plain_prompts` leaves without words of ours."""
    if not encoding.plain_prompts:
        return False
    drawn = prompts.hashed_choice(encoding, "plain", sample_id, 1 << 32) / (1 << 32)
    return drawn < encoding.plain_prompts


def with_added_words(row: Row, conversation: Conversation, *, encoding: Encoding) -> Conversation:
    """`conversation` of a row with every word the pipeline adds: what a chat template would get."""
    if conversation and conversation[0][0] == "document":
        return conversation
    video = any(second is not None for second in row.seconds)
    if is_plain(row.id, encoding=encoding):
        encoding = replace(
            encoding,
            system_prompts="none",
            media_intro_outro=encoding.media_intro_outro and video,
        )
    kind = prompts.kind_of_task(
        conversation, source=row.source, subset=row.subset, tags=row.tags, video=video
    )
    if encoding.brevity_hints and row.sizes and not video:
        conversation = prompts.with_brevity_hint(conversation, sample_id=row.id, encoding=encoding)
    conversation = prompts.with_media_words(
        conversation,
        sample_id=row.id,
        seconds=row.seconds,
        duration=row.duration,
        encoding=encoding,
    )
    return prompts.with_system_prompt(conversation, kind, sample_id=row.id, encoding=encoding)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodingTools:
    """What encoding needs besides the samples; one per process and encoding."""

    encoding: Encoding
    vocab: Vocab
    words: Words
    template: str
    """A Jinja template, or "" for SmolVLM's own rendering."""


def encoding_tools(encoding: Encoding) -> EncodingTools:
    """The tools of an encoding. Raises ValueError or FileNotFoundError where its settings cannot be
    met: no such tokenizer, table or template.
    """
    return _tools_of(load_tokenizer(encoding.tokenizer), encoding)


@lru_cache(maxsize=8)
def _tools_of(tokenizer: "PreTrainedTokenizerFast", encoding: Encoding) -> EncodingTools:
    if not 0 <= encoding.plain_prompts <= 1:
        raise ValueError(
            f"encoding.plain_prompts: found {encoding.plain_prompts}. Expected a share of the "
            "samples, 0 (none) to 1 (all)."
        )
    prompts.with_system_prompt([], "conversation", sample_id="", encoding=encoding)
    return EncodingTools(
        encoding=encoding,
        vocab=vocab(tokenizer, encoding),
        words=words_of(plain_tokenizer(encoding.tokenizer)),
        template=templates.template_of(tokenizer, encoding=encoding),
    )


def _pieces(row: Row, conversation: Conversation, tools: EncodingTools) -> list[chat.Piece]:
    """The pieces of a conversation of a row, with the pipeline's own words in it."""
    said = with_added_words(row, conversation, encoding=tools.encoding)
    if tools.template and said[0][0] != "document":
        return templates.pieces_of(said, tools.template, encoding=tools.encoding)
    return chat.pieces_of(said, tools.vocab, encoding=tools.encoding)


def _num_tokens(
    pieces: list[chat.Piece], grids: list[tuple[int, int]], tools: EncodingTools
) -> int:
    number = count(tools.words.packed([what for what, _ in pieces if isinstance(what, str)]))
    for what, _ in pieces:
        if isinstance(what, int):
            number += len(image_ids(tools.vocab, *grids[what]))
        elif isinstance(what, tuple):
            number += len(what)
    return number


def _split(
    row: Row, turns: Conversation, grids: list[tuple[int, int]], tools: EncodingTools
) -> tuple[list[list[chat.Piece]], bool]:
    """(the sequences of a long sample, whether each of them fits a row).

    A sequence has at most `split_turns` pairs and, unless a single pair has more, `seq_len` tokens.
    """
    limit, seq_len = tools.encoding.split_turns, tools.encoding.seq_len
    number = chat.num_pairs(turns)
    sequences: list[list[chat.Piece]] = []
    fits = True
    start = 0
    while start < number:
        end = min(start + limit, number)
        pieces = _pieces(row, chat.some_pairs(turns, start, end), tools)
        while (length := _num_tokens(pieces, grids, tools)) > seq_len and end > start + 1:
            end -= 1
            pieces = _pieces(row, chat.some_pairs(turns, start, end), tools)
        fits &= length <= seq_len
        sequences.append(pieces)
        start = end
    return sequences, fits


def plan(row: Row, tools: EncodingTools) -> Plan:
    """The pieces of a row, or the problem that prevents them."""
    encoding = tools.encoding
    problem = row.defect or chat.problem_of(row.conversation, len(row.sizes))
    if problem:
        return Plan(problem=problem)
    grids = grids_of(row, encoding=encoding)
    if grids and not tools.vocab.positions:
        return Plan(problem="no_image_token")
    if any(max(cells) > tools.vocab.sides for cells in grids):
        return Plan(problem="grid_without_token")
    turns = row.conversation
    if row.rejected is not None:  # whose question stays the last one
        if said(turns[-1]).strip() == row.rejected.strip():
            return Plan(problem="no_preference")
        encoding = replace(encoding, shuffle_turns=False, max_turns=0, split_turns=0)
    if encoding.shuffle_turns or encoding.max_turns:
        order = _turn_order(row, encoding=encoding)
        turns = chat.chosen_turns(turns, order, encoding=encoding)
    splittable = False
    try:
        if encoding.split_turns and chat.num_pairs(turns) > encoding.split_turns:
            sequences, splittable = _split(row, turns, grids, tools)
            splittable &= sum(rows * cols + 1 for rows, cols in grids) <= encoding.max_crops
            grids = grids * len(sequences)
        else:
            sequences = [_pieces(row, turns, tools)]
            document = bool(turns) and turns[0][0] == "document"
            splittable = document and not grids and encoding.cut_documents
    except templates.TemplateRefusal:
        return Plan(problem="template_refuses")
    if not any(learned for sequence in sequences for _, learned in sequence):
        return Plan(problem="nothing_learned")
    return Plan(grids=grids, sequences=sequences, splittable=splittable)


def said(message: tuple[str, list[str | int]]) -> str:
    """The text of a message."""
    return "".join(part for part in message[1] if isinstance(part, str))


def _rejected(row: Row, num_tokens: int, tools: EncodingTools) -> tuple[str | None, str | None]:
    """(the rejected answer as it is kept, why it cannot stand in place of the last answer)."""
    text, missing = row.rejected, tools.vocab.missing
    if text is None:
        return None, None
    if missing and _lost_bytes([text], missing):
        if tools.encoding.unrepresentable == "reject":
            return None, "unrepresentable_text"
        text = text.encode().translate(None, missing).decode(errors="ignore")
    texts = [f" {text}", f" {said(row.conversation[-1])}"]
    worse, better = (count([ids]) for ids in tools.words.packed(texts))
    if num_tokens + worse - better > tools.encoding.seq_len >= num_tokens:
        return None, "too_long"
    return text, None


def _lost_bytes(texts: list[str], missing: bytes) -> int:
    """Bytes of these texts that are among the missing ones."""
    data = "".join(texts).encode()
    return len(data) - len(data.translate(None, missing))


def _encoded(batch: pa.RecordBatch, tools: EncodingTools, schema: pa.Schema) -> pa.RecordBatch:
    """TOKENS (of pairs: PAIRED_TOKENS) of one batch."""
    encoding = tools.encoding
    samples = list(rows_of(batch))
    plans = [plan(row, tools) for row in samples]
    texts_of = [[w for seq in p.sequences for w, _ in seq if isinstance(w, str)] for p in plans]
    lost = [0] * len(plans)
    missing = tools.vocab.missing
    if missing and _lost_bytes([text for texts in texts_of for text in texts], missing):
        for n, texts in enumerate(texts_of):
            lost[n] = _lost_bytes(texts, missing)
            if lost[n] and encoding.unrepresentable == "reject":
                plans[n], texts_of[n] = Plan(problem="unrepresentable_text"), []
    ids_of = iter(tools.words.packed([text for texts in texts_of for text in texts]))
    rows = [assembled(p, ids_of, tools.vocab, seq_len=encoding.seq_len) for p in plans]
    rejected: list[str | None] = [None] * len(plans)
    for n, row in enumerate(samples):
        if row.rejected is not None and plans[n].problem is None:
            if "rejected" not in schema.names:
                raise ValueError(
                    f"sample {row.id} has a rejected answer, which would be lost: its source "
                    f"{row.source!r} does not say pairs=True."
                )
            rejected[n], problem = _rejected(row, sum(rows[n][2]), tools)
            if problem:
                plans[n] = Plan(problem=problem)
                rows[n] = [], [], []
    pieces, flags, seq_lengths = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    number = np.fromiter(map(sum, seq_lengths), np.int32)
    ids = np.frombuffer(b"".join(chain.from_iterable(pieces)), np.int32)
    mask = learned_tokens(flags, pieces, seq_lengths)
    through = np.concatenate([[0], np.cumsum(mask)])[np.concatenate([[0], np.cumsum(number)])]
    grids = [p.grids for p in plans]
    sides = np.array(list(chain.from_iterable(grids)), np.int8).reshape(-1, 2)
    cells = pa.StructArray.from_arrays(
        [pa.array(sides[:, 0]), pa.array(sides[:, 1])], fields=list(GRIDS.value_type)
    )
    columns: dict[str, Any] = {
        "id": batch.column(batch.schema.get_field_index("id")),
        "input_ids": lists(pa.array(ids), number),
        "loss_mask": lists(pa.array(mask), number),
        "grids": lists(cells, list(map(len, grids))),
        "num_tokens": number,
        "num_learned": np.diff(through),
        "num_crops": [sum(r * c + 1 for r, c in own) for own in grids],
        "problem": [p.problem for p in plans],
        "splittable": [p.splittable for p in plans],
        "seq_lengths": seq_lengths,
        "lost_bytes": lost,
        "rejected": rejected,
    }
    arrays = [
        made if isinstance(made := columns[f.name], pa.Array) else pa.array(made, f.type)
        for f in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def encode(samples: pa.Table, *, encoding: Encoding, pairs: bool = False) -> pa.Table:
    """TOKENS (of `pairs`: PAIRED_TOKENS) of a table of SAMPLE: the same rows in the same order.

    Raises ValueError or FileNotFoundError for settings that cannot be met, and ValueError for a
    rejected answer where none is expected.
    """
    tools = encoding_tools(encoding)
    schema = PAIRED_TOKENS if pairs else TOKENS
    light = _without_bytes(samples.select(_READS))
    starts = range(0, len(light), BATCH)  # files have record batches of few rows: those are joined
    batches = (light.slice(start, BATCH).combine_chunks().to_batches() for start in starts)
    made = [_encoded(batch, tools, schema) for batch in chain.from_iterable(batches)]
    return pa.Table.from_batches(made, schema=schema)


def _without_bytes(samples: pa.Table) -> pa.Table:
    """The samples, of whose images nothing is left but what encoding reads."""
    kind = pa.list_(pa.struct([SAMPLE.field("images").type.value_type.field(n) for n in _SIZES]))
    chunks = []
    for chunk in samples["images"].chunks:
        images = chunk.flatten()
        sizes = [pc.struct_field(images, name) for name in _SIZES]
        lengths = pc.fill_null(pc.list_value_length(chunk), 0)
        chunks.append(
            lists(pa.StructArray.from_arrays(sizes, fields=list(kind.value_type)), lengths)
        )
    position = samples.schema.get_field_index("images")
    return samples.set_column(position, "images", pa.chunked_array(chunks, kind))
