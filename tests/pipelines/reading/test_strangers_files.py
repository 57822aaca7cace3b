"""Files, folders and archives as people bring them: what is read, what is told, what is refused."""

import io
import json
import os
import shutil
import tarfile

import pytest

from pipelines.reading.ingest import ingest
from pipelines.reading.leftovers import sentences
from pipelines.reading.media_files import Media
from pipelines.reading.parts import list_component, list_parts
from pipelines.sources.sample import Defect
from tests.pipelines.reading.test_walk import open_path, without_rights  # noqa: F401
from tests.pipelines.sources.making import (
    asked,
    png,
    read,
    said,
    tar,
    write,
    write_lines,
    write_parquet,
    zipped,
)


def chat(text):
    turns = [{"role": "user", "content": f"Repeat: {text}"}, {"role": "assistant", "content": text}]
    return {"messages": turns}


def unread(source, data, **settings):
    return " ".join(sentences(list_component(source=source, data=str(data), **settings).unread))


# ------------------------------------------------------------------ nothing is lost in silence


@pytest.mark.parametrize("other", ["b.json", "b.csv", "deep/er/b.jsonl", "b.jsonl.gz", "b.arrow"])
def test_a_file_that_no_pattern_takes_is_named(tmp_path, other):
    write_lines(tmp_path / "a.jsonl", [chat("one")])
    write(tmp_path / other, b"[]")
    write(tmp_path / "README.md", "About it.")
    write(tmp_path / "build.log", "done")
    assert unread("messages", tmp_path).count("not read:") == 1
    assert other in unread("messages", tmp_path)


def test_files_above_the_level_that_matched_are_named(tmp_path):
    write_lines(tmp_path / "en" / "a.jsonl", [chat("one")])
    write_lines(tmp_path / "above.jsonl", [chat("two")])
    assert "above.jsonl" in unread("messages", tmp_path)
    assert unread("messages", tmp_path, subsets=["en"]) == ""


def test_another_split_and_images_without_a_line_are_named(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [chat("a")])
    write_parquet(tmp_path / "test-0.parquet", [chat("b")])
    assert "test-0.parquet (of another split than train)" in unread("messages", tmp_path)
    images = tmp_path / "images"
    for name in "ab":
        write(images / f"{name}.png", png())
    write_lines(images / "metadata.jsonl", [{"file_name": "a.png", "text": "A."}])
    assert "b.png" in unread("imagefolder", images)
    assert "a.png" not in unread("imagefolder", images)


def test_an_archive_that_no_row_names_is_told_and_changes_nothing(tmp_path):
    zipped(tmp_path / "used.zip", [("a.png", png())])
    write_lines(tmp_path / "rows.jsonl", [asked("<image>\nQ", image="a.png")])
    before = list_parts(source="llava", data=str(tmp_path))[0].identity
    zipped(tmp_path / "other.zip", [("b.png", png())])
    assert "other.zip (no row names anything in it)" in unread("llava", tmp_path)
    assert list_parts(source="llava", data=str(tmp_path))[0].identity == before


