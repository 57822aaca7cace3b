"""Nothing that is not ours is touched: outputs, caches, pages, runs that hold a user's files."""

import json
from pathlib import Path

import pytest

from mixtures.names import problem
from pipelines.__main__ import main
from pipelines.clean import clean, keep_referenced, needed
from pipelines.engine import ownership, tables
from tests.building import words
from trainer import checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def proj(tmp_path) -> Path:
    """A folder of the user's, whose names are those of a mixture."""
    folder = tmp_path / "proj"
    (folder / "shards").mkdir(parents=True)
    for name in ("README.md", "stats.json", "shards/train-00000.arrow"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("key", ["output", "work"])
def test_a_folder_of_the_users_is_refused_by_what_is_in_it(world, proj, tmp_path, capsys, key):
    before = contents(proj)
    assert main(words(world, tmp_path, "overwrite=true", f"{key}={proj}")) == 2
    assert "README.md, shards, stats.json" in capsys.readouterr().err
    assert contents(proj) == before


def test_a_recipe_of_something_else_is_no_mark_of_ours(world, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.json").write_text('{"name": "cake", "flour": 300}')
    assert main(words(world, tmp_path, f"output={tmp_path}/out")) == 2
    assert "no recipe of a mixture" in capsys.readouterr().err
    assert contents(tmp_path / "out") == {"recipe.json": b'{"name": "cake", "flour": 300}'}


def test_only_shards_of_our_names_go_with_another_recipe(tmp_path):
    out = str(tmp_path)
    ownership.clear(out, "a" * 16)
    for name in ("train-00000.arrow", "val-00001.arrow", "notes.txt", "train-1.arrow"):
        tables.write_text(f"{out}/shards/{name}", "x")
    ownership.clear(out, "a" * 16)
    assert len(tables.listing(f"{out}/shards")) == 4
    ownership.clear(out, "b" * 16)
    assert tables.listing(f"{out}/shards") == ["notes.txt", "train-1.arrow"]


def test_a_page_is_written_over_pages_of_ours_alone_and_into_no_mixture(mix, tmp_path, capsys):
    page = tmp_path / "show.html"
    page.write_text("<html>mine")
    assert main(["show", str(mix), "--html", f"output={page}"]) == 2
    assert page.read_text() == "<html>mine"
    assert main(["show", str(mix), "--html", f"output={mix}/show.html"]) == 2
    assert "lies in a finished mixture" in capsys.readouterr().err
    assert not (mix / "show.html").exists()
    page.unlink()
    for _ in range(2):
        assert main(["show", str(mix), "--html", f"output={page}"]) == 0


def test_a_hash_list_is_written_over_lists_of_ours_alone(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    target = tmp_path / "thesis.parquet"
    target.write_text("mine")
    assert main(["hashes", "mine", f"data={tmp_path}/images", f"output={target}"]) == 2
    assert "no hash list" in capsys.readouterr().err
    assert target.read_text() == "mine"


def test_a_run_goes_into_no_folder_of_the_users(proj):
    with pytest.raises(ValueError, match=r"holds README\.md, shards, stats\.json"):
        checkpoint.claim(proj)
    (proj / "step-000001" / "trainer").mkdir(parents=True)
    (proj / "step-000001" / "trainer" / "state.json").write_text("{}")
    checkpoint.claim(proj)


@pytest.mark.parametrize(
    "name",
    ["../../proj", "a/b", "..", ".hidden", "", "a\\b", "\x1b[31mred", "a\u202eb", "a\nb", "x" * 300,
     "-rf", "~root", "a:b", "a*", "end ", "\ud800"],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_show_as_others_are_refused(world, tmp_path, capsys, name):
    assert problem(name)
    text = world.read_text() + f"name: {json.dumps(name)}\n"
    file = tmp_path / "m.yaml"
    file.write_text(text)
    if name:  # an empty one is the file's
        assert main(words(file, tmp_path)) == 2
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert "\u202e" not in said
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize(
    "name", ["sft_v2", "Küche 2", "ai2d(cauldron,llava_format)", "GeoQA+", "a.b"]
)
def test_names_that_people_use_are_names(name):
    assert not problem(name)


# ------------------------------------------------------------------ clean


@pytest.fixture
def work(tmp_path) -> str:
    """A cache with two folders of samples."""
    root = str(tmp_path / "work")
    ownership.claim_work(root)
    for digit in "ab":
        tables.write_text(f"{root}/samples/{digit * 16}/00000.arrow", "x")
    return root


def finished(folder: Path, fingerprint: str) -> str:
    recipe = {"name": "m", "fingerprint": fingerprint, "mixture": {}}
    tables.write_json(folder / "recipe.json", recipe)
    return str(folder)


def test_what_an_unfinished_build_made_is_kept_until_it_is_given_up(work, tmp_path):
    made = [f"{work}/samples/{'a' * 16}/00000.arrow"]

    def interrupted() -> None:
        with needed(work, output=str(tmp_path / "out"), fingerprint="f" * 16, files=made):
            assert "is running" in clean(work, remove=True, unfinished=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tables.listing(f"{work}/samples") == ["a" * 16]
    said = clean(work, remove=True)
    assert "has not ended" in said
    assert "unfinished=true" in said
    assert tables.listing(f"{work}/samples") == ["a" * 16]
    clean(work, remove=True, unfinished=True)
    assert tables.listing(f"{work}/samples") == []


def test_references_hold_from_anywhere_and_one_each_output(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [f"{work}/samples/{'a' * 16}/00000.arrow"]
    for name in ("one", "two"):
        finished(tmp_path / name, "f" * 16)
        keep_referenced(work, output=name, fingerprint="f" * 16, files=made)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    clean(work, remove=True)
    assert tables.listing(f"{work}/samples") == ["a" * 16]
    (tmp_path / "one" / "recipe.json").unlink()
    clean(work, remove=True)
    assert tables.listing(f"{work}/samples") == ["a" * 16]
    finished(tmp_path / "two", "e" * 16)
    clean(work, remove=True)
    assert tables.listing(f"{work}/samples") == []


def test_an_output_that_cannot_be_looked_at_counts(work):
    made = [f"{work}/samples/{'a' * 16}/00000.arrow"]
    keep_referenced(work, output="/no/such/disk/mix", fingerprint="f" * 16, files=made)
    clean(work, remove=True)
    assert tables.listing(f"{work}/samples") == ["a" * 16]


def test_clean_touches_no_folder_that_is_no_cache(tmp_path, capsys):
    (tmp_path / "samples" / "holiday").mkdir(parents=True)
    assert main(["clean", f"work={tmp_path}", "remove=true"]) == 2
    assert "no cache of ours" in capsys.readouterr().err
    assert (tmp_path / "samples" / "holiday").is_dir()
