"""A mixture for another trainer: the same samples, of which a build makes the same tokens."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.export.files import LITERAL
from pipelines.export.folder import export, write_preview
from pipelines.report.finished import open_finished
from tests.building import words
from tests.laid_out import small_world
from tests.pipelines.sources.making import coarse_jpeg

VIDEO = [
    {
        "messages": [
            {"role": "user", "content": [*[{"type": "image"}] * 3, {"type": "text", "text": "Q?"}]},
            {"role": "assistant", "content": f"It moves {n}."},
        ],
        "images": [f"{n}-{k}.jpg" for k in range(3)],
        "image_seconds": [0.0, 1.5, 3.0],
    }
    for n in range(6)
]  # fmt: skip


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    """Stills, some used twice, texts with marks in them, frames of videos, and raw documents."""
    root = tmp_path_factory.mktemp("exporting")
    mine = yaml.safe_load(small_world(root).read_text())
    for n, row in enumerate(VIDEO):
        for k, name in enumerate(row["images"]):
            (root / "clips").mkdir(exist_ok=True)
            (root / "clips" / name).write_bytes(coarse_jpeg(900 + 10 * n + k, 64, 64))
    (root / "clips" / "video.jsonl").write_text("".join(json.dumps(row) + "\n" for row in VIDEO))
    (root / "texts.jsonl").write_text(
        "".join(json.dumps({"text": f"Größe {n}. " * (3 + n % 9)}) + "\n" for n in range(48))
    )
    mine["encoding"] |= {"system_prompts": "smolvlm", "brevity_hints": True, "shuffle_turns": True}
    mine["components"]["images"] |= {"ratio": 0.7, "max_epochs": 2}
    mine["components"]["text"]["ratio"] = 0.1
    mine["components"]["video"] = {
        "source": "messages", "data": f"{root}/clips/video.jsonl", "ratio": 0.1, "max_epochs": 4
    }  # fmt: skip
    mine["components"]["raw"] = {
        "source": "documents", "data": f"{root}/texts.jsonl", "learn": "all", "ratio": 0.1
    }  # fmt: skip
    (root / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    build(root / "mine.yaml", root / "mix")
    return root / "mix"


def build(file: Path, output: Path, *more: str) -> Path:
    assert main(words(file, output, f"output={output}", f"work={output}-work", *more)) == 0
    return output


@pytest.fixture(scope="module")
def messages(mixture) -> Path:
    export(str(mixture), output=f"{mixture.parent}/messages")
    return mixture.parent / "messages"


@pytest.fixture(scope="module")
def webdataset(mixture) -> Path:
    export(str(mixture), output=f"{mixture.parent}/webdataset", format="webdataset")
    return mixture.parent / "webdataset"


def sequences(folder: Path, split: str = "train") -> list[tuple]:
    """(ids, learned, grids, hashes of images, id of the sample) of every sequence, in order."""
    found = []
    for path in sorted((folder / "shards").glob(f"{split}-*.arrow")):
        for row in tables.read(path).to_pylist():
            ids, mask = np.array(row["input_ids"]), np.array(row["loss_mask"])
            at = taken = 0
            crops = np.cumsum([g["rows"] * g["cols"] + 1 for g in row["grids"]]) * 4
            for name, length in zip(row["sample_ids"], row["seq_lengths"], strict=True):
                seen = (ids[: at + length] == 49190).sum()  # <image>
                upto = int(np.searchsorted(crops, seen, side="right"))
                images = [hashlib.md5(i["bytes"]).hexdigest() for i in row["images"][taken:upto]]
                grids = [(g["rows"], g["cols"]) for g in row["grids"][taken:upto]]
                tokens = ids[at : at + length].tobytes(), mask[at : at + length].tobytes()
                found.append((*tokens, tuple(grids), tuple(images), name))
                at, taken = at + length, upto
    return found


def rows_of(folder: Path, split: str = "train") -> list[dict]:
    files = sorted((folder / "messages").glob(f"{split}-*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def samples_of(folder: Path, split: str = "train") -> list[dict]:
    """The samples of tars, grouped by key as webdataset does."""
    found: list[dict] = []
    for path in sorted((folder / "shards").glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if not found or found[-1]["__key__"] != key:
                    found.append({"__key__": key})
                found[-1][extension] = tar.extractfile(member).read()
    return found


def test_the_mixture_has_what_is_to_be_exported(mixture):
    index = open_finished(str(mixture)).index.filter(pl.col("copies") > 0)
    assert set(index["modality"].cast(pl.String)) == {"image", "multi_image", "text", "video"}
    assert index["copies"].max() > 1


@pytest.mark.parametrize("format", ["messages", "webdataset"])
def test_a_mixture_built_from_the_export_has_the_same_tokens(mixture, format, request):
    folder = request.getfixturevalue(format)
    again = build(folder / "mixture.yaml", folder.parent / f"from-{format}")
    ours = sequences(mixture)
    if format == "webdataset":  # which reads no raw text back
        ours = [line for line in ours if not line[-1].startswith("documents/")]
    assert Counter(line[:-1] for line in sequences(again)) == Counter(line[:-1] for line in ours)


def test_order_copies_and_split_are_those_of_the_shards(mixture, messages, webdataset):
    for split in ("train", "val"):
        ids = [line[-1] for line in sequences(mixture, split)]
        talks = [name for name in ids if not name.startswith("documents/")]
        assert [row["id"] for row in rows_of(messages, split)] == talks
        assert [json.loads(s["json"])["id"] for s in samples_of(webdataset, split)] == ids
    assert len(ids) > 0


def test_counts_and_ratios_equal_the_index(mixture, messages):
    finished = open_finished(str(mixture))
    made = json.loads((messages / "export.json").read_text())
    used = finished.index.filter((pl.col("copies") > 0) & (pl.col("split") == "train"))
    counts = used.group_by(pl.col("component").cast(pl.String)).agg(
        samples=pl.col("copies").sum(), tokens=(pl.col("copies") * pl.col("num_tokens")).sum()
    )
    train = made["splits"]["train"]
    assert {p["component"]: (p["samples"], p["tokens"]) for p in train} == {
        name: (samples, tokens) for name, samples, tokens in counts.iter_rows()
    }
    for part in train:
        got = finished.stats["components"][part["component"]]["got"]["tokens"]
        assert part["share"] == pytest.approx(got, abs=1e-4)  # stats are rounded
    assert [p["component"] for p in train if p["document"]] == ["raw"]


def test_frames_are_images_with_their_seconds(messages):
    clips = [row for row in rows_of(messages) if row["component"] == "video"]
    assert clips
    for row in clips:
        assert row["modality"] == "video"
        assert row["image_seconds"] == [0.0, 1.0, 3.0]  # as the prompt states them
        parts = [part for message in row["messages"] for part in message["content"]]
        assert [part["type"] for part in parts].count("image") == len(row["images"]) == 3
    stills = [row for row in rows_of(messages) if row["component"] == "images"]
    assert {second for row in stills for second in row["image_seconds"]} == {None}


def test_what_datasets_loads_of_it(messages):
    import datasets

    loaded = datasets.load_dataset(str(messages), split="train", streaming=True)
    first, plain = next(iter(loaded)), rows_of(messages)[0]
    assert first["messages"] == plain["messages"]
    assert all(isinstance(image, Image.Image) for image in first["images"])
    raw = datasets.load_dataset(str(messages), "documents", split="train", streaming=True)
    assert next(iter(raw))["text"].startswith("Größe ")


def test_a_tar_holds_json_and_images_that_open(webdataset):
    for sample in samples_of(webdataset):
        about = json.loads(sample["json"])
        parts = [part for message in about["messages"] for part in message["content"]]
        assert [part["type"] for part in parts].count("image") == len(about["images"])
        assert sorted(sample.keys() - {"__key__", "json"}) == about["images"]
        for name in about["images"]:
            Image.open(io.BytesIO(sample[name])).verify()


def test_a_preview_shows_the_first_samples_of_each_split(mixture, messages, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.export.folder.PREVIEWED", 7)
    assert write_preview(open_finished(str(mixture)), str(tmp_path)) == ["train", "val"]
    shown = pq.read_table(tmp_path / "preview" / "train.parquet").to_pylist()
    assert [row["id"] for row in shown] == [line[-1] for line in sequences(mixture)][:7]
    monkeypatch.setattr("pipelines.export.folder.PREVIEW_BYTES", 10_000)
    write_preview(open_finished(str(mixture)), str(tmp_path))
    fewer = pq.read_table(tmp_path / "preview" / "train.parquet").to_pylist()
    assert 0 < len(fewer) < 7


def test_content_as_text_has_a_place_for_each_image_and_no_other(mixture, messages, tmp_path):
    made = export(str(mixture), output=str(tmp_path / "text"), content="text")
    rows, plain = rows_of(tmp_path / "text"), rows_of(messages)
    for row, other in zip(rows, plain, strict=True):
        said = "".join(message["content"] for message in row["messages"])
        assert said.count("<image>") == len(row["images"])
        assert [m["role"] for m in row["messages"]] == [m["role"] for m in other["messages"]]
    literal = sum(any(LITERAL in m["content"] for m in row["messages"]) for row in rows)
    held_out = rows_of(tmp_path / "text", "val")
    literal += sum(any(LITERAL in m["content"] for m in row["messages"]) for row in held_out)
    assert made["altered"] == literal > 0
    assert (
        f"In {literal} rows a text says `<image>` itself"
        in (tmp_path / "text" / "README.md").read_text()
    )


@pytest.mark.parametrize("format", ["messages", "webdataset"])
def test_the_same_command_goes_on_where_it_was_and_ends_in_the_same_bytes(
    mixture, format, request, tmp_path
):
    whole = request.getfixturevalue(format)
    folder = tmp_path / "again"
    export(str(mixture), output=str(folder), format=format)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == files
    shard = next(path for path in files if path.name.startswith("train-00001"))
    kept = next(path for path in files if path.name.startswith("train-00000"))
    before = (folder / kept).stat().st_mtime_ns
    for name in (shard, Path("README.md"), Path("mixture.yaml")):
        (folder / name).unlink()
    export(str(mixture), output=str(folder), format=format)
    assert (folder / kept).stat().st_mtime_ns == before
    for name in files:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_folder_that_holds_something_else_is_left_alone(mixture, messages, tmp_path):
    with pytest.raises(ValueError, match=r"another export \(format messages, now webdataset\)"):
        export(str(mixture), output=str(messages), format="webdataset")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no export, but mine\.txt"):
        export(str(mixture), output=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"format": "csv"}, "expected one of messages, webdataset"),
        ({"content": "html"}, "expected one of parts, text"),
        ({"format": "webdataset", "content": "text"}, "of format=messages alone"),
    ],
)
def test_a_word_that_is_wrong_is_said(mixture, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        export(str(mixture), output=str(tmp_path / "x"), **words)
    assert not (tmp_path / "x").exists()


def test_the_command(mixture, tmp_path, capsys):
    assert main(["export", str(mixture), f"output={tmp_path}/out"]) == 0
    assert "train: " in capsys.readouterr().out
    assert main(["export", str(mixture)]) == 2
    assert "output=FOLDER is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_trl_and_transformers_learn_the_answers_of_an_export(messages, mixture, tmp_path):
    """TRL's own collator and `transformers`' processor make labels of its rows."""
    pytest.importorskip("trl")
    import datasets
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from tests.tokenization.test_inference import processor_of
    from tokenization.inference import save_processing
    from tokenization.schema import Encoding
    from tokenization.vocab import load_tokenizer

    encoding = Encoding(**open_finished(str(mixture)).recipe["mixture"]["encoding"])
    save_processing(load_tokenizer("builtin"), tmp_path, encoding=encoding)
    processor = processor_of(tmp_path)
    rows = [row for row in datasets.load_dataset(str(messages), split="train") if row["images"]][:4]
    batch = DataCollatorForVisionLanguageModeling(processor)(rows)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        learned = labels[labels != -100]
        assert (ids[labels != -100] == learned).all()
        answer = row["messages"][-1]["content"][-1]["text"]
        assert answer in processor.tokenizer.decode(learned)
