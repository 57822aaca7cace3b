"""Hash lists of benchmarks, and the samples they catch or leave alone."""

import base64
import csv
import io
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from filters import identity, judge, validate
from filters.decontamination import rules as benchmarks
from filters.decontamination.matches import Match, matches_of, told
from filters.duplicates import near
from pipelines.media.images import decode, dhash
from pipelines.media.images import image_record as ingested
from tests.filters.rows import image_record, sample, table

QUESTION = "How many of the passengers in the image are wearing a red hat on the left side?"
SHORT = "What colour is the car that stands behind the second house?"


def drawn(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A smooth image with structure, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **how: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.fixture
def bench(tmp_path):
    """A benchmark of three items in VLMEvalKit's layout, and its hash list."""
    first, second = (base64.b64encode(encoded(drawn(n))).decode() for n in (1, 2))
    rows = [
        ("1", QUESTION, "one", "two", first, "A"),
        ("2", SHORT, "red", "blue", f"['{second}', '{first}']", "B"),
        ("3", "Why?", "", "", "1", "because"),
    ]
    path = tmp_path / "Bench.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "question", "A", "B", "image", "answer"])
        writer.writerows(rows)
    items = benchmarks.items_of(path)
    made = benchmarks.hash_list(items, name="bench", decode=decode, dhash=dhash)
    counts = benchmarks.write_list(made, tmp_path / "bench.parquet")
    assert counts["items"] == 3
    return str(tmp_path / "bench.parquet")


def details(path: str, *samples: dict, **given_: object) -> list[str | None]:
    rules = {"contaminated": {"benchmarks": [path], **given_}}
    judged = judge(table(*samples), rules=rules)
    fired = [rule == "contaminated" for rule in judged["rule"].to_pylist()]
    assert fired == [detail is not None for detail in judged["detail"].to_pylist()]
    return judged["detail"].to_pylist()


def seeing(image: Image.Image, question: str = "q", **how: object) -> dict:
    return sample(question, "a", images=[ingested(encoded(image, **how))])


def test_a_image_of_a_benchmark_is_found_however_it_was_saved_and_the_item_is_named(bench):
    one, two = drawn(1), drawn(2)
    found = details(
        bench,
        seeing(one),
        seeing(two, kind="JPEG", quality=30),
        seeing(one.resize((200, 150)), kind="WEBP", quality=60),
        seeing(one.convert("L").convert("RGB")),
        seeing(one.crop((0, 0, 300, 240))),
        seeing(drawn(3)),
        sample("q", "a", images=[image_record(dhash=0), ingested(encoded(two))]),
    )
    assert [f and f.split(" by ")[0] for f in found] == [
        "bench/1", "bench/2", "bench/1", "bench/1", "bench/1", None, "bench/2",
    ]  # fmt: skip
    assert found[0] == "bench/1 by image (0 bits)"


@pytest.mark.parametrize("radius", [0, 1, 4, 7])
def test_the_radius_is_a_boundary(bench, tmp_path, radius):
    word = 0x0F0F_3C3C_5A5A_9999
    metadata = benchmarks.read_list(bench).schema.metadata
    only = pa.table([["image"], pa.array([word], pa.uint64()), ["7"]], names=benchmarks.LIST.names)
    benchmarks.write_list(only.replace_schema_metadata(metadata), tmp_path / "one.parquet")
    masks = [sum(1 << n for n in range(0, 8 * bits, 8)) for bits in (radius, radius + 1)]
    near, far = (sample("q", "a", images=[image_record(dhash=word ^ mask)]) for mask in masks)
    found = details(str(tmp_path / "one.parquet"), near, far, radius=radius)
    assert found == [f"bench/7 by image ({radius} bits)", None]


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 40))
@settings(max_examples=25)
def test_the_nearest_image_of_every_list_is_that_of_brute_force(seed, radius, meetings):
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 3, 60).astype(np.int32)
    listed = rng.integers(0, 2**64, 60, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (80, 9)).astype(np.uint64)
    flips[rng.random(flips.shape) < 0.5] = 0
    sought = listed[rng.integers(0, 60, 80)] ^ np.bitwise_xor.reduce(flips, axis=1)
    masks = [np.uint64(mask) for mask in near.few_masks(radius)]
    orders = [np.argsort(listed & mask, kind="stable") for mask in masks]
    tables = [(m, (listed & m)[o], o.astype(np.int32)) for m, o in zip(masks, orders, strict=True)]
    known = benchmarks._Leaks(["a", "b", "c"], of, pl.Series(), {}, tables, listed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "MEETINGS", meetings)
        hits = benchmarks._near_images(sought, known, radius)
    differ = np.bitwise_count(sought[:, None] ^ listed[None, :]).astype(np.int64)
    expected = [
        (who, int(rows[differ[who, rows].argmin()]), int(differ[who, rows].min()))
        for who in np.flatnonzero(benchmarks.is_distinctive(sought)).tolist()
        for benchmark in range(3)
        if len(rows := np.flatnonzero(of == benchmark)) and differ[who, rows].min() <= radius
    ]
    assert sorted(map(tuple, hits.T.tolist())) == sorted(expected)


