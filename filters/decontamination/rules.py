"""Benchmarks kept out: lists of hashes of test sets, and the rule that knows a leak by them.

    TSV, hub rows or folder --items.py--> question, options, images --hash_list--> NAME.parquet
    verdicts: a sample whose image or text is in a list goes, and the verdict names the items

| kind     | one row of a list is                                  | a sample is a hit if       |
|----------|-------------------------------------------------------|----------------------------|
| image    | the dhash of an image, or of one of its 100 crops     | an image is within radius  |
| question | xxh3 of a question, normalised, of 8 words or more    | one of its is equal        |
| ngram    | a run of 13 normalised words of question and options  | its text contains the run  |

What cannot identify an item is left out of a list and counted in its metadata: nearly uniform
images (fewer than 8 bits of the hash differ from the rest), questions asked about several
images, and runs that 3 or more questions share ("answer with the letter of the option ...").
13 words: GPT-3, https://arxiv.org/abs/2005.14165, appendix C.

Crops are hashed into the list, so that a cropped leak is found by a small radius at no cost to
judging: of width and of height each 0, 3, 6 or 9 % are cut off, shared by the two sides in steps of
3 %. Recall, measured by `benchmarks/duplicates.py` on images of scikit-image: see docs/rules.md.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from PIL import Image

from filters.decontamination.benchmark_items import Item as Item
from filters.decontamination.benchmark_items import items_of as items_of
from filters.decontamination.benchmark_items import row_items as row_items
from filters.decontamination.matches import Match, told
from filters.duplicates.hashes import is_distinctive, ngrams, normalized_words
from filters.duplicates.near import few_masks
from filters.rules import check_nearness, rule

VERSION = 2
"""Of hash lists: what is hashed, and how. Bumped when lists made before no longer compare."""
WORDS = 13
MIN_QUESTION_WORDS = 8
MAX_SHARING = 2
"""Questions that may share a run of words before it counts as boilerplate; ours."""

Decode = Callable[[bytes], Image.Image]
Dhash = Callable[[Image.Image], int]

LIST = pa.schema([("kind", pa.string()), ("hash", pa.uint64()), ("item", pa.string())])


STEP, STEPS = 0.03, 3
"""Share of a side cut off at a time, and how often; ours: steps of 4 % find a tenth fewer of the
images cropped by up to 10 %, steps of 2.5 % hardly more at twice the hashes."""
_CUTS = [(STEP * n, STEP * m) for n in range(STEPS + 1) for m in range(STEPS + 1 - n)]
_MAKE = "Make it with: python -m pipelines hashes NAME data=..."
MEETINGS = 1 << 20
"""Pairs of a sample's image and a list's that are compared at once."""


def crops(gray: Image.Image) -> Iterator[Image.Image]:
    """The image, and its 100 crops at a size that still tells 3 % apart."""
    yield gray
    factor = min(gray.width // 288, gray.height // 256)
    small = gray.reduce(factor) if factor > 1 else gray
    width, height = small.size
    for left, right in _CUTS:
        for top, bottom in _CUTS:
            box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
            x0, y0, x1, y1 = (round(edge) for edge in box)
            if x0 < x1 and y0 < y1:
                yield small.crop((x0, y0, x1, y1))


def hash_list(items: Iterable[Item], *, name: str, decode: Decode, dhash: Dhash) -> pa.Table:
    """LIST of a benchmark, with its name, version and counts in the metadata.

    `decode` and `dhash` are those of ingest, so that hashes compare: bytes to an RGB image, and a
    image in grey to 64 bits. An image that does not decode raises.
    """
    hashes_of: dict[str, set[int]] = {}
    texts: dict[str, tuple[str, str]] = {}  # id -> (question, question and options)
    about: dict[str, str] = {}
    for item in items:
        hashed = {dhash(c) for data in item.images for c in crops(decode(data).convert("L"))}
        hashes_of[item.id] = hashed
        about[item.id] = item.same_images_as or item.id
        texts[item.id] = (item.question, " ".join((item.question, *item.options)))
    for item_id, other in about.items():
        if other not in hashes_of:
            raise ValueError(
                f"{name}: item {item_id} has the image of item {other}, which is not there."
            )
    rows = [("image", h, i) for i, hashed in hashes_of.items() for h in sorted(hashed)]
    telling = is_distinctive(np.array([h for _, h, _ in rows], np.uint64))
    images = [row for row, tells in zip(rows, telling.tolist(), strict=True) if tells]

    frame = pl.DataFrame(
        {
            "id": list(texts),
            "q": [q for q, _ in texts.values()],
            "all": [a for _, a in texts.values()],
        },
        schema={"id": pl.String, "q": pl.String, "all": pl.String},
    ).with_columns(normalized_words(pl.col("q", "all")))
    images_of = defaultdict(set)
    for item_id, question in zip(frame["id"], frame["q"], strict=True):
        images_of[question].add(frozenset(hashes_of[about[item_id]]) or item_id)
    questions = [
        ("question", xxhash.xxh3_64_intdigest(q), item_id)
        for item_id, q in zip(frame["id"], frame["q"], strict=True)
        if len(q.split()) >= MIN_QUESTION_WORDS and len(images_of[q]) == 1
    ]
    flat, offsets = ngrams(frame["all"], n=WORDS, short=False)
    owner = np.repeat(np.arange(len(frame)), np.diff(offsets))
    asked = {(int(run), frame["q"][int(n)]) for run, n in zip(flat, owner, strict=True)}
    sharing = Counter(run for run, _ in asked)
    runs = {(int(run), frame["id"][int(n)]) for run, n in zip(flat, owner, strict=True)}
    grams = [("ngram", run, i) for run, i in sorted(runs) if sharing[run] <= MAX_SHARING]

    kept = [*images, *questions, *grams]
    columns = [pa.array([row[n] for row in kept], LIST.field(n).type) for n in range(3)]
    counts = {
        "items": len(texts),
        "image_hashes": len(images),
        "uniform_image_hashes_left_out": len(rows) - len(images),
        "questions": len(questions),
        "ngrams": len(grams),
        "shared_ngrams_left_out": len(runs) - len(grams),
    }
    about_it = {"hash_list": str(VERSION), "name": name, "counts": json.dumps(counts)}
    return pa.table(columns, schema=LIST.with_metadata(about_it))


def write_list(table: pa.Table, path: Path) -> dict[str, int]:
    """The list is at `path` (parquet); its counts are returned."""
    pq.write_table(table, path, compression="zstd")
    return json.loads(table.schema.metadata[b"counts"])


def read_list(path: str) -> pa.Table:
    """The list at `path`, a local file or an fsspec URL; ValueError if it is not one of ours."""
    with fsspec.open(path, "rb") as file:
        try:
            table = pq.read_table(file, use_threads=False, pre_buffer=False)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a hash list ({error}). {_MAKE}") from error
    found = (table.schema.metadata or {}).get(b"hash_list", b"none").decode()
    if found != str(VERSION):
        raise ValueError(f"{path}: hash list of version {found}, expected {VERSION}. {_MAKE}")
    return table


def list_name(path: str) -> str:
    """The benchmark whose hash list lies at `path`; empty where none lies there."""
    try:
        with fsspec.open(path, "rb") as file:
            about = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return ""
    return about.get(b"name", b"").decode() if b"hash_list" in about else ""


@dataclass(frozen=True)
class _Leaks:
    """Hash lists, ready to look samples up in: rows of all of them, each hash once a list."""

    names: list[str]
    """Of the benchmarks, list by list."""
    of: np.ndarray
    """int32 per row: the place of its benchmark in `names`."""
    items: pl.Series
    """Per row."""
    texts: dict[str, tuple[np.ndarray, np.ndarray]]
    """kind -> (hashes, sorted; rows)."""
    by_image: list[tuple[np.uint64, np.ndarray, np.ndarray]]
    """Per table: mask, masked hashes, sorted; rows, int32."""
    hashes: np.ndarray
    """uint64 per row."""


@lru_cache(maxsize=4)
def _leaks(paths: tuple[str, ...], radius: int) -> _Leaks:
    tables = [read_list(path) for path in paths]
    names = [table.schema.metadata[b"name"].decode() for table in tables]
    of = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
    listed = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    whole = pl.DataFrame(pl.from_arrow(listed)).with_columns(of=pl.Series(of))
    whole = whole.unique(["kind", "hash", "of"], keep="first", maintain_order=True)
    hashes, kinds = whole["hash"].to_numpy(), whole["kind"].to_numpy()

    def ordered(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(keys, kind="stable")
        return keys[order], rows[order]

    rows = {kind: np.flatnonzero(kinds == kind) for kind in ("image", "question", "ngram")}
    texts = {kind: ordered(hashes[rows[kind]], rows[kind]) for kind in ("question", "ngram")}
    image = rows["image"]
    masks = [np.uint64(mask) for mask in few_masks(radius)] if len(image) else []
    by_image = [(mask, *ordered(hashes[image] & mask, image.astype(np.int32))) for mask in masks]
    return _Leaks(names, whole["of"].to_numpy(), whole["item"], texts, by_image, hashes)


def _meetings(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(who, place) of every place in the stretch `low` to `high` of everyone, about MEETINGS at a
    time, at least those of one.
    """
    met = np.cumsum(high - low)
    start = 0
    while start < len(low):
        before = met[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(met, before + MEETINGS, side="right")))
        counts = (high - low)[start:stop]
        begins = np.repeat(low[start:stop] - (np.cumsum(counts) - counts), counts)
        yield np.repeat(np.arange(start, stop), counts), begins + np.arange(counts.sum())
        start = stop


