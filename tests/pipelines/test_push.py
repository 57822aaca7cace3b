"""Pushes go through the unmodified client in a process of its own, to a hub on loopback."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.engine import tables
from pipelines.push import model_card, push, to_parquet
from tests.hub_server import Fault, Hub
from tests.pipelines.made import finished

REPO = "org/by_hand"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("mixture") / "by_hand")


@pytest.fixture
def folder(made, tmp_path):
    """A mixture of this test's own; shards are links to nothing but copies."""
    return Path(shutil.copytree(made, tmp_path / "by_hand"))


@pytest.fixture
def hub():
    with Hub() as server:
        yield server


@pytest.fixture
def run(hub, tmp_path, hub_python):
    """Gives what code prints in a process whose hub this is."""

    def ran(code: str, *, status: int = 0) -> str:
        environment = hub.environment(tmp_path, token="hf_test")
        done = hub_python.run("-c", code, environment=environment)
        assert done.returncode == status, done.stderr[-3000:]
        return done.stdout if status == 0 else done.stderr

    return ran


def push_code(folder: Path, **settings: Any) -> str:
    words = {"repo": REPO, **settings}
    return f"from pipelines.push import push; print(push({str(folder)!r}, **{words!r}))"


ROWS = """
import json, datasets
def plain(row):
    row["images"] = [image.size for image in row["images"]]
    return row
found = {}
for streaming in (False, True):
    for split in ("train", "val"):
        rows = datasets.load_dataset("org/by_hand", split=split, streaming=streaming%s)
        found[f"{split} {streaming}"] = [plain(row) for row in rows]
index = datasets.load_dataset("org/by_hand", "index", split="train"%s)
found["index"] = [row["id"] for row in index]
print(json.dumps(found))
"""


def same_rows(folder: Path, found: dict[str, list]) -> None:
    for split in ("train", "val"):
        files = sorted((folder / "shards").glob(f"{split}-*.arrow"))
        rows = [row for path in files for row in tables.read(path).to_pylist()]
        for streaming in (False, True):
            loaded = found[f"{split} {streaming}"]
            assert len(loaded) == len(rows) > 0
            for got, row in zip(loaded, rows, strict=True):
                for column in ("input_ids", "loss_mask", "seq_lengths", "grids", "sample_ids"):
                    assert got[column] == row[column]
                assert len(got["images"]) == len(row["images"])
    ids = tables.read(folder / "index.arrow")["id"].to_pylist()
    assert found["index"] == ids


