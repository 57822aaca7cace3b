"""A row is shown token by token as it was encoded."""

import re

import pytest

from pipelines.report.finished import open_finished
from pipelines.report.row_view import frame_times, sample_views, visible_text
from pipelines.report.show import show
from tests.pipelines.made import HOSTILE, finished, work_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(finished(tmp_path_factory.mktemp("mixture") / "by_hand"))


@pytest.mark.parametrize(("split", "place"), [("train", 0), ("train", 1), ("val", 0)])
def test_spans_hold_every_token_once_and_learned_ones_as_the_mask_says(folder, split, place):
    mixture = open_finished(folder)
    _, _, row = mixture.row(place, split=split)
    found = sample_views(row, mixture.tokenizer, tokens_per_crop=64)
    assert [piece.id for piece in found] == row["sample_ids"]
    for piece, length in zip(found, row["seq_lengths"], strict=True):
        assert sum(span.tokens for span in piece.spans) == length == piece.num_tokens
        learned = sum(span.tokens for span in piece.spans if span.learned)
        assert learned == piece.num_learned > 0
    shown = [span.image for piece in found for span in piece.spans if span.kind == "image"]
    assert shown == list(range(len(row["images"])))


def test_text_of_the_spans_is_what_was_encoded(folder):
    mixture = open_finished(folder)
    _, _, row = mixture.row(0, split="train")
    spans = sample_views(row, mixture.tokenizer, tokens_per_crop=64)[0].spans
    assert "".join(span.text for span in spans if span.kind != "image") == (
        "<|im_start|>User:What is shown in image 0?<end_of_utterance>\nAssistant:"
        " Ellipses, it says image 0. Ça va: naïve façade.<end_of_utterance>"
    )
    assert [span.text for span in spans if span.learned] == [
        " Ellipses, it says image 0. Ça va: naïve façade.",
        "<end_of_utterance>",
    ]


def test_frames_of_a_video_have_their_seconds(folder):
    mixture = open_finished(folder)
    _, _, row = mixture.row(0, split="val")
    video = sample_views(row, mixture.tokenizer, tokens_per_crop=64)[0]
    assert frame_times(video.spans) == {0: "00:00", 1: "00:02", 2: "00:04"}


def test_a_row_is_shown_as_the_model_sees_it(folder):
    text = show(folder, row=0, color=False)
    assert "train row 0 (train-00000.arrow, row 0)" in text
    assert "3 samples" in text
    assert re.search(r"\[image 1: 740x480 px, [\d,]+ bytes, 2x3 crops \+ global view", text)
    assert ">> Ellipses, it says image 1." in text
    assert "2/3 images: cauldron/ai2d/1" in text


def test_learned_text_is_green_and_nothing_else(folder):
    text = show(folder, row=0, color=True)
    green = re.findall(r"\x1b\[32m(.*?)\x1b\[0m", text)
    assert "<end_of_utterance>" in green
    assert not any("What is shown" in part for part in green)


def test_a_hostile_row_cannot_drive_the_terminal(folder):
    for words in ({"id": "cauldron/vqa/7"}, {"row": 0, "split": "val"}):
        text = show(folder, color=False, **words)
        assert "\\u001b[2J" in text
        assert not set(text) & set("\x1b\x07\u202e")
        coloured = show(folder, color=True, **words)
        assert set(re.findall(r"\x1b.{4}", coloured)) <= {
            "\x1b[32m",
            "\x1b[0m",
            "\x1b[2;3",
            "\x1b[35m",
            "\x1b[1m",
        } | set(re.findall(r"\x1b\[0m.?", coloured)) | set(re.findall(r"\x1b\[1m.", coloured))


def test_visible_keeps_text_and_writes_out_what_hides():
    assert visible_text("tab\tline\nnaïve 漢字") == "tab\tline\nnaïve 漢字"
    assert visible_text("\x1b[2J\u202e") == "\\u001b[2J\\u202e"
    assert visible_text(HOSTILE).isprintable()


def test_the_story_of_a_sample_names_its_shards_and_rows(folder):
    text = show(folder, id="cauldron/ai2d/2", color=False)
    assert "train-00001.arrow row 0" in text
    assert "read from  org/name at main, subset ai2d, part cauldron/ai2d/00000, row 2" in text
    assert "kept" in text


def test_the_story_of_a_rejected_sample_gives_the_reason(folder):
    text = show(folder, id="cauldron/vqa/8", work=work_of(folder), color=False)
    assert "small_image" in text
    assert "user: [image: 20x16 px]What is 8?" in text
    assert "assistant: >>It is 8." in text
    assert "also fired blurred" in text
    assert "never" in text


def test_a_rejected_sample_that_was_cleaned_away_says_where_to_look(folder, tmp_path):
    text = show(folder, id="cauldron/vqa/8", work=str(tmp_path), color=False)
    assert f"no longer in {tmp_path}: say work=DIR" in text


def test_a_sample_that_did_not_decode_says_so(folder):
    text = show(folder, id="cauldron/vqa/9", work=work_of(folder), color=False)
    assert "defect: undecodable_image" in text
    assert "not decodable" in text


def test_a_rule_shows_what_it_rejected_and_a_component_its_account(folder):
    text = show(folder, rule="small_image", work=work_of(folder), color=False)
    assert "small_image: removed 1 samples" in text
    assert "cauldron/vqa/8" in text
    text = show(folder, rule="blurred", work=work_of(folder), color=False)
    assert "only marked: images 1" in text
    text = show(folder, component="images", color=False)
    assert "rejected   small_image 1, undecodable_image 1" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"row": 2}, r"row 2 of 'train' asked for, found rows 0 to 1"),
        ({"row": -1}, r"row -1 of 'train' asked for"),
        ({"id": "cauldron/ai2d/22"}, r"Did you mean 'cauldron/ai2d/2'"),
        ({"rule": "smal_image"}, r"Did you mean 'small_image'"),
        ({"component": "image"}, r"Did you mean 'images'"),
    ],
)
def test_what_is_not_there_is_said_with_the_way_out(folder, words, message):
    with pytest.raises(ValueError, match=message):
        show(folder, **words)


def test_a_folder_that_is_no_mixture_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        show(str(tmp_path))
