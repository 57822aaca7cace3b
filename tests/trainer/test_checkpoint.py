"""Checkpoints: whole or absent, exact to resume, at home in `transformers`."""

import dataclasses
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.processes import Child, Nursery
from tests.trainer.conftest import Settings
from tests.trainer.shards import ENCODING, toy
from tokenization.inference import unsaid
from tokenization.vocab import load_tokenizer, plain_tokenizer
from trainer import checkpoint
from trainer.config import Config
from trainer.config_file import to_yaml
from trainer.data.batches import collate
from trainer.data.shards import Rows, open_mixture
from trainer.evaluation import measure
from trainer.loop import train
from trainer.model import adapter
from trainer.model.smolvlm import Objective, use_attention

IMAGE = 49190


def same(first: Path, second: Path) -> None:
    """Weights and optimizer are equal bit for bit, and so is where the runs stand."""
    ours, theirs = checkpoint.load_weights(first), checkpoint.load_weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    states = [
        torch.load(folder / "trainer" / "optimizer.pt", weights_only=True)
        for folder in (first, second)
    ]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for name, moments in states[0]["state"].items():
        mine, other = inner(moments), inner(states[1]["state"][name])
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), (name, key)
    stand = [checkpoint.read_state(folder) for folder in (first, second)]
    assert dataclasses.replace(stand[0], seconds=0) == dataclasses.replace(stand[1], seconds=0)


def inner(moments: dict) -> dict:
    """bitsandbytes holds what belongs to 8 bits in a dict of its own."""
    return {k: v for key, value in moments.items()
            for k, v in (value if isinstance(value, dict) else {key: value}).items()}  # fmt: skip


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim__neftune": 5.0, "gradient_checkpointing": True, "optim__name": "adamw_8bit"},
    ],
)
def test_ten_steps_are_five_and_five_bit_for_bit(
    settings: Settings, tmp_path: Path, changes: dict[str, object]
) -> None:
    through = train(settings(output=tmp_path / "through", **changes))
    half = train(settings(output=tmp_path / "halves", stop_at=5, **changes))
    assert (through.name, half.name) == ("step-000010", "step-000005")
    rest = train(settings(output=tmp_path / "halves", **changes))
    same(through, rest)
    assert losses(tmp_path / "through") == losses(tmp_path / "halves")


def test_a_finished_run_is_not_run_again(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(settings(steps=2))
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert train(settings(steps=2)) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert "already at step 2 of 2; nothing to do" in capsys.readouterr().out


def start(python: Nursery, config: Config, folder: Path) -> Child:
    """The trainer in its own process."""
    file = folder / "settings.yaml"
    file.write_text(to_yaml(config))
    return python.start("-m", "trainer", f"config={file}")


def wait_for(condition: Callable[[], bool], process: Child) -> None:
    while not condition():
        assert process.poll() is None, process.err.read_text()
        time.sleep(0.005)


def test_killed_while_saving_and_while_training_the_run_is_the_same(
    settings: Settings, tmp_path: Path, python: Nursery
) -> None:
    through = train(settings(output=tmp_path / "through", save_every=3))
    killed = settings(output=tmp_path / "killed", save_every=3)
    run = Path(killed.output)
    # Once while the second checkpoint is being written, once in mid-training.
    for condition in (
        lambda: any(run.glob(f"{checkpoint.ARRIVING}step-000006")),
        lambda: (run / "step-000006").exists() or (run / "step-000009").exists(),
    ):
        process = start(python, killed, tmp_path)
        wait_for(condition, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert all(
            (folder / "config.json").is_file() for folder in checkpoint.checkpoint_folders(run)
        )
    last = train(killed)
    same(through, last)
    assert losses(tmp_path / "through") == losses(run)
    assert not list(run.glob(f"{checkpoint.ARRIVING}*"))


def test_sigterm_saves_and_leaves_and_the_run_goes_on(
    settings: Settings, tmp_path: Path, python: Nursery
) -> None:
    through = train(settings(output=tmp_path / "through"))
    stopped = settings(output=tmp_path / "stopped")
    process = start(python, stopped, tmp_path)
    log = Path(stopped.output) / "log.jsonl"
    wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) >= 3, process)
    process.send_signal(signal.SIGTERM)
    status, told = process.wait(), process.told()
    assert status == 143, told
    assert "SIGTERM: saved" in told
    (folder,) = checkpoint.checkpoint_folders(Path(stopped.output))
    assert 3 <= checkpoint.read_state(folder).step < 10
    same(through, train(stopped))


