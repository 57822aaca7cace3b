"""A mixture at a URL is trained on as if it were here, whatever part of it the cache can hold."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.conftest import Settings
from tests.trainer.shards import pack, sample, write
from trainer.data import cache
from trainer.data.batches import Loader
from trainer.data.shards import Rows, open_mixture
from trainer.loop import train

IMAGE = 49190
SHARDS = 6


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an S3 bucket on loopback that holds `toy`, a mixture of six shards."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("mixes")
        yield "s3://mixes/toy"
    server.stop()


@pytest.fixture(scope="module")
def here(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same mixture on disk."""
    import fsspec

    kinds = ("image", "text", "images")
    rows = pack([sample(i, kinds[i % 3]) for i in range(60)])
    folder = write(tmp_path_factory.mktemp("mixes") / "toy", rows, val=rows[:2], shards=SHARDS)
    fsspec.filesystem("s3").put(str(folder), bucket, recursive=True)
    return folder


def sizes(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob("shards/train-*.arrow"))


def held(place: Path) -> int:
    """Bytes of shards in the cache, drafts too, between two times that room is made."""
    found = {}
    place.mkdir(exist_ok=True)
    with cache.cache_lock(place / ".lock"):
        for path in place.glob("*/shards/*"):
            with contextlib.suppress(FileNotFoundError):  # a draft that has just got its name
                found[path.stat().st_ino] = path.stat().st_size
    return sum(found.values())


def loader(config: object, *, rank: int = 0, ranks: int = 1) -> Loader:
    cost = lambda tokens, **_: tokens.astype(float)
    return Loader(config, image_token=IMAGE, rank=rank, ranks=ranks, cost=cost)  # type: ignore[arg-type]


