"""`rewrite`: other texts for samples, paid for once, and what a mixture makes of them."""

import json
from functools import partial

import polars as pl
import pytest

from pipelines.__main__ import main
from tests.building import build, digests
from tests.building import words as build_words
from tests.chat_server import Says, texts
from tests.pipelines.served.conftest import SAMPLES
from tests.pipelines.sources.making import write


@pytest.fixture
def rewrite(ask, tmp_path):
    """Runs `rewrite prompt=longer` into a table of the test's own; returns the exit status."""
    usual = {"prompt": "longer", "output": f"{tmp_path}/texts.parquet"}

    def ran(*more: str, **others) -> int:
        said = {word.partition("=")[0] for word in more}
        rest = (f"{key}={value}" for key, value in usual.items() if key not in said)
        return ask(*rest, *more, command="rewrite", **others)

    return ran


@pytest.fixture
def using(to_judge, tmp_path):
    """Builds the mixture with more lines in its YAML, its cache that of the others."""
    work = f"work={to_judge}/out/work"

    def built(more: str, *, name: str = "used"):
        text = (to_judge / "mix.yaml").read_text().replace("./rows", f"{to_judge}/rows")
        write(tmp_path / f"{name}.yaml", text + more)
        return build(tmp_path / f"{name}.yaml", tmp_path / name, work)

    return built


def table(tmp_path):
    return pl.read_parquet(tmp_path / "texts.parquet")


def index_of(mix):
    return pl.read_ipc(mix / "index.arrow").with_columns(pl.col("rule").cast(pl.String))


def told(mix, capsys, *more: str) -> str:
    capsys.readouterr()
    assert main(["show", str(mix), *more]) == 0
    return capsys.readouterr().out


def test_every_answer_is_written_anew_and_the_old_one_stays_beside_it(rewrite, server, tmp_path):
    assert rewrite() == 0
    found = table(tmp_path)
    assert len(found) == SAMPLES + 1  # texts alone, too: the prompt says images are optional
    first, last = found.row(0, named=True), found.row(SAMPLES - 1, named=True)
    assert first["turns"] == [{"question": None, "answer": "The answer 1, anew."}]
    assert first["original"] == [{"question": "What shows sample 0?", "answer": "Cells 0."}]
    assert [turn["answer"] for turn in last["turns"]] == [
        "The answer 1, anew.", "The answer 2, anew.",
    ]  # fmt: skip
    before, asked = (tmp_path / "texts.parquet").read_bytes(), len(server.requests)
    assert rewrite() == 0
    assert len(server.requests) == asked
    assert (tmp_path / "texts.parquet").read_bytes() == before


def test_what_is_written_is_learned_in_place_of_what_was_read(
    rewrite, using, to_judge, tmp_path, capsys
):
    assert rewrite("component=made") == 0
    mix = using(f"rewrites: [{tmp_path}/texts.parquet]\n")
    index = index_of(mix)
    assert index["tags"].list.contains("rewritten:longer").all()
    plain = index_of(to_judge / "out" / "mix")
    assert (index["num_learned"] != plain["num_learned"]).any()
    sample = index["id"][0]
    story = told(mix, capsys, f"id={sample}", f"work={to_judge}/out/work")
    assert "The answer 1, anew." in story
    assert "Cells 0." in story  # as it was read
    assert "rewritten:longer" in story
    card = (mix / "README.md").read_text()
    assert "| texts | longer version 1 | tiny | endpoint | made | 15 | 15 | none | 0 |" in card
    assert "| made | longer | 15 | 15 | none |" in card
    assert main(["check", str(mix)]) == 0


