"""Two processes on gloo train what one process trains."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.evaluation.conftest import write_tsv
from trainer import checkpoint, optim
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_file import to_yaml
from trainer.data.shards import open_mixtures
from trainer.loop import train
from trainer.model.initial import initial_model, tokenizer_of


def on_ranks(module: str, *arguments: str, ranks: int = 2) -> str:
    """What a module prints under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}",
               "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
               "-m", module, *arguments]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def torchrun(config: Config, folder: Path, *, ranks: int = 2) -> Path:
    """The last checkpoint of a run under torchrun."""
    file = folder / f"{Path(config.output).name}.yaml"
    file.write_text(to_yaml(config))
    said = on_ranks("trainer", f"config={file}", ranks=ranks)
    assert said.count("checkpoint ") == 1  # one process speaks
    return checkpoint.checkpoint_folders(Path(config.output))[-1]


def logged(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def close(first: Path, second: Path) -> None:
    """The runs are the same but for the order of float32 sums."""
    for ours, theirs in zip(logged(first.parent), logged(second.parent), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["learned_tokens"] == theirs["learned_tokens"]
        assert ours["tokens"] == theirs["tokens"]
        assert ours["losses"].keys() == theirs["losses"].keys()
    one, two = checkpoint.load_weights(first), checkpoint.load_weights(second)
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name] - two[name]).abs().max() < 2e-3, name
    held = [checkpoint.read_state(folder).metrics["held_out/all"] for folder in (first, second)]
    assert held[0] == pytest.approx(held[1], rel=1e-3)


# Some micro-batches of these ranks have no image and others do.
CHANGES = {"steps": 4, "micro_rows": 1, "evaluate_rows": 3}


DORA = {"adapter__rank": 4}
LORA = {"adapter__rank": 4, "adapter__dora": False, "optim__freeze": "[vision]"}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param("ddp", {}, id="ddp"),
        pytest.param("fsdp", {"reshard": "never"}, id="fsdp", marks=pytest.mark.slow),
        pytest.param("fsdp", {"reshard": "always"}, id="fsdp-resharded", marks=pytest.mark.slow),
        pytest.param("fsdp", DORA, id="fsdp-dora", marks=pytest.mark.slow),
        pytest.param("fsdp", LORA, id="fsdp-lora-frozen-vision", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_train_what_one_trains(
    settings: Settings, tmp_path: Path, kind: str, changes: dict[str, object]
) -> None:
    changes = {**CHANGES, **changes}
    alone = train(settings(output=tmp_path / "alone", **changes))
    together = torchrun(settings(output=tmp_path / kind, parallel=kind, **changes), tmp_path)
    close(alone, together)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "resumed"),
    [
        pytest.param({"model__tie_word_embeddings": False}, False, id="untied"),
        pytest.param({}, True, id="tied-resumed"),
        pytest.param(DORA | {"optim__freeze": "[vision]"}, True, id="dora-resumed"),
    ],
)
def test_ranks_start_from_shards_of_what_one_process_would_start_from(
    settings: Settings, tmp_path: Path, changes: dict[str, object], resumed: bool
) -> None:
    """FSDP: the first process alone makes the model, the others get no more than their share."""
    resume = train(settings(steps=1, evaluate_rows=0, **changes)) if resumed else None
    config = settings(parallel="fsdp", dtype="bfloat16", **changes)
    file, out = tmp_path / "start.yaml", tmp_path / "started.pt"
    file.write_text(to_yaml(config))
    on_ranks("tests.trainer.started", str(file), str(resume or "-"), str(out))
    found = torch.load(out, weights_only=False)
    alone = initial_model(config, tokenizer_of(open_mixtures(config)), resume=resume)
    expected = dict(alone.named_parameters())
    assert found["weights"].keys() == expected.keys()
    for name, weight in found["weights"].items():
        assert torch.equal(weight, expected[name]), name
    for buffers in found["buffers"]:
        assert buffers.keys() == dict(alone.named_buffers()).keys()
        assert all(torch.equal(buffers[n], b) for n, b in alone.named_buffers())
    assert found["tied"] == config.model.tie_word_embeddings
    assert found["trained"] == [n for n, p in expected.items() if p.requires_grad]
    total = sum(p.numel() for p in expected.values())
    (made, first), (made_there, second) = found["counts"]
    assert (made, made_there) == (1, 0)
    assert first + second == total
    assert 0.4 < second / total < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("reshard", ["never", "always"])
