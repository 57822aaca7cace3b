"""What a published checkpoint's processor says is an encoding."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from mixtures.mixture_file import load
from tokenization.published import CONFIGS, WEIGHTS, encoding_of, fetch, is_hub_id, split_revision
from tokenization.schema import Encoding
from tokenization.vocab import BUILTIN

IMAGES = {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384},
          "do_image_splitting": True}  # fmt: skip
CONFIG = {"scale_factor": 3, "text_config": {"max_position_embeddings": 8192},
          "vision_config": {"image_size": 384, "patch_size": 14}}  # fmt: skip
LIKE_2B = {"crop_size": 384, "longest_edge": 1536, "tokens_per_crop": 81, "split_images": True,
           "seq_len": 8192}  # fmt: skip


def published(folder: Path, *, nested: bool = False, config: dict[str, Any] = CONFIG) -> Path:
    """SmolVLM2-2.2B's files, with the image processor in a file of its own or inside."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    processor: dict[str, Any] = {"image_seq_len": 81}
    if nested:
        processor = {"image_processor": IMAGES}
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "tokenizer.json").write_bytes(lzma.decompress(BUILTIN.read_bytes()))
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_an_encoding_is_taken_from_the_processor(tmp_path: Path, nested: bool) -> None:
    folder = published(tmp_path / "like", nested=nested)
    said = encoding_of(str(folder))
    assert said == {**LIKE_2B, "position_tokens": "learned", "tokenizer": str(folder)}


def test_a_short_context_makes_shorter_rows(tmp_path: Path) -> None:
    short = CONFIG | {"text_config": {"max_position_embeddings": 2048}}
    folder = published(tmp_path / "short", config=short)
    assert encoding_of(str(folder))["seq_len"] == 2048
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<image>"}]}))
    assert encoding_of(str(folder))["position_tokens"] == "string"


def test_a_mixture_is_encoded_like_a_checkpoint(tmp_path: Path) -> None:
    folder = published(tmp_path / "like")
    file = tmp_path / "mine.yaml"
    components = "components: {a: {source: messages, data: x.jsonl, ratio: 1.0}}\n"
    file.write_text(f"encoding: {{like: {folder}, seq_len: 4096}}\n{components}")
    resolved = load(str(file), encoding=Encoding, like=encoding_of).encoding
    assert (resolved.crop_size, resolved.tokens_per_crop, resolved.seq_len) == (384, 81, 4096)
    assert resolved.tokenizer == str(folder)
    file.write_text(f"encoding: {{crop_size: 64, max_crops: 9}}\n{components}")
    over = load(str(file), [f"encoding.like={folder}", "encoding.longest_edge=768"],
                encoding=Encoding, like=encoding_of).encoding  # fmt: skip
    assert (over.crop_size, over.longest_edge, over.max_crops) == (384, 768, 9)
    base = tmp_path / "over.yaml"
    base.write_text(f"base: {file}\nencoding: {{like: {folder}}}\n")
    assert load(str(base), encoding=Encoding, like=encoding_of).encoding.crop_size == 384


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", r"mine\.yaml: encoding\.like is \[1\], expected a hub id or the folder"),
        ("{folder}", r"mine\.yaml: encoding\.like=.*holds no preprocessor_config\.json"),
    ],
)
def test_no_checkpoint_is_refused(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"encoding: {{like: {value.replace('{folder}', str(tmp_path / 'empty'))}}}\n"
        "components: {a: {source: messages, data: x.jsonl, ratio: 1.0}}\n"
    )
    with pytest.raises(ValueError, match=message):
        load(str(file), encoding=Encoding, like=encoding_of)


def test_hub_ids_and_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("HuggingFaceTB/SmolVLM2-500M-Video-Instruct@main")
    assert split_revision("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
    assert split_revision("org/name") == ("org/name", None)
    for name in ("runs/mine/step-000001", "/org/name", "./org/name", "name", "../a/b"):
        assert not is_hub_id(name)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not is_hub_id("org/name")


def cached(home: Path, name: str = "org/smol", *, but: str = "") -> Path:
    """A checkpoint in the hub client's cache, as a download of `main` leaves it; its snapshot."""
    commit = "c" * 40
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    snapshot = published(folder / "snapshots" / commit)
    if but:
        (snapshot / but).unlink()
    return snapshot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a client that may not ask the hub (see tests/conftest.py)."""
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_a_cached_checkpoint_is_read_offline(home: Path) -> None:
    snapshot = cached(home)
    assert encoding_of("org/smol") == {
        **LIKE_2B,
        "position_tokens": "learned",
        "tokenizer": "org/smol",
    }
    (snapshot / "model.safetensors").write_bytes(b"")
    assert fetch("org/smol", files=(*CONFIGS, *WEIGHTS), where="init=org/smol") == snapshot


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_what_a_cached_checkpoint_lacks_is_named(home: Path, lost: str) -> None:
    snapshot = cached(home, but=lost)
    (snapshot / "processor_config.json").unlink()
    with pytest.raises(ValueError, match=rf"lacks .*{lost}.*hf download org/smol --include"):
        encoding_of("org/smol")


def test_weights_that_are_not_cached_are_named_one_by_one(home: Path) -> None:
    snapshot = cached(home)
    ask = {"files": (*CONFIGS, *WEIGHTS), "where": "init=org/smol"}
    with pytest.raises(ValueError, match=r"lacks model\.safetensors.*--include '\*\.safetensors'"):
        fetch("org/smol", **ask)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-1-of-2.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"lacks model-2-of-2\.safetensors\."):
        fetch("org/smol", **ask)
    with pytest.raises(ValueError, match=r"hf download org/smol --revision v2 --include"):
        fetch("org/smol@v2", **ask)


@pytest.mark.slow
def test_a_cached_tokenizer_loads_offline_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    from tokenization.vocab import load_tokenizer

    load_tokenizer("builtin").save_pretrained(cached(tmp_path))
    code = (
        "from tokenization.vocab import load_tokenizer as load\n"
        "print(len(load('org/smol')))\n"
        "try: load('org/none')\n"
        "except FileNotFoundError as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=True,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    ).stdout  # fmt: skip
    assert told.startswith("49280\n")
    assert "hf download org/none --include '*.json'" in told
