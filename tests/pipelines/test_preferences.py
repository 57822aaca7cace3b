"""Pairs of answers through a build: what rules see, what shards carry, what is made of them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

import filters
from filters.facts import facts
from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.export.folder import export
from pipelines.report.finished import open_finished
from pipelines.report.page import report
from tests import building
from tests.pipelines.sources.making import coarse_jpeg, write, write_lines
from tests.tokenization.rows import SMALL, image_record, message, sample, table
from tokenization.encode import encode
from tokenization.schema import PAIRED_TOKENS, TOKENS

ENCODING = {
    "seq_len": 384, "max_crops": 40, "crop_size": 32, "longest_edge": 64, "tokens_per_crop": 4,
    "shuffle_turns": True, "max_turns": 1, "split_turns": 1,
}  # fmt: skip


def pair_rows() -> list[dict]:
    """40 pairs, one of two turns and one of no image; four are none."""
    rows = [
        {"prompt": f"What is number {n}?", "chosen": f"It is {n}.", "rejected": f"It is not {n}.",
         "images": [f"{n}.jpg"]}
        for n in range(40)
    ]  # fmt: skip
    rows[1]["prompt"] = [
        {"role": "user", "content": "Which is it?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Is it <b>?"},
    ]
    rows[2] |= {"prompt": "Say two.", "images": []}
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[4]["chosen"] = ""
    rows[5]["rejected"] = "long " * 400
    rows[6]["rejected"] = "As an AI language model I cannot see."
    rows[8] = rows[7]
    return rows


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for n in range(40):
        write(root / "data" / f"{n}.jpg", coarse_jpeg(n, 64, 64))
    write_lines(root / "data" / "pairs.jsonl", pair_rows())
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    write_lines(root / "chat" / "chat.jsonl", [{"messages": talk}] * 3)
    mine = {
        "tokens": "max",
        "val_fraction": 0.15,
        "shard_bytes": 60_000,
        "encoding": ENCODING,
        "filters": {"duplicate_sample": {}, "refusal": {}},
        "components": {
            "pairs": {"source": "preferences", "data": f"{root}/data", "ratio": 0.98,
                      "max_epochs": 2},
            "chat": {"source": "messages", "data": f"{root}/chat", "ratio": 0.02, "filters":
                     {"duplicate_sample": {"mode": "mark"}}, "max_epochs": 8},
        },
    }  # fmt: skip
    write(root / "pairs.yaml", yaml.safe_dump(mine, sort_keys=False))
    return building.build(root / "pairs.yaml", root)


@pytest.fixture(scope="module")
def exported(mixture) -> Path:
    export(str(mixture), output=f"{mixture.parent}/trl", format="preferences")
    return mixture.parent / "trl"


def test_bad_pairs_have_a_reason_and_rules_see_both_answers(mixture):
    index = pl.DataFrame(tables.read(str(mixture / "index.arrow")))
    reasons = dict(index.filter(pl.col("component") == "pairs").select("row", "rule").iter_rows())
    gone = {row: rule for row, rule in reasons.items() if rule is not None}
    assert {gone.pop(7, None), gone.pop(8, None)} == {"duplicate_sample", None}
    assert gone == {3: "no_preference", 4: "missing_answer", 5: "too_long", 6: "refusal"}


def test_shards_hold_the_chosen_conversation_and_beside_it_the_rejected_answer(mixture, tmp_path):
    rows = load_dataset(str(mixture), split="train", cache_dir=str(tmp_path))
    found = {
        name: rejected
        for row in rows
        for name, rejected in zip(row["sample_ids"], row["rejected"], strict=True)
    }
    for name, rejected in found.items():
        number = int(name.rsplit("/", 1)[1])
        of_pair = name.startswith("preferences/")
        assert rejected == (f"It is not {number}." if of_pair else None), name
    assert main(["check", str(mixture)]) == 0
    assert "`rejected` | per sample" in (mixture / "README.md").read_text()
    assert "Rejected: It is not" in report(open_finished(str(mixture)))


def test_a_row_is_shown_with_its_rejected_answers(mixture, capsys):
    assert main(["show", str(mixture), "row=0"]) == 0
    assert "Rejected: It is not" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_export_holds_every_pair_as_often_and_in_the_order_of_the_shards(
    mixture, exported, split, tmp_path
):
    rows = load_dataset(str(exported), split=split, cache_dir=str(tmp_path))
    assert rows.column_names[:4] == ["prompt", "chosen", "rejected", "images"]
    index = open_finished(str(mixture)).index.filter(component="pairs", split=split)
    copies = {name: n for name, n in index.select("id", "copies").iter_rows() if n}
    assert Counter(rows["id"]) == copies
    shards = sorted((mixture / "shards").glob(f"{split}-*.arrow"))
    dealt = [name for path in shards for ids in tables.read(str(path))["sample_ids"].to_pylist()
             for name in ids if name.startswith("preferences/")]  # fmt: skip
    assert rows["id"] == dealt
    for row in rows:
        number = int(row["id"].rsplit("/", 1)[1])
        text = lambda message: "".join(part["text"] or "[i]" for part in message["content"])
        assert [text(m) for m in row["chosen"]] == [f"It is {number}."]
        assert [text(m) for m in row["rejected"]] == [f"It is not {number}."]
        assert [m["role"] for m in (*row["chosen"], *row["rejected"])] == ["assistant"] * 2
        assert sum(text(m).count("[i]") for m in row["prompt"]) == len(row["images"])
        if number == 1:
            assert [m["role"] for m in row["prompt"]][-3:] == ["user", "assistant", "user"]
            assert text(row["prompt"][-1]) == "Is it <b>?"


def test_what_is_no_pair_is_counted(mixture, exported):
    made = json.loads((exported / "export.json").read_text())
    index = open_finished(str(mixture)).index
    by = dict(index.group_by("component").agg(pl.col("copies").sum()).iter_rows())
    assert made["left_out"] == by["chat"] > 0
    assert sum(part["samples"] for s in made["splits"].values() for part in s) == by["pairs"]
    assert (
        f"{by['chat']} samples of the mixture have no rejected answer"
        in (exported / "README.md").read_text()
    )


def test_the_export_rebuilds_the_same_pairs(mixture, exported, tmp_path):
    (tmp_path / "copy").symlink_to(exported)
    again = building.build(tmp_path / "copy" / "mixture.yaml", tmp_path, "tokens=max")
    first, second = (sequences(folder, "train") for folder in (mixture, again))
    kept = [one for one in first if one[2] is not None]
    assert Counter(kept) == Counter(second)


def sequences(folder: Path, split: str) -> list[tuple]:
    """(ids, mask, rejected) of every sample in the shards."""
    found = []
    for path in sorted((folder / "shards").glob(f"{split}-*.arrow")):
        for row in tables.read(str(path)).to_pylist():
            start = 0
            for length, other in zip(row["seq_lengths"], row["rejected"], strict=True):
                here = slice(start, start + length)
                found.append((tuple(row["input_ids"][here]), tuple(row["loss_mask"][here]), other))
                start += length
    return found


def test_a_mixture_without_pairs_is_refused(tmp_path):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    write_lines(tmp_path / "chat.jsonl", [{"messages": talk}] * 3)
    mine = {"tokens": "max", "components": {
        "chat": {"source": "messages", "data": f"{tmp_path}/chat.jsonl", "ratio": 1}}}  # fmt: skip
    write(tmp_path / "chat.yaml", yaml.safe_dump(mine))
    folder = building.build(tmp_path / "chat.yaml", tmp_path)
    schema = tables.open_file(str(folder / "shards" / "train-00000.arrow")).schema
    assert "rejected" not in schema.names
    with pytest.raises(ValueError, match=r"has no pairs of answers \(components: chat\)"):
        export(str(folder), output=f"{tmp_path}/trl", format="preferences")
    assert not (tmp_path / "trl").exists()
    with pytest.raises(ValueError, match="of format=messages alone"):
        export(str(folder), output=f"{tmp_path}/trl", format="preferences", content="text")


# ------------------------------------------------------------------ tables in, tables out


def pair(id_: str, chosen: str, rejected: str, **more) -> dict:
    turns = [message("user", "Q?"), message("rejected", rejected), message("assistant", chosen)]
    return sample(id_, turns, **more)


def test_facts_of_a_pair_are_of_both_answers():
    frame = facts(
        table(pair("a", "A", "B"), sample("b", [message("user", "Q?"), message("assistant", "A")])),
        names={"roles", "answers", "asked", "text", "learned_text", "num_turns"},
    )
    assert frame["roles"].to_list() == ["user assistant"] * 2
    assert frame["answers"].to_list() == [["B", "A"], ["A"]]
    assert frame["asked"].to_list() == [["Q?", "Q?"], ["Q?"]]
    assert frame["text"].to_list() == ["Q?\nB\nA", "Q?\nA"]
    assert frame["learned_text"].to_list() == ["B\nA", "A"]
    assert frame["num_turns"].to_list() == [1, 1]


def test_a_rule_on_questions_and_answers_sees_the_rejected_one():
    rows = [pair("a", "A", "Q"), pair("b", "q.", "B"), pair("c", "A", "B")]
    judged = filters.judge(table(*rows), rules={"answer_copies_question": {}})
    assert judged["rule"].to_pylist() == ["answer_copies_question"] * 2 + [None]


def test_what_rewrites_changes_both_answers():
    found = filters.rewrite(
        table(pair("a", "Write to a@b.org.", "Write to c@d.org.")),
        rules={"personal_information": {"mode": "rewrite"}},
    )
    tokens = encode(found, encoding=SMALL, pairs=True)
    assert tokens["problem"].to_pylist() == ["no_preference"]  # nothing tells them apart now


def test_a_low_turn_takes_its_rejected_answer_along():
    rated = [{"relevance": r, "image_correspondence": 5, "visual_dependency": 5, "formatting": 5}
             for r in (5, 1)]  # fmt: skip
    row = pair("a", "A", "B", ratings=rated)
    row["messages"] = [message("user", "First?"), message("assistant", "Yes."), *row["messages"]]
    rules = {"low_rating": {"min_relevance": 3, "mode": "rewrite"}}
    found = filters.rewrite(table(row), rules=rules)["messages"].to_pylist()[0]
    assert [m["role"] for m in found] == ["user", "assistant"]


def test_ids_are_those_of_the_chosen_conversation():
    picture = [image_record(40, 40)]
    asked = message("user", {"type": "image", "text": None}, "Q?")
    chosen = [asked, message("assistant", "A")]
    paired = [asked, message("rejected", "B"), message("assistant", "A")]
    plain = encode(table(sample("a", chosen, picture)), encoding=SMALL)
    found = encode(table(sample("a", paired, picture)), encoding=SMALL, pairs=True)
    assert found.schema == PAIRED_TOKENS
    assert plain.schema == TOKENS
    assert found.select(TOKENS.names) == plain
    assert found["rejected"].to_pylist() == ["B"]


def test_a_rejected_answer_must_fit_in_place_of_the_chosen_one():
    room = SMALL.seq_len - encode(table(pair("a", "A", "B")), encoding=SMALL, pairs=True)[
        "num_tokens"
    ].to_pylist()[0]  # fmt: skip
    fits, more = pair("a", "A", "B" + " b" * room), pair("b", "A", "B" + " b" * (room + 1))
    found = encode(table(fits, more), encoding=SMALL, pairs=True)
    assert found["problem"].to_pylist() == [None, "too_long"]
    assert found["num_tokens"].to_pylist()[1] == 0


def test_bytes_that_the_vocabulary_has_not_count_in_the_rejected_answer(tmp_path):
    odd = "B \x04"
    rows = table(pair("a", "A", odd))
    assert encode(rows, encoding=SMALL, pairs=True)["problem"].to_pylist() == [
        "unrepresentable_text"
    ]
    kept = encode(rows, encoding=replace(SMALL, unrepresentable="drop"), pairs=True)
    assert kept["rejected"].to_pylist() == ["B "]


def test_a_rejected_answer_is_never_lost_in_silence():
    with pytest.raises(ValueError, match=r"source 'cauldron' does not say pairs=True"):
        encode(table(pair("a", "A", "B")), encoding=SMALL)


def test_parquet_rows_of_the_export_are_as_datasets_reads_them(exported):
    path = next((exported / "preferences").glob("train-*.parquet"))
    parts = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", parts)]))
    schema = pq.read_schema(path)
    assert [schema.field(name).type for name in ("prompt", "chosen", "rejected")] == [messages] * 3
