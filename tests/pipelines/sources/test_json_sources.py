"""The LLaVA family, chats and documents: JSON beside media, in folders and archives."""

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reading import json_spans
from pipelines.reading.archives import archives_of, walk_tar
from pipelines.reading.files import list_tree
from pipelines.reading.parts import list_parts
from tests.pipelines.sources.making import (
    asked,
    encoded_video,
    levels,
    png,
    read,
    said,
    tar,
    write,
    write_lines,
    write_parquet,
    zipped,
)


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


# ------------------------------------------------------------------ the JSON family


def test_llava_json_beside_its_media_with_every_kind_of_broken_row(tmp_path):
    write(tmp_path / "images" / "a.png", png(seed=1))
    write(tmp_path / "images" / "b.png", png(seed=2)[:50])
    records = [
        asked("<image>\nWhat?", image="images/a.png"),
        asked("<image>\nWhat?", image="images/b.png"),
        asked("<image>\nWhat?", image="images/nowhere.png"),
        asked("<image>\nWhat?", image="../secret.png"),
        asked("Text alone"),
        {"id": "no conversation"},
        asked("Q", answer=None),
        {"conversations": [{"from": "martian", "value": "?"}]},
        asked("lone \ud83d surrogate"),
        [1, 2],
        asked("<image><image> both?", image=["images/a.png", "images/a.png"]),
    ]
    write(tmp_path.parent / "secret.png", png())
    write(tmp_path / "mine.json", records)
    samples = read("llava", data=str(tmp_path / "mine.json"))
    assert [s["id"] for s in samples] == [f"llava/default/{n:06d}" for n in range(len(records))]
    assert [s["defect"] for s in samples] == [
        None,
        "undecodable_image",
        "missing_media",
        "unsafe_path",
        None,
        "wrong_schema",
        "wrong_schema",
        "wrong_schema",
        "broken_text",
        "wrong_schema",
        None,
    ]
    assert said(samples[0]) == [("user", "[i]What?"), ("assistant", "An answer.")]
    assert said(samples[10])[0] == ("user", "[i][i] both?")
    assert samples[0]["images"][0]["bytes"] == png(seed=1)


def test_json_lines_with_a_broken_line_keep_every_row(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [asked("Q0"), '{"conversations": [', asked("Q2")])
    samples = read("llava", data=str(path))
    assert [s["defect"] for s in samples] == [None, "broken_json", None]
    assert said(samples[2])[0] == ("user", "Q2")


def test_broken_files_are_errors_that_say_where(tmp_path):
    path = write(tmp_path / "a.json", json.dumps([asked("Q"), asked("R")])[:-40])
    with pytest.raises(ValueError, match=r"a.json: broken JSON at byte \d+"):
        read("llava", data=str(path))
    write(path, {"conversations": []}.__repr__())
    with pytest.raises(ValueError, match="neither JSON lines nor an array"):
        read("llava", data=str(path))
    write(path, '"just text"')
    with pytest.raises(ValueError, match="expected a JSON array or JSON lines"):
        read("llava", data=str(path))
    write(path, [{"question": "Q", "answer": "A"}])
    with pytest.raises(ValueError, match=r"no column 'conversations'.*\nfound: answer, question"):
        read("llava", data=str(path))


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=3), max_size=8),
    st.integers(1, 64),
    st.booleans(),
)
def test_array_rows_are_found_at_their_bytes_whatever_the_chunks(values, chunk, ascii_only):
    data = json.dumps(values, indent=1, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "CHUNK", chunk)
        found = list(json_spans.array_spans(io.BytesIO(data), "made"))
    assert [row for _, _, row in found] == values
    for offset, length, row in found:
        assert json.loads(data[offset : offset + length]) == row


def test_media_may_lie_in_another_folder(tmp_path):
    write(tmp_path / "images" / "deep" / "a.png", png())
    path = write(tmp_path / "text" / "a.json", [asked("<image>\nQ", image="deep/a.png")])
    assert read("llava", data=str(path))[0]["defect"] == "missing_media"
    (sample,) = read("llava", data=str(path), media=str(tmp_path / "images"))
    assert sample["defect"] is None


def test_rows_that_share_a_video_stand_in_one_part_and_decode_it_once(tmp_path, monkeypatch):
    folder = tmp_path / "0_30_s_academic_v0_1"
    for name in "abc":
        encoded_video(folder / "academic_source" / f"{name}.mp4")
    for kind in ("cap", "oe_v0_1_qa", "mc_v0_1_qa"):
        records = [
            asked(f"<image>\n{kind}?", video=f"academic_source/{name}.mp4", data_source="made")
            for name in "abc"
        ]
        write(folder / f"0_30_s_academic_{kind}_processed.json", records)
    decoded = []
    from pipelines.media import decoders

    true = decoders.decode_video
    monkeypatch.setattr(
        decoders, "decode_video", lambda v, **k: decoded.append(str(v)) or true(v, **k)
    )
    samples = read("llava_video", data=str(tmp_path))
    assert len(samples) == 9
    assert len(decoded) == 3
    assert {len(s["images"]) for s in samples} == {4}
    assert {s["duration"] for s in samples} == {4.0}
    captions = read("llava_video", data=str(tmp_path), subsets=["0_30_s_academic_v0_1/caption"])
    assert [said(s)[0][1] for s in captions] == ["[i][i][i][i]cap?"] * 3


