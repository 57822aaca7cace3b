"""The sources whose rows hold their images, each in its layout on the hub."""

import io

import pyarrow as pa
import pypdfium2
import pytest
from PIL import Image

from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
from pipelines.sources import SOURCES
from tests.pipelines.sources.making import IMAGE, TEXTS, cell, png, qa, read, said, write_parquet
from tokenization.schema import SAMPLE

CAULDRON = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])


def test_cauldron_rows_become_conversations_about_their_images(tmp_path):
    first, second = png(seed=1), png(40, 20, seed=2, kind="JPEG")
    rows = [
        {"images": [cell(first)], "texts": qa(("Q1 <image>?", "A1"), ("Q2", "A2"))},
        {"images": [cell(first), cell(second)], "texts": qa(("Which?", "B"))},
        {"images": [], "texts": qa(("Only text", "yes"))},
        {"images": [cell(first[:60])], "texts": qa(("Broken", "no"))},
        {"images": [cell(first)], "texts": qa((None, "no question"))},
        {"images": [cell(first)], "texts": []},
        {"images": [None], "texts": qa(("Nothing there", "?"))},
    ]
    write_parquet(tmp_path / "ai2d" / "train-00000-of-00001-ab12.parquet", rows, schema=CAULDRON)
    samples = read("cauldron", data=str(tmp_path))
    assert [s["id"] for s in samples] == [f"cauldron/ai2d/{n:06d}" for n in range(7)]
    assert said(samples[0]) == [
        ("user", "Q1 [i]?"),
        ("assistant", "A1"),
        ("user", "Q2"),
        ("assistant", "A2"),
    ]
    assert said(samples[1])[0] == ("user", "[i][i]Which?")
    assert said(samples[2])[0] == ("user", "Only text")
    assert [i["bytes"] for i in samples[1]["images"]] == [first, second]
    assert [(i["width"], i["height"]) for i in samples[1]["images"]] == [(32, 24), (40, 20)]
    assert [s["defect"] for s in samples] == [
        None,
        None,
        None,
        "undecodable_image",
        "wrong_schema",
        "wrong_schema",
        "missing_media",
    ]
    assert samples[3]["images"][0]["bytes"] is None
    assert said(samples[3])[0] == ("user", "[i]Broken")


def test_every_subset_is_found_and_test_splits_are_left(tmp_path):
    row = {"images": [cell(png())], "texts": qa(("Q", "A"))}
    for subset in ("ai2d", "vqav2"):
        write_parquet(tmp_path / subset / "train-0.parquet", [row], schema=CAULDRON)
        write_parquet(tmp_path / subset / "test-0.parquet", [row] * 5, schema=CAULDRON)
    assert [s["subset"] for s in read("cauldron", data=str(tmp_path))] == ["ai2d", "vqav2"]
    assert [s["subset"] for s in read("cauldron", data=str(tmp_path), subsets=["vqav2"])] == [
        "vqav2"
    ]
    with pytest.raises(ValueError, match=r"no subset 'vqa2' .* Did you mean 'vqav2'\?"):
        read("cauldron", data=str(tmp_path), subsets=["vqa2"])


def test_a_mirror_is_read_by_hub_name_and_a_missing_one_is_said(tmp_path):
    row = {"images": [cell(png())], "texts": qa(("Q", "A"))}
    folder = tmp_path / "HuggingFaceM4" / "the_cauldron"
    write_parquet(folder / "ai2d" / "train-0.parquet", [row], schema=CAULDRON)
    assert len(read("cauldron", mirror=str(tmp_path))) == 1
    with pytest.raises(FileNotFoundError, match="HuggingFaceM4/Docmatix"):
        read("docmatix", mirror=str(tmp_path))


def test_ids_count_rows_across_files_and_row_groups(tmp_path):
    rows = [{"images": [], "texts": qa((f"Q{n}", "A"))} for n in range(7)]
    write_parquet(tmp_path / "data" / "train-0.parquet", rows[:3], schema=CAULDRON)
    write_parquet(tmp_path / "data" / "train-1.parquet", rows[3:], schema=CAULDRON)
    samples = read("cauldron", data=str(tmp_path))
    assert [s["id"][-1] for s in samples] == list("0123456")
    assert [said(s)[0][1] for s in samples] == [f"Q{n}" for n in range(7)]
    by_glob = read("cauldron", data=f"{tmp_path}/data/*-1.parquet", subsets=["mine"])
    assert [s["id"] for s in by_glob] == [f"cauldron/mine/{n:06d}" for n in range(4)]
    assert len(read("cauldron", data=f"{tmp_path}/data/train-0.parquet")) == 3


