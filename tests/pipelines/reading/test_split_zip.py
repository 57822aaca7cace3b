"""Zips cut into disks are read as they are: every member, wherever it was cut."""

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.reading import split_zip
from pipelines.reading.archives import Members, archives_of
from pipelines.reading.files import list_tree
from tests.pipelines.sources.making import png, read, write, zip_of


def cut(whole: bytes, size: int, *, wide: bool) -> list[bytes]:
    """The disks, of `size` bytes each, of a zip as `zip -s` and APPNOTE lay them out: a marker in
    front, and in the directory the disk and the offset on it; `wide`: in fields of 64 bits.
    """
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members, directory = archive.infolist(), archive.start_dir
    body = b"PK\7\10" + whole[:directory]
    made = b""
    for member in members:
        disk, offset = divmod(member.header_offset + 4, size)
        name, extra = member.filename.encode(), struct.pack("<2Hb", 0x7777, 1, 5)
        sizes = member.compress_size, member.file_size
        if wide:
            extra += struct.pack("<2H3QL", 1, 28, *reversed(sizes), offset, disk)
            sizes, offset, disk = (0xFFFFFFFF,) * 2, 0xFFFFFFFF, 0xFFFF
        dated = (45, 45, member.flag_bits, member.compress_type, 0, 33)
        made += struct.pack("<4s6H3L", b"PK\1\2", *dated, member.CRC, *sizes)
        made += struct.pack("<5H2L", len(name), len(extra), 2, disk, 0, 0, offset)
        made += name + extra + b"hi"
    home, offset = divmod(len(body), size)
    count, last = len(members), (len(body) + len(made)) // size
    end = struct.pack("<4s4H2LH", b"PK\5\6", last, home, count, count, len(made), offset, 0)
    if wide:
        place = divmod(len(body) + len(made), size)
        end64 = struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, place[0], home, count, count, len(made), offset
        )
        locator = struct.pack("<4sLQL", b"PK\6\7", *place, last + 1)
        end = (
            end64
            + locator
            + struct.pack(
                "<4s4H2LH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
            )
        )
    disks = [(body + made)[start : start + size] for start in range(0, len(body + made), size)]
    if len(disks) <= last:
        disks.append(b"")
    disks[-1] += end  # all of it on the last, as it must be
    return disks


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.integers(60, 900),
    st.booleans(),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_every_member_comes_whole_wherever_it_was_cut(contents, size, wide, how):
    members = [(f"d/{n}.bin", data) for n, data in enumerate(contents)]
    disks = cut(zip_of(members, how), size, wide=wide)
    starts = [sum(map(len, disks[:n])) for n in range(len(disks))]
    with zipfile.ZipFile(split_zip.join_disks(io.BytesIO(b"".join(disks)), starts)) as archive:
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == members
    if len(disks) > 1:
        missing = io.BytesIO(b"".join(disks[1:]))
        with pytest.raises(zipfile.BadZipFile):
            split_zip.join_disks(missing, [s - starts[1] for s in starts[1:]])


@settings(max_examples=100)
@given(st.data())
def test_what_is_broken_is_an_archive_that_is_broken(data):
    """Any bytes changed or cut: BadZipFile, or a zip; no other exception, no endless reading."""
    disks = cut(zip_of([("a", b"A" * 50), ("b", b"B" * 70)]), 100, wide=data.draw(st.booleans()))
    starts = [sum(map(len, disks[:n])) for n in range(len(disks))]
    whole = bytearray(b"".join(disks))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(len(whole) - 40, len(whole))) :]
    try:
        found = split_zip.join_disks(io.BytesIO(bytes(whole)), starts)
    except zipfile.BadZipFile:
        return
    assert len(found.read()) < 2 * len(whole) + 1000


def test_m4_instruct_reads_dreamsim_as_the_repository_has_it(tmp_path):
    """`dreamsim_split.z01`, `.z02`, ... and `.zip`, more than nine of them; where a piece of a
    zip is missing, rows whose media are not found say that an archive is broken.
    """
    images = [(f"dreamsim_split/ref/{n}.png", png(40, 40, seed=n)) for n in range(12)]
    disks = cut(zip_of(images), 5000, wide=False)
    assert len(disks) > 10
    for number, data in enumerate(disks[:-1], 1):
        write(tmp_path / f"dreamsim_split.z{number:02d}", data)
    write(tmp_path / "dreamsim_split.zip", disks[-1])
    (archive,) = archives_of(list_tree(str(tmp_path)).files)
    assert [file.name[-4:] for file in archive.files][::11] == [".z01", ".z12"]
    assert archive.files[-1].name == "dreamsim_split.zip"
    turns = [{"from": "human", "value": "<image><image> Which?"}, {"from": "gpt", "value": "A"}]
    rows = [
        {"image": [f"dreamsim_split/ref/{n}.png", "dreamsim_split/ref/0.png"]} for n in (3, 11, 12)
    ]
    write(tmp_path / "m4_instruct_annotations.json", [{**r, "conversations": turns} for r in rows])
    one, two, gone = read("m4_instruct", data=str(tmp_path))
    assert [i["bytes"] for i in one["images"]] == [images[3][1], images[0][1]]
    assert [i["bytes"] for i in two["images"]] == [images[11][1], images[0][1]]
    assert gone["defect"] == "missing_media"
    write(tmp_path / "lone.z01", b"PK\7\10")
    assert read("m4_instruct", data=str(tmp_path))[2]["defect"] == "broken_archive"
    (tmp_path / "dreamsim_split.z04").unlink()
    assert {s["defect"] for s in read("m4_instruct", data=str(tmp_path))} == {"broken_archive"}


def test_an_ordinary_zip_is_left_to_zipfile(tmp_path):
    write(tmp_path / "a.zip", zip_of([("x", b"y")]))
    (archive,) = archives_of(list_tree(str(tmp_path)).files)
    assert archive.disks == []
    members = Members([archive])
    assert members.read(members.find("x"), 10) == b"y"
    members.close()