def test_every_benchmark_that_a_sample_has_items_of_is_told(bench, tmp_path):
    """The nearest image and one text of each, and which of several images it is."""
    other = [benchmarks.Item("a, b/9.png", QUESTION, images=(encoded(drawn(2)),), answer="two")]
    made = benchmarks.hash_list(other, name="other", decode=decode, dhash=dhash)
    benchmarks.write_list(made, tmp_path / "other.parquet")
    rules = {"contaminated": {"benchmarks": [bench, f"{tmp_path}/other.parquet"]}}
    one, two, three = (ingested(encoded(drawn(n))) for n in (1, 2, 3))
    samples = [
        sample(QUESTION, "a", images=[two]),
        sample("q", "a", images=[three, one]),
        sample("q", "I read: " + QUESTION),
        sample("q", "a", images=[three]),
    ]
    found = judge(table(*samples), rules=rules)["detail"].to_pylist()
    assert found == [
        "bench/2 by image (0 bits), other/a, b/9.png by image (0 bits), bench/1 by question, "
        "other/a, b/9.png by question",
        "bench/1 by image 2 (0 bits)",
        "bench/1 by 13 words, other/a, b/9.png by 13 words",
        None,
    ]
    assert [
        [(m.benchmark, m.item, m.how) for m in matches_of(detail or "")] for detail in found
    ] == [
        [
            ("bench", "2", "image (0 bits)"),
            ("other", "a, b/9.png", "image (0 bits)"),
            ("bench", "1", "question"),
            ("other", "a, b/9.png", "question"),
        ],
        [("bench", "1", "image 2 (0 bits)")],
        [("bench", "1", "13 words"), ("other", "a, b/9.png", "13 words")],
        [],
    ]


@given(
    st.lists(
        st.builds(
            lambda benchmark, item, how: Match(benchmark=benchmark, item=item, **how),
            st.text("ab.- ", min_size=1),
            st.text(st.characters(exclude_characters="b"), min_size=1),
            st.sampled_from(
                [
                    {"by": "question"},
                    {"by": "words", "words": 13},
                    {"by": "image", "bits": 0},
                    {"by": "image", "image": 12, "bits": 4},
                ]
            ),
        ),
        max_size=4,
    )
)
def test_what_a_verdict_tells_is_read_back(matches):
    assert matches_of(told(matches)) == matches


@pytest.mark.parametrize(
    "detail", ["min_side 3 < 28", "of cauldron/ai2d/3", "found 3 images, 2 places", "a/b by hand"]
)
def test_what_another_rule_tells_is_no_match(detail):
    assert matches_of(detail) == []


def test_images_cropped_by_up_to_a_tenth_are_found(tmp_path):
    items = [benchmarks.Item(str(n), images=(encoded(drawn(n)),)) for n in range(6)]
    made = benchmarks.hash_list(items, name="b", decode=decode, dhash=dhash)
    assert json.loads(made.schema.metadata[b"counts"])["image_hashes"] <= 6 * 101
    benchmarks.write_list(made, tmp_path / "b.parquet")
    rng = np.random.default_rng(0)
    shown = []
    for n in range(40):
        image = drawn(n % 6)
        cut, share = rng.random((2, 2)) * [[0.1], [1]]
        left, top = cut * share * image.size
        right, bottom = image.size - cut * (1 - share) * image.size
        shown.append(seeing(image.crop((round(left), round(top), round(right), round(bottom)))))
    found = details(str(tmp_path / "b.parquet"), *shown)
    assert sum(f is not None for f in found) >= 36
    assert all(f is None or f.startswith(f"b/{n % 6} ") for n, f in enumerate(found))


def test_a_question_is_found_whole_or_by_13_words_whatever_its_case_and_marks(bench):
    found = details(
        bench,
        sample(QUESTION.upper().replace("?", " ?!"), "a"),
        sample("Look: " + QUESTION[4:] + " Answer briefly.", "a"),
        sample(SHORT.replace(" ", "  ").lower(), "a"),
        sample("And " + SHORT, "a"),
        sample("Why?", "a"),
        sample("q", "The text says: " + QUESTION),
    )
    assert found == [
        "bench/1 by question",
        "bench/1 by 13 words",
        "bench/2 by question",
        None,
        None,
        "bench/1 by 13 words",
    ]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("image", [True, False, True]),
        ("question", [False, True, True]),
        ("either", [True, True, True]),
        ("both", [False, False, True]),
    ],
)
def test_by_says_what_must_be_found(bench, by, expected):
    found = details(
        bench, seeing(drawn(1)), sample(QUESTION, "a"), seeing(drawn(1), QUESTION), by=by
    )
    assert [f is not None for f in found] == expected


