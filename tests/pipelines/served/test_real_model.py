"""A real model behind a real server: a checkpoint trained here, run by `transformers`, rates the
samples; the command is killed in the middle and goes on.
"""

import base64
import signal
from collections import Counter
from typing import Any

import polars as pl
import pytest

from tests.chat_server import ChatServer, Fails, Says
from tests.pipelines.served.conftest import SAMPLES, words

KINDS = ("relevance", "image_correspondence", "visual_dependency", "formatting")


class ModelServer(ChatServer):
    """Answers are generated; where the request states a schema, only what fits it can be said, as
    servers with guided decoding do. After `pause_after` answers, one waits for `release`.
    """

    def __init__(self, folder: str, *, pause_after: int) -> None:
        from trainer.evaluation.answer import open_checkpoint

        super().__init__()
        self.pause_after = pause_after
        self.model, self.tokenizer, self.encoding, _ = open_checkpoint(folder, device="cpu")
        self.generated: Counter[str] = Counter()

    def reply(self, name: str, body: dict[str, Any]) -> Fails | Says:
        if len(self.requests) == self.pause_after + 1:
            return Fails(-1)
        self.generated[name] += 1
        return self.say(body)

    def say(self, body: dict[str, Any]) -> Says:
        import torch

        from trainer.evaluation.answer import Question, generation_mode, pixels_of, prompts

        parts = body["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        images = [base64.b64decode(url.partition(",")[2]) for url in urls]
        text = "".join(part.get("text", "") for part in parts)
        (prompt,) = prompts([Question(text=text, images=images)], self.encoding)
        ids = torch.from_numpy(prompt.ids)[None]
        start, guide = ids.shape[1], self.guide(body)
        most = 32 if guide is None else len(guide)
        with generation_mode(self.model), torch.no_grad():
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids),
                pixel_values=pixels_of(
                    [images], [prompt.grids], encoding=self.encoding, dtype=self.model.dtype
                ),
                max_new_tokens=most, do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id,
                prefix_allowed_tokens_fn=None
                if guide is None
                else lambda _, made: guide[min(len(made) - start, len(guide) - 1)],
            )  # fmt: skip
        return Says(self.tokenizer.decode(out[0, start:], skip_special_tokens=True))

    def guide(self, body: dict[str, Any]) -> list[list[int]] | None:
        """At each place, the tokens that fit the schema."""
        if "response_format" not in body:
            return None
        schema = body["response_format"]["json_schema"]["schema"]
        tokenizer = self.tokenizer
        ids = lambda text: tokenizer.encode(text, add_special_tokens=False)
        digits = [ids(str(n))[-1] for n in range(1, 6)]
        turns: list[list[int]] = [[one] for one in ids('{"turns": [')]
        for number in range(schema["properties"]["turns"]["minItems"]):
            turns += [[one] for one in ids((", " if number else "") + '{"reason": ""')]
            for kind in KINDS:
                turns += [[one] for one in ids(f', "{kind}": ')] + [digits]
            turns += [[one] for one in ids("}")]
        return [*turns, *([one] for one in ids("]}")), [tokenizer.eos_token_id]]


@pytest.mark.slow
def test_a_model_made_here_rates_every_sample_once_though_the_command_is_killed(
    checkpoint, python, to_judge, tmp_path
):
    with ModelServer(str(checkpoint), pause_after=5) as server:
        command = words(
            to_judge / "out" / "mix", server.url, tmp_path, "concurrency=1", "timeout=300"
        )
        environment = {"no_proxy": "127.0.0.1"}
        child = python.start("-m", "pipelines", *command, environment=environment)
        assert server.waiting.wait(250), child.told()
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert server.generated.total() == 5
        server.release.set()
        done = python.run("-m", "pipelines", *command, environment=environment)
        assert done.returncode == 0, done.stderr
        assert server.generated == Counter(f"sample {n}" for n in range(SAMPLES))
        found = pl.read_parquet(tmp_path / "facts.parquet")
        assert len(found) == SAMPLES
        assert found["verdict"].null_count() == SAMPLES
        assert all(found[kind].is_between(1, 5).all() for kind in KINDS)
        free = [*command, "structured=false", "component=made", "max_requests=2"]
        done = python.run("-m", "pipelines", *free, environment=environment)
        assert done.returncode == 3, done.stderr
        assert "2 without ratings" in done.stdout  # an untrained model writes no JSON
