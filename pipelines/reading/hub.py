"""The Hugging Face Hub, read: repository info, trees, ranges of files, and whole datasets. The only
file that knows `huggingface_hub` and `datasets`.

    hf://datasets/ORG/NAME[@REVISION][/PATH]

A revision is pinned to its commit when a tree is listed; every later read names the commit, so a
push in the middle of a build changes nothing. A file that lies in the client's cache (hub_cache.py)
is read there; others are read by ranges, never to a cache on disk: a part fetches the row groups it
needs and no more. With HF_HUB_OFFLINE the cache is all there is. 429, 5xx, broken connections and
bodies that end early are tried again with back-off; `HF_TOKEN` and `HF_ENDPOINT` are those of the
client.
"""

import io
import logging
import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.reading import hub_cache, traffic
from pipelines.reading.content import Verified, refuse_other
from pipelines.reading.hub_address import hub_url, is_hub, parse_url, pin_revision
from pipelines.reading.hub_requests import with_retries
from pipelines.reading.walk import passed_over
from tokenization.terminal import log

__all__ = ["hub_url", "is_hub", "parse_url", "pin_revision"]

BLOCK = 1 << 20
"""Bytes fetched at once when a reader asks for less."""
PIECE = 64 << 10
"""The same of a file that is read here and there: the members of a zip."""
TIMEOUT = 60.0
"""s without a byte, and what an answer may take beside SLOWEST."""
SLOWEST = 16 << 10
"""Bytes a second, below which an answer is given up: a byte a second keeps every other limit."""
MAX_SKIPPED = 64 << 20
"""Bytes before a range that are passed over where a server answers with the whole file."""


def has_token() -> bool:
    """Whether this machine has a token of the hub (HF_TOKEN, or of `hf auth login`)."""
    from huggingface_hub import get_token

    return get_token() is not None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cache_of(repo: str) -> Path:
    """The folder of the client's cache in which the dataset lies, if it does."""
    from huggingface_hub import constants

    return hub_cache.repository_folder(Path(constants.HF_HUB_CACHE), repo)


def has_access(repo: str) -> bool:
    """Whether this machine may read the dataset's files; asks the hub, or offline the cache."""
    from huggingface_hub import HfApi, errors

    if is_offline():
        return cache_of(repo).is_dir()
    url = hub_url(repo, "main")
    try:
        with_retries(url, lambda: HfApi().auth_check(repo, repo_type="dataset"))
    except FileNotFoundError:  # a mirror of the hub that has no such page: reading will tell
        return True
    except ValueError as error:
        if isinstance(error.__cause__, errors.RepositoryNotFoundError):  # a gated one is one too
            return False
        raise
    return True


