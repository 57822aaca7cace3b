"""What a published checkpoint's processor says is an encoding."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from mixtures.config import load
from tokenization.published import encoding_of, is_hub_id, split_revision
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
