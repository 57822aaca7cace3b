"""The file by which VLMEvalKit judges a checkpoint: the right classes, the TSV in its place.

`run.py --config FILE` builds what the file names by class, and a class both words the question
(options and all) and scores the answer; so the class is the one VLMEvalKit itself takes for a
name. Names and classes: vlmevalkit.csv, of https://github.com/open-compass/VLMEvalKit at e8e78f0;
tests/trainer/evaluation/test_vlmevalkit.py compares it with the package.

| benchmark                      | what is written for it                                         |
|--------------------------------|----------------------------------------------------------------|
| a name VLMEvalKit knows        | its class; for videos the frames a SmolVLM2 is shown (`fps=1`) |
| a setting it has a name for    | nothing but that name, say `Video-MME_64frame`                 |
| a TSV of one's own             | the class that words and scores such questions                 |
"""

import csv
import filecmp
import json
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from trainer.arguments import did_you_mean
from trainer.evaluation.benchmark import Case, default_metric

TABLE = Path(__file__).with_name("vlmevalkit.csv")
PAPER = (
    "OCRBench", "AI2D_TEST", "ChartQA_TEST", "TextVQA_VAL", "DocVQA_VAL", "ScienceQA_TEST",
    "MMMU_DEV_VAL", "MathVista_MINI", "MMStar", "Video-MME", "MLVU_MCQ", "MVBench_MP4",
    "WorldSense", "TempCompass",
)  # fmt: skip
"""The 14 benchmarks of SmolVLM's table 1 (arXiv 2504.05299) by VLMEvalKit's names."""


@cache
def known() -> dict[str, dict[str, Any] | None]:
    """Per name what builds that benchmark; {} for a named setting, None where no file can.

    Of what a file says VLMEvalKit drops the arguments that a class does not name. One that names
    not even `dataset` (`-` in the table) would silently run another benchmark.
    """
    found: dict[str, dict[str, Any] | None] = {}
    with TABLE.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name in row["benchmarks"].split():
                if row["arguments"] == "-":
                    found[name] = None
                    continue
                given = dict(each.split("=") for each in row["arguments"].split())
                values = {key: _value(text) for key, text in given.items()}
                found[name] = (
                    {"class": row["class"], "dataset": name, **values} if row["class"] else {}
                )
    return found


def _value(text: str) -> Any:
    """A number, true or a text."""
    if text == "True":
        return True
    number = text.replace(".", "", 1).isdigit()
    return (float(text) if "." in text else int(text)) if number else text


def entry(name: str, *, own_class: str = "") -> dict[str, Any]:
    """What builds the benchmark `name`; a TSV of one's own, by that name, with `own_class`.

    ValueError where VLMEvalKit does not know it, or cannot build it from a file.
    """
    found = known().get(name, {"class": own_class, "dataset": name})
    if found is None:
        raise ValueError(
            f"VLMEvalKit cannot run {name} from a file: its class takes no `dataset` there and "
            "would run another benchmark.\nway out: enter the checkpoint in `supported_VLM` of its "
            f"vlmeval/config.py and give run.py --data {name}."
        )
    if found.get("class") == "":
        raise ValueError(
            f"VLMEvalKit knows no benchmark '{name}'. {did_you_mean(name, list(known()))}"
        )
    return found


def own_class(cases: Sequence[Case]) -> str:
    """The class for a TSV of one's own with these questions.

    `CustomVQADataset` has no score; the class of the VQA benchmarks would give every answer 0,
    since its formula wants the answers of several people.
    """
    if any(case.options for case in cases):
        shows = any(case.question.images for case in cases)
        return "CustomMCQDataset" if shows else "CustomTextMCQDataset"
    return "ImageYORNDataset" if default_metric(cases) == "yes_no" else "CustomVQADataset"


def label_of(folder: Path) -> str:
    """What a checkpoint is called beside others: its run and its step."""
    folder = folder.resolve()
    return f"{folder.parent.name}-{folder.name}"


def write(
    folder: Path, benchmarks: dict[str, dict[str, Any]], file: Path, *, root: Path | None
) -> str:
    """`file` is what `run.py --config` reads (docs/en/ConfigSystem.md there); how to call it.

    `root`: from where it is to read TSVs, where that is not its own choice.
    """
    model = {"class": "SmolVLM2", "model_path": str(folder.resolve())}
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": {label_of(folder): model}, "data": benchmarks}
    file.write_text(json.dumps(content, indent=2) + "\n")
    return f"VLMEvalKit: {f'LMUData={root} ' if root else ''}python run.py --config {file}"


def entries_of(names: str) -> dict[str, dict[str, Any]]:
    """What builds the benchmarks of a comma-separated list; `paper` is those of SmolVLM's paper."""
    found: dict[str, dict[str, Any]] = {}
    for name in (each.strip() for each in names.split(",")):
        found |= {each: entry(each) for each in (PAPER if name == "paper" else (name,))}
    return found


def place(file: Path, name: str, beside: Path) -> tuple[Path, str]:
    """(the folder from which VLMEvalKit shall read TSVs, what the user has to know or "").

    That is $LMUData where there is such a folder, else `beside`/LMUData. A benchmark that
    VLMEvalKit knows is copied, never linked: where the checksum is not the one it expects, it
    writes its own over the file.
    """
    given = os.environ.get("LMUData", "")  # noqa: SIM112, its name
    folder = Path(given) if given and Path(given).is_dir() else beside / "LMUData"
    target = folder / f"{name}.tsv"
    if target.exists() and (target.samefile(file) or filecmp.cmp(target, file)):
        return folder, ""
    if target.exists() and given:
        return folder, f"{target} is not {file}, and VLMEvalKit reads the former."
    target.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if name in known():
        shutil.copy2(file, target)
    else:
        target.symlink_to(file.resolve())
    return folder, ""
