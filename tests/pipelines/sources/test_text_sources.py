"""Text and chat: messages of one's own, SmolTalk and Magpie, raw documents."""

import gzip
import json

import numpy as np
import pyarrow as pa

from tests.pipelines.sources.making import (
    asked,
    encoded_video,
    png,
    read,
    said,
    write,
    write_lines,
    write_parquet,
)


def test_messages_with_strings_parts_and_columns_of_media(tmp_path):
    write(tmp_path / "a.png", png(seed=1))
    encoded_video(tmp_path / "v.mp4", seconds=2)
    text = lambda words: {"type": "text", "text": words}
    records = [
        {
            "messages": [
                {"role": "user", "content": "Hi <image>"},
                {"role": "assistant", "content": "Yo"},
            ]
        },
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [text("See "), {"type": "image", "path": "a.png"}]},
                {"role": "assistant", "content": [text("I see.")]},
            ]
        },
        {
            "messages": [{"role": "user", "content": [{"type": "image"}, text("Q")]}],
            "images": ["a.png"],
        },
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "v.mp4"}]}]},
        {"messages": [{"role": "user", "content": "Left over"}], "images": ["a.png"]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}], "images": []},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "url": "https://x.org/a.png"}]}
            ]
        },
        {"messages": [{"role": "robot", "content": "?"}]},
        {"messages": "no list"},
    ]
    path = write_lines(tmp_path / "chat.jsonl", records)
    samples = read("messages", data=str(path))
    assert [s["defect"] for s in samples] == [
        "placeholder_mismatch",
        *[None] * 4,
        "placeholder_mismatch",
        "remote_media",
        "wrong_schema",
        "wrong_schema",
    ]
    assert said(samples[1]) == [
        ("system", "Be kind."),
        ("user", "See [i]"),
        ("assistant", "I see."),
    ]
    assert said(samples[2])[0] == ("user", "[i]Q")
    assert samples[3]["duration"] == 2
    assert said(samples[4])[0] == ("user", "[i]Left over")


def test_smoltalk_and_magpie(tmp_path):
    message = pa.struct([("content", pa.string()), ("role", pa.string())])
    schema = pa.schema([("messages", pa.list_(message)), ("source", pa.string())])
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows_ = [
        {"messages": talk, "source": "numina-cot"},
        {"messages": [{"role": "user", "content": None}], "source": "x"},
    ]
    write_parquet(tmp_path / "s/data/all/train-00000-of-00009.parquet", rows_, schema=schema)
    write_parquet(tmp_path / "s/data/all/test-00000-of-00001.parquet", rows_, schema=schema)
    write_parquet(tmp_path / "s/data/systemchats-30k/train-0.parquet", rows_, schema=schema)
    whole, broken = read("smoltalk", data=str(tmp_path / "s"))
    assert whole["id"] == "smoltalk/all/000000"
    assert whole["tags"] == ["cot"]
    assert broken["defect"] == "wrong_schema"
    assert len(read("smoltalk", data=str(tmp_path / "s"), subsets=["systemchats-30k"])) == 2

    records = [asked("Q", "A"), {"conversations": [{"from": "human", "value": 3}]}]
    write_lines(tmp_path / "m" / "a.jsonl", records)
    whole, broken = read("magpie", data=str(tmp_path / "m"))
    assert said(whole) == [("user", "Q"), ("assistant", "A")]
    assert broken["defect"] == "wrong_schema"


def test_documents_plain_and_compressed(tmp_path):
    write_parquet(tmp_path / "p" / "a.parquet", [{"text": "One <image>."}, {"text": None}])
    whole, broken = read("documents", data=str(tmp_path / "p"))
    assert said(whole) == [("document", "One <image>.")]
    assert broken["defect"] == "wrong_schema"

    lines = b"\n".join([json.dumps({"text": f"Doc {n}"}).encode() for n in range(3)] + [b"{oops"])
    write(tmp_path / "z" / "a.jsonl.gz", gzip.compress(lines))
    write(tmp_path / "z" / "b.jsonl.gz", gzip.compress(lines))
    samples = read("documents", data=str(tmp_path / "z"))
    assert [s["id"] for s in samples][:5] == [
        *(f"documents/default/00000-{n:06d}" for n in range(4)),
        "documents/default/00001-000000",
    ]
    assert [s["defect"] for s in samples[:4]] == [None, None, None, "broken_json"]
    packed_ = pa.compress(lines, codec="zstd", asbytes=True)
    write(tmp_path / "y" / "a.jsonl.zst", packed_)
    assert [said(s)[0][1] for s in read("documents", data=str(tmp_path / "y"))[:3]] == [
        "Doc 0",
        "Doc 1",
        "Doc 2",
    ]


def test_a_compressed_file_that_breaks_off_says_so_in_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(97, 122, (400, 50), dtype=np.uint8)
    lines = b"\n".join(json.dumps({"text": bytes(row).decode()}).encode() for row in noise)
    for name, data in (("g.jsonl.gz", gzip.compress(lines)),):
        path = write(tmp_path / name, data[: len(data) // 2])
        samples = read("documents", data=str(path))
        assert [s["defect"] for s in samples] == [
            *[None] * (len(samples) - 2),
            "broken_json",
            "truncated_file",
        ]
        assert 150 < len(samples) < 250


# ------------------------------------------------------------------ which parts
