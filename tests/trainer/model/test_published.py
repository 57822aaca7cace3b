"""A published SmolVLM is a start: read as `transformers` reads it, or refused by the field."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hub_routes import Commit, Repository
from tests.hub_server import Hub
from tests.processes import Nursery
from tests.trainer.conftest import SMALL, TRAIN
from tests.trainer.published import publish
from tokenization.vocab import load_tokenizer
from trainer import checkpoint, config_file
from trainer.__main__ import main
from trainer.config import Config, Rates
from trainer.config_file import load
from trainer.data.shards import open_mixture
from trainer.loop import train
from trainer.model.published import check_init, model_of

ROOT = Path(__file__).parents[3]
SIZES = {"model.vision.num_hidden_layers": "12", "model.tie_word_embeddings": "false"}
"""Twelve layers are the class default, which published files leave out; they are untied."""
RUN = {key: value for key, value in SMALL.items() if not key.startswith("model.")}
STILL = {"optim.lr": "0", "steps": "1", "dtype": "float32", "batch_rows": "2", "workers": "1"}


@pytest.fixture(scope="session")
def trained(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours with published proportions in small."""
    output = tmp_path_factory.mktemp("trained") / "run"
    pairs = SMALL | SIZES | {"data": str(mixture), "output": str(output), "steps": "1"}
    return train(load("tiny", pairs | {"evaluate_rows": "1"}))


@pytest.fixture
def published(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    made: list[Path] = []

    def make(**changes: Any) -> Path:
        made.append(publish(trained, tmp_path / f"published-{len(made)}", **changes))
        return made[-1]

    return make


def starting(init: Path | str, mixture: Path, name: str = "", **more: str) -> Config:
    pairs = RUN | STILL | {"data": str(mixture), "init": str(init)}
    pairs |= {key.replace("__", "."): value for key, value in more.items()}
    return load(name, pairs, model_of=model_of)


def notes(config_: Config) -> list[str]:
    mixtures = [open_mixture(folder) for folder in config_.data]
    return check_init(config_, mixtures, load_tokenizer("builtin"))


@pytest.mark.parametrize(
    "layout", [{"shards": 3}, {"dtype": torch.float16}, {"model_type": "idefics3"}]
)
def test_its_weights_and_sizes_are_what_training_starts_from(
    published: Callable[..., Path], trained: Path, mixture: Path, tmp_path: Path,
    layout: dict[str, Any],
) -> None:  # fmt: skip
    from transformers import AutoModelForImageTextToText

    folder = published(**layout)
    last = train(starting(folder, mixture, output=str(tmp_path / "run")))
    theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    ours = checkpoint.load_weights(last)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours[name], weight), name
    before, after = (json.loads((each / "config.json").read_text()) for each in (trained, last))
    for part in ("vision_config", "text_config"):
        assert after[part] == before[part]
    state = checkpoint.read_state(last)
    assert (state.base_license, state.history) == ("apache-2.0", [])
    assert "license: apache-2.0" in (last / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "field", "theirs", "ours"),
    [
        ({"tie_word_embeddings": True}, r"model\.tie_word_embeddings", "True", "False"),
        ({"text_config__rope_theta": 130000}, r"model\.language\.rope_theta", "130000.0", "10000"),
        ({"text_config__num_attention_heads": 8}, r"model\.language\.num_attention", "8", "4"),
        ({"text_config__num_key_value_heads": 4}, r"model\.language\.num_key_value", "4", "2"),
        ({"text_config__rms_norm_eps": 1e-6}, r"model\.language\.rms_norm_eps", "1e-06", "1e-05"),
        ({"text_config__head_dim": 16}, r"model\.language\.head_dim", "16", "8"),
        ({"text_config__vocab_size": 49155}, r"model\.language\.vocab_size", "49155", "49280"),
        ({"vision_config__num_attention_heads": 4}, r"model\.vision\.num_attention", "4", "2"),
        ({"vision_config__intermediate_size": 3072}, r"model\.vision\.intermediate", "3072", "48"),
        ({"scale_factor": 4}, r"model\.scale_factor", "4", "2"),
        ({"vision_config__layer_norm_eps": 1e-5}, r"vision_config\.layer_norm_eps", "1e-05", ""),
        ({"vision_config__hidden_act": "gelu"}, r"vision_config\.hidden_act", "'gelu'", ""),
        ({"text_config__hidden_act": "gelu"}, r"text_config\.hidden_act", "'gelu'", "'silu'"),
        ({"text_config__attention_bias": True}, r"text_config\.attention_bias", "True", "False"),
        ({"text_config__rope_scaling": {"rope_type": "linear", "factor": 2.0}},
         r"text_config\.rope_parameters", "linear", "default"),
        ({"image_token_id": 5}, "image_token_id", "5", "49190"),
    ],
)  # fmt: skip
def test_another_meaning_is_refused_by_the_field(
    published: Callable[..., Path], mixture: Path, changes: dict[str, Any], field: str,
    theirs: str, ours: str,
) -> None:  # fmt: skip
    sizes = {key: value for key, value in (SMALL | SIZES).items() if key.startswith("model.")}
    config_ = starting(published(**changes), mixture, "tiny", **sizes)
    with pytest.raises(ValueError, match=rf"init=.*(.|\n)*{field}.*{theirs}.*{ours}"):
        notes(config_)


