"""The index of many parts: every sample read is one line, with one reason or none."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import filters
from mixtures.config import Component, Mixture, rules_of
from pipelines.engine import tables
from pipelines.index import index_of
from tests.filters.rows import image_record, sample, table
from tokenization.schema import Encoding

RULES = {
    "empty_answer": {},
    "small_image": {"mode": "mark"},
    "duplicate_text": {"within": "component"},
    "near_duplicate_sample": {},
    "near_duplicate_images": {"mode": "mark"},
}
TEXTS = ("", "yes", "the train leaves at nine", "the train leaves at nine o'clock sharp today")


@dataclass(frozen=True)
class Read:
    """What of a Piece the index reads."""

    component: str
    part: SimpleNamespace
    verdicts: str
    tokens: str
    encoding: Encoding
    rules: list[tuple[str, dict]]


def piece_of(rows: list[tuple], component: str, number: int, mixture: Mixture, work: Path) -> Read:
    """A part of (text, dhash, defect, tokens, problem) rows, judged and counted."""
    subset = f"{component}{number % 2}"
    samples = table(
        *(
            sample("q", text, images=[image_record(dhash=word)] if word else [], defect=defect)
            | {"id": f"s/{subset}/{number}{n:03}", "source": "s", "subset": subset}
            for n, (text, word, defect, _, _) in enumerate(rows)
        )
    )
    rules = rules_of(mixture, component)
    judged = filters.judge(samples, rules=rules)
    counts = pa.table(
        {
            "id": judged["id"],
            "num_tokens": pa.array([r[3] for r in rows], pa.int32()),
            "num_learned": pa.array([1] * len(rows), pa.int32()),
            "num_crops": pa.array([0] * len(rows), pa.int32()),
            "problem": pa.array([r[4] for r in rows], pa.string()),
            "splittable": pa.array([False] * len(rows), pa.bool_()),
        }
    )
    paths = [f"{work}/{kind}/{number:05d}.arrow" for kind in ("verdicts", "tokens")]
    for made, path in zip((judged, counts), paths, strict=True):
        tables.write(made, path)
    part = SimpleNamespace(source="s", subset=subset, name=f"s/{subset}/{number}")
    return Read(component, part, *paths, Encoding(seq_len=100), list(rules.items()))


some_row = st.tuples(
    st.sampled_from(TEXTS),
    st.sampled_from([0, 0x0F0F_3C3C_5A5A_9999, 0x0F0F_3C3C_5A5A_9998, 0x1234_5678_9ABC_DEF0]),
    st.sampled_from([None, None, None, "missing_media"]),
    st.sampled_from([50, 100, 101]),
    st.sampled_from([None, None, None, "no_answer"]),
)
turned_off = st.dictionaries(st.sampled_from(list(RULES)), st.just(value=False), max_size=3)


@settings(max_examples=6)
@given(st.lists(st.lists(some_row, max_size=8), min_size=4, max_size=4), turned_off)
def test_reasons_and_kept_add_up_to_what_was_read_in_every_subset(parts, off):
    mixture = Mixture(
        filters=RULES,
        components={
            "a": Component(source="s", ratio=0.5),
            "b": Component(source="s", ratio=0.5, filters=off, priority=1),
        },
    )
    with tempfile.TemporaryDirectory() as work:
        pieces = [
            piece_of(rows, "ab"[n // 2], n, mixture, Path(work)) for n, rows in enumerate(parts)
        ]
        index = index_of(pieces, mixture)
    read = Counter(
        {p.part.subset: len(rows) for p, rows in zip(pieces, parts, strict=True) if rows}
    )
    assert index["id"].is_unique().all()
    kept = index.filter(index["rule"].is_null())["subset"].value_counts()
    rejected = index.filter(index["rule"].is_not_null())["subset"].value_counts()
    assert Counter(dict(kept.iter_rows())) + Counter(dict(rejected.iter_rows())) == read
    drops = {name for name, given_ in RULES.items() if given_.get("mode") != "mark"}
    for line in index.iter_rows(named=True):
        assert line["rule"] in {None, *drops, "missing_media", "no_answer", "too_long"}
        assert line["rule"] in {None, *line["fired"], "no_answer", "too_long"}
        if line["component"] == "b":
            assert not set(off) & {line["rule"], *line["fired"]}


def test_a_component_may_turn_off_that_benchmarks_are_kept_out_of_it():
    off = Component(source="s", ratio=0.5, filters={"contaminated": False})
    both = {"a": off, "b": Component(source="s", ratio=0.5)}
    mixture = Mixture(benchmarks=["mmmu"], components=both)
    assert "contaminated" not in rules_of(mixture, "a")
    assert rules_of(mixture, "b")["contaminated"] == {"benchmarks": ["hashes/mmmu.parquet"]}