def test_texts_that_are_not_there_or_of_other_words_are_counted_and_left_as_they_are(
    rewrite, using, server, tmp_path
):
    server.rules["sample 3"] = [Says("I had rather not.")]
    assert rewrite() == 0
    found = table(tmp_path)
    other = [{"question": "What shows sample 5?", "answer": "Something else."}]
    changed = found.with_columns(
        original=pl.when(pl.col("id").str.ends_with("/000005"))
        .then(pl.lit(other, found.schema["original"]))
        .otherwise("original")
    ).filter(~pl.col("id").str.ends_with("/000007"))
    changed.write_parquet(tmp_path / "texts.parquet")
    mix = using(f"rewrites: [{tmp_path}/texts.parquet]\n")
    stats = json.loads((mix / "stats.json").read_text())
    (about,) = stats["models"]
    assert about["name"] == "texts"  # the file's own name: who made it is no longer said
    assert about["samples"] == {
        "made": {
            "read": SAMPLES + 1,
            "got": SAMPLES + 1 - 3,
            "without": {
                "no_json": 1, "not in the file": 1, "other texts were rewritten": 1,
            },
        }
    }  # fmt: skip
    index = index_of(mix)
    plain = index.filter(pl.col("tags").list.len() == 0)["id"].str.slice(-1).to_list()
    assert sorted(plain) == ["3", "5", "7"]


def test_what_was_rewritten_passes_the_rules_again(rewrite, using, server, tmp_path):
    server.rules["sample 2"] = [Says(json.dumps({"turns": [{"answer": "!"}]}))]
    assert rewrite() == 0
    rules = "filters: {punctuation_answer: {}, leaked_system_text: {patterns: ['Cells 4']}}\n"
    before = index_of(using(rules, name="before"))
    assert before.filter(pl.col("rule").is_not_null()).select("id", "rule").rows() == [
        ("cauldron/default/000004", "leaked_system_text")
    ]
    index = index_of(using(f"rewrites: [{tmp_path}/texts.parquet]\n{rules}"))
    assert index.filter(pl.col("rule").is_not_null()).select("id", "rule").rows() == [
        ("cauldron/default/000002", "punctuation_answer")
    ]


def test_nothing_is_read_again_for_texts_and_another_table_is_another_mixture(
    rewrite, using, server, to_judge, tmp_path, capsys
):
    assert rewrite() == 0
    samples = set((to_judge / "out" / "work" / "samples").rglob("*"))
    line = f"rewrites: [{tmp_path}/texts.parquet]\n"
    mix = using(line)
    made = digests(mix)
    assert set((to_judge / "out" / "work" / "samples").rglob("*")) == samples
    (tmp_path / "texts.parquet").rename(tmp_path / "moved.parquet")
    again = using(line.replace("texts", "moved"), name="moved")
    recipes = [json.loads((each / "recipe.json").read_text()) for each in (mix, again)]
    assert recipes[0]["fingerprint"] == recipes[1]["fingerprint"]
    assert made.keys() == digests(again).keys()
    same = [name for name in made if name.startswith(("shards/", "index"))]
    assert {name: made[name] for name in same} == {name: digests(again)[name] for name in same}
    server.rules["sample 1"] = [Says(json.dumps({"turns": [{"answer": "Another."}]}))]
    assert rewrite("model=other", f"output={tmp_path}/moved.parquet") == 0
    command = build_words(tmp_path / "moved.yaml", tmp_path / "moved", f"work={to_judge}/out/work")
    assert main(command) == 2
    assert "revised: was" in capsys.readouterr().err


def test_questions_take_the_place_of_a_caption_and_all_images_come_first(
    rewrite, using, to_judge, tmp_path, capsys
):
    assert rewrite("prompt=questions") == 0
    found = table(tmp_path)
    assert len(found) == SAMPLES  # with an image
    assert found["turns"].list.len().unique().to_list() == [2]
    mix = using(f"rewrites: [{tmp_path}/texts.parquet]\n")
    last = f"cauldron/default/{SAMPLES - 1:06d}"
    story = told(mix, capsys, f"id={last}", f"work={to_judge}/out/work")
    packed, _, before = story.partition("as it was read")
    assert packed.count("[image ") == 1
    assert packed.index("[image ") < packed.index("The question 1, anew.")
    assert packed.index("The answer 1, anew.") < packed.index("The question 2, anew.")
    assert "And what else?" not in packed
    assert "And what else?" in before
    index = index_of(mix)
    assert index["tags"].list.contains("rewritten:questions").sum() == SAMPLES


