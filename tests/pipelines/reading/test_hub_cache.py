"""What lies in the hub client's cache is read there, and with HF_HUB_OFFLINE nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.reading import hub_cache
from tests.hub_routes import COMMIT, git_oid
from tests.hub_server import Hub
from tests.pipelines.reading.test_hub import CAULDRON
from tests.pipelines.sources.making import cell, png, qa, write, write_parquet

REPO = "HuggingFaceM4/the_cauldron"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A small Cauldron: ai2d in three files, vqav2 in one, and a card."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / REPO
    rows = [
        {"images": [cell(png(32, 32, seed=n))], "texts": qa((f"Q{n}", f"A{n}"))} for n in range(12)
    ]
    for number in range(3):
        name = f"ai2d/train-{number:05d}-of-00003-ab.parquet"
        write_parquet(folder / name, rows[number * 4 : number * 4 + 4], schema=CAULDRON, group=2)
    write_parquet(folder / "vqav2" / "train-00000-of-00001.parquet", rows[::3], schema=CAULDRON)
    write(folder / "README.md", "small")
    with Hub(root) as made:
        yield made


@pytest.fixture(scope="module")
def child(hub, hub_python):
    """Gives what a process prints whose hub this is and whose cache lies in `home`."""

    def said(home: Path, *words: str, offline: bool = False) -> str:
        environment = hub.environment(home) | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        done = hub_python.run(*words, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return said


def read(child: Callable[..., str], home: Path, *, offline: bool = False, **settings) -> dict:
    words = ("-m", "tests.pipelines.reading.read_hub", json.dumps(settings))
    return json.loads(child(home, *words, offline=offline))


def fetch(child: Callable[..., str], home: Path, *patterns: str) -> None:
    """The client itself fills the cache."""
    code = f"from huggingface_hub import snapshot_download as s; s({REPO!r}, repo_type='dataset'"
    child(home, "-c", code + (f", allow_patterns={list(patterns)!r})" if patterns else ")"))


def fetch_each(child: Callable[..., str], home: Path, *names: str) -> None:
    """The same, file by file: no list of the repository is kept."""
    code = "from huggingface_hub import hf_hub_download as d\n"
    calls = [f"d({REPO!r}, {name!r}, repo_type='dataset')" for name in names]
    child(home, "-c", code + "\n".join(calls))


def of_repository(home: Path) -> Path:
    return hub_cache.repository_folder(home / "hf" / "hub", REPO)


SETTINGS = {"source": "cauldron", "subsets": ["ai2d"]}


@pytest.fixture(scope="module")
def online(child, tmp_path_factory):
    return read(child, tmp_path_factory.mktemp("online"), **SETTINGS)


def test_a_cached_repository_is_not_fetched_again_and_offline_it_is_the_same(
    hub, tmp_path, online, child
):
    fetch(child, tmp_path)
    hub.served.clear()
    assert read(child, tmp_path, **SETTINGS) == online
    assert not hub.served
    asked = len(hub.requests)
    assert read(child, tmp_path, offline=True, **SETTINGS) == online
    assert online["identity"]["revision"] == COMMIT
    assert len(hub.requests) == asked


def test_a_part_of_a_repository_is_enough_where_all_that_is_needed_is_there(
    child, tmp_path, online
):
    fetch(child, tmp_path, "ai2d/*")
    assert read(child, tmp_path, offline=True, **SETTINGS) == online
    told = read(child, tmp_path, offline=True, source="cauldron", subsets=["vqav2"])["message"]
    assert "these files are not in the cache" in told
    assert told.endswith(
        f"hf download {REPO} --repo-type dataset --revision {COMMIT} "
        "vqav2/train-00000-of-00001.parquet"
    )


def test_files_fetched_one_by_one_say_themselves_how_many_they_are(child, tmp_path, online):
    names = [f"ai2d/train-{n:05d}-of-00003-ab.parquet" for n in range(3)]
    fetch_each(child, tmp_path, *names[:2])
    told = read(child, tmp_path, offline=True, **SETTINGS)["message"]
    assert "--include 'ai2d/train-00002-of-00003-*.parquet'" in told
    fetch_each(child, tmp_path, names[2])
    assert read(child, tmp_path, offline=True, **SETTINGS) == online


@pytest.mark.slow
def test_the_list_of_an_online_run_is_remembered(hub, tmp_path, online, child):
    """What was cached file by file, in parts, is known to be a part after one look at the hub."""
    fetch_each(child, tmp_path, *[f"ai2d/train-{n:05d}-of-00003-ab.parquet" for n in range(3)])
    read(child, tmp_path, **SETTINGS, parts=0)
    told = read(child, tmp_path, offline=True, source="cauldron", subsets=["vqav2"])["message"]
    assert "vqav2/train-00000-of-00001.parquet" in told
    assert read(child, tmp_path, offline=True, **SETTINGS) == online


@pytest.mark.slow
def test_a_copy_of_the_cache_without_links_is_the_same(child, tmp_path, online):
    fetch_each(child, tmp_path, *[f"ai2d/train-{n:05d}-of-00003-ab.parquet" for n in range(3)])
    folder = of_repository(tmp_path)
    shutil.copytree(folder / "snapshots", tmp_path / "plain")  # as `cp -rL` does
    shutil.rmtree(folder / "blobs")
    shutil.rmtree(folder / "snapshots")
    (tmp_path / "plain").rename(folder / "snapshots")
    assert not any(path.is_symlink() for path in (folder / "snapshots").rglob("*"))
    assert read(child, tmp_path, offline=True, **SETTINGS) == online


def test_nothing_of_the_repository_is_said_with_the_command_that_fetches_it(child, tmp_path):
    told = read(child, tmp_path, offline=True, source="cauldron")["message"]
    assert "HF_HUB_OFFLINE is set" in told
    assert f"hf download {REPO} --repo-type dataset" in told


def test_a_blob_that_is_not_what_the_hub_states_is_refused(hub, tmp_path, child):
    """A cache is no better than a mirror: what is read whole is compared."""
    path = "a.json"
    write(hub.root / "me/texts" / path, [{"text": "One." * 400}])
    code = f"from huggingface_hub import hf_hub_download as d; d('me/texts', {path!r}"
    child(tmp_path, "-c", f"{code}, repo_type='dataset')")
    (blob,) = (tmp_path / "hf/hub/datasets--me--texts/blobs").iterdir()
    data = "hf://datasets/me/texts"
    found = read(child, tmp_path, offline=True, source="documents", data=data)
    assert found["ids"] == ["documents/default/000000"]
    blob.write_bytes(blob.read_bytes().replace(b"One.", b"Two.", 1))
    told = read(child, tmp_path, offline=True, source="documents", data=data)
    assert "not those that the hub states" in told["message"]


MIXTURE = """
description: A cached dataset.
tokens: max
encoding: {seq_len: 2048, max_crops: 20, longest_edge: 512}
components:
  charts: {source: cauldron, subsets: {ai2d: {}}, ratio: 1}