def test_sharded_weights_answer_and_are_selected_and_go_on_training(
    settings: Settings, tmp_path: Path, reshard: str
) -> None:
    """Generation between the steps: each rank answers its share with all weights."""
    rows = [{"index": str(n), "question": f"{n}?", "answer": "Yes"} for n in range(3)]
    bench = write_tsv(tmp_path / "bench.tsv", rows)
    changes = {**CHANGES, "page_samples": 2, "save_every": 1, "evaluate_every": 2,
               "select": f"{{words: {{file: {bench}}}}}"}  # fmt: skip
    alone = train(settings(output=tmp_path / "alone", **changes))
    sharded = settings(output=tmp_path / "fsdp", parallel="fsdp", reshard=reshard, **changes)
    together = torchrun(sharded, tmp_path)
    close(alone, together)
    written = [json.loads(line) for line in (together.parent / "log.jsonl").open()]
    assert [line["step"] for line in written if "said" in line] == [1, 2, 3, 4]
    assert all(len(line["said"]) == 2 for line in written if "said" in line)
    scores = [line["metrics"]["selected"] for line in written if "metrics" in line]
    assert len(scores) == 2
    assert (together.parent / "run.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # Ray's own processes want the cores as well
def test_ray_trains_what_torchrun_trains(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    together = torchrun(settings(output=tmp_path / "torchrun", **CHANGES), tmp_path)
    file = tmp_path / "ray.yaml"
    file.write_text(to_yaml(settings(output=tmp_path / "ray", **CHANGES)))
    command = [f"config={file}", "ray=local", "ranks=2"]
    assert main(command) == 0
    close(together, tmp_path / "ray" / "step-000004")
    assert f"checkpoint {tmp_path}/ray/step-000004" in capfd.readouterr().out
    assert main([f"config={file}", "ray=auto", "ranks=2"]) == 2
    assert "ray=auto: no Ray cluster answers there" in capfd.readouterr().err
    assert main([*command, "batch_rows=3"]) == 2  # told by a worker, as one message
    assert re.search(r"batch_rows: 4 -> 3\n.*Use these settings again", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ranks=2"], "need ray=auto (the running cluster)"),
        (["ray=local"], "ray=local: set ranks=N"),
        (["ray=local", "ranks=two"], "ranks=two: expected a whole number"),
    ],
)
def test_mistakes_about_the_cluster_are_one_message(
    settings: Settings, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [f"{key}={value}" for key, value in settings.pairs.items()]
    assert main(["config=tiny", *pairs, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_sharded_run_is_resumed_alone(settings: Settings, tmp_path: Path) -> None:
    """Half on two ranks with FSDP, the rest in one process: the same run."""
    alone = train(settings(output=tmp_path / "alone", **CHANGES))
    config = settings(output=tmp_path / "moved", parallel="fsdp", stop_at=2, **CHANGES)
    half = torchrun(config, tmp_path)
    assert (half / "trainer" / "optimizer").is_dir()  # sharded
    rest = train(settings(output=tmp_path / "moved", **CHANGES))
    assert checkpoint.read_state(rest).step == 4
    one, two = checkpoint.load_weights(alone), checkpoint.load_weights(rest)
    for name in one:
        assert (one[name] - two[name]).abs().max() < 2e-3, name


def test_the_order_of_ranks_is_by_cost_not_by_chance(settings: Settings) -> None:
    from trainer.data.batches import Loader
    from trainer.data.shards import SIZES
    from trainer.model.smolvlm import flops

    config = settings(batch_rows=8, micro_rows=1)
    cost = partial(flops, config.model)
    sums = []
    for rank in range(2):
        loader = Loader(config, image_token=49190, rank=rank, ranks=2, cost=cost)
        _, groups = loader.plan(0)
        rows = [loader.splits[m].sizes(n) for group in groups for m, n in group]
        sums.append(sum(cost(**dict(zip(SIZES, row, strict=True))) for row in rows))
    assert abs(sums[0] - sums[1]) / max(sums) < 0.15


FROZEN = [(), ("vision",), ("vision", "language"), ("connector",), ("language",),
          ("vision", "connector"), ("connector", "language")]  # fmt: skip


@pytest.mark.parametrize("freeze", FROZEN, ids=lambda names: "+".join(names) or "nothing")
def test_modelled_flops_are_those_that_pytorch_counts(
    settings: Settings, freeze: tuple[str, ...]
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from tests.trainer.model.test_smolvlm import SAMPLES, batch_of, objective
    from trainer.model.smolvlm import flops, passes

    config = settings()
    ours = objective("loop", dtype=torch.float32)
    optim.freeze(ours.model, freeze)
    batch = batch_of(SAMPLES)
    with FlopCounterMode(display=False) as counter:
        ours(batch)[0].backward()
    work = passes(freeze, adapted=False)
    modelled = flops(config.model, **batch.sizes, passes=work)
    assert modelled == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_adapters_spare_the_gradients_of_the_weights_beside_them() -> None:
    from trainer.model.smolvlm import passes

    assert passes([], adapted=False) == {"vision": 3, "connector": 3, "language": 3}
    assert passes([], adapted=True) == {"vision": 2, "connector": 3, "language": 2}
    assert passes(["vision"], adapted=True) == {"vision": 1, "connector": 2, "language": 2}
    assert passes(["vision", "language"], adapted=False) == {
        "vision": 1, "connector": 2, "language": 2,
    }  # fmt: skip
