"""Which files are which config and split of a table, as `datasets` has it.

| where                               | configs                           | splits              |
|-------------------------------------|-----------------------------------|---------------------|
| `configs:` at the head of README.md | its names                         | its `data_files`    |
| folders that `save_to_disk` wrote   | one                               | the folders' names  |
| a folder of the config's name       | that folder (or `data/` above it) | by the files' names |
| anything else                       | one, `default`                    | by the files' names |

A file's split is what stands before `-00000-of-00001`, else a word of its name or of its folders
(train, validation, dev, test); files that name none are of train. `a+b` is two splits.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from pipelines.reading.files import NOT_ROWS, File, Tree, glob_regex, open_file
from pipelines.sources.sample import Source

ROWS = re.compile(
    r".*(\.parquet|\.arrow|\.(jsonl?|ndjson|csv|tsv)(\.(gz|zst|bz2|xz))?)\Z", re.IGNORECASE
)
"""Files of rows."""
NUMBERED = re.compile(r"(?P<split>[\w.]+?)-\d{5}-of-\d{5}\b")
SAVED = re.compile(r"(?P<folder>(?:.*/)?)state\.json\Z")
WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits and the words for them: https://huggingface.co/docs/hub/datasets-file-names-and-splits."""
README_BYTES = 4 << 20


def config_files(
    about: Source, tree: Tree, names: Sequence[str], *, where: str
) -> dict[str, list[File]]:
    """Config -> its files of the source's split, in order; `names`: the configs wanted.

    Raises:
        ValueError: no such config or split, or several configs and none is named.
    """
    stated = stated_configs(tree)
    if stated:
        chosen = names or default_config(stated, tree, where)
        found = {}
        for name in chosen:
            if name not in stated:
                raise ValueError(
                    f"{where}: no config {name!r} in {tree.root}. {near(name, stated)}"
                )
            found[name] = of_split(stated[name], about.split, tree, where)
        return found
    files = [file for file in tree.files if is_rows(file)]
    if not names:
        return {about.whole_name: of_split(by_split(files, tree), about.split, tree, where)}
    found = {}
    for name in names:
        inside = [f for f in files if f.name.startswith((f"{name}/", f"data/{name}/"))]
        if not inside and name != about.whole_name:
            folders = sorted({f.name.rpartition("/")[0] for f in files} - {""})
            raise ValueError(
                f"{where}: no config {name!r} in {tree.root}: neither its README.md nor a folder "
                f"has this name. {near(name, folders)}"
            )
        splits = by_split(inside or files, tree)
        found[name] = of_split(splits, about.split, tree, where)
    return found


def is_rows(file: File) -> bool:
    """Whether it may hold rows."""
    return ROWS.match(file.name) is not None and not NOT_ROWS.search(file.name)


def stated_configs(tree: Tree) -> dict[str, dict[str, list[File]]]:
    """Config -> split -> files, as README.md states them; none where it states none."""
    head = readme_head(tree)
    found = {}
    for config in head.get("configs") or ():
        if isinstance(config, Mapping) and isinstance(config.get("config_name"), str):
            found[config["config_name"]] = files_of_config(config, tree)
    return {name: splits for name, splits in found.items() if any(splits.values())}


def readme_head(tree: Tree) -> Mapping[str, Any]:
    """The YAML at the head of the repository's README.md."""
    file = next((file for file in tree.files if file.name == "README.md"), None)
    if file is None or file.size > README_BYTES:
        return {}
    with open_file(file.url, file.size) as stream:
        text = stream.read().decode("utf-8", "replace").removeprefix("\ufeff")
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        raise ValueError(f"{file.url}: the YAML at its head is not readable: {error}") from error
    return head if isinstance(head, Mapping) else {}


