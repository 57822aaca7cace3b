"""The table of all rules in docs/rules.md, from the rules themselves.

python -m filters.reference            rewrites the table in docs/rules.md
"""

import inspect
from pathlib import Path

from filters import RULES

BEGIN, END = "<!-- rules: made by python -m filters.reference -->\n", "<!-- rules: end -->\n"


def _setting(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return f"`{parameter.name}` (needed)"
    value = parameter.default
    if isinstance(value, tuple):
        value = f"{len(value)} values" if len(value) > 3 else list(value)
    elif isinstance(value, bool):
        value = str(value).lower()
    return f"`{parameter.name}: {value}`"


def table() -> str:
    """A Markdown table per file of rules: name, what it takes, settings and defaults."""
    lines: list[str] = []
    files: dict[str, list[str]] = {}
    for name, rule in RULES.items():
        files.setdefault(rule.function.__module__.rsplit(".", 1)[1], []).append(name)
    for file, names in files.items():
        about = (inspect.getdoc(inspect.getmodule(RULES[names[0]].function)) or "").split("\n")[0]
        lines += [f"### {file}.py", "", about, ""]
        lines += ["| rule | takes a sample if | settings | modes |", "|---|---|---|---|"]
        for name in names:
            rule = RULES[name]
            settings = ", ".join(_setting(p) for p in rule.settings.values()) or "none"
            text = rule.sentence.replace("|", "\\|")
            modes = "always applied" if rule.scope == "index" else ", ".join(rule.modes)
            lines.append(f"| `{name}` | {text} | {settings} | {modes} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def refreshed(page: str) -> str:
    """The page with its table as the rules are now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[1] / "docs" / "rules.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