def tree(url: str) -> tuple[str, list[tuple[str, str, int, str]]]:
    """(commit, files as (name relative to the URL's path, url, size, content id)), sorted."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repo, revision, path = parse_url(url)
    if is_offline():
        return cached_tree(url)
    api = HfApi()
    info = with_retries(url, lambda: api.dataset_info(repo, revision=revision))
    commit = cast(str, info.sha)
    entries = with_retries(
        url,
        lambda: list(
            api.list_repo_tree(
                repo, path or None, recursive=True, revision=commit, repo_type="dataset"
            )
        ),
    )
    files = [(e.path, e.size, content_of(e)) for e in entries if isinstance(e, RepoFile)]
    if not path:
        hub_cache.remember(cache_of(repo), commit, files)
    return commit, below(files, repo, commit, path)


def below(
    files: Sequence[hub_cache.Entry], repo: str, commit: str, path: str
) -> list[tuple[str, str, int, str]]:
    """Of the repository's files those below `path`: (name relative to it, url, size, content id),
    sorted.
    """
    inside = f"{path}/" if path else ""
    named = ((full[len(inside) :], full, size, content) for full, size, content in files
             if full.startswith(inside) or full == path)  # fmt: skip
    return sorted(
        (name or full.rpartition("/")[2], hub_url(repo, commit, full), size, content)
        for name, full, size, content in named
        if not passed_over(name)
    )


@lru_cache(maxsize=256)
def cached_tree(url: str) -> tuple[str, list[tuple[str, str, int, str]]]:
    """What `tree` gives, of the client's cache alone; says where the cache may hold a part of it.

    Raises:
        ValueError: no such commit is in the cache; names the command that fetches it.
    """
    repo, revision, path = parse_url(url)
    folder = cache_of(repo)
    commit = hub_cache.commit_of(folder, revision)
    if commit is None or not (folder / "snapshots" / commit).is_dir():
        kept = folder / "snapshots"
        others = sorted(p.name for p in kept.iterdir()) if kept.is_dir() else []
        named = f" (it holds {', '.join(others[:4])}: name one with @COMMIT)" if others else ""
        raise ValueError(
            f"{url}: HF_HUB_OFFLINE is set, and {folder} holds nothing of revision {revision}"
            f"{named}.\nway out: fetch it on a machine with network: "
            f"{hub_cache.fetching(repo, [f'{path}/*'] if path else [], revision=revision)}; or "
            "unset HF_HUB_OFFLINE; or name a local copy with data:"
        )
    files, whole = hub_cache.listed(folder, commit)
    if not whole:
        log(
            f"{repo}: no list of its files at {commit[:12]} is on this machine, so what lies in "
            "the cache is taken for all there is.",
            level=logging.WARNING,
        )
    found = below(files, repo, commit, path)
    if lost := hub_cache.unnumbered(full for full, _, _ in files if full.startswith(path)):
        require(repo, commit, lost, revision=revision)
    return commit, found


def require(repo: str, commit: str, missing: Sequence[str], *, revision: str) -> None:
    """Raises NotCachedError with the command that fetches what is missing, where anything is."""
    if missing:
        folder = cache_of(repo)
        known = hub_cache.commit_of(folder, "main") == commit
        raise hub_cache.NotCachedError(
            hub_cache.missing_sentence(
                repo, missing, commit=commit, cache=folder.parent,
                revision=commit if known or revision == commit else revision,
            )
        )  # fmt: skip


def require_cached(urls: Sequence[tuple[str, str]]) -> None:
    """Offline, every (URL, content id) of the hub is in the cache; else NotCachedError, which names
    those that are not.
    """
    missing: dict[tuple[str, str], list[str]] = {}
    for url, content in [pair for pair in urls if is_hub(pair[0])]:
        repo, commit, path = parse_url(url)
        if is_offline() and hub_cache.held(cache_of(repo), commit, path, content) is None:
            missing.setdefault((repo, commit), []).append(path)
    for (repo, commit), paths in missing.items():
        require(repo, commit, paths, revision=commit)


def cached(url: str, content: str) -> Path | None:
    """The file of this URL in the client's cache; null where it is not there.

    Raises:
        NotCachedError: it is not, and nothing else may be asked.
    """
    repo, commit, path = parse_url(url)
    found = hub_cache.held(cache_of(repo), commit, path, content)
    if found is None:
        require_cached([(url, content)])
    return found


def content_of(file: Any) -> str:
    """SHA-256 of a file of a tree; of a small one git's own hash, which names it no less."""
    return cast(str, file.lfs.sha256 if file.lfs else file.blob_id)


