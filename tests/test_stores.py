"""Data, work and output on object stores that speak over loopback, whole and disturbed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipelines.__main__ import main
from pipelines.engine import tables
from tests.breaking import FOR_EVER, Breaking, Fault
from tests.building import words
from tests.gcs_server import Gcs
from tests.hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore")  # of the stores' own packages


@pytest.fixture(scope="module")
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def store(request, monkeypatch) -> Iterator[tuple[str, Breaking]]:
    """A bucket's URL, and the proxy through which this process reaches it."""
    kind = request.param
    name = f"b{abs(hash(request.node.name)) % 10**8}"
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_GCE_CHECK": "true",
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    gcs = Gcs(name) if kind == "gs" else None
    host, port = ("127.0.0.1", gcs.port) if gcs else request.getfixturevalue("moto")
    fsspec.get_filesystem_class(kind).clear_instance_cache()
    with Breaking(host, port) as proxy:
        variable = "STORAGE_EMULATOR_HOST" if gcs else "AWS_ENDPOINT_URL"
        monkeypatch.setenv(variable, proxy.url)
        if gcs:
            with gcs:
                yield f"gs://{name}", proxy
        else:
            fsspec.filesystem("s3").mkdir(name)
            yield f"s3://{name}", proxy
    fsspec.get_filesystem_class(kind).clear_instance_cache()


def moved(world: Path, url: str, tmp_path: Path) -> Path:
    """The mixture whose repositories lie under the URL."""
    for path in world.parent.rglob("*.parquet"):
        with tables.atomic_file(f"{url}/{path.relative_to(world.parent)}") as file:
            file.write(path.read_bytes())
    there = tmp_path / "small.yaml"
    there.write_text(world.read_text().replace(str(world.parent), url))
    return there


def assert_same(mix: Path, url: str) -> None:
    names = tables.listing(f"{url}/mix/shards")
    assert names == tables.listing(mix / "shards")
    for name in ("index.arrow", *(f"shards/{name}" for name in names)):
        assert tables.read_bytes(f"{url}/mix/{name}") == (mix / name).read_bytes(), name
    assert tables.listing(f"{url}/mix") == [
        "README.md", "index.arrow", "mixture.yaml", "recipe.json", "shards",
        "stats.json", "tokenizer",
    ]  # fmt: skip


def test_a_mixture_from_and_on_an_object_store_is_the_same(world, mix, tmp_path, store, capsys):
    url, _ = store
    mixture = moved(world, url, tmp_path)
    assert main(words(mixture, url)) == 0
    assert_same(mix, url)
    capsys.readouterr()
    assert main(words(mixture, url)) == 0
    assert "nothing to do" in capsys.readouterr().out


FAULTS = [
    ("GET", r"parquet", "short"),
    ("GET", r"parquet", 500),
    ("GET", r"arrow", "short"),
    ("GET", r"arrow", "reset"),
    ("GET", r"", 503),
    ("HEAD", r"arrow", 503),
    ("HEAD", r"arrow", "reset"),
    ("PUT", r"arrow", 503),
    ("PUT", r"arrow", "reset"),
    ("PUT", r"arrow", "lost"),
    ("PUT", r"json", 500),
    ("POST", r"upload", 503),
    ("POST", r"upload", "reset"),
    ("POST", r"upload", "lost"),
]
"""S3 writes by PUT and looks by HEAD, GCS by POST and GET."""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_store_that_fails_now_and_then_changes_nothing(world, mix, tmp_path, store, times):
    url, proxy = store
    mixture = moved(world, url, tmp_path)
    proxy.faults += [Fault(*fault, times=times) for fault in FAULTS]
    assert main(words(mixture, url)) == 0
    there = {"s3": ("GET", "HEAD", "PUT"), "gs": ("GET", "POST")}[url[:2]]
    assert [f for f in proxy.faults if f.method in there and f.times] == []
    assert_same(mix, url)


@pytest.mark.slow
def test_a_store_that_stays_broken_is_said_and_the_build_goes_on_later(
    world, mix, tmp_path, store, monkeypatch, capsys
):
    url, proxy = store
    monkeypatch.setattr(tables, "ATTEMPTS", 2)
    mixture = moved(world, url, tmp_path)
    proxy.faults += [Fault(m, r"shards.*00001", 503, times=FOR_EVER) for m in ("PUT", "POST")]
    with pytest.raises(Exception, match=r"503|SlowDown|reduce") as caught:
        main(words(mixture, url))
    assert any("stage " in note for note in caught.value.__notes__)
    assert not tables.exists(f"{url}/mix/recipe.json")
    proxy.faults.clear()
    assert main(words(mixture, url)) == 0
    assert_same(mix, url)


@pytest.mark.slow
def test_two_builds_at_once_on_a_store_without_locks_are_both_right(world, mix, tmp_path, store):
    url, _ = store
    mixture = moved(world, url, tmp_path)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", *words(mixture, url)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_same(mix, url)


@pytest.mark.slow
def test_a_large_write_that_fails_leaves_no_file_and_no_parts(store, monkeypatch):
    """101 MiB go up in parts; the second never arrives."""
    url, proxy = store
    monkeypatch.setattr(tables, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.faults += [Fault("PUT", "partNumber=2", 503, times=FOR_EVER)]
    if url.startswith("gs"):
        proxy.faults[:] = [Fault("POST", "upload_id", 503, times=FOR_EVER)]

    def write() -> None:
        with tables.atomic_file(f"{url}/large") as file:
            file.write(bytes(101 << 20))

    with pytest.raises(Exception, match=r"503|SlowDown|reduce"):
        write()
    assert not tables.exists(f"{url}/large")
    if url.startswith("s3"):
        uploads = fsspec.filesystem("s3").call_s3("list_multipart_uploads", Bucket=url[5:])
        assert "Uploads" not in uploads
    proxy.faults.clear()
    write()
    assert tables.size(f"{url}/large") == 101 << 20


@pytest.mark.slow
def test_a_mixture_on_the_hub_is_the_same(world, mix, tmp_path):
    """`output=hf://`: every file is a commit; made by a process that knows only that hub."""
    with Hub() as hub:
        code = (
            "import sys; from huggingface_hub import create_repo; "
            "create_repo('me/mix', repo_type='dataset'); "
            "from pipelines.__main__ import main; sys.exit(main(sys.argv[1:]))"
        )
        url = "hf://datasets/me/mix"
        place = [f"mixture={world}", f"output={url}", f"work={tmp_path}/work", "workers=0"]
        ran = subprocess.run(
            [sys.executable, "-c", code, "build", *place],
            env=hub_environment(hub.url, tmp_path), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        names = {f"shards/{name}" for name in tables.listing(mix / "shards")}
        assert names <= hub.files("me/mix")
        for name in ("index.arrow", *names):
            assert hub.file("me/mix", name) == (mix / name).read_bytes()
        assert ".building.json" not in hub.files("me/mix")


def hub_environment(url: str, home: Path) -> dict[str, str]:
    import os

    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_test",
    }
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    return environment
