"""A row whose image stands where its source does not look is never learned as text."""

import base64

import pytest

from tests.pipelines.sources.making import asked, png, read, tar, write, write_lines, write_parquet

TALK = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
INLINE = base64.b64encode(png()).decode()
CELLS = [
    "a.png",
    "some where/A.JPEG",
    "https://example.com/a.webp",
    ["a.png", "b.png"],
    {"path": "clip.mp4", "bytes": None},
    {"bytes": INLINE},
    INLINE,
    f"data:image/png;base64,{INLINE}",
    "photo.heic",
]


@pytest.mark.parametrize("cell", CELLS)
def test_an_image_under_a_key_that_nobody_reads_is_said(tmp_path, cell):
    write(tmp_path / "a.png", png())
    write_lines(tmp_path / "m.jsonl", [{"messages": TALK, "picture": cell}])
    write_lines(tmp_path / "l.jsonl", [asked("<image>\nQ", img=cell)])
    for source, file, key in (("messages", "m.jsonl", "picture"), ("llava", "l.jsonl", "img")):
        (sample,) = read(source, data=str(tmp_path / file))
        assert sample["defect"] == "missing_media"
        assert sample["detail"].startswith(f"{key} holds an image or video, and {source} takes")


def test_other_keys_are_nobodys(tmp_path):
    write(tmp_path / "a.png", png())
    rows = [
        {"messages": TALK, "id": "a.png", "source": "a.png", "note": "See a.png\nand b.png"},
        {"messages": TALK, "topic": "colours", "score": 0.5, "tags": ["a", "b"], "more": {"x": 1}},
        {"messages": TALK, "image": "a.png", "thumbnail": "b.png"},
    ]
    samples = read("messages", data=str(write_lines(tmp_path / "m.jsonl", rows)))
    assert [(s["defect"], len(s["images"])) for s in samples] == [(None, 0), (None, 0), (None, 1)]


@pytest.mark.parametrize("cell", [{"bytes": png(), "path": "a.png"}, [png()], png(), "a.png"])
def test_a_parquet_column_of_images_that_nobody_reads_is_said(tmp_path, cell):
    write_parquet(tmp_path / "r.parquet", [{"messages": TALK, "img": cell}])
    (sample,) = read("messages", data=str(tmp_path))
    assert (sample["defect"], sample["detail"][:9]) == ("missing_media", "img holds")
    write_parquet(tmp_path / "r.parquet", [{"messages": TALK, "note": "words"}])
    assert read("messages", data=str(tmp_path))[0]["defect"] is None


def test_a_member_of_an_unread_format_is_no_text(tmp_path):
    talk = b'{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}'
    tar(tmp_path / "0.tar", [("k.heic", b"\0\0\0\x18ftypheic" + bytes(40)), ("k.json", talk)])
    (sample,) = read("webdataset", data=str(tmp_path))
    assert (sample["defect"], sample["detail"][:10]) == ("missing_media", "heic holds")
