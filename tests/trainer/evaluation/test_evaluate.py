"""`evaluate` asks, scores and compares checkpoints, and says how sure it is."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import trainer
from tests.trainer.conftest import Settings
from tests.trainer.evaluation.conftest import base64_png, write_tsv
from tests.trainer.shards import COLOURS, png
from tokenization.inference import asking_encoding, plain_encoding
from tokenization.prompts import IMAGE_INTROS
from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer
from trainer.__main__ import main
from trainer.evaluation.answer import Question, prompts
from trainer.evaluation.evaluate import evaluate_command
from trainer.loop import train

Evaluate = Callable[..., dict]


@pytest.fixture
def evaluate(checkpoint: Path) -> Evaluate:
    """Runs the command on the checkpoint; what it wrote under `name`."""

    def run(*arguments: str, name: str, at: Path = checkpoint) -> dict:
        assert main(["evaluate", str(at), "max_new_tokens=4", *arguments]) == 0
        return json.loads((at / "evaluations" / f"{name}.json").read_text())

    return run


def test_scores_are_written_beside_the_checkpoint(
    evaluate: Evaluate, checkpoint: Path, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(f"bench={bench}", name="colours")
    assert result["questions"] == 4
    assert result["metric"] == "exact"
    assert result["interval"][0] <= result["score"] <= result["interval"][1]
    shuffled = evaluate(f"bench={bench}", "images=shuffled", name="colours-shuffled")
    assert shuffled["images"] == "shuffled"
    out = checkpoint / "evaluations"
    with (out / "colours.tsv").open() as stream:
        lines = list(csv.DictReader(stream, delimiter="\t"))
    assert [line["index"] for line in lines] == ["1", "2", "3", "4"]
    ready = json.loads((out / "colours.vlmevalkit.json").read_text())
    (model,) = ready["model"].values()
    assert model == {"class": "SmolVLM2", "model_path": str(checkpoint.resolve())}
    assert not (out / "colours-shuffled.vlmevalkit.json").exists()  # it shuffles nothing
    assert "colours: exact" in capsys.readouterr().out


@pytest.fixture(scope="module")
def answered(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose right answers are those of the checkpoint, asked as it was trained."""
    folder = tmp_path_factory.mktemp("answered")
    rows = [
        {"index": str(n), "image": base64_png(list(COLOURS)[n % 4], n), "answer": "x",
         "question": f"What {'is' * (n % 3)} here, number {n}?"}
        for n in range(12)
    ]  # fmt: skip
    asked = write_tsv(folder / "asked.tsv", rows)
    evaluate_command(
        [str(checkpoint), f"bench={asked}", f"output={folder}/out", "max_new_tokens=4"]
    )
    with (folder / "out" / "asked.tsv").open(newline="") as stream:
        said = [row["prediction"] for row in csv.DictReader(stream, delimiter="\t")]
    rows = [row | {"answer": answer} for row, answer in zip(rows, said, strict=True)]
    return write_tsv(folder / "echo.tsv", rows)


