"""Near-duplicates at scale: time and memory as samples grow, recall and precision on planted ones.

    .venv/bin/python -m benchmarks.duplicates [samples ...] [workers=1,2] [keep=DIR]

Without samples: 200000 1000000. Every tenth sample is a planted copy of an earlier one: its text
with a share of words replaced, its image's hash with some bits flipped. Truth is exact for the
planted pairs: the Jaccard index of their 5-word runs and the Hamming distance. A sample that goes
without being planted near another is wrong.

Rules run as in a build: verdicts lie in part files, bands are tasks that read and write files
(`pipelines/near.py`), here one after the other in this process: CPU seconds, because the machine is
shared, and the process's memory before a rule and at its peak, which counts pages of mapped files
too. `workers=` repeats the text rule on Ray with so many, in wall seconds. Signatures are made from
the words' numbers, which costs a third (and is checked to be the same); `keep=` holds them from one
run to the next.

Then MinHash libraries on the same texts, and how many recompressed, resized and cropped images of
scikit-image (and quarters of them) a benchmark's hash list knows again.
"""

import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from filters import RULES
from filters.duplicates import hashes, near
from pipelines.engine import tables
from pipelines.engine.runner import ray_connection
from pipelines.near import compare_by_tasks

WORDS = 30
VOCABULARY = 50_000
CHUNK = 250_000
"""Samples of a part, whose text is held at once: like a build, which hashes a part and lets go."""
RULES_MEASURED = ("near_duplicate_text", "near_duplicate_images", "near_duplicate_sample")


