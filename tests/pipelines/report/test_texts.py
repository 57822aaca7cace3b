"""What is said of questions and answers is what the rows hold; the samples drawn stay the same."""

from collections import Counter

import polars as pl
import pyarrow as pa
import pytest

from pipelines.engine import tables
from pipelines.report.drawn import EACH, SHARDS, drawn, views
from pipelines.report.finished import finished_of, open_finished
from pipelines.report.row_view import SampleView, Span, sample_views
from pipelines.report.texts import Message, messages_of, texts
from tests.pipelines.made import conversation, finished, line, recipe
from tests.pipelines.made import index as index_table
from tokenization.chat import pieces_of
from tokenization.prompts import with_media_words
from tokenization.schema import PACKED, Encoding
from tokenization.vocab import encode_plain, image_ids, load_tokenizer, plain_tokenizer, vocab


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return open_finished(str(finished(tmp_path_factory.mktemp("mixture") / "by_hand")))


def shards_of(folder, shards, components=("a", "b")):
    """A folder with such shards, each a list of rows of (component, id, question, answer)."""
    lines = []
    for number, rows in enumerate(shards):
        table = []
        for row in rows:
            made = [conversation(name, asked, said, []) for _, name, asked, said in row]
            ids = [i for sample in made for i in sample["ids"]]
            table.append(
                {
                    "input_ids": ids,
                    "loss_mask": [True] * len(ids),
                    "seq_lengths": [len(sample["ids"]) for sample in made],
                    "images": [],
                    "grids": [],
                    "sample_ids": [sample["id"] for sample in made],
                }
            )
            lines += [line(name, part, 9, 3, shard=[number]) for part, name, _, _ in row]
        path = folder / "shards" / f"train-{number:05d}.arrow"
        tables.write(pa.Table.from_pylist(table, schema=PACKED), path, rows_per_batch=2)
    tables.write(index_table(lines).to_arrow(), folder / "index.arrow")
    load_tokenizer("builtin").save_pretrained(folder / "tokenizer")
    stats = {"components": dict.fromkeys(components)}
    return finished_of(str(folder), recipe=recipe(), stats=stats)


def test_near_texts_of_samples_without_images_are_counted_and_named(tmp_path):
    long = "the quick brown fox jumps over the lazy dog while nine small birds sing above the barn"
    row = [
        ("a", "s/a/0", "Tell it.", long),
        ("a", "s/a/1", "TELL it!", long + "."),
        ("b", "s/b/2", "Tell it.", long),
        ("b", "s/b/3", "And of the sea?", "It is wide and blue, and ships go over it by day."),
    ]
    near = texts(shards_of(tmp_path, [[row]]))["near"]
    assert near["components"] == {
        "a": {"compared": 2, "near": 1},
        "b": {"compared": 2, "near": 1},
    }
    assert near["pairs"] == [["s/a/0", "s/a/1"], ["s/a/0", "s/b/2"]]


def test_messages_are_those_that_were_rendered(mixture):
    places = drawn(mixture).places
    found = {
        place["id"]: [(m.role, m.text) for m in messages_of(view, mixture.tokenizer)]
        for place, _, view in views(mixture, places)
    }
    assert found["docmatix/images/0"] == [
        ("user", "Which page has the total?"),
        ("assistant", "The second."),
    ]
    assert found["smoltalk/all/0"] == [("user", "Count to 3."), ("assistant", "0 1 2")]


def test_of_another_chat_template_nothing_is_told(mixture):
    """Who says what is not to be seen in its ids."""
    assert texts(mixture)["frequent"]
    other = recipe()
    other["mixture"]["encoding"]["chat_template"] = "tokenizer"
    assert texts(finished_of(mixture.folder, recipe=other, stats=mixture.stats)) == {}


def test_a_document_may_begin_as_a_message_does(mixture):
    span = Span(kind="text", text="User: manual of the device", tokens=6, learned=True)
    view = SampleView(id="d", spans=(span,), num_tokens=6, num_learned=6)
    (found,) = messages_of(view, mixture.tokenizer)
    assert (found.role, found.text) == ("document", "User: manual of the device")


def test_times_of_frames_are_no_question(mixture):
    row = [("llava_video/0_30_s/0", "val-00000.arrow", 0, 0)]
    place = pl.DataFrame(row, schema=["id", "shard", "row", "place"], orient="row")
    ((_, _, view),) = views(mixture, place)
    found = list(messages_of(view, mixture.tokenizer))
    assert [(m.role, m.text) for m in found] == [
        ("user", "What happens?"),
        ("assistant", "Ellipses move."),
    ]
    assert found[0] == Message("user", "What happens?", 3)


