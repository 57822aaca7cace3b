"""What `judge` is made of: prompt files, texts of models, pauses, budgets, images."""

import email.utils
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.served.budget import Budget
from pipelines.served.endpoint import MAX_PAUSE, Endpoint, Pace, Reply, ask, retry_after
from pipelines.served.prompts import BUNDLED, load_prompt, prompt_of
from pipelines.served.questions import Settings, body, evenly, question_of, sendable
from pipelines.served.replies import json_in, outcome_of
from pipelines.sources.finevision import KINDS
from tests.chat_server import ChatServer, Fails
from tests.pipelines.sources.making import coarse_jpeg, png

GOOD = yaml.safe_load((BUNDLED / "finevision.yaml").read_text())
TURN = {"reason": "r", **dict.fromkeys(KINDS, 3)}


def test_the_bundled_prompt_rates_the_axes_of_finevision():
    prompt = load_prompt("finevision")
    assert sorted(prompt.scores) == sorted(KINDS)
    assert set(prompt.scores.values()) == {(1, 5)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "name is missing"),
        ({"scores": {}}, "scores is missing"),
        ({"version": "1"}, "version is '1'; expected int"),
        ({"version": True}, "version is True; expected int"),
        ({"output_tokens": 0}, "output_tokens is 0; expected 1 or more"),
        ({"per": "row"}, "per is 'row'; expected turn or sample"),
        ({"images": "yes"}, "images is 'yes'; expected required or optional"),
        ({"scores": {"id": {"min": 1, "max": 5}}}, "a score is called 'id'"),
        ({"scores": {"a b": {"min": 1, "max": 5}}}, "a score is called 'a b'"),
        ({"scores": {"a": {"min": 5, "max": 5}}}, "scores.a is"),
        ({"scores": {"a": {"min": 0.5, "max": 5}}}, "scores.a is"),
        ({"scores": {"a": [1, 5]}}, "scores.a is"),
        ({"rubric": "x"}, "unknown key 'rubric'"),
    ],
)
def test_a_mistake_in_a_prompt_file_is_named(change, said):
    with pytest.raises(ValueError, match=r"here\.yaml: ") as caught:
        prompt_of({**GOOD, **change}, where="here.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["name", "version", "instructions", "per", "output_tokens"])
def test_everything_in_a_prompt_is_part_of_its_identity(key):
    other = {"version": 2, "output_tokens": 161, "per": "sample"}.get(key, "another")
    changed = prompt_of({**GOOD, key: other}, where="x")
    assert changed.digest != prompt_of(GOOD, where="x").digest


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (json.dumps({"turns": [TURN]}), ""),
        ("```json\n" + json.dumps({"turns": [TURN]}, indent=1) + "\n```", ""),
        ("<think>{so} {}</think> Here: " + json.dumps({"turns": [TURN]}) + " Done.", ""),
        (json.dumps({"turns": [{**TURN, "relevance": 4.0}]}), ""),
        (json.dumps({"turns": [{**TURN, "more": 1}]}), ""),
        ("", "no_json"),
        ("{}", "no_json"),
        ("[3, 3]", "no_json"),
        ("{" * 5000, "no_json"),
        ('{"turns": [{"reason": "r"', "no_json"),
        (json.dumps({"turns": [TURN, TURN]}), "not_as_asked"),
        (json.dumps({"turns": {"1": TURN}}), "not_as_asked"),
        (json.dumps({"turns": [None]}), "not_as_asked"),
        (json.dumps({"turns": [{**TURN, "reason": None}]}), "not_as_asked"),
        (json.dumps({"turns": [{**TURN, "relevance": "5"}]}), "not_as_asked"),
        (json.dumps({"turns": [{**TURN, "relevance": True}]}), "not_as_asked"),
        (json.dumps({"turns": [{**TURN, "relevance": 4.5}]}), "not_as_asked"),
        (json.dumps({"turns": [{**TURN, "relevance": 0}]}), "out_of_range"),
        (json.dumps({"turns": [{**TURN, "relevance": 6}]}), "out_of_range"),
        ('{"turns": [{"reason": "r", "relevance": NaN}]}', "not_as_asked"),
    ],
)
def test_what_a_text_amounts_to(text, verdict):
    found = outcome_of(text, load_prompt("finevision"), turns=1)
    assert found.verdict == verdict
    assert bool(found.turns) is not bool(verdict)


@given(st.text(max_size=80))
def test_no_text_raises(text):
    outcome_of(text, load_prompt("finevision"), turns=1)
    json_in("{" + text)


def test_retry_after_is_a_number_or_a_date_within_bounds():
    assert retry_after({"Retry-After": "3"}) == 3
    assert retry_after({"Retry-After": "1000000"}) == MAX_PAUSE
    assert retry_after({"Retry-After": "-1"}) == 0
    date = email.utils.formatdate(time.time() + 100_000, usegmt=True)
    assert retry_after({"Retry-After": date}) == MAX_PAUSE
    assert retry_after({"Retry-After": email.utils.formatdate(0, usegmt=True)}) == 0
    for none in ({}, {"Retry-After": "soon"}, {"Retry-After": "nan"}, None):
        assert retry_after(none) is None


