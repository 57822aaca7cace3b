"""The shapes of tables in docs/sources.md: their YAML is read as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.mixture_file import load
from pipelines.reading.ingest import ingest
from pipelines.survey import Place, listing_of
from tests.pipelines.sources.making import png, said, write
from tokenization.schema import Encoding

PAGE = Path(__file__).parents[3] / "docs" / "sources.md"
SHAPES = dict(re.findall(r"<!-- shape (\w+) -->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))
PNG = {"bytes": png(), "path": None}


def to_hub(rows: dict[str, list[Any]], root: Path, repository: str, **features: Any) -> None:
    """The repository as `push_to_hub` lays it out, in a mirror."""
    kinds = datasets.Features({"image": datasets.Image(), **features}) if features else None
    folder = root / "mirror" / repository / "data"
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_dict(rows, features=kinds)
    for split in ("train", "test"):
        made.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def answers(root: Path) -> list[Any]:
    people = [["red", "red", "dark red"], ["two"], []]
    strings = datasets.List(datasets.Value("large_string"))
    rows = {"image": [PNG] * 3, "question": ["Which colour?"] * 3, "answers": people}
    to_hub(rows, root, "your-org/vqa", question=datasets.Value("string"), answers=strings)
    return [
        [("user", "[i]Which colour?"), ("assistant", "red")],
        [("user", "[i]Which colour?"), ("assistant", "two")],
        "missing_answer",
    ]


def captions(root: Path) -> list[Any]:
    told = datasets.List(datasets.Value("string"))
    rows = {"image": [PNG, None], "caption": [["A dog.", "A dog."], ["A cat."]]}
    to_hub(rows, root, "your-org/captions", caption=told)
    return [[("user", re.compile(r"\[i\].*(image|seen).*")), ("assistant", "A dog.")],
            "missing_media"]  # fmt: skip


def chat(root: Path) -> list[Any]:
    talk = [
        {"from": "Visitor", "value": "What is <image> beside\n<image>?"},
        {"from": "Guide", "value": "A twin."},
    ]
    rows = [
        {"images": [PNG, PNG], "conversations": talk},
        {"images": [PNG], "conversations": talk},
        {"images": None, "conversations": [{"from": "human", "value": "Hi"}, {**talk[1]}]},
        {"images": [PNG], "conversations": [{"from": "Narrator", "value": "Hi"}, {**talk[1]}]},
    ]
    folder = root / "mirror" / "your-org" / "chat" / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return [
        [("user", "What is [i] beside\n[i]?"), ("assistant", "A twin.")],
        "placeholder_mismatch",
        [("user", "Hi"), ("assistant", "A twin.")],
        "wrong_schema",
    ]


def documents(root: Path) -> list[Any]:
    write(root / "invoices" / "pages" / "a" / "page_03.png", png())
    qa = [{"question": "When?", "answers": ["1 May", "May 1", "1 May"]},
          {"question": "Who?", "answers": ["Ann"]}]  # fmt: skip
    rows = [{"document": "a", "page": 3, "qa": qa}, {"document": "a", "page": 4, "qa": qa}]
    pq.write_table(pa.Table.from_pylist(rows), root / "invoices" / "rows.parquet")
    return [
        [("user", "[i]When?"), ("assistant", "1 May"), ("user", "Who?"), ("assistant", "Ann")],
        "missing_media",
    ]


def choices(root: Path) -> list[Any]:
    rows = {
        "image": [PNG] * 4,
        "question": ["Which?"] * 4,
        "choices": [["a dog", "a cat"], ["a dog", "a cat"], ["1", "0"], ["x", "y"]],
        "answer": [1, 0, 1, 2],
    }
    strings = datasets.List(datasets.Value("string"))
    kinds = {"question": datasets.Value("string"), "choices": strings}
    to_hub(rows, root, "your-org/exams", **kinds, answer=datasets.Value("int8"))
    asked = "[i]Which?\nA. a dog\nB. a cat\nAnswer with the letter of the right choice."
    return [
        [("user", asked), ("assistant", "B")],
        [("user", asked), ("assistant", "A")],
        "ambiguous_answer",
        "wrong_schema",
    ]


def ocr(root: Path) -> list[Any]:
    write(root / "scans" / "a.png", png())
    lines = ["file\ttext", 'a.png\t"THE ""END"""', "a.png\t", "https://x.org/a.png\tA"]
    (root / "scans" / "labels.tsv").write_text("\n".join(lines), encoding="utf-8-sig")
    asked = re.compile(r"\[i\](Read the text\.|What is written here\?)")
    return [[("user", asked), ("assistant", 'THE "END"')], "missing_answer", "remote_media"]


