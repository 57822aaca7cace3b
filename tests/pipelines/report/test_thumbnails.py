"""Contact sheets: what is on them, and that a page of many components stays within its bound."""

import pytest

from pipelines.report import thumbnails
from pipelines.report.finished import open_finished
from pipelines.report.page import report
from pipelines.report.thumbnails import SHEET_BYTES, THUMBNAILS, contact_sheets, sheet_summary
from tests.html_page import Page
from tests.pipelines.made import finished


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return open_finished(str(finished(tmp_path_factory.mktemp("mixture") / "by_hand")))


def test_every_component_has_a_sheet_of_what_its_train_samples_are(mixture):
    sheets = contact_sheets(mixture)
    assert list(sheets) == list(mixture.stats["components"])
    assert {s["id"] for s in sheets["images"]["samples"]} == {
        f"cauldron/ai2d/{k}" for k in range(3)
    }
    (pages,) = sheets["pages"]["samples"]
    assert (pages["images"], pages["text"]) == (2, "Which page has the total?")
    assert pages["source"].startswith("data:image/webp;base64,")
    assert sheets["words"]["only_text"]
    assert sheet_summary(sheets["words"]) == "text only: the beginning of 1 sample"
    assert sheet_summary(sheets["video"]) == "no sample of it is in the train shards"


def test_the_sheets_stay_within_their_bytes_and_say_what_is_left_out(mixture, monkeypatch):
    whole = contact_sheets(mixture)
    taken = sum(len(s["source"]) for sheet in whole.values() for s in sheet["samples"])
    most = max(len(s["source"]) for sheet in whole.values() for s in sheet["samples"])
    assert 0 < taken < THUMBNAILS * len(whole) * most <= SHEET_BYTES
    monkeypatch.setattr(thumbnails, "SHEET_BYTES", len(whole))  # a byte a component: one image each
    images = contact_sheets(mixture)["images"]
    assert [bool(sample["source"]) for sample in images["samples"]] == [True, False, False]
    assert images["left_out"] == 2
    assert "2 left out to keep this file small" in sheet_summary(images)


def test_a_video_is_its_middle_frame(mixture, monkeypatch):
    """The one video of this mixture is held out; as if it were of train, its sheet has a frame."""
    import polars as pl

    from pipelines.report.drawn import Drawn

    row = [("llava_video/0_30_s/0", "video", "val-00000.arrow", 0, 0)]
    columns = ["id", "component", "shard", "row", "place"]
    looked = Drawn(places=pl.DataFrame(row, schema=columns, orient="row"), shards=1, each=1)
    monkeypatch.setattr(thumbnails, "drawn", lambda _: looked)
    sheet = contact_sheets(mixture)["video"]
    assert sheet_summary(sheet) == "1 sample, 1 of them videos, by their middle frame"
    (sample,) = sheet["samples"]
    assert (sample["video"], sample["images"], sample["width"]) == (True, 3, 320)
    middle = mixture.rows("val-00000.arrow", [0])[0]["images"][1]["bytes"]
    budget = thumbnails.Budget()
    same = thumbnails.thumbnail(middle, longest=thumbnails.SHEET_SIDE, budget=budget, quality=50)
    assert sample["source"] == same["source"]


def test_the_page_shows_sheets_and_stays_under_its_bound(mixture):
    html = report(mixture)
    assert len(html) < 10_000_000
    found = Page(html)
    assert found.open == []
    assert "text only: the beginning of 1 sample" in html
    titles = {attributes["title"] for tag, attributes in found.elements if "title" in attributes}
    assert {"cauldron/ai2d/0", "docmatix/images/0", "smoltalk/all/0"} <= titles
