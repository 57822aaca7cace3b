"""The video families and your own tars and folders, each in its layout."""

import csv
import json
import struct
from dataclasses import replace

import pyarrow as pa
import pytest

from filters import judge
from pipelines import sources
from pipelines.reading.parts import list_parts
from tests.pipelines.sources.making import (
    asked,
    encoded_video,
    png,
    read,
    said,
    tar,
    write,
    write_lines,
    write_parquet,
    zipped,
)
from tokenization.schema import SAMPLE


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds of video, encoded."""
    return encoded_video(tmp_path_factory.mktemp("clip") / "c.mp4", seconds=2).read_bytes()


def defects(samples):
    return [sample["defect"] for sample in samples]


def test_mammoth_vl_each_json_with_its_own_shards(tmp_path, clip):
    tar(tmp_path / "single_image_data/a.tar.gz", [("coco/1.png", png(seed=1))], "w:gz")
    tar(
        tmp_path / "multi_image_data/b.tar.gz",
        [(f"m/{n}.png", png(seed=n)) for n in (2, 3)],
        "w:gz",
    )
    tar(tmp_path / "video_data/c.tar.gz", [("v/c.mp4", clip)], "w:gz")
    write(
        tmp_path / "mammoth_si_10M.json",
        [asked("<image>\nQ", image="coco/1.png"), asked("<image>\nQ", image="m/2.png")],
    )
    write(
        tmp_path / "mammoth_ov_2M.json",
        [
            asked("<image> <image> Q", image=["m/2.png", "m/3.png"], source="x"),
            asked("<video>\nQ", video="v/c.mp4"),
            {"id": "broken", "conversations": "no"},
        ],
    )
    samples = read("mammoth_vl", data=str(tmp_path), subsets=["mammoth_si_10M", "mammoth_ov_2M"])
    assert [s["subset"] for s in samples] == ["mammoth_ov_2M"] * 3 + ["mammoth_si_10M"] * 2
    assert defects(samples) == [None, None, "wrong_schema", None, "missing_media"]
    assert said(samples[0])[0] == ("user", "[i][i] Q")
    assert samples[1]["duration"] == 2


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ("B", False),
        ("A red bus stands before the first of two houses.", False),
        ("Let's think step by step. The bus is red.", True),
        ("Step 1: count the wheels.\nStep 2: divide.", True),
        ("The first has four, the second six. Therefore, the correct answer is C.", True),
        ("To determine the cost, add both prices. Thus 5 is due.", True),
    ],
)
def test_mammoth_answers_that_reason_are_tagged_though_nothing_marks_them(answer, reasons):
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": answer}]
    sample = sources.SOURCES["mammoth_vl"].adapter({"conversations": turns})
    assert sample.tags == (("cot",) if reasons else ())


def test_hounds_frames_are_read_from_the_other_repository(tmp_path):
    repository = tmp_path / "lmms-lab/LLaVA-Video-178K/llava_hound"
    records = [asked("<image>\nQ", video=f"shareVideoGPTV/frames/all_frames/{n}") for n in "ab"]
    write(repository / "hound_oe_v0_1_qa_processed.json", records)
    away = tmp_path / "ShareGPTVideo/train_video_and_instruction"
    frames = [(f"a/{n}.jpeg", png(seed=n, kind="JPEG")) for n in range(4)]
    tar(away / "train_300k/chunk_0.tar.gz", frames, "w:gz")
    tar(away / "test_raw/other.tar.gz", [("b/0.jpeg", png())], "w:gz")
    samples = read("llava_video", mirror=str(tmp_path), subsets=["llava_hound"])
    assert defects(samples) == [None, "missing_media"]
    assert samples[0]["duration"] == 2  # 4 frames, 2 a second


def test_video_star_takes_its_videos_from_a_folder_you_name(tmp_path, clip):
    write(tmp_path / "kinetics" / "c.mp4", clip)
    records = [asked("<video>\nQ", video="c.mp4"), asked("<video>\nQ", video="gone.mp4")]
    write(tmp_path / "repo" / "ft_json" / "starb_tune_.json", records)
    write(tmp_path / "repo" / "ft_json" / "finediving_tune_.json", records[:1])
    settings = {"data": str(tmp_path / "repo"), "media": str(tmp_path / "kinetics")}
    samples = read("video_star", **settings)
    assert [s["subset"] for s in samples] == ["finediving", "starb", "starb"]
    assert defects(samples) == [None, None, "missing_media"]


def test_a_sample_holds_what_the_headers_of_its_videos_state(tmp_path, clip):
    """The clip lasts 2 s; the copy's movie header says 9 (and 0, as a fragmented file's does)."""
    at = clip.index(b"mvhd") + 4 + 12
    says = lambda seconds: clip[:at] + struct.pack(">II", 10, seconds * 10) + clip[at + 8 :]
    for name, data in (("true", clip), ("lies", says(9)), ("none", says(0))):
        write(tmp_path / "videos" / f"{name}.mp4", data)
    videos = [["true"], ["lies"], ["none"], ["true", "lies"], ["lies", "none"], ["gone"]]
    rows = [
        asked("<video>\n" * len(names) + "Q", video=[f"{name}.mp4" for name in names])
        for names in videos
    ]
    write(tmp_path / "rows.json", rows)
    samples = read("llava", data=str(tmp_path / "rows.json"), media=str(tmp_path / "videos"))
    assert [s["duration"] for s in samples] == [2, 2, 2, 4, 4, None]
    assert [s["header_seconds"] for s in samples] == [2, 9, None, 11, None, None]
    table = pa.Table.from_pylist(samples, schema=SAMPLE)
    verdicts = judge(table, rules={"wrong_duration": {}})["rule"].to_pylist()
    assert verdicts == [None, "wrong_duration", None, "wrong_duration", None, "missing_media"]


def test_vista_by_annotation_file_and_by_pairs(tmp_path, clip):
    tar(
        tmp_path / "a/temporal_niah_qa/temporal_niah_qa_1.tar",
        [("t/1.mp4", clip), ("t/2.mp4", b"?")],
    )
    records = [asked("Q", image=f"t/{n}.mp4") for n in (1, 2, 3)]
    write(tmp_path / "a" / "temporal_niah_qa.json", records)
    samples = read("vista_400k", data=str(tmp_path / "a"))
    assert defects(samples) == [None, "undecodable_video", "missing_media"]
    assert samples[0]["id"] == "vista_400k/temporal_niah_qa/000000"

    pairs = [("1.json", json.dumps(asked("<video>\nQ")).encode()), ("1.mp4", clip)]
    tar(tmp_path / "b/hr_video_grid_qa/hr_video_grid_qa_1.tar", [*pairs, ("2.json", b"{oops")])
    samples = read("vista_400k", data=str(tmp_path / "b"))
    assert [s["id"] for s in samples] == [
        f"vista_400k/hr_video_grid_qa/00000-{n:06d}" for n in range(2)
    ]
    assert defects(samples) == [None, "broken_json"]
    assert said(samples[0]) == [("user", "[i][i]Q"), ("assistant", "An answer.")]


def test_sharegpt4video_takes_the_caption_of_the_whole(tmp_path, clip):
    zipped(tmp_path / "zip_folder/panda/panda_videos_1.zip", [("a.mp4", clip)])
    caption = lambda idx, text: {"idx": idx, "content": text}
    rows = [
        {
            "video_id": "a",
            "video_path": "panda/a.mp4",
            "zip_folder": "panda/panda_videos_1.zip",
            "captions": [caption("1", "A frame."), caption("-1", "All of it.")],
        },
        {"video_id": "a", "video_path": "panda/a.mp4", "captions": [caption("1", "A frame.")]},
        {"video_id": "b", "video_path": "panda/b.mp4", "captions": [caption("-1", "B.")]},
    ]
    write_lines(tmp_path / "sharegpt4video_40k.jsonl", rows)
    samples = read("sharegpt4video", data=str(tmp_path))
    assert defects(samples) == [None, "wrong_schema", "missing_media"]
    assert said(samples[0])[1] == ("assistant", "All of it.")
    assert samples[0]["tags"] == ["caption"]
    assert len(samples[0]["images"]) == 2


def test_vript_tells_content_voice_and_camera(tmp_path, clip):
    member = "clips_1_of_1095/vid/vid-Scene-001.mp4"
    zipped(tmp_path / "vript_long_videos_clips/clips_1_of_1095.zip", [(member, clip)])
    row = {
        "meta": {"video_id": "vid", "video_title": "T", "num_clips": 1, "integrity": True},
        "clip_id": "vid-Scene-001",
        "caption": {
            "shot_type": "Close-up",
            "camera_movement": "pans left",
            "content": "A cat sits.",
            "scene_title": "Cat",
        },
        "voiceover": ["Look", "a cat"],
    }
    rows = [row, {**row, "caption": {**row["caption"], "content": None}}, {**row, "clip_id": "x"}]
    write_lines(tmp_path / "vript_captions/vript_long_videos_captions.jsonl", rows)
    samples = read("vript", data=str(tmp_path), subsets=["long"])
    assert defects(samples) == [None, "wrong_schema", "missing_media"]
    turns = said(samples[0])
    assert turns[0][1].startswith('[i][i]The voice-over says: "Look a cat"\n')
    assert turns[1] == ("assistant", "A cat sits.")
    assert turns[3] == ("assistant", "Close-up, pans left")


def test_moviechat_is_a_json_file_per_film(tmp_path, clip):
    write(tmp_path / "raw_videos" / "1.mp4", clip)
    film = {
        "info": {"video_path": "1.mp4"},
        "caption": "A film.",
        "global": [{"question": "Day?", "answer": "Yes"}],
        "breakpoint": [{"time": 400, "question": "Now?", "answer": "No"}],
    }
    write(tmp_path / "jsons" / "1.json", json.dumps(film, indent=2))
    write(tmp_path / "jsons" / "2.json", "{ broken")
    write(tmp_path / "jsons" / "3.json", {**film, "global": None})
    write(tmp_path / "jsons" / "4.json", {**film, "info": {"video_path": "4.mp4"}})
    samples = read("moviechat", data=str(tmp_path))
    assert defects(samples) == [None, "broken_json", "wrong_schema", "missing_media"]
    assert [turn[1] for turn in said(samples[0])][1:] == ["A film.", "Day?", "Yes"]
    assert samples[0]["duration"] == 2


def test_finevideo_tells_description_scenes_and_questions(tmp_path, clip):
    scene = {
        "title": "Opening",
        "timestamps": {"start_timestamp": "00:00:00", "end_timestamp": "00:00:01"},
        "activities": [{"description": "A cat walks.", "timestamp": None}],
    }
    told = {
        "description": "About a cat.",
        "qAndA": [{"question": "Who?", "answer": "A cat."}],
        "scenes": [scene],
    }
    rows = [
        {"mp4": clip, "json": {"content_metadata": told}},
        {"mp4": b"nothing", "json": {"content_metadata": told}},
        {"mp4": clip, "json": {"content_metadata": {**told, "qAndA": [{"question": "?"}]}}},
        {"mp4": None, "json": {"content_metadata": told}},
    ]
    times = pa.struct([("start_timestamp", pa.string()), ("end_timestamp", pa.string())])
    scenes = pa.struct(
        [
            ("title", pa.string()),
            ("timestamps", times),
            ("activities", pa.list_(pa.struct([("description", pa.string())]))),
        ]
    )
    pair = pa.struct([("question", pa.string()), ("answer", pa.string())])
    metadata = pa.struct(
        [("description", pa.string()), ("qAndA", pa.list_(pair)), ("scenes", pa.list_(scenes))]
    )
    about = pa.struct([("content_metadata", metadata)])
    schema = pa.schema([("mp4", pa.binary()), ("json", about)])
    write_parquet(tmp_path / "data" / "train-00000-of-01357.parquet", rows, schema=schema)
    samples = read("finevideo", data=str(tmp_path))
    assert defects(samples) == [None, "undecodable_video", "wrong_schema", "missing_media"]
    assert [text for role, text in said(samples[0]) if role == "assistant"] == [
        "About a cat.",
        "[00:00:00 - 00:00:01] Opening: A cat walks.",
        "A cat.",
    ]


def test_webdataset_pairs_conversations_and_a_cut_off_tar(tmp_path, clip):
    members = [
        ("d/0.jpg", png(kind="JPEG")),
        ("d/0.txt", b"A caption. "),
        ("d/1.0.png", png(seed=1)),
        ("d/1.1.png", png(seed=2)),
        ("d/1.json", json.dumps(asked("<image> or <image>?")).encode()),
        ("d/2.mp4", clip),
        ("d/2.json", json.dumps({"caption": "A clip."}).encode()),
        ("d/3.txt", b"Words alone"),
        ("d/4.png", png()[:30]),
        ("d/4.txt", b"Broken"),
    ]
    tar(tmp_path / "one.tar", members)
    samples = read("webdataset", data=str(tmp_path / "one.tar"))
    assert defects(samples) == [None, None, None, "missing_media", "undecodable_image"]
    assert said(samples[0])[1] == ("assistant", "A caption.")
    assert said(samples[1])[0] == ("user", "[i] or [i]?")
    assert samples[2]["duration"] == 2
    data = (tmp_path / "one.tar").read_bytes()
    write(tmp_path / "cut" / "one.tar", data[: len(data) // 2])
    cut = read("webdataset", data=str(tmp_path / "cut"))
    assert defects(cut)[0] is None
    assert defects(cut)[-1] == "broken_archive"


def test_imagefolder_with_captions_in_metadata(tmp_path):
    write(tmp_path / "train" / "a.png", png())
    rows = [
        {"file_name": "a.png", "text": "An image."},
        {"file_name": "a.png", "question": "What?", "answer": "That."},
        {"file_name": "b.png", "text": "Gone."},
        {"file_name": None, "text": "?"},
    ]
    write_lines(tmp_path / "train" / "metadata.jsonl", rows)
    samples = read("imagefolder", data=str(tmp_path))
    assert defects(samples) == [None, None, "missing_media", "missing_media"]
    assert said(samples[0])[1] == ("assistant", "An image.")
    assert said(samples[1]) == [("user", "[i]What?"), ("assistant", "That.")]


@pytest.mark.parametrize("limit", [100, 1 << 40])
def test_imagefolder_with_captions_in_csv(limit, tmp_path, monkeypatch):
    """Cells as `datasets` reads them: quotes, line breaks, an empty one is none; two parts."""
    lines = [
        "file_name,text,source",
        'a.png,"One, ""quoted""\nand broken.",x',
        "a.png,,x",
        "gone.png,Gone.,x",
        "",
        "a.png,Too,many,cells",
        "a.png,Too few",
        f"a.png,{'long' * 9_000_000},x",
        f"a.png,{'long ' * 250_000},x",
        "a.png,Caf\u00e9.,x",
    ]
    text = "\r\n".join(lines)
    for split in ("train", "test"):
        write(tmp_path / split / "a.png", png())
        write(tmp_path / split / "metadata.csv", ("\ufeff" + text).encode())
    csv.field_size_limit(limit)  # as another package may leave it
    samples = read("imagefolder", data=str(tmp_path))
    assert [s["id"][-12:] for s in samples] == [f"00000-{n:06d}" for n in range(8)]
    wrong = "wrong_schema"
    assert defects(samples) == [None, wrong, "missing_media", wrong, wrong, wrong, None, None]
    assert said(samples[0])[1] == ("assistant", 'One, "quoted"\nand broken.')
    assert said(samples[7])[1] == ("assistant", "Caf\u00e9.")
    every = list_parts(source="imagefolder", data=str(tmp_path))
    about = sources.SOURCES["imagefolder"]
    monkeypatch.setitem(sources.SOURCES, "imagefolder", replace(about, rows_per_part=3))
    cut = list_parts(source="imagefolder", data=str(tmp_path))
    assert [part.rows for part in every] == [8]
    assert [part.rows for part in cut] == [3, 3, 2]
    assert read("imagefolder", data=str(tmp_path)) == samples
    write(tmp_path / "train" / "metadata.csv", "name,text\na.png,x\n")
    with pytest.raises(ValueError, match=r"metadata.csv: no column 'file_name or file_names'"):
        read("imagefolder", data=str(tmp_path))