def test_a_key_that_comes_again_is_another_sample(tmp_path):
    members = []
    for n in range(3):
        members += [("s.png", png(seed=n)), ("s.txt", f"Card {n}.".encode())]
    tar(tmp_path / "0.tar", members)
    samples = read("webdataset", data=str(tmp_path))
    assert [said(s)[1][1] for s in samples] == ["Card 0.", "Card 1.", "Card 2."]
    tar(tmp_path / "0.tar", [("s.png", png()), ("s.txt", b"Old."), ("s.txt", b"New.")])
    assert [s["defect"] for s in read("webdataset", data=str(tmp_path))] == [None, "missing_media"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_twins_of_macos_are_no_members(tmp_path, mode):
    twin = bytes.fromhex("00051607000200004d6163204f532058") + b"\0" * 66
    members = []
    for n in range(2):
        for ending, data in (("png", png(seed=n)), ("txt", f"Card {n}.".encode())):
            members += [(f"./._p{n}.{ending}", twin), (f"./p{n}.{ending}", data)]
    tar(tmp_path / ("0.tar" if mode == "w" else "0.tar.gz"), members, mode)
    assert [s["defect"] for s in read("webdataset", data=str(tmp_path))] == [None, None]


# ------------------------------------------------------------------ which file a path means


def placed(folder, kind, members):
    """Members in an archive of a kind, or in folders."""
    if kind == "zip":
        zipped(folder / "a.zip", members)
    elif kind == "two zips":
        for number, member in enumerate(members):
            zipped(folder / f"{number}.zip", [member])
    elif kind == "tar":
        tar(folder / "a.tar", members)
    else:
        tar(folder / "a.tar.gz", members, "w:gz")


@pytest.mark.parametrize("kind", ["zip", "two zips", "tar", "tar.gz"])
def test_a_path_that_fits_two_files_is_a_verdict(tmp_path, kind):
    if kind == "two zips":
        members = [("x/k.png", png(20, 20)), ("y/k.png", png(80, 80))]
    else:
        members = [("thumbs/k.png", png(20, 20)), ("scans/k.png", png(80, 80))]
    placed(tmp_path, kind, members)
    whole = "y/k.png" if kind == "two zips" else "scans/k.png"
    rows = [asked("<image>\nQ", image=name) for name in ("k.png", whole)]
    write_lines(tmp_path / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path))
    assert [s["defect"] for s in samples] == ["ambiguous_media", None]
    assert samples[1]["images"][0]["width"] == 80


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_member_named_in_full_or_there_twice_alike_is_meant(tmp_path, kind):
    one, other = png(20, 20), png(80, 80)
    placed(tmp_path, kind, [("old/k.png", one), ("k.png", other), ("l.png", one), ("m/l.png", one)])
    rows = [asked("<image>\nQ", image=name) for name in ("k.png", "l.png")]
    write_lines(tmp_path / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path))
    assert [s["defect"] for s in samples] == [None, None]
    assert [s["images"][0]["width"] for s in samples] == [80, 20]


def test_later_copies_of_a_member_are_a_verdict(tmp_path):
    tar(tmp_path / "a.tar", [("k.png", png(20, 20)), ("k.png", png(80, 80))])
    write_lines(tmp_path / "rows.jsonl", [asked("<image>\nQ", image="k.png")])
    assert read("llava", data=str(tmp_path))[0]["defect"] == "ambiguous_media"


def test_a_file_beside_the_archive_that_it_came_from_is_no_other_file(tmp_path):
    zipped(tmp_path / "a.zip", [("k.png", png(20, 20)), ("l.png", png(20, 20))])
    write(tmp_path / "k.png", png(20, 20))
    write(tmp_path / "l.png", png(80, 80))
    rows = [asked("<image>\nQ", image=name) for name in ("k.png", "l.png")]
    write_lines(tmp_path / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path))
    assert [s["defect"] for s in samples] == [None, "ambiguous_media"]


def test_two_folders_may_not_hold_different_files_of_one_name(tmp_path):
    for folder, side in (("sub/", 20), ("", 80)):
        write(tmp_path / f"{folder}k.png", png(side, side))
        write(tmp_path / f"{folder}l.png", png())
    rows = [asked("<image>\nQ", image=name) for name in ("k.png", "l.png")]
    write_lines(tmp_path / "sub" / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path))
    assert [s["defect"] for s in samples] == ["ambiguous_media", None]