@pytest.mark.parametrize("format", ["arrow", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_pushed_mixture_loads_with_the_same_rows(hub, folder, tmp_path, format, run):
    url = run(push_code(folder, format=format)).strip()
    assert url == f"{hub.url}/datasets/{REPO}"
    assert len(hub.commits(REPO)) == 1
    assert hub.commits(REPO)[0].title == "Mixture by_hand, recipe 0123456789abcdef"
    files = hub.files(REPO)
    shards = {"train-00000", "train-00001", "val-00000"}
    assert {f for f in files if f.startswith("shards/")} == {f"shards/{s}.{format}" for s in shards}
    assert {"README.md", "recipe.json", "stats.json", "mixture.yaml", f"index.{format}"} <= files
    assert "tokenizer/tokenizer.json" in files
    assert not (folder / ".push").exists()
    about = json.loads(hub.file(REPO, "croissant.json"))
    assert about["url"] == url
    assert about["distribution"][1]["includes"] == f"shards/train-*.{format}"
    card = hub.file(REPO, "README.md").decode()
    assert f'load_dataset("{REPO}", split="train")' in card
    same_rows(folder, json.loads(run(ROWS % ("", ""))))


def test_pushing_again_uploads_and_commits_nothing(hub, folder, tmp_path, run):
    code = push_code(folder, format="parquet")
    run(f"{code}; {code}")
    assert hub.count("PUT", "/upload/") == len(large(hub)) >= 4
    assert len(hub.commits(REPO)) == 1


def large(hub: Hub) -> set[str]:
    """The blobs that came by the LFS protocol."""
    return {path.removeprefix("/upload/") for method, path in hub.requests if method == "PUT"}


def test_shards_of_another_recipe_go_in_the_commit_that_brings_the_new(hub, folder, tmp_path, run):
    gone = folder / "shards" / "train-00001.arrow"
    unlink = f"import pathlib; pathlib.Path({str(gone)!r}).unlink()"
    parquet = push_code(folder, format="parquet")
    run(f"{push_code(folder)}; {unlink}; {push_code(folder)}; {parquet}")
    first, second, third = (set(commit.files) for commit in hub.commits(REPO))
    assert first - second == {"shards/train-00001.arrow"}
    assert not any(name.endswith(".arrow") for name in third)
    assert {name for name in third if name.startswith("shards/")} == {
        "shards/train-00000.parquet",
        "shards/val-00000.parquet",
    }


@pytest.mark.parametrize(
    "faults",
    [
        [
            Fault("PUT", "/upload/", status=500, times=2),
            Fault("PUT", "/upload/", status=0),
            Fault("POST", "/preupload/", status=503),
            Fault("POST", "/objects/batch", status=502),
            Fault("POST", "/verify/", status=500),
        ],
        [
            Fault("POST", "/repos/create", status=503),
            Fault("POST", "/commit/", status=500),
            Fault("POST", "/commit/", status=412),
            Fault("POST", "/commit/", status=0),
        ],
    ],
    ids=["uploads", "commits"],
)
def test_faults_that_pass_are_outlasted(hub, folder, tmp_path, faults, run):
    hub.faults = faults
    run(push_code(folder))
    assert all(fault.times == 0 for fault in faults)
    assert len(hub.commits(REPO)) == 1
    for path in sorted((folder / "shards").iterdir()):
        assert hub.file(REPO, f"shards/{path.name}") == path.read_bytes()


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, folder, tmp_path, run):
    hub.faults = [Fault("POST", "/commit/", status=504, after=True)]
    run(push_code(folder))
    assert len(hub.commits(REPO)) == 1


def test_a_push_that_was_cut_short_goes_on_where_it_was(hub, folder, tmp_path, run):
    hub.faults = [Fault("POST", "/commit/", status=400, times=1)]
    code = f"""
from huggingface_hub.errors import BadRequestError
try:
    {push_code(folder)}
except BadRequestError as error:
    print("cut short:", *error.__notes__)
{push_code(folder)}
"""
    told = run(code)
    assert "cut short: uploading to org/by_hand: attempt 1 of 6" in told
    assert len(hub.commits(REPO)) == 1
    assert hub.count("PUT", "/upload/") == len(large(hub))


@pytest.mark.slow
def test_the_trainer_and_show_read_a_pushed_mixture_from_the_hub(hub, folder, tmp_path, run):
    code = f"""
{push_code(folder)}
from pipelines.report.show import show
from trainer.data.shards import Rows, open_mixture
home = "hf://datasets/{REPO}"
rows = Rows(open_mixture(home), "train")
print("rows", len(rows), sum(len(rows[k].input_ids) for k in range(len(rows))))
print(show(home, row=1, color=False))
"""
    told = run(code)
    shards = sorted((folder / "shards").glob("train-*.arrow"))
    lengths = [len(ids) for path in shards for ids in tables.read(path)["input_ids"].to_pylist()]
    assert f"rows {len(lengths)} {sum(lengths)}" in told
    assert "train row 1 (train-00001.arrow, row 0)" in told


@pytest.mark.slow
def test_private_and_a_branch(hub, folder, tmp_path, run):
    url = run(push_code(folder, private=True, revision="v2")).strip()
    assert url.endswith(f"/datasets/{REPO}/tree/v2")
    assert hub.repositories["dataset", REPO].private
    assert hub.commits(REPO) == []
    assert "shards/val-00000.arrow" in hub.files(REPO, branch="v2")
    loaded = run(ROWS % (', revision="v2"', ', revision="v2"'))
    same_rows(folder, json.loads(loaded))


@pytest.mark.parametrize("offline", ["", "1"])
def test_without_network_one_sentence_comes_at_once(folder, tmp_path, offline, hub_python):
    """The first request is not repeated, and nothing is made ready for it."""
    words = ["push", str(folder), f"repo={REPO}", "format=parquet", "terms=accepted"]
    code = (
        "import time, pipelines.push as p\n"
        "from pipelines.__main__ import main\n"
        "p.time.sleep = lambda seconds: print('waited')\n"
        "p.to_parquet = lambda *paths: print('made')\n"
        f"print('status', main({words!r}))"
    )
    with socket.socket() as taken:  # no one listens there, and no one else may
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environment = {"HF_ENDPOINT": closed, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_x"}
        ran = hub_python.run("-c", code, environment=environment | {"HF_HUB_OFFLINE": offline})
    assert ran.stdout.split() == ["status", "2"], ran.stderr
    why = "HF_HUB_OFFLINE" if offline else f"creating {REPO}: {closed} cannot be reached"
    assert ran.stderr.startswith(f"pipelines push: {why}")
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("format", ["messages", "webdataset"])
def test_the_samples_of_a_mixture_are_pushed_for_other_trainers(hub, mix, tmp_path, run, format):
    """Terms hold as for shards; a push of one format replaces that of another."""
    folder = Path(shutil.copytree(mix, tmp_path / "mix"))
    code = push_code(folder, format=format)
    run(f"{push_code(folder)}; {code}; {code}")
    packed, second = hub.commits(REPO)
    assert {"preview/train.parquet", "preview/val.parquet"} <= set(packed.files)
    assert second.title.startswith("Mixture small, recipe ")
    assert second.title.endswith(f", as {format}")
    where = {"messages": "messages/train-00000.parquet", "webdataset": "shards/train-00000.tar"}
    assert where[format] in second.files
    assert not any(name.endswith(".arrow") or "tokenizer" in name for name in second.files)
    assert (
        f'{"load_dataset" if format == "messages" else "WebDataset"}("'
        in hub.file(REPO, "README.md").decode()
    )
    assert not (folder / ".push").exists()
    change(folder, lambda recipe: recipe["sources"]["text"].update(gating="ask"))
    with pytest.raises(ValueError, match=r"text \(gated: ask\).*say terms=accepted"):
        push(str(folder), repo=REPO, format=format)


def test_what_is_waited_for_is_said(hub, folder, tmp_path, run):
    hub.faults = [
        Fault("POST", "/commit/", status=429),
        Fault("POST", "/commit/", status=412),
        Fault("POST", "/repos/create", status=503),
    ]
    code = f"import pipelines.push as p; p.time.sleep = lambda s: None; {push_code(folder)}"
    told = run(f"import sys; sys.stderr = sys.stdout; {code}")
    assert f"creating {REPO}: the hub answered 503; trying again in 1 s (attempt 2 of 6)." in told
    assert f"uploading to {REPO}: the hub limits how often it may be asked (status 429)" in told
    assert "someone else committed in between (status 412); trying again in 2 s" in told
    hub.faults = [Fault("POST", "/repos/create", status=503)]
    quiet = "import logging; logging.getLogger('pipelines').setLevel('WARNING')"
    assert "trying again" not in run(f"import sys; sys.stderr = sys.stdout; {quiet}; {code}")


def test_a_refusal_says_how_to_log_in(hub, folder, tmp_path, run):
    hub.faults = [Fault("POST", "/repos/create", status=403, times=9)]
    told = run(push_code(folder), status=1)
    assert "ValueError: creating org/by_hand: the hub answered 403. Set HF_TOKEN" in told


def change(folder: Path, change_recipe: Any) -> None:
    path = folder / "recipe.json"
    recipe = json.loads(path.read_text())
    change_recipe(recipe)
    path.write_text(json.dumps(recipe))


def gated(recipe: dict) -> None:
    recipe["sources"]["video"]["gating"] = "share contact"


def kept(recipe: dict) -> None:
    recipe["sources"]["video"]["terms"] = ["no-redistribution"]


def forbidden(recipe: dict) -> None:
    recipe["mixture"]["licenses"] = {"allow": [], "forbid": ["non-commercial"]}
    recipe["sources"]["pages"]["terms"] = ["non-commercial"]


def not_allowed(recipe: dict) -> None:
    recipe["mixture"]["licenses"] = {"allow": ["Apache-2.0"], "forbid": []}
    recipe["sources"]["words"]["licence"] = "MIT"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (gated, r"video \(gated: share contact\).*say terms=accepted"),
        (kept, r"video \(no-redistribution\).*say terms=accepted"),
        (forbidden, r"refuses pages \(Apache-2.0, non-commercial\)"),
        (not_allowed, r"refuses words \(MIT\)"),
    ],
)
def test_licences_and_terms_are_checked_before_anything_is_sent(folder, changed, message):
    change(folder, changed)
    with pytest.raises(ValueError, match=message):
        push(str(folder), repo=REPO)
    assert not (folder / ".push").exists()


