"""The items of a benchmark beside its list: read back as they are asked, or not at all."""

import io

import pytest
from PIL import Image

from filters.decontamination import rules as benchmarks
from filters.decontamination import shown_items
from pipelines.media.images import decode, dhash
from tests.filters.decontamination.test_rules import drawn, encoded

ITEMS = [
    benchmarks.Item(
        "1", "Who <b>is</b> it?", ("A \u202e man", "\u05d0"), (encoded(drawn(1)),), answer="A"
    ),
    benchmarks.Item("2", "And here?", same_images_as="1", answer="nobody"),
    benchmarks.Item("3", "x" * 5000, images=tuple(encoded(drawn(n)) for n in range(6))),
    benchmarks.Item("4", "Only text?"),
]


@pytest.fixture
def listed(tmp_path):
    """The path of a list whose items lie beside it."""
    path, rows = str(tmp_path / "bench.parquet"), []
    kept = shown_items.kept(ITEMS, rows, decode=decode)
    made = benchmarks.hash_list(kept, name="bench", decode=decode, dhash=dhash)
    benchmarks.write_list(made, path)
    assert shown_items.write_items(rows, path, name="bench") == f"{tmp_path}/bench.items.parquet"
    return path


def test_items_are_read_back_with_their_images_those_of_another_item_too(listed):
    found, why = shown_items.read_items(listed, ["1", "2", "3", "4", "absent"])
    assert (sorted(found), why) == (["1", "2", "3", "4"], "")
    assert (found["1"].question, found["1"].options, found["1"].answer) == (
        ITEMS[0].question,
        ITEMS[0].options,
        "A",
    )
    assert found["2"].images == found["1"].images
    assert (found["2"].num_images, found["2"].answer) == (1, "nobody")
    assert (found["3"].num_images, len(found["3"].images)) == (6, shown_items.IMAGES)
    assert len(found["3"].question) == 5000
    assert (found["4"].num_images, found["4"].images) == (0, ())
    copy = Image.open(io.BytesIO(found["1"].images[0]))
    assert max(copy.size) <= shown_items.SIDE


def test_a_list_is_the_same_with_and_without_its_items(listed, tmp_path):
    made = benchmarks.hash_list(iter(ITEMS), name="bench", decode=decode, dhash=dhash)
    benchmarks.write_list(made, tmp_path / "alone.parquet")
    assert (tmp_path / "alone.parquet").read_bytes() == (tmp_path / "bench.parquet").read_bytes()
    assert b"nobody" not in (tmp_path / "bench.parquet").read_bytes()


def test_items_of_another_list_are_not_shown(listed, tmp_path):
    """A list made anew of other data, beside the items of the old one."""
    benchmarks.write_list(benchmarks.read_list(listed).slice(1), tmp_path / "bench.parquet")
    assert shown_items.read_items(listed, ["1"]) == (
        {},
        f"{tmp_path}/bench.items.parquet is of another list than {listed}",
    )


def test_a_list_without_items_says_so(listed, tmp_path):
    beside = tmp_path / "bench.items.parquet"
    beside.write_bytes(b"no Parquet")
    found, why = shown_items.read_items(listed, ["1"])
    assert (found, "cannot be read" in why) == ({}, True)
    beside.write_bytes((tmp_path / "bench.parquet").read_bytes())
    assert "no file of items" in shown_items.read_items(listed, ["1"])[1]
    beside.unlink()
    found, why = shown_items.read_items(listed, ["1"])
    assert (found, f"no {beside}" in why) == ({}, True)
