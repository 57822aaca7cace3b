"""Placeholders, indices and names: each medium of a row comes to its place, once, or it is said."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.placing import asks_for_none, place_media
from pipelines.sources.sample import At, Defect, Named, Next, Pdf, Sample, Still, Turn, Video
from tests.pipelines.sources.making import (
    asked,
    encoded_video,
    png,
    qa,
    read,
    said,
    tar,
    write,
    write_lines,
    write_parquet,
)

A, B, C = (Still(path=f"{name}.png") for name in "abc")
V, W = Video(path="v.mp4"), Video(path="w.mp4")
ANSWER = Turn("assistant", ("Answer.",))


def shown(content: Any, *waiting: Any, literal: bool = False) -> list[Any]:
    """The content of one user turn, once everything is at its place; media by their path."""
    content = (content,) if isinstance(content, str) else tuple(content)
    sample = Sample(turns=(Turn("user", content), ANSWER), waiting=waiting)
    whole = place_media(sample, literal=literal)
    assert whole.waiting == ()
    assert whole.turns[1] == ANSWER
    return [part if isinstance(part, str) else part.path for part in whole.turns[0].content]


def mismatch(content: Any, *waiting: Any) -> str:
    with pytest.raises(Defect) as caught:
        shown(content, *waiting)
    assert caught.value.reason == "placeholder_mismatch"
    return caught.value.detail


TEXTS = st.lists(st.sampled_from(["<image>", "<video>", "<", "a", "<i", "mage>", "\n"]), max_size=3)
PARTS = st.one_of(TEXTS.map("".join), st.sampled_from([A, V, Pdf(path="d.pdf")]))
TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "document"]), st.lists(PARTS)),
    max_size=4,
)


@given(turns=TURNS, waiting=st.lists(st.sampled_from([A, B, V]), max_size=2), literal=st.booleans())
def test_what_has_no_place_of_its_own_opens_the_first_question(turns, waiting, literal):
    said = tuple(Turn(role, tuple(content)) for role, content in turns)
    sample = Sample(turns=said, waiting=tuple(waiting))
    texts = [p for t in said if t.role != "document" for p in t.content if isinstance(p, str)]
    asking = not literal and any("<image>" in text or "<video>" in text for text in texts)
    users = [number for number, turn in enumerate(said) if turn.role == "user"]
    assert asks_for_none(sample, literal=literal) != asking
    if asking:
        return
    if waiting and not users:
        with pytest.raises(Defect, match="media, but no user turn"):
            place_media(sample, literal=literal)
        return
    whole = place_media(sample, literal=literal)
    assert whole.waiting == ()
    for number, (turn, before) in enumerate(zip(whole.turns, said, strict=True)):
        opening = tuple(waiting) if [number] == users[:1] else ()
        assert turn == Turn(before.role, (*opening, *before.content))


# ------------------------------------------------------------------ the rules


def test_placeholders_are_places():
    assert shown("<image>\nWhat?", A) == ["a.png", "What?"]
    assert shown("<image>\n<image>\nWhich?", A, B) == ["a.png", "b.png", "Which?"]
    assert shown("Left <image>\nright <image>?", A, B) == [
        *("Left ", "a.png", "\nright ", "b.png", "?")
    ]
    assert shown("What?\n<image>", A) == ["What?\n", "a.png"]
    assert shown("<video>\nWhat?", V) == ["v.mp4", "What?"]
    assert shown("<image>\nWhat?", V) == ["v.mp4", "What?"]
    assert shown("<video> and <image>?", A, V) == ["v.mp4", " and ", "a.png", "?"]
    assert shown("What?", A, V) == ["a.png", "v.mp4", "What?"]
    assert shown("<image> What?", Pdf(path="d.pdf")) == ["d.pdf", " What?"]


def test_what_does_not_come_out_even_is_said():
    assert mismatch("<image> and <image>", A) == "2 <image> for 1 image"
    assert mismatch("See <image> there", A, B) == "1 <image> for 2 images"
    assert mismatch("A literal <image>") == "1 <image> for no image or video"
    assert mismatch("<video>?", A) == "1 <video> for 1 image"
    assert mismatch("<image>?", A, V) == "1 <image> for 1 image and 1 video"
    assert mismatch("<image> <image>", A, V) == "2 <image> for 1 image and 1 video"
    assert mismatch((Next("image"), "What?")) == "1 <image> for no image or video"
    assert mismatch((Next("image"), "<image> What?"), A) == "2 <image> for 1 image"


def test_a_placeholder_in_an_answer_is_never_learned():
    turns = (Turn("user", ("<image> What?",)), Turn("assistant", ("This <image>.",)))
    with pytest.raises(Defect, match="placeholder_mismatch: <image> in an answer"):
        place_media(Sample(turns=turns, waiting=(A,)), literal=False)
    whole = place_media(Sample(turns=turns, waiting=(A,)), literal=True)
    assert whole.turns == (Turn("user", (A, "<image> What?")), turns[1])


def test_literal_placeholders_are_text_and_media_open_the_turn():
    assert shown("How is <video> written?", literal=True) == ["How is <video> written?"]
    assert shown("An <image>\n tag", A, literal=True) == ["a.png", "An <image>\n tag"]


def test_documents_have_no_placeholders():
    turns = (Turn("document", ("A tag <image>.",)),)
    assert place_media(Sample(turns=turns), literal=False).turns == turns


def test_parts_mean_what_they_say_once_each():
    assert shown((At("image", 1), "left of", At("image", 0)), A, B) == ["b.png", "left of", "a.png"]
    assert shown((Named(B), Next("image"), "?"), A, B) == ["b.png", "a.png", "?"]
    assert shown((Named(Still(path="./a.png")), "?"), A) == ["a.png", "?"]
    assert shown((Named(C), "?")) == ["c.png", "?"]
    assert shown((Named(A), At("video", 0), Named(A)), A, V) == ["a.png", "v.mp4", "a.png"]
    assert shown(("<image> by index: ", At("image", 0)), A, B) == ["b.png", " by index: ", "a.png"]
    assert mismatch((At("image", 2), "?"), A, B) == "index 2 of 2 images"
    assert mismatch((At("image", -1), "?"), A) == "index -1 of 1 images"
    assert mismatch((At("image", 0), "?"), A, B) == "1 image that no part names"
    assert mismatch((Named(C), "?"), A) == "1 image that no part names"


def test_a_named_part_finds_the_bytes_of_its_row():
    inside = Still(data=png(), called=("a.png",))
    sample = Sample(turns=(Turn("user", (Named(A), "?")), ANSWER), waiting=(inside,))
    assert place_media(sample, literal=False).turns[0].content == (inside, "?")
    same = Sample(turns=(Turn("user", (Named(Still(data=png())), "?")), ANSWER), waiting=(inside,))
    assert place_media(same, literal=False).turns[0].content == (inside, "?")


@given(
    st.lists(st.sampled_from(["<image>", "<video>", "a", "\n", " b "]), max_size=8),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_every_medium_is_placed_once_and_in_order_or_none_is(pieces, more, videos):
    text = "".join(pieces)
    images = [Still(path=f"i{n}") for n in range(text.count("<image>") + more * (not videos))]
    films = [Video(path=f"v{n}") for n in range(text.count("<video>") + videos)]
    sample = Sample(turns=(Turn("user", (text,)), ANSWER), waiting=(*images, *films))
    try:
        content = place_media(sample, literal=False).turns[0].content
    except Defect:
        assert "<" in text
        assert more or videos
        return
    found = [part for part in content if not isinstance(part, str)]
    assert [m for m in found if isinstance(m, Still)] == images
    assert [m for m in found if isinstance(m, Video)] == films
    kept = "".join(part for part in content if isinstance(part, str))
    assert "".join(kept.split()) == "".join(text.split()).replace("<image>", "").replace(
        "<video>", ""
    )


# ------------------------------------------------------------------ in every source


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.png", png(seed=number))
    encoded_video(tmp_path / "v.mp4", seconds=1, fps=2)
    return tmp_path


def names(sample: dict[str, Any]) -> str:
    """`ab`: which of the three images a sample shows, in order."""
    known = {png(seed=number): name for number, name in enumerate("abc")}
    return "".join(known.get(image["bytes"], "?") for image in sample["images"])


def chat(*contents: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": c} for n, c in enumerate(contents)]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


URL = {"type": "image_url", "image_url": {"url": "b.png", "detail": "low"}}
INLINE = base64.b64encode(png(seed=2)).decode()
CHATS = [
    (chat("<image>\nQ", "A", "And <image>?", "B"), "ab", ["[i]Q", "And [i]?"]),
    (chat([text("<image> or"), text(" <image>?")], "A"), "ab", ["[i] or [i]?"]),
    (chat([{"type": "image"}, text("Q")], "A", [text("And"), {"type": "image"}], "B"), "ab", None),
    (chat([{"type": "image", "index": 1}, {"type": "image", "index": 0.0}], "A"), "ba", None),
    (chat([URL, text("Q"), {"type": "image"}], "A"), "ba", ["[i]Q[i]"]),
    (chat([{"image": "b.png"}, {"text": "Q"}, {"image": "a.png"}], "A"), "ba", ["[i]Q[i]"]),
    (chat("Q", "A"), "ab", ["[i][i]Q"]),
    (chat(["Q ", URL, {"type": "image", "path": "a.png"}], "A"), "ba", ["Q [i][i]"]),
    (chat([{"type": ["text", "image"], "text": "Q"}], "A"), None, None),
    (chat({"type": ["text", "image", "image"], "text": ["Q", None, None]}, "A"), "ab", ["Q[i][i]"]),
    (chat("<image> Q", "A"), None, None),
    (chat([text("<image>"), URL], "A"), "ab", ["[i][i]"]),
    (chat([{"type": "image", "image_index": 1}, text("Q"), {"type": "image"}], "A"), "ba", None),
    (chat([{"type": "image", "id": 1}, text("Q"), {"type": "image", "id": 0}], "A"), None, None),
    (chat([{"type": "image", "text": "Q"}, {"type": "image"}], "A"), None, None),
    (chat([{"type": "image", "text": "<image>", "fps": 1.0}, {"type": "image"}], "A"), "ab", None),
    (chat([{"text": "Q", "image": "a.png"}, URL], "A"), None, None),
    (
        [{**chat("Q")[0], "images": ["b.png"]}, *chat("Q", "A", "R")[1:], *chat("R", "B")],
        None,
        None,
    ),
    (
        [{**chat("Q")[0], "images": ["b.png", "a.png"]}, *chat("Q", "A")[1:]],
        "ba",
        ["[i][i]Q"],
    ),
    (chat("No <image> in the <image>", "Nor <image>"), None, None),
]


@pytest.mark.parametrize(("messages", "shows", "says"), CHATS)
def test_chats_of_every_form_take_their_images(folder, messages, shows, says):
    path = write_lines(folder / "r.jsonl", [{"messages": messages, "images": ["a.png", "b.png"]}])
    (sample,) = read("messages", data=str(path))
    if shows is None:
        assert sample["defect"] in ("placeholder_mismatch", "wrong_schema")
        assert "image" in sample["detail"] or "type" in sample["detail"]
        return
    assert (sample["defect"], names(sample)) == (None, shows)
    assert says is None or [s for role, s in said(sample) if role == "user"] == says


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{INLINE}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{INLINE}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{INLINE}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": INLINE}},
        {"type": "image", "image": INLINE},
        {"type": "image", "bytes": INLINE, "path": None},
        {"type": "image", "image": {"bytes": INLINE, "path": "x.png"}},
        {"type": "image", "url": "file://c.png"},
        {"type": "image", "path": "./c.png", "index": None},
        {"type": "image", "image_path": "c.png"},
        {"type": "image", "file_name": "c.png", "alt": None},
        {"type": "image", "src": "c.png"},
        {"type": "image", "value": "c.png", "text": ""},
        {"type": "image", "content": "c.png"},
        {"type": "image", "base64": INLINE},
    ],
)
def test_parts_that_hold_or_name_their_image(folder, part):
    rows = [{"messages": chat([text("Q"), part], "A")}]
    assert names(read("messages", data=str(write_lines(folder / "r.jsonl", rows)))[0]) == "c"


def test_media_beside_the_text_of_a_turn_stand_in_it(folder):
    rows = [
        {"messages": [{"role": "user", "content": "Q", "images": ["a.png"]}, *chat("Q", "A")[1:]]},
        {
            "messages": [
                {**chat("Q <image> or <image>?")[0], "images": ["b.png", "a.png"]},
                chat("Q", "A")[1],
                {**chat("And?")[0], "image": "c.png"},
                chat("Q", "B")[1],
            ]
        },
        {"messages": [{**chat("<image>Q")[0], "images": ["b.png", "a.png"]}, *chat("Q", "A")[1:]]},
        {"messages": [*chat("Q"), {"role": "assistant", "content": "A", "images": []}]},
    ]
    first, second, uneven, none = read("messages", data=str(write_lines(folder / "r.jsonl", rows)))
    assert (names(first), said(first)[0][1]) == ("a", "[i]Q")
    assert (names(second), [s for _, s in said(second)][::2]) == (
        "bac",
        ["Q [i] or [i]?", "[i]And?"],
    )
    assert (uneven["defect"], none["defect"], none["images"]) == ("placeholder_mismatch", None, [])
    talk = asked("Q", "A")
    talk["conversations"][0]["image"] = "b.png"
    (sample,) = read("llava", data=str(write_lines(folder / "l.jsonl", [talk])))
    assert (names(sample), said(sample)[0][1]) == ("b", "[i]Q")


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "<image> Q", "completion": " A"}, ["[i] Q", "A"]),
        ({"prompt": "Q", "completion": "A"}, ["[i]Q", "A"]),
        (
            {"prompt": chat("Q"), "completion": [{"role": "assistant", "content": "A"}]},
            ["[i]Q", "A"],
        ),
        (
            {"prompt": chat("<image>Q", "A", "R"), "completion": "B"},
            ["[i]Q", "A", "R", "B"],
        ),
    ],
)
def test_rows_of_prompt_and_completion(folder, row, turns):
    rows = [{**row, "images": ["a.png"]}]
    (sample,) = read("messages", data=str(write_lines(folder / "r.jsonl", rows)))
    assert (sample["defect"], [s for _, s in said(sample)]) == (None, turns)
    write_parquet(folder / "p" / "r.parquet", [{**row, "images": [{"bytes": png(), "path": None}]}])
    (sample,) = read("messages", data=str(folder / "p"))
    assert [s for _, s in said(sample)] == turns


def test_rows_of_preferences_are_no_conversations(folder):
    path = write_lines(folder / "r.jsonl", [{"prompt": "Q", "chosen": "A", "rejected": "B"}])
    with pytest.raises(ValueError, match="no column 'messages or completion'"):
        read("messages", data=str(path))


def test_cauldron_rows_of_your_own_have_placeholders_too(folder):
    images = [{"bytes": png(seed=n), "path": None} for n in range(2)]
    rows = [
        {"images": images, "texts": qa(("One <image>?", "A"), ("Two <image>?", "B"))},
        {"images": images, "texts": qa(("Both?", "A"))},
        {"images": images, "texts": qa(("One <image>?", "A"))},
    ]
    write_parquet(folder / "c" / "a.parquet", rows)
    samples = read("cauldron", data=str(folder / "c"))
    assert [s["defect"] for s in samples] == [None, None, "placeholder_mismatch"]
    assert [s for _, s in said(samples[0])] == ["One [i]?", "A", "Two [i]?", "B"]
    assert said(samples[1])[0][1] == "[i][i]Both?"


def test_metadata_of_an_imagefolder_has_placeholders_too(folder):
    rows = [
        {"file_name": "a.png", "question": "Which <image> is it?", "answer": "A"},
        {"file_names": ["a.png", "b.png"], "texts": qa(("<image>", "A"), ("<image>?", "B"))},
        {"file_names": ["a.png", "b.png"], "messages": chat("x <image> y <image>", "A")},
        {"file_name": "a.png", "text": "A caption with <image>."},
        {"file_name": "a.png", "question": "Where?", "answer": "Here."},
        {"file_name": "a.png", "prompt": "<image>Q", "completion": "A"},
        {"file_name": None, "text": "?"},
    ]
    write_lines(folder / "metadata.jsonl", rows)
    samples = read("imagefolder", data=str(folder))
    bad, gone = "placeholder_mismatch", "missing_media"
    assert [s["defect"] for s in samples] == [None, None, None, bad, None, None, gone]
    firsts = [said(s)[0][1] for s in samples if s["defect"] is None]
    assert firsts == ["Which [i] is it?", "[i]", "x [i] y [i]", "[i]Where?", "[i]Q"]


def test_members_of_a_key_come_by_number_or_by_name(folder):
    shades = {f"k.{n}.png": png(seed=n) for n in range(12)}
    ask = " ".join(["<image>"] * 12)
    members = [*sorted(shades.items()), ("k.json", json.dumps(asked(ask)).encode())]
    named = {**asked("<image> <image>"), "image": ["m.b.png", "m.a.png"]}
    parts = [{"type": "image", "image": "b.png"}, {"type": "image", "index": 0}, text("?")]
    members += [
        ("m.a.png", png(seed=0)),
        ("m.b.png", png(seed=1)),
        ("m.json", json.dumps(named).encode()),
        ("n.a.png", png(seed=0)),
        ("n.b.png", png(seed=1)),
        ("n.json", json.dumps({"messages": chat(parts, "A")}).encode("utf-16")),
        ("o.png", png(seed=0)),
        ("o.json", json.dumps({"messages": chat("Two <image> <image>", "A")}).encode()),
        ("p.png", png(seed=0)),
        ("p.json", json.dumps({"prompt": "<image>Q", "completion": "A"}).encode()),
        ("q.png", png(seed=0)),
        ("q.json", b'{"caption": "nested", "x": ' + b"[" * 9999),
        ("r.png", png(seed=0)),
        ("r.txt", "Ça va".encode("cp1252")),
        ("s.png", png(seed=0)),
        ("s.txt", "Ça va".encode("utf-16")),
    ]
    tar(folder / "t" / "0.tar", members)
    many, *few = read("webdataset", data=str(folder / "t"))
    assert [image["bytes"] for image in many["images"]] == list(shades.values())
    bad = ["placeholder_mismatch", None, "broken_json", "broken_text", None]
    assert [s["defect"] for s in few] == [None, None, *bad]
    assert [names(s) for s in few[:2]] == ["ba", "ba"]
    assert said(few[-1])[1] == ("assistant", "Ça va")


def test_llava_records_without_their_medium_are_said(folder):
    rows = [
        asked("<image>\nQ", picture="a.png"),
        asked("<image>\nQ", image_path="a.png"),
        asked("<video>\nQ", image="a.png"),
        asked("<image>\nQ", "It is <image>.", image="a.png"),
    ]
    samples = read("llava", data=str(write_lines(folder / "r.jsonl", rows)))
    bad = "placeholder_mismatch"
    assert [s["defect"] for s in samples] == ["missing_media", None, bad, bad]
    assert samples[0]["detail"].startswith("picture holds an image or video, and llava takes none")
    assert names(samples[1]) == "a"
    literal = read("llava", data=str(folder / "r.jsonl"), placeholders="literal")
    assert [s["defect"] for s in literal] == ["missing_media", None, None, None]
    assert said(literal[3]) == [("user", "[i]<image>\nQ"), ("assistant", "It is <image>.")]