def test_both_kinds_of_prompts_are_shown_and_compared(
    evaluate: Evaluate, checkpoint: Path, answered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = evaluate(f"bench={answered}", "prompts=trained,plain", name="echo")
    out = capsys.readouterr().out
    assert trained["prompts"] == "trained"
    assert trained["score"] == 1
    assert 0.6 < trained["interval"][0] < 1
    folder = checkpoint / "evaluations"
    plain = json.loads((folder / "echo-plain.json").read_text())
    assert plain["prompts"] == "plain"
    (file,) = folder.glob("echo-against-*-plain.json")
    found = json.loads(file.read_text())
    assert found["difference"] == pytest.approx(1 - plain["score"])
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert "prompts trained" in out
    assert "prompts plain" in out
    assert f"-plain: {found['difference']:+.4f}" in out


def test_two_checkpoints_are_compared_question_by_question(
    evaluate: Evaluate, checkpoint: Path, mixture: Path, answered: Path, tmp_path: Path
) -> None:
    rates = {f"optim__lr__{tower}": 0.3 for tower in ("vision", "connector", "language")}
    other = train(Settings(mixture, tmp_path / "other")(steps=2, **rates))
    evaluate(f"bench={answered}", f"against={other}", name="echo")
    file = checkpoint / "evaluations" / "echo-against-other-step-000002-trained.json"
    found = json.loads(file.read_text())
    theirs = json.loads((other / "evaluations" / "echo.json").read_text())
    assert found["questions"] == 12
    assert found["difference"] == pytest.approx(1 - theirs["score"])
    assert 0 < found["p"] < 0.05
    itself = evaluate(f"bench={answered}", f"against={checkpoint}", name="echo")
    assert itself["score"] == 1
    (file,) = (checkpoint / "evaluations").glob("echo-against-run-*-trained.json")
    assert json.loads(file.read_text())["p"] == 1


def test_prompts_have_the_words_of_training_or_none_of_them() -> None:
    """As trained means with the words, also where a share of the samples had none."""
    encoding = Encoding(crop_size=32, longest_edge=32, tokens_per_crop=1, plain_prompts=0.9)
    text = load_tokenizer("builtin").decode
    image = png(COLOURS["red"], 40, 30, 1)
    questions = [Question(text=f"{n}?", images=[image]) for n in range(20)]
    for prompt in prompts(questions, asking_encoding(encoding)):
        assert text(prompt.ids).startswith("<|im_start|>System:")
        assert any(words in text(prompt.ids) for words in IMAGE_INTROS)
    for number, prompt in enumerate(prompts(questions, plain_encoding(encoding))):
        first, _, rest = text(prompt.ids).partition("<fake_token_around_image>")
        assert first == "<|im_start|>User:"
        assert rest.endswith(f"<fake_token_around_image>{number}?<end_of_utterance>\nAssistant:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench=x.tsv"], "expected a checkpoint"),
        (["run", "bench=x.tsv", "metrik=exact"], "unknown key 'metrik'. Did you mean 'metric'"),
        (["run", "bench=x.tsv", "limit=few"], "limit=few: expected a whole number"),
        (["run", "bench=x.tsv", "images=none"], "expected own or shuffled"),
        (["run", "bench=x.tsv", "prompts=bare"], "expected trained, plain or trained,plain"),
        (["run", "bench=x.tsv", "prompts=plain,plain"], "expected trained, plain or"),
        (["run"], "bench is not set"),
        (["run", "bench=here/x.tsv", "output=here"], "output=here would overwrite here/x.tsv"),
        (["run", "bench=x/a-plain.tsv", "output=x", "prompts=trained"], "would overwrite"),
        (["run", "bench=x/a.tsv", "output=x", "prompts=trained|plain"], "would overwrite"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_command(arguments)


def test_scores_are_what_the_files_hold_and_what_json_says(
    checkpoint: Path, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"prompts": "trained,plain", "max_new_tokens": "2", "output": str(tmp_path / "out")}
    found = trainer.evaluate(checkpoint, bench, **settings)
    words = [f"--{key}={value}" for key, value in settings.items()]
    capsys.readouterr()
    assert main(["evaluate", str(checkpoint), str(bench), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["evaluate", str(checkpoint), str(bench), *words, "quiet=true"]) == 0
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()[:2]] == [bench.stem] * 2
    assert len(said.out.splitlines()) == len(found) == 3
    assert said.err == ""
    assert {found[0]["bench"], found[1]["bench"]} == {bench.stem}
    assert found[0]["checkpoint"].endswith(checkpoint.name)
    assert [result["prompts"] for result in found[:2]] == ["trained", "plain"]
    assert json.loads((tmp_path / "out" / f"{bench.stem}.json").read_text()) == found[0]
    assert found[2]["questions"] == found[0]["questions"]
