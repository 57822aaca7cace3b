"""Each broken contract of a packed row is named, with its row; a whole row has none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.tokenization.rows import SMALL, encoded
from tests.tokenization.test_pack import pieces
from tokenization.check import violations
from tokenization.pack import pack
from tokenization.schema import PACKED


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pack(pieces(), encoding=SMALL, seed=0).to_pylist()


def with_images(rows: list[dict]) -> int:
    return next(n for n, row in enumerate(rows) if len(row["images"]) > 1)


def _drop_image_token(row: dict) -> None:
    row["input_ids"][row["input_ids"].index(49190)] = 30


def _learn_image(row: dict) -> None:
    row["loss_mask"][row["input_ids"].index(49190)] = True


def _swap_positions(row: dict) -> None:
    ids = row["input_ids"]
    a = ids.index(49153)
    ids[a] = 49154


def _learn_a_question(row: dict) -> None:
    """As many tokens as before are learned: those in front of the first answer, but one."""
    first = row["loss_mask"].index(True)
    row["loss_mask"][first], row["loss_mask"][first - 4] = False, True


BROKEN: dict[str, Callable[[dict], object]] = {
    "none of the tokenizer's": lambda row: row["input_ids"].__setitem__(3, 60_000),
    "id [-1] is none": lambda row: row["input_ids"].__setitem__(3, -1),
    "learned that is not of an answer": _learn_a_question,
    "mask values for": lambda row: row["loss_mask"].append(False),
    "seq_lengths": lambda row: row["seq_lengths"].append(3),
    "sample_ids for": lambda row: row["sample_ids"].pop(),
    "in the row twice": lambda row: row["sample_ids"].__setitem__(0, row["sample_ids"][1]),
    "images for": lambda row: row["images"].pop(),
    "<image> tokens, but": _drop_image_token,
    "are learned: image": _learn_image,
    "first token of a sample is learned": lambda row: row["loss_mask"].__setitem__(0, True),
    "no token is learned": lambda row: row.update(loss_mask=[False] * len(row["loss_mask"])),
    "tokens are not those of a grid": _swap_positions,
    "undecodable": lambda row: row["images"][0].update(bytes=b"nothing"),
    "px is": lambda row: row["images"].__setitem__(
        0, {"bytes": encoded(Image.new("RGB", (3, 900))), "path": "x"}
    ),
    "grids is null": lambda row: row.update(grids=None),
}  # fmt: skip


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_contract_is_named(rows: list[dict], says: str) -> None:
    number = with_images(rows)
    copy = pa.Table.from_pylist(rows, schema=PACKED).to_pylist()
    assert violations(pa.Table.from_pylist(copy, schema=PACKED), encoding=SMALL, decode=True) == []
    BROKEN[says](copy[number])
    found = violations(pa.Table.from_pylist(copy, schema=PACKED), encoding=SMALL, decode=True)
    assert found
    assert all(text.startswith(f"row {number}: ") for text in found)
    assert any(says in text for text in found)


def test_limits_are_those_of_the_encoding(rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows, schema=PACKED)
    longest = max(len(row["input_ids"]) for row in rows)
    most = max(sum(c["rows"] * c["cols"] + 1 for c in row["grids"]) for row in rows)
    for small in (replace(SMALL, seq_len=longest - 1), replace(SMALL, max_crops=most - 1)):
        assert any("limit" in t or "seq_len" in t or "max_crops" in t for t in violations(
            table, encoding=small, decode=False))  # fmt: skip
    exact = replace(SMALL, seq_len=longest, max_crops=most)
    assert violations(table, encoding=exact, decode=False) == []


def test_a_image_may_not_have_more_crops_than_its_size_allows(rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows, schema=PACKED)
    found = violations(table, encoding=replace(SMALL, longest_edge=64), decode=True)
    assert any("px has" in text for text in found)


def test_columns_are_checked_first() -> None:
    table = pa.table({"input_ids": pa.array([[1]], pa.list_(pa.int64()))})
    found = violations(table, encoding=SMALL, decode=False)
    assert "column loss_mask: missing, expected list<item: bool>" in found
    assert any(text.startswith("column input_ids: list<item: int64>") for text in found)
    assert len(found) == len(PACKED)
    assert np.all([text.startswith("column") for text in found])


def test_rows_are_called_by_the_numbers_they_have_in_the_shard(rows: list[dict]) -> None:
    broken = [row | {"loss_mask": [True] * len(row["loss_mask"])} for row in rows[:2]]
    table = pa.Table.from_pylist(broken, schema=PACKED)
    found = violations(table, encoding=SMALL, decode=False, numbers=[4, 17])
    assert {text.split(":")[0] for text in found} == {"row 4", "row 17"}
