"""`trainer answers`: draws that depend on their key alone, and pairs that a mixture is built of."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import trainer
from pipelines.__main__ import main as pipelines_main
from tests.building import build
from tests.chat_server import ChatServer, Says, ratings
from tests.trainer.conftest import SMALL
from tests.trainer.shards import KINDS, document, pack, sample, write
from trainer.__main__ import main
from trainer.align import data
from trainer.align.answer_files import candidates
from trainer.config_file import load
from trainer.data.shards import open_mixture
from trainer.evaluation.answer import Prompt, open_checkpoint, replies
from trainer.evaluation.sampling import Drawing, key_of
from trainer.loop import train

WORDS = ["generations=3", "max_new_tokens=2", "threads=1", "device=cpu", "batch=6"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [sample(number, KINDS[number % len(KINDS)]) for number in range(10)]
    samples = [samples[0], *samples, *document("lone", [" A red square."])]
    folder = write(tmp_path_factory.mktemp("asked") / "toy", pack(samples))
    with pa.ipc.open_file(folder / "index.arrow") as reader:
        index = reader.read_all()
    videos = [each["id"] for each in samples if "/images/" in each["id"]]  # two frames of one each
    names, count = list(index["id"].to_pylist()), len(videos)
    more = {"id": videos, "source": ["toy"] * count, "subset": ["images"] * count,
            "component": ["images"] * count, "copies": [1] * count}  # fmt: skip
    index = pa.concat_tables([index, pa.table(more, schema=index.schema)])
    modality = ["image"] * len(names) + ["video"] * count
    index = index.append_column("modality", pa.array(modality))
    index = index.append_column("duration", pa.array([4.0] * index.num_rows))
    with pa.ipc.new_file(folder / "index.arrow", index.schema) as writer:
        writer.write_table(index)
    return folder


@pytest.fixture(scope="module")
def checkpoint(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("asked") / "run"
    return train(load("tiny", {**SMALL, "data": str(toy), "output": str(run), "steps": "1"}))


@pytest.fixture(scope="module")
def asked(checkpoint: Path, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of an untrained model, in whose place stand some that a trained one may give."""
    output = tmp_path_factory.mktemp("asked") / "answers"
    assert main(["answers", str(checkpoint), f"data={toy}", f"output={output}", *WORDS]) == 0
    for file in sorted((output / "sampled").glob("*.parquet")):
        lines = pq.read_table(file).to_pylist()
        for line in lines:
            if line["gold"] is None:
                continue
            number = int(line["id"].rpartition("/")[2])
            right, wrong = line["gold"], f"not {line['gold']}"
            texts = ([right, wrong, wrong], [right] * 3, [wrong] * 3, [right, wrong, ""])[
                number % 4
            ]
            line["answers"] = [{"text": t, "finished": True} for t in texts]
        pq.write_table(pa.Table.from_pylist(lines, schema=pq.read_schema(file)), file)
    assert main(["answers", str(checkpoint), f"data={toy}", f"output={output}", *WORDS]) == 0
    return output


def test_what_is_drawn_follows_the_softmax_and_each_row_its_own_key() -> None:
    scores = torch.log(torch.tensor([0.6, 0.3, 0.1]))
    keys = [key_of(1, "a", number) for number in range(3000)]
    drawn = Drawing(keys, temperature=1.0)(torch.zeros(3000, 1), scores.expand(3000, 3)).argmax(1)
    shares = torch.bincount(drawn, minlength=3) / 3000
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.03)  # three deviations
    cold = Drawing(keys, temperature=0.5)(torch.zeros(3000, 1), scores.expand(3000, 3)).argmax(1)
    expected = torch.tensor([0.36, 0.09, 0.01]) / 0.46
    assert torch.allclose(torch.bincount(cold, minlength=3) / 3000, expected, atol=0.03)
    alone = Drawing(keys[7:8], temperature=1.0)(torch.zeros(1, 1), scores.expand(1, 3)).argmax(1)
    assert alone[0] == drawn[7]


def test_answers_do_not_depend_on_what_is_asked_beside_them(checkpoint: Path, toy: Path) -> None:
    model, tokenizer, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    mixture = open_mixture(str(toy))
    tools = data.tools_of(mixture)
    ones = [one for one in data.sequences(mixture, "train") if data.answer_of(one)][:4]
    prompts = [
        Prompt(np.array(data.parted(one, data.answer_of(one), tools)[0]), one.grids) for one in ones
    ]
    settings = {"encoding": mixture.encoding, "max_new_tokens": 4}
    keys = [key_of(3, one.id, 0) for one in ones]
    together = replies(model, tokenizer, prompts, [one.images for one in ones], keys=keys,
                       batch_size=4, **settings)  # fmt: skip
    for number, one in enumerate(ones):
        alone = replies(model, tokenizer, prompts[number : number + 1], [one.images],
                        keys=keys[number : number + 1], batch_size=1, **settings)  # fmt: skip
        assert alone == [together[number]]
    other = replies(model, tokenizer, prompts, [one.images for one in ones], batch_size=4,
                    keys=[key_of(4, one.id, 0) for one in ones], **settings)  # fmt: skip
    assert other != together


