"""HuggingFaceTB/smoltalk: `data/<config>/{train,test}-*.parquet`, rows of messages.

| config                 | stands for it here                                                   |
|------------------------|----------------------------------------------------------------------|
| everyday-conversations | several exchanges of one topic of chatterbot-corpus                  |
| systemchats-30k        | exchanges under a system message                                     |
| self-oss-instruct      | functions of Python's standard library from their docstrings         |
| metamathqa-50k         | reasoning-gym's gsm_symbolic, answers by steps (text CoT)            |
"""

import ast
import sysconfig
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from quickstart_data.files import Planted, count, write_card, write_parquet

NAME = "HuggingFaceTB/smoltalk"
MODULES = (
    "bisect", "calendar", "cmd", "colorsys", "copy", "difflib", "filecmp", "fnmatch", "functools",
    "glob", "gzip", "heapq", "inspect", "linecache", "mimetypes", "operator", "os", "posixpath",
    "pprint", "random", "reprlib", "shutil", "statistics", "string", "tempfile", "textwrap",
    "timeit", "tokenize", "traceback", "types", "uuid", "warnings", "weakref",
)  # fmt: skip
TEST_ROWS = 12


@cache
def topics() -> dict[str, list[list[str]]]:
    """Topic -> conversations, of chatterbot-corpus in English."""
    import chatterbot_corpus
    import yaml

    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, ten times as fast
    folder = Path(chatterbot_corpus.__file__).parent / "data" / "english"
    made = {}
    for path in sorted(folder.glob("*.yml")):
        read = yaml.load(path.read_text(encoding="utf-8"), Loader)["conversations"]
        told = [[str(line).strip() for line in lines] for lines in read if len(lines) >= 2]
        made[path.stem] = [lines for lines in told if all(lines[:2])]
    return made


def dialogues(*names: str) -> list[tuple[str, str]]:
    """Question and answer of every conversation of the topics named, or of all."""
    return [
        (lines[0], lines[1]) for name, all_lines in topics().items() if not names or name in names
        for lines in all_lines
    ]  # fmt: skip


def message(role: str, content: str) -> dict[str, str]:
    """One message."""
    return {"content": content, "role": role}


def exchange(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    """User and assistant in turns."""
    return [
        said
        for user, answer in pairs
        for said in (message("user", user), message("assistant", answer))
    ]


def everyday_conversations(number: int) -> list[dict[str, Any]]:
    """Two to five exchanges on one topic."""
    rng = Random("everyday")
    rows: list[dict[str, Any]] = []
    while len(rows) < number:
        topic = rng.choice([name for name in topics() if len(topics()[name]) >= 8])
        pairs = rng.sample(dialogues(topic), rng.randint(2, 5))
        row = {"messages": exchange(pairs), "full_topic": topic.capitalize()}
        if row not in rows:
            rows.append(row)
    return rows


def systemchats(number: int) -> list[dict[str, Any]]:
    """A system message, then one to three exchanges."""
    rng = Random("system")
    rows: list[dict[str, Any]] = []
    while len(rows) < number:
        topic = rng.choice(["ai", "botprofile", "coding", "humor"])
        start = message("system", f"You are a friendly program that chats about {topic}.")
        pairs = rng.sample(dialogues(topic), rng.randint(1, 3))
        row = {"messages": [start, *exchange(pairs)]}
        if row not in rows:
            rows.append(row)
    return rows


@cache
def functions() -> list[tuple[str, str, str]]:
    """(name, first paragraph of the docstring, source) of short documented functions."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = []
    for module in MODULES:
        source = (folder / f"{module}.py").read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                doc = ast.get_docstring(node)
                code = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                if doc and code and len(code) <= 1500:
                    told = " ".join(doc.split("\n\n")[0].split())
                    found.append((f"{module}.{node.name}", told, code))
    Random("functions").shuffle(found)
    return found


def self_oss_instruct(number: int) -> list[dict[str, Any]]:
    """Write a function that does what a docstring says."""
    return [
        {
            "messages": exchange(
                [
                    (
                        f"Write a Python function like `{name}`. {told}",
                        f"```python\n{code}\n```",
                    )
                ]
            )
        }
        for name, told, code in functions()[:number]
    ]


def metamathqa(number: int) -> list[dict[str, Any]]:
    """Word problems, solved step by step."""
    import reasoning_gym

    problems = reasoning_gym.create_dataset("gsm_symbolic", size=number, seed=1)
    return [
        {"messages": exchange([(problem["question"], problem["metadata"]["answer_cot"])])}
        for problem in (problems[at] for at in range(number))
    ]


def write(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """Train and test files of four configs, and the card."""
    from datasets import Features, List, Value

    messages = List({"content": Value("string"), "role": Value("string")})
    configs = {
        "everyday-conversations": (everyday_conversations, 350),
        "systemchats-30k": (systemchats, 60),
        "self-oss-instruct": (self_oss_instruct, 150),
        "metamathqa-50k": (metamathqa, 350),
    }
    counts: dict[str, int] = {}
    for config, (made, number) in configs.items():
        rows = made(count(number, share) + TEST_ROWS)
        train, test = rows[TEST_ROWS:], rows[:TEST_ROWS]
        if config == "everyday-conversations":
            train[5]["messages"] = exchange([("Are you still there?", "")])
            train[10] = train[1]
        columns = {"messages": messages}
        if "full_topic" in rows[0]:
            columns = {"full_topic": Value("string"), "messages": messages}
        for split, part in (("train", train), ("test", test)):
            path = folder / "data" / config / f"{split}-00000-of-00001.parquet"
            write_parquet(path, part, Features(columns))
        counts[config] = len(train)
    lines = "".join(
        f"- config_name: {config}\n  data_files:\n"
        f"  - split: train\n    path: data/{config}/train-*\n"
        f"  - split: test\n    path: data/{config}/test-*\n"
        for config in configs
    )
    write_card(folder, f"language:\n- en\nconfigs:\n{lines}")
    file = "data/everyday-conversations/train-00000-of-00001.parquet"
    bad = [
        Planted(repository=NAME, subset="everyday-conversations", row=at, file=file, what=what)
        for at, what in ((5, "empty_answer"), (10, "duplicate"))
    ]
    return counts, bad
