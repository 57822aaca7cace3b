"""Backbones keep their weights and their words when they become a SmolVLM."""

from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.shards import ENCODING
from tokenization.vocab import load_tokenizer
from trainer import checkpoint
from trainer.loop import train
from trainer.model import graft
from trainer.model.initial import initial_model
from trainer.model.smolvlm import random_model

KNOWN = 49_152
"""Ids of SmolLM2; SmolVLM adds 128."""


@pytest.fixture
def backbones(tmp_path: Path) -> tuple[Path, Path]:
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    torch.manual_seed(1)
    vision = SiglipVisionModel(
        SiglipVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=48, image_size=64, patch_size=8)
    )  # fmt: skip
    language = LlamaForCausalLM(
        LlamaConfig(vocab_size=KNOWN, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5,
                    max_position_embeddings=4096, tie_word_embeddings=True, initializer_range=0.3)
    )  # fmt: skip
    folders = tmp_path / "vision", tmp_path / "language"
    vision.save_pretrained(folders[0])
    language.save_pretrained(folders[1])
    load_tokenizer(ENCODING.tokenizer).save_pretrained(str(folders[1]))
    return folders


@pytest.mark.parametrize("tied", [True, False])
def test_text_means_what_it_meant_before(
    settings: Settings, backbones: tuple[Path, Path], tied: bool
) -> None:
    from transformers import LlamaForCausalLM

    config = settings(
        model__vision__pretrained=backbones[0],
        model__language__pretrained=backbones[1],
        model__tie_word_embeddings=tied,
    ).model
    tokenizer = load_tokenizer("builtin")
    model = random_model(config, tokenizer, seed=0).eval()
    graft.graft(model, config, tokenizer, seed=0)
    before = LlamaForCausalLM.from_pretrained(backbones[1]).eval()
    ids = torch.tensor([tokenizer.encode("The quick brown fox counts: 1, 2, 3.")])
    with torch.no_grad():
        ours = model(input_ids=ids, use_cache=False).logits[..., :KNOWN]
        theirs = before(input_ids=ids, use_cache=False).logits
        assert torch.allclose(ours, theirs, atol=1e-5)
        model.model.text_model.rotary_emb.inv_freq /= 2  # a changed base is seen
        assert not torch.allclose(model(input_ids=ids, use_cache=False).logits[..., :KNOWN], theirs)


def test_new_rows_have_the_mean_and_spread_of_the_old_ones() -> None:
    generator = torch.Generator().manual_seed(5)
    spread = torch.linspace(0.1, 3, 16)
    rows = torch.randn(5000, 16, generator=generator) * spread + torch.arange(16)
    matrix = torch.zeros(9000, 16)
    graft.put_rows(matrix, rows, "here", seed=1)
    assert torch.equal(matrix[:5000], rows)
    new = matrix[5000:]
    assert torch.allclose(new.mean(0), rows.mean(0), atol=0.2)
    assert torch.allclose(new.std(0) / rows.std(0), torch.ones(16), atol=0.05)
    assert len(new.unique(dim=0)) == 4000


def test_the_encoder_is_taken_from_a_siglip_or_a_smolvlm(
    settings: Settings, backbones: tuple[Path, Path], tmp_path: Path
) -> None:
    first = train(
        settings(steps=1, model__vision__pretrained=backbones[0], optim__freeze="[vision]")
    )
    again = train(settings(steps=1, model__vision__pretrained=first, optim__freeze="[vision]",
                           output=tmp_path / "again"))  # fmt: skip
    from safetensors.torch import load_file

    siglip = load_file(backbones[0] / "model.safetensors")
    for folder in (first, again):
        found = checkpoint.load_weights(folder)
        for name, weight in siglip.items():
            short = name.removeprefix("vision_model.")
            if not short.startswith("head."):
                assert torch.equal(found[f"model.vision_model.{short}"], weight)


def test_backbones_that_do_not_fit_are_refused(
    settings: Settings, backbones: tuple[Path, Path]
) -> None:
    vision, language = backbones
    with pytest.raises(
        ValueError, match=r"model\.vision\.pretrained=.*is \(32, 3, 8, 8\) there and"
    ):
        train(settings(model__vision__pretrained=vision, model__vision__hidden_size=64))
    with pytest.raises(ValueError, match=r"embeddings are \(49152, 32\) there and \(49280, 64\)"):
        graft.put_rows(torch.zeros(49280, 64), torch.zeros(49152, 32), "x", seed=0)
    with pytest.raises(
        ValueError, match=r"model\.language\.pretrained=.*Expected a hub id or a folder"
    ):
        train(settings(model__language__pretrained=language.parent / "nothing"))


def test_a_backbone_with_other_ids_is_refused(backbones: tuple[Path, Path]) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"the": 0, "cat": 1}))
    )
    with pytest.raises(ValueError, match="tokens have other ids there"):
        graft.refuse_other_ids(str(backbones[1]), other, "here")


@pytest.mark.parametrize("quantize", ["", "nf4"])
def test_adapters_train_the_tokens_that_a_graft_added(
    settings: Settings, backbones: tuple[Path, Path], quantize: str
) -> None:
    """128 rows begin at random: those of the batch move, in embeddings and head alike."""
    config = settings(
        steps=2, model__language__pretrained=backbones[1], model__tie_word_embeddings=False,
        adapter__rank=2, adapter__quantize=quantize,
    )  # fmt: skip
    start = initial_model(config, load_tokenizer("builtin"), resume=None).state_dict()
    end = checkpoint.load_weights(train(config))
    names = {"embeddings": "model.text_model.embed_tokens.weight", "head": "lm_head.weight"}
    added = ["<end_of_utterance>", "<global-img>", "<row_1_col_1>"]
    ids = load_tokenizer("builtin").convert_tokens_to_ids(added)
    for name in names.values():
        for token in ids:
            assert token >= KNOWN
            assert not torch.equal(end[name][token], start[name][token]), (name, token)
    norm = "model.text_model.norm.weight"
    assert not torch.equal(end[norm], start[norm])