def test_a_stopped_command_goes_on_and_ends_with_the_same_bytes(
    checkpoint: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.align import sampled as module

    command = ["answers", str(checkpoint), f"data={toy}", *WORDS, "limit=7"]
    monkeypatch.setattr(module, "CHUNK", 4)
    assert main([*command, f"output={tmp_path}/whole"]) == 0
    seen, true = [], module.log

    def stopping(line: str) -> None:
        true(line)
        seen.append(line)
        if len(seen) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "log", stopping)
    with pytest.raises(KeyboardInterrupt):
        trainer.answers(
            checkpoint, toy, output=tmp_path / "parts", generations=3, max_new_tokens=2,
            threads=1, device="cpu", batch=6, limit=7,
        )  # fmt: skip
    assert main([*command, f"output={tmp_path}/parts"]) == 0
    whole, parts = (
        {file.relative_to(tmp_path / name): file.read_bytes()
         for file in (tmp_path / name).rglob("*.*")}
        for name in ("whole", "parts")
    )  # fmt: skip
    assert whole == parts
    assert len([name for name in whole if name.parts[0] == "sampled"]) > 1
    assert pl.read_parquet(tmp_path / "whole" / "answers.parquet").height == 7
    assert main([*command, f"output={tmp_path}/parts", "seed=5"]) == 2


def test_every_sample_has_its_verdict_and_every_pair_a_right_answer(asked: Path) -> None:
    answers = {line["id"]: line for line in pl.read_parquet(asked / "answers.parquet").to_dicts()}
    assert len(answers) == 11
    verdicts = {0: None, 1: "all_right", 2: "all_wrong", 3: None}
    for name, line in answers.items():
        if name == "toy/documents/lone":
            assert line["verdict"] == "no_gold"
            continue
        number = int(name.rpartition("/")[2])
        assert line["verdict"] == verdicts[number % 4], name
        assert line["pass_rate"] == pytest.approx((1 / 3, 1.0, 0.0, 1 / 3)[number % 4])
    pairs = pl.read_parquet(asked / "pairs.parquet").to_dicts()
    seconds = {line["id"]: line["image_seconds"] for line in pairs}
    assert seconds["toy/images/000003"] == [0.0, 2.0]  # frames of a video stay frames
    assert seconds["toy/image/000000"] == [None]
    assert sorted(line["id"] for line in pairs) == sorted(
        name for name, line in answers.items() if line["verdict"] is None
    )
    for line in pairs:
        assert line["rejected"] == f"not {line['chosen']}" == f"not {answers[line['id']]['gold']}"
    counts = json.loads((asked / "answers.json").read_text())["components"]
    assert sum(about["pairs"] for about in counts.values()) == len(pairs) == 5
    assert sum(about["questions"] for about in counts.values()) == 11
    assert sum(about["all_right"] for about in counts.values()) == 3
    assert sum(about["all_wrong"] for about in counts.values()) == 2
    assert sum(about["no_gold"] for about in counts.values()) == 1


def test_another_rule_asks_nothing_again(asked: Path, checkpoint: Path, toy: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (asked / "sampled").iterdir()}
    words = [f"data={toy}", f"output={asked}", *WORDS]
    assert main(["answers", str(checkpoint), *words, "chosen=gold", "pairs=2"]) == 0
    pairs = pl.read_parquet(asked / "pairs.parquet")
    assert pairs.height == 7  # of those that are all wrong, too
    assert pairs["chosen_score"].null_count() == 7
    assert main(["answers", str(checkpoint), *words]) == 0
    assert pl.read_parquet(asked / "pairs.parquet").height == 5
    assert {file: file.stat().st_mtime_ns for file in (asked / "sampled").iterdir()} == before