def _first_of_each(who: np.ndarray, benchmark: np.ndarray, *order: np.ndarray) -> np.ndarray:
    """The place of one hit for each of `who` and `benchmark`: the first by `order`."""
    places = np.lexsort((*reversed(order), benchmark, who))
    both = np.stack([who, benchmark])[:, places]
    first = np.ones(len(places), bool)
    first[1:] = (both[:, 1:] != both[:, :-1]).any(axis=0)
    return places[first]


def _near_images(sought: np.ndarray, leaks: _Leaks, radius: int) -> np.ndarray:
    """int64 [3, M] of hash in `sought`, row, bits that differ: the nearest image of every benchmark
    that has one within the radius, of equally near ones the first row.
    """
    telling = np.flatnonzero(is_distinctive(sought))
    hits = np.empty((3, 0), np.int64)

    def nearest(hits: np.ndarray) -> np.ndarray:
        who, row, bits = hits
        return hits[:, _first_of_each(who, leaks.of[row], bits, row)]

    for mask, keys, rows in leaks.by_image:
        masked = sought[telling] & mask
        low, high = (np.searchsorted(keys, masked, side=side) for side in ("left", "right"))
        for some, places in _meetings(low, high):
            who, row = telling[some], rows[places].astype(np.int64)
            bits = np.bitwise_count(sought[who] ^ leaks.hashes[row]).astype(np.int64)
            near = np.stack([who, row, bits])[:, bits <= radius]
            if near.size:
                hits = nearest(np.concatenate([hits, near], axis=1))
    return hits