def planted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(words, uint16 [N, WORDS]; dhashes, uint64 [N]; of whom each row is a copy, or -1)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, VOCABULARY, (count, WORDS), dtype=np.uint16)
    image_records = rng.integers(0, 2**64, count, dtype=np.uint64)
    of = np.full(count, -1)
    copies = np.arange(9, count, 10)
    of[copies] = (rng.random(len(copies)) * (copies // 10)).astype(np.int64) * 10
    for at in range(0, len(copies), CHUNK):
        rows = copies[at : at + CHUNK]
        changed = words[of[rows]]
        replaced = rng.integers(0, 4, len(rows))
        for n in range(3):
            some = np.flatnonzero(replaced > n)
            places = rng.integers(0, WORDS, len(some))
            changed[some, places] = rng.integers(0, VOCABULARY, len(some), dtype=np.uint16)
        words[rows] = changed
        bits = rng.random((len(rows), 64)).argsort(axis=1)[:, :6].astype(np.uint64)
        flipped = np.arange(6) < rng.integers(0, 7, len(rows))[:, None]
        flips = np.where(flipped, np.uint64(1) << bits, np.uint64(0))
        image_records[rows] = image_records[of[rows]] ^ np.bitwise_or.reduce(flips, axis=1)
    return words, image_records, of


def texts_of(words: np.ndarray) -> list[str]:
    return [" ".join([f"w{w}" for w in row]) for row in words.tolist()]


@dataclass(frozen=True)
class Part:
    """What of a build's piece is read here."""

    verdicts: str


def signatures_of(words: np.ndarray) -> np.ndarray:
    """uint8 [N, PERMUTATIONS]: those of `texts_of(words)`, without writing the texts."""
    of_word = np.array([xxhash.xxh3_64_intdigest(f"w{n}") for n in range(VOCABULARY)], np.uint64)
    count = WORDS - near.NGRAM + 1
    runs = sum(
        of_word[words[:, k : k + count]] * hashes.word_multiplier(k) for k in range(near.NGRAM)
    )
    return hashes.minhashes(near.scatter_bits(runs).ravel(), np.arange(len(words) + 1) * count)


def judged(words: np.ndarray, image_records: np.ndarray, folder: str) -> list[Part]:
    """Part files of the columns that the rules compare."""
    parts = []
    for at in range(0, len(words), CHUNK):
        path = f"{folder}/verdicts/{len(words)}/{at // CHUNK:05d}.arrow"
        parts.append(Part(path))
        if tables.exists(path):
            continue
        some = [signatures_of(words[n : n + 10_000])
                for n in range(at, min(at + CHUNK, len(words)), 10_000)]  # fmt: skip
        signatures = [row.tobytes() for rows in some for row in rows]
        lists = pl.DataFrame({"dhashes": image_records[at : at + CHUNK]}).select(
            pl.concat_list("dhashes")
        )
        columns = {"text_signature": pa.array(signatures, pa.binary())}
        table = pa.table(columns | {"dhashes": lists["dhashes"].to_arrow()})
        tables.write(table, path, rows_per_batch=1 << 16)
    return parts


def signing(count: int = 50_000) -> None:
    """What signatures of texts cost, and that those made from numbers are the same."""
    words = planted(count)[0]
    texts = pl.DataFrame({"text": texts_of(words)})
    seconds, made = timed(lambda: hashes.text_signature(texts))
    line("(signatures)", f"{count:,}", f"{seconds:.1f}", f"{seconds / count * 1e6:.1f}")
    assert made.to_list() == [row.tobytes() for row in signatures_of(words)]


def index_of(count: int) -> pl.DataFrame:
    """What of a build's index the rules read."""
    return pl.select(row=pl.int_range(count)).select(
        id=pl.format("made/made/{}", pl.col("row").cast(pl.String).str.zfill(9)),
        component=pl.lit("made"),
        priority=0,
        piece=(pl.col("row") // CHUNK).cast(pl.Int32),
        row=(pl.col("row") % CHUNK).cast(pl.Int32),
    )


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Float [N] of rows of words [N, WORDS]: in these texts no run of words occurs twice."""
    same = np.lib.stride_tricks.sliding_window_view(a == b, near.NGRAM, axis=1).all(axis=2)
    runs, shared = same.shape[1], same.sum(axis=1)
    return shared / (2 * runs - shared)


def line(*cells: object) -> None:
    print("".join(f"{c:>14}" if n else f"{c:<30}" for n, c in enumerate(cells)), flush=True)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def memory(field: str) -> int:
    """MB of this process: VmRSS now, VmHWM the most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) // 1024


def forget_peak() -> None:
    """VmHWM is what is held now: https://docs.kernel.org/filesystems/proc.html, clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


def scale(counts: list[int], folder: str) -> None:
    line(
        "rule", "samples", "CPU s", "us / sample", "held MB", "peak MB", "recall", "precision"
    )  # fmt: skip
    signing()
    for count in counts:
        words, image_records, of = planted(count)
        copies = np.flatnonzero(of >= 0)
        similar = jaccard(words[copies], words[of[copies]])
        differ = np.bitwise_count(image_records[copies] ^ image_records[of[copies]])
        parts = judged(words, image_records, folder)
        del words, image_records
        frame = index_of(count)
        # Copies of copies' originals are near each other too: wrong is what has no near partner.
        looks_near = {
            "text": (similar >= 0.8, similar >= 0.6),
            "images": (differ <= 4, differ <= 6),
            "sample": (
                (similar >= 0.8) & (differ <= 4), (similar >= 0.6) & (differ <= 6)
            ),
        }  # fmt: skip
        for name in RULES_MEASURED:
            is_near, loose = looks_near[name.rsplit("_", 1)[1]]
            with tempfile.TemporaryDirectory(dir=folder) as work:
                forget_peak()
                held = memory("VmRSS")
                run = compare_by_tasks(parts, work=work, slots=0, reports=[])
                seconds, taken = timed(lambda f=frame, n=name, r=run: RULES[n].function(f, run=r))
                peak = memory("VmHWM")
            gone, allowed = np.zeros(count, bool), np.zeros(count, bool)
            gone[taken["id"].str.slice(-9).cast(pl.Int64).to_numpy()] = True
            allowed[copies[loose]] = allowed[of[copies[loose]]] = True
            line(
                name,
                f"{count:,}",
                f"{seconds:.1f}",
                f"{seconds / count * 1e6:.1f}",
                f"{held:,}",
                f"{peak:,}",
                f"{gone[copies[is_near]].mean():.4f}",
                f"{(gone & allowed).sum() / max(gone.sum(), 1):.4f}",
            )
            del taken


def on_ray(count: int, workers: list[int], folder: str) -> None:
    """Wall seconds of one rule with so many workers, Ray's start not counted."""
    words, image_records, _ = planted(count)
    parts = judged(words, image_records, folder)
    del words, image_records
    frame = index_of(count)
    print()
    line(f"{RULES_MEASURED[0]}, on Ray", "samples", "workers", "wall s", "taken")
    for number in workers:
        with (
            ray_connection("local", workers=number) as slots,
            tempfile.TemporaryDirectory(dir=folder) as work,
        ):
            reports: list = []
            run = compare_by_tasks(parts, work=work, slots=slots, reports=reports)
            start = time.monotonic()
            taken = RULES[RULES_MEASURED[0]].function(frame, run=run)
            line(
                f"{len(reports)} tasks", f"{count:,}", number, f"{time.monotonic() - start:.1f}",
                f"{len(taken):,}",
            )  # fmt: skip


def libraries(count: int = 1000) -> None:
    import datasketch
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    texts = texts_of(planted(count)[0])
    frame = pl.DataFrame({"text": texts})

    def sketch() -> None:
        for text in texts:
            w = text.split()
            m = datasketch.MinHash(near.PERMUTATIONS)
            m.update_batch([" ".join(w[n : n + 5]).encode() for n in range(len(w) - 4)])

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8,
                           hash_config=HashConfig(precision=64))  # fmt: skip
    step = MinhashDedupSignature(output_folder="memory://signatures", config=config)

    def trove() -> None:
        for text in texts:
            step.get_signature(step.get_shingles(Document(text=text, id="").text))

    print()
    line(f"MinHash, {WORDS} words, 5-grams", "texts/s")
    ours = {"rensa on numpy 5-grams (ours)": lambda: hashes.text_signature(frame)}
    for name, work in (ours | {"datasketch": sketch, "datatrove": trove}).items():
        work()
        line(name, f"{count / timed(work)[0]:,.0f}")


def leaks() -> None:
    # Longer than a screen: one experiment, in the order in which it is done.
    import skimage.data
    from PIL import Image

    from filters.decontamination.rules import crops, is_distinctive
    from pipelines.media.images import dhash

    names = ["astronaut", "coffee", "chelsea", "rocket", "camera", "page", "text", "brick", "grass",
             "moon", "coins", "hubble_deep_field", "retina", "immunohistochemistry", "colorwheel",
             "clock", "gravel", "cell", "horse", "logo"]  # fmt: skip
    images = []
    for name in names:
        pixels = getattr(skimage.data, name)()
        pixels = pixels * 255 if pixels.dtype == bool else pixels
        image = Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
        half = image.width // 2, image.height // 2
        for left, top in ((0, 0), (0, half[1]), (half[0], 0), half):
            images.append(image.crop((left, top, left + half[0], top + half[1])))
        images.append(image)
    for image in images:
        image.thumbnail((640, 640))
    tells = [is_distinctive(np.array([dhash(i.convert("L"))], np.uint64))[0] for i in images]
    images = [image for image, telling in zip(images, tells, strict=True) if telling]
    of = [n // 5 for n, telling in enumerate(tells) if telling]  # an image and its quarters
    known = [sorted({dhash(c) for c in crops(image.convert("L"))}) for image in images]
    arrays = [np.array(k, np.uint64) for k in known]
    arrays = [a[is_distinctive(a)] for a in arrays]
    plain = [np.array([dhash(image.convert("L"))], np.uint64) for image in images]

    def saved(image: Image.Image, quality: int) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    rng = random.Random(0)

    def cut(image: Image.Image, most: float) -> Image.Image:
        w, h = image.size
        x, y = w * most * rng.random(), h * most * rng.random()
        left, top = x * rng.random(), y * rng.random()
        return image.crop((round(left), round(top), round(w - x + left), round(h - y + top)))

    changes = {
        "JPEG, quality 30": lambda i: saved(i, 30),
        "half the size": lambda i: i.resize((i.width // 2, i.height // 2)),
        "a fifth, JPEG 50": lambda i: saved(i.resize((i.width // 5, i.height // 5)), 50),
        "up to 3 % cut off": lambda i: cut(i, 0.03),
        "up to 6 % cut off": lambda i: cut(i, 0.06),
        "up to 10 % cut off": lambda i: cut(i, 0.10),
        "the same, half, JPEG 60": lambda i: saved(
            (c := cut(i, 0.10)).resize((c.width // 2, c.height // 2)), 60
        ),
    }
    print()
    line(
        f"{len(images)} images, found",
        "radius 4",
        "radius 6",
        "no crops, 4",
        "wrong at 4",
        "at 6",
    )

    def nearest(sought: int, hashes: np.ndarray) -> int:
        return int(np.bitwise_count(hashes ^ np.uint64(sought)).min(initial=64))

    for name, change in changes.items():
        found = dict.fromkeys(("4", "6", "plain", "wrong 4", "wrong 6"), 0)
        tries = 4
        for n, image in enumerate(images):
            for _ in range(tries):
                sought = dhash(change(image).convert("L"))
                near_to = [nearest(sought, k) for k in arrays]
                found["4"] += near_to[n] <= 4
                found["6"] += near_to[n] <= 6
                found["plain"] += nearest(sought, plain[n]) <= 4
                others = min(d for m, d in enumerate(near_to) if of[m] != of[n])
                found["wrong 4"] += others <= 4
                found["wrong 6"] += others <= 6
        line(name, *(f"{v / tries / len(images):.3f}" for v in found.values()))


def main() -> None:
    settings = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    counts = [int(word) for word in sys.argv[1:] if "=" not in word] or [200_000, 1_000_000]
    with tempfile.TemporaryDirectory() as folder:
        place = settings.get("keep", folder)
        scale(counts, place)
        if "workers" in settings:
            on_ray(counts[-1], [int(n) for n in settings["workers"].split(",")], place)
    libraries()
    leaks()


if __name__ == "__main__":
    main()