def test_docmatix_pages_and_pdfs(tmp_path):
    pages = [png(30, 40, seed=n) for n in range(3)]
    schema = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])
    rows = [
        {"images": [cell(p) for p in pages], "texts": qa(("What?", "That."), ("And?", "This."))},
        {"images": [], "texts": qa(("No page", "?"))},
    ]
    write_parquet(tmp_path / "data" / "train-00000-of-01106-ab.parquet", rows, schema=schema)
    document = pypdfium2.PdfDocument.new()
    for _ in range(2):
        document.new_page(200, 100)
    buffer = io.BytesIO()
    document.save(buffer)
    schema = pa.schema([("pdf", pa.binary()), ("texts", TEXTS)])
    rows = [
        {"pdf": buffer.getvalue(), "texts": qa(("Blank?", "Yes."))},
        {"pdf": b"%PDF-1.4 broken", "texts": qa(("Broken?", "Yes."))},
    ]
    write_parquet(tmp_path / "pdf" / "train-00000-of-00089.parquet", rows, schema=schema)
    (tmp_path / "pdf_data").mkdir()  # as beside it at the hub
    (tmp_path / "pdf_data" / "data-00000-of-00001.arrow").write_bytes(b"stray")

    samples = read("docmatix", data=str(tmp_path))
    assert {s["subset"] for s in samples} == {"images"}
    assert said(samples[0])[0] == ("user", "[i][i][i]What?")
    assert [s["defect"] for s in samples] == [None, "missing_media"]
    whole, broken = read("docmatix", data=str(tmp_path), subsets=["pdf"])
    assert said(whole)[0] == ("user", "[i][i]Blank?")
    assert [(i["width"], i["height"]) for i in whole["images"]] == [(1600, 800)] * 2
    assert broken["defect"] == "undecodable_pdf"


def test_mathwriting_asks_for_latex(tmp_path):
    schema = pa.schema([("image", IMAGE), ("latex", pa.string())])
    rows = [{"image": cell(png()), "latex": r"\frac{1}{2}"}, {"image": cell(png()), "latex": None}]
    write_parquet(tmp_path / "data" / "train-00000-of-00051.parquet", rows, schema=schema)
    formula, broken = read("mathwriting", data=str(tmp_path))
    assert said(formula)[0][1].startswith("[i]")
    assert "LaTeX" in said(formula)[0][1]
    assert said(formula)[1] == ("assistant", r"\frac{1}{2}")
    assert formula["answer"] == r"\frac{1}{2}"
    assert broken["defect"] == "wrong_schema"


def test_mathwriting_learns_the_normalized_label_of_its_mirror(tmp_path):
    row = {
        "image": cell(png()),
        "label": r"\frac12 ",
        "normalized_label": r"\frac{1}{2}",
        "source": "synthetic",
        "sample_id": "a1",
        "ink_path": "a/a1.inkml",
    }
    rows = {
        "train": [row, {**row, "normalized_label": None, "source": None}],
        "validation": [row],
        "test": [row],
    }
    for split, of_split in rows.items():
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", of_split)
    first, second = read("mathwriting", data=str(tmp_path))
    assert said(first)[1] == ("assistant", r"\frac{1}{2}")
    assert (first["answer"], first["tags"]) == (r"\frac{1}{2}", ["ink:synthetic"])
    assert (second["answer"], second["tags"]) == (r"\frac12 ", [])
    assert SOURCES["mathwriting"].subsets == {"default": 632_301}


def test_finevision_ratings_are_per_turn(tmp_path):
    kinds = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    fields = [(f"{kind}_ratings", pa.list_(pa.int64())) for kind in kinds]
    schema = pa.schema([*CAULDRON, ("source", pa.string()), *fields, ("relevance_min", pa.int64())])
    row = {"images": [cell(png())], "texts": qa(("Q1", "A1"), ("Q2", "A2")), "source": "made"}
    ratings = {f"{kind}_ratings": [5, n] for n, kind in enumerate(kinds, 1)}
    rows = [
        {**row, **ratings},
        {**row, **ratings, "formatting_ratings": [3, None]},
        {**row, **ratings, "formatting_ratings": [9, 1]},
    ]
    write_parquet(tmp_path / "chartqa" / "train-0.parquet", rows, schema=schema)
    rated, partly, broken = read("finevision", data=str(tmp_path))
    assert rated["ratings"] == [
        dict.fromkeys(kinds, 5),
        dict(zip(kinds, (1, 2, 3, 4), strict=True)),
    ]
    assert [r["formatting"] for r in partly["ratings"]] == [3, None]
    assert broken["defect"] == "wrong_schema"


