"""Refresh what README.md and the pages of docs/ take from the code: settings, columns, sources.

    python docs/generate.py            rewrites the blocks between markers
    python docs/generate.py --check    exit status 1 and the names of pages that are out of date

A page holds `<!-- begin NAME -->` ... `<!-- end NAME -->`; NAME says where the block comes from:

    settings FILE CLASS      a dataclass: its fields, types, defaults, the docstring under each
    columns FILE NAME        a pyarrow schema: columns, types, the comment beside each
    sources                  the registered sources
    verified                 the same with their layout and what of it was verified
    commands PROGRAM         `--help` of the program and of each of its commands
    statuses                 the exit statuses
"""

import ast
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- begin (?P<name>[^>]+?) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `|` in cells is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |\n"
        for line in lines
    )


def settings(file: str, name: str) -> str:
    """The fields of dataclass `name` in `file`: key, default, meaning."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if not found:
        raise ValueError(f"docs: {file} has no class {name}")
    body = found[0].body
    rows = []
    for field, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        told = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told = str(after.value.value)
        kind = ast.unparse(field.annotation).replace("Literal", "one of ")
        rows.append([f"`{field.target.id}`", f"`{kind}`", default_of(field), told])
    return table(["key", "type", "default", "what it says"], rows)


def default_of(field: ast.AnnAssign) -> str:
    """The default as one writes it in YAML; bold where there is none."""
    if field.value is None:
        return "**required**"
    written = field.value
    if isinstance(written, ast.Call):
        written = next((k.value for k in written.keywords if k.arg == "default"), written)
    if isinstance(written, ast.Call):
        factory = next((k.value for k in written.keywords if k.arg == "default_factory"), None)
        if isinstance(factory, ast.Name):
            return {"dict": "`{}`", "list": "`[]`"}.get(factory.id, f"see {factory.id}")
        return f"`{ast.unparse(written)}`"
    value = ast.literal_eval(written)
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"`{value:_}`"
    return f"`{value}`" if value != "" else '`""`'


def columns(file: str, name: str) -> str:
    """The columns of schema `name` in `file`: name, type, the comment on its line."""
    source = (ROOT / file).read_text(encoding="utf-8")
    found = re.search(rf"^{name}(?:: [\w.]+)? = pa\.schema\((.*?)^\)", source, re.S | re.M)
    if found is None:
        raise ValueError(f"docs: {file} has no schema {name}")
    pattern = re.compile(r'^ +\("(\w+)", (.+?)\),(?: *# *(.*))?$', re.M)
    rows = [
        [f"`{column}`", f"`{kind.replace('pa.', '').replace('()', '')}`", told or ""]
        for column, kind, told in pattern.findall(found[1])
    ]
    return table(["column", "type", ""], rows)


def sources() -> str:
    """One line per registered source, and under each the first sentence of its adapter."""
    from pipelines.sources import SOURCES

    rows = []
    for name in sorted(SOURCES):
        source = SOURCES[name]
        where = (
            f"[{source.hub}](https://huggingface.co/datasets/{source.hub})" if source.hub else ""
        )
        licence = ", ".join([source.licence, *source.terms])
        asked = f" Gated: {source.gating}." if source.gating else ""
        told = (source.adapter.__doc__ or "").strip().split("\n\n")[0]
        rows.append([f"`{name}`", where or "yours (`data:`)", told, licence + asked])
    return table(["source", "repository", "a sample is", "licence and terms"], rows)


def commands(name: str) -> str:
    """What `--help` of a program prints, and of each of its commands."""
    from importlib import import_module

    from tokenization.command_line import command_help, help_text

    program = import_module(f"{name}.__main__").PROGRAM
    helps = [help_text(program)]
    helps += [command_help(program, each) for each in program.commands if each != program.otherwise]
    return "\n".join(f"```text\n{text}\n```\n" for text in helps).replace(
        f"python -m {name} ", f"{program.script} "
    )


def statuses() -> str:
    """Every exit status and what it says."""
    from tokenization.command_line import STATUSES

    return table(["status", "what it says"], [[f"`{n}`", said] for n, said in STATUSES.items()])


def verified() -> str:
    """The registered sources with their layout, licence, and what was verified of them."""
    from pipelines.catalogue import source_markdown

    return source_markdown() + "\n"


def keys() -> str:
    """What rows of one's own files may hold, by source."""
    from pipelines.catalogue import keys_markdown

    return keys_markdown() + "\n"


MAKERS: dict[str, Callable[..., str]] = {
    "settings": settings,
    "columns": columns,
    "sources": sources,
    "verified": verified,
    "keys": keys,
    "commands": commands,
    "statuses": statuses,
}


def refreshed(page: str) -> str:
    """`page` with every marked block made anew."""

    def block(match: re.Match[str]) -> str:
        kind, *arguments = match["name"].split()
        return f"{match[1]}\n{MAKERS[kind](*arguments)}\n{match[3]}"

    return BLOCK.sub(block, page)


def main(arguments: list[str]) -> int:
    """Rewrites the pages, or with --check names those that would change."""
    sys.path.insert(0, str(ROOT))
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page = path.read_text(encoding="utf-8")
        fresh = refreshed(page)
        if fresh != page:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"Out of date: {', '.join(stale)}. Run `python docs/generate.py`.")
        return 1
    print(f"Rewritten: {', '.join(stale)}." if stale else "Every page is current.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