def test_a_second_language_is_asked_for_by_name_and_may_follow_another_prompt(
    rewrite, using, server, tmp_path, to_judge, capsys
):
    assert rewrite("prompt=translate") == 2
    assert "language= is missing" in capsys.readouterr().err
    assert rewrite("language=German") == 2
    assert "language= is not asked for" in capsys.readouterr().err
    assert rewrite() == 0
    mix = using(f"rewrites: [{tmp_path}/texts.parquet]\n", name="first")
    server.say = partial(texts, said="auf Deutsch")
    more = ("prompt=translate", "language=German", f"output={tmp_path}/german.parquet")
    work = f"work={to_judge}/out/work"
    assert rewrite(*more, "texts=mixture", work, folder=mix) == 0
    asked = "".join(
        part.get("text", "") for part in server.requests[-1][1]["messages"][0]["content"]
    )
    assert "in German, as somebody" in asked
    assert "anew." in asked
    both = using(f"rewrites: [{tmp_path}/texts.parquet, {tmp_path}/german.parquet]\n")
    index = index_of(both)
    assert set(index["tags"].to_list()[0]) == {"rewritten:longer", "rewritten:translate-german"}
    story = told(both, capsys, f"id={index['id'][0]}", work)
    assert "The question 1, auf Deutsch." in story.partition("as it was read")[0]
    assert "Cells 0." in story.partition("as it was read")[2]
    count = len(server.requests)
    assert rewrite("texts=mixture", work, folder=mix) == 2
    assert "has rewritten them by the prompt longer already" in capsys.readouterr().err
    assert rewrite(work, folder=mix) == 0  # of the texts as they were read: all known
    assert len(server.requests) == count


def test_a_judge_sees_what_was_rewritten(rewrite, ask, using, server, tmp_path, to_judge):
    assert rewrite() == 0
    mix = using(f"rewrites: [{tmp_path}/texts.parquet]\n")
    server.requests.clear()
    assert ask(f"work={to_judge}/out/work", folder=mix) == 0
    for _, body, _ in server.requests:
        text = "".join(part.get("text", "") for part in body["messages"][0]["content"])
        assert "Cells" not in text
        assert "The answer 1, anew." in text


LICENCES = {
    "forbid: [CC-BY-NC-4.0]": "refuses the texts of made (rewritten by tiny: CC-BY-NC-4.0",
    "allow: [per-subset-licences]": "refuses the texts of made",
    "forbid: [no-competitors]": "no-competitors",
}


def test_the_licence_of_the_outputs_is_checked_and_stated(
    rewrite, using, server, tmp_path, to_judge, capsys
):
    stated = ("licence=CC-BY-NC-4.0", "terms=no-competitors,no-redistribution")
    assert rewrite() == 0
    assert rewrite(*stated) == 0
    assert len(server.requests) == SAMPLES + 1  # stating a licence asks nothing
    line = f"rewrites: [{tmp_path}/texts.parquet]\n"
    mix = using(line)
    card = (mix / "README.md").read_text()
    assert "CC-BY-NC-4.0, no-competitors, no-redistribution" in card
    assert "cc-by-nc-4.0" in card.partition("\n---\n")[0]
    for licences, said in LICENCES.items():
        text = (tmp_path / "used.yaml").read_text() + f"licenses: {{{licences}}}\n"
        write(tmp_path / "refused.yaml", text)
        work = f"work={to_judge}/out/work"
        assert main(build_words(tmp_path / "refused.yaml", tmp_path / "refused", work)) == 2
        assert said in capsys.readouterr().err
    assert main(["push", str(mix), "repo=a/b"]) == 2
    assert "made (rewritten by tiny: no-redistribution)" in capsys.readouterr().err