def test_a_file_without_the_right_to_read_it_is_a_verdict(open_path):  # noqa: F811
    write(open_path / "locked.png", png()).chmod(0)
    write(open_path / "folder" / "a.png", png())
    (open_path / "folder").chmod(0)
    os.mkfifo(open_path / "pipe.png")
    media = Media({"roots": [str(open_path)], "archives": []})
    try:
        with without_rights():
            for path, reason in (
                ("locked.png", "unreadable_media: .*locked.png: Permission denied"),
                ("folder/a.png", "unreadable_media: .*a.png: Permission denied"),
                ("pipe.png", "missing_media"),
                ("x" * 300 + ".png", "missing_media"),
                ("a\ud800.png", "missing_media"),
            ):
                with pytest.raises(Defect, match=reason):
                    media.read(path, 1 << 20)
                with pytest.raises(Defect, match=reason) if "missing" not in reason else no_file():
                    assert media.local(path) is None
    finally:
        (open_path / "folder").chmod(0o755)


def no_file():
    import contextlib

    return contextlib.suppress(Defect)


# ------------------------------------------------------------------ what people already have


def test_paths_in_full_are_taken_below_the_data_and_below_media(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "a.png", png())
    write(there / "b.png", png())
    link = tmp_path / "link"
    link.symlink_to(here)
    names = [here / "a.png", link / "a.png", f"file://{here}/a.png", there / "b.png", "/etc/passwd"]
    names += [f"{here}/../there/b.png"]
    rows = [asked("<image>\nQ", image=str(name)) for name in names]
    write_lines(here / "rows.jsonl", rows)
    by_link = [s["defect"] for s in read("llava", data=str(link))]
    assert by_link == [None, None, None, *["unsafe_path"] * 3]
    with_media = [s["defect"] for s in read("llava", data=str(link), media=str(there))]
    assert with_media == [None, None, None, None, "unsafe_path", "unsafe_path"]


def test_a_table_of_datasets_with_paths_in_full_is_read(tmp_path):
    write(tmp_path / "a.png", png())
    cells = [{"bytes": None, "path": str(tmp_path / "a.png")}]
    row = {"images": cells, "texts": [{"user": "Q", "assistant": "A"}]}
    write_parquet(tmp_path / "train.parquet", [row])
    where = str(tmp_path / "train.parquet")
    (part,) = list_parts(source="cauldron", data=where)
    assert ingest(part).to_pylist()[0]["defect"] is None
    write(tmp_path / "a.png", png(50, 50))
    assert list_parts(source="cauldron", data=where)[0].identity != part.identity


def test_the_folder_of_a_class_is_its_label(tmp_path):
    for name in ("cat/1.png", "cat/2.JPG", "dog/1.png", "alone.png"):
        write(tmp_path / name, png(kind="JPEG" if name.endswith("JPG") else "PNG"))
    samples = read("imagefolder", data=str(tmp_path))
    assert [said(s)[1][1] for s in samples] == ["cat", "cat", "dog"]
    assert all(said(s)[0][1].startswith("[i]") for s in samples)
    assert "alone.png" in unread("imagefolder", tmp_path)
    for split in ("train", "test"):
        write(tmp_path / "split" / split / "bird" / "1.png", png())
    assert len(read("imagefolder", data=str(tmp_path / "split"))) == 1


def test_files_of_text_are_documents(tmp_path):
    write(tmp_path / "a.txt", "One.")
    write(tmp_path / "notes" / "test.md", "\ufeff# Two")
    write(tmp_path / "c.txt", "Three.".encode("utf-16"))
    write(tmp_path / "d.txt", b"caf\xe9")
    samples = read("documents", data=str(tmp_path))
    assert [s["defect"] for s in samples] == [None, None, "broken_text", None]
    texts = [said(s)[0][1] for s in samples if not s["defect"]]
    assert texts == ["One.", "Three.", "# Two"]
    assert len(read("documents", data=str(tmp_path / "a.txt"))) == 1
    with pytest.raises(ValueError, match="no file of rows, as messages"):
        list_parts(source="messages", data=str(tmp_path / "a.txt"))


