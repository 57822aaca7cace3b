"""A tiny checkpoint is aligned on a CPU: it learns what is preferred, and loads as before."""

import builtins
import json

import pytest

from tests.pipelines.test_preferences import exported, mixture  # noqa: F401
from tests.trainer.align.pairs import pairs
from tests.trainer.conftest import SMALL
from trainer.__main__ import main
from trainer.checkpoint import read_state
from trainer.config_file import load
from trainer.loop import train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # TRL's own
@pytest.mark.parametrize(
    ("config", "losses"), [("dpo", "sigmoid 1"), ("mpo", "sigmoid 0.8, bco_pair 0.2, sft 1")]
)
def test_it_learns_what_is_preferred(tmp_path, config, losses):
    made_of = pairs(tmp_path / "pairs", 48, held=16)
    words = {**SMALL, "data": str(made_of), "output": str(tmp_path / "sft"), "steps": "2"}
    train(load("tiny", words))
    command = [
        "align", f"config={config}", f"data={made_of}", f"init={tmp_path}/sft",
        f"output={tmp_path}/run",
        "batch=8", "micro=4", "steps=12", "lr=1e-3", "log_every=1", "device=cpu", "threads=1",
    ]  # fmt: skip
    assert main(command) == 0
    made = tmp_path / "run" / "step-000012"
    state = read_state(made)
    assert state.metrics["rewards/accuracies"] > 0.8
    assert state.metrics["rewards/margins"] > 0.03
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().split("\n")
              if line]  # fmt: skip
    margins = [line["rewards/margins"] for line in logged if "rewards/margins" in line]
    assert abs(margins[0]) < 1e-4 < margins[-1]
    assert [stage["step"] for stage in state.history] == [2]
    page = (made / "README.md").read_text()
    assert f"losses {losses}" in page
    assert "| rewards/accuracies | 0.0000 | " in page
    from transformers import AutoModelForImageTextToText

    from trainer.api import load as open_model

    AutoModelForImageTextToText.from_pretrained(made)
    _, processor = open_model(made)
    assert "Assistant" in processor.tokenizer.chat_template
    assert main(command) == 0  # says that it is done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_trl_itself_takes_an_export_and_a_checkpoint(mixture, exported, tmp_path):  # noqa: F811
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    from trainer.api import load as open_model

    words = {**SMALL, "data": str(mixture), "output": str(tmp_path / "sft"), "steps": "2",
             "model.vision.image_size": "32", "model.vision.patch_size": "8",
             "model.scale_factor": "2"}  # fmt: skip
    train(load("tiny", words))
    checkpoint = tmp_path / "sft" / "step-000002"
    rows = load_dataset(str(exported), split="train", cache_dir=str(tmp_path / "cache"))
    model, processor = open_model(checkpoint)
    trainer = DPOTrainer(
        model=model,
        processing_class=processor,
        train_dataset=rows,
        args=DPOConfig(
            output_dir=str(tmp_path / "dpo"), max_steps=12, per_device_train_batch_size=4,
            learning_rate=1e-3, logging_steps=1, use_cpu=True, bf16=False, report_to="none",
            save_strategy="no", max_length=None, disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.train()
    margins = [line["rewards/margins"] for line in trainer.state.log_history
               if "rewards/margins" in line]  # fmt: skip
    assert margins[-1] > margins[0] + 0.01


def test_without_trl_one_sentence_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.partition(".")[0] == "trl":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["align", "data=out/pairs", "init=out/runs/sft"]) == 2
    assert "pip install 'smolvlm-pipelines[align]'" in capsys.readouterr().err