def test_what_cannot_identify_an_item_is_left_out():
    blank = encoded(Image.new("RGB", (90, 90), "white"))
    boilerplate = "Answer the question with the letter of the option from the given choices only"
    items = [
        benchmarks.Item("a", f"Which one is it then? {boilerplate}", images=(blank,)),
        benchmarks.Item("b", f"Who sits there, please? {boilerplate}", images=(blank,)),
        benchmarks.Item("c", f"When will it rain? {boilerplate}", images=(blank,)),
        benchmarks.Item("d", "What is the title of the book in this image?",
                        images=(encoded(drawn(1)),)),
        benchmarks.Item("e", "What is the title of the book in this image?",
                        images=(encoded(drawn(2)),)),
    ]  # fmt: skip
    made = benchmarks.hash_list(items, name="b", decode=decode, dhash=dhash)
    by_kind = {kind: set() for kind in ("image", "question", "ngram")}
    for row in made.to_pylist():
        by_kind[row["kind"]].add(row["item"])
    assert by_kind["image"] == {"d", "e"}
    assert by_kind["question"] == {"a", "b", "c"}
    counts = json.loads(made.schema.metadata[b"counts"])
    assert counts["shared_ngrams_left_out"] > 0
    assert counts["uniform_image_hashes_left_out"] == 3


def test_clean_samples_stay(bench):
    clean = [seeing(drawn(n), f"What is drawn in image {n}, and why?") for n in range(10, 60)]
    assert details(bench, *clean) == [None] * 50


def test_items_of_folders_and_of_rows(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encoded(drawn(1)))
    (tmp_path / "a" / "metadata.jsonl").write_text('{"file_name": "x.png", "question": "Why?"}\n')
    items = list(benchmarks.items_of(tmp_path))
    assert [(i.id, i.question, len(i.images)) for i in items] == [("a/x.png", "Why?", 1)]

    rows = [
        {"Question": "Q", "image_1": {"bytes": b"1"}, "image_2": None, "options": "['a', 'b']"},
        {"id": 7, "query": "R", "images": [{"bytes": b"2"}, {"bytes": b"3"}], "choices": ["c"]},
    ]
    one, two = benchmarks.row_items(rows, where="hub")
    assert one == benchmarks.Item("0", "Q", ("a", "b"), (b"1",))
    assert two == benchmarks.Item("7", "R", ("c",), (b"2", b"3"))
    with pytest.raises(ValueError, match="hub: row 0 has columns text; expected a question"):
        list(benchmarks.row_items([{"text": 3}], where="hub"))


def test_mistakes_name_the_file_and_the_way_out(tmp_path, bench):
    def check(path: object) -> None:
        validate({"contaminated": {"benchmarks": [str(path)]}}, where="sft.yaml: filters")

    check(bench)
    with pytest.raises(FileNotFoundError, match=r"no file .*absent.* pipelines hashes NAME"):
        check(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ValueError, match="not a hash list"):
        check(tmp_path / "text.parquet")
    old = benchmarks.read_list(bench).replace_schema_metadata({"hash_list": "0"})
    pq.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(ValueError, match="hash list of version 0, expected 2"):
        check(tmp_path / "old.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="hash list of version none"):
        check(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="benchmarks is empty"):
        validate({"contaminated": {"benchmarks": []}}, where="sft.yaml: filters")
    (tmp_path / "wrong.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="columns a, b; expected VLMEvalKit"):
        list(benchmarks.items_of(tmp_path / "wrong.tsv"))
    with pytest.raises(FileNotFoundError, match=r"expected a \.tsv file"):
        benchmarks.items_of(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        list(benchmarks.items_of(tmp_path / "empty"))


def test_identity_follows_the_content_of_a_list_not_its_place(bench, tmp_path):
    other = tmp_path / "moved.parquet"
    other.write_bytes((tmp_path / "bench.parquet").read_bytes())
    rules = [{"contaminated": {"benchmarks": [str(path)]}} for path in (bench, other)]
    assert identity(rules[0]) == identity(rules[1])
    benchmarks.write_list(benchmarks.read_list(bench).slice(1), other)
    assert identity(rules[0]) != identity(rules[1])
