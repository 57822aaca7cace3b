"""Addresses of datasets on the hub: `hf://datasets/ORG/NAME[@REVISION][/PATH]`."""

import re

PREFIX = "hf://datasets/"
ADDRESS = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?\Z"
)


def is_hub(url: str) -> bool:
    """Whether `url` is a dataset repository's."""
    return url.startswith(PREFIX)


def parse_url(url: str) -> tuple[str, str, str]:
    """(ORG/NAME, revision, path inside) of a hub URL."""
    match = ADDRESS.match(url)
    if match is None:
        raise ValueError(f"{url}: expected hf://datasets/ORG/NAME[@REVISION][/PATH]")
    return match["repo"], (match["revision"] or "main").replace("%2F", "/"), match["path"] or ""


def hub_url(repo: str, revision: str, path: str = "") -> str:
    """The hub URL of `path` in `repo` at `revision`."""
    return f"{PREFIX}{repo}@{revision.replace('/', '%2F')}{'/' + path if path else ''}"


def pin_revision(url: str, commit: str) -> str:
    """`url` with its revision replaced by `commit`."""
    repo, _, path = parse_url(url)
    return hub_url(repo, commit, path)