def test_activitynet_of_llava_video_lies_in_a_folder_that_its_card_does_not_name(tmp_path):
    folder = tmp_path / "0_30_s_activitynetqa"
    encoded_video(folder / "activitynet" / "a.mp4")
    rows = [asked("<image>\nQ", video="activitynet/a.mp4"), asked("<image>\nQ", video="b.mp4")]
    write(folder / "0_30_s_activitynetqa_oe_qa_processed.json", rows)
    for name in ("0_30_s_activitynet", "0_30_s_activitynet/open_ended"):
        samples = read("llava_video", data=str(tmp_path), subsets=[name])
        assert [s["subset"] for s in samples] == [name] * 2
        assert [s["defect"] for s in samples] == [None, "missing_media"]


def test_llava_video_in_tar_gz_is_read_in_one_pass(tmp_path, monkeypatch):
    folder = tmp_path / "0_30_s_academic_v0_1"
    clips = {
        n: encoded_video(tmp_path / "made" / f"{n}.mp4", seconds=n + 1).read_bytes()
        for n in range(4)
    }
    for number in (1, 2):
        inside = [(f"./academic_source/{n}.mp4", clips[n]) for n in range(4) if n % 2 == number % 2]
        tar(folder / f"0_30_s_academic_v0_1_videos_{number}.tar.gz", inside, "w:gz")
    video_of = lambda n: f"academic_source/{n}.mp4"
    one = [asked("<image>\nQ", video=video_of(n)) for n in (0, 1, 2, 3, 9)]
    two = [asked("<image>\nR", video=video_of(n)) for n in (3, 0)] + [asked("no video")]
    write(folder / "0_30_s_academic_mc_v0_1_qa_processed.json", one)
    write(folder / "0_30_s_academic_oe_v0_1_qa_processed.json", two)

    walks = []
    from pipelines.reading import archive_order as along

    monkeypatch.setattr(along, "walk_tar", lambda a, **k: walks.append(a.name) or walk_tar(a, **k))
    samples = read("llava_video", data=str(tmp_path / ""))
    assert [s["id"][-6:] for s in samples] == [f"{n:06d}" for n in range(8)]
    assert [s["duration"] for s in samples] == [1, 2, 3, 4, None, 4, 1, None]
    assert [s["defect"] for s in samples] == [*[None] * 4, "missing_media", None, None, None]
    assert len(walks) == 2


def test_a_tar_gz_that_breaks_off_costs_its_rows_alone(tmp_path):
    members = [(f"{n}.png", png(64, 64, seed=n)) for n in range(3)]
    archive = tar(tmp_path / "d" / "v.tar.gz", members, "w:gz")
    archive.write_bytes(archive.read_bytes()[:-900])
    write(tmp_path / "d" / "a.json", [asked("Q", image=f"{n}.png") for n in range(4)])
    samples = read("llava", data=str(tmp_path / "d"))
    assert [s["defect"] for s in samples] == [None, None, "broken_archive", "missing_media"]


def test_a_medium_in_two_tars_is_an_error_that_names_it(tmp_path):
    for name in ("v1", "v2"):
        tar(tmp_path / f"{name}.tar.gz", [("a.png", png())], "w:gz")
    write(tmp_path / "a.json", [asked("<image>Q", image="a.png")])
    with pytest.raises(ValueError, match=r"v2.tar.gz: 1 media, of row 0"):
        read("llava", data=str(tmp_path))


def test_m4_instruct_reads_images_out_of_zips(tmp_path):
    zipped(tmp_path / "HQ-Edit.zip", [(f"HQ-Edit/images/{n}.png", png(seed=n)) for n in range(2)])
    zipped(tmp_path / "nlvr2.zip", [("images/0.png", png(seed=7)), ("../images/9.png", png())])
    write(tmp_path / "broken.zip", b"PK\x03\x04 nothing")
    records = [
        asked("<image> to <image>?", image=["HQ-Edit/images/0.png", "HQ-Edit/images/1.png"]),
        asked("One <image>\ntwo <image>", image=["nlvr2/images/0.png", "HQ-Edit/images/1.png"]),
        asked("<image>", image=["../images/9.png"]),
        asked("<image>", image=["nlvr2/images/5.png"]),
    ]
    write(tmp_path / "m4_instruct_annotations.json", records)
    samples = read("m4_instruct", data=str(tmp_path))
    assert samples[0]["subset"] == "m4_instruct_annotations"
    assert said(samples[1])[0] == ("user", "One [i]\ntwo [i]")
    assert [i["bytes"] for i in samples[1]["images"]] == [png(seed=7), png(seed=1)]
    defects = [s["defect"] for s in samples]
    assert defects == [None, None, "unsafe_path", "broken_archive"]


