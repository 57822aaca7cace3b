"""What a build needs is known before the first part is read: one message, exit status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.engine.ownership import claim_work
from pipelines.preconditions import require_writable
from tests.building import words
from tests.pipelines.reading.test_walk import open_path, without_rights  # noqa: F401
from tests.pipelines.sources.making import write, write_lines

TURNS = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
SMALL = "seq_len: 512, crop_size: 64, longest_edge: 128, tokens_per_crop: 16"


def mixture(folder: Path, *, encoding: str = "", more: str = "", component: str = "") -> Path:
    write_lines(folder / "rows.jsonl", [{"messages": TURNS}])
    text = f"val_fraction: 0\nencoding: {{{SMALL}{encoding}}}\n{more}components:\n"
    text += f"  x: {{source: messages, data: {folder}/rows.jsonl, ratio: 1{component}}}\n"
    return write(folder / "m.yaml", text)


def build(folder: Path, *more: str) -> int:
    return main(words(folder / "m.yaml", folder, *more))


def nothing_was_read(folder: Path) -> bool:
    return not list(folder.glob("work/samples/*/*.arrow"))


def test_a_tokenizer_that_is_not_there_or_is_damaged(tmp_path, capsys):
    write(tmp_path / "broken" / "tokenizer.json", '{"version": "1.0", "model": 7}')
    for tokenizer in (tmp_path / "nowhere", tmp_path / "broken"):
        mixture(tmp_path, encoding=f", tokenizer: {tokenizer}")
        assert build(tmp_path) == 2
        said = capsys.readouterr().err
        assert f"encoding.tokenizer: found no tokenizer at '{tokenizer}'" in said or (
            f"encoding.tokenizer: '{tokenizer}' cannot be read" in said
        )
        assert nothing_was_read(tmp_path)


def test_a_damaged_model_of_a_rule(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    model, tokens = tmp_path / "m.onnx", tmp_path / "tokenizer.json"
    write(model, b"\x08" + b"\xff" * 64)
    write(tokens, "{}")
    rule = f"high_perplexity: {{max_perplexity: 9, model: {model}, tokenizer: {tokens}}}"
    mixture(tmp_path, more=f"filters: {{{rule}}}\n")
    assert build(tmp_path) == 2
    said = capsys.readouterr().err
    assert "components.x.filters: a model cannot be read" in said
    assert str(model) in said
    assert nothing_was_read(tmp_path)


@pytest.mark.parametrize("key", ["output", "work"])
def test_a_folder_that_cannot_be_written(tmp_path, capsys, key):
    mixture(tmp_path)
    place = f"{tmp_path}/rows.jsonl/deeper"  # a file is in the way, whoever asks
    assert build(tmp_path, f"{key}={place}") == 2
    assert f"{key}={place}: cannot be written" in capsys.readouterr().err
    assert nothing_was_read(tmp_path)


def test_the_right_to_write_is_asked_for(open_path):  # noqa: F811
    locked = open_path / "locked"
    locked.mkdir(mode=0o555)
    with without_rights(), pytest.raises(ValueError, match=r"work=.*locked: cannot be .*denied"):
        require_writable(str(locked), key="work", claim=claim_work)


def test_again_with_its_own_output_beside_the_data_there_is_nothing_to_do(
    tmp_path, capsys, monkeypatch
):
    mixture(tmp_path)
    text = (tmp_path / "m.yaml").read_text().replace(f"{tmp_path}/rows.jsonl", ".")
    write(tmp_path / "m.yaml", text)
    monkeypatch.chdir(tmp_path)
    words = ["build", "mixture=m.yaml", "workers=0"]
    assert main(words) == 0
    recipe = json.loads((tmp_path / "out" / "m" / "recipe.json").read_text())
    write(tmp_path / "build.log", "done")
    (tmp_path / "rows.jsonl").rename(tmp_path / "renamed.jsonl")
    capsys.readouterr()
    assert main(words) == 0
    assert f"(recipe {recipe['fingerprint']}); nothing to do" in capsys.readouterr().out


def test_what_was_not_read_stands_in_the_card_and_at_the_end(tmp_path, capsys):
    mixture(tmp_path)
    text = (tmp_path / "m.yaml").read_text().replace("/rows.jsonl", "")
    write(tmp_path / "m.yaml", text.replace("messages,", "messages, licence: CC-BY-4.0,"))
    write(tmp_path / "tuesday.json", "[]")
    assert build(tmp_path) == 0
    assert "x: not read: tuesday.json" in " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "mix" / "README.md").read_text()
    assert "not read: tuesday.json" in card
    assert "license:\n- cc-by-4.0" in card
    assert "| CC-BY-4.0 |" in card
    assert main(["plan", f"mixture={tmp_path}/m.yaml"]) == 0
    assert "tuesday.json" in capsys.readouterr().out


NO_HOME = """
import os, pwd, sys
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from tokenization import machine
machine.settle()
import getpass
from pathlib import Path
assert getpass.getuser()
assert Path.home().is_dir()
assert machine.can_be_written(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")))
print(os.environ.get("HOME"), os.environ.get("XDG_CACHE_HOME"))
"""


@pytest.mark.parametrize("home", [None, "/nonexistent", "/proc"])
def test_a_user_without_a_home_gets_one_for_the_while(home):
    import os

    hidden = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME"}
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"HOME": home} if home else {}
    code = NO_HOME.replace("assert Path.home().is_dir()\n", "" if home else "\\g<0>")
    code = code.replace("\\g<0>", "assert Path.home().is_dir()\n")
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for folder in done.stdout.split():
        assert folder in (home, "None") or not Path(folder).exists()


def test_a_temporary_folder_too_long_for_ray_is_named(tmp_path, capsys, monkeypatch):
    long = tmp_path / ("scratch-of-the-night-" * 4)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    mixture(tmp_path)
    assert build(tmp_path, "workers=1") == 2
    said = capsys.readouterr().err
    assert f"TMPDIR={long}: too long for Ray" in said
    assert "RAY_TMPDIR=/tmp" in said


def test_a_medium_in_two_archives_read_in_order_ends_the_build_with_one_message(tmp_path, capsys):
    from tests.pipelines.sources.making import asked, png, tar

    for number in range(2):
        tar(tmp_path / "data" / f"{number}.tar.gz", [("a.png", png(seed=number))], "w:gz")
    write_lines(tmp_path / "data" / "rows.jsonl", [asked("<image>\nQ", image="a.png")])
    mixture(tmp_path)
    text = (tmp_path / "m.yaml").read_text().replace("messages", "llava")
    write(tmp_path / "m.yaml", text.replace("/rows.jsonl", "/data"))
    assert build(tmp_path) == 2
    assert (
        "1.tar.gz: 1 media, of row 0 for one, lie in an earlier archive" in capsys.readouterr().err
    )