def _by_image(lists: pl.Series, leaks: _Leaks, radius: int) -> dict[int, list[Match]]:
    """Row of `lists` (hashes of a sample's images) -> of each benchmark the nearest image, the
    nearest benchmark first.
    """
    hashes = lists.list.explode(empty_as_null=False, keep_nulls=False).fill_null(0).to_numpy()
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    at, row, bits = _near_images(hashes.astype(np.uint64), leaks, radius)
    owner = np.repeat(np.arange(len(lengths)), lengths)[at]
    place = at - (np.cumsum(lengths) - lengths)[owner]
    chosen = _first_of_each(owner, leaks.of[row], bits, place)
    found: dict[int, list[Match]] = defaultdict(list)
    for n in sorted(chosen.tolist(), key=lambda n: (bits[n], leaks.of[row[n]])):
        image = int(place[n]) + 1 if lengths[owner[n]] > 1 else 0
        benchmark, item = leaks.names[leaks.of[row[n]]], leaks.items[int(row[n])]
        found[int(owner[n])].append(
            Match(benchmark=benchmark, item=item, by="image", image=image, bits=int(bits[n]))
        )
    return found


def _by_text(
    lengths: np.ndarray, sought: np.ndarray, leaks: _Leaks, kind: str
) -> Iterator[tuple[int, int, Match]]:
    """(row, benchmark, match) of the first of its hashes (`sought`, so many of each row) that a
    benchmark has.
    """
    keys, rows = leaks.texts[kind]
    low, high = (np.searchsorted(keys, sought, side=side) for side in ("left", "right"))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    by: Literal["question", "words"] = "question" if kind == "question" else "words"
    seen: set[tuple[int, int]] = set()
    for some, places in _meetings(low, high):
        row = rows[places]
        for n in _first_of_each(owner[some], leaks.of[row], some).tolist():
            who, of = int(owner[some[n]]), int(leaks.of[row[n]])
            if (who, of) not in seen:
                seen.add((who, of))
                item = leaks.items[int(row[n])]
                yield who, of, Match(benchmark=leaks.names[of], item=item, by=by, words=WORDS)


