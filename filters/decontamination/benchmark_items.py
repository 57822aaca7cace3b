"""What a benchmark asks: its files, in the layouts they come in, as items.

| layout                      | one item is                                                      |
|-----------------------------|------------------------------------------------------------------|
| TSV of VLMEvalKit           | a row: question, options A to Z, images as base64 or paths       |
| rows of a hub dataset       | a row: a question by its usual names, every image in it          |
| a folder of images          | an image, its question from `metadata.jsonl` where there is one  |
"""

import ast
import base64
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ID, _QUESTION = ("id", "index", "question_id", "qid"), ("question", "query", "problem", "prompt")
_OPTIONS = ("options", "choices")
_ANSWERS = ("answer", "answers", "gt_answer", "ground_truth", "label")
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    id: str
    question: str = ""
    options: tuple[str, ...] = ()
    images: tuple[bytes, ...] = field(default=(), repr=False)
    same_images_as: str = ""
    """The id of the item whose images this one is about, where the file says so."""
    answer: str = ""
    """As the file has it; what is shown, and nothing that is looked for."""


def tsv_items(path: Path) -> Iterator[Item]:
    """The items of a benchmark in VLMEvalKit's TSV layout.

    Columns: index, question, A, B, ... (options), and image: base64, a list of base64, or the index
    of another row with the same image (64 characters or fewer); or image_path beside the file.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        columns = rows.fieldnames or []
        if "question" not in columns and "image" not in columns:
            raise ValueError(
                f"{path}: columns {', '.join(columns)}; expected VLMEvalKit's: index, image, "
                "question, A, B, C, D, answer."
            )
        for number, row in enumerate(rows):
            image = row.get("image") or ""
            same_as = image if 0 < len(image) <= 64 else ""
            encoded = [] if same_as else _listed(image)
            paths = _listed(row.get("image_path") or "") if not image else []
            yield Item(
                id=row.get("index") or str(number),
                question=row.get("question") or "",
                options=tuple(row[k] for k in map(chr, range(65, 91)) if row.get(k)),
                images=(
                    *(base64.b64decode(text) for text in encoded),
                    *((path.parent / name).read_bytes() for name in paths),
                ),
                same_images_as=same_as,
                answer=row.get("answer") or "",
            )


def _listed(text: str) -> list[str]:
    """The strings of "['a', 'b']", or the one string there is."""
    if text.startswith("["):
        return [str(part) for part in ast.literal_eval(text)]
    return [text] if text else []


def row_items(rows: Iterable[Mapping[str, Any]], *, where: str) -> Iterator[Item]:
    """The items of a hub dataset: rows with a question and images as `{bytes, path}`.

    Questions are found by their usual names (question, query, problem, prompt), images by their
    shape, in `image`, `images`, `image_1`, ...; other columns don't matter.
    """
    for number, row in enumerate(rows):
        known = {key.lower(): value for key, value in row.items()}
        question = next((known[k] for k in _QUESTION if isinstance(known.get(k), str)), "")
        options = next((known[k] for k in _OPTIONS if known.get(k)), ())
        if isinstance(options, str):
            options = _listed(options)
        images = [
            part["bytes"]
            for key, value in known.items()
            if "image" in key
            for part in (value if isinstance(value, list) else [value])
            if isinstance(part, Mapping) and part.get("bytes")
        ]
        if not question and not images:
            raise ValueError(
                f"{where}: row {number} has columns {', '.join(row)}; expected a question "
                f"({', '.join(_QUESTION)}) or images (image, images, image_1, ...)."
            )
        name = next((str(known[k]) for k in _ID if known.get(k) is not None), str(number))
        answer = next((_told(known[k]) for k in _ANSWERS if known.get(k) is not None), "")
        yield Item(name, question, tuple(map(str, options)), tuple(images), answer=answer)


def _told(answer: Any) -> str:
    """An answer of any type as one line: of several, each once."""
    if isinstance(answer, list | tuple):
        return ", ".join(dict.fromkeys(_told(one) for one in answer))
    return answer if isinstance(answer, str) else json.dumps(answer, default=str)


def folder_items(folder: Path) -> Iterator[Item]:
    """Every image under a folder, by its relative path; its question from a `metadata.jsonl`
    there (`file_name`, `question`, `answer`), as `imagefolder` has it.
    """
    about: dict[str, Mapping[str, Any]] = {}
    for lines in sorted(folder.rglob("metadata.jsonl")):
        for line in lines.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            about[(lines.parent / row["file_name"]).relative_to(folder).as_posix()] = row
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGES)
    if not paths:
        raise ValueError(f"{folder}: no images; expected {', '.join(sorted(_IMAGES))} files.")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        row = about.get(name, {})
        question, answer = (row.get(key) or "" for key in ("question", "answer"))
        yield Item(name, str(question), images=(path.read_bytes(),), answer=_told(answer))


def items_of(data: Path) -> Iterator[Item]:
    """The items of a TSV file or of a folder of images; other data come as rows (`row_items`)."""
    if data.is_dir():
        return folder_items(data)
    if data.suffix == ".tsv" and data.is_file():
        return tsv_items(data)
    raise FileNotFoundError(f"{data}: expected a .tsv file (VLMEvalKit) or a folder of images.")
