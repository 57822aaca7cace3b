"""A whole build of tables: card, recipe, ids, what is refused, what changes a fingerprint."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.mixture_file import load, to_yaml
from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.survey import Place, survey
from tests.hub_server import Hub
from tests.pipelines.sources.making import cell, png, write
from tests.test_build import index_of
from tokenization.schema import Encoding

MIXTURE = """
tokens: max
val_fraction: 0
on_shortage: shrink
encoding: {seq_len: 512, crop_size: 32, longest_edge: 64, tokens_per_crop: 4}
components:
  questions:
    source: table
    data: rows.parquet
    ratio: 0.5
    columns: {images: image, question: "What is the {no}?", answer: answers, gold: answers}
  captions:
    source: table
    data: rows.parquet
    ratio: 0.5
    columns: {images: image, caption: told}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rows = [
        {
            "image": cell(png(seed=n)),
            "no": f"number {n}",
            "answers": [str(n)] * 2 if n else [],
            "told": f"Image number {n}.",
        }
        for n in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    write(tmp_path / "m.yaml", MIXTURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_build_of_two_mappings_of_one_file(folder, capsys):
    assert main(["build", "mixture=m.yaml", "workers=0"]) == 0
    index = index_of(folder / "out" / "m")
    assert index["id"].is_unique().all()
    assert len(index) == 24
    reasons = index.filter(index["rule"].is_not_null())
    assert reasons["id"].to_list() == ["table/default/000000"]
    assert (reasons["rule"][0], reasons["detail"][0]) == (
        "missing_answer", "answer is an empty list",
    )  # fmt: skip
    card = (folder / "out" / "m" / "README.md").read_text()
    assert "| questions | question | What is the \\{no\\}? |" in card
    assert "| captions | caption | told |" in card
    recipe = tables.read_json(str(folder / "out" / "m" / "recipe.json"))
    assert recipe["sources"]["captions"]["columns"] == {"images": "image", "caption": "told"}
    assert main(["check", "out/m"]) == 0
    capsys.readouterr()
    assert main(["build", "mixture=out/m/mixture.yaml", "workers=0"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def fingerprint(folder: Path, text: str) -> str:
    write(folder / "other.yaml", text)
    mixture = load(str(folder / "other.yaml"), encoding=Encoding)
    assert load(str(write(folder / "again.yaml", to_yaml(mixture))), encoding=Encoding) == mixture
    return survey(mixture, Place(output="out", beside=str(folder))).fingerprint


def test_the_mapping_enters_the_fingerprint_and_the_place_does_not(folder):
    first = fingerprint(folder, MIXTURE)
    assert fingerprint(folder, MIXTURE) == first
    assert fingerprint(folder, MIXTURE.replace("caption: told", "caption: no")) != first
    assert fingerprint(folder, MIXTURE.replace(", gold: answers", "")) != first
    moved = folder / "elsewhere"
    moved.mkdir()
    (folder / "rows.parquet").rename(moved / "renamed.parquet")
    text = MIXTURE.replace("rows.parquet", "elsewhere/renamed.parquet")
    assert fingerprint(folder, text) == first


@pytest.mark.parametrize("command", ["plan", "build", "probe"])
def test_a_wrong_name_is_one_message_of_every_command(folder, capsys, command):
    write(folder / "m.yaml", MIXTURE.replace("caption: told", "caption: tolt"))
    status = main([command, "mixture=m.yaml", *(["workers=0"] if command == "build" else [])])
    shown = "".join(capsys.readouterr())
    assert status == (1 if command == "probe" else 2)
    assert "components.captions.columns.caption: no column 'tolt' in" in shown
    assert "Did you mean 'told'?" in shown
    assert not (folder / "out" / "work" / "samples").exists()


def test_repo_and_data_and_config_are_looked_at(folder):
    for old, new, told in (
        ("data: rows.parquet\n    ratio: 0.5\n    columns: {images: image, caption",
         "data: rows.parquet\n    repo: a/b\n    ratio: 0.5\n    columns: {images: image, caption",
         "expected repo or data, not both"),
        ("caption: told}", "caption: told}\n    config: a\n    subsets: [a]",
         "config and subsets are the same"),
        ("source: table\n    data: rows.parquet", "source: table\n    repo: nowhere",
         "expected ORG/NAME"),
    ):  # fmt: skip
        assert old in MIXTURE
        with pytest.raises(ValueError, match=told):
            fingerprint(folder, MIXTURE.replace(old, new))
    text = MIXTURE.replace("caption: told}", "caption: told}\n    config: 2014")
    mixture = load(str(write(folder / "c.yaml", text)), encoding=Encoding)
    assert list(mixture.components["captions"].subsets) == ["2014"]


def test_a_repository_of_the_hub_by_config_and_split(folder, on_hub):
    head = (
        "---\nconfigs:\n- config_name: small\n  data_files:\n"
        "  - {split: train, path: x/a.parquet}\n  - {split: test, path: x/b.parquet}\n---\n"
    )
    rows = (folder / "rows.parquet").read_bytes()
    files = {"README.md": head.encode(), "x/a.parquet": rows, "x/b.parquet": rows}
    text = MIXTURE.replace("data: rows.parquet", "repo: them/table\n    config: small").replace(
        "caption: told}", "caption: told}\n    split: test"
    )
    write(folder / "hub.yaml", text)
    for name, data in files.items():
        write(folder / "hub" / "them" / "table" / name, data)
    with Hub(folder / "hub") as hub:
        done = on_hub(hub, "build", "mixture=hub.yaml", "workers=0")
        assert done.returncode == 0, done.stderr
    index = index_of(folder / "out" / "hub")
    assert set(index["subset"]) == {"small"}
    assert len(index) == 24
    recipe = tables.read_json(str(folder / "out" / "hub" / "recipe.json"))
    about = recipe["sources"]["questions"]
    assert (about["hub"], about["licence"]) == ("them/table", "unknown")
    assert len(about["revision"]) == 40
