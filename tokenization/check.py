"""What must be true of PACKED rows, checked from the rows alone, on any shard."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa

from tokenization.images import crop_pixels, grid, image_size
from tokenization.schema import PACKED, Encoding
from tokenization.vocab import Vocab, image_ids, load_tokenizer, plain_tokenizer, vocab


def violations(
    table: pa.Table, *, encoding: Encoding, decode: bool, numbers: Sequence[int] = ()
) -> list[str]:
    """Every broken contract of these rows as a sentence that names the row; [] where all hold.

    `numbers`: how each row is called where the table is a choice of a shard's; else 0, 1, 2, ...

    Counts, lengths, limits, masks, image layout and lineage always; with `decode` also that every
    image decodes to the crops its grid says.
    """
    missing = [f for f in PACKED if f.name not in table.schema.names]
    wrong = [f for f in PACKED if f not in missing and table.schema.field(f.name).type != f.type]
    if missing or wrong:
        return [f"column {f.name}: missing, expected {f.type}" for f in missing] + [
            f"column {f.name}: {table.schema.field(f.name).type}, expected {f.type}" for f in wrong
        ]
    ids = vocab(load_tokenizer(encoding.tokenizer), encoding)
    size = 1 + max(load_tokenizer(encoding.tokenizer).get_vocab().values())
    batches = table.select(PACKED.names).to_batches(max_chunksize=16)
    rows = (row for batch in batches for row in batch.to_pylist())
    return [
        f"row {number}: {text}"
        for number, row in zip(numbers or range(len(table)), rows, strict=True)
        for text in _row(row, ids, size, encoding, decode)
    ]


def _row(row: dict, ids: Vocab, size: int, encoding: Encoding, decode: bool) -> list[str]:
    """The broken contracts of one row; `size`: ids of the tokenizer."""
    empty = [name for name, value in row.items() if value is None]
    if empty:
        return [f"{name} is null" for name in empty]
    found = []
    tokens = np.array(row["input_ids"], dtype=np.int64)
    mask = np.array(row["loss_mask"], dtype=bool)
    lengths = row["seq_lengths"]
    grids = [(cell["rows"], cell["cols"]) for cell in row["grids"]]
    crops = [rows * cols + 1 for rows, cols in grids]

    def expect(holds: bool, text: str) -> None:
        if not holds:
            found.append(text)

    beyond = tokens[(tokens < 0) | (tokens >= size)]
    expect(not len(beyond), f"id {beyond[:1]} is none of the tokenizer's {size}")
    expect(0 < len(tokens) <= encoding.seq_len, f"{len(tokens)} tokens, seq_len {encoding.seq_len}")
    expect(len(mask) == len(tokens), f"{len(mask)} mask values for {len(tokens)} tokens")
    expect(
        sum(lengths) == len(tokens) and min(lengths, default=0) > 0,
        f"seq_lengths {lengths} for {len(tokens)} tokens",
    )
    expect(
        len(row["sample_ids"]) == len(lengths),
        f"{len(row['sample_ids'])} sample_ids for {len(lengths)} samples",
    )
    expect(len(set(row["sample_ids"])) == len(row["sample_ids"]), "a sample is in the row twice")
    expect(sum(crops) <= encoding.max_crops, f"{sum(crops)} crops, max_crops {encoding.max_crops}")
    expect(len(row["images"]) == len(grids), f"{len(row['images'])} images for {len(grids)} grids")
    if found:
        return found
    placeholders = int((tokens == ids.image).sum())
    expect(
        placeholders == encoding.tokens_per_crop * sum(crops),
        f"{placeholders} <image> tokens, but {sum(crops)} crops of {encoding.tokens_per_crop}",
    )
    learned = sorted(set(tokens[mask].tolist()) & ids.unlearnable)
    expect(not learned, f"tokens {learned} are learned: image, position, padding or begin")
    expect(bool(mask.any()), "no token is learned")
    starts = list(accumulate(lengths[:-1], initial=0))
    expect(not mask[starts].any(), "the first token of a sample is learned")
    if encoding.chat_template == "smolvlm" and encoding.learn == "completions":
        found += _roles(tokens, mask, lengths, ids, encoding)
    if ids.fake >= 0:
        found += _layout(tokens, grids, ids, starts)
    return found + (_images(row, grids, encoding) if decode else [])


def _roles(
    tokens: np.ndarray, mask: np.ndarray, lengths: list[int], ids: Vocab, encoding: Encoding
) -> list[str]:
    """Where a token is learned that is not of an answer; documents, which have no roles, are all
    learned.
    """
    answer = plain_tokenizer(encoding.tokenizer).encode("Assistant:", add_special_tokens=False).ids
    found, start = [], 0
    for number, length in enumerate(lengths):
        sample, learned = tokens[start : start + length], mask[start : start + length]
        start += length
        if sample[0] != ids.begin:
            continue
        at = 1
        for end in [*np.flatnonzero(sample == ids.end).tolist(), length - 1]:
            header = [*([] if at == 1 else ids.newline), *answer]
            head = slice(at, at + len(header))
            answers = sample[head].tolist() == header
            if learned[head if answers else slice(at, end + 1)].any():
                found.append(f"sample {number}: a token is learned that is not of an answer")
                break
            at = end + 1
    return found


def _layout(
    tokens: np.ndarray, grids: list[tuple[int, int]], ids: Vocab, starts: list[int]
) -> list[str]:
    """Where the tokens of an image are not those of its grid, or run over the end of a sample."""
    at = 0
    for number, cells in enumerate(grids):
        expected = image_ids(ids, *cells)
        fakes = np.flatnonzero(tokens[at:] == ids.fake)
        begin = at + int(fakes[0]) if len(fakes) else len(tokens)
        if not np.array_equal(tokens[begin : begin + len(expected)], expected):
            return [f"image {number}: its tokens are not those of a grid of {cells}"]
        at = begin + len(expected)
        if any(begin < start < at for start in starts):
            return [f"image {number}: runs over the end of its sample"]
    rest = int((tokens[at:] == ids.fake).sum())
    return [f"{rest} image marks after the last image"] if rest else []


def _images(row: dict, grids: list[tuple[int, int]], encoding: Encoding) -> list[str]:
    """Where images do not decode, or not to the crops of their grids."""
    found = []
    for number, (image, (rows, cols)) in enumerate(zip(row["images"], grids, strict=True)):
        try:
            made = crop_pixels(image["bytes"], rows, cols, encoding=encoding)
            width, height = image_size(image["bytes"])
        except (ValueError, TypeError) as error:
            found.append(f"image {number}: {error}")
            continue
        size = encoding.crop_size
        if made.shape != (rows * cols + 1, size, size, 3):
            found.append(f"image {number}: crops of shape {made.shape} for a grid {(rows, cols)}")
        # A frame has no crops, random tiles have fewer, a component may set a smaller longest edge:
        # but no image has more than its size and the encoding allow.
        most = grid(width, height, encoding=encoding, video=False)
        exact = encoding.images == "original" and encoding.tiles == "full"
        if encoding.images != "fitted" and max(rows, cols) > max(most):
            found.append(
                f"image {number}: grid {(rows, cols)}, but {width} x {height} px has {most}"
            )
        elif exact and max(rows, cols) == max(most) and (rows, cols) != most:
            found.append(
                f"image {number}: grid {(rows, cols)}, but {width} x {height} px is {most}"
            )
    return found