def test_a_sample_cut_out_of_its_row_is_the_sample(mixture):
    columns = ["input_ids", "loss_mask", "seq_lengths", "images", "grids", "sample_ids"]
    for place, row, view in views(mixture, drawn(mixture).places, columns=columns):
        assert view.id == place["id"] == row["sample_ids"][0]
        assert row["seq_lengths"] == [len(row["input_ids"])]
        shown = [span.image for span in view.spans if span.kind == "image"]
        assert shown == list(range(len(row["images"])))
    seen = tables.read(mixture.path("train-00001.arrow")).to_pylist()[0]["images"]
    assert row["images"] in (seen[:1], seen[1:])


def test_shares_of_answers_are_counted_with_everything_marked_learned(tmp_path):
    rows = [
        [("a", f"s/a/{k}", "Is it so, or is it not?", "Yes" if k % 4 else "No")] for k in range(12)
    ]
    rows += [[("b", f"s/b/{k}", f"Say {k}.", f"It is {k}.")] for k in range(3)]
    found = texts(shards_of(tmp_path, [rows]))
    assert found["frequent"]["a"] == {
        "answers": 12,
        "different": 2,
        "most": [
            {"text": "Yes", "count": 9, "share": 0.75},
            {"text": "No", "count": 3, "share": 0.25},
        ],
    }
    assert found["frequent"]["b"] == {"answers": 3, "different": 3, "most": []}
    assert sum(found["questions"]["counts"]) == sum(found["answers"]["counts"]) == 15
    tokenizer = load_tokenizer("builtin")
    asked = len(tokenizer.encode(" Is it so, or is it not?", add_special_tokens=False))
    assert found["questions"]["median"]["a"] == asked


def test_a_component_in_few_shards_is_drawn_all_the_same(tmp_path):
    shards = [[[("a", f"s/a/{k}", "Why?", "So.")]] for k in range(3 * SHARDS)]
    shards[1].append([("b", "s/b/0", "Why not?", "Thus.")])
    looked = drawn(shards_of(tmp_path, shards))
    assert looked.shards == SHARDS + 1
    assert Counter(looked.places["component"]) == {"a": SHARDS + 1, "b": 1}


def test_a_component_gives_no_more_than_its_share_and_the_same_ones(tmp_path):
    samples = [("a", f"s/a/{k}", "Why?", "So.") for k in range(EACH + 50)]
    one = drawn(shards_of(tmp_path / "one", [[samples]])).places
    assert len(one) == EACH
    two = drawn(shards_of(tmp_path / "two", [[[s] for s in reversed(samples)]])).places
    assert one["id"].to_list() == two["id"].to_list()


def test_nothing_used_is_nothing_drawn(tmp_path):
    found = texts(shards_of(tmp_path, [[]]))
    assert found["frequent"] == {}
    assert sum(found["answers"]["counts"]) == 0


@pytest.mark.parametrize("seconds", [None, [0.0, 2.0, 61.0]])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("name", ["s/a/0", "s/a/1", "s/a/2", "s/a/3"])
def test_the_words_around_images_are_no_question(mixture, name, number, seconds):
    """As `with_media_words` puts them, whichever it chooses."""
    said = [("user", [*range(number), "What is it?"]), ("assistant", ["So: a cat."])]
    times = [None] * number if seconds is None else seconds[:number]
    words = with_media_words(
        said, sample_id=name, seconds=times, duration=90.0, encoding=Encoding()
    )
    marks = vocab(load_tokenizer("builtin"), Encoding())
    ids = []
    for piece, _ in pieces_of(words, marks, encoding=Encoding()):
        if isinstance(piece, int):
            ids += image_ids(marks, 0, 0).tolist()
        else:
            plain = plain_tokenizer("builtin")
            ids += encode_plain(plain, [piece])[0] if isinstance(piece, str) else piece
    row = {
        "input_ids": ids,
        "loss_mask": [False] * len(ids),
        "seq_lengths": [len(ids)],
        "grids": [{"rows": 0, "cols": 0}] * number,
        "sample_ids": [name],
    }
    (view,) = sample_views(row, mixture.tokenizer, tokens_per_crop=marks.tokens_per_crop)
    found = [(m.role, m.text) for m in messages_of(view, mixture.tokenizer)]
    assert found == [("user", "What is it?"), ("assistant", "So: a cat.")]