def test_ratings_of_single_turns_reach_the_rule_about_them(
    ask, using, server, tmp_path, to_judge, capsys
):
    good = {"relevance": 5, "image_correspondence": 5, "visual_dependency": 5, "formatting": 5}
    turns = [{"reason": "", **good}, {"reason": "", **good, "relevance": 1}]
    server.rules[f"sample {SAMPLES - 1}"] = [Says(json.dumps({"turns": turns}))]
    assert ask() == 0
    facts = f"annotations: {{files: {tmp_path}/facts.parquet, key: __id__, ratings: true}}\n"
    mix = using(f"{facts}filters: {{low_rating: {{min_relevance: 3, mode: rewrite}}}}\n")
    index = index_of(mix)
    rules = dict(index.select(pl.col("id").str.slice(-6).str.to_integer(), "rule").iter_rows())
    assert rules[SAMPLES - 1] is None
    for n in range(SAMPLES - 1):
        assert rules[n] == ("low_rating" if n % 5 + 1 < 3 else None)
    assert rules[SAMPLES] is None  # without an image it was not rated
    last = f"cauldron/default/{SAMPLES - 1:06d}"
    story = told(mix, capsys, f"id={last}", f"work={to_judge}/out/work")
    assert "Cells 13." in story
    assert "Nothing else." not in story
    (about,) = json.loads((mix / "stats.json").read_text())["models"]
    assert about["samples"]["made"] == {
        "read": SAMPLES + 1, "got": SAMPLES, "without": {"not in the file": 1},
    }  # fmt: skip


def test_ratings_of_texts_before_they_were_rewritten_are_not_those_after(
    ask, rewrite, using, tmp_path, to_judge
):
    assert ask() == 0
    assert rewrite() == 0
    facts = f"annotations: {{files: {tmp_path}/facts.parquet, key: __id__, ratings: true}}\n"
    texts = f"rewrites: [{tmp_path}/texts.parquet]\n"
    rule = "filters: {low_rating: {min_relevance: 3}}\n"
    both = using(texts + facts + rule)
    assert not index_of(both).filter(rule="low_rating").height
    of = {one["command"]: one["samples"]["made"]
          for one in json.loads((both / "stats.json").read_text())["models"]}  # fmt: skip
    assert of["judge"]["got"] == 0
    assert of["rewrite"]["got"] == SAMPLES + 1
    assert of["judge"]["without"] == {"other texts were rated": SAMPLES, "not in the file": 1}
    told_of = using(texts, name="told")
    assert ask(f"work={to_judge}/out/work", folder=told_of) == 0
    again = using(texts + facts + rule, name="again")
    assert index_of(again).filter(rule="low_rating").height


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rewrites: [none.parquet]", "there is no file none.parquet"),
        ("rewrites: [here.parquet]", "has no column 'verdict', but id, x"),
        ("rewrites: [broken.parquet]", "not a readable Parquet file"),
        (
            "annotations: {files: here.parquet, key: __id__, ratings: true}",
            "no column 'turns'",
        ),
        ("annotations: {files: here.parquet, key: x, ratings: true}", "key: __id__"),
    ],
)
def test_a_table_that_is_none_is_a_mistake(line, said, to_judge, tmp_path, capsys):
    pl.DataFrame({"id": ["a"], "x": [1]}).write_parquet(tmp_path / "here.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    text = (to_judge / "mix.yaml").read_text().replace("./rows", f"{to_judge}/rows")
    write(tmp_path / "wrong.yaml", f"{text}{line}\n")
    work = f"work={to_judge}/out/work"
    assert main(build_words(tmp_path / "wrong.yaml", tmp_path / "out", work)) == 2
    assert said in capsys.readouterr().err


def test_a_prompt_of_one_command_is_no_prompt_of_the_other(rewrite, ask, capsys):
    assert rewrite("prompt=finevision") == 2
    assert "it is one of `judge`" in capsys.readouterr().err
    assert ask("prompt=longer") == 2
    assert "it is one of `rewrite`" in capsys.readouterr().err
    assert rewrite("prompt=nosuch") == 2
    assert "Bundled: longer, questions, recaption" in capsys.readouterr().err