def test_stated_terms_lift_what_they_may_and_no_more(hub, folder, tmp_path, run):
    change(folder, gated)
    run(push_code(folder, terms="accepted"))
    assert len(hub.commits(REPO)) == 1
    change(folder, forbidden)
    with pytest.raises(ValueError, match="refuses pages"):
        push(str(folder), repo=REPO, terms="accepted")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"repo": "by_hand"}, r"repo=by_hand: expected ORG/NAME"),
        (
            {"repo": REPO, "format": "csv"},
            r"format=csv: expected one of arrow, parquet, messages",
        ),
        ({"repo": REPO, "terms": "yes"}, r"terms=yes: expected terms=accepted"),
    ],
)
def test_a_word_that_is_wrong_is_said(folder, words, message):
    with pytest.raises(ValueError, match=message):
        push(str(folder), **words)


def test_a_folder_that_is_neither_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a finished mixture"):
        push(str(tmp_path), repo=REPO)


def test_parquet_has_the_rows_and_the_features_and_the_same_bytes_each_time(folder, tmp_path):
    shard = folder / "shards" / "train-00000.arrow"
    to_parquet(shard, tmp_path / "a.parquet")
    to_parquet(shard, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.equals(tables.read(shard))
    assert b"Image" in table.schema.metadata[b"huggingface"]


def checkpoint(folder: Path) -> Path:
    """A folder laid out as the trainer's checkpoints are."""
    (folder / "trainer").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "smolvlm"}))
    (folder / "model.safetensors").write_bytes(b"\0" * 5000)
    (folder / "trainer" / "state.json").write_text("{}")
    (folder / "trainer" / "optimizer.pt").write_bytes(b"\0" * 5000)
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\ntags: [smolvlm, vision-language]\n---\n\n# tiny\n\n"
        'model = AutoModelForImageTextToText.from_pretrained("THIS_FOLDER")\n'
    )
    return folder


def test_a_checkpoint_is_pushed_with_a_card_that_links_its_data(hub, tmp_path, run):
    folder = checkpoint(tmp_path / "step-000100")
    url = run(push_code(folder, repo="org/tiny", dataset=REPO)).strip()
    assert url == f"{hub.url}/org/tiny"
    assert hub.files("org/tiny", kind="model") == {
        "README.md", "config.json", "model.safetensors", "trainer/state.json",
    }  # fmt: skip
    card = hub.file("org/tiny", "README.md", kind="model").decode()
    fields = yaml.safe_load(card.split("---\n")[1])
    assert fields["datasets"] == [REPO]
    assert fields["tags"] == ["smolvlm", "vision-language"]
    assert 'from_pretrained("org/tiny")' in card
    assert f"https://huggingface.co/datasets/{REPO}" in card


def test_a_checkpoint_without_a_card_gets_a_header(tmp_path):
    folder = checkpoint(tmp_path / "step-000100")
    (folder / "README.md").unlink()
    text = model_card(folder, repo="org/tiny", dataset="")
    fields = yaml.safe_load(text.split("---\n")[1])
    assert fields == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["smolvlm"],
    }
