"""The quickstart's repositories are what the hub's would be: layout, columns, content, bytes."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
import quickstart
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from quickstart_data import REPOSITORIES, tables
from quickstart_data.drawing import Chart
from quickstart_data.files import WHAT

from tests.examples.conftest import make

CAULDRON = "HuggingFaceM4/the_cauldron"
VIDEOS = "lmms-lab/LLaVA-Video-178K"
TEXTS = [{"user": "string", "assistant": "string", "source": "string"}]


@pytest.fixture(scope="module")
def load(data, tmp_path_factory, monkeypatch_module):
    """`load_dataset` on a made repository, offline, with a cache of its own."""
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch_module.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def load(repository, *args, **kwargs):
        return datasets.load_dataset(str(data / repository), *args, cache_dir=str(cache), **kwargs)

    return load


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def kinds(feature):
    """A feature as nested names of types."""
    import datasets

    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.Value):
        return feature.dtype
    if isinstance(feature, dict):
        return {name: kinds(inner) for name, inner in feature.items()}
    return [kinds(feature.feature)]


@pytest.mark.parametrize(
    "config",
    [
        "clevr",
        "chartqa",
        "robut_wtq",
        "tat_qa",
        "localized_narratives",
        "rendered_text",
        "scienceqa",
    ],
)
def test_cauldron_loads_by_config(load, config):
    rows = load(CAULDRON, config, split="train")
    assert kinds(dict(rows.features)) == {"images": ["image"], "texts": TEXTS}
    assert len(rows) >= 12
    row = rows[0]  # decodes the image
    assert len(row["images"]) == (0 if config == "scienceqa" else 1)
    assert row["texts"][0]["user"]
    assert row["texts"][0]["assistant"]


def test_cauldron_files_are_named_as_on_the_hub(data):
    names = [path.name for path in (data / CAULDRON / "clevr").iterdir()]
    assert len(names) == 1
    assert len(names[0]) == len("train-00000-of-00001-2ce340398c113b79.parquet")
    assert names[0].startswith("train-00000-of-00001-")


def test_docmatix_has_several_pages_a_row(load):
    rows = load("HuggingFaceM4/Docmatix", "images", split="train")
    assert kinds(dict(rows.features)) == {"images": ["image"], "texts": TEXTS}
    whole = rows.select([0, 1, 3, 4, 5])  # row 2 does not decode, on purpose
    assert max(len(row["images"]) for row in whole) > 1
    row = rows[0]
    told = {turn["user"]: turn["assistant"] for turn in row["texts"]}
    if "How many pages does the document have?" in told:
        assert told["How many pages does the document have?"] == f"{len(row['images'])}."


def test_mathwriting_has_three_splits(load):
    splits = load("andito/mathwriting-google")
    assert set(splits) == {"train", "validation", "test"}
    assert kinds(dict(splits["train"].features)) == {"image": "image", "latex": "string"}
    assert min(splits["train"][0]["image"].size) >= 40


def test_smoltalk_loads_by_config(load):
    rows = load("HuggingFaceTB/smoltalk", "metamathqa-50k")
    assert set(rows) == {"train", "test"}
    assert kinds(dict(rows["train"].features)) == {
        "messages": [{"content": "string", "role": "string"}]
    }
    assert [said["role"] for said in rows["train"][0]["messages"]] == ["user", "assistant"]
    system = load("HuggingFaceTB/smoltalk", "systemchats-30k", split="train")
    assert {row["messages"][0]["role"] for row in system} == {"system"}


def test_llava_video_loads_by_config_and_split(load):
    rows = load(VIDEOS, "0_30_s_youtube_v0_1")
    assert set(rows) == {"caption", "open_ended", "multi_choice"}
    first = rows["open_ended"][0]
    assert set(first) == {"id", "conversations", "data_source", "video"}
    assert [said["from"] for said in first["conversations"]][:2] == ["human", "gpt"]
    assert first["conversations"][0]["value"].startswith("<image>\n")


def videos(data):
    """(config, relative name) -> bytes of every video, in archives and beside them."""
    found = {}
    for folder in sorted((data / VIDEOS).iterdir()):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.suffix == ".mp4":
                found[folder.name, path.relative_to(folder).as_posix()] = path.read_bytes()
            elif path.name.endswith(".tar.gz"):
                with tarfile.open(path) as archive:
                    for member in archive:
                        read = archive.extractfile(member)
                        assert read is not None
                        found[folder.name, member.name] = read.read()
    return found


def test_videos_last_as_long_as_their_folder_says_in_several_codecs(data, planted):
    bad = {(row["subset"], row["row"]) for row in planted if row["repository"] == VIDEOS}
    limits = {"0_30_s": (3, 30), "30_60_s": (30, 60), "1_2_m": (60, 120)}
    codecs = set()
    for number, ((config, name), raw) in enumerate(videos(data).items()):
        at = int(Path(name).stem.lstrip("ytb_Q"))
        if (config, at) in bad:
            continue
        with av.open(io.BytesIO(raw)) as container:
            stream = container.streams.video[0]
            codecs.add(stream.codec.canonical_name)
            seconds = float(stream.frames / stream.average_rate)
            assert sum(1 for _ in container.decode(stream)) == stream.frames
        low, high = next(pair for start, pair in limits.items() if config.startswith(start))
        assert low - 0.1 <= seconds <= high, (number, config, name)
    assert codecs == {"h264", "hevc", "vp9", "av1", "mpeg4"}


def test_multi_image_records_find_their_images(data, planted):
    folder = data / "lmms-lab/M4-Instruct-Data"
    records = json.loads((folder / "m4_instruct_annotations.json").read_text())
    bad = {row["row"] for row in planted if row["repository"] == "lmms-lab/M4-Instruct-Data"}
    members = {
        name: path for path in folder.glob("*.zip") for name in zipfile.ZipFile(path).namelist()
    }
    interleaved = 0
    for number, record in enumerate(records):
        places = "".join(said["value"] for said in record["conversations"]).count("<image>")
        assert len(record["image"]) >= 2
        if number not in bad:
            assert places == len(record["image"])
            assert all(members[name].stem == name.split("/")[0] for name in record["image"])
        interleaved += not record["conversations"][0]["value"].startswith("<image>")
    assert interleaved > 0


def test_reasoning_images_lie_in_the_parts_of_one_zip(data):
    folder = data / "Xkev/LLaVA-CoT-100k"
    joined = b"".join(path.read_bytes() for path in sorted(folder.glob("image.zip.part-*")))
    archive = zipfile.ZipFile(io.BytesIO(joined))
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert {record["image"] for record in records} == set(archive.namelist())
    for record in records[:4]:
        Image.open(io.BytesIO(archive.read(record["image"]))).load()
        answer = record["conversations"][1]["value"]
        tags = [
            answer.index(f"<{tag}>") for tag in ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION")
        ]
        assert tags == sorted(tags)


@pytest.fixture(scope="module")
def planted(data):
    return json.loads((data / "planted.json").read_text())


def row_of(data, bad):
    """The planted row as it stands in its file."""
    path = data / bad["repository"] / bad["file"]
    if path.suffix == ".parquet":
        return pq.read_table(path).slice(bad["row"], 1).to_pylist()[0]
    if path.suffix == ".jsonl":
        return json.loads(path.read_text().splitlines()[bad["row"]])
    return json.loads(path.read_text())[bad["row"]]


def first_image(row):
    return row["images"][0]["bytes"]


def test_every_kind_of_bad_row_is_planted(planted):
    assert {bad["what"] for bad in planted} == set(WHAT)


def test_truncated_and_undecodable_media_do_not_decode(data, planted):
    found = videos(data)
    seen = Counter()
    for bad in planted:
        row = row_of(data, bad)
        if bad["what"] == "truncated_image":
            with pytest.raises(OSError, match=r"truncated|broken"):
                Image.open(io.BytesIO(first_image(row))).load()
        elif bad["what"] == "undecodable_video":
            with pytest.raises(av.error.FFmpegError):
                av.open(io.BytesIO(found[bad["subset"], row["video"]]))
        elif bad["what"] == "missing_media" and "video" in row:
            assert (bad["subset"], row["video"]) not in found
        elif bad["what"] == "short_video":
            with av.open(io.BytesIO(found[bad["subset"], row["video"]])) as container:
                assert container.duration / av.time_base < 1
        else:
            continue
        seen[bad["what"]] += 1
    assert seen == {
        "truncated_image": 2, "undecodable_video": 3, "missing_media": 3, "short_video": 3
    }  # fmt: skip


def test_the_other_planted_rows_are_as_they_are_named(data, planted):
    rows = {bad["what"]: (bad, row_of(data, bad)) for bad in planted}
    assert Image.open(io.BytesIO(first_image(rows["tiny_image"][1]))).size == (8, 8)
    page = Image.open(io.BytesIO(first_image(rows["blank_page"][1]))).convert("L")
    assert page.getextrema() == (252, 252)
    assert Image.open(io.BytesIO(first_image(rows["rotated_image"][1]))).getexif()[0x0112] == 6
    assert Image.open(io.BytesIO(first_image(rows["transparent_image"][1]))).mode == "RGBA"
    tag = rows["literal_image_tag"][1]
    assert any("<image>" in turn["user"] for turn in tag["texts"])
    assert len(tag["images"]) == 1
    assert "<CONCLUSION>" not in rows["unfinished_reasoning"][1]["conversations"][1]["value"]
    extra = rows["placeholder_mismatch"][1]
    assert extra["conversations"][0]["value"].count("<image>") > len(extra["image"])
    for bad in planted:
        row = row_of(data, bad)
        if bad["what"] == "duplicate":
            whole = pq.read_table(data / bad["repository"] / bad["file"]).to_pylist()
            assert whole.count(row) == 2
        if bad["what"] == "empty_answer":
            said = row.get("messages", [{}])[-1].get("content") or row.get("texts", [{}])[0].get(
                "assistant"
            )
            assert not said


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_bytes_come_out_again(data, tmp_path):
    make(tmp_path / "again", hash_seed=2)
    assert digests(tmp_path / "again") == digests(data)


def test_a_complete_folder_is_current_until_a_file_changes(data, tmp_path):
    assert quickstart.is_current(data)
    card = data / "andito/mathwriting-google/README.md"
    text = card.read_text()
    card.write_text(text + "\n")
    assert not quickstart.is_current(data)
    card.write_text(text)
    assert quickstart.is_current(data)
    assert not quickstart.is_current(tmp_path)


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"was not made by this script"):
        quickstart.make(tmp_path)
    assert quickstart.main([str(tmp_path)]) == 2
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_wrong_call_is_exit_status_2(capsys):
    assert quickstart.main(["one", "two"]) == 2
    assert "examples/quickstart.py [FOLDER]" in capsys.readouterr().err


@given(
    values=st.lists(st.floats(0, 1e6).map(lambda x: round(x, 1)), min_size=2, max_size=8),
    seed=st.integers(0, 1000),
)
def test_chart_questions_are_answered_by_the_numbers(values, seed):
    from random import Random

    labels = tuple(f"label{n}" for n in range(len(values)))
    pairs = dict(zip(labels, values, strict=True))
    chart = Chart(kind="bar", title="t", quantity="q", labels=labels, values=tuple(values))
    told = dict(tables.questions(chart, Random(seed), number=7))
    for word, extreme in (("highest", max(values)), ("lowest", min(values))):
        answer = told.get(f"Which category has the {word} value?")
        assert (answer is None) == (values.count(extreme) > 1)
        assert answer is None or pairs[answer[:-1]] == extreme
    assert told["How many categories does the chart show?"] == f"{len(values)}."
    for question, answer in told.items():
        if question.startswith("Is "):
            one, other = question[3:-1].split(" greater than ")
            assert (answer == "Yes.") == (pairs[one] > pairs[other])
        if question.startswith("What is the difference"):
            one, other = question.removeprefix("What is the difference between ")[:-1].split(
                " and "
            )
            assert abs(float(answer[:-1].replace(",", "")) - abs(pairs[one] - pairs[other])) < 0.11


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'convert_dates' keyword")  # of pandas to vega_datasets
def test_the_whole_is_two_to_four_thousand_samples_and_small(tmp_path):
    quickstart.make(tmp_path / "data")
    made = tmp_path / "data"
    assert sum(quickstart.listing(made).values()) < 60e6
    rows = 0
    for repository in REPOSITORIES:
        for path in (made / repository).rglob("*"):
            if path.suffix == ".parquet" and path.name.startswith("train"):
                rows += pq.read_metadata(path).num_rows
            elif path.suffix == ".json":
                rows += len(json.loads(path.read_text()))
            elif path.suffix == ".jsonl":
                rows += len(path.read_text().splitlines())
    assert 2000 <= rows <= 4000
