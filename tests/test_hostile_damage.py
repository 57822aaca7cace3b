"""Nothing is taken on trust: planted damage is found by `check`, and a cache heals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from mixtures.pick import INDEX
from pipelines.check import folder_faults
from pipelines.engine import tables
from pipelines.report import digests
from tests.building import build
from tests.building import digests as folder_digests
from tokenization.schema import PACKED_WRITTEN
from trainer.data.integrity import damage, refuse_other_shard, write_list

SHARD = "shards/train-00000.arrow"


def flip(path: Path, share: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 4
    path.write_bytes(data)


def rewrite(folder: Path, change: Callable[[list[dict]], object]) -> None:
    """The rows of a shard as `change` leaves them, written as we write shards."""
    rows = tables.read(folder / SHARD).to_pylist()
    change(rows)
    table = pa.Table.from_pylist(rows, schema=PACKED_WRITTEN)
    tables.write(table, folder / SHARD, rows_per_batch=16)


def reindex(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    index = change(pl.DataFrame(tables.read(folder / "index.arrow")))
    tables.write(index.to_arrow().cast(INDEX), folder / "index.arrow")


def used(index: pl.DataFrame, add: dict[str, int]) -> pl.DataFrame:
    """The first line that is used, with these numbers added."""
    first = pl.int_range(pl.len()) == index["copies"].gt(0).arg_max()
    return index.with_columns(
        pl.when(first).then(pl.col(n) + k).otherwise(pl.col(n)).alias(n) for n, k in add.items()
    )


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def learn_a_question(row: dict) -> None:
    first = row["loss_mask"].index(True)
    row["loss_mask"][first], row["loss_mask"][first - 3] = False, True


def longer(row: dict) -> None:
    row["seq_lengths"][0] += 3


RESEALED: dict[str, Callable[[Path], object]] = {
    "an id of 60,000": lambda f: rewrite(f, lambda r: r[0]["input_ids"].__setitem__(3, 60_000)),
    "a learned question": lambda f: rewrite(f, lambda r: learn_a_question(r[0])),
    "lengths": lambda f: rewrite(f, lambda r: longer(r[0])),
    "a row twice": lambda f: rewrite(f, lambda r: r.append(r[0])),
    "a row lost": lambda f: rewrite(f, lambda r: r.pop()),
    "another sample's name": lambda f: rewrite(f, lambda r: r[0]["sample_ids"].__setitem__(0, "x")),
    "an image that is none": lambda f: rewrite(
        f, lambda r: next(x for x in r if x["images"])["images"][0].update(bytes=b"no")
    ),
    "an image lost": lambda f: rewrite(
        f, lambda r: next(x for x in r if x["images"])["images"].pop()
    ),
    "tokens off by 7": lambda f: reindex(f, lambda i: used(i, {"num_tokens": 7})),
    "learned off by 1": lambda f: reindex(f, lambda i: used(i, {"num_learned": 1})),
    "crops off by 1": lambda f: reindex(f, lambda i: used(i, {"num_crops": 1})),
    "copies": lambda f: reindex(f, lambda i: used(i, {"copies": 1})),
    "a line lost": lambda f: reindex(f, lambda i: i[1:]),
    "a line twice": lambda f: reindex(f, lambda i: pl.concat([i, i[:1]])),
    "a rejected sample used": lambda f: reindex(
        f, lambda i: i.with_columns(rule=pl.when(pl.col("copies") > 0).then(pl.lit("small_image")))
    ),
    "a shard lost": lambda f: (f / SHARD).unlink(),
}
"""Damage after which every hash was made anew: what is wrong shows by itself."""

AS_THEY_LIE: dict[str, Callable[[Path], object]] = {
    "a bit of a shard": lambda f: flip(f / SHARD),
    "a bit of the index": lambda f: flip(f / "index.arrow", 0.3),
    "a bit of the tokenizer": lambda f: flip(f / "tokenizer" / "tokenizer.json"),
    "the card": lambda f: (f / "README.md").write_text("Buy!"),
    "a shard cut off": lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:900]),
    "an empty shard": lambda f: (f / SHARD).write_bytes(b""),
    "a shard too many": lambda f: shutil.copy(f / SHARD, f / "shards" / "train-00077.arrow"),
    "the numbers": lambda f: edit_json(f / "stats.json", lambda s: s.update(read=3)),
    "no numbers": lambda f: (f / "stats.json").write_text("{"),
    "a licence": lambda f: edit_json(f / "recipe.json", lambda r: r["sources"].popitem()),
    "the recipe": lambda f: edit_json(f / "recipe.json", lambda r: r["mixture"].update(seed=9)),
}


def copy_of(mix: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mix, tmp_path / "mix", ignore=shutil.ignore_patterns(".lock")))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where each copy is damaged in turn: a process loads the tokenizer of a path once."""
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture
def folder(mix, place) -> Path:
    """A copy of the mixture, to be damaged."""
    shutil.rmtree(place / "mix", ignore_errors=True)
    return copy_of(mix, place)


