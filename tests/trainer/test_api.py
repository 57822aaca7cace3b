"""What Python programs call of the trainer: a run, its log, its model and processor, its scores."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import trainer
from tests.trainer.conftest import Settings
from trainer.__main__ import main
from trainer.data.shards import open_mixture


def test_importing_it_is_light_and_every_name_is_there_and_typed() -> None:
    code = "import sys, trainer; trainer.__version__; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "omegaconf"} & set(eval(done.stdout))
    assert set(trainer.__all__) <= set(dir(trainer))
    for name in ("train", "load", "evaluate"):
        found = getattr(trainer, name)
        assert found.__doc__
        for given in inspect.signature(found).parameters.values():
            assert given.annotation is not inspect.Parameter.empty
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trainer.nothing  # type: ignore[attr-defined]


def test_a_run_in_python_is_the_run_of_the_command(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = dict(settings.pairs)
    data, output = pairs.pop("data"), Path(pairs.pop("output"))
    run = trainer.train("tiny", data=data, output=output, overrides={**pairs, "steps": 2})
    assert run.checkpoint == output / "step-000002"
    assert [line["step"] for line in run.log if "loss" in line][-1] == 2
    assert str(run.checkpoint) in run._repr_html_()
    capsys.readouterr()
    words = [f"{key}={value}" for key, value in {**pairs, "data": data, "output": output}.items()]
    assert main(["tiny", *words, "steps=2", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == f"checkpoint {run.checkpoint}\n"
    assert said.err == ""
    assert main(["tiny", *words, "steps=2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["checkpoint"] == str(run.checkpoint)
    assert told["step"] == 2
    assert told["metrics"] == [line["metrics"] for line in run.log if "metrics" in line][-1]
    with pytest.raises(ValueError, match="steps is -1, expected 0 or more"):
        trainer.train("tiny", data=data, overrides={"steps": -1})
    with pytest.raises(ValueError, match="config is not set"):
        trainer.train(data=data)
    with pytest.raises(FileNotFoundError, match=r"b\.yaml"):
        trainer.train(tmp_path / "b.yaml", data={data: 1.0})

    model, processor = trainer.load(run, device="cpu")
    assert not model.training
    content = [
        {"type": "image", "image": Image.new("RGB", (40, 30), "red")},
        {"type": "text", "text": "Which?"},
    ]
    made = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt",
    )  # fmt: skip
    tokens = open_mixture(str(data)).encoding.tokens_per_crop
    assert int((made["input_ids"] == model.config.image_token_id).sum()) % tokens == 0
    assert model.generate(**made, max_new_tokens=2).shape[1] > made["input_ids"].shape[1]
    with pytest.raises(FileNotFoundError, match="neither a checkpoint"):
        trainer.load(tmp_path)
