"""The hub, read through the real client against a server on loopback."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from tests.hub_routes import COMMIT
from tests.hub_server import Fault, Hub
from tests.pipelines.sources.making import (
    IMAGE,
    TEXTS,
    cell,
    encoded_video,
    png,
    qa,
    write,
    write_parquet,
)

ROOT = Path(__file__).parents[3]
CAULDRON = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])


@pytest.fixture
def hub(tmp_path):
    """A hub that holds a small Cauldron and a small LLaVA-Video-178K."""
    rows = [
        {"images": [cell(png(64, 64, seed=n))], "texts": qa((f"Q{n}", f"A{n}"))} for n in range(60)
    ]
    folder = tmp_path / "hub" / "HuggingFaceM4" / "the_cauldron"
    for number in range(3):
        name = f"train-{number:05d}-of-00003-ab.parquet"
        some = rows[number * 20 : number * 20 + 20]
        write_parquet(folder / "ai2d" / name, some, schema=CAULDRON, group=5)
    write_parquet(folder / "vqav2" / "train-00000-of-00001.parquet", rows[::3], schema=CAULDRON)
    write(folder / "README.md", "small")
    with Hub(tmp_path / "hub") as made:
        yield made


@pytest.fixture
def read(hub, tmp_path, hub_python):
    """Gives what `tests.pipelines.reading.read_hub` says."""

    def said(token="", **settings):
        words = ("-m", "tests.pipelines.reading.read_hub", json.dumps(settings))
        done = hub_python.run(*words, environment=hub.environment(tmp_path, token=token))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return said


def test_a_subset_is_read_at_its_commit_and_nothing_else_is_fetched(hub, tmp_path, read):
    found = read(source="cauldron", subsets=["ai2d"])
    assert found["ids"] == [f"cauldron/ai2d/{n:06d}" for n in range(60)]
    assert set(found["defects"]) == {None}
    assert found["identity"]["revision"] == COMMIT
    assert set(hub.served) == {f"ai2d/train-{n:05d}-of-00003-ab.parquet" for n in range(3)}
    resolved = [path for _, path in hub.requests if "/resolve/" in path]
    assert all(f"/resolve/{COMMIT}/" in path for path in resolved)


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub, tmp_path, read):
    hub.gated = "hf_good"
    found = read(token="hf_good", source="cauldron", subsets=["vqav2"])
    assert len(found["ids"]) == 20
    assert {sent for path, sent in hub.tokens if "/api/" in path} == {"Bearer hf_good"}
    assert {sent for path, sent in hub.tokens if path.startswith("/lfs/")} == {""}


@pytest.mark.parametrize("token", ["", "hf_stranger"])
def test_a_gate_says_where_to_ask(hub, tmp_path, token, read):
    hub.gated = "hf_good"
    found = read(token=token, source="cauldron")
    assert found["error"] == "ValueError"
    assert "https://huggingface.co/datasets/HuggingFaceM4/the_cauldron" in found["message"]
    assert "HF_TOKEN" in found["message"]


def test_what_is_not_there_is_said(hub, tmp_path, read):
    found = read(source="docmatix")
    assert "no such dataset" in found["message"]
    found = read(source="cauldron", subsets=["ai2dd"])
    assert "Did you mean 'ai2d'?" in found["message"]
    url = "hf://datasets/HuggingFaceM4/the_cauldron@v9"
    assert "no such revision" in read(source="cauldron", data=url)["message"]


@pytest.mark.parametrize(
    "faults", [[{"status": 429}, {"status": 0}], [{"status": 500}, {"cut": True}]]
)
def test_faults_are_tried_again(hub, tmp_path, faults, read):
    places = ["/api/datasets/HuggingFaceM4/the_cauldron/revision", "/tree/", "/resolve/", "/lfs/"]
    hub.faults = [Fault("GET|HEAD|POST", place, **fault) for place in places for fault in faults]
    found = read(source="cauldron", subsets=["vqav2"])
    assert found.get("ids") == [f"cauldron/vqav2/{n:06d}" for n in range(20)], found
    assert not any(fault.times for fault in hub.faults)


def test_keep_fetches_its_parts_and_plans_their_bytes(hub, tmp_path, read):
    folder = hub.root / "HuggingFaceM4/the_cauldron/ai2d"
    total = sum(path.stat().st_size for path in folder.iterdir())
    small = {"part_bytes": 100_000, "block": 16_384, "subsets": ["ai2d"]}
    every = read(source="cauldron", parts=0, **small)
    footers = sum(hub.served.values())
    assert footers < 3 * 2**16 + 1
    assert sum(every["num_bytes"]) == pytest.approx(total, rel=0.1)
    hub.served.clear()
    select = {"ai2d": {"keep": 0.2}}
    some = read(source="cauldron", select=select, **small)
    assert len(some["num_bytes"]) < len(every["num_bytes"])
    assert len(some["ids"]) == sum(some["rows"]) < 60
    assert some["share"][0] == pytest.approx(sum(some["rows"]) / 60)
    fetched = sum(hub.served.values()) - footers
    assert fetched < sum(some["num_bytes"]) + len(some["ids"]) * 16_384 < total


def test_a_repository_of_your_own_by_url(hub, tmp_path, read):
    write_parquet(hub.root / "me/mine/sub/data/a.parquet", [{"text": "One."}])
    found = read(source="documents", data="hf://datasets/me/mine/sub")
    assert found["ids"] == ["documents/default/000000"]
    found = read(source="documents", data="hf://datasets/me/mine/sub/data/*.parquet")
    assert found["ids"] == ["documents/default/000000"]


def test_json_beside_tar_gz_reads_the_archive_once(hub, tmp_path, read):
    folder = hub.root / "lmms-lab/LLaVA-Video-178K/0_30_s_academic_v0_1"
    clip = encoded_video(tmp_path / "v.mp4", seconds=2).read_bytes()
    turns = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]
    records = [{"conversations": turns, "video": f"s/{n}.mp4", "id": str(n)} for n in range(4)]
    write(folder / "0_30_s_academic_v0_1_cap_processed.json", records)
    noise = os.urandom(300_000)
    with tarfile.open(folder / "videos_1.tar.gz", "w:gz") as tar:
        for name, data in [("s/0.mp4", clip), ("x", noise), ("s/1.mp4", clip), ("s/2.mp4", clip)]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = read(source="llava_video")
    assert sorted(found["ids"])[0] == "llava_video/0_30_s_academic_v0_1/000000"
    by_id = dict(zip(found["ids"], found["defects"], strict=True))
    assert [by_id[i] for i in sorted(by_id)] == [None, None, None, "missing_media"]
    size = (folder / "videos_1.tar.gz").stat().st_size
    assert hub.served["0_30_s_academic_v0_1/videos_1.tar.gz"] == size


def mammoth(hub, images, *, archives):
    """A small MAmmoTH-VL: annotations of 200 kB, their images in archives or one by one."""
    folder = hub.root / "MAmmoTH-VL/MAmmoTH-VL-Instruct-12M"
    turns = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A" * 300}]
    records = [
        {"id": str(n), "source": "made", "image": f"p/{n}.png", "conversations": turns}
        for n in range(images)
    ]
    write(folder / "mammoth_si_10M.json", records)
    for number in range(archives):
        path = folder / f"single_image_data/{number}.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            for n in range(number, images, archives):
                info = tarfile.TarInfo(f"p/{n}.png")
                info.size = len(data := png(8, 8, seed=n))
                tar.addfile(info, io.BytesIO(data))
    return folder


LARGE = {"SCANNED": 10_000, "PROBE": 4_000, "BLOCK": 2_000, "AHEAD": 500}
"""Annotations of 10 kB count as large."""


def test_large_annotations_are_not_fetched_at_planning_and_by_blocks_at_reading(
    hub, tmp_path, read
):
    """Few samples of an archive: the bytes served are those that the plan says, about."""
    folder = mammoth(hub, 500, archives=2)
    size = (folder / "mammoth_si_10M.json").stat().st_size
    assert size > 200_000
    settings = {"source": "mammoth_vl", "annotations": LARGE, "subsets": ["mammoth_si_10M"]}
    settings["select"] = {"mammoth_si_10M": {"max_samples": 20}}
    found = read(**settings, parts=0)
    assert hub.served == {"mammoth_si_10M.json": 4_500}  # the probe, to the end of its last row
    hub.served.clear()
    found = read(**settings)
    assert 15 <= len(found["ids"]) <= 90
    assert set(found["defects"]) == {None}
    (archive,) = [name for name in hub.served if name.endswith(".tar.gz")]
    assert hub.served[archive] == (folder / archive).stat().st_size
    assert hub.served["mammoth_si_10M.json"] < size / 3
    assert sum(hub.served.values()) == pytest.approx(found["num_bytes"][0], rel=0.6)


def test_images_in_a_zip_come_one_by_one(hub, tmp_path, read):
    """Of the zip, its directory and the members that are named."""
    folder = mammoth(hub, 500, archives=0)
    (folder / "single_image_data").mkdir()
    with zipfile.ZipFile(folder / "single_image_data/0.zip", "w") as archive:
        for n in range(500):
            archive.writestr(f"p/{n}.png", png(16, 16, seed=n))
        size, directory = archive.fp.tell(), 500 * 60
    settings = {"source": "mammoth_vl", "annotations": LARGE, "subsets": ["mammoth_si_10M"]}
    settings |= {"select": {"mammoth_si_10M": {"max_samples": 5}}, "part_bytes": 4_000}
    found = read(**settings, piece=500, block=100_000)
    assert 5 <= len(found["ids"]) <= 20
    assert set(found["defects"]) == {None}
    assert hub.served["mammoth_si_10M.json"] < 20_000
    assert hub.served["single_image_data/0.zip"] < directory + 70_000 + 1_700 * len(found["ids"])
    assert hub.served["single_image_data/0.zip"] < size / 3
