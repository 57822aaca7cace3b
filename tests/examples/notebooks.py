"""Runs the cells of a notebook file as Jupyter does: one namespace, the last expression shown."""

import ast
import json
from pathlib import Path
from typing import Any


def run(file: Path) -> list[Any]:
    """What each code cell shows (None: nothing); an exception carries the cell as a note."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            try:
                shown.append(cell_value(source, namespace))
            except Exception as error:
                error.add_note(f"{file.name}, cell {cell['id']}:\n{source}")
                raise
    return shown


def cell_value(source: str, namespace: dict[str, Any]) -> Any:
    """The value of the cell's last expression, once its statements have run."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