def test_the_same_meaning_needs_no_word(published: Callable[..., Path], mixture: Path) -> None:
    sizes = {key: value for key, value in (SMALL | SIZES).items() if key.startswith("model.")}
    assert notes(starting(published(), mixture, "tiny", **sizes)) == []


def test_a_stretch_of_the_context_is_hers_to_write(
    published: Callable[..., Path], mixture: Path, tmp_path: Path
) -> None:
    folder = published()
    longer = {"model__language__rope_theta": "273768", "model__language__max_position_embeddings":
              "16384"}  # fmt: skip
    line = ("context  stretched as you wrote: rope_theta 10,000 -> 273,768, "
            "max_position_embeddings 4,096 -> 16,384")  # fmt: skip
    assert notes(starting(folder, mixture, **longer)) == [line]
    hers = tmp_path / "hers.yaml"
    hers.write_text("model: {language: {max_position_embeddings: 8192}}\n")
    with pytest.raises(ValueError, match=r"model\.vision\.hidden_size is 32 in the checkpoint"):
        notes(starting(folder, mixture, str(hers)))  # a `model:` says all of its sizes
    with pytest.raises(ValueError, match=r"rope_theta is 10000\.0 in the checkpoint, 5000\.0"):
        notes(starting(folder, mixture, model__language__rope_theta="5000"))  # no stretch


def test_what_a_shipped_config_writes_is_not_hers(
    published: Callable[..., Path], mixture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {key: value for key, value in (SMALL | SIZES).items() if key.startswith("model.")}
    monkeypatch.setattr(config_file, "CONFIGS", tmp_path)
    shipped = (ROOT / "trainer" / "tiny.yaml").read_text().replace("10000.0", "273768.0")
    (tmp_path / "stretched.yaml").write_text(shipped)
    config_ = starting(published(), mixture, "stretched", **sizes)
    with pytest.raises(ValueError, match=r"rope_theta is 10000\.0 in the checkpoint, 273768\.0"):
        notes(config_)
    (line,) = notes(starting(published(), mixture, "stretched",
                             model__language__rope_theta="273768", **sizes))  # fmt: skip
    assert "rope_theta 10,000 -> 273,768" in line


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"size": {"longest_edge": 256}},
         r"encoding\.longest_edge is 256 in the checkpoint's processor, 128 in the mixture toy"),
        ("preprocessor_config.json", {"max_image_size": {"longest_edge": 32}}, "crop_size is 32"),
        ("preprocessor_config.json", {"do_image_splitting": False}, "split_images is False"),
        ("processor_config.json", {"image_seq_len": 81}, "tokens_per_crop is 81"),
        ("tokenizer.json", {"added_tokens": []}, r"position_tokens is 'string'(.|\n)*tokenizer"),
    ],
)  # fmt: skip
def test_shards_that_it_does_not_read_are_refused_before_any_row(
    published: Callable[..., Path], mixture: Path, file: str, change: dict[str, Any], message: str
) -> None:
    folder = published()
    written = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(written | change))
    (folder / "model.safetensors").unlink()  # nor are the weights read
    config_ = starting(folder, mixture)
    with pytest.raises(ValueError, match=message) as error:
        notes(config_)
    assert f"encoding: {{like: {folder}}}" in str(error.value)
    if "longest_edge" in message:
        assert notes(starting(folder, mixture, init_may_differ="[longest_edge]")) == []