MAKERS: dict[str, Callable[[Path], list[Any]]] = {
    f.__name__: f for f in (answers, captions, chat, documents, choices, ocr)
}


def same(found: Any, wanted: Any) -> bool:
    """Whether the turns (or the defect) are those wanted; a pattern is that of a text."""
    if isinstance(wanted, str):
        return bool(found == wanted)
    return len(found) == len(wanted) and all(
        role == other and (text == told if isinstance(told, str) else told.fullmatch(text))
        for (role, text), (other, told) in zip(found, wanted, strict=True)
    )


def test_every_shape_has_a_table():
    assert SHAPES.keys() == MAKERS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_a_shape_is_read_as_the_page_says(name, tmp_path):
    wanted = MAKERS[name](tmp_path)
    assert len(SHAPES[name].splitlines()) <= 12
    path = write(tmp_path / f"{name}.yaml", SHAPES[name])
    mixture = load(str(path), encoding=Encoding)
    place = Place(output="out", data=str(tmp_path / "mirror"), beside=str(tmp_path))
    (component,) = mixture.components
    samples = [row for part in listing_of(mixture, component, place).parts
               for row in ingest(part).to_pylist()]  # fmt: skip
    found = [sample["defect"] or said(sample) for sample in samples]
    assert len(found) == len(wanted)
    assert [pair for pair in zip(found, wanted, strict=True) if not same(*pair)] == []
    rejected = [sample for sample in samples if sample["defect"]]
    assert all(sample["detail"] for sample in rejected)


def test_a_drifted_layout_is_mended_by_the_lines_of_the_page(tmp_path):
    (block,) = re.findall(
        r"```yaml\n(components:\n  formulas: .*?)```", PAGE.read_text(), re.DOTALL
    )
    formulas = tmp_path / "andito" / "mathwriting-google" / "data" / "train-0.parquet"
    pages = tmp_path / "HuggingFaceM4" / "Docmatix" / "pdf" / "train-0.parquet"
    for file in (formulas, pages):
        file.parent.mkdir(parents=True)
    rows = [{"image": PNG, "label": "wrong", "formula": "x^2"}]
    pq.write_table(pa.Table.from_pylist(rows), formulas)
    asked = [{"user": "Q", "assistant": "A", "source": "s"}]
    pq.write_table(pa.Table.from_pylist([{"document": {"bytes": b"%PDF-"}, "qa": asked}]), pages)
    mixture = load(str(write(tmp_path / "m.yaml", block)), encoding=Encoding)
    place = Place(output="out", data=str(tmp_path))
    (formula,) = ingest(listing_of(mixture, "formulas", place).parts[0]).to_pylist()
    assert (formula["defect"], formula["answer"]) == (None, "x^2")
    (page,) = ingest(listing_of(mixture, "pages", place).parts[0]).to_pylist()
    assert page["defect"] == "undecodable_pdf"
    assert [turn["content"][-1]["text"] for turn in page["messages"]] == ["Q", "A"]


def test_the_page_names_every_key():
    from pipelines.sources.mapping import KEYS

    page = PAGE.read_text()
    table = page[page.index("| key of `columns` |") : page.index("`a.b` is a field")]
    assert [key for key in KEYS if f"`{key}`" not in table] == []
