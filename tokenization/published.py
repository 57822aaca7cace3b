"""A published checkpoint: its folder on this machine, and how its processor encodes.

| from                             | to                               | by              |
|----------------------------------|----------------------------------|-----------------|
| hub id (`ORG/NAME@revision`)     | a folder with its files          | `fetch`         |
| a folder in transformers' layout | settings of an `Encoding`        | `encoding_like` |
| either                           | a mixture's `encoding: {like:}`  | `encoding_of`   |
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenization.schema import Encoding

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
"""`ORG/NAME`, and the branch, tag or commit where it is not `main`."""
CONFIGS = ("*.json", "*.jinja", "*.txt", "README.md")
"""What says how a model computes and encodes."""
WEIGHTS = ("*.safetensors",)


def split_revision(name: str) -> tuple[str, str | None]:
    """(`ORG/NAME`, revision) of a hub id; None: its main branch."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def is_hub_id(name: str) -> bool:
    """Reads as a hub id, and nothing of this name is here."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).exists()


def fetch(name: str, *, files: Sequence[str], where: str) -> Path:
    """The folder of a hub id with these files of its top level (patterns); ValueError if none.

    They come from the hub once and lie in its cache (HF_HOME) from then on; with HF_HUB_OFFLINE
    that is all that is looked at, and what it lacks is named.
    """
    from huggingface_hub import snapshot_download

    repository, revision = split_revision(name)
    way = offline_way(name, files)
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(files), ignore_patterns=["*/*"]
        )
    except OSError as error:
        raise ValueError(
            f"{where}: no such folder here, and the hub gave no model {repository}"
            f"{f' at revision {revision}' if revision else ''} ({_first_line(error)}).\n"
            "expected: a "
            "folder, or a hub id that can be reached and that you may read: ORG/NAME or "
            f"ORG/NAME@revision.{way}"
        ) from error
    if way and (lost := missing_files(Path(folder), weights="*.safetensors" in files)):
        raise ValueError(f"{where}: of {name} the cache {folder} lacks {', '.join(lost)}.{way}")
    return Path(folder)


def offline_way(name: str, files: Sequence[str] = ("*.json", "*.jinja", "*.txt")) -> str:
    """Where HF_HUB_OFFLINE is set, a sentence: the command that puts these files of the hub id into
    the client's cache; else nothing.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE or not is_hub_id(name):
        return ""
    repository, revision = split_revision(name)
    at = f" --revision {revision}" if revision else ""
    patterns = " ".join(f"--include '{pattern}'" for pattern in files)
    return (
        " HF_HUB_OFFLINE is set: fetch it on a machine with network: "
        f"hf download {repository}{at} {patterns}"
    )


def missing_files(folder: Path, *, weights: bool) -> list[str]:
    """Of what a published checkpoint has, what the folder lacks."""
    needed: list[tuple[str, ...]] = [("config.json",), ("tokenizer.json",)]
    needed += [("preprocessor_config.json", "processor_config.json")]
    index = _read(folder / "model.safetensors.index.json")
    if weights:
        shards = sorted(set(index.get("weight_map", {}).values()))
        needed += [(shard,) for shard in shards] or [("model.safetensors",)]
    return [names[0] for names in needed if not any((folder / name).is_file() for name in names)]


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def encoding_of(name: str) -> dict[str, Any]:
    """What `encoding: {like: NAME}` of a mixture stands for: the encoding of that checkpoint.

    Rows are as long as by default, where the checkpoint's context allows it.
    """
    where = f"encoding.like={name}"
    hub = is_hub_id(name)
    folder = fetch(name, files=CONFIGS, where=where) if hub else Path(name)
    said = {"tokenizer": name, **encoding_like(folder, where=where)}
    said["seq_len"] = min(said.get("seq_len", Encoding.seq_len), Encoding.seq_len)
    return said


def encoding_like(folder: Path, *, where: str) -> dict[str, Any]:
    """The settings of `encoding` that this checkpoint's processor and tokenizer state.

    Whatever the layout: `preprocessor_config.json` beside `processor_config.json`, or the latter
    with the image processor inside.
    """
    processor = _read(folder / "processor_config.json")
    images = _read(folder / "preprocessor_config.json") or processor.get("image_processor") or {}
    config = _read(folder / "config.json")
    for file, found in (("preprocessor_config.json", images), ("config.json", config)):
        if not found:
            raise ValueError(f"{where}: {folder} holds no {file}, so this is no SmolVLM.")
    try:
        said = {
            "crop_size": images["max_image_size"]["longest_edge"],
            "longest_edge": images["size"]["longest_edge"],
            "tokens_per_crop": processor.get("image_seq_len") or _tokens_per_crop(config),
            "split_images": images.get("do_image_splitting", True),
        }
        context = config["text_config"].get("max_position_embeddings")
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: {folder}: its processor does not say {error}.\nexpected: the files of a "
            "SmolVLM: max_image_size and size of the image processor, image_seq_len."
        ) from error
    position = _positions(folder)
    return said | ({"seq_len": context} if context else {}) | position


def _tokens_per_crop(config: dict[str, Any]) -> int:
    vision = config["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    return int(side**2 // config["scale_factor"] ** 2)


def _positions(folder: Path) -> dict[str, str]:
    """Learned where `<row_1_col_1>` is one token; in the first SmolVLM (of 2024) it is not."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {}
    added = {token["content"] for token in _read(file).get("added_tokens", ())}
    return {"position_tokens": "learned" if "<row_1_col_1>" in added else "string"}


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
