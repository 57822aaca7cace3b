"""How a file reads: in one sitting, its first sentence, its constants at the top, its functions on
one screen each.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "mixtures", "filters", "tokenization", "trainer", "benchmarks", "examples")
FILES = sorted(path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py"))
SCREEN = 60
"""Lines."""
SITTING = 440
"""Lines of a file that is read in one sitting. Aim at 400: what comes next needs room, too."""
REASON = "# Longer than a screen:"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def parsed(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text()
    return text, ast.parse(text)


def constants_below(tree: ast.Module) -> Iterator[ast.stmt]:
    """Constants after the first definition that need nothing defined before them there."""
    first = next((i for i, node in enumerate(tree.body) if isinstance(node, DEFINITIONS)), None)
    if first is None:
        return
    defined: set[str] = set()
    for node in tree.body[first:]:
        if isinstance(node, DEFINITIONS):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
            needs = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - own
            if needs & defined or not all(name.isupper() for name in own):
                defined |= own
            else:
                yield node


def long_functions(text: str, tree: ast.Module) -> Iterator[str]:
    """Functions of more than a screen that give no reason."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
            if len(lines) > SCREEN and not any(REASON in line for line in lines):
                yield f"{node.name} at line {node.lineno} has {len(lines)} lines"


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_a_file_is_read_in_one_sitting(room):
    wrong = [
        f"{path.relative_to(ROOT)} has {lines} lines"
        for path in FILES
        if path.is_relative_to(ROOT / room)
        and (lines := len(path.read_text().splitlines())) > SITTING
    ]
    assert not wrong, (
        f"more than {SITTING}: which of its ideas is a file of its own? Move that one out whole "
        "(CONTRIBUTING.md, where things go), with its tests; do not cut by the number of lines"
    )


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_every_file_opens_with_a_sentence_of_what_is_true_of_it(room):
    wrong = []
    for path in FILES:
        if path.is_relative_to(ROOT / room) and path.stat().st_size:
            first = (ast.get_docstring(parsed(path)[1]) or "").split("\n\n")[0]
            if not first.endswith((".", ":", "?")):
                wrong.append(f"{path.relative_to(ROOT)}: {first[:60]!r}")
    assert not wrong, "each needs a docstring whose first paragraph is whole sentences"


@pytest.mark.parametrize("room", ROOMS)
def test_constants_stand_together_at_the_top(room):
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:60]}"
        for path in FILES
        if path.is_relative_to(ROOT / room)
        for node in constants_below(parsed(path)[1])
    ]
    assert not wrong, "move them above the first definition: they need nothing that it defines"


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_a_function_of_more_than_a_screen_says_why(room):
    wrong = [
        f"{path.relative_to(ROOT)}: {long}"
        for path in FILES
        if path.is_relative_to(ROOT / room)
        for long in long_functions(*parsed(path))
    ]
    assert not wrong, f"shorten it, or write `{REASON} ...` into it"