"""


@pytest.mark.slow
def test_online_cached_and_offline_builds_are_the_same_bytes(child, tmp_path):
    (tmp_path / "mine.yaml").write_text(MIXTURE)
    built = []
    for name, offline in (("online", False), ("cached", False), ("offline", True)):
        if name == "cached":
            fetch(child, tmp_path, "ai2d/*")
        words = ["build", f"mixture={tmp_path}/mine.yaml", "workers=0"]
        place = [f"output={tmp_path}/{name}/mix", f"work={tmp_path}/{name}/work"]
        child(tmp_path, "-m", "pipelines", *words, *place, offline=offline)
        built.append(tmp_path / name / "mix")
    files = {p.relative_to(built[0]) for p in built[0].rglob("*") if p.is_file()}
    assert Path("recipe.json") in files
    for other in built[1:]:
        for file in files - {Path("stats.json")}:  # whose timings are measured
            assert (other / file).read_bytes() == (built[0] / file).read_bytes(), file


# ------------------------------------------------------------------ the layout, without a client


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a/train-00000-of-00002.parquet"], ["a/train-00001-of-00002.parquet"]),
        (["a/train-00001-of-00002-9f.parquet"], ["a/train-00000-of-00002-*.parquet"]),
        (["x-00000-of-00001.tar", "y.json", "z-1-of-3.json"], []),
    ],
)
def test_numbered_files_that_are_missing(names, missing):
    assert hub_cache.unnumbered(names) == missing


def test_ids_of_files_that_are_no_links(tmp_path):
    small, large = tmp_path / "a.json", tmp_path / "b.parquet"
    small.write_bytes(b"{}")
    large.write_bytes(b"x" * 20)
    assert hub_cache.content_id(small, "a.json", hub_cache.LFS) == git_oid(b"{}")
    assert len(hub_cache.content_id(large, "b.parquet", hub_cache.LFS)) == 64
    (tmp_path / ".gitattributes").write_text("*.json filter=lfs diff=lfs merge=lfs -text\n")
    patterns = hub_cache.lfs_patterns(tmp_path)
    assert len(hub_cache.content_id(small, "a.json", patterns)) == 64
    assert hub_cache.content_id(large, "b.parquet", patterns) == git_oid(b"x" * 20)


def test_a_list_that_cannot_be_read_is_none(tmp_path):
    for text in ("", "[]", '{"files": 3}', '{"files": {"a": {"size": "x"}}}'):
        (tmp_path / "list.json").write_text(text)
        assert hub_cache.entries_in(tmp_path / "list.json") is None


def test_many_files_are_fetched_by_their_folders():
    names = [f"a/{n}.tar" for n in range(20)]
    assert hub_cache.fetching("me/x", names, revision="main").endswith("--include 'a/*'")
    assert hub_cache.fetching("me/x", ["my file.tar"], revision="main").endswith("'my file.tar'")
