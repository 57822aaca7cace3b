"""One bad row costs one row: any JSON type in any cell of every source, at any depth."""

import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from pipelines.reading.ingest import Reader, sample_row
from pipelines.reading.media_files import Media
from pipelines.reading.parts import Part
from pipelines.sources import SOURCES
from tests.pipelines.sources.making import (
    asked,
    cell,
    encoded_video,
    png,
    qa,
    read,
    write,
    write_lines,
)
from tests.pipelines.sources.tables import TABLES, settings_of, source_named

MUTATIONS = 170
"""Of a source: with 21 sources more than 3,000."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3.5, 10**400, float("inf"), float("nan")),
    *("", "text", "a.png", "<image>", "<video> <image>", "\0", "\ud800", "\ufeff", "x" * 5000),
    *("../a.png", "/etc/passwd", "https://x.org/a.png", "data:image/png;base64,?", "data:", "-1"),
    *([], [None], [[]], [1, "a"], ["a.png", "a.png"], [{}], [{"role": 1}], [{"from": "human"}]),
    *({}, {"a": 1}, {"bytes": "?"}, {"bytes": 1, "path": 2}, {"path": ["a"]}, {"url": {}}),
    *({"from": ["human"], "value": [1]}, {"user": ["Q"], "assistant": []}, {"role": []}),
)  # fmt: skip
"""Of every JSON type, and the shapes that rows really have."""
PART = {"type": "image", "image": "a.png", "index": None, "text": None}
PARTS = [PART, {"type": "text", "text": "What?", "index": None}]
TALK = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "That."}]
RATED = {
    f"{kind}_ratings": [5, 1]
    for kind in ("relevance", "image_correspondence", "visual_dependency", "formatting")
}


def pdf() -> bytes:
    document, buffer = pypdfium2.PdfDocument.new(), io.BytesIO()
    document.new_page(20, 20)
    document.save(buffer)
    return buffer.getvalue()


OTHER = {"role": "assistant", "content": "Another answer."}
RATED_ANSWERS = [
    {"annotations": {"Helpfulness": {"Rating": r, "Rationale": "R"}}, "model": "m", "response": r}
    for r in ("4", "2")
]


def rows() -> dict[str, list[Any]]:
    """Source -> valid rows of each of its forms."""
    # Longer than a screen: a list of the rows of every source.
    image, pairs = cell(png()), qa(("Q1", "A1"), ("Q2", "A2"))
    llava = asked("<image>\nWhat?", image="a.png")
    film = asked("<video>\nWhat?", video="v.mp4")
    scene = {
        "title": "T",
        "timestamps": {"start_timestamp": "0", "end_timestamp": "1"},
        "activities": [{"description": "D"}],
    }
    told = {"description": "D", "scenes": [scene], "qAndA": [{"question": "Q", "answer": "A"}]}
    return {
        "cauldron": [{"images": [image], "texts": pairs}],
        "docmatix": [{"images": [image], "texts": pairs}, {"pdf": "d.pdf", "texts": pairs}],
        "mathwriting": [{"image": image, "latex": "x"}],
        "finevision": [{"images": [image], "texts": pairs, **RATED}],
        "llava": [llava, asked("<image> or <image>?", image=["a.png", "a.png"]), film],
        "llava_onevision": [{**llava, "image": image}],
        "llava_video": [film],
        "m4_instruct": [asked("<image> or <image>?", image=["a.png", "a.png"])],
        "mammoth_vl": [llava],
        "video_star": [film],
        "vista_400k": [{**asked("What?"), "image": "v.mp4"}],
        "llava_cot": [{**llava, "system_message": "Think."}],
        "sharegpt4video": [
            {"video_path": "v.mp4", "captions": [{"idx": "-1", "content": "C"}]},
            film,
        ],
        "vript": [
            {
                "meta": {"video_id": "id"},
                "clip_id": "v",
                "caption": {"content": "C", "shot_type": "S", "camera_movement": "M"},
                "voiceover": ["V", "W"],
            }
        ],
        "moviechat": [
            {
                "info": {"video_path": "v.mp4"},
                "caption": "C",
                "global": [{"question": "Q", "answer": "A"}],
            }
        ],
        "finevideo": [{"mp4": "v.mp4", "json": {"content_metadata": told}}],
        "smoltalk": [{"messages": [{"role": "user", "content": "Q"}, TALK[1]], "source": "x"}],
        "magpie": [asked("Q")],
        "messages": [
            {"messages": TALK, "images": ["a.png"]},
            {"messages": [{"role": "user", "content": PARTS}, TALK[1]], "images": ["a.png"]},
            {"prompt": "Q", "completion": "A", "images": ["a.png"]},
            {"prompt": TALK[:1], "completion": TALK[1:], "images": ["a.png"]},
        ],
        "preferences": [
            {"prompt": "Q", "chosen": "A", "rejected": "B", "images": ["a.png"]},
            {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": [OTHER], "images": ["a.png"]},
            {"chosen": TALK, "rejected": [TALK[0], OTHER], "images": ["a.png"]},
            {"messages": TALK, "rejected_response": "B", "images": ["a.png"]},
        ],
        "rlaif_v": [{"image": image, "question": "Q", "chosen": "A", "rejected": "B"}],
        "rlhf_v": [{"image": image, "text": '{"question": "Q", "chosen": "A", "rejected": "B"}'}],
        "vlfeedback": [{"img_path": "a.png", "prompt": "Q", "completions": RATED_ANSWERS}],
        "mmpr": [{"image": "a.png", "question": "Q", "chosen": "A", "rejected": "B"}],
        "documents": [{"text": "A text."}, {"content": "A text."}],
        "imagefolder": [
            {"file_name": "a.png", "text": "T"},
            {"file_name": "a.png", "question": "Q", "answer": "A"},
            {"file_names": ["a.png", "a.png"], "texts": pairs},
            {"file_name": "a.png", "messages": TALK},
        ],
    }


ROWS = rows()
TEXT = {"text": "A text.", "content": "A text."}
"""A row of any source of raw documents."""
ROWS |= {
    name: [TEXT] for name, about in SOURCES.items() if about.layout == "text" and name not in ROWS
}
ROWS |= {name: rows for name, (_, rows) in TABLES.items()}


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of every cell below `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, cell_ in inside:
        yield (key,)
        if isinstance(cell_, dict | list):
            yield from ((key, *path) for path in places(cell_))


def mutated(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The row with another value in one cell."""
    row = inner = copy.deepcopy(row)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return row


