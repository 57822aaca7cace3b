"""What a sweep's file may say, and the one message for what it may not."""

from pathlib import Path

import pytest

from trainer.ablation.sweep import read_sweep, run_config

FILE = """
description: Two rates.
mixture: quickstart
build: {tokens: 1000, encoding: {learn: completions}}
config: tiny
train: {steps: 2, optim.lr: 1e-3}
seeds: 2
baseline: low
arms:
  high: {train: {optim: {lr: 1e-2}}}
  low: {}
  spelled: {build: {encoding.position_tokens: string}}
"""


def written(folder: Path, text: str = FILE) -> Path:
    file = folder / "rates.yaml"
    file.write_text(text)
    return file


def test_arms_have_what_all_have_and_their_own(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    assert (sweep.name, list(sweep.seeds), sweep.metric) == ("rates", [1, 2], "all")
    assert [arm.name for arm in sweep.arms] == ["low", "high", "spelled"]  # the baseline first
    low, high, spelled = sweep.arms
    assert dict(low.mixture.build) == {"tokens": "1000", "encoding.learn": "completions"}
    assert low.mixture == high.mixture == sweep.held_out
    assert spelled.mixture.build["encoding.position_tokens"] == "string"
    assert dict(high.changes) == {"optim.lr": "0.01"}
    config = run_config(sweep, high, seed=5, data="x")
    assert (config.optim.lr.vision, config.steps, config.seed) == (0.01, 2, 5)
    assert (config.data, config.page_samples) == ({"x": 1.0}, 0)
    assert list(read_sweep(written(tmp_path), seeds="[3, 9]").seeds) == [3, 9]
    assert list(read_sweep(written(tmp_path), seeds="4").seeds) == [1, 2, 3, 4]
    assert list(read_sweep(written(tmp_path), seeds="[3]").seeds) == [3]
    once = FILE.replace("seeds: 2", "seeds: [7]")
    assert list(read_sweep(written(tmp_path, once)).seeds) == [7]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("description:", "descripton:", "unknown key 'descripton'. Did you mean 'description'?"),
        ("mixture: quickstart", "", "'mixture' is missing"),
        ("baseline: low", "baseline: lo", "baseline 'lo' is no arm. Did you mean 'low'?"),
        ("optim: {lr: 1e-2}", "optim: {rate: 1}", r"arm 'high', train: .*'rate'"),
        ("low: {}", "low: {trainer: {}}", "arms.low: unknown key 'trainer'"),
        ("high: {train: {optim: {lr: 1e-2}}}", "high: {}", "'low' and 'high' are one and the same"),
        ("steps: 2", "seed: 2", "the sweep itself sets 'seed'"),
        ("{tokens: 1000,", "{output: x,", "the sweep itself sets 'output'"),
        ("seeds: 2", "seeds: 0", "seeds: found"),
        ("seeds: 2", "seeds: [1, 1]", "each once"),
        ("seeds: 2", "seeds: many", "expected how many"),
        ("1e-3}", "0}", "optim.lr is 0"),
        ("config: tiny", "config: tinny", "Did you mean 'tiny'"),
        ("Two rates.", "${oc.env:HOME}", "Nothing is interpolated"),
        ("seeds: 2", "benchmarks: {a: {file: b.tsv}}", "'b.tsv' is no file"),
        ("\narms:", "\narms: []\nbuild_:", "unknown key 'build_'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in FILE
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_sweep(written(tmp_path, FILE.replace(before, after, 1)))


def test_a_benchmark_may_say_where_options_are_counted_from(tmp_path: Path) -> None:
    bench = tmp_path / "b.tsv"
    bench.write_text("index\tquestion\tanswer\tA\tB\tC\n1\t?\t1\tone\ttwo\tthree\n")
    asked = "seeds: 2\nbenchmarks: {a: {file: %s, metric: multiple_choice%s}}"
    with pytest.raises(ValueError, match="none of them tells"):
        read_sweep(written(tmp_path, FILE.replace("seeds: 2", asked % (bench, ""), 1)))
    said = asked % (bench, ", choices_from: 1")
    found = read_sweep(written(tmp_path, FILE.replace("seeds: 2", said, 1)))
    assert found.benchmarks["a"].choices_from == "1"


def test_one_arm_is_no_sweep(tmp_path: Path) -> None:
    text = FILE[: FILE.index("  high")] + "  low: {}\n"
    with pytest.raises(ValueError, match="found one, expected the baseline and another"):
        read_sweep(written(tmp_path, text))