def test_the_pairs_are_built_to_the_ids_that_were_asked_and_their_facts_are_of_use(
    asked: Path, checkpoint: Path, toy: Path, tmp_path: Path
) -> None:
    written = yaml.safe_load((asked / "pairs.yaml").read_text())
    (asked / "all.yaml").write_text(yaml.safe_dump({**written, "val_fraction": 0.0}))
    mixture = open_mixture(str(build(asked / "all.yaml", tmp_path)))
    tools = data.tools_of(mixture)
    made = [data.pair_of(one, tools) for one in data.sequences(mixture, "train")]
    assert len(made) == 5
    source = open_mixture(str(toy))
    prompts = {
        one.id: data.parted(one, data.answer_of(one), tools)
        for one in data.sequences(source, "train") if data.answer_of(one)
    }  # fmt: skip
    origin = pl.read_parquet(asked / "pairs.parquet")["id"].to_list()
    for pair in made:
        name = origin[int(pair["id"].rpartition("/")[2])]
        if "/images/" not in name:  # the toy's frames lack the time that a build says of each
            assert (pair["prompt_ids"], pair["chosen_ids"]) == prompts[name]
    # What it passes at times is a mixture for GRPO: of these pairs it knows none.
    output = tmp_path / "again"
    words = [f"data={mixture.folder}", f"output={output}", *WORDS]
    assert main(["answers", str(checkpoint), *words]) == 0
    facts = {"files": str(output / "answers.parquet"), "key": "__id__",
             "fields": {"pass_rate": "pass_rate"}}  # fmt: skip
    kept = {**written, "val_fraction": 0.0, "annotations": facts,
            "filters": {"out_of_bounds": {"facts": {"pass_rate": {"max": 0.9}}}}}  # fmt: skip
    (asked / "kept.yaml").write_text(yaml.safe_dump(kept))
    build(asked / "kept.yaml", tmp_path / "kept")
    stats = json.loads((tmp_path / "kept" / "mix" / "stats.json").read_text())
    assert stats["annotations"]["answers"]["missing"] == {}


class Rater(ChatServer):
    """Rates an answer 5 unless it says `not`."""

    def reply(self, name, body):
        text = "".join(part.get("text", "") for part in body["messages"][0]["content"])
        return Says(ratings(body, score=2 if "not " in text.rpartition("Answer 1:")[2] else 5))


def test_ratings_of_a_judge_make_pairs(
    asked: Path, checkpoint: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    command = ["answers", str(checkpoint), f"data={toy}", f"output={asked}", *WORDS]
    assert main([*command, "metric=none"]) == 0
    (rows,) = asked.glob("candidates-*.parquet")
    lines = [each for file in sorted((asked / "sampled").iterdir())
             for each in pq.read_table(file).to_pylist()]  # fmt: skip
    assert pl.read_parquet(rows).height == sum(len(candidates(line)) for line in lines)
    folder = build(asked / "candidates.yaml", tmp_path)
    with Rater() as server:
        judged = ["judge", str(folder), "prompt=finevision", f"endpoint={server.url}", "model=m",
                  f"work={tmp_path}/work", f"output={tmp_path}/rated.parquet"]  # fmt: skip
        assert pipelines_main(judged) == 0
    command.append(f"ratings={tmp_path}/rated.parquet")
    assert main(command) == 2  # what is a good one?
    assert main([*command, "rating=relevance", "right=4"]) == 0
    pairs = pl.read_parquet(asked / "pairs.parquet")
    images = [line["id"] for line in lines if "/image" in line["id"]]
    wanted = [name for name in images if int(name.rpartition("/")[2]) % 4 in (0, 3)]
    assert sorted(pairs["id"]) == sorted(wanted)  # texts alone were not shown to the judge
    assert pairs["chosen_score"].to_list() == [5.0] * len(wanted)
    assert pairs["rejected"].str.starts_with("not ").all()
    assert main([*command, "rating=relevant", "right=4"]) == 2
    other = pl.read_parquet(tmp_path / "rated.parquet").with_columns(
        id=pl.lit("messages/candidates/000099")
    )
    other.write_parquet(tmp_path / "rated.parquet")
    assert main([*command, "rating=relevance", "right=4"]) == 2  # it is of other candidates


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a checkpoint"),
        (["{run}"], "data is not set"),
        (["{run}", "data={data}", "generation=3"], "Did you mean 'generations'?"),
        (["{run}", "data={data}", "temperature=0"], "expected a number above 0"),
        (["{run}", "data={data}", "generations=none"], "expected a whole number, 1 or more"),
        (["{run}", "data={data}", "metric=exakt"], "Did you mean 'exact'?"),
        (["{run}", "data={data}", "component=image"], "Did you mean 'images'?"),
        (["{run}", "data={data}", "right=much"], "right=much: expected a number"),
        (["{run}", "data={data}", "output={data}"], "is not empty and holds no answers"),
        (["{run}", "data={data}", "ratings=no.parquet", "rating=a", "right=1"], "no such file"),
    ],
)
def test_mistakes_are_one_message(checkpoint, toy, tmp_path, words, message, capsys) -> None:
    words = [word.format(run=checkpoint, data=toy) for word in words]
    if not any(word.startswith("output=") for word in words) and len(words) > 1:
        words.append(f"output={tmp_path}/out")
    assert main(["answers", *words, *(["max_new_tokens=1"] if len(words) > 1 else [])]) == 2
    assert message in capsys.readouterr().err
