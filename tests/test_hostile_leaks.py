"""Nothing leaks: secrets planted in what is rejected, rewritten or a place are in no file."""

import re
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.engine.private import hidden, is_path
from pipelines.report.card import markdown_cell
from tests.building import build, words
from tests.pipelines.sources.making import png, write, write_lines

SECRETS = {
    "rejected by a rule": "pineapple-rejected",
    "rejected as a duplicate": "pineapple-duplicate",
    "an address that is rewritten": "anna.pineapple@corp-mail.de",
    "an address of a machine": "8.8.4.4",
    "not a whole row": "pineapple-defect",
}


def rows() -> list[dict]:
    def talk(question: str, answer: str) -> dict:
        turns = [("user", question), ("assistant", answer)]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    kept = [talk(f"What is {n} and {n}?", f"It is {2 * n}, as you see.") for n in range(12)]
    same = talk(f"Say {SECRETS['rejected as a duplicate']}.", "No.")
    return [
        *kept,
        talk(f"Say {SECRETS['rejected by a rule']}.", ""),
        talk("Who?", f"Write to {SECRETS['an address that is rewritten']} or to 8.8.4.4, please."),
        {"messages": [{"role": "pineapple-defect", "content": "It is one."}]},
        {"messages": SECRETS["not a whole row"]},
    ], same


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, Path]:
    """(a finished mixture, the folder that its data lay in)."""
    root = tmp_path_factory.mktemp("customer-acme")
    found, same = rows()
    kept_twice = [{"messages": [{"role": "user", "content": "Say it."}, *same["messages"][1:]]}]
    write_lines(root / "rows.jsonl", [*found, *kept_twice, *kept_twice])
    write(root / "small.png", png(4, 4))
    mixture = root / "m.yaml"
    mixture.write_text(
        "tokens: max\nval_fraction: 0\n"
        "description: Fetched from https://user:hunter2pineapple@host/x?token=pineappletoken\n"
        "filters: {empty_answer: {}, duplicate_sample: {}, personal_information: {mode: rewrite}}\n"
        f"components: {{talks: {{source: messages, data: {root}/rows.jsonl, ratio: 1}}}}\n"
    )
    return build(mixture, root, "report=true"), root


def test_no_file_that_push_would_upload_holds_a_secret(published):
    mix, root = published
    secrets = [*SECRETS.values(), "hunter2", "pineappletoken", str(root), root.name]
    files = [path for path in mix.rglob("*") if path.is_file()]
    assert {"README.md", "report.html", "recipe.json", "index.arrow"} <= {p.name for p in files}
    for path in files:
        for secret in secrets:
            assert secret.encode() not in path.read_bytes(), (path.name, secret)


def test_masks_are_addresses_that_are_nobodys(published):
    mix, _ = published
    shown = (mix / "report.html").read_text()
    assert "email@example.com" in shown
    assert "192.0.2.1" in shown


def test_what_was_rejected_is_looked_at_beside_the_mixture(published, capsys, tmp_path):
    mix, root = published
    page = tmp_path / "page.html"
    words = [str(mix), "--html", "full=true", f"work={root}/work", f"output={page}"]
    assert main(["show", *words]) == 0
    assert SECRETS["rejected by a rule"] in page.read_text()
    assert main(["show", str(mix), "rule=empty_answer", f"work={root}/work"]) == 0
    assert SECRETS["rejected by a rule"] in capsys.readouterr().out


def test_its_mixture_builds_it_again_here_and_says_what_to_name_elsewhere(
    published, tmp_path, monkeypatch, capsys
):
    mix, root = published
    build(mix / "mixture.yaml", root)
    assert "nothing to do" in capsys.readouterr().out
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert main(words(mix / "mixture.yaml", root)) == 2
    assert "components.NAME.data=PATH" in capsys.readouterr().err
    build(mix / "mixture.yaml", root, f"components.talks.data={root}/rows.jsonl")


def test_a_variable_of_the_environment_is_not_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_pineapplepineapplepineapple")
    file = tmp_path / "m.yaml"
    for line in ("description: ${oc.env:HF_TOKEN}", "name: x${oc.env:HF_TOKEN}"):
        file.write_text(f"{line}\ncomponents: {{a: {{source: messages, data: x, ratio: 1}}}}\n")
        assert main(["plan", f"mixture={file}"]) == 2
        said = capsys.readouterr()
        assert "Nothing is interpolated" in said.err
        assert "pineapple" not in said.err + said.out


def test_a_trainers_config_is_not_interpolated(tmp_path, monkeypatch):
    from trainer.config_file import load

    monkeypatch.setenv("HF_TOKEN", "hf_pineapplepineapplepineapple")
    file = tmp_path / "c.yaml"
    file.write_text("name: ${oc.env:HF_TOKEN}\n")
    with pytest.raises(ValueError, match="Nothing is interpolated"):
        load(str(file), {})
    with pytest.raises(ValueError, match="Nothing is interpolated"):
        load("tiny", {"track": "${oc.env:HF_TOKEN}"})


@pytest.mark.parametrize("path", ["/data/x.jsonl", "file:///data/x", "~/x", "~ann/x", "C:\\x\\y"])
def test_absolute_paths_are_hidden_wherever_they_stand(path):
    assert is_path(path)
    shown = hidden({"a": [{"data": path}], path: 1})
    assert path not in str(shown)
    assert hidden({"data": "./rows/*.jsonl", "n": 3}) == {"data": "./rows/*.jsonl", "n": 3}


HOSTILE = ["<a|b>", "a&b", "&lt;", "**b** _c_ `d`", "[x](javascript:y)", "<script>",
           "$x$ and $y$", "~~s~~", "# h", "![i](u)", "a\\|b", "http://evil.example",
           "www.evil.example"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_cards_escape_once(text):
    """As CommonMark reads the cell: nothing but text, and the text that it was."""
    import html

    cell = markdown_cell(text)
    for mark in "|<>":
        assert mark not in cell.replace("<span>&#36;</span>", "")
    unescaped = re.sub(
        r"\\([!-/:-@\[-`{-~])", r"\1", cell.replace("<span>", "").replace("</span>", "")
    )
    assert html.unescape(unescaped) == text
    assert not re.search(r"(?<!\\)[*_`\[\]~$#!]", re.sub(r"&#\d+;", "", cell))
    assert "://" not in cell