def test_weights_of_an_untied_model_are_not_tied(
    published: Callable[..., Path], mixture: Path, tmp_path: Path
) -> None:
    config_ = starting(published(tie_word_embeddings=True), mixture, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"lm_head\.weight is not model\.text_model\.embed_tokens"):
        train(config_)


def test_a_hub_id_with_its_revision_is_fetched(
    published: Callable[..., Path], mixture: Path, tmp_path: Path
) -> None:
    """By the unmodified client, from a hub on loopback; the config is the checkpoint's."""
    right, wrong = published(), published(text_config__rms_norm_eps=1e-6)
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    pairs = RUN | STILL | {"data": str(mixture), "output": str(tmp_path / "run")}
    words = [f"{key}={value}" for key, value in pairs.items()]
    with Hub() as hub:
        commits = {
            branch: [Commit(f"{number}" * 40, branch, {
                path.name: hub.put_blob(path.read_bytes()) for path in folder.iterdir()
            })]
            for number, (branch, folder) in enumerate((("main", wrong), ("v1", right)), 1)
        }  # fmt: skip
        hub.repositories["model", "org/smol"] = Repository("model", False, commits)

        with Nursery(TRAIN, environment | {"HF_ENDPOINT": hub.url}) as client:
            done = client.run("-m", "trainer", *words, "init=org/smol@v1")
            missing = client.run("-m", "trainer", *words, "init=org/nothing")
        assert done.returncode == 0, done.stderr
        assert not hub.count("GET", "onnx")
    assert "model    smol: " in done.stdout
    folder = tmp_path / "run" / "step-000001"
    written = json.loads((folder / "config.json").read_text())
    assert written["text_config"]["rms_norm_eps"] == 1e-5
    assert "base_model:\n- org/smol\n" in (folder / "README.md").read_text()
    assert missing.returncode == 2
    assert "init=org/nothing: no such folder here, and the hub gave no model" in missing.stderr


def test_no_start_at_all_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=out/x"]) == 2
    assert "Expected config=tiny or config=FILE.yaml, or init=CHECKPOINT" in capsys.readouterr().err


def test_one_number_is_the_rate_of_all_towers(tmp_path: Path) -> None:
    for config_ in (
        load("tiny", {"optim.lr": "2e-4"}),
        load("tiny", {"optim": "{lr: 2e-4}"}),
        load("tiny", {"optim": '{"lr": 0.0002}'}),
        load("tiny", {"optim.lr": "1e-3", "optim.lr.vision": "2e-4", "optim.lr.language": "2e-4",
                      "optim.lr.connector": "2e-4"}),
    ):  # fmt: skip
        assert config_.optim.lr == Rates(vision=2e-4, connector=2e-4, language=2e-4)
    (tmp_path / "mine.yaml").write_text("optim: {lr: 3e-4, clip: 2}\n")
    mine = load(str(tmp_path / "mine.yaml"), {})
    assert (mine.optim.lr.vision, mine.optim.clip) == (3e-4, 2.0)
    assert load("tiny", {"optim.lr.vision": "1"}).optim.lr.connector == 5e-3
    nested = load(
        "tiny", {"model": "{language: {rope_theta: 2e5}}", "gradient_checkpointing": "true"}
    )
    assert nested.written_by_user == ["model.language.rope_theta"]
    assert nested.gradient_checkpointing == "both"


def test_a_config_of_the_checkpoints_sizes_says_the_rest(
    published: Callable[..., Path], mixture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = published()
    assert starting(folder, mixture).save_dtype == "float32"
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    sizes = {
        "vision": {"hidden_size": 32, "num_hidden_layers": 12},
        "language": {"hidden_size": 32},
    }
    (shipped / "small.yaml").write_text(json.dumps({"model": sizes, "save_dtype": "bfloat16"}))
    monkeypatch.setattr(config_file, "CONFIGS", shipped)
    found = starting(folder, mixture)
    assert (found.save_dtype, found.name) == ("bfloat16", folder.name)
    assert found.model.language.intermediate_size == 64