@pytest.mark.parametrize("what", AS_THEY_LIE)
def test_damage_is_a_fault(folder, what):
    AS_THEY_LIE[what](folder)
    assert list(folder_faults(str(folder), rows=1))


@pytest.mark.parametrize("what", RESEALED)
def test_damage_under_fresh_hashes_is_a_fault(folder, what):
    RESEALED[what](folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    there = [name for name in recipe["files"] if (folder / name).exists()]
    sealed = digests.sealed(recipe, digests.digests(str(folder), there))
    tables.write_json(folder / "recipe.json", sealed)
    assert list(folder_faults(str(folder), rows=0))


def test_a_whole_mixture_has_no_fault(mix):
    assert list(folder_faults(str(mix), rows=0)) == []


@pytest.mark.parametrize("kind", ["samples", "verdicts", "tokens"])
def test_a_damaged_file_of_the_cache_is_named_and_made_again(mix, world, tmp_path, capsys, kind):
    work = Path(shutil.copytree(mix.parent / "work", tmp_path / "work"))
    file = sorted((work / kind).rglob("0*.arrow"))[0]
    if kind == "verdicts":
        file.write_bytes(b"")
    elif kind == "tokens":
        flip(file, 0.3)
    else:  # an image that is packed: of what no stage reads, nobody is told
        rows = tables.read(mix / SHARD).to_pylist()
        image = next(row["images"][0]["bytes"] for row in rows if row["images"])
        held = {path: path.read_bytes() for path in (work / kind).rglob("0*.arrow")}
        file = next(path for path, data in held.items() if image in data)
        flip(file, (held[file].index(image) + len(image) / 2) / len(held[file]))
    build(world, tmp_path)
    said = capsys.readouterr().out
    assert f"{file} is damaged" in said
    assert "made again" in said
    assert folder_digests(tmp_path / "mix") == folder_digests(mix)


def test_the_trainer_refuses_a_shard_that_is_not_the_recipes(mix, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = copy_of(mix, tmp_path)
    recipe = json.loads((folder / "recipe.json").read_text())
    for _ in range(2):  # looked at, then remembered
        refuse_other_shard(folder / SHARD, "train-00000.arrow", recipe)
    flip(folder / SHARD)
    with pytest.raises(ValueError, match="it has changed since it was built"):
        refuse_other_shard(folder / SHARD, "train-00000.arrow", recipe)


def test_a_damaged_checkpoint_is_named_with_the_one_that_is_whole(tmp_path):
    from trainer import checkpoint

    for step in (1, 2, 3):
        folder = tmp_path / f"step-{step:06d}"
        for name in ("config.json", "trainer/state.json", "trainer/config.yaml"):
            tables.write_text(folder / name, "{}")
        (folder / "model.safetensors").write_bytes(bytes(99))
        write_list(folder)
    assert checkpoint.newest(tmp_path) == folder
    flip(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not as it was written"):
        checkpoint.newest(tmp_path)
    (tmp_path / "step-000002" / "config.json").unlink()
    assert damage(tmp_path / "step-000002") == "config.json is missing"
    with pytest.raises(ValueError, match=r"step-000001 is whole(.|\n)*mv .*step-000003"):
        checkpoint.newest(tmp_path)
