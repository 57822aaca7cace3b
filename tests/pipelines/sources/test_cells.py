"""Cells of any type: what each becomes, or the field, type and expectation in its Defect."""

import base64
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import cells
from pipelines.sources.sample import Defect, Pdf, Still, Video
from tests.pipelines.sources.making import asked, png, read, said, write, write_lines, write_parquet

PNG = png()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("[]", "messages is str, expected a list"),
        (3, "messages is int, expected a list"),
        (None, "messages is null, expected a list"),
        ({}, "messages is dict, expected a list"),
        ({"role": "user"}, "messages is dict, expected a list"),
        ([], "messages is empty"),
        ([{}, "secret"], "messages[1] is str, expected a mapping"),
        ({"role": [1], "content": []}, "messages is a mapping of lists of different lengths"),
    ],
)
def test_details_name_field_type_and_expectation_and_never_the_value(value, detail):
    with pytest.raises(Defect) as caught:
        cells.rows(value, "messages")
    assert (caught.value.reason, caught.value.detail) == ("wrong_schema", detail)


def test_a_mapping_of_lists_is_a_list_of_mappings():
    found = cells.rows({"from": ["human", "gpt"], "value": ["Q", "A"], "weight": None}, "talk")
    assert found == [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


# ------------------------------------------------------------------ text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_the_encoding_that_its_mark_says(encoding):
    assert cells.decoded("Très rouge « 紅".encode(encoding), "txt") == "Très rouge « 紅"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "shift_jis", "gb18030"])
def test_text_of_another_encoding_is_rejected_by_name(encoding):
    with pytest.raises(Defect, match="broken_text: txt "):
        cells.decoded("Café « 紅い".encode(encoding, "ignore"), "txt")


@given(st.binary(max_size=40))
def test_no_bytes_make_a_mark_a_replacement_or_nul(data):
    try:
        found = cells.decoded(data, "txt")
    except Defect:
        return
    made = "\ufffd" in found and "\ufffd".encode() not in data
    assert not made or data[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16 may hold one
    assert "\ufeff" not in found
    assert "\0" not in found


def test_text_that_is_no_unicode_and_marks_inside_text():
    assert cells.text("\ufeffA red\ufeff card.", "caption") == "A red card."
    assert cells.text(b"\xef\xbb\xbfA card.", "caption") == "A card."
    for value in ("half \ud83d", b"Caf\xe9"):
        with pytest.raises(Defect, match="broken_text: caption "):
            cells.text(value, "caption")


# ------------------------------------------------------------------ media

URI = f"data:image/png;base64,{TEXT}"


@pytest.mark.parametrize(
    "value",
    [
        *(
            PNG,
            TEXT,
            TEXT.rstrip("="),
            TEXT[:40] + "\n" + TEXT[40:],
            URI,
            URI.upper()[:5] + URI[5:],
        ),
        base64.urlsafe_b64encode(PNG).decode(),
        {"bytes": PNG, "path": "a.png"},
        {"bytes": TEXT, "path": None},
        {"bytes": URI, "path": "a.png"},
        {"url": URI},
        {"type": "base64", "media_type": "image/png", "data": TEXT},
    ],
)
def test_an_image_may_lie_in_its_row(value):
    assert cells.image(value, "image").data == PNG


@pytest.mark.parametrize(
    "path",
    [
        *("a.png", "train/000/abc", "workspace/data/images/train/shard0001/sample0001"),
        *("/9j/a.jpg", "iVBORw0KGgo.png", "x" * 300, "A" * 40, "../a.png", "C:\\a.png"),
    ],
)
def test_a_path_is_no_base64(path):
    for value in (path, {"path": path}, {"bytes": None, "path": path}, {"url": f"file://{path}"}):
        assert cells.image(value, "image") == Still(path=path)


@pytest.mark.parametrize(
    "value", [None, "", {"bytes": None, "path": None}, {"bytes": "", "path": ""}]
)
def test_an_empty_cell_is_a_medium_that_is_missing(value):
    assert cells.image(value, "image") == Still()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("https://x.org/a.png", "remote_media"),
        ("s3://bucket/a.png", "remote_media"),
        ({"url": "http://x.org"}, "remote_media"),
        ("data:image/png;base64,secret!", "undecodable_image"),
        ("data:image/png", "undecodable_image"),
        ({"bytes": "no base64!", "path": None}, "undecodable_image"),
        ({"bytes": 5}, "wrong_schema"),
        ({"path": ["a.png"]}, "wrong_schema"),
        ({"name": "a.png"}, "wrong_schema"),
        (5, "wrong_schema"),
        (True, "wrong_schema"),
        (math.nan, "wrong_schema"),
        (["a.png"], "wrong_schema"),
    ],
)
def test_what_is_no_image_is_named_and_not_shown(value, reason):
    with pytest.raises(Defect) as caught:
        cells.image(value, "image")
    assert caught.value.reason == reason
    assert caught.value.detail.startswith("image")
    assert not any(word in caught.value.detail for word in ("secret", "x.org", "a.png"))