def leaked_items(
    frame: pl.DataFrame, *, benchmarks: tuple[str, ...], radius: int, by: str
) -> pl.Series:
    """String per row: what it leaks, such as "mmmu/17 by image (2 bits), mmmu/17 by question": of
    each benchmark the nearest image, and a question or else a run of words; null where `by` is not
    found.
    """
    known = _leaks(benchmarks, radius)
    seen = _by_image(frame["dhashes"], known, radius)

    asked = frame.select(pl.col("questions").list.eval(normalized_words(pl.element()))).to_series()
    flat = asked.list.explode(empty_as_null=False, keep_nulls=False)
    digests = np.array([xxhash.xxh3_64_intdigest(text) for text in flat], np.uint64)
    words = frame.select(normalized_words(pl.col("text"))).to_series()
    runs, offsets = ngrams(words, n=WORDS, short=False)
    read: dict[int, dict[int, Match]] = defaultdict(dict)
    for lengths, sought, kind in (
        (asked.list.len().fill_null(0).to_numpy(), digests, "question"),
        (np.diff(offsets), runs, "ngram"),
    ):
        for row, benchmark, match in _by_text(lengths, sought, known, kind):
            read[row].setdefault(benchmark, match)

    goes = {
        "image": seen.keys(),
        "question": read.keys(),
        "either": seen.keys() | read.keys(),
        "both": seen.keys() & read.keys(),
    }[by]
    found: list[str | None] = [None] * len(frame)
    for row in goes:
        texts = read.get(row, {})
        found[row] = told([*seen.get(row, ()), *(texts[of] for of in sorted(texts))])
    return pl.Series(found, dtype=pl.String)


def _are_lists(at: str, *, benchmarks: tuple[str, ...], radius: int, **_: Any) -> None:
    check_nearness(at, radius=radius)
    if not benchmarks:
        raise ValueError(f"{at}.benchmarks is empty, expected paths of hash lists. {_MAKE}")
    for path in benchmarks:
        try:
            read_list(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{at}.benchmarks: no file {path}. {_MAKE}") from error
        except ValueError as error:
            raise ValueError(f"{at}.benchmarks: {error}") from error


@rule(version=3, check=_are_lists, detail=leaked_items, reads=("dhashes", "questions", "text"))
def contaminated(
    *, benchmarks: tuple[str, ...], radius: int = 4,
    by: Literal["either", "image", "question", "both"] = "either",
) -> pl.Expr:  # fmt: skip
    """An image or a question of the sample is that of a benchmark; the verdict names the items.

    `benchmarks`: hash lists made by `python -m pipelines hashes`; `radius`: bits of 64 in which
    difference hashes may differ; `by`: what must be found.
    """
    return pl.col("contaminated.detail").is_not_null()
