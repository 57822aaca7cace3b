"""Run by test_vlmevalkit.py in a process that has VLMEvalKit: what its own code makes of our files.

python with_vlmevalkit.py table             its benchmarks: class, whether it takes `dataset`
python with_vlmevalkit.py build FILE.json   what it would ask and say for each benchmark
"""

import inspect
import json
import sys
from typing import Any

import torch
from vlmeval import dataset as kit
from vlmeval.dataset.video_dataset_config import supported_video_datasets


def table() -> dict[str, Any]:
    """Per benchmark the class that VLMEvalKit takes for its name, and the arguments it has."""
    found: dict[str, Any] = {}
    for each in kit.DATASET_CLASSES:
        parameters = list(inspect.signature(each.__init__).parameters)
        for name in each.supported_datasets():
            found.setdefault(name, [each.__name__, parameters])
    return {"benchmarks": found, "settings": list(supported_video_datasets)}


def build(file: str) -> dict[str, Any]:
    """The messages of each benchmark's first question, and what the checkpoint says to one."""
    from vlmeval.run import build_dataset_from_config, build_model_from_config

    config = json.loads(open(file).read())  # noqa: SIM115, PTH123
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *args, **kwargs: (
        self if args == ("cuda",) else to(self, *args, **kwargs)
    )  # type: ignore
    (name,) = config["model"]
    model = build_model_from_config(config["model"], name)
    model.kwargs["max_new_tokens"] = 4
    found = {}
    for benchmark, entry in config["data"].items():
        getattr(kit, entry["class"]).DATASET_MD5 = {}  # of its own TSV, not of a test's
        made = build_dataset_from_config(config["data"], benchmark)
        messages = made.build_prompt(made.data.iloc[0])
        said = model.generate_inner(messages, benchmark)
        found[benchmark] = {
            "type": made.TYPE, "questions": len(made.data), "messages": messages, "said": said
        }  # fmt: skip
    return found


if __name__ == "__main__":
    print(json.dumps(table() if sys.argv[1] == "table" else build(sys.argv[2])))
