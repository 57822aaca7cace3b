"""Near-duplicates at scale: time and memory as samples grow, recall and precision on planted ones.

    .venv/bin/python -m benchmarks.duplicates [samples ...]        default: 125000 250000 500000

Every tenth sample is a planted copy of an earlier one: its text with a share of words replaced, its
picture's hash with some bits flipped. Truth is brute force on the planted pairs: the exact Jaccard
index of their 5-word runs and the exact Hamming distance. A sample that goes without being planted
near another is wrong. One process, on a machine shared with others: CPU seconds. Memory is that of
the process, before a rule (the verdicts themselves) and at the rule's peak.

Then MinHash libraries on the same texts, and how many recompressed, resized and cropped pictures of
scikit-image a benchmark's hash list knows again.
"""

import io
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from filters import RULES, hashes, near

WORDS = 30
VOCABULARY = 50_000
CHUNK = 250_000
"""Samples whose text is held at once: like a build, which reads a part, hashes it and lets go."""


def planted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(words, uint16 [N, WORDS]; dhashes, uint64 [N]; of whom each row is a copy, or -1)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, VOCABULARY, (count, WORDS), dtype=np.uint16)
    pictures = rng.integers(0, 2**64, count, dtype=np.uint64)
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
        pictures[rows] = pictures[of[rows]] ^ np.bitwise_or.reduce(flips, axis=1)
    return words, pictures, of


def texts_of(words: np.ndarray) -> list[str]:
    return [" ".join([f"w{w}" for w in row]) for row in words.tolist()]


def signed(words: np.ndarray, pictures: np.ndarray) -> tuple[pl.DataFrame, float]:
    """(the columns of VERDICTS that the rules read; CPU seconds that the signatures took)."""
    seconds, frames = 0.0, []
    for at in range(0, len(words), CHUNK):
        texts = pl.DataFrame({"text": texts_of(words[at : at + CHUNK])})
        spent, signatures = timed(lambda f=texts: hashes.text_signature(f))
        seconds += spent
        frames.append(
            pl.DataFrame({"pictures": pictures[at : at + CHUNK]}).select(
                pl.format("made/made/{}", (pl.int_range(pl.len()) + at).cast(pl.String)
                          .str.zfill(9)).alias("id"),
                signatures,
                dhashes=pl.concat_list("pictures"),
                component=pl.lit("made"),
                priority=0,
            )
        )  # fmt: skip
    return pl.concat(frames), seconds


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    runs = [{tuple(w[n : n + near.NGRAM]) for n in range(WORDS - near.NGRAM + 1)} for w in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


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


def scale(counts: list[int]) -> None:
    line(
        "rule", "samples", "CPU s", "us / sample", "held MB", "peak MB", "more, B each", "recall",
        "precision",
    )  # fmt: skip
    for count in counts:
        words, pictures, of = planted(count)
        copies = np.flatnonzero(of >= 0)
        similar = np.array(
            [
                jaccard(a.tolist(), words[o].tolist())
                for a, o in zip(words[copies], of[copies], strict=True)
            ]
        )
        differ = np.bitwise_count(pictures[copies] ^ pictures[of[copies]])
        frame, seconds = signed(words, pictures)
        del words, pictures
        line("(signatures)", count, f"{seconds:.1f}", f"{seconds / count * 1e6:.1f}")
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
            forget_peak()
            held = memory("VmRSS")
            seconds, taken = timed(lambda f=frame, n=name: RULES[n].function(f))
            peak = memory("VmHWM")
            gone, allowed = np.zeros(count, bool), np.zeros(count, bool)
            gone[taken["id"].str.slice(-9).cast(pl.Int64).to_numpy()] = True
            allowed[copies[loose[name]]] = allowed[of[copies[loose[name]]]] = True
            line(
                name,
                count,
                f"{seconds:.1f}",
                f"{seconds / count * 1e6:.1f}",
                held,
                peak,
                f"{(peak - held) * 2**20 / count:.0f}",
                f"{gone[copies[is_near]].mean():.4f}",
                f"{(gone & allowed).sum() / max(gone.sum(), 1):.4f}",
            )
            del taken


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
