"""Near duplicates among what the shards hold: counted as the rule would, and shown side by side."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import filters
from mixtures import draw
from mixtures.columns import MemoryColumn
from pipelines import alike as module
from pipelines.alike import alike
from pipelines.engine import tables

FAR = [0x0F0F_3C3C_5A5A_9999, 0xF0F0_C3C3_1234_8765, 0x5555_AAAA_0FF0_3CC3]


def column(values, dtype):
    made = MemoryColumn(dtype)
    made.append(np.array(values, dtype))
    return made


def world(tmp_path, parts):
    """(samples, copies, pieces, mixture) of parts: component -> [(id, hashes, copies)]."""
    pieces, sizes = [], []
    for component, rows in parts:
        path = str(tmp_path / f"{len(pieces)}.arrow")
        schema = {"id": pl.String, "dhashes": pl.List(pl.UInt64)}
        frame = pl.DataFrame([row[:2] for row in rows], schema=schema, orient="row")
        tables.write(frame.to_arrow(), path)
        pieces.append(SimpleNamespace(component=component, verdicts=path))
        sizes.append(len(rows))
    flat = [row for _, rows in parts for row in rows]
    columns = {
        "key": column(draw.sample_keys([row[0] for row in flat], seed=0), np.uint64),
        "num_crops": column([len(row[1] or ()) for row in flat], np.int32),
    }
    samples = SimpleNamespace(starts=np.r_[0, np.cumsum(sizes)], columns=columns)
    names = dict.fromkeys(component for component, _ in parts)
    mixture = SimpleNamespace(components=names, val_fraction=0.5)
    return samples, column([row[2] for row in flat], np.int32), pieces, mixture


def test_what_would_go_is_counted_by_component_whatever_the_rules(tmp_path):
    parts = [
        ("a", [("s/a/0", [FAR[0]], 1), ("s/a/1", [FAR[0] ^ 0b1111], 2), ("s/a/2", [FAR[1]], 1)]),
        ("b", [("s/b/0", [FAR[0]], 1), ("s/b/1", [FAR[1], FAR[2]], 1), ("s/b/2", [FAR[2]], 0)]),
        ("b", [("s/b/3", [FAR[1], FAR[2] ^ 0b11111], 1), ("s/b/4", [FAR[2]], 1), ("t", [], 1)]),
        ("words", [("w/0", [], 1), ("w/1", None, 3)]),
    ]
    found = alike(*world(tmp_path, parts))
    a, b = found["components"]["a"], found["components"]["b"]
    assert list(found["components"]) == ["a", "b"], "texts have no images to compare"
    assert (a["samples"], a["compared"], a["near"], a["same"], a["other"]) == (3, 3, 1, 0, 0)
    assert (b["samples"], b["compared"], b["near"], b["same"], b["other"]) == (4, 4, 1, 1, 1)
    assert found["radius"] == 4
    assert found["pairs"] == [["s/a/0", "s/a/1"], ["s/a/0", "s/b/0"]]


def test_nothing_with_images_is_nothing_compared(tmp_path):
    found = alike(*world(tmp_path, [("words", [("w/0", [], 1)])]))
    assert (found["components"], found["pairs"]) == ({}, [])


def test_of_many_equal_images_are_compared_together(tmp_path):
    """300 images, each twice, of which 100 samples are compared: every one meets its equal."""
    hashes = np.random.default_rng(0).integers(0, 2**63, 300).tolist()
    rows = [(f"s/a/{n:03d}", [hashes[n % 300]], 1) for n in range(600)]
    found = alike(*world(tmp_path, [("a", rows)]), most=100)["components"]["a"]
    assert (found["samples"], found["compared"]) == (600, 100)
    assert found["same"] == 50


def test_verdicts_have_the_hashes_of_images_whatever_the_rules():
    from tests.filters.rows import image_record, sample, table

    rows = [sample("q", "a", images=[image_record(dhash=FAR[0])]), sample("q", "a")]
    judged = filters.judge(table(*rows), rules={})
    assert judged["dhashes"].to_pylist() == [[FAR[0]], []]
    assert judged["text_signature"].null_count == 2


@pytest.mark.parametrize("component", ["a"])
def test_the_split_of_both_is_told(tmp_path, component):
    """Of 40 samples of one image, those of val are near one of train, or the other way round."""
    rows = [(f"s/a/{n}", [FAR[0]], 1) for n in range(40)]
    world_ = world(tmp_path, [(component, rows)])
    val = module.in_val(world_[0].columns["key"][:], world_[3])
    first = sorted(range(40), key=lambda n: f"s/a/{n}")[0]
    found = alike(*world_)["components"][component]
    assert found["split"] == int((val != val[first]).sum()) > 0
