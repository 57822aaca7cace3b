"""Near-duplicates at scale: time and memory as samples grow, recall and precision on planted ones.

    .venv/bin/python -m benchmarks.duplicates [samples ...]        default: 125000 250000 500000

Every tenth sample is a planted copy of an earlier one: its text with a share of words replaced, its
picture's hash with some bits flipped. Truth is brute force on the planted pairs: the exact Jaccard
index of their 5-word runs and the exact Hamming distance. A sample that goes without being planted
near another is wrong. One process, on a machine shared with others: CPU seconds.

Then MinHash libraries on the same texts, and how many recompressed, resized and cropped pictures of
scikit-image a benchmark's hash list knows again.
"""

import io
import random
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from filters import RULES, hashes, near

WORDS = 30


def planted(count: int, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """(id, text, dhashes, ...; of whom each row is a copy, or -1; its share of replaced words)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 50_000, (count, WORDS))
    pictures = rng.integers(0, 2**64, count, dtype=np.uint64)
    of = np.full(count, -1)
    copies = np.arange(9, count, 10)
    of[copies] = (rng.random(len(copies)) * (copies // 10)).astype(np.int64) * 10
    words[copies] = words[of[copies]]
    pictures[copies] = pictures[of[copies]]
    for row in copies:
        for place in rng.integers(0, WORDS, rng.integers(0, 4)):
            words[row, place] = rng.integers(0, 50_000)
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            pictures[row] ^= np.uint64(1) << np.uint64(bit)
    text = [" ".join(f"w{w}" for w in row) for row in words.tolist()]
    frame = pl.DataFrame({"text": text, "pictures": pictures}).with_columns(
        id=pl.format("made/made/{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(9)),
        dhashes=pl.concat_list("pictures"),
        component=pl.lit("made"),
        priority=0,
    )
    return frame, of, words


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    runs = [{tuple(w[n : n + near.NGRAM]) for n in range(WORDS - near.NGRAM + 1)} for w in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def line(*cells: object) -> None:
    print("".join(f"{c:>14}" if n else f"{c:<30}" for n, c in enumerate(cells)), flush=True)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def scale(counts: list[int]) -> None:
    line("rule", "samples", "CPU s", "us / sample", "peak MB", "recall", "precision")
    for count in counts:
        frame, of, words = planted(count)
        copies = np.flatnonzero(of >= 0)
        similar = np.array([jaccard(words[n], words[of[n]]) for n in copies])
        differ = np.bitwise_count(
            frame["pictures"].to_numpy()[copies] ^ frame["pictures"].to_numpy()[of[copies]]
        )
        seconds, signatures = timed(lambda f=frame: hashes.text_signature(f))
        frame = frame.drop("text").with_columns(signatures)
        line("(signatures)", count, f"{seconds:.1f}", f"{seconds / count * 1e6:.1f}", "", "", "")
        truth = {
            "near_duplicate_text": similar >= 0.8,
            "near_duplicate_images": differ <= 4,
            "near_duplicate_sample": (similar >= 0.8) & (differ <= 4),
        }
        # Copies of copies' originals are near each other too: wrong is what has no near partner.
        loose = {
            "near_duplicate_text": similar >= 0.6,
            "near_duplicate_images": differ <= 6,
            "near_duplicate_sample": (similar >= 0.6) & (differ <= 6),
        }
        for name, is_near in truth.items():
            seconds, taken = timed(lambda f=frame, n=name: RULES[n].function(f))
            gone = {int(i.rsplit("/", 1)[1]) for i in taken["id"]}
            wanted = set(copies[is_near].tolist())
            allowed = set(copies[loose[name]].tolist()) | set(of[copies[loose[name]]].tolist())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            line(
                name,
                count,
                f"{seconds:.1f}",
                f"{seconds / count * 1e6:.1f}",
                f"{peak:.0f}",
                f"{len(gone & wanted) / len(wanted):.4f}",
                f"{len(gone & allowed) / max(len(gone), 1):.4f}",
            )


def libraries(count: int = 1000) -> None:
    import datasketch
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    frame, _, _ = planted(count)
    texts = frame["text"].to_list()

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
    import skimage.data
    from PIL import Image

    from filters.benchmarks import crops, is_telling
    from pipelines.sources.pictures import dhash

    names = ["astronaut", "coffee", "chelsea", "rocket", "camera", "page", "text", "brick", "grass",
             "moon", "coins", "hubble_deep_field", "retina", "immunohistochemistry", "colorwheel",
             "clock", "gravel", "cell", "horse", "logo"]  # fmt: skip
    images = []
    for name in names:
        pixels = getattr(skimage.data, name)()
        pixels = pixels * 255 if pixels.dtype == bool else pixels
        images.append(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))
    known = [{dhash(c.convert("L")) for c in crops(image)} for image in images]
    known = [{h for h in k if is_telling(np.array([h]))[0]} for k in known]
    plain = [{dhash(image.convert("L"))} for image in images]

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
    }
    print()
    line(f"{len(images)} pictures, found", "radius 4", "radius 6", "no crops, 4", "wrong at 4")
    for name, change in changes.items():
        found = dict.fromkeys(("4", "6", "plain", "wrong"), 0)
        tries = 10
        for n, image in enumerate(images):
            for _ in range(tries):
                sought = dhash(change(image).convert("L"))
                near_to = [min(((sought ^ h).bit_count() for h in k), default=64) for k in known]
                found["4"] += near_to[n] <= 4
                found["6"] += near_to[n] <= 6
                found["plain"] += min((sought ^ h).bit_count() for h in plain[n]) <= 4
                found["wrong"] += any(d <= 4 for m, d in enumerate(near_to) if m != n)
        line(name, *(f"{v / tries / len(images):.2f}" for v in found.values()))


if __name__ == "__main__":
    scale([int(a) for a in sys.argv[1:]] or [125_000, 250_000, 500_000])
    libraries()
    leaks()
