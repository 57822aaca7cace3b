"""What is written for VLMEvalKit builds the right benchmark of it, from the same questions."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.overlay import ROOT, overlay, torchvision
from tests.trainer.evaluation.conftest import base64_png, write_tsv
from trainer.__main__ import main
from trainer.evaluation import vlmevalkit
from trainer.evaluation.benchmark import read


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MMMU_DEV_VAL", "MMMUDataset"),
        ("MMStar", "ImageMCQDataset"),
        ("AI2D_TEST", "ImageMCQDataset"),
        ("ScienceQA_TEST", "ImageMCQDataset"),
        ("MathVista_MINI", "MathVista"),
        ("OCRBench", "OCRBench"),
        ("POPE", "ImageYORNDataset"),
        ("DocVQA_VAL", "ImageVQADataset"),
        ("TextVQA_VAL", "ImageVQADataset"),
        ("COCO_VAL", "ImageCaptionDataset"),
    ],
)
def test_a_known_benchmark_has_the_class_that_words_and_scores_it(name: str, expected: str) -> None:
    assert vlmevalkit.entry(name) == {"class": expected, "dataset": name}


def test_videos_come_with_frames_and_named_settings_alone() -> None:
    video = vlmevalkit.entry("Video-MME")
    assert video == {"class": "VideoMME", "dataset": "Video-MME", "fps": 1.0}
    assert vlmevalkit.entry("MVBench") == {"class": "MVBench", "dataset": "MVBench", "nframe": 64}
    assert vlmevalkit.entry("Video-MME_64frame") == {}
    mega = vlmevalkit.entry("MEGABench")
    assert mega["subset_name"] == "core"
    for entry in vlmevalkit.known().values():
        if entry:  # VLMEvalKit refuses both
            assert not {"fps", "nframe"} <= set(entry)


def test_the_papers_benchmarks_can_all_be_run() -> None:
    entries = vlmevalkit.entries_of("paper, MMStar_MINI")
    assert len(entries) == 15
    assert {"Video-MME", "MMMU_DEV_VAL", "MMStar_MINI"} <= set(entries)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MMMU_DEV", "knows no benchmark 'MMMU_DEV'. Did you mean 'MMMU_DEV_VAL'"),
        ("MMMU_Pro_10c", "cannot run MMMU_Pro_10c from a file: its class takes no `dataset`"),
    ],
)
def test_what_it_cannot_run_is_told(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vlmevalkit.entries_of(name)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"image": "red", "A": "x", "B": "y", "answer": "A"}, "CustomMCQDataset"),
        ({"A": "x", "B": "y", "answer": "A"}, "CustomTextMCQDataset"),
        ({"image": "red", "answer": "Yes"}, "ImageYORNDataset"),
        ({"image": "red", "answer": "red"}, "CustomVQADataset"),
    ],
)
def test_questions_of_ones_own_have_a_class_that_shows_their_options(
    row: dict[str, str], expected: str, tmp_path: Path
) -> None:
    if "image" in row:
        row = row | {"image": base64_png("red", 1)}
    file = write_tsv(tmp_path / "mine.tsv", [{"index": "1", "question": "?", **row}])
    own = vlmevalkit.own_class(read(file))
    assert vlmevalkit.entry("mine", own_class=own) == {"class": expected, "dataset": "mine"}


def test_the_tsv_lies_where_vlmevalkit_looks_and_the_own_one_is_safe(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMUData", raising=False)
    out = tmp_path / "evaluations"
    root, told = vlmevalkit.place(bench, "colours", out)
    assert (root, told) == (out / "LMUData", "")
    assert (root / "colours.tsv").samefile(bench)  # nothing writes there: it is not known
    for _ in range(2):
        root, told = vlmevalkit.place(bench, "MMStar", out)
        placed = root / "MMStar.tsv"
        assert placed.read_bytes() == bench.read_bytes()
    placed.write_text("as VLMEvalKit writes over it")
    assert "red" in bench.read_text()
    vlmevalkit.place(bench, "MMStar", out)
    assert placed.read_bytes() == bench.read_bytes()
    bench.unlink()
    other = write_tsv(tmp_path / "other.tsv", [{"index": "1", "question": "?", "answer": "a"}])
    vlmevalkit.place(other, "colours", out)  # its link led nowhere any more
    assert (root / "colours.tsv").samefile(other)


def test_a_folder_of_the_users_is_used_and_nothing_in_it_replaced(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "LMUData"
    folder.mkdir()
    monkeypatch.setenv("LMUData", str(folder))
    assert vlmevalkit.place(bench, "MMStar", tmp_path / "out") == (folder, "")
    (folder / "mine.tsv").write_text("other questions")
    root, told = vlmevalkit.place(bench, "mine", tmp_path / "out")
    assert root == folder
    assert "VLMEvalKit reads the former" in told
    assert (folder / "mine.tsv").read_text() == "other questions"


def test_a_file_for_benchmarks_of_its_own_needs_no_questions(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(checkpoint), "vlmevalkit=MMStar,Video-MME"]) == 0
    file = checkpoint / "evaluations" / "MMStar+Video-MME.vlmevalkit.json"
    content = json.loads(file.read_text())
    assert set(content) == {"model", "data"}
    assert list(content["data"]) == ["MMStar", "Video-MME"]
    assert f"python run.py --config {file}" in capsys.readouterr().out


KIT = (
    "ms-vlmeval==0.0.20",  # VLMEvalKit's code, as PyPI has it
    "antlr4-python3-runtime==4.13.2", "distro", "jieba", "jiter", "json-repair",
    "latex2sympy2-extended", "levenshtein", "math-verify", "narwhals", "openai",
    "opencv-python-headless", "portalocker", "pylatexenc", "qwen-vl-utils", "rouge", "scikit-learn",
    "sniffio", "sty", "termcolor", "threadpoolctl", "timeout-decorator", "validators",
)  # fmt: skip
"""The package and what an import of it asks for."""
NEWER = {"MMLongBench_DOC": "MMLongBench"}
"""Classes that the package, older than the table, had for a benchmark."""


@pytest.fixture(scope="module")
def with_vlmevalkit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    """Runs with_vlmevalkit.py in a process that has VLMEvalKit; what it prints."""
    environment = overlay(tmp_path_factory.mktemp("kit"), torchvision(), *KIT)

    def run(*arguments: str, **variables: str) -> dict:
        script = str(Path(__file__).with_name("with_vlmevalkit.py"))
        done = subprocess.run(
            [sys.executable, script, *arguments], env=environment | variables, cwd=ROOT,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
def test_the_table_is_vlmevalkits_own(with_vlmevalkit: Callable[..., dict]) -> None:
    theirs = with_vlmevalkit("table")
    ours = vlmevalkit.known()
    assert len(theirs["benchmarks"]) > 500
    for name, (its_class, parameters) in theirs["benchmarks"].items():
        entry = ours[name]
        assert (entry is None) == ("dataset" not in parameters), name
        if entry is not None and name not in NEWER:
            assert entry["class"] == its_class
            assert set(entry) - {"class"} <= set(parameters), name  # it drops what it has not
    for name in theirs["settings"]:
        assert ours[name] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vlmevalkit_asks_a_checkpoint_the_questions_with_their_options(
    with_vlmevalkit: Callable[..., dict], checkpoint: Path, tmp_path: Path
) -> None:
    """Benchmarks by their own names, each in a TSV of two questions, and some of one's own."""
    chosen = {"A": "a cat", "B": "a dog"}
    kinds: dict[str, dict[str, str]] = {
        **dict.fromkeys(("MMMU_DEV_VAL", "MMStar", "AI2D_TEST", "ScienceQA_TEST", "mine"), chosen),
        "MathVista_MINI": {"question_type": "free_form", "answer_type": "text", "query": "Who?"},
        **{name: {} for name in ("DocVQA_VAL", "ChartQA_TEST", "TextVQA_VAL", "OCRBench", "mine2")},
    }
    out = tmp_path / "out"
    data: dict[str, dict] = {}
    for name, more in kinds.items():
        rows = [
            {"index": str(n), "image": base64_png("red", n), "question": f"Which, {n}?",
             "answer": "A" if "A" in more else "red", "category": "x", "split": "val", **more}
            for n in range(2)
        ]  # fmt: skip
        bench = write_tsv(tmp_path / f"{name}.tsv", rows)
        arguments = [str(checkpoint), f"bench={bench}", f"output={out}", "max_new_tokens=2"]
        assert main(["evaluate", *arguments]) == 0
        written = json.loads((out / f"{name}.vlmevalkit.json").read_text())
        data |= written["data"]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"model": written["model"], "data": data}))
    found = with_vlmevalkit("build", str(file), LMUData=str(out / "LMUData"))
    assert set(found) == set(kinds)
    for name, made in found.items():
        text = " ".join(part["value"] for part in made["messages"] if part["type"] == "text")
        assert made["questions"] == 2
        assert any(part["type"] == "image" for part in made["messages"])
        assert isinstance(made["said"], str)
        if "A" in kinds[name]:
            assert "A. a cat" in text
            assert "B. a dog" in text
            assert made["type"] == "MCQ"
        else:
            assert "Which, 0?" in text
            assert made["type"] == "VQA"