class Rested(Pace):
    """Keeps for how long it was to rest, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[float] = []
        self.holds: list[float] = []

    def rest(self, seconds: float) -> bool:
        self.rests += [seconds] if seconds > 0 else []
        return True

    def hold(self, seconds: float) -> None:
        self.holds.append(seconds)


def test_the_server_says_how_long_to_wait_and_else_pauses_double(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    parts = [{"type": "text", "text": "sample 1 [1 objects]"}]
    request = {"messages": [{"role": "user", "content": parts}]}
    with ChatServer() as server:
        server.rules["sample 1"] = [
            Fails(429, retry_after="7"), Fails(503, retry_after="9"), Fails(500, retry_after="11"),
            Fails(500), Fails(0),
        ]  # fmt: skip
        endpoint = Endpoint(url=server.url, model="m", pause=1, retries=5)
        pace = Rested()
        reply, sent = ask(endpoint, request, pace=pace, permitted=lambda: True)
    assert isinstance(reply, Reply)
    assert sent == 6
    assert pace.rests[:3] == [7, 9, 11]
    assert 8 * 0.75 <= pace.rests[3] <= 8 * 1.25
    assert 16 * 0.75 <= pace.rests[4] <= 16 * 1.25
    assert pace.holds == [7, 9]  # for everybody


def test_a_pace_spreads_requests_and_holds_all_of_them():
    pace = Pace(per_minute=60 / 0.02)
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: pace.wait(), range(6)))
    assert time.monotonic() - begun >= 5 * 0.02
    pace.hold(0.05)
    begun = time.monotonic()
    assert pace.wait()
    assert time.monotonic() - begun >= 0.04
    pace.hold(1000)
    pace.stopped.set()
    assert not pace.wait()


@given(
    st.integers(1, 20),
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), max_size=30),
)
def test_a_budget_is_never_exceeded(max_requests, max_tokens, questions):
    budget = Budget(max_requests=max_requests, max_tokens=max_tokens)
    for reserved, share in questions:
        if budget.reserve(reserved):
            budget.request()
            budget.settle(reserved, used=int(reserved * share))
    assert budget.requests <= max_requests
    assert budget.tokens <= max_tokens
    assert budget.reserved == 0
    if not budget.reached:
        assert budget.requests == len(questions)


def test_what_does_not_fit_beside_others_waits_for_them():
    budget = Budget(max_tokens=100)
    assert budget.reserve(80)
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(budget.reserve(50)))
    waiting.start()
    budget.settle(80, used=30)
    waiting.join()
    assert got == [True]


def test_frames_are_spread_over_the_video():
    assert evenly(3, 8) == [0, 1, 2]
    assert evenly(100, 4) == [0, 33, 66, 99]
    assert evenly(5, 1) == [0]


def sample(*images: bytes, **more):
    content = [{"type": "image", "text": None}] * len(images) + [{"type": "text", "text": "What?"}]
    return {
        "id": "a/b/0",
        "messages": [
            {"role": "user", "content": content},
            {"role": "rejected", "content": [{"type": "text", "text": "worse"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Cells."}]},
        ],
        "images": [{"bytes": data} for data in images],
        **more,
    }


def test_of_many_images_some_are_sent_and_the_rest_is_told_of():
    prompt, settings = load_prompt("finevision"), Settings(max_images=2)
    question = question_of(sample(*map(coarse_jpeg, range(5))), prompt, settings)
    parts = body(question, prompt, settings, model="m")["messages"][0]["content"]
    assert sum(part["type"] == "image_url" for part in parts) == question.shown == 2
    text = "".join(part.get("text", "") for part in parts)
    assert "(3 more images are not shown.)" in text
    assert "worse" not in text


def test_a_sample_without_answer_or_image_is_not_asked_about():
    prompt, settings = load_prompt("finevision"), Settings()
    assert question_of(sample(), prompt, settings) is None
    assert question_of(sample(png(), messages=[]), prompt, settings) is None
    any_sample = prompt_of({**GOOD, "images": "optional"}, where="x")
    assert question_of(sample(), any_sample, settings) is not None


def test_content_is_known_by_words_and_images_and_not_by_the_sample():
    prompt, settings = load_prompt("finevision"), Settings()
    one, two = png(seed=1), png(seed=2)
    of = lambda *images, **more: question_of(sample(*images, **more), prompt, settings).content
    assert of(one, two) == of(one, two, id="other/b/9")
    assert len({of(one), of(two), of(one, two), of(two, one)}) == 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_small_image_is_sent_as_it_is(kind):
    data = png(kind=kind)
    assert sendable(data, max_edge=32) == (kind.lower(), data)
    shown, smaller = sendable(data, max_edge=31)
    assert shown == "jpeg"
    assert Image.open(io.BytesIO(smaller)).size == (31, 23)


def test_another_format_or_a_turned_image_is_sent_as_the_model_sees_it():
    assert sendable(png(kind="BMP"), max_edge=64)[0] == "jpeg"
    image = Image.open(io.BytesIO(coarse_jpeg(0, 96, 64)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    image.save(turned, "JPEG", exif=exif)
    kind, data = sendable(turned.getvalue(), max_edge=96)
    assert kind == "jpeg"
    assert Image.open(io.BytesIO(data)).size == (64, 96)
