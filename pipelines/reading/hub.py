"""The Hugging Face Hub, read: repository info, trees, ranges of files, and whole datasets. The only
file that knows `huggingface_hub` and `datasets`.

    hf://datasets/ORG/NAME[@REVISION][/PATH]

A revision is pinned to its commit when a tree is listed; every later read names the commit, so a
push in the middle of a build changes nothing. Files are read by ranges, never to a cache on disk:
a part fetches the row groups it needs and no more. 429, 5xx, broken connections and bodies that
end early are tried again with back-off; `HF_TOKEN` and `HF_ENDPOINT` are those of the client.
"""

import io
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipelines.reading import traffic
from pipelines.reading.content import Verified, refuse_other
from pipelines.reading.walk import passed_over

PREFIX = "hf://datasets/"
ADDRESS = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?\Z"
)
BLOCK = 1 << 20
"""Bytes fetched at once when a reader asks for less."""
PIECE = 64 << 10
"""The same of a file that is read here and there: the members of a zip."""
TRIES = 6
"""Attempts at one request or range, 1 + 2 + 4 + 8 + 8 s apart as in huggingface_hub's own."""
TIMEOUT = 60.0
"""s without a byte, and what an answer may take beside SLOWEST."""
SLOWEST = 16 << 10
"""Bytes a second, below which an answer is given up: a byte a second keeps every other limit."""
MAX_SKIPPED = 64 << 20
"""Bytes before a range that are passed over where a server answers with the whole file."""
MAX_PAUSE = 300.0
"""s, the longest wait that Retry-After may ask for: the hub counts requests by 5 minutes."""
T = TypeVar("T")


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


def with_retries(what: str, call: Callable[[], T]) -> T:
    """`call()`, tried again on 429, 5xx and broken connections; a refusal is a readable error."""
    from huggingface_hub import errors

    retried: tuple[type[Exception], ...] = (
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        *connection_errors(),
    )
    for attempt in range(TRIES):
        try:
            return call()
        except retried as error:
            refused = final_error(what, error)
            if refused is not None:
                raise refused from error
            if attempt == TRIES - 1:
                raise ConnectionError(
                    f"{what}: the hub does not answer after {TRIES} attempts ({error}). Try again "
                    "later: finished parts are kept; or name a local copy with data:"
                ) from error
            time.sleep(retry_delay(attempt, error))
    raise AssertionError("unreachable")


def final_error(what: str, error: Exception) -> Exception | None:
    """The error to raise for an answer that another attempt would not change; else null."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return ValueError(
            f"{what}: HF_HUB_OFFLINE is set. Unset it, or name a local copy with data:"
        )
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/datasets/{parse_url(what)[0]}"
        return ValueError(
            f"{what}: access is gated. Ask for it on {page} with your account, then set HF_TOKEN "
            "to a token of it; or name a local copy with data:"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(f"{what}: the hub has no such revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ValueError(
            f"{what}: the hub has no such dataset, or it is private and HF_TOKEN is missing or may "
            "not see it. Check the name, set HF_TOKEN, or name a local copy with data:"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return FileNotFoundError(f"{what}: the hub has no such file")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and status != 429 and status < 500:
        return ValueError(f"{what}: the hub answered {status}: {error}")
    return None


def retry_delay(attempt: int, error: Exception) -> float:
    """Seconds to wait before the next attempt: what the hub asks for, else 1, 2, 4, 8, 8."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("Retry-After", ""))
    return min(float(asked), MAX_PAUSE) if asked.isdigit() else min(2.0**attempt, 8.0)


def connection_errors() -> tuple[type[Exception], ...]:
    """The exceptions of a connection that broke, in the HTTP library that the client uses."""
    from huggingface_hub import get_session

    library = import_module(type(get_session()).__module__.partition(".")[0])
    return (library.TransportError, ConnectionError, TimeoutError)


def has_token() -> bool:
    """Whether this machine has a token of the hub (HF_TOKEN, or of `hf auth login`)."""
    from huggingface_hub import get_token

    return get_token() is not None


def has_access(repo: str) -> bool:
    """Whether this machine may read the dataset's files; asks the hub."""
    from huggingface_hub import HfApi, errors

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
    files = []
    for entry in entries:
        name = entry.path[len(path) :].lstrip("/") if path else entry.path
        if isinstance(entry, RepoFile) and not passed_over(name):
            files.append((name, hub_url(repo, commit, entry.path), entry.size, content_of(entry)))
    return commit, sorted(files)


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
    raw = Verified(RangeReader(url, size), url=url, size=size, content=content)
    return cast(BinaryIO, io.BufferedReader(raw, buffer_size=PIECE if scattered else BLOCK))


def stated(url: str) -> tuple[int, str]:
    """(bytes of the hub file, hash of its content); raises FileNotFoundError where it is not."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repo, revision, path = parse_url(url)
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
    found = Path(
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
    parts = datasets.load_dataset(path, streaming=True)
    if split and split not in parts:
        raise ValueError(f"{path}: no split {split!r}; found {', '.join(parts)}.")
    for part in [split] if split else parts:
        rows = parts[part]
        yield from rows.decode(False) if hasattr(rows, "decode") else rows
