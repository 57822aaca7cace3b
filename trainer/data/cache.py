"""Shards of a mixture at a URL, on this machine's disk: whole files, within a bound.

    shard --there--> its path
          --not----> room is made (the least recently used go), read by ranges into a draft, renamed

Every process of the machine shares one cache: a draft is locked by the one that fetches it, the
others wait for it; what a process that died left is found by its missing lock. A shard that goes
while it is mapped elsewhere stays readable there. Recipe, index and tokenizer are copied once and
do not count.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer.data import integrity

RANGE_BYTES = 16 << 20
"""Bytes of one request."""
ATTEMPTS = 5
"""Tries at a request, 1, 2, 4, 8 s apart."""
COUNTERS = 16
"""Shards whose footers are read at a time: each waits for a few small requests."""
OURS = re.compile(
    r"recipe\.json|index\.arrow|tokenizer/[A-Za-z0-9_][\w.-]*|shards/(?:train|val)-\d{5,}\.arrow"
)
"""Names of a finished mixture's files that are taken: none leads out of its folder."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A finished mixture at a URL, and its place in the cache."""

    url: str
    folder: Path
    """In the cache: recipe.json, index.arrow, tokenizer/, and of shards/ what fits."""
    sizes: dict[str, int]
    """Every shard and its bytes."""
    max_bytes: int
    """Of all shards in the cache; 0: no bound."""


def cached_mixture(url: str, *, cache: str, max_bytes: int) -> Remote:
    """The mixture at `url` with everything but its shards in the cache, a folder per content.

    `cache` empty: the user's own cache folder. Of what lies there only files of our own names are
    taken, and what the recipe says of them is compared.

    Raises:
        FileNotFoundError: no finished mixture there.
    """
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    path = path.rstrip("/")
    if not filesystem.exists(f"{path}/recipe.json"):
        raise FileNotFoundError(f"data={url}: no recipe.json there, so it is no finished mixture.")
    recipe = filesystem.cat_file(f"{path}/recipe.json")
    root = private_folder(Path(cache) if cache else integrity.cache_folder() / "mixtures")
    folder = root / hashlib.sha256(recipe).hexdigest()[:32]
    (folder / "shards").mkdir(mode=0o700, parents=True, exist_ok=True)
    files = _files_of(recipe)
    sizes = {}
    for source, about in filesystem.find(path, detail=True).items():
        name = source.rpartition(path.strip("/") + "/")[2]
        if not OURS.fullmatch(name):
            continue
        if name.startswith("shards/"):
            sizes[name.removeprefix("shards/")] = int(about["size"])
        else:
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                arriving = target.with_name(f".{target.name}.{os.getpid()}.arriving")
                filesystem.get_file(source, str(arriving))
                said = files.get(name, {}).get("sha256")
                if said and integrity.sha256_of(arriving) != said:
                    arriving.unlink()
                    raise ValueError(
                        f"{url}/{name}: its SHA-256 is not that of the recipe beside it. Somebody "
                        "changed it: get the mixture from where it was published."
                    )
                arriving.replace(target)
    return Remote(url=url.rstrip("/"), folder=folder, sizes=sizes, max_bytes=max_bytes)


def _files_of(recipe: bytes) -> dict[str, Any]:
    """What the recipe says of the files beside it; an early one says nothing."""
    try:
        files = json.loads(recipe).get("files", {})
    except (ValueError, AttributeError):
        return {}  # that it is no recipe is said where it is opened
    return files if isinstance(files, dict) else {}