def test_llava_cot_reads_a_zip_in_pieces_and_marks_thought(tmp_path):
    whole = zipped(
        tmp_path / "image.zip", [(f"coco/{n}.png", png(64, 64, seed=n)) for n in range(3)]
    )
    data = whole.read_bytes()
    whole.unlink()
    for piece, start in zip(
        ("aa", "ab", "ac"), range(0, len(data), len(data) // 3 + 1), strict=True
    ):
        write(tmp_path / f"image.zip.part-{piece}", data[start : start + len(data) // 3 + 1])
    stages = "<SUMMARY> s </SUMMARY> <REASONING> r </REASONING> <CONCLUSION> B </CONCLUSION>"
    records = [asked("Q", answer=stages, image=f"coco/{n}.png") for n in range(4)]
    write_lines(tmp_path / "train.jsonl", records)
    samples = read("llava_cot", data=str(tmp_path))
    assert [s["defect"] for s in samples] == [None, None, None, "missing_media"]
    assert samples[0]["tags"] == ["cot"]
    assert samples[0]["answer"] == "B"
    assert said(samples[0]) == [("user", "[i]Q"), ("assistant", stages)]
    assert samples[2]["images"][0]["bytes"] == png(64, 64, seed=2)


def test_members_are_bounded_and_links_are_no_members(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("big.bin")
        info.size = 10_000_000
        tar.addfile(info, io.BytesIO(b"\0" * 10_000_000))
    (archive,) = archives_of(list_tree(str(tmp_path)).files)
    ((name, data),) = walk_tar(archive, limit=1_000_000)
    assert (name, data.reason) == ("big.bin", "too_many_bytes")


# ------------------------------------------------------------------ chats and documents


def test_keep_reads_whole_parts_and_says_which_share(tmp_path, monkeypatch):
    from pipelines.reading import splitting

    monkeypatch.setattr(splitting, "PART_BYTES", 1)
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"text": f"Doc {n}"} for n in range(100)], group=2)
    parts_of = lambda **k: list_parts(source="documents", data=str(path), **k)
    every = parts_of()
    assert [part.number for part in every] == list(range(50))
    some = parts_of(select={"default": {"keep": 0.1}}, seed=3)
    more = parts_of(select={"default": {"keep": 0.3}}, seed=3)
    assert len(some) == 5
    assert {part.name for part in some} < {part.name for part in more}
    assert {part.share for part in some} == {0.1}
    assert some[0].identity == every[0].identity
    few = parts_of(select={"default": {"max_samples": 8}}, seed=3)
    assert sum(part.rows for part in few) == 10


def test_identity_knows_content_and_not_place(tmp_path):
    import os
    import shutil

    first = write(tmp_path / "one" / "a.json", [asked("Q", image="a.png")])
    write(tmp_path / "one" / "a.png", png())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    identity = lambda where, **k: list_parts(source="llava", data=str(where), **k)[0].identity
    before = identity(tmp_path / "one")
    assert before == identity(tmp_path / "two")
    assert str(tmp_path) not in json.dumps(before)
    assert before != identity(tmp_path / "one", frames={"fps": 2})
    os.utime(first, ns=(1, 1))
    assert before == identity(tmp_path / "one")
    write(first, [asked("R", image="a.png")])
    assert before != identity(tmp_path / "one")
    write(tmp_path / "two" / "b.png", png())
    assert before == identity(tmp_path / "two")
    write(tmp_path / "two" / "a.png", png(seed=1))
    assert before != identity(tmp_path / "two")


def test_frames_come_out_at_their_seconds(tmp_path):
    encoded_video(tmp_path / "v.mp4", seconds=5)
    write(tmp_path / "a.json", [asked("<video>Q", video="v.mp4")])
    (sample,) = read("llava", data=str(tmp_path), frames={"fps": 1, "max_frames": 8, "size": 32})
    seconds = [round(i["seconds"], 1) for i in sample["images"]]
    assert seconds == [0.0, 1.2, 2.4, 3.7, 4.9]
    assert levels(sample["images"]) == pytest.approx([s * 50 for s in seconds], abs=4)
    assert {(i["width"], i["height"]) for i in sample["images"]} == {(32, 24)}
