"""The demo shows what is so: images it never trained on, computed rates, and its failure."""

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import demo
import pytest
from drawings import DRAW, drawings

from trainer.evaluation import benchmark

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("component", DRAW)
def test_no_image_is_drawn_twice_and_a_seed_repeats(component):
    drawn = list(islice(drawings(component, seed=3), 150))
    assert len({each.png for each in drawn}) == 150
    assert list(islice(drawings(component, seed=3), 150)) == drawn
    assert next(drawings(component, seed=4)).png != drawn[0].png


@pytest.mark.parametrize(("component", "counts"), [
    ("shapes", (4, 6, 4)), ("digits", (10, 6)), ("dots", (5, 6)),
])  # fmt: skip
def test_no_answer_is_common_enough_to_be_guessed(component, counts):
    drawn = list(islice(drawings(component, seed=5), 400))
    for place, count in enumerate(counts):
        answers = [each.questions[place][1] for each in drawn]
        assert len(set(answers)) == count
        assert max(answers.count(answer) for answer in set(answers)) < 400 * 1.6 / count


def test_the_smaller_vocabulary_spells_everything_and_keeps_the_marks(tmp_path):
    from tokenization.vocab import load_tokenizer

    size = demo.write_tokenizer(tmp_path / "tokenizer")
    small, whole = load_tokenizer(str(tmp_path / "tokenizer")), load_tokenizer("builtin")
    assert len(small) == size < 2500
    assert set(whole.get_added_vocab()) == set(small.get_added_vocab())
    text = "Which corner? A caf\u00e9, 12 <b>triangles</b>\n"
    assert small.decode(small.encode(text)) == text
    assert (small.eos_token, small.pad_token) == (whole.eos_token, whole.pad_token)


def test_the_table_shows_the_question_and_answer_of_its_own_image(tmp_path):
    kept_back = {name: list(islice(drawings(name, seed=1), 6)) for name in DRAW}
    demo.write_benchmark(tmp_path / "held_out.tsv", kept_back)
    cases = benchmark.read(tmp_path / "held_out.tsv")
    said = [f"{case.question.text}|{case.gold[0]}" for case in cases]
    lines = demo.table(kept_back, said, [1.0] * len(said)).splitlines()[1:]
    assert len(lines) == demo.SHOWN
    for line in lines:
        question, answer, told = re.fullmatch(r" *\d+  \w+ +(.*?\?) +(.+?)  +(.*)", line).groups()
        assert told == f"{question}|{answer}"
    assert "<- wrong" in demo.table(kept_back, said, [0.0] * len(said))


def run(out: Path, *words: str) -> subprocess.CompletedProcess:
    call = [sys.executable, str(ROOT / "examples" / "demo.py"), f"output={out}", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_says_so_where_it_did_not_learn(tmp_path):
    done = run(tmp_path, "steps=4", "held_out=20")
    assert done.returncode == 1, done.stderr
    assert "It did not learn to look" in done.stdout


@pytest.mark.slow
def test_it_answers_from_the_image(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    gap = re.search(r"from looking +([+-][\d.]+) points", done.stdout)
    assert float(gap[1]) >= 25
    for name in ("run.html", "report.html"):
        (path,) = re.findall(rf"(\S+{name})", done.stdout)[-1:]
        assert Path(path).is_file()
