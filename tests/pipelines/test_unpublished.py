"""The reason reaches the user: what was rejected and why, in messages, `show` and the card."""

import json

import polars as pl
import pytest

from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.report.show import show
from tests.building import words
from tests.pipelines.sources.making import cell, png, qa, write, write_lines, write_parquet
from tests.pipelines.sources.test_any_type import ROWS, mutations

MIXTURE = """
description: made
val_fraction: 0
read: all
encoding: {seq_len: 2048, crop_size: 64, longest_edge: 128, tokens_per_crop: 16}
components:
"""
SECRET = "a secret of the row"


def build(folder, components: str, *more: str) -> int:
    return main(words(write(folder / "m.yaml", MIXTURE + components), folder / "out", *more))


def index_of(folder) -> pl.DataFrame:
    return pl.DataFrame(tables.read(folder / "out" / "mix" / "index.arrow"))


def test_mutated_rows_cost_themselves_in_a_build_and_are_told(tmp_path, capsys):
    """Chats from JSON lines and a Cauldron's rows from Parquet, each mutated one beside a good."""
    chats = tmp_path / "chats"
    write(chats / "a.png", png())
    good = ROWS["messages"][0]
    bad = [row for row in mutations("messages", 200) if row.get("messages")][:40]
    secret = {**good, "messages": SECRET}
    lines = [json.dumps(row) for mutated in bad for row in (mutated, good)] + [json.dumps(secret)]
    write_lines(chats / "r.jsonl", lines)
    rows = [
        {"images": [cell(png(seed=1))], "texts": qa(("Q", "A"))},
        {"images": [cell(b"no image")], "texts": qa(("Q", None))},
        {"images": [cell(png()[:40])], "texts": qa(("Q", "A"))},
    ]
    write_parquet(tmp_path / "images" / "a.parquet", rows)
    components = (
        f"  chats: {{source: messages, data: {chats}/r.jsonl, ratio: 0.5}}\n"
        f"  images: {{source: cauldron, data: {tmp_path}/images, ratio: 0.5}}\n"
    )
    assert build(tmp_path, components) == 0
    index = index_of(tmp_path)
    assert len(index) == len(lines) + len(rows)
    mine = index.filter(component="chats").sort("id")
    assert mine["rule"].gather(range(1, 80, 2)).null_count() == 40
    assert mine["detail"][-1] == "messages is str, expected a list"
    others = index.filter(component="images").sort("id").select("rule", "detail").rows()
    assert others == [
        (None, None),
        ("wrong_schema", "texts[0].assistant is null, expected text"),
        ("undecodable_image", others[2][1]),
    ]
    assert others[2][1].startswith("image 1 of 1")
    card = (tmp_path / "out" / "mix" / "README.md").read_text()
    assert "messages is str, expected a list" in card
    shown = show(str(tmp_path / "out/mix"), rule="wrong_schema", component="chats", color=False)
    assert "messages is str, expected a list" in shown
    for told in (card, shown, (tmp_path / "out/mix/index.arrow").read_bytes().decode("latin-1")):
        assert SECRET not in told


def test_a_component_with_nothing_left_says_why_first_and_is_kept_to_be_looked_at(tmp_path, capsys):
    rows = [{"messages": SECRET}] * 3 + [{"messages": [{"role": SECRET, "content": 5}]}]
    rows += [{"messages": [{"role": "user", "content": "<image>"}]}]
    path = write_lines(tmp_path / "r.jsonl", rows)
    component = f"  x: {{source: messages, data: {path}, ratio: 1.0}}\n"
    assert build(tmp_path, component) == 2
    said = capsys.readouterr().err
    why = (
        "m: x: all 5 rows read were rejected: wrong_schema 4 (messages is str, expected a list; "
        "messages[0].role is none of"
    )
    assert why in said
    assert "placeholder_mismatch 1 (1 <image> for no image or video)" in said
    assert said.index(why) < said.index("ratio")
    assert SECRET not in said
    assert not (tmp_path / "out" / "mix" / "recipe.json").exists()
    folder = tmp_path / "out" / "work" / "unpublished" / "m"
    assert f"python -m pipelines show {folder} rule=wrong_schema" in said
    shown = show(str(folder), rule="wrong_schema", work=str(tmp_path / "out" / "work"), color=False)
    assert "removed 4 samples" in shown
    assert "3  messages is str, expected a list" in shown
    assert "x" in show(str(folder), component="x", color=False)


def test_where_missing_media_were_looked_for_is_said(tmp_path, capsys):
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows = [{"messages": chat, "images": [f"{SECRET}.png"]}]
    path = write_lines(tmp_path / "rows" / "r.jsonl", rows)
    write(tmp_path / "rows" / "another.png", png())
    component = f"  x: {{source: messages, data: {path}, ratio: 1.0}}\n"
    assert build(tmp_path, component) == 2
    said = capsys.readouterr().err
    assert "missing_media 1 (image 1 of 1: no such file below the media folders)" in said
    assert f"Media were looked for below {tmp_path}/rows." in said
    assert SECRET not in said.partition("missing_media 1")[2]


@pytest.mark.parametrize("tokens", ["max", "60"])
def test_redistribute_with_an_empty_component_does_what_it_says(tmp_path, capsys, tokens):
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "An answer."}]
    write_lines(tmp_path / "a.jsonl", [{"messages": talk}] * 4)
    write_lines(tmp_path / "b.jsonl", [{"text": 5}] * 4)
    components = (
        f"  a: {{source: messages, data: {tmp_path}/a.jsonl, ratio: 0.5, max_epochs: 1}}\n"
        f"  b: {{source: documents, data: {tmp_path}/b.jsonl, ratio: 0.5, max_epochs: 1}}\n"
    )
    assert build(tmp_path, components, f"tokens={tokens}") == 2
    assert "b: all 4 rows read were rejected: wrong_schema 4" in capsys.readouterr().err
    assert build(tmp_path, components, f"tokens={tokens}", "on_shortage=redistribute") == 0
    stats = json.loads((tmp_path / "out" / "mix" / "stats.json").read_text())
    got = stats["components"]["a"]["got"]["tokens"]
    assert got == 1
    if tokens == "max":
        assert index_of(tmp_path).filter(component="a")["copies"].to_list() == [1] * 4
    assert any(note.startswith("b: 0 tokens instead of") for note in stats["notes"])
