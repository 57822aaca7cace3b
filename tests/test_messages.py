"""Long messages of mistakes are laid out where they are raised: what is wrong, then found, expected
and the way out, each on a line of its own.
"""

import ast
from pathlib import Path

import pytest

from mixtures.allocate import allocate
from tests.mixtures.synthetic import mixture_of
from tests.mixtures.test_allocate import supply_of
from tokenization.terminal import PARTS, lay_out

ROOT = Path(__file__).parents[1]
ROOMS = ("mixtures", "filters", "tokenization", "pipelines", "trainer")
MOST = 175
"""Characters of a message's own words, what is filled in left out, that may stand in one line."""


def words_of(node: ast.AST) -> str:
    """The text of a message, each value that is filled in as `{}`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return words_of(node.left) + words_of(node.right)
    return "{}"


@pytest.mark.parametrize("room", ROOMS)
def test_long_messages_have_their_parts_on_lines_of_their_own(room):
    together = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {text}"
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args
        if ast.unparse(node.exc.func) != "FloatingPointError"  # of a run: it has a traceback
        if len(text := words_of(node.exc.args[0])) > MOST
        if not any(f"\n{part}" in text for part in PARTS)
    ]
    assert not together


def test_a_shortage_is_laid_out():
    supply = supply_of({("video", "v"): 120_400_000, ("rest", "r"): 2_000_000_000})
    mixture = mixture_of({"video": 0.3, "rest": 0.7}, tokens=1_000_000_000, max_epochs=2)
    with pytest.raises(ValueError, match="made: ") as caught:
        allocate(supply, mixture)
    what, found, ways, *each = lay_out(str(caught.value)).splitlines()
    assert what.startswith("made: video can give 240.8M tokens")
    assert found == "  found:    Each can give, in tokens: video 240.8M, rest 4.0B."
    assert ways == "Ways out:"
    assert [line[:4] for line in each] == ["  - "] * 3
    assert lay_out(str(caught.value), width=60).count("\n") > 6