def test_videos_and_pdfs_are_cells_alike():
    clip = b"\x1aE\xdf\xa3" + bytes(40)
    assert cells.video(base64.b64encode(clip).decode(), "video") == Video(data=clip)
    assert cells.video({"path": "v.mp4"}, "video") == Video(path="v.mp4")
    assert cells.pdf(b"%PDF-1.7", "pdf") == Pdf(data=b"%PDF-1.7")
    with pytest.raises(Defect, match="undecodable_video"):
        cells.video("data:video/mp4", "video")


def test_columns_of_media_take_lists_cells_and_mappings_of_lists():
    row = {"image": "a.png", "images": {"bytes": [PNG, None], "path": ["x", "b.png"]}, "more": []}
    found = cells.media(row, Still, ("image", "images", "more", "none"))
    assert found == [Still(path="a.png"), Still(data=PNG), Still(path="b.png")]


# ------------------------------------------------------------------ files

TALK = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def test_columns_that_nobody_reads_may_hold_anything(tmp_path):
    beyond = pa.array([4_000_000, 19_000], pa.int32()).cast(pa.date32())
    zoned = pa.array([1, 2], pa.timestamp("us", tz="Mars/Phobos"))
    bad = pa.array([b"\xff", b"b"], pa.binary())
    wrong = pa.StringArray.from_buffers(2, bad.buffers()[1], bad.buffers()[2])
    table = pa.table({"messages": [TALK] * 2, "until": beyond, "zone": zoned, "words": wrong})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [s["defect"] for s in read("messages", data=str(tmp_path))] == [None, None]


def test_values_that_python_cannot_hold_cost_their_row_where_they_are_read(tmp_path):
    bad = pa.array([b"Caf\xe9", b"Tea", b"Milk"], pa.binary())
    words = pa.StringArray.from_buffers(3, bad.buffers()[1], bad.buffers()[2])
    pq.write_table(pa.table({"text": words}), tmp_path / "d.parquet")
    samples = read("documents", data=str(tmp_path / "d.parquet"))
    assert [(s["defect"], s["detail"]) for s in samples] == [
        ("broken_text", "text is no UTF-8"),
        (None, None),
        (None, None),
    ]
    when = pa.array([4_000_000, 1, 4_000_000], pa.int32()).cast(pa.date32())
    content = pa.array(["A", "B", "C"])
    role = pa.array(["user"] * 3)
    dated = pa.StructArray.from_arrays([role, content, when], ["role", "content", "when"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), dated)
    pq.write_table(pa.table({"messages": lists}), tmp_path / "m.parquet")
    samples = read("messages", data=str(tmp_path / "m.parquet"))
    assert [said(s) for s in samples] == [[("user", c)] for c in "ABC"]
    until = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), when)
    pq.write_table(pa.table({"messages": until}), tmp_path / "u.parquet")
    details = [s["detail"] for s in read("messages", data=str(tmp_path / "u.parquet"))]
    assert details == [
        "messages[0] is a date32[day] that cannot be read",
        "messages[0] is date, expected a mapping",
        "messages[0] is a date32[day] that cannot be read",
    ]


def test_a_row_group_that_does_not_decode_costs_its_rows(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [{"text": f"Text {n}"} for n in range(6)], group=2)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)
    defects = [s["defect"] for s in read("documents", data=str(path))]
    assert defects == [None, None, "broken_rows", "broken_rows", None, None]