def test_changed_settings_are_refused_by_name(settings: Settings) -> None:
    train(settings(steps=2))
    with pytest.raises(
        ValueError, match=r"optim\.lr\.vision: 0\.005 -> 0\.1(.|\n)*output="
    ) as error:
        train(settings(steps=2, optim__lr__vision=0.1, workers=1))
    assert "workers" not in str(error.value)


def test_a_rebuilt_mixture_is_refused(settings: Settings, mixture: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(mixture, copied)
    train(settings(steps=1, data=copied))
    recipe = json.loads((copied / "recipe.json").read_text())
    (copied / "recipe.json").write_text(json.dumps(recipe | {"fingerprint": "another"}))
    with pytest.raises(ValueError, match=r"toy-0123456789abcdef.*another"):
        train(settings(steps=2, data=copied))


def test_a_moved_mixture_is_the_same_mixture(
    settings: Settings, mixture: Path, tmp_path: Path
) -> None:
    train(settings(stop_at=1))
    shutil.copytree(mixture, tmp_path / "elsewhere")
    assert train(settings(stop_at=2, data=tmp_path / "elsewhere")).name == "step-000002"


def test_transformers_loads_it_and_says_the_same(settings: Settings, mixture: Path) -> None:
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoTokenizer,
        SmolVLMImageProcessorPil,
    )

    folder = train(settings(steps=3))
    model = AutoModelForImageTextToText.from_pretrained(str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    processor = SmolVLMImageProcessorPil.from_pretrained(str(folder))
    assert type(AutoImageProcessor.from_pretrained(str(folder))).__name__.startswith("SmolVLM")
    assert tokenizer.chat_template
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(
        "<end_of_utterance>"
    )

    rows = Rows(open_mixture(str(mixture)), "val")
    row = rows[0]
    length = int(row.seq_lengths[0])
    crops = row.grids[0][0] * row.grids[0][1] + 1
    single = dataclasses.replace(
        row,
        input_ids=row.input_ids[:length], loss_mask=row.loss_mask[:length],
        seq_lengths=row.seq_lengths[:1], images=row.images[:1], grids=row.grids[:1],
        sample_ids=row.sample_ids[:1],
    )  # fmt: skip
    batch = collate([single], image_token=IMAGE)
    assert len(batch.pixels) == crops
    prompt = int(batch.predictors[0]) + 1
    from tokenization.images import open_image

    pixels = processor([[open_image(row.images[0])]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        said = model.generate(
            input_ids=batch.input_ids[:, :prompt],
            attention_mask=torch.ones(1, prompt, dtype=torch.int64),
            pixel_values=pixels,
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=-1,
            pad_token_id=2,
        )[0, prompt:].tolist()

    use_attention(model, "loop")
    ours = Objective(model, logits_chunk=64, neftune=0.0)
    ids = batch.input_ids[:, :prompt]
    for token in said:
        grown = dataclasses.replace(
            batch, input_ids=ids, position_ids=torch.arange(ids.shape[1])[None],
            seq_lengths=[ids.shape[1]],
        )  # fmt: skip
        with torch.no_grad():
            logits = model.lm_head(ours.hidden(grown))[-1]
        assert int(logits.argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_the_folder_names_what_it_has_seen(settings: Settings) -> None:
    folder = train(settings(steps=2))
    state = checkpoint.read_state(folder)
    assert state.mixtures == [{"name": "toy", "fingerprint": "toy-0123456789abcdef", "weight": 1.0}]
    assert state.position == 8
    card = (folder / "README.md").read_text()
    for part in ("toy-0123456789abcdef", "CC0-1.0", "held_out/component/images", "2 steps"):
        assert part in card
    video = json.loads((folder / "video_preprocessor_config.json").read_text())
    assert video["size"] == {"longest_edge": 64}
    assert json.loads((folder / "processor_config.json").read_text())["image_seq_len"] == 16


def test_spelled_out_positions_are_spelled_out_by_the_saved_tokenizer(
    settings: Settings, tmp_path: Path
) -> None:
    encoding = dataclasses.replace(ENCODING, position_tokens="string")
    data = toy(tmp_path / "spelled", count=12, encoding=encoding)
    first = train(settings(steps=1, data=data))
    saved = AutoTokenizer.from_pretrained(str(first))
    trained = load_tokenizer("builtin")
    text = "<fake_token_around_image><row_1_col_2><image>"
    spelled = plain_tokenizer("builtin").encode("<row_1_col_2>", add_special_tokens=False).ids
    ids = saved(text, add_special_tokens=False)["input_ids"]
    assert ids[1:-1] == spelled
    assert [ids[0], ids[-1]] == [
        trained.convert_tokens_to_ids(mark) for mark in ("<fake_token_around_image>", "<image>")
    ]
    # The next stage has the same vocabulary.
    train(settings(steps=1, data=data, init=first, output=tmp_path / "next"))


def test_a_card_that_is_silent_about_prompts_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(settings(steps=1))
    told = unsaid(checkpoint.encoding_of(checkpoint.read_state(folder)))
    assert told
    assert all(words in (folder / "README.md").read_text() for words in told)
    monkeypatch.setattr("trainer.monitoring.card._what_no_file_says", lambda mixtures: [])
    with pytest.raises(ValueError, match=r"step-000002: not saved.* the card does not say 'Train"):
        train(settings(steps=2, output=folder.parent.parent / "silent"))
    assert not checkpoint.checkpoint_folders(folder.parent.parent / "silent")


def held_out(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["held_out"]["all"] for line in lines if "held_out" in line}


def worsening(settings: Settings, **changes: object) -> Config:
    """Six steps whose rates grow until they do harm: held-out losses fall, then rise."""
    rates = {f"optim__lr__{tower}": 1.0 for tower in ("vision", "connector", "language")}
    grows = {"steps": 6, "save_every": 1, "evaluate_every": 1, "optim__schedule": "constant",
             "optim__warmup": 20, **rates}  # fmt: skip
    return settings(**grows | changes)


def test_the_newest_and_the_best_are_kept_also_where_losses_rise_again(settings: Settings) -> None:
    last = train(worsening(settings, keep_last=2))
    run, held = last.parent, held_out(last.parent)
    best = min(held, key=lambda step: held[step])
    assert sorted(held) == [1, 2, 3, 4, 5, 6]
    assert 1 < best < 5  # they fell, and rose for longer than `keep_last` keeps
    kept = {folder.name for folder in checkpoint.checkpoint_folders(run)}
    assert kept == {"step-000005", "step-000006", f"step-{best:06d}"}
    assert (run / "best").readlink() == Path(f"step-{best:06d}")
    for folder in checkpoint.checkpoint_folders(run):
        state = checkpoint.read_state(folder)
        assert (state.measured_at, state.metrics["held_out/all"]) == (state.step, held[state.step])
        assert state.best["value"] == min(held[step] for step in held if step <= state.step)
        assert f"| held_out/all | {held[state.step]:.4f} |" in (folder / "README.md").read_text()


def test_a_checkpoint_states_only_what_was_measured_on_it(settings: Settings) -> None:
    run = train(settings(steps=5, save_every=1, evaluate_every=2, keep_last=0)).parent
    states = [checkpoint.read_state(folder) for folder in checkpoint.checkpoint_folders(run)]
    assert [state.step for state in states] == [1, 2, 3, 4, 5]
    assert [state.step for state in states if state.metrics] == [2, 4, 5]
    assert "Nothing was measured" in (run / "step-000003" / "README.md").read_text()


def test_an_evaluation_implies_a_save(settings: Settings) -> None:
    run = train(settings(steps=5, save_every=1000, evaluate_every=2, keep_last=0)).parent
    assert [folder.name[-1] for folder in checkpoint.checkpoint_folders(run)] == ["2", "4", "5"]


def test_what_fails_after_the_last_step_loses_no_step(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights are kept before they are measured; the next start measures them."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("evaluation broke")

    through = settings(steps=2)
    monkeypatch.setattr(measure, "ranked", broken)
    with pytest.raises(RuntimeError, match="evaluation broke"):
        train(through)
    monkeypatch.undo()
    run = Path(through.output)
    (folder,) = checkpoint.checkpoint_folders(run)
    assert checkpoint.read_state(folder).measured_at == -1
    assert train(through) == folder
    state = checkpoint.read_state(folder)
    assert (state.step, state.measured_at, state.best["step"]) == (2, 2, 2)
    assert held_out(run) == {2: state.metrics["held_out/all"]}
    assert "nothing to do" not in capsys.readouterr().out
    assert train(through) == folder
    assert "nothing to do" in capsys.readouterr().out


def test_the_newest_is_the_one_of_the_highest_number(tmp_path: Path) -> None:
    for name in ("step-999999", "step-1000000", "step-000003", "step-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    found = [folder.name for folder in checkpoint.checkpoint_folders(tmp_path)]
    assert found == ["step-000003", "step-999999", "step-1000000"]


def test_a_stage_starts_from_a_checkpoint_and_remembers(settings: Settings, tmp_path: Path) -> None:
    first = train(settings(steps=3, optim__freeze="[vision, language]"))
    still = {f"optim__lr__{tower}": 0 for tower in ("vision", "connector", "language")}
    # A stage may also stretch the context.
    longer = {"rope_theta": 273768.0, "max_position_embeddings": 16384}
    changes = still | {f"model__language__{key}": value for key, value in longer.items()}
    second = train(settings(steps=1, output=tmp_path / "next", init=first.parent, **changes))
    text = json.loads((second / "config.json").read_text())["text_config"]
    assert text["max_position_embeddings"] == 16384
    assert text["rope_parameters"]["rope_theta"] == 273768.0
    ours, theirs = checkpoint.load_weights(first), checkpoint.load_weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (past,) = checkpoint.read_state(second).history
    assert (past["step"], past["mixtures"][0]["name"]) == (3, "toy")
    assert "Stage 2" in (second / "README.md").read_text()


def test_frozen_towers_are_untouched_by_training(settings: Settings, tmp_path: Path) -> None:
    start_ = train(settings(steps=1, optim__lr__vision=0, optim__lr__connector=0,
                            optim__lr__language=0))  # fmt: skip
    end = train(settings(steps=2, output=tmp_path / "b", optim__freeze="[vision, language]"))
    before, after = checkpoint.load_weights(start_), checkpoint.load_weights(end)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"model.connector.modality_projection.proj.weight"}


def test_another_models_checkpoint_is_refused(settings: Settings, tmp_path: Path) -> None:
    first = train(settings(steps=1))
    with pytest.raises(ValueError, match=r"model\.language\.num_hidden_layers is 2 .* 1 in config"):
        train(settings(init=first, output=tmp_path / "x", model__language__num_hidden_layers=1))
    with pytest.raises(FileNotFoundError, match="neither a checkpoint"):
        train(settings(init=tmp_path / "none", output=tmp_path / "y"))


@pytest.mark.parametrize(
    ("dora", "quantize"),
    [
        (True, "nf4"),
        (False, ""),
        pytest.param(True, "", marks=pytest.mark.slow),
        pytest.param(False, "nf4", marks=pytest.mark.slow),
    ],
)
def test_adapters_train_and_are_merged(
    settings: Settings, tmp_path: Path, dora: bool, quantize: str
) -> None:
    base = train(settings(steps=1))
    changes = {"init": base, "steps": 3, "adapter__rank": 4, "adapter__dora": dora,
               "adapter__quantize": quantize}  # fmt: skip
    through = train(settings(**changes, output=tmp_path / "through"))
    train(settings(**changes, output=tmp_path / "halves", stop_at=2))
    same(through, train(settings(**changes, output=tmp_path / "halves")))
    before, after = checkpoint.load_weights(base), checkpoint.load_weights(through)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        n
        for n in before
        if n.endswith("proj.weight")
        or (".fc" in n and "weight" in n)
        or any(re.fullmatch(names, n) for names in adapter.BESIDE.values())
    }


def test_a_checkpoint_of_no_ours_has_no_state(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no trainer/state\.json"):
        checkpoint.read_state(tmp_path)
