"""A folder of a stranger: links that lead back, twins, names that are no UTF-8, missing rights."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.reading.files import list_tree
from pipelines.reading.walk import walk
from tests.pipelines.sources.making import write


@contextmanager
def without_rights():
    """Permissions count here, also for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path(tmp_path):
    """A folder that any user may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


def names(root, **settings):
    return [file.name for file in walk(root, **settings).found]


def test_links_that_lead_back_are_walked_once(tmp_path):
    data = tmp_path / "data"
    write(data / "a" / "1.json", "[]")
    (data / "latest").symlink_to(".")
    (data / "a" / "up").symlink_to("../..")
    (data / "twice").symlink_to("a")
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "2.json", "[]")
    (elsewhere / "home").symlink_to(data)
    (data / "more").symlink_to(elsewhere)
    met = walk(data)
    assert [file.name for file in met.found] == ["a/1.json", "more/2.json"]
    assert ("latest", "") in met.aliases
    assert ("twice", "a") in met.aliases
    assert met.unread == []


def test_hidden_files_and_twins_are_nobodys_data(tmp_path):
    for name in (
        "a.json",
        "._a.json",
        ".DS_Store",
        "__MACOSX/b.json",
        ".cache/c.json",
        "d/._e.json",
    ):
        write(tmp_path / name, "[]")
    assert names(tmp_path) == ["a.json"]


def test_what_a_build_writes_is_no_data_of_its_user(tmp_path):
    write(tmp_path / "rows.jsonl", "{}")
    write(tmp_path / "out" / "old" / "recipe.json", "{}")
    write(tmp_path / "out" / "old" / "shards" / "x.json", "{}")
    write(tmp_path / "cache" / "samples" / "x.json", "{}")
    write(tmp_path / "mine" / "y.json", "{}")
    for kind in ("verdicts", "tokens"):
        (tmp_path / "cache" / kind).mkdir()
    assert names(tmp_path) == ["mine/y.json", "rows.jsonl"]
    assert names(tmp_path, ours=[str(tmp_path / "mine")]) == ["rows.jsonl"]


def test_a_name_that_is_no_utf_8_is_written_out_and_its_file_found(tmp_path):
    folder = tmp_path / os.fsdecode(b"fran\xe7ais")
    write(folder / "a.jsonl", "{}")
    (file,) = list_tree(str(tmp_path)).files
    assert file.name == r"fran\xe7ais/a.jsonl"
    file.name.encode()
    assert Path(file.url).is_file()


def test_what_cannot_be_read_is_named_and_hangs_nothing(open_path):
    write(open_path / "a.json", "[]")
    write(open_path / "locked" / "b.json", "[]")
    os.mkfifo(open_path / "pipe.json")
    (open_path / "gone.json").symlink_to("nowhere.json")
    (open_path / "locked").chmod(0)
    try:
        with without_rights():
            met = walk(open_path)
    finally:
        (open_path / "locked").chmod(0o755)
    assert [file.name for file in met.found] == ["a.json"]
    assert {one.name: one.why for one in met.unread} == {
        "gone.json": "a link that leads nowhere",
        "locked": "may not be listed (Permission denied)",
        "pipe.json": "no regular file",
    }


def test_a_root_without_the_right_to_list_it_is_an_error(open_path):
    (open_path / "locked").mkdir(mode=0)
    try:
        with without_rights(), pytest.raises(PermissionError, match="locked"):
            walk(open_path / "locked")
    finally:
        (open_path / "locked").chmod(0o755)
