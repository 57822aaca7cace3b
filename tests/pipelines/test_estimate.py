"""The plan says what is measured and what recorded, and runs nothing."""

import gzip
import json
from types import SimpleNamespace

from pipelines.__main__ import main
from pipelines.estimate import training_of
from tests.building import digests, words


def test_a_cached_mixture_is_planned_from_what_was_measured(world, mix, capsys):
    before = digests(mix.parent)
    words = [f"mixture={world}", f"work={mix}/../work", f"output={mix}"]
    assert main(["plan", *words]) == 0
    said = capsys.readouterr().out
    assert said.count("measured") == 2
    assert "would run     0 of 3 parts" in said
    assert all(len(line) <= 100 for line in said.splitlines()[1:])  # the first names a folder
    assert digests(mix.parent) == before


def test_what_was_never_read_says_so(world, tmp_path, capsys):
    words = [f"mixture={world}", f"work={tmp_path}/work", f"output={tmp_path}/mix"]
    assert main(["plan", *words]) == 0
    said = capsys.readouterr().out
    assert "a build measures it" in said
    assert "can be finished: not known yet" in said
    assert "would run     3 of 3 parts" in said
    assert list(tmp_path.iterdir()) == []


def test_the_flagship_is_planned_from_recorded_sizes_without_network(capsys, tmp_path):
    assert main(["plan", "mixture=sft_v2", f"output={tmp_path}/x"]) == 0
    said = capsys.readouterr().out
    assert "recorded" in said
    assert "text 14.00 % (" in said
    assert all(len(line) <= 100 for line in said.splitlines())
    assert "FLOPs" in said


def test_a_forbidden_licence_is_refused_before_anything_runs(world, tmp_path, capsys):
    assert main(words(world, tmp_path, "licenses.forbid=[Apache-2.0]")) == 2
    said = capsys.readouterr().err
    assert "text (Apache-2.0" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_read_whole_or_not_at_all_is_named_with_its_size(tmp_path, capsys):
    text = "".join(json.dumps({"text": f"One of {n}."}) + "\n" for n in range(2000)).encode()
    packed = tmp_path / "data/train.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(text))
    plain = tmp_path / "plain/train.jsonl"
    plain.parent.mkdir()
    plain.write_bytes(text)
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"""
tokens: 1000
components:
  packed: {{source: documents, data: {tmp_path}/data, ratio: 0.5}}
  plain: {{source: documents, data: {tmp_path}/plain, ratio: 0.5}}
"""
    )
    words = ["plan", f"mixture={file}", f"output={tmp_path}/x", f"work={tmp_path}/w"]
    assert main(words) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "read whole" in line]
    assert len(said) == 1
    assert "packed: train.jsonl.gz (" in said[0]
    assert "kB, compressed lines) is read whole" in said[0]
    assert main([*words, "read=all"]) == 0
    assert "read whole" not in capsys.readouterr().out


def test_costs_are_of_the_models_whose_crops_the_mixture_has():
    expected = {"tokens": 1e9, "samples": 1e6, "crops": 1e6}
    of_crops = {
        (512, 64): ["256M", "500M"],
        (384, 81): ["2.2B"],
        (64, 16): [],
    }
    for (size, tokens), names in of_crops.items():
        encoding = SimpleNamespace(crop_size=size, tokens_per_crop=tokens)
        asked = SimpleNamespace(encoding=encoding)
        found = training_of(expected, asked, gpu="H100", mfu=0.3)
        assert found["model"].to_list() == names


def test_what_was_never_read_is_unknown_and_not_nothing(world, tmp_path, capsys):
    assert main(["plan", f"mixture={world}", f"work={tmp_path}/w", f"output={tmp_path}/o"]) == 0
    said = capsys.readouterr().out
    unread = [line for line in said.splitlines() if line.endswith("not recorde")]
    assert unread
    for line in unread:
        words = line.replace(" %", "").split()
        assert [words[2], words[4], words[6]] == ["unknown"] * 3
