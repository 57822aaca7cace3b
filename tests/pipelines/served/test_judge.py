"""`judge`: every kept sample is rated once, whatever the server does; what is bad is counted."""

import json
import signal

import polars as pl
import pytest

from pipelines.__main__ import main
from tests.building import build
from tests.chat_server import Fails, Says, ratings, score_of
from tests.pipelines.served.conftest import SAMPLES, words
from tests.pipelines.sources.making import write

NAMES = [f"sample {n}" for n in range(SAMPLES)]
ONE = {"messages": [{"content": [{"type": "text", "text": "[1 objects]"}]}]}


def facts(tmp_path):
    return pl.read_parquet(tmp_path / "facts.parquet")


def number(sample_id):
    return int(sample_id.rpartition("/")[2])


def lines(tmp_path):
    (path,) = (tmp_path / "answers").glob("*/answers.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_sample_with_an_image_is_rated_turn_by_turn(ask, server, tmp_path):
    assert ask() == 0
    assert sorted(server.names) == sorted(NAMES)
    found = facts(tmp_path)
    assert list(map(number, found["id"])) == list(range(SAMPLES))
    assert found["relevance"].to_list() == [score_of(name) for name in NAMES]
    assert found["formatting_mean"].to_list() == found["formatting"].to_list()
    assert found["verdict"].null_count() == SAMPLES
    assert found["turns"].list.len().to_list() == [1] * (SAMPLES - 1) + [2]
    assert found["turns"][0].to_list()[0]["reason"] == "because"
    assert server.most_under_way <= 4


def test_what_is_sent_is_the_conversation_with_its_image_and_a_schema(ask, server):
    assert ask("concurrency=1") == 0
    _, body, headers = server.requests[-1]
    parts = body["messages"][0]["content"]
    text = "".join(part.get("text", "[image]") for part in parts)
    assert "Question 1:\n[image]" in text.replace("\n\n", "\n")
    assert "Answer 1:\nCells 13." in text
    assert "Question 2:\nAnd what else?" in text
    assert "Answer 2:\nNothing else." in text
    (url,) = (part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    assert url.startswith("data:image/jpeg;base64,")
    turns = body["response_format"]["json_schema"]["schema"]["properties"]["turns"]
    assert (turns["minItems"], turns["maxItems"]) == (2, 2)
    assert turns["items"]["properties"]["relevance"] == {
        "type": "integer", "minimum": 1, "maximum": 5,
    }  # fmt: skip
    assert body["max_tokens"] == 64 + 2 * 160
    assert "Authorization" not in headers


def test_the_same_command_asks_nothing_and_writes_the_same(ask, server, tmp_path):
    assert ask() == 0
    before, asked = (tmp_path / "facts.parquet").read_bytes(), len(server.requests)
    assert ask() == 0
    assert len(server.requests) == asked
    assert (tmp_path / "facts.parquet").read_bytes() == before


def test_another_model_prompt_or_setting_is_asked_anew(ask, server, tmp_path):
    assert ask() == 0
    assert ask("model=other") == 0
    assert ask("max_edge=32") == 0
    prompt = write(tmp_path / "mine.yaml", "name: mine\nversion: 1\ninstructions: Rate it.\n"
                   "scores: {worth: {min: 0, max: 1}}\nper: sample\n")  # fmt: skip
    server.rules = {name: [Says('{"reason": "", "worth": 1}')] for name in NAMES}
    assert ask(f"prompt={prompt}") == 0
    assert server.names.count("sample 0") == 4
    assert facts(tmp_path)["worth"].to_list() == [1] * SAMPLES
    write(prompt, prompt.read_text().replace("version: 1", "version: 2"))
    server.rules = {name: [Says('{"reason": "", "worth": 0}')] for name in NAMES}
    assert ask(f"prompt={prompt}") == 0
    assert facts(tmp_path)["worth"].to_list() == [0] * SAMPLES


def test_ratings_are_facts_of_the_mixture_and_stay_when_a_rule_has_taken_a_sample(
    ask, server, to_judge, tmp_path
):
    assert ask() == 0
    used = (
        f"annotations: {{files: {tmp_path}/facts.parquet, key: __id__, "
        "fields: {relevant: relevance}}\n"
        "filters: {out_of_bounds: {facts: {relevant: {min: 3}}}}\nweight_by: relevant\n"
    )
    text = (to_judge / "mix.yaml").read_text().replace("./rows", f"{to_judge}/rows")
    write(tmp_path / "used.yaml", text + used)
    work = f"work={to_judge}/out/work"
    mix = build(tmp_path / "used.yaml", tmp_path / "again", work)
    index = pl.read_ipc(mix / "index.arrow")
    with_image = index.filter(pl.col("modality").cast(pl.String) == "image")
    for sample, rule in with_image.select("id", pl.col("rule").cast(pl.String)).iter_rows():
        low = score_of(f"sample {number(sample)}") < 3
        assert rule == ("out_of_bounds" if low else None)
    before, asked = (tmp_path / "facts.parquet").read_bytes(), len(server.requests)
    assert ask(work, folder=mix) == 0
    assert len(server.requests) == asked
    assert (tmp_path / "facts.parquet").read_bytes() == before


BAD = {
    "no_json": Says("I would rather not give numbers."),
    "not_as_asked": Says('{"turns": []}'),
    "out_of_range": Says(ratings(ONE, score=6)),
    "refused": Says(None, refusal="I cannot look at this."),
    "too_long": Says('{"turns": [{"reason": "a very', finish="length"),
    "not_taken": Fails(422),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_answer_is_a_verdict_that_is_counted_and_paid_for_once(
    reason, ask, server, tmp_path, capsys
):
    server.rules["sample 3"] = [BAD[reason]]
    assert ask() == 0
    assert f"{reason:<13}1" in capsys.readouterr().out
    line = facts(tmp_path).row(3, named=True)
    assert (line["verdict"], line["relevance"]) == (reason, None)
    assert facts(tmp_path)["verdict"].null_count() == SAMPLES - 1
    assert ask() == 0
    assert server.names.count("sample 3") == 1
    assert ask("again=true") == 0
    assert facts(tmp_path)["verdict"].null_count() == SAMPLES
    assert len(server.requests) == SAMPLES + 1


PASSING = {
    "429": Fails(429, retry_after="0.01"),
    "429 without a time": Fails(429),
    "500": Fails(500),
    "503 of a proxy": Fails(503, text="<html>busy</html>"),
    "200 without JSON": Fails(200, text="<html>hello</html>"),
    "200 without choices": Fails(200, text='{"choices": []}'),
    "cut": Fails(0),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again_and_nothing_is_paid_twice(kind, ask, server, tmp_path):
    server.rules["sample 5"] = [PASSING[kind], PASSING[kind]]
    assert ask() == 0
    assert server.names.count("sample 5") == 3
    assert set(server.paid.values()) == {1}
    assert [line["sent"] for line in lines(tmp_path) if line["id"].endswith("5")] == [3]
    assert facts(tmp_path)["verdict"].null_count() == SAMPLES


def test_a_silent_server_is_given_up_after_the_timeout(ask, server, tmp_path, capsys):
    server.rules["sample 5"] = [Fails(-1)] * 2
    assert ask("timeout=0.5", "retries=1") == 3
    told = capsys.readouterr().out
    assert "INCOMPLETE: 1 have no answer: no answer came (TimeoutError" in told
    assert len(facts(tmp_path)) == SAMPLES - 1
    asked = len(server.requests)
    assert ask() == 0  # that one alone
    assert server.names[asked:] == ["sample 5"]
    assert len(facts(tmp_path)) == SAMPLES


def test_a_server_that_fails_throughout_is_given_up_soon(ask, server, capsys):
    server.always = Fails(500)
    assert ask("retries=0", "concurrency=1") == 3
    assert 8 <= len(server.requests) <= 10
    told = capsys.readouterr().out
    assert f"INCOMPLETE: {SAMPLES} have no answer: the endpoint does not answer (status 500" in told


@pytest.mark.parametrize("budget", ["max_requests=5", "max_tokens=7000"])
def test_a_budget_is_never_exceeded_and_said_to_be_reached(budget, ask, server, tmp_path, capsys):
    assert ask(budget) == 3
    asked = len(server.requests)
    assert 0 < asked < SAMPLES
    assert asked == 5 or asked * 800 <= 7000
    name = budget.partition("=")[0]
    told = capsys.readouterr().out
    assert f"INCOMPLETE: {SAMPLES - asked} have no answer: {name} is reached." in told
    assert f"The same command goes on with a larger {name}." in told
    assert len(facts(tmp_path)) == asked
    assert ask(budget) == 3
    assert len(server.requests) == asked
    assert ask() == 0
    assert len(server.requests) == SAMPLES
    assert set(server.paid.values()) == {1}


def test_tries_again_count_against_the_budget(ask, server):
    server.rules["sample 0"] = [Fails(500)] * 2
    assert ask("max_requests=4", "concurrency=1") == 3
    assert server.names == ["sample 0"] * 3 + ["sample 1"]


def test_a_plan_states_requests_and_cost_and_asks_nothing(ask, server, tmp_path, capsys):
    prices = ("input_price=2", "output_price=10", "image_tokens=100")
    assert ask("plan=true", *prices, "json=true") == 0
    told = json.loads(capsys.readouterr().out)
    assert not server.requests
    assert not list(tmp_path.iterdir())
    needed = told["needed"]
    assert needed["requests"] == SAMPLES
    assert needed["output_tokens"] == SAMPLES * (64 + 160) + 160
    assert needed["input_tokens"] > SAMPLES * 100
    cost = (needed["input_tokens"] * 2 + needed["output_tokens"] * 10) / 1e6
    assert needed["cost"] == pytest.approx(cost)
    assert ask("max_requests=4") == 3
    capsys.readouterr()
    assert ask("plan=true", *prices, "json=true") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["needed"]["requests"] == SAMPLES - 4
    assert told["needed"]["input_tokens"] == pytest.approx(700 * (SAMPLES - 4), rel=0.02)
    assert told["cost"] == pytest.approx(4 * (700 * 2 + 100 * 10) / 1e6)
    assert len(server.requests) == 4


def test_a_key_goes_along_and_lies_nowhere(ask, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    assert ask("api_key=JUDGE_KEY") == 0
    assert {h["Authorization"] for _, _, h in server.requests} == {"Bearer sk-very-secret"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()
    told = capsys.readouterr()
    assert "very-secret" not in told.out + told.err


@pytest.mark.parametrize(
    ("always", "said"),
    [
        (Fails(401), "the endpoint answered 401: made to fail"),
        (Fails(404), "serves 'tiny'"),
        (Fails(307), "the endpoint answered 307"),
        (Fails(400), "the first 8 requests were refused, none was answered"),
    ],
)
def test_what_every_request_meets_is_a_mistake_that_keeps_nothing(
    always, said, ask, server, tmp_path, capsys
):
    server.always = always
    assert ask("concurrency=1") == 2
    assert said in capsys.readouterr().err
    assert not lines(tmp_path)
    server.always = None
    assert ask() == 0
    assert len(facts(tmp_path)) == SAMPLES


def test_a_killed_command_goes_on_where_it_was(python, server, to_judge, tmp_path):
    server.rules["sample 4"] = [Fails(-1)]
    command = words(to_judge / "out" / "mix", server.url, tmp_path, "concurrency=1")
    environment = {"no_proxy": "127.0.0.1"}
    child = python.start("-m", "pipelines", *command, environment=environment)
    assert server.waiting.wait(120), child.told()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(lines(tmp_path)) == 4
    (path,) = (tmp_path / "answers").glob("*/answers.jsonl")
    with path.open("ab") as file:
        file.write(b'{"content":"cut off by the ki')
    server.release.set()
    done = python.run("-m", "pipelines", *command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert server.names == [*NAMES[:5], *NAMES[4:]]
    assert set(server.paid.values()) == {1}
    assert len(facts(tmp_path)) == SAMPLES


def test_ctrl_c_keeps_what_was_answered(python, server, to_judge, tmp_path):
    server.rules["sample 4"] = [Fails(-1)]
    command = words(to_judge / "out" / "mix", server.url, tmp_path, "concurrency=1", "retries=0")
    child = python.start("-m", "pipelines", *command, environment={"no_proxy": "127.0.0.1"})
    assert server.waiting.wait(120), child.told()
    child.send_signal(signal.SIGINT)
    server.release.set()
    assert child.wait() == 130, child.told()
    assert [line["outcome"]["kind"] for line in lines(tmp_path)][:4] == ["Reply"] * 4
    assert set(server.paid.values()) == {1}


def test_two_commands_do_not_ask_for_the_same(ask, server, tmp_path, capsys):
    from pipelines.served.answers import opened_answers

    assert ask("max_requests=1") == 3
    (home,) = (tmp_path / "answers").iterdir()
    with opened_answers(home, {}):
        assert ask() == 2
    assert "another command is asking for these answers" in capsys.readouterr().err
    assert len(server.requests) == 1


def test_a_mixture_whose_samples_are_gone_is_a_mistake(ask, server, tmp_path, capsys):
    assert ask(f"work={tmp_path}/none") == 2
    assert "say work=DIR" in capsys.readouterr().err
    assert not server.requests


def test_missing_words_say_what_to_write(to_judge, capsys):
    folder = str(to_judge / "out" / "mix")
    for more, said in (
        ((), "prompt= is missing"),
        (("prompt=finevision",), "endpoint= is missing"),
        (("prompt=finevision", "endpoint=http://x/v1"), "model= is missing"),
        (("prompt=nosuch", "endpoint=http://x/v1", "model=m"), "Bundled: finevision"),
        (("prompt=finevision", "endpoint=x/v1", "model=m"), "expected an address"),
        (("prompt=finevision", "endpoint=http://a:b@x", "model=m"), "a user, a password"),
        (("prompt=finevision", "endpoint=http://x", "model=m", "api_key=sk-1"), "not the name"),
        (("prompt=finevision", "endpoint=http://x", "model=m", "api_key=NO_KEY"), "NO_KEY"),
        (("prompt=finevision", "endpoint=http://x", "model=m", "concurrency=0"), "1 or more"),
        (("prompt=finevision", "endpoint=http://x", "model=m", "max_request=1"), "max_requests"),
    ):
        assert main(["judge", folder, *more]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "sk-1" not in told
