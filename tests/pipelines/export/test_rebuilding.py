"""Mixtures of every kind, built from their exports: the same sequences, or it is said why not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.export.conversations import about_shards, opened_tools, records_of
from pipelines.export.folder import export
from pipelines.report import divided
from pipelines.report.finished import open_finished
from tests.building import words
from tests.pipelines.export.test_folder import rows_of, samples_of, sequences
from tests.pipelines.sources.making import coarse_jpeg, encoded_video

ENCODING = {
    "seq_len": 256, "max_crops": 40, "crop_size": 32, "longest_edge": 64, "tokens_per_crop": 4,
}  # fmt: skip


def talk(*pairs: tuple[Any, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for asked, answer in pairs:
        found += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return found


def lines(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def built(root: Path, components: dict[str, Any], **encoding: Any) -> Path:
    """A finished mixture of these components."""
    about = {
        "val_fraction": 0.05, "shard_bytes": 20_000, "encoding": ENCODING | encoding,
        "components": components,
    }  # fmt: skip
    (root / "mine.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    assert main(words(root / "mine.yaml", root)) == 0
    return root / "mix"


def scheduled(root: Path) -> Path:
    """Two components of text whose ratios cross."""
    rows = {
        name: lines(
            root / f"{name}.jsonl",
            [{"messages": talk((f"{name} {n}?", f"{name} says {n}."))} for n in range(150)],
        )
        for name in ("early", "late")
    }
    early = {"source": "messages", "data": rows["early"], "ratio": {0: 0.9, 1: 0.1}}
    return built(root, {"early": early, "late": {"source": "messages", "data": rows["late"],
                                                 "ratio": "rest"}})  # fmt: skip


def cut(root: Path) -> Path:
    """Samples of many questions about an image, in pieces; some are used twice."""
    rows = []
    for n in range(24):
        (root / f"{n}.jpg").write_bytes(coarse_jpeg(n, 64, 48))
        asked = [{"type": "image", "image": f"{n}.jpg"}, {"type": "text", "text": "What?"}]
        more = [(f"And {k}?", f"It is {n} and {k}.") for k in range(1 + n % 6)]
        rows.append({"messages": talk((asked, f"A number, {n}."), *more)})
    shown = lines(root / "shown.jsonl", rows)
    said = lines(
        root / "said.jsonl", [{"messages": talk((f"{n}?", f"So {n}."))} for n in range(90)]
    )
    return built(
        root,
        {
            "shown": {"source": "messages", "data": shown, "ratio": 0.8, "max_epochs": 2},
            "said": {"source": "messages", "data": said, "ratio": 0.2},
        },
        split_turns=2,
        shuffle_turns=True,
    )


def filmed(root: Path) -> Path:
    """Clips, of which a build keeps frames."""
    rows = []
    for n in range(8):
        encoded_video(root / f"{n}.mp4", seconds=2 + n % 3)
        asked = [{"type": "video", "video": f"{n}.mp4"}, {"type": "text", "text": "What moves?"}]
        rows.append({"messages": talk((asked, f"It is {n}."))})
    clips = lines(root / "clips.jsonl", rows)
    return built(root, {"clips": {"source": "messages", "data": clips, "ratio": 1.0,
                                  "frames": {"fps": 1, "max_frames": 4}}})  # fmt: skip


def written(root: Path) -> Path:
    """Text only: conversations, and raw documents of which some are longer than a row."""
    said = lines(
        root / "said.jsonl", [{"messages": talk((f"{n}?", f"So {n}."))} for n in range(60)]
    )
    raw = lines(
        root / "raw.jsonl", [{"text": f"Größe {n}. " * (5 + 60 * (n % 3))} for n in range(30)]
    )
    return built(
        root,
        {
            "said": {"source": "messages", "data": said, "ratio": 0.3},
            "raw": {"source": "documents", "data": raw, "learn": "all", "ratio": 0.7},
        },
    )


MADE = {"scheduled": scheduled, "cut": cut, "filmed": filmed, "written": written}
OTHERWISE = {
    ("scheduled", "messages"): ["the ratio of early, late is a schedule"],
    ("scheduled", "webdataset"): ["the ratio of early, late is a schedule"],
    ("written", "messages"): ["parts of raw documents that were cut at a row's end"],
    ("written", "webdataset"): ["raw documents are not read back from tars"],
}


@pytest.fixture(scope="module", params=MADE)
def mixture(request, tmp_path_factory) -> Path:
    return MADE[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("format", ["messages", "webdataset"])
def test_an_export_is_the_index_and_builds_the_same_sequences(mixture, format, request):
    name = request.node.callspec.params["mixture"]
    folder = mixture.parent / format
    made = export(str(mixture), output=str(folder), format=format)
    index = open_finished(str(mixture)).index.filter(pl.col("copies") > 0)
    for split in made["splits"]:
        ours = sequences(mixture, split)
        ids = [line[-1] for line in ours]
        if format == "messages":
            talks = [i for i in ids if not i.startswith("documents/")]
            assert [row["id"] for row in rows_of(folder, split)] == talks
        else:
            assert [json.loads(s["json"])["id"] for s in samples_of(folder, split)] == ids
        used = index.filter(split=split)
        tokens = used.group_by(pl.col("component").cast(pl.String)).agg(
            (pl.col("copies") * pl.col("num_tokens")).sum()
        )
        got = Counter[str]()
        for part in made["splits"][split]:
            got[part["component"]] += part["tokens"]
        assert got == dict(tokens.iter_rows())
    reasons = made["rebuilt_otherwise"]
    expected = OTHERWISE.get((name, format), [])
    assert len(reasons) == len(expected)
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason
        assert part in (folder / "README.md").read_text()

    again = folder.parent / f"from-{format}"
    assert main(words(folder / "mixture.yaml", again)) == 0
    ours = [line[:-1] for line in sequences(mixture)]
    theirs = [line[:-1] for line in sequences(again / "mix")]
    if name == "written":
        whole = {line for line in ours if np.frombuffer(line[0], np.int64)[0] == 1}
        assert whole
        ours = [line for line in ours if line in whole]
        theirs = [line for line in theirs if line in whole]
    assert Counter(theirs) == Counter(ours)


def test_shards_of_another_build_are_a_mistake_that_is_laid_out(tmp_path):
    mixture = filmed(tmp_path)
    finished = open_finished(str(mixture))
    shard = finished.shards["train"][0]
    with about_shards(finished) as shards:
        about = shards.of(shard)
    row = tables.read(finished.path(shard)).to_pylist()[0]
    known = {line["id"]: line for line in about.iter_rows(named=True)}
    with opened_tools(finished) as tools:
        for spoilt in (
            row | {"grids": row["grids"][1:], "images": row["images"][1:]},
            row | {"sample_ids": ["messages/other/1", *row["sample_ids"][1:]]},
            row | {"input_ids": [*row["input_ids"][:-1], 5]},
        ):
            with pytest.raises(ValueError, match=r"sample messages/\S+ cannot be turned back") as e:
                list(records_of(spoilt, known, tools, where=shard))
            assert "\nfound: " in str(e.value)
            assert "\nway out: " in str(e.value)


def test_what_is_said_of_a_shard_is_what_the_index_says_of_its_samples(mixture, monkeypatch):
    monkeypatch.setattr(divided, "LINES", 7)  # neighbouring shards lie in several files
    finished = open_finished(str(mixture))
    used = finished.index.filter(pl.col("copies") > 0).explode("shard")
    with about_shards(finished) as about:
        assert about.names == finished.shards
        for split, names in reversed(about.names.items()):
            for number, name in enumerate(names):
                here = used.filter(split=split, shard=number).unique("id")
                said = about.of(name)
                assert sorted(said.rows(), key=str) == sorted(
                    here.select(said.columns).rows(), key=str
                )
