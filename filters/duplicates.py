"""Duplicates: rules that need the verdicts of every part, applied once all are judged.

What is compared, and what is not:

| rule                  | two samples are duplicates if                                 |
|-----------------------|---------------------------------------------------------------|
| duplicate_sample      | same pictures in the same order *and* same text               |
| duplicate_text        | same text, whatever the pictures                              |
| duplicate_images      | same pictures in the same order, whatever is asked about them |
| near_duplicate_sample | pictures within the radius, one by one, *and* similar text |
| near_duplicate_text   | similar text, whatever the pictures                        |
| near_duplicate_images | pictures within the radius, one by one, whatever is asked  |

So two questions about one picture are not duplicates, and one question about two pictures is not,
unless a rule of `images` or `text` asks for it. "Text" is that of all turns but the system's; its
similarity is the Jaccard index of its runs of 5 words, as MinHash estimates it (standard error 0.03
at 0.8). Two samples have near pictures if they have equally many and the first is within `radius`
bits (of 64) of the first, the second of the second, and so on; a video's pictures are its frames.

Every sample that goes is near one that stays, which its `detail` names; no two that stay are near
(texts: as far as their bands meet, at least 95 % of pairs). Chains do not collapse: where b is near
a and c near b, but c not near a, only b goes. The order of the rows does not matter: the component
of the lowest `priority` number is preferred, then the smallest id (along a chain a later one may
stay, if the one between is near both). A sample that another rule rejects neither stays nor takes
others along.

Memory: 112 bytes a sample for near text, 8 a picture for near pictures, and a few words a sample
for one band at a time. Bands are independent: `run` may spread them over workers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from filters import near
from filters.rules import RULES, rule, settings_of

Within = Literal["subset", "component", "mixture"]
Same = Literal["bytes", "pixels"]

_SCOPES: dict[str, list[str]] = {
    "subset": ["component", "subset"],
    "component": ["component"],
    "mixture": [],
}


def _subset(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdicts with `subset`, the first two parts of an id, where they don't have it."""
    if "subset" in verdicts.columns:
        return verdicts
    parts = pl.col("id").str.splitn("/", 3).struct
    return verdicts.with_columns(subset=parts.field("field_0") + "/" + parts.field("field_1"))


def _later_of_equals(verdicts: pl.DataFrame, keys: list[str], within: str) -> pl.DataFrame:
    """`id` and `detail` of every sample but the first of each group of equal, non-null keys."""
    groups = [*_SCOPES[within], *keys]
    candidates = _subset(verdicts).filter(pl.all_horizontal(pl.col(keys).is_not_null()))
    ordered = candidates.sort("priority", "id").with_columns(
        first=pl.col("id").first().over(groups)
    )
    later = ordered.filter(pl.col("id") != pl.col("first"))
    return later.select("id", detail=pl.lit("of ") + pl.col("first"))


