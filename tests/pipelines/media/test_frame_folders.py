"""Videos that come as folders of images: LLaVA-Hound in its layout, and folders of your own."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.media import frame_folders
from pipelines.media import video as frames
from tests.pipelines.sources.making import levels, png, read, said, tar, write

NAMES = [f"c01_{n:04d}.jpeg" for n in range(1, 13)]
"""Six seconds of LLaVA-Hound."""


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def shade(level, kind="JPEG", size=(64, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, kind)
    return buffer.getvalue()


def shot(folder, names=NAMES):
    """(member, bytes) of a video whose n-th frame is of level 20 n."""
    return [(f"{folder}/{name}", shade(20 * n)) for n, name in enumerate(names)]


def asked(video):
    turns = [{"from": "human", "value": "<video>\nQ"}, {"from": "gpt", "value": "A"}]
    return {"id": "x", "conversations": turns, "video": video}


def hound(tmp_path, *videos):
    """The annotations, where LLaVA-Video-178K has them."""
    rows = [asked(f"shareVideoGPTV/frames/all_frames/{name}") for name in videos]
    write(tmp_path / "repo/llava_hound/sharegptvideo_qa_255k_processed.json", rows)
    return {"data": str(tmp_path / "repo"), "subsets": ["llava_hound"]}


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip", "unpacked", "where the loader wants it"])
def test_llava_hound_wherever_its_frames_lie(tmp_path, kind):
    """Two chunks; one video is not there, of one a frame is broken, of one its chunk breaks off."""
    broken = [(name, data[:300] if "0008" in name else data) for name, data in shot("v_broken")]
    chunks = [[*shot("v_one"), *broken, ("v_one.txt", b"?")], shot("../v_two")]
    settings = hound(tmp_path, "v_one", "v_gone", "v_broken", "v_two", "v_one")
    media = tmp_path / "train_300k"
    if kind == "where the loader wants it":
        media = tmp_path / "repo/llava_hound"
    else:
        settings["media"] = str(media)
    for number, members in enumerate(chunks):
        if kind.startswith("tar"):
            tar(media / f"chunk_{number}.{kind}", members, "w:gz" if kind == "tar.gz" else "w")
        elif kind == "zip":
            media.mkdir(exist_ok=True)
            with zipfile.ZipFile(media / f"chunk_{number}.zip", "w") as archive:
                for name, data in members:
                    archive.writestr(name, data)
        else:
            above = "" if kind == "unpacked" else "shareVideoGPTV/frames/all_frames/"
            for name, data in members:
                write(media / f"{above}{name.removeprefix('../')}", data)
    frames_ = {"fps": 1, "max_frames": 8, "size": 64}
    samples = read("llava_video", **settings, frames=frames_)
    assert [s["defect"] for s in samples] == [
        None,
        "missing_media",
        "undecodable_image",
        None,
        None,
    ]
    one = samples[0]
    assert one["duration"] == 6
    assert said(one)[0] == ("user", "[i]" * 6 + "Q")
    # six instants over 5.5 s, first and last frame among them: each takes the nearest
    assert [i["seconds"] for i in one["images"]] == [0, 1, 2, 3.5, 4.5, 5.5]
    assert levels(one["images"]) == pytest.approx([0, 40, 80, 140, 180, 220], abs=2)
    assert samples[3]["images"] == one["images"] == samples[4]["images"]


def test_an_archive_that_breaks_off_in_a_folder_costs_that_video(tmp_path):
    path = tmp_path / "train_300k" / "chunk_0.tar.gz"
    noise = [(f"v_two/{n}.png", png(64, 64, seed=n)) for n in range(4)]
    tar(path, [*shot("v_one"), *noise], "w:gz")
    path.write_bytes(path.read_bytes()[:-9000])
    samples = read("llava_video", **hound(tmp_path, "v_one", "v_two"), media=str(path.parent))
    assert [s["defect"] for s in samples] == [None, "broken_archive"]


def test_frames_that_do_not_stand_together_are_an_error_that_says_so(tmp_path):
    path = tmp_path / "train_300k" / "chunk_0.tar.gz"
    first, last = shot("v_one")[:6], shot("v_one")[6:]
    tar(path, [*first, *shot("v_two"), *last], "w:gz")
    settings = hound(tmp_path, "v_one") | {"media": str(path.parent)}
    with pytest.raises(ValueError, match=r"chunk_0.tar.gz: the frames in v_one do not stand"):
        read("llava_video", **settings)
    settings = hound(tmp_path, "v_two") | {"media": str(path.parent)}
    assert read("llava_video", **settings)[0]["defect"] is None  # of a video that nobody wants


def test_a_folder_of_frames_is_bounded(tmp_path, monkeypatch):
    from pipelines.reading import archive_order

    path = tmp_path / "train_300k" / "chunk_0.tar.gz"
    tar(path, [*shot("v_one"), *shot("v_two", NAMES[:2])], "w:gz")
    monkeypatch.setattr(archive_order, "FOLDER_BYTES", 4 * len(shade(0)))
    samples = read("llava_video", **hound(tmp_path, "v_one", "v_two"), media=str(path.parent))
    assert [s["defect"] for s in samples] == ["too_many_bytes", None]


def test_a_path_out_of_its_folder_is_not_followed(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / "secret" / name, shade(0))
    settings = hound(tmp_path, "../../../../secret")
    (sample,) = read("llava_video", **settings, media=str(tmp_path / "repo"))
    assert sample["defect"] == "unsafe_path"


def test_folders_of_your_own_count_a_frame_a_second_in_natural_order(tmp_path):
    for name, data in shot("clips/dog", [f"f{n}.png" for n in range(12)]):
        write(tmp_path / name, data)
    write(tmp_path / "clips/dog/notes.txt", "no frame")
    write(tmp_path / "a.json", [asked("clips/dog"), asked("clips")])
    sample, empty = read("llava", data=str(tmp_path), frames={"fps": 1, "size": 32})
    assert empty["defect"] == "missing_media"
    assert sample["duration"] == 12
    assert [i["seconds"] for i in sample["images"]] == list(range(12))
    assert levels(sample["images"]) == pytest.approx([20 * n for n in range(12)], abs=2)
    assert {(i["width"], i["height"]) for i in sample["images"]} == {(32, 24)}


@settings(max_examples=30)
@given(
    st.integers(1, 300),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.integers(1, 16),
)
def test_frames_are_chosen_as_of_a_video_with_those_timestamps(count, rate, fps, most):
    data = shade(7)
    asked_for = []
    folder = frame_folders.Folder(
        tuple(str(n) for n in range(count)), lambda n: asked_for.append(n) or data
    )
    clip = frame_folders.clip_of_folder(
        folder, rate=rate, fps=fps, max_frames=most, size=64, start=0, end=float("inf")
    )
    times = [n / rate for n in range(count)]
    wanted = frames.frame_instants(count / rate, fps=fps, max_frames=most, last=times[-1])
    assert asked_for == frames.nearest_frames(frames.np.array(times), wanted).tolist()
    assert clip.seconds == tuple(times[n] for n in asked_for)
    assert clip.duration == count / rate
    assert set(clip.frames) == {data}  # small enough: not encoded again
