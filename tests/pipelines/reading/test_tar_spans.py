"""A tar cut by its headers gives the samples of the whole one, each once, and reads no more."""

import io
import tarfile
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reading import traffic
from pipelines.reading.archive_order import webdataset_samples
from pipelines.reading.archives import Archive, archives_of
from pipelines.reading.files import File
from pipelines.reading.ingest import part_rows
from pipelines.reading.parts import list_parts
from pipelines.reading.tar_spans import spans, starts_of
from tests.pipelines.sources.making import tar

NAMES = ("a", "b", "deep/er/c", "._a", ".hidden", "d" * 120)
ENDINGS = ("txt", "json", "0.png")


def archive_at(path: Path, stamp: str = "") -> Archive:
    (found,) = archives_of([File(path.name, str(path), path.stat().st_size, stamp)])
    return found


@given(
    members=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(ENDINGS), st.integers(0, 1500)),
        max_size=30,
    ),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    rows=st.integers(1, 5),
    num_bytes=st.integers(1, 9000),
)
def test_parts_of_a_tar_are_the_whole(tmp_path_factory, members, form, rows, num_bytes):
    path = tmp_path_factory.mktemp("tars") / "some.tar"
    with tarfile.open(path, "w", format=form) as file:
        for name, ending, size in members:
            entry = tarfile.TarInfo(f"{name}.{ending}")
            entry.size = size
            file.addfile(entry, io.BytesIO(bytes([size % 256]) * size))
        file.addfile(tarfile.TarInfo("folder"))
    archive = archive_at(path)
    whole = list(webdataset_samples(archive))
    starts = starts_of(archive)
    assert len(starts) == (len(whole) + 1 if whole else 0)
    found = list(spans(starts, rows=rows, num_bytes=num_bytes))
    each = [list(webdataset_samples(archive, span=span[:2])) for span in found]
    assert list(chain.from_iterable(each)) == whole
    assert [len(some) for some in each] == [span.samples for span in found]
    assert [span.first for span in found] == [sum(map(len, each[:n])) for n in range(len(each))]
    assert all(a.stop == b.start for a, b in pairwise(found))
    for span in found:
        assert span.samples <= rows
        assert span.samples == 1 or span.stop - span.start <= num_bytes


def unsound(path: Path, what: str) -> None:
    """A tar of forty texts with something about it."""
    headers = {"comment": "of all"} if what == "global" else {}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as file:
        for n in range(40):
            entry = tarfile.TarInfo(f"{n:03d}.txt")
            entry.size = 700
            file.addfile(entry, io.BytesIO(b"x" * 700))
    data = path.read_bytes()
    if what == "key":
        tar(path, [("a.txt", b"x"), ("a.__key__", b"y")])
    if what == "cut":
        path.write_bytes(data[: 30 * 1536 + 900])
    if what == "no end":
        path.write_bytes(data[: 40 * 1536])
    if what == "damaged":
        path.write_bytes(data[: 20 * 1536] + b"\x07" * 512 + data[20 * 1536 + 512 :])


@pytest.mark.parametrize("what", ["cut", "no end", "damaged", "global", "key"])
def test_what_is_not_sound_to_its_end_is_read_whole(tmp_path, what):
    unsound(tmp_path / "some.tar", what)
    assert len(starts_of(archive_at(tmp_path / "some.tar", what))) == 0
    unsound(tmp_path / "some.tar", "")
    assert len(starts_of(archive_at(tmp_path / "some.tar", "sound"))) == 41


def test_a_part_of_a_tar_reads_its_bytes_alone_and_names_samples_as_the_whole_does(tmp_path):
    words = [(f"{n:05d}.txt", b"%05d " % n * 400) for n in range(300)]
    images = [(f"{n:05d}.jpg", bytes(3000)) for n in range(300)]
    tar(tmp_path / "data" / "some.tar", sorted(words + images))
    parts = list_parts(source="webdataset", data=str(tmp_path / "data"))
    assert [part.rows for part in parts] == [64, 64, 64, 64, 44]
    assert parts[0].identity["tars"] == 1
    size = (tmp_path / "data" / "some.tar").stat().st_size
    rows, labels = [], []
    for part in parts:
        with traffic.counted() as read:
            for label, row, _ in part_rows(part, None):
                labels.append(label)
                rows.append(row)
        assert read.num_bytes < 0.3 * size
        assert part.num_bytes < 0.23 * size
    assert labels == [f"00000-{n:06d}" for n in range(300)]
    assert [row["txt"] for row in rows] == [text for _, text in words]