@pytest.mark.parametrize("windows", [1, 2])
def test_a_cache_of_a_few_shards_gives_the_rows_of_the_whole(
    bucket: str, here: Path, tmp_path: Path, windows: int
) -> None:
    bound = sum(sizes(here)[-2 * windows :])
    settings = Settings(here, tmp_path / "run")
    there = settings(
        data=bucket, cache=tmp_path / "cache", cache_bytes=bound, shuffle_shards=2, prefetch=2
    )
    near, far = loader(settings(shuffle_shards=2)), loader(there)
    assert (far.ahead > 0) == (windows == 2)
    steps = 2 * len(near.splits[0]) // near.config.batch_rows
    most = 0
    for (step, batches), (same, others) in zip(
        near.steps(0, steps), far.steps(0, steps), strict=True
    ):
        assert step == same
        for batch, other in zip(batches, others, strict=True):
            assert batch.sample_ids == other.sample_ids
            assert batch.pixels.equal(other.pixels)
            assert batch.input_ids.equal(other.input_ids)
        most = max(most, held(tmp_path / "cache"))
    assert 0 < most <= bound < sum(sizes(here))
    halfway = loader(there).plan(steps // 2 * near.config.batch_rows)  # a run that goes on
    assert halfway == near.plan(steps // 2 * near.config.batch_rows)


def test_runs_of_rows_that_lie_in_many_shards_are_all_at_hand(here: Path, tmp_path: Path) -> None:
    """Of a mixture whose ratios follow a schedule: rows keep their order but for each run's."""
    folder = tmp_path / "scheduled"
    shutil.copytree(here, folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["mixture"]["components"] = {"images": {"schedule": [[0, 1.0]]}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    settings = Settings(folder, tmp_path / "run")
    rows = Rows(open_mixture(str(folder)), "train").shard_rows
    mixed = rows[0] + rows[1] + 1  # a run begins in one shard and ends in the next but one
    there = {"data": f"file://{folder}", "cache": tmp_path / "cache", "shuffle_rows": mixed}
    whole = sum(sizes(here)[-3:])
    with pytest.raises(ValueError, match=r"(?s)\(3 of toy\) have .* fewer shuffle_rows"):
        loader(settings(cache_bytes=whole - 1, **there))
    assert loader(settings(cache_bytes=whole, **there)).ahead == 0
    roomy = loader(settings(cache_bytes=sum(sizes(here)), **there))
    assert roomy.ahead > 0
    few = loader(settings(cache_bytes=sum(sizes(here)[-2:]), **there | {"shuffle_rows": 2}))
    assert few.ahead == 0
    near = loader(settings(shuffle_rows=mixed))
    steps = len(near.splits[0]) // near.config.batch_rows
    for number in range(steps):
        position = number * near.config.batch_rows
        assert near.plan(position) == roomy.plan(position)


def test_processes_of_one_machine_share_a_cache_and_its_bound(here: Path, tmp_path: Path) -> None:
    bound = sum(sizes(here)[-2:])
    code = (
        "import sys; from trainer.data import cache\n"
        "url, place, bound, turn = sys.argv[1:]\n"
        "remote = cache.cached_mixture(url, cache=place, max_bytes=int(bound))\n"
        "names = sorted(name for name in remote.sizes if name.startswith('train'))\n"
        "for n in range(60):\n"
        "    path = cache.fetch(remote, names[(n * (1 + int(turn))) % len(names)])\n"
        "    try: print(path.name, len(path.read_bytes()))\n"
        "    except FileNotFoundError: print(path.name, 'went')\n"
    )
    words = [sys.executable, "-c", code, f"file://{here}", str(tmp_path / "cache"), str(bound)]
    running = [
        subprocess.Popen([*words, str(turn)], stdout=subprocess.PIPE, text=True)
        for turn in range(2)
    ]
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, held(tmp_path / "cache"))
    said = [process.communicate()[0].split("\n")[:-1] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [len(lines) for lines in said] == [60, 60]
    whole = {p.name: str(p.stat().st_size) for p in here.glob("shards/*.arrow")}
    for name, size in (line.split() for lines in said for line in lines):
        assert size in (whole[name], "went")
    assert 0 < most <= bound


def test_a_draft_that_a_dead_process_left_is_taken_over(
    bucket: str, here: Path, tmp_path: Path
) -> None:
    bound = sum(sizes(here)[-2:])
    remote = cache.cached_mixture(bucket, cache=str(tmp_path), max_bytes=bound)
    for name in ("train-00000.arrow", "train-00001.arrow"):  # both whole bound's worth of nothing
        (remote.folder / "shards" / f".{name}.arriving").write_bytes(bytes(remote.sizes[name]))
    path = cache.fetch(remote, "train-00000.arrow")
    assert path.read_bytes() == (here / "shards" / "train-00000.arrow").read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["train-00000.arrow"]


def test_threads_that_want_one_shard_read_it_once(
    bucket: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = cache.cached_mixture(bucket, cache=str(tmp_path), max_bytes=0)
    read = []
    download = cache.download
    monkeypatch.setattr(cache, "download", lambda *args: (read.append(args[1]), download(*args)))
    threads = [
        threading.Thread(target=cache.fetch, args=(remote, "train-00000.arrow")) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == ["train-00000.arrow"]


def test_the_least_recently_used_goes(bucket: str, here: Path, tmp_path: Path) -> None:
    names = [f"train-{n:05d}.arrow" for n in range(3)]
    whole = cache.cached_mixture(bucket, cache=str(tmp_path), max_bytes=0)
    bound = sum(whole.sizes[name] for name in names) - 1
    remote = cache.cached_mixture(bucket, cache=str(tmp_path), max_bytes=bound)
    for turn, name in enumerate([names[0], names[1], names[0]]):
        os.utime(cache.fetch(remote, name), (turn, turn))
    cache.fetch(remote, names[2])
    assert sorted(p.name for p in (remote.folder / "shards").iterdir()) == [names[0], names[2]]


def test_rows_are_counted_without_reading_the_shards(
    bucket: str, here: Path, tmp_path: Path
) -> None:
    there = Rows(open_mixture(bucket, cache=str(tmp_path)), "train")
    assert there.shard_rows == Rows(open_mixture(str(here)), "train").shard_rows
    assert held(tmp_path) == 0


def test_a_cache_that_cannot_hold_what_is_shuffled_is_refused(
    bucket: str, here: Path, tmp_path: Path
) -> None:
    settings = Settings(here, tmp_path / "run")
    message = r"(?s)cache_bytes is 1,000, .* \(6 of toy.*shuffle_shards below"
    with pytest.raises(ValueError, match=message):
        loader(settings(data=bucket, cache=tmp_path, cache_bytes=1000))


def test_a_training_from_a_store_is_the_training_from_disk(
    bucket: str, here: Path, tmp_path: Path
) -> None:
    """Two epochs and the held-out rows, with a cache of two of the six shards."""
    bound = sum(sizes(here)[-2:])
    settings = Settings(here, tmp_path / "near")
    far = {"data": bucket, "cache": tmp_path / "cache", "cache_bytes": bound}
    alike = {"shuffle_shards": 2, "steps": 0, "epochs": 2}
    runs = [
        train(settings(**alike)).parent,
        train(settings(**alike, **far, output=tmp_path / "far")).parent,
    ]
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in runs
    ]
    for near, other in zip(*logs, strict=True):
        assert near.get("loss") == other.get("loss")
        assert near.get("held_out") == other.get("held_out")
    last = [max(run.rglob("model.safetensors"), key=str) for run in runs]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert 0 < held(tmp_path / "cache") <= bound
