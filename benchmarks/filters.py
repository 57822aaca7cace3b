"""How fast samples are judged, by column rules and by datatrove's own loop on the same texts.

    .venv/bin/python -m benchmarks.filters [samples]

One core (one Polars thread), one process; the best of three runs, in CPU seconds, because the
machine is shared. Samples are made here: 1 to 4 turns about one image, 500 characters on average.
"""

import os
import sys
import time

os.environ["POLARS_MAX_THREADS"] = "1"

import random

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter

from filters import RULES, judge
from tokenization.schema import SAMPLE

WORDS = [
    "the", "a", "of", "to", "in", "is", "on", "and", "with", "what", "how", "many", "which",
    "people", "train", "chart", "value", "year", "colour", "left", "right", "picture", "answer",
    "house", "number", "line", "above", "below", "between", "shows", "that", "who", "was", "has",
]  # fmt: skip

NOT_COLUMNS = {
    "gopher_quality", "gopher_repetition", "fineweb_quality", "c4_quality", "language",
}  # fmt: skip
SETTINGS = {
    "too_many_turns": {"max_turns": 20},
    "too_short": {"min_seconds": 1.0},
    "too_long_video": {"max_seconds": 900.0},
    "too_few_frames": {"min_frames": 2},
    "too_long_reasoning": {"max_words": 2000},
}


def made(count: int) -> pa.Table:
    rng = random.Random(0)

    def said(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."

    def turns() -> list[dict]:
        messages = []
        for turn in range(rng.randint(1, 4)):
            image = [{"type": "image", "text": None}] if turn == 0 else []
            asked = [*image, {"type": "text", "text": said(rng.randint(5, 15))}]
            answered = [{"type": "text", "text": said(rng.randint(1, 60))}]
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
        return messages

    image_record = {"bytes": bytes(1000), "width": 640, "height": 480, "dhash": 0, "seconds": None}
    image_record |= {"contrast": 50.0, "sharpness": 500.0, "edges": 0.2}
    rows = [
        {"id": f"made/made/{n:06}", "source": "made", "subset": "made", "messages": turns(),
         "images": [image_record | {"dhash": rng.getrandbits(64)}], "tags": []}
        for n in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SAMPLE)


def best(work, runs: int = 3) -> float:
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main() -> None:
    # Longer than a screen: one experiment, in the order in which it is done.
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    samples = made(count)
    column = {
        name: SETTINGS.get(name, {})
        for name, rule in RULES.items()
        if rule.scope == "sample"
        and name not in NOT_COLUMNS
        and (name in SETTINGS or all(p.default is not p.empty for p in rule.settings.values()))
        and rule.score is None
        and rule.detail is None
    }
    print(f"{count:,} samples, {samples.nbytes / 1e6:.0f} MB\n")
    print(f"{'rules':44}{'samples/s per core':>20}")

    def line(name: str, seconds: float, of: int = count) -> None:
        print(f"{name:44}{of / seconds:>20,.0f}")

    line("none (ids, modality, counts)", best(lambda: judge(samples, rules={})))
    line(f"all {len(column)} column rules", best(lambda: judge(samples, rules=column)))
    for name in ("text_hash", "pixels_hash", "bytes_hash", "text_signature", "dhashes"):
        rule = {
            "text_hash": {"duplicate_text": {}},
            "pixels_hash": {"duplicate_images": {}},
            "bytes_hash": {"duplicate_images": {"same": "bytes"}},
            "text_signature": {"near_duplicate_text": {}},
            "dhashes": {"near_duplicate_images": {}},
        }[name]
        line(f"hash for duplicates: {name}", best(lambda rule=rule: judge(samples, rules=rule)))

    few = samples.slice(0, min(1000, count))
    texts = [
        "\n".join(p["text"] for m in messages if m["role"] == "assistant" for p in m["content"])
        for messages in few["messages"].to_pylist()
    ]
    print(
        "\nThe same two filters of datatrove on the same answers, behind our rules and by its loop"
    )
    rules = {"gopher_quality": {"mode": "mark"}, "fineweb_quality": {"mode": "mark"}}
    theirs = [GopherQualityFilter(), FineWebQualityFilter()]

    def loop() -> list[list[bool]]:
        verdicts = []
        for text in texts:
            found = [f.filter(Document(text=text, id="")) for f in theirs]
            verdicts.append([v if isinstance(v, bool) else v[0] for v in found])
        return verdicts

    kept = loop()
    fired = judge(few, rules=rules)["fired"].to_pylist()
    ours = [["gopher_quality" not in f, "fineweb_quality" not in f] for f in fired]
    print(f"same verdicts: {ours == kept} ({sum(map(all, kept))} of {len(kept)} kept)")
    line("judge", best(lambda: judge(few, rules=rules)), len(few))
    line("datatrove's loop", best(loop), len(few))

    # A rule that both have: mean word length, as a column and as datatrove's per-document filter.
    only = GopherQualityFilter(
        min_doc_words=10, max_doc_words=None, min_avg_word_length=None, max_avg_word_length=None,
        max_symbol_word_ratio=None, max_bullet_lines_ratio=None, max_ellipsis_lines_ratio=None,
        max_non_alpha_words_ratio=None, min_stop_words=None,
    )  # fmt: skip
    line(
        "datatrove's loop, its length rule alone",
        best(lambda: [only.filter(Document(text=t, id="")) for t in texts]),
        len(few),
    )


if __name__ == "__main__":
    main()
