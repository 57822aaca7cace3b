"""Where the rows of a component lie: what `data:` names, and which files are which subset.

data: | MIRROR/ORG/NAME | hub --list--> Tree --globs of the source--> subset -> annotation files
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.reading import hub
from pipelines.reading.configs import config_files
from pipelines.reading.files import (
    File,
    Tree,
    glob_regex,
    is_url,
    labelled,
    list_tree,
    local_file,
    matching_files,
)
from pipelines.reading.leftovers import sentences
from pipelines.reading.media_files import is_medium
from pipelines.reading.named import keys_in
from pipelines.reading.schema import check_files
from pipelines.reading.splitting import kind_of, media_of
from pipelines.sources.sample import Source

GLOB = re.compile(r"[*?]")
"""What makes a path a glob, where no file has that very name."""


def placed(place: str, *, beside: str, where: str) -> str:
    """Where a file, folder or glob lies that a mixture names: `~` is the user's home, a relative
    path is taken from the current folder, or else from `beside`.

    Raises:
        FileNotFoundError: it lies in neither.
    """
    if is_url(place):
        return place
    home = str(Path(place).expanduser()) if place.startswith("~") else place
    tried = [home] if Path(home).is_absolute() or not beside else [home, f"{beside}/{home}"]
    for path in tried:
        if Path(path).exists() or matches_any(path):
            return path
    looked = " nor ".join(dict.fromkeys(str(Path(path).absolute()) for path in tried))
    raise FileNotFoundError(f"{where}: neither a file, a folder nor a glob of any at {looked}.")


def matches_any(pattern: str) -> bool:
    """Whether the glob matches a local file."""
    if not GLOB.search(pattern):
        return False
    folder, _, rest = split_glob(pattern)
    return Path(folder).is_dir() and next(Path(folder).glob(rest), None) is not None


def locate_files(
    about: Source, *, data: str | None, mirror: str | None, where: str, ours: Sequence[str] = ()
) -> tuple[Tree, dict[str, list[File]]]:
    """(the tree, the files named outright under the subset's default name: of a file or glob)."""
    if data is not None:
        return locate_data(about, data, where=where, ours=ours)
    if not about.hub:
        raise ValueError(
            f"{where}: source {about.name!r} reads your files. Name them: data: FILE|GLOB|FOLDER"
        )
    if mirror is not None:
        folder = f"{mirror.rstrip('/')}/{about.hub}"
        if not is_url(folder) and not Path(folder).is_dir():
            raise FileNotFoundError(
                f"{where}: the mirror has no folder {folder}.\n"
                f"way out: put a checkout of {about.hub} there, "
                "name another place with data: in the component, or leave out data=MIRROR"
            )
        return list_tree(folder), {}
    return list_tree(hub.hub_url(about.hub, about.revision)), {}


def locate_data(
    about: Source, data: str, *, where: str, ours: Sequence[str]
) -> tuple[Tree, dict[str, list[File]]]:
    """The tree of `data:`, and its files where it is one file or a glob."""
    path = Path(data)
    if not is_url(data) and path.is_file():
        file = local_file(path, path.parent)
        return Tree(str(path.parent.absolute()), (file,), named=True), {about.whole_name: [file]}
    if not is_url(data) and path.is_dir():
        return list_tree(data, ours=ours), {}
    if data.startswith(("http://", "https://")):  # a `?` begins its query; it lists no folder
        tree = list_tree(data)
        return replace(tree, named=True), {about.whole_name: list(tree.files)}
    if GLOB.search(data):
        root, _, pattern = split_glob(data)
        tree = list_tree(root, ours=ours)
        files = [file for file in tree.files if glob_regex(pattern).match(file.name)]
        if not files:
            raise FileNotFoundError(f"{where}.data: no file matches {data}")
        hidden = tuple(one for one in tree.unread if glob_regex(pattern).match(one.name))
        chosen = replace(tree, files=tuple(files), unread=hidden, named=True)
        return chosen, {about.whole_name: files}
    if is_url(data):
        tree = list_tree(data)
        one = len(tree.files) == 1 and data.endswith(tree.files[0].name)
        return tree, {about.whole_name: list(tree.files)} if one else {}
    raise FileNotFoundError(f"{where}.data: {data} is neither a file, a folder nor a glob")


def split_glob(pattern: str) -> tuple[str, str, str]:
    """(the folder before the first wildcard, "/", the rest)."""
    fixed = GLOB.split(pattern, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    return folder or ("/" if slash else "."), "/", pattern[len(folder) + len(slash) :]


def rename_subset(
    chosen: dict[str, list[File]], about: Source, names: list[str], *, where: str
) -> dict[str, list[File]]:
    """The files of a glob or file under the one subset that the mixture names, if it names one."""
    if len(names) > 1:
        raise ValueError(
            f"{where}: data: names files, which are one subset, but subsets are "
            f"{', '.join(names)}. Name a folder with a sub-folder for each, or use a component each"
        )
    return {name: chosen[about.whole_name] for name in (names or [about.whole_name])}


def subsets_of(about: Source, tree: Tree, names: list[str], *, where: str) -> dict[str, list[File]]:
    """Subset -> its annotation files, in order; raises ValueError where there are none."""
    if not names:
        names = [n for n in about.default if subset_files(about, tree, n)] or discover_subsets(
            about, tree
        )
    if not names:
        there = ", ".join(file.name for file in tree.files[:3]) or "none"
        more = f" and {len(tree.files) - 3:,} more" if len(tree.files) > 3 else ""
        beside = "".join(f"; {line}" for line in sentences(tree.unread))
        raise ValueError(
            f"{where}: no file of source {about.name!r} under {tree.root}; expected "
            f"{', '.join(about.files)}; found {there}{more}{beside}"
        )
    found = {}
    for name in names:
        files = subset_files(about, tree, name)
        if not files:
            known = discover_subsets(about, tree) or sorted(about.subsets)
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Found: {', '.join(known[:60])}."
            raise ValueError(f"{where}: no subset {name!r} of {about.name} in {tree.root}. {hint}")
        found[name] = files
    return found


def subset_files(about: Source, tree: Tree, subset: str) -> list[File]:
    """The annotation files of one subset: of the first glob that matches any."""
    tail = next((key for key in about.places if key[0] == "/" and subset.endswith(key)), "")
    patterns = about.places.get(tail or subset, about.files)
    folder = subset.removesuffix(tail)
    for pattern in patterns:
        if "{subset}" not in pattern and pattern in about.files and subset != about.whole_name:
            continue
        exact = pattern.replace("{subset}", folder)
        files = [file for _, file in matching_files(tree.files, exact, split=about.split)]
        if files:
            return files
    if about.layout == "folder" and subset == about.whole_name:
        return labelled(tree.files, split=about.split)
    return []


def discover_subsets(about: Source, tree: Tree) -> list[str]:
    """The names of every subset that the source's globs find; the whole one only if no other."""
    plain = {"data", about.whole_name}
    for pattern in about.files:
        pairs = matching_files(tree.files, pattern, split=about.split)
        names = sorted({subset for subset, _ in pairs} - plain - {""})
        if names:
            return names
        if pairs and subset_files(about, tree, about.whole_name):
            return [about.whole_name]
    return [about.whole_name] if subset_files(about, tree, about.whole_name) else []


def find_files(
    about: Source,
    names: list[str],
    *,
    data: str | None,
    media: str | None,
    mirror: str | None,
    beside: str,
    ours: Sequence[str],
    where: str,
) -> tuple[Tree, dict[str, list[File]], Tree | None]:
    """(the tree, subset -> its annotation files, the tree of `media:` where it is named)."""
    if data is not None:
        data = placed(data, beside=beside, where=f"{where}.data")
    tree, chosen = locate_files(about, data=data, mirror=mirror, where=where, ours=ours)
    if chosen and about.split != "train":
        raise ValueError(
            f"{where}.split is {about.split!r}, but data: names files, which are read whatever "
            "split they are of. Name the folder, or leave split out."
        )
    if chosen:
        found = rename_subset(chosen, about, names, where=where)
    elif about.by_config:
        found = config_files(about, tree, names, where=where)
    else:
        found = subsets_of(about, tree, names, where=where)
    for files in found.values():
        check_files(about, files, where=where)
    if media is not None:
        place = placed(media, beside=beside, where=f"{where}.media")
        return tree, found, list_tree(place, ours=ours)
    if chosen and not tree.commit and names_media(about, found):
        tree = replace(list_tree(tree.root, ours=ours), named=True, unread=tree.unread)
    return tree, found, None


def media_tree_of(
    about: Source, tree: Tree, subset: str, files: Sequence[File], *, mirror: str | None
) -> Tree | None:
    """What another repository holds of the subset's media; null where none is known to, where they
    lie beside the annotations after all, and where the mirror lacks that repository.
    """
    if subset not in about.media_hub:
        return None
    beside = media_of(about, tree, subset, files, None).listed or ()
    if any(is_medium(file.name) for file in beside):
        return None
    repository, *globs = about.media_hub[subset]
    root = f"{mirror.rstrip('/')}/{repository}" if mirror else hub.hub_url(repository, "main")
    if mirror and not is_url(root) and not Path(root).is_dir():
        return None
    other = list_tree(root)
    wanted = [glob_regex(pattern) for pattern in globs]
    held = (file for file in other.files if any(glob.match(file.name) for glob in wanted))
    return replace(other, files=tuple(held))


def names_media(about: Source, found: Mapping[str, Sequence[File]]) -> bool:
    """Whether rows of the files name media, as far as planning may know."""
    keys = [keys_in(tuple(files), about, kind_of(files[0])) for files in found.values()]
    inside = about.layout not in ("json", "folder")
    return any(not inside if key is None else len(key) > 0 for key in keys)