def test_finevision_takes_the_smallest_rating_where_there_is_no_list(tmp_path):
    kinds = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    schema = pa.schema([*CAULDRON, *((f"{kind}_min", pa.int64()) for kind in kinds)])
    row = {"images": [cell(png())], "texts": qa(("Q1", "A1"), ("Q2", "A2"))}
    least = {f"{kind}_min": n for n, kind in enumerate(kinds, 2)}
    write_parquet(tmp_path / "chartqa" / "train-0.parquet", [{**row, **least}], schema=schema)
    (rated,) = read("finevision", data=str(tmp_path))
    assert rated["ratings"] == [dict(zip(kinds, (2, 3, 4, 5), strict=True))]


def test_llava_onevision_configs_with_commas_and_brackets(tmp_path):
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", IMAGE),
            ("conversations", pa.list_(turn)),
            ("data_source", pa.string()),
        ]
    )

    def said_by(*turns):
        return [{"from": who, "value": value} for who, value in turns]

    with_image = said_by(("human", "<image>\nWhat?"), ("gpt", "A thing."))
    text_only = said_by(("human", "Say <image>."), ("gpt", "<image>"))
    rows = [
        {"id": "0", "image": cell(png()), "conversations": with_image, "data_source": "x"},
        {"id": "1", "image": None, "conversations": text_only, "data_source": "x"},
        {"id": "2", "image": None, "conversations": None, "data_source": "x"},
    ]
    subset = "ai2d(cauldron,llava_format)"
    write_parquet(tmp_path / subset / "train-00000-of-00001.parquet", rows, schema=schema)
    imaged, text, broken = read("llava_onevision", data=str(tmp_path), subsets=[subset])
    assert said(imaged) == [("user", "[i]What?"), ("assistant", "A thing.")]
    assert text["defect"] == "placeholder_mismatch"
    assert broken["defect"] == "wrong_schema"
    assert broken["id"] == f"llava_onevision/{subset}/000002"


def test_wrong_columns_name_file_found_and_expected(tmp_path):
    write_parquet(tmp_path / "a" / "train-0.parquet", [{"question": "Q", "answer": "A"}])
    expected = r"train-0.parquet: no column 'images'.*\nfound: answer, question"
    with pytest.raises(ValueError, match=expected):
        read("cauldron", data=str(tmp_path))
    (tmp_path / "a" / "train-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read("cauldron", data=str(tmp_path))
    write_parquet(tmp_path / "a" / "train-0.parquet", [{"colour": "Q"}])
    file = tmp_path / "a" / "train-0.parquet"
    file.write_bytes(file.read_bytes().replace(b"colour", b"c\x93lour"))  # no UTF-8
    with pytest.raises(ValueError, match=r"train-0.parquet: not a readable Parquet file"):
        read("cauldron", data=str(tmp_path))


def test_rows_of_a_group_whose_columns_names_do_not_decode_are_broken(tmp_path):
    file = tmp_path / "train-0.parquet"
    write_parquet(file, [{"text": "One."}, {"text": "Two."}])
    schema, _, group = file.read_bytes().rpartition(b"text")
    file.write_bytes(schema + b"t\x93xt" + group)
    samples = read("documents", data=str(file))
    assert [sample["defect"] for sample in samples] == ["broken_rows", "broken_rows"]


def test_no_data_and_unknown_sources_are_said(tmp_path):
    with pytest.raises(ValueError, match=r"components.mine: unknown source 'couldron'.*'cauldron'"):
        list_parts(source="couldron", component="mine")
    with pytest.raises(ValueError, match="reads your files"):
        list_parts(source="messages", component="mine")
    with pytest.raises(FileNotFoundError, match="neither a file, a folder nor a glob"):
        list_parts(source="cauldron", data=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nor a glob of any"):
        list_parts(source="cauldron", data=str(tmp_path / "*.parquet"))
    with pytest.raises(ValueError, match="no file of source 'cauldron'"):
        list_parts(source="cauldron", data=str(tmp_path))


def test_ingest_writes_the_declared_schema_and_nothing_for_nothing(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [], schema=CAULDRON)
    assert read("cauldron", data=str(path)) == []
    path = write_parquet(tmp_path / "b.parquet", [{"images": [], "texts": []}], schema=CAULDRON)
    (part,) = list_parts(source="cauldron", data=str(path))
    assert ingest(part).schema == SAMPLE


def test_orientation_and_transparency_count_in_the_sizes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, "JPEG", exif=exif)
    row = {"images": [cell(buffer.getvalue())], "texts": qa(("Q", "A"))}
    write_parquet(tmp_path / "a.parquet", [row], schema=CAULDRON)
    (sample,) = read("cauldron", data=str(tmp_path / "a.parquet"))
    assert (sample["images"][0]["width"], sample["images"][0]["height"]) == (20, 40)
    assert sample["images"][0]["bytes"] == buffer.getvalue()