def files_of_config(config: Mapping[str, Any], tree: Tree) -> dict[str, list[File]]:
    """Split -> files of one config of README.md."""
    folder = str(config.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    stated = config.get("data_files")
    if stated is None:
        return by_split([f for f in tree.files if f.name.startswith(prefix) and is_rows(f)], tree)
    entries: list[tuple[str, Any]] = []
    if isinstance(stated, Mapping):
        entries = [(str(split), globs) for split, globs in stated.items()]
    else:
        for entry in stated if isinstance(stated, list) else [stated]:
            whole = isinstance(entry, Mapping)
            entries.append(
                (str(entry.get("split")), entry.get("path")) if whole else ("train", entry)
            )
    found: dict[str, list[File]] = {}
    for split, globs in entries:
        patterns = (
            [globs] if isinstance(globs, str) else [g for g in globs or () if isinstance(g, str)]
        )
        regexes = [glob_regex(prefix + pattern.removeprefix("./")) for pattern in patterns]
        files = [f for f in tree.files if any(regex.match(f.name) for regex in regexes)]
        found.setdefault(split, []).extend(f for f in files if f not in found.get(split, ()))
    return found


def default_config(stated: Mapping[str, Any], tree: Tree, where: str) -> list[str]:
    """The one config that is meant where none is named."""
    if len(stated) == 1:
        return list(stated)
    marked = [
        str(c.get("config_name")) for c in readme_head(tree)["configs"] if c.get("default") is True
    ]
    chosen = [name for name in [*marked, "default"] if name in stated]
    if not chosen:
        raise ValueError(
            f"{where}: {tree.root} has {len(stated)} configs and no default: {', '.join(stated)}. "
            "Name those you want: subsets: [NAME, ...]"
        )
    return chosen[:1]


def by_split(files: Sequence[File], tree: Tree) -> dict[str, list[File]]:
    """Split -> files by their names; under `""` those that name none."""
    saved = saved_folders(tree)
    found: dict[str, list[File]] = {}
    for file in files:
        folder = file.name[: len(file.name) - len(file.name.rpartition("/")[2])]
        split = saved[folder] if folder in saved else split_of(file.name)
        found.setdefault(split, []).append(file)
    return found


def saved_folders(tree: Tree) -> dict[str, str]:
    """Folder that `save_to_disk` wrote -> its split: its name below a dataset_dict.json."""
    dicts = {f.name.removesuffix("dataset_dict.json") for f in tree.files
             if f.name.rpartition("/")[2] == "dataset_dict.json"}  # fmt: skip
    found = {}
    for file in tree.files:
        match = SAVED.match(file.name)
        if match:
            folder = match["folder"]
            above, _, name = folder.rstrip("/").rpartition("/")
            found[folder] = name if folder and (f"{above}/" if above else "") in dicts else ""
    return found


def split_of(name: str) -> str:
    """The split that a file's name says, else one of its folders; empty where none does."""
    *folders, base = name.split("/")
    numbered = NUMBERED.match(base)
    if numbered:
        return word_for(numbered["split"]) or numbered["split"]
    for part in [base.partition(".")[0], *reversed(folders)]:
        for word in re.split(r"[-_. ]+|(?<=[a-zA-Z])(?=\d)", part.lower()):
            if split := word_for(word):
                return split
    return ""


def word_for(word: str) -> str:
    """The split that a word means; empty: none."""
    return next((split for split, words in WORDS.items() if word in words), "")


def of_split(
    splits: Mapping[str, Sequence[File]], wanted: str, tree: Tree, where: str
) -> list[File]:
    """The files of the wanted split (of several, joined by `+`).

    Raises:
        ValueError: there is no such split.
    """
    if not any(splits.values()):
        there = ", ".join(file.name for file in tree.files[:3]) or "nothing"
        raise ValueError(
            f"{where}: no table under {tree.root}\nfound: {there}\nexpected: .parquet, .arrow, "
            ".jsonl, .json, .csv or .tsv\n"
            "way out: one file or some are named with a glob: data: FOLDER/*.jsonl"
        )
    found: list[File] = []
    for name in wanted.split("+"):
        files = splits.get(name) or splits.get(word_for(name)) or ()
        if not files and name == "train":
            files = splits.get("", ())
        if not files:
            known = [split for split in splits if split]
            told = near(name, known) if known else "Its files name no split: leave split out."
            raise ValueError(f"{where}.split: no split {name!r} in {tree.root}. {told}")
        found += [file for file in files if file not in found]
    return sorted(found, key=lambda file: file.name)


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not there."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    found = f"Found: {', '.join(names[:60]) or 'none'}."
    return f"Did you mean {close[0]!r}? {found}" if close else found