def private_folder(folder: Path) -> Path:
    """The folder, which is this user's and which nobody else may write to.

    Raises:
        ValueError: it is another user's, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise ValueError(
            f"cache={folder}: it is user {about.st_uid}'s with rights {about.st_mode & 0o777:o}\n"
            "expected: a folder of your own that nobody else may write to, as shards in it are "
            f"trained on\nway out: name another with cache=, or: chmod 700 {folder}"
        )
    return folder


def fetch(remote: Remote, shard: str) -> Path:
    """The shard's path, whole, and the most recently used of the cache."""
    final = remote.folder / "shards" / shard
    draft = final.with_name(f".{shard}.arriving")
    while True:
        try:
            os.utime(final)
        except FileNotFoundError:
            pass
        else:
            return final
        file = os.open(draft, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for whoever is fetching it
            if final.exists() or not _is_same(file, draft):
                continue
            reserve_space(remote, file, remote.sizes[shard])
            download(remote, shard, file)
            draft.replace(final)
        except BaseException:
            if _is_same(file, draft):
                draft.unlink()
            raise
        finally:
            os.close(file)


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def reserve_space(remote: Remote, file: int, size: int) -> None:
    """`file` is `size` bytes long and the cache within its bound; others' unused shards may go.

    Raises:
        ValueError: the bound is below `size`.
    """
    os.truncate(file, 0)  # what a process that died left in it
    if not remote.max_bytes:
        return
    if size > remote.max_bytes:
        raise ValueError(
            f"cache_bytes is {remote.max_bytes:,}, but {remote.url} has a shard of {size:,} bytes. "
            "Set cache_bytes to that at least."
        )
    root = remote.folder.parent
    while True:
        with cache_lock(root / ".lock"):
            for left in root.glob("*/shards/.*.arriving"):
                remove_dead(left)
            drafts = sum(_size(path) for path in root.glob("*/shards/.*.arriving"))
            ages = sorted((_age(path), path) for path in root.glob("*/shards/*.arrow"))
            used = drafts + sum(_size(path) for _, path in ages)
            while ages and used + size > remote.max_bytes:
                _, oldest = ages.pop(0)
                used -= _size(oldest)
                oldest.unlink()
            if used + size <= remote.max_bytes:
                os.truncate(file, size)
                return
        time.sleep(0.05)  # other shards are arriving; each then may go


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a draft that has just been renamed
        return 0


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def remove_dead(draft: Path) -> None:
    """The draft is gone where nobody fetches it any more."""
    try:
        file = os.open(draft, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        draft.unlink(missing_ok=True)
    finally:
        os.close(file)


@contextmanager
def cache_lock(path: Path) -> Iterator[None]:
    """This process alone, of all that share the cache, is here."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def download(remote: Remote, shard: str, file: int) -> None:
    """`file` holds the shard, synced."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(f"{remote.url}/shards/{shard}")
    size = remote.sizes[shard]
    for start in range(0, size, RANGE_BYTES):
        stop = min(start + RANGE_BYTES, size)
        what = f"{remote.url}/shards/{shard}, bytes {start} to {stop}"
        os.pwrite(file, _range(filesystem, path, start, stop, what=what), start)
    os.fsync(file)


def _range(filesystem: Any, path: str, start: int, stop: int, *, what: str) -> bytes:
    def once() -> bytes:
        found: bytes = filesystem.cat_file(path, start=start, end=stop)
        if len(found) != stop - start:
            raise ConnectionError(f"{what}: {len(found)} bytes came")
        return found

    return with_retries(once, what=what)


def with_retries(call: Callable[[], bytes], *, what: str) -> bytes:
    """What `call` returns, tried again on errors that may pass."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except (FileNotFoundError, PermissionError):
            raise
        except (OSError, TimeoutError):
            time.sleep(2**attempt)
    try:
        return call()
    except (OSError, TimeoutError) as error:
        error.add_note(f"{what}: failed {ATTEMPTS} times")
        raise


def batch_rows(remote: Remote, shards: Sequence[str]) -> list[list[int]]:
    """Rows of every record batch of each shard, by a few small reads a shard, once per cache."""
    kept = remote.folder / "batch_rows.json"
    known: dict[str, list[int]] = json.loads(kept.read_text()) if kept.is_file() else {}
    new = [shard for shard in shards if shard not in known]
    if new:
        with ThreadPoolExecutor(COUNTERS) as pool:
            counted = pool.map(lambda shard: _counted(remote, shard), new)
            known |= dict(zip(new, counted, strict=True))
        draft = kept.with_name(f".batch_rows.{os.getpid()}")
        draft.write_text(json.dumps(known))
        draft.replace(kept)
    return [known[shard] for shard in shards]


def _counted(remote: Remote, shard: str) -> list[int]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(f"{remote.url}/shards/{shard}")
    with filesystem.open(path, "rb", block_size=64 << 10) as stream:
        source = pa.PythonFile(stream, mode="r")
        column = pa.ipc.open_file(source).schema.get_field_index("seq_lengths")  # a narrow one
        options = pa.ipc.IpcReadOptions(included_fields=[column])
        reader = pa.ipc.open_file(source, options=options)
        return [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)]
