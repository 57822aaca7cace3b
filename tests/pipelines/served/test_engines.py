"""Models that are run here: what waits goes together, one message where there is no engine."""

import json
import signal
import threading
from importlib.util import find_spec

import pytest

from pipelines.__main__ import main
from pipelines.served.batches import batches
from pipelines.served.endpoint import Reply, Unanswered
from pipelines.served.engines import model_name
from tests.pipelines.served.conftest import SAMPLES, words


def test_what_waits_goes_together_and_each_gets_its_own_reply():
    sizes, free, begun = [], threading.Event(), threading.Event()

    def worker(requests):
        sizes.append(len(requests))
        begun.set()
        free.wait(60)
        return [Reply(text=request["text"], finish="stop") for request in requests]

    got = {}
    with batches([worker], most=3) as (ask, stop):

        def asked(name):
            got[name] = ask({"text": name}, lambda: True)

        threads = [threading.Thread(target=asked, args=(str(n),)) for n in range(6)]
        threads[0].start()
        assert begun.wait(60)
        for thread in threads[1:]:
            thread.start()
        free.set()
        for thread in threads:
            thread.join()
        assert ask({}, lambda: False) == (Unanswered(why="stopped"), 0)  # a budget is reached
        stop()
        assert ask({}, lambda: True) == (Unanswered(why="stopped"), 0)
    assert {name: (reply.text, sent) for name, (reply, sent) in got.items()} == {
        str(n): (str(n), 1) for n in range(6)
    }
    assert sizes[0] == 1
    assert sum(sizes) == 6
    assert max(sizes) <= 3


def test_an_exception_of_a_worker_reaches_whoever_asked():
    def worker(requests):
        raise RuntimeError("no memory")

    with batches([worker], most=2) as (ask, _), pytest.raises(RuntimeError, match="no memory"):
        ask({}, lambda: True)


def test_a_folder_is_known_by_what_is_in_it(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "model" / "model.safetensors").write_bytes(b"x" * 100)
    names = [model_name(str(tmp_path / name / "model")) for name in ("one", "two")]
    assert names[0] == names[1]
    assert names[0].startswith("model@")
    (tmp_path / "two" / "model" / "model.safetensors").write_bytes(b"y" * 100)
    assert model_name(str(tmp_path / "two" / "model")) != names[0]
    assert model_name("ORG/NAME") == "ORG/NAME"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(
            ("engine=vllm", "model=a/b"), "vllm is not installed here",
            marks=pytest.mark.skipif(find_spec("vllm") is not None, reason="it is installed"),
        ),
        (("engine=transformers", "model=./nosuch"), "transformers does not load it"),
        (("engine=sglang", "model=a/b"), "expected endpoint, transformers, vllm"),
        (("engine=transformers", "model=a", "api_key=KEY"), "api_key= is not one of its words"),
        (("endpoint=http://x/v1", "model=a", "ray=auto"), "ray= is not one of its words"),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_be_had_is_one_message(more, said, to_judge, tmp_path, capsys):
    folder = str(to_judge / "out" / "mix")
    places = (f"work={to_judge}/out/work", f"answers={tmp_path}/answers")
    assert main(["judge", folder, "prompt=finevision", *places, *more]) == 2
    assert said in capsys.readouterr().err


def local_words(to_judge, tmp_path, *more):
    """`judge` without a server."""
    of_server = ("endpoint", "pause", "retries", "timeout")
    said = words(to_judge / "out" / "mix", "", tmp_path, *more)
    return [word for word in said if word.partition("=")[0] not in of_server]


@pytest.mark.slow
@pytest.mark.parametrize("ray", [(), ("ray=local", "gpus=0")])
def test_a_model_made_here_answers_each_question_once_though_the_command_is_killed(
    ray, checkpoint, python, to_judge, tmp_path
):
    small = tmp_path / "small.yaml"
    small.write_text(
        "name: small\nversion: 1\ninstructions: Rate it.\nscores: {worth: {min: 0, max: 1}}\n"
        "per: sample\noutput_tokens: 1\n"
    )
    command = local_words(
        to_judge, tmp_path, "engine=transformers", f"model={checkpoint}", f"prompt={small}",
        "concurrency=2", *ray,
    )  # fmt: skip
    child = python.start("-m", "pipelines", *command)
    answers = None
    while child.poll() is None:
        found = list((tmp_path / "answers").glob("*/answers.jsonl"))
        if found and found[0].read_bytes().count(b"\n") >= 3:
            answers = found[0]
            child.send_signal(signal.SIGKILL)
            break
        threading.Event().wait(0.05)
    child.wait()
    assert answers is not None, child.told()
    before = answers.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    assert 3 <= kept.count(b"\n") < SAMPLES
    done = python.run("-m", "pipelines", *command)
    assert done.returncode == 0, done.stderr
    after = answers.read_bytes()
    assert after.startswith(kept)
    lines = [json.loads(line) for line in after.splitlines()]
    assert len({line["content"] for line in lines}) == len(lines) == SAMPLES
    assert all(line["outcome"]["input_tokens"] > 0 for line in lines)
    assert f"{SAMPLES:,} without ratings" in done.stdout  # an untrained model writes no JSON
    again = python.run("-m", "pipelines", *command)
    assert again.returncode == 0
    assert answers.read_bytes() == after