@rule(scope="mixture", needs=lambda *, same, **_: ("text_hash", f"{same}_hash"))
def duplicate_sample(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same text and the same pictures.

    `same`: pictures are compared by their encoded `bytes`, or by their `pixels`.
    """
    pictures = f"{same}_hash"
    # A sample without pictures, or without words, is equal to its like on that side.
    filled = verdicts.with_columns(pl.col("text_hash", pictures).fill_null(0)).filter(
        (pl.col("text_hash") != 0) | (pl.col(pictures) != 0)
    )
    return _later_of_equals(filled, ["text_hash", pictures], within)


@rule(scope="mixture", needs=lambda **_: ("text_hash",))
def duplicate_text(verdicts: pl.DataFrame, *, within: Within = "mixture") -> pl.DataFrame:
    """Another sample has the same text, whatever the pictures."""
    return _later_of_equals(verdicts, ["text_hash"], within)


@rule(scope="mixture", needs=lambda *, same, **_: (f"{same}_hash",))
def duplicate_images(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same pictures in the same order, whatever is asked about them."""
    return _later_of_equals(verdicts, [f"{same}_hash"], within)


def _signatures(verdicts: pl.DataFrame, name: str = "text_signature") -> np.ndarray:
    """uint8 [N, PERMUTATIONS] of a frame whose column has no nulls."""
    column = verdicts[name].rechunk().to_arrow().cast(pa.large_binary())
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return data[: len(column) * near.PERMUTATIONS].reshape(len(column), near.PERMUTATIONS)


def _groups(verdicts: pl.DataFrame, within: str) -> np.ndarray:
    """uint64 [N]: equal where two rows are within the same scope."""
    if not _SCOPES[within]:
        return np.zeros(len(verdicts), np.uint64)
    return (
        verdicts.select(pl.struct(_SCOPES[within]).rank("dense"))
        .to_series()
        .to_numpy()
        .astype(np.uint64)
    )


def _same(scope: np.ndarray) -> near.Verify:
    """Verify: within the same scope."""
    return lambda a, b: scope[a] == scope[b]


def _similar(signatures: np.ndarray, similarity: float) -> near.Verify:
    """Verify: the signatures estimate a Jaccard index of `similarity` or more."""
    chance = 1 / 256  # at which bytes of other texts agree

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        agree = np.empty(len(a))
        for at in range(0, len(a), 1 << 18):  # 30 MB of signatures at a time
            part = slice(at, at + (1 << 18))
            agree[part] = (signatures[a[part]] == signatures[b[part]]).mean(axis=1)
        return (agree - chance) / (1 - chance) >= similarity

    return verify


def _near_pictures(hashes: np.ndarray, offsets: np.ndarray, radius: int) -> near.Verify:
    """Verify: equally many pictures, each within `radius` bits of its counterpart."""
    counts = np.diff(offsets)

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        same = counts[a] == counts[b]
        for n in range(int(counts[a[same]].max(initial=0))):
            held = np.flatnonzero(same & (counts[a] > n))
            differ = hashes[offsets[a[held]] + n] ^ hashes[offsets[b[held]] + n]
            same[held] = np.bitwise_count(differ) <= radius
        return same

    return verify


def _all(*verifies: near.Verify) -> near.Verify:
    """Verify: all of them, each asked only about pairs that passed those before."""

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        passed = np.arange(len(a))
        for check in verifies:
            passed = passed[check(a[passed], b[passed])]
        verdict = np.zeros(len(a), bool)
        verdict[passed] = True
        return verdict

    return verify


def _text_keys(signatures: np.ndarray, scope: np.ndarray, size: int) -> near.Keys:
    """Keys: a band of `size` bytes of the signatures, within the scope."""

    def keys(band: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        yield near.mix(near.band_keys(signatures[rows], rows=size, band=band)) ^ scope[rows]

    return keys


def _picture_keys(
    hashes: np.ndarray, offsets: np.ndarray, scope: np.ndarray, masks: list[int],
    second: Callable[[np.ndarray], Iterable[np.ndarray]],
) -> near.Keys:  # fmt: skip
    """Keys: number of pictures, and of the middle one the bits under a mask, within the scope.

    All pictures must be near, so one may stand for them: the middle one, because first frames and
    pages are often blank. `second`: keys that split buckets too large to compare.
    """
    counts = np.diff(offsets)

    def keys(band: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        middle = hashes[offsets[rows] + counts[rows] // 2]
        apart = near.mix(counts[rows].astype(np.uint64)) ^ scope[rows]
        masked = near.mix(middle & np.uint64(masks[band])) ^ apart
        yield from near.split_large(masked, lambda: second(rows))

    return keys


def _replaced(ordered: pl.DataFrame, place: np.ndarray) -> pl.DataFrame:
    """`id` and `detail` of every row of `ordered` in whose place another stays."""
    gone = np.flatnonzero(place != np.arange(len(ordered)))
    ids = ordered["id"]
    return pl.DataFrame({"id": ids[gone], "detail": "of " + ids[place[gone]]})


def _ordered(
    verdicts: pl.DataFrame, columns: list[str], within: str
) -> tuple[pl.DataFrame, np.ndarray]:
    """(rows of which a column is not null, the first to stay first; their scope's hash)."""
    held = pl.any_horizontal(pl.col(columns).is_not_null())
    ordered = _subset(verdicts).filter(held).sort("priority", "id")
    return ordered, near.mix(_groups(ordered, within))


def _pictures(ordered: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 [M] of all pictures, int64 [N + 1] where each row's begin)."""
    lengths = ordered["dhashes"].list.len().fill_null(0).to_numpy().astype(np.int64)
    hashes = ordered["dhashes"].list.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    return hashes, np.concatenate([[0], np.cumsum(lengths)])


@rule(scope="mixture", needs=lambda **_: ("text_signature",))
def near_duplicate_text(
    verdicts: pl.DataFrame,
    *,
    within: Within = "mixture",
    similarity: float = 0.8,
    run: near.Map = map,
) -> pl.DataFrame:
    """Another sample has nearly the same text, whatever the pictures.

    `similarity`: the least Jaccard index of runs of 5 words.
    """
    # 0.8: Lee et al., https://arxiv.org/abs/2107.06499, section 4.2.
    ordered, scope = _ordered(verdicts, ["text_signature"], within)
    signatures, size = _signatures(ordered), near.band_rows(similarity)
    place = near.thinned(
        np.arange(len(ordered)),
        count=len(ordered),
        bands=range(near.PERMUTATIONS // size),
        keys=_text_keys(signatures, scope, size),
        verify=_all(_same(scope), _similar(signatures, similarity)),
        run=run,
    )
    return _replaced(ordered, place)


@rule(scope="mixture", needs=lambda **_: ("dhashes",))
def near_duplicate_images(
    verdicts: pl.DataFrame, *, within: Within = "mixture", radius: int = 4, run: near.Map = map
) -> pl.DataFrame:
    """Another sample has nearly the same pictures in the same order, whatever is asked about them.

    `radius`: bits of 64 in which two difference hashes may differ.
    """
    # 4: what recompressed and resized copies stay within; measured by benchmarks/duplicates.py.
    # Charts and tables of one template are as near, so prefer near_duplicate_sample for them.
    ordered, scope = _ordered(verdicts, ["dhashes"], within)
    hashes, offsets = _pictures(ordered)
    rows = np.flatnonzero(np.diff(offsets))
    masks = near.block_masks(radius, count=len(rows))
    place = near.thinned(
        rows,
        count=len(ordered),
        bands=range(len(masks)),
        keys=_picture_keys(hashes, offsets, scope, masks, lambda _: ()),
        verify=_all(_same(scope), _near_pictures(hashes, offsets, radius)),
        run=run,
    )
    return _replaced(ordered, place)


@rule(scope="mixture", needs=lambda **_: ("text_signature", "dhashes"))
def near_duplicate_sample(
    verdicts: pl.DataFrame, *, within: Within = "mixture", similarity: float = 0.8, radius: int = 4,
    run: near.Map = map,
) -> pl.DataFrame:  # fmt: skip
    """Another sample has nearly the same pictures and nearly the same text.

    `similarity` and `radius` as in near_duplicate_text and near_duplicate_images.
    """
    ordered, scope = _ordered(verdicts, ["text_signature", "dhashes"], within)
    blank = bytes(near.PERMUTATIONS)  # pictures without a word are alike in their text
    ordered = ordered.with_columns(pl.col("text_signature").fill_null(blank))
    signatures, (hashes, offsets) = _signatures(ordered), _pictures(ordered)
    size = near.band_rows(similarity)
    bands = range(near.PERMUTATIONS // size)
    seeing = np.diff(offsets) > 0
    alike = _all(_same(scope), _near_pictures(hashes, offsets, radius))
    alike = _all(alike, _similar(signatures, similarity))
    with_pictures, without = np.flatnonzero(seeing), np.flatnonzero(~seeing)

    def by_text(rows: np.ndarray) -> Iterator[np.ndarray]:
        yield from (near.band_keys(signatures[rows], rows=size, band=band) for band in bands)

    masks = near.block_masks(radius, count=len(with_pictures))
    place = near.thinned(
        with_pictures,
        count=len(ordered),
        bands=range(len(masks)),
        keys=_picture_keys(hashes, offsets, scope, masks, by_text),
        verify=alike,
        run=run,
    )
    of_texts = near.thinned(
        without,
        count=len(ordered),
        bands=bands,
        keys=_text_keys(signatures, scope, size),
        verify=alike,
        run=run,
    )
    return _replaced(ordered, np.where(seeing, place, of_texts))


def duplicates_of_embeddings(
    verdicts: pl.DataFrame, *, similarity: float, within: Within
) -> pl.DataFrame:
    """`id` and `detail` of samples whose `embedding_signature` is near that of an earlier one.

    A sign differs with probability angle / pi. Bands of 3 bytes: at a cosine of 0.95 a pair shares
    one of 37 with probability 0.95, at 0.98 with 1.00; chance meetings are 1 in 2^24 a band.
    """
    ordered, scope = _ordered(verdicts, ["embedding_signature"], within)
    signatures = _signatures(ordered, "embedding_signature")
    most = 8 * near.PERMUTATIONS * np.arccos(similarity) / np.pi

    def near_by_signs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        differ = np.bitwise_count(signatures[a] ^ signatures[b]).sum(axis=1, dtype=np.int64)
        return differ <= most

    place = near.thinned(
        np.arange(len(ordered)),
        count=len(ordered),
        bands=range(near.PERMUTATIONS // 3),
        keys=_text_keys(signatures, scope, 3),
        verify=_all(_same(scope), near_by_signs),
        run=map,
    )
    return _replaced(ordered, place)


Rules = Mapping[str, Mapping[str, Any] | None]


def mixture_rules(
    verdicts: pl.DataFrame,
    *,
    settings: Rules,
    components: Mapping[str, Rules] = MappingProxyType({}),
    run: near.Map = map,
) -> pl.DataFrame:
    """`id`, `rule`, `mode` (drop or mark) and `detail` of every sample a mixture-level rule takes.

    Reads: VERDICTS of all parts with two more columns, `component` (string) and `priority` (int,
    the lowest stays). `settings` may hold per-sample rules too, which are passed over. Rules apply
    in their order to what is left by `rule` and by the rules before, so each sample is dropped at
    most once; marked samples stay in play. `components` holds the rules of single components: they
    apply to those alone, and first. `run` maps a function over bands, like `map`, which is
    the default; one that works in parallel gives the same answer.
    """
    left = verdicts.filter(pl.col("rule").is_null())
    schema = {"id": pl.String, "rule": pl.String, "mode": pl.String, "detail": pl.String}
    taken = [pl.DataFrame(schema=schema)]
    everywhere = pl.lit(value=True)
    asked = [
        (pl.col("component") == c, n, s) for c, own in components.items() for n, s in own.items()
    ]
    for among, name, given in [*asked, *((everywhere, n, s) for n, s in settings.items())]:
        if RULES[name].scope != "mixture":
            continue
        mode, own = settings_of(name, given)
        function: Callable[..., pl.DataFrame] = RULES[name].function
        how = {"run": run} if "run" in signature(function).parameters else {}
        gone = function(left.filter(among), **own, **how)
        taken.append(gone.select("id", rule=pl.lit(name), mode=pl.lit(mode), detail="detail"))
        if mode == "drop":
            left = left.join(gone, on="id", how="anti")
    return pl.concat(taken)