def test_pairs_of_a_sequence_of_mappings_in_parquet(tmp_path):
    talk = {"from": ["human", "gpt"], "value": ["<image>\nIs it?", "It is."]}
    rows = [{"image": {"bytes": PNG, "path": None}, "conversations": talk}] * 2
    write_parquet(tmp_path / "l" / "a.parquet", rows)
    found = [said(s) for s in read("llava", data=str(tmp_path / "l"))]
    assert found == [[("user", "[i]Is it?"), ("assistant", "It is.")]] * 2
    chat = {"role": ["user", "assistant"], "content": ["Q", "A"]}
    write_parquet(tmp_path / "m" / "a.parquet", [{"messages": chat}])
    assert [said(s) for s in read("messages", data=str(tmp_path / "m"))] == [
        [("user", "Q"), ("assistant", "A")]
    ]
    texts = {"user": ["Q"], "assistant": ["A"], "source": ["s"]}
    write_parquet(tmp_path / "c" / "a.parquet", [{"images": [], "texts": texts}])
    assert said(read("cauldron", data=str(tmp_path / "c"))[0])[0] == ("user", "Q")


def test_json_that_python_cannot_hold(tmp_path):
    """Whole numbers of any length are numbers; what nests too deep is one row, in an array too."""
    long, deep = "7" * 5000, "[" * 5000 + "]" * 5000
    rows = [f'{{"text": "A", "n": {long}}}', f'{{"text": "B", "n": {deep}}}', '{"text": "C"}']
    write(tmp_path / "a.json", "[" + ",\n".join(rows) + "]")
    write(tmp_path / "b.jsonl", "\n".join(rows))
    for name in ("a.json", "b.jsonl"):
        samples = read("documents", data=str(tmp_path / name))
        assert [s["defect"] for s in samples] == [None, "broken_json", None]
        assert samples[1]["detail"] == "nested too deep"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (json.dumps([{"messages": TALK}], indent=1).encode(), "JSON array: name it .json"),
        (json.dumps({"messages": TALK}).encode("utf-16"), "UTF-16 or UTF-32: save it as UTF-8"),
        (b"question,answer\nQ,A\n", "expected a JSON object on every line"),
        (b"1\n2\n", "it is int"),
    ],
)
def test_jsonl_without_json_lines_says_so(tmp_path, data, says):
    path = write(tmp_path / "rows.jsonl", data)
    with pytest.raises(ValueError, match=rf"rows\.jsonl: none of its .* is a JSON object.*{says}"):
        read("messages", data=str(path))


def test_names_longer_than_the_file_system_takes(tmp_path):
    write(tmp_path / "a.png", PNG)
    names = ["a.png", "x" * 300, "y.y/" * 3000, "z" * 300 + ".png", "half \ud83d.png", "a\0.png"]
    rows = [asked("<image> What?", image=name) for name in names]
    write_lines(tmp_path / "rows.jsonl", rows)
    samples = read("llava", data=str(tmp_path / "rows.jsonl"))
    reasons = [None, *["missing_media"] * 3, "broken_text", "unsafe_path"]
    assert [s["defect"] for s in samples] == reasons


def test_csv_in_other_encodings(tmp_path):
    write(tmp_path / "a.png", PNG)
    text = "file_name,text,more\na.png,Café « 紅,x\na.png,Tea,y\n"
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        write(tmp_path / "metadata.csv", text.encode(encoding))
        found = [said(s)[1][1] for s in read("imagefolder", data=str(tmp_path))]
        assert found == ["Café « 紅", "Tea"]
    write(
        tmp_path / "metadata.csv",
        "file_name,text,more\na.png,Café,x\na.png,Tea,é\n".encode("cp1252"),
    )
    samples = read("imagefolder", data=str(tmp_path))
    assert [s["defect"] for s in samples] == ["broken_text", None]  # nobody reads `more`
    write(tmp_path / "metadata.csv", text.encode("utf-16")[:-1])
    assert [s["defect"] for s in read("imagefolder", data=str(tmp_path))] == [None, "broken_text"]