def test_a_path_is_looked_for_here_and_beside_the_mixture(tmp_path, monkeypatch):
    write_lines(tmp_path / "mixtures" / "rows.jsonl", [chat("there")])
    monkeypatch.chdir(tmp_path)
    beside = str(tmp_path / "mixtures")
    find = lambda data: list_parts(source="messages", data=data, beside=beside)[0].identity
    there = find("rows.jsonl")
    assert find("*.jsonl") == there
    write_lines(tmp_path / "rows.jsonl", [chat("here")])
    assert find("rows.jsonl") != there
    with pytest.raises(FileNotFoundError) as error:
        find("no.jsonl")
    assert str(tmp_path / "no.jsonl") in str(error.value)
    assert f"{beside}/no.jsonl" in str(error.value)
    monkeypatch.setenv("HOME", beside)
    assert find("~/rows.jsonl") == there
    write_lines(tmp_path / "what?.jsonl", [chat("odd")])
    assert len(list_parts(source="messages", data="what?.jsonl")) == 1


# ------------------------------------------------------------------ identity


def test_files_are_known_by_what_they_hold(tmp_path):
    def listing(data):
        (found,) = list_component(source="messages", data=str(data)).contents.values()
        return list(found)

    one = write_lines(tmp_path / "one.jsonl", [chat("a")])
    other = write_lines(tmp_path / "other.jsonl", [chat("b")])
    moved = tmp_path / "deep" / "moved.jsonl"
    moved.parent.mkdir()
    shutil.copy(one, moved)
    assert listing(one) == listing(moved)
    assert listing(one) != listing(other)


def test_large_files_are_known_by_stretches_and_their_time(tmp_path, monkeypatch):
    from pipelines.reading import identity

    monkeypatch.setattr(identity, "WHOLE", 1000)
    path = write_lines(tmp_path / "a.jsonl", [chat(f"{n:08d}") for n in range(9000)])
    size = path.stat().st_size
    assert size > 2 * identity.END + identity.STRETCHES * identity.STRETCH
    find = lambda: list_component(source="messages", data=str(path))
    before = find()
    text = path.read_bytes()
    for place in (0, size // 2, size - 40):
        at = text.index(b"0", place)
        path.write_bytes(text[:at] + b"1" + text[at + 1 :])
        assert find().parts[0].identity != before.parts[0].identity
    path.write_bytes(text)
    os.utime(path, ns=(1, 1))
    assert find().contents == before.contents
    assert find().parts[0].identity != before.parts[0].identity


@pytest.mark.parametrize("form", ["jsonl", "parquet", "jsonl.gz"])
def test_only_what_rows_name_counts(tmp_path, form):
    for name in "ab":
        write(tmp_path / f"{name}.png", png())
    row = chat("x") | {"images": ["a.png"]}
    row["messages"][0]["content"] = "<image>What?"
    if form == "parquet":
        write_parquet(tmp_path / "rows.parquet", [row])
    elif form == "jsonl":
        write_lines(tmp_path / "rows.jsonl", [row])
    else:
        import gzip

        write(tmp_path / "rows.jsonl.gz", gzip.compress(json.dumps(row).encode()))
    find = lambda: list_parts(source="messages", data=str(tmp_path))[0].identity
    before = find()
    write(tmp_path / "b.png", png(seed=3))
    write(tmp_path / "c.png", png())
    write(tmp_path / "build.log", "done")
    write(tmp_path / "out" / "m" / "recipe.json", "{}")
    assert find() == before
    write(tmp_path / "a.png", png(90, 90, seed=4))
    assert find() != before


def test_of_a_tar_gz_only_the_names_in_order_matter(tmp_path):
    """A member that fits late costs a second reading, and every row still comes once."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for n in range(4):
            for folder in ("x", "y"):
                data = png(seed=n, width=20 if folder == "x" else 30)
                info = tarfile.TarInfo(f"{folder}/{n}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    write(tmp_path / "a.tar.gz", buffer.getvalue())
    rows = [asked("<image>\nQ", image=f"{n}.png" if n == 1 else f"x/{n}.png") for n in range(4)]
    write_lines(tmp_path / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path))
    assert [s["defect"] for s in samples] == [None, "ambiguous_media", None, None]