def fetch(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` (exclusive) of the file; raises ConnectionError where they do not
    come whole.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    repo, revision, path = parse_url(url)
    address_ = hf_hub_url(repo, path, repo_type="dataset", revision=revision)

    def once() -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
        # identity: a proxy that compresses would make lengths and ranges mean something else
        headers["Accept-Encoding"] = "identity"
        with get_session().stream(
            "GET", address_, headers=headers, follow_redirects=True, timeout=TIMEOUT
        ) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            whole = response.status_code == 200  # the server does not do ranges
            return taken(response.iter_bytes(), start if whole else 0, stop - start)

    return with_retries(url, once)


def taken(chunks: Iterator[bytes], skipped: int, size: int) -> bytes:
    """`size` bytes after the first `skipped` of an answer, of which no more is read.

    Raises ConnectionError where they do not come whole, or come too slowly; ValueError where too
    many would have to be skipped.
    """
    if skipped > MAX_SKIPPED:
        raise ValueError(
            f"the server answers a range of bytes with the whole file, and {skipped:,} bytes would "
            "have to be passed over for each range. Name a local copy with data:"
        )
    begun, body, passed = time.monotonic(), bytearray(), 0
    for chunk in chunks:
        traffic.add(len(chunk))
        passed += len(chunk)
        body += chunk[max(0, len(chunk) - (passed - skipped)) :] if passed > skipped else b""
        if len(body) >= size:
            return bytes(body[:size])
        if time.monotonic() - begun > TIMEOUT + passed / SLOWEST:
            raise ConnectionError(f"only {passed:,} bytes came in {time.monotonic() - begun:.0f} s")
    raise ConnectionError(f"{len(body)} bytes of {size} came")


class RangeReader(io.RawIOBase):
    """A seekable reader of a hub file by ranges."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self.url, self.size, self.position = url, size, 0

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def seekable(self) -> bool:
        """True: it seeks."""
        return True

    def tell(self) -> int:
        """The position, bytes from the start."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position; returns how many bytes, 0 at the end."""
        stop = min(self.size, self.position + len(buffer))
        if stop <= self.position:
            return 0
        data = fetch(self.url, self.position, stop)
        buffer[: len(data)] = data
        self.position = stop
        return len(data)


def open_file(url: str, size: int, *, scattered: bool = False, content: str = "") -> BinaryIO:
    """A buffered, seekable reader of the hub file; `size` -1 asks the hub. `scattered`: little of
    it will be read, here and there. Read whole, it is what `content` says.
    """
    if size < 0:
        size, content = stated(url)
    here = cached(url, content)
    inner = RangeReader(url, size) if here is None else traffic.opened(here)
    raw = Verified(inner, url=url, size=size, content=content)
    return cast(BinaryIO, io.BufferedReader(raw, buffer_size=PIECE if scattered else BLOCK))


def stated(url: str) -> tuple[int, str]:
    """(bytes of the hub file, hash of its content); raises FileNotFoundError where it is not."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repo, revision, path = parse_url(url)
    if is_offline():
        for _, found, size, content in cached_tree(hub_url(repo, revision))[1]:
            if parse_url(found)[2] == path:
                return size, content
        raise FileNotFoundError(f"{url}: no such file in the cache, and HF_HUB_OFFLINE is set")
    infos = with_retries(
        url, lambda: HfApi().get_paths_info(repo, [path], revision=revision, repo_type="dataset")
    )
    for info in infos:
        if isinstance(info, RepoFile):
            return info.size, content_of(info)
    raise FileNotFoundError(f"{url}: the hub has no such file")


def exists(url: str) -> bool:
    """Whether the hub has the file."""
    try:
        stated(url)
    except FileNotFoundError:
        return False
    return True


@lru_cache(maxsize=1024)
def download(url: str, content: str) -> Path:
    """The file in the client's own cache on disk, as `content` says: for annotations that are read
    many times.
    """
    from huggingface_hub import hf_hub_download

    repo, revision, path = parse_url(url)
    found = cached(url, content) or Path(
        with_retries(
            url, lambda: hf_hub_download(repo, path, repo_type="dataset", revision=revision)
        )
    )
    refuse_other(found, url=url, content=content)
    return found


def dataset_rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a dataset that `datasets` can load, streamed, images as `{bytes, path}`.

    `name`: `ORG/NAME` or a folder, with `:SPLIT` for one split (else every split in turn).

    Raises:
        FileNotFoundError: no such dataset. ValueError: no such split.
    """
    import datasets

    path, _, split = name.partition(":")
    if not Path(path).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise FileNotFoundError(f"{path}: expected a folder or a dataset's ORG/NAME.")
    parts = datasets.load_dataset(path, streaming=not is_offline() or Path(path).exists())
    if split and split not in parts:
        raise ValueError(f"{path}: no split {split!r}; found {', '.join(parts)}.")
    for part in [split] if split else parts:
        rows = parts[part]
        yield from rows.decode(False) if hasattr(rows, "decode") else rows