def mutations(name: str, count: int) -> list[Any]:
    """So many rows of a source with one cell mutated, of a fixed seed, every cell among them."""
    every = [(row, path) for row in ROWS[name] for path in places(row)]
    rng = random.Random(name)
    chosen = [*every, *rng.choices(every, k=max(0, count - len(every)))]
    return [mutated(row, path, rng.choice(VALUES)) for row, path in chosen]


def write_media(root: Path) -> None:
    """The files that ROWS name."""
    write(root / "a.png", png())
    write(root / "d.pdf", pdf())
    clip = encoded_video(root / "v.mp4", seconds=1, fps=4, size=(32, 32))
    for place in ("id", "raw_videos"):
        write(root / place / "v.mp4", clip.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rows")
    write_media(root)
    return root


def part_of(name: str) -> Part:
    return Part(
        name=f"{name}/default/00000", source=name, subset="default", component="", number=0,
        rows=None, about_rows=None, num_bytes=None, share=1.0, identity={}, inputs={},
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", sorted((SOURCES.keys() | TABLES.keys()) - {"webdataset", "dcvlm", "table"})
)
def test_a_mutated_cell_costs_its_row_and_no_more(name, folder):
    frames = {"fps": 1.0, "max_frames": 2, "size": 32}
    reader = Reader(Media({"roots": (str(folder),), "archives": ()}), frames)
    part, source = part_of(name), source_named(name)
    line = lambda row: sample_row(part, "000000", row, source, reader)
    whole = [line(row) for row in ROWS[name]]
    assert [(row["defect"], row["detail"]) for row in whole] == [(None, None)] * len(whole)
    found = [line(row) for row in mutations(name, MUTATIONS)]
    rejected = [row for row in found if row["defect"]]
    assert len(rejected) > MUTATIONS // 8
    for row in found:
        texts = [c["text"] for m in row["messages"] for c in m["content"] if c["type"] == "text"]
        assert not any(mark in t for t in texts for mark in ("\ufeff", "\ud800")), row
        if source.layout != "text" and name != "table of documents" and not row["defect"]:
            assert not any("<image>" in t or "<video>" in t for t in texts), row
    for row in rejected:
        detail = row["detail"] or ""
        assert len(detail) <= 200
        assert not any(word in detail for word in ("passwd", "x.org", "xxxxx", "0x", str(folder)))
    assert [line(row) for row in ROWS[name]] == whole


@pytest.mark.parametrize(
    "name", ["llava", "messages", "imagefolder", "vript", "table of choices", "table of fields"]
)
def test_rows_between_mutated_ones_are_kept_in_files(name, folder):
    """Through planning, which looks for the media that rows name, as well as reading."""
    good = ROWS[name][0]
    broken = [
        {**row, **{k: v for k, v in good.items() if k not in row}} for row in mutations(name, 60)
    ]
    lines = [json.dumps(row) for bad in broken for row in (bad, good)]
    write_lines(folder / "metadata.jsonl", lines)
    where = {"data": str(folder / "metadata.jsonl"), "media": str(folder)}
    samples = read(**settings_of(name), **where)
    assert len(samples) == len(lines)
    assert {sample["defect"] for sample in samples[1::2]} == {None}
    assert {None} < {sample["defect"] for sample in samples[::2]}
