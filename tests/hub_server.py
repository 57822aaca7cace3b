"""A hub on loopback: the HTTP interface that `huggingface_hub` and `datasets` use.

Branches are lists of commits, a commit is a mapping from path to blob. Large files arrive by the
LFS protocol and are checked against their SHA-256; a commit that names a blob which never arrived
whole is refused, as at the real hub. `faults` makes requests fail: each rule is used up `times`.

    with Hub() as hub:                     # empty; what is pushed lies in memory
    with Hub(folder) as hub:               # the data sets of folder/ORG/NAME, as they are now
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

Of a folder, trees come by pages, and large files from another port, as from a CDN.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import yaml

ROOT = Path(__file__).parents[1]
REGULAR_BYTES = 1_000
"""Files above this, and those of LFS endings, are large (10 MB at the real hub)."""
LFS_ENDINGS = (".arrow", ".parquet", ".safetensors")
COMMIT = "c0ffee" + "0" * 34
"""Of what lies in a folder."""
PAGE = 2
"""Entries of a tree in one answer, of what lies in a folder."""


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, str]  # path -> sha256 of its content


@dataclass
class Repository:
    kind: str  # dataset or model
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def commit(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        every = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in every if commit.oid == revision), None)


@dataclass
class Fault:
    """Requests of this method and path fail `times` times: with a status, or a broken connection.

    `after` runs the request first: what it did stays, only the answer is lost.
    """

    method: str  # a regular expression, as `path`
    path: str
    status: int = 500  # 0: the connection is closed without an answer
    times: int = 1
    after: bool = False
    cut: bool = False  # the answer breaks off


class Hub:
    """The server, its repositories and what was asked of it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, str]] = []
        """(path, Authorization header) of every request."""
        self.served: dict[str, int] = defaultdict(int)
        """Bytes of content served, by file."""
        self.redirected: dict[str, str] = {}
        """Blobs that have been sent for to the other port: their paths."""
        self.gated = ""
        """The token that opens the repositories; empty: they are open to all."""
        self.gated_repo = ""
        """The one repository behind the gate; empty: all are."""
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.stack = ExitStack()
        handler = type("Bound", (Handler,), {"hub": self})
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)

    def __enter__(self) -> "Hub":
        for server in self.servers:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            self.stack.callback(thread.join)
            self.stack.callback(server.server_close)
            self.stack.callback(server.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def environment(self, home: Path, *, token: str = "") -> dict[str, str]:
        """Of a child process whose hub this is: HF_ENDPOINT and HF_TOKEN are read at import."""
        offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN")
        inherited = {name: value for name, value in os.environ.items() if name not in offline}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            **({"HF_TOKEN": token} if token else {}),
        }

    def commits(self, repo: str, kind: str = "dataset", branch: str = "main") -> list[Commit]:
        """The commits of a branch beyond the first, empty one."""
        return self.repositories[kind, repo].branches[branch][1:]

    def file(self, repo: str, path: str, kind: str = "dataset", branch: str = "main") -> bytes:
        return self.blobs[self.repositories[kind, repo].branches[branch][-1].files[path]]

    def files(self, repo: str, kind: str = "dataset", branch: str = "main") -> set[str]:
        return set(self.repositories[kind, repo].branches[branch][-1].files)

    def count(self, method: str, path: str) -> int:
        """Requests of a method whose path matches a regular expression."""
        return sum(m == method and re.search(path, p) is not None for m, p in self.requests)

    def put_blob(self, data: bytes) -> str:
        oid = hashlib.sha256(data).hexdigest()
        self.blobs[oid] = data
        return oid


def is_large(path: str, size: int) -> bool:
    return path.endswith(LFS_ENDINGS) or size > REGULAR_BYTES


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers one request by the first route that matches."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, method: str) -> None:
        path = urlparse(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunked()
        with self.hub.lock:
            self.hub.requests.append((method, path))
            self.hub.tokens.append((path, self.headers.get("Authorization", "")))
            fault = next(
                (
                    f
                    for f in self.hub.faults
                    if f.times and re.fullmatch(f.method, method) and re.search(f.path, path)
                ),
                None,
            )
            if fault:
                fault.times -= 1
                if fault.after:
                    self.route(method, path, body)
                if fault.status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault.cut:
                    self.reply(206 if "Range" in self.headers else 200, b"x" * 10,
                               {"Content-Length": "100000"})  # fmt: skip
                    self.close_connection = True
                    return
                self.reply(fault.status, {"error": "injected"}, {"Retry-After": "0"})
                return
            status, value, headers = self.route(method, path, body)
        self.reply(status, value, headers)

    def chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        if status >= 400 and isinstance(value, dict):
            self.send_header("X-Error-Message", str(value.get("error")))
            if value.get("code"):
                self.send_header("X-Error-Code", value["code"])
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def route(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        asked = re.match(r"/(?:api/)?datasets/([^/]+/[^/]+)", unquote(path))
        token = self.headers.get("Authorization", "")
        behind = self.hub.gated and asked and self.hub.gated_repo in ("", asked[1])
        if behind and token != f"Bearer {self.hub.gated}":
            return 403 if token else 401, GATED, {}
        for wanted, pattern, function in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method in wanted:
                parts = [unquote(part) for part in found.groups() if part is not None]
                return function(self, parts, body)
        return 404, {"error": f"no route for {method} {path}"}, {}

    def do_GET(self) -> None:
        self.answer("GET")

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def query(self, name: str) -> str:
        return parse_qs(urlparse(self.path).query).get(name, [""])[0]


Answer = tuple[int, Any, dict[str, str]]
NO_REPO: Answer = (404, {"error": "Repository not found", "code": "RepoNotFound"}, {})
NO_REVISION: Answer = (404, {"error": "Invalid rev id", "code": "RevisionNotFound"}, {})
GATED = {"error": "Access to this dataset is restricted", "code": "GatedRepo"}
NO_ENTRY: Answer = (404, {"error": "Entry not found", "code": "EntryNotFound"}, {})


def create(request: Handler, _: list[str], body: bytes) -> Answer:
    asked = json.loads(body)
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    kind = asked.get("type", "model")
    url = f"{request.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in request.hub.repositories:
        return 409, {"error": "You already created this repo", "url": url}, {}
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    first = Commit(oid=hashlib.sha1(name.encode()).hexdigest(), title="initial commit", files={})
    request.hub.repositories[kind, name] = Repository(kind, private, {"main": [first]})
    return 200, {"url": url, "name": name, "id": name}, {}


def validate_yaml(request: Handler, _: list[str], body: bytes) -> Answer:
    content = json.loads(body)["content"]
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not found:
        warning = [{"message": "empty or missing yaml metadata in repo card"}]
        return 200, {"errors": [], "warnings": warning}, {}
    try:
        fields = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
    bad = [key for key in ("license", "configs", "tags") if key in fields and not fields[key]]
    if bad:
        return 400, {"errors": [{"message": f"{bad} is empty"}], "warnings": []}, {}
    return 200, {"errors": [], "warnings": []}, {}


def whoami(request: Handler, _: list[str], body: bytes) -> Answer:
    return 200, {"name": "me", "type": "user", "orgs": []}, {}


def repository(request: Handler, kind: str, name: str) -> Repository | None:
    hub = request.hub
    folder = hub.root / name if hub.root and kind.startswith("dataset") else None
    if folder is None or not folder.is_dir():
        return hub.repositories.get((kind.rstrip("s"), name))
    files = {
        path.relative_to(folder).as_posix(): hub.put_blob(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Repository("dataset", False, {"main": [Commit(COMMIT, "as it lies there", files)]})


def preupload(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, revision = parts
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    commit = found.commit(revision)
    if commit is None:
        return NO_REVISION
    files = []
    for asked in json.loads(body)["files"]:
        path, large = asked["path"], is_large(asked["path"], asked["size"])
        held = commit.files.get(path)
        oid = None
        if held is not None:
            oid = held if large else git_oid(request.hub.blobs[held])
        files.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": oid,
            }
        )
    return 200, {"files": files}, {}


def lfs_batch(request: Handler, parts: list[str], body: bytes) -> Answer:
    asked = json.loads(body)
    if asked.get("hash_algo") != "sha256" or "basic" not in asked["transfers"]:
        return 422, {"error": "unknown transfer"}, {}
    objects = []
    for blob in asked["objects"]:
        answer: dict[str, Any] = {"oid": blob["oid"], "size": blob["size"]}
        if blob["oid"] not in request.hub.blobs:
            url = request.hub.url
            answer["actions"] = {
                "upload": {"href": f"{url}/upload/{blob['oid']}", "header": {}},
                "verify": {"href": f"{url}/verify/{blob['oid']}"},
            }
        objects.append(answer)
    return 200, {"transfer": "basic", "objects": objects}, {}


def receive(request: Handler, parts: list[str], body: bytes) -> Answer:
    if hashlib.sha256(body).hexdigest() != parts[0]:
        return 400, {"error": "SHA-256 does not match"}, {}
    request.hub.put_blob(body)
    return 200, {}, {"ETag": f'"{parts[0]}"'}


def verify(request: Handler, parts: list[str], body: bytes) -> Answer:
    held = request.hub.blobs.get(parts[0])
    if held is None or len(held) != json.loads(body)["size"]:
        return 404, {"error": "object is not there"}, {}
    return 200, {}, {}


def commit(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, revision = parts
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    if revision not in found.branches:
        return NO_REVISION
    branch = found.branches[revision]
    files, title = dict(branch[-1].files), ""
    for text in body.splitlines():
        line = json.loads(text)
        key, value = line["key"], line["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, branch[-1].oid):
                return 412, {"error": "A commit has happened since. Please refresh."}, {}
        elif key == "file":
            files[value["path"]] = request.hub.put_blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in request.hub.blobs:
                return 400, {"error": f"LFS pointer of {value['path']} to a missing object"}, {}
            files[value["path"]] = value["oid"]
        elif key == "deletedFile":
            del files[value["path"]]
        elif key == "deletedFolder":
            files = {p: b for p, b in files.items() if not p.startswith(value["path"])}
        else:
            return 400, {"error": f"unknown operation {key}"}, {}
    oid = hashlib.sha1(f"{len(branch)}{title}{sorted(files.items())}".encode()).hexdigest()
    branch.append(Commit(oid=oid, title=title, files=files))
    url = f"{request.hub.url}/{kind}/{name}/commit/{oid}"
    return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}, {}


def new_branch(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, branch = parts
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    if branch in found.branches:
        return 409, {"error": "Reference already exists"}, {}
    found.branches[branch] = [found.branches["main"][-1]]
    return 200, {}, {}


def info(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name = parts[:2]
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    at = found.commit(parts[2] if len(parts) > 2 else "main")
    if at is None:
        return NO_REVISION
    siblings = [{"rfilename": path} for path in sorted(at.files)]
    about = {"id": name, "sha": at.oid, "private": found.private, "siblings": siblings}
    return 200, {**about, "tags": [], "downloads": 0, "likes": 0, "gated": False}, {}


def entry(request: Handler, path: str, oid: str) -> dict[str, Any]:
    data = request.hub.blobs[oid]
    about: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
    if is_large(path, len(data)):
        about["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
    return about


def tree(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, revision, *rest = parts
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    at = found.commit(revision)
    if at is None:
        return NO_REVISION
    folder = rest[0].strip("/") + "/" if rest and rest[0].strip("/") else ""
    below = {p: b for p, b in at.files.items() if p.startswith(folder)}
    if folder and not below:
        return NO_ENTRY
    recursive = request.query("recursive").lower() in ("1", "true")
    lines: list[dict[str, Any]] = []
    folders: set[str] = set()
    for path, blob in sorted(below.items()):
        steps = path[len(folder) :].split("/")[:-1]
        names = {folder + "/".join(steps[: k + 1]) for k in range(len(steps))}
        folders |= names if recursive else {min(names, key=len)} if names else set()
        if recursive or not steps:
            lines.append(entry(request, path, blob))
    lines += [{"type": "directory", "path": p, "size": 0, "oid": "0" * 40} for p in folders]
    if request.hub.root is None:
        return 200, lines, {}
    start = int(request.query("cursor") or 0)
    more = f"{request.hub.url}{urlparse(request.path).path}?cursor={start + PAGE}"
    more += f"&recursive={str(recursive).lower()}"
    headers = {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(lines) else {}
    return 200, lines[start : start + PAGE], headers


def paths_info(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, revision = parts
    found = repository(request, kind, name)
    if found is None:
        return NO_REPO
    at = found.commit(revision)
    if at is None:
        return NO_REVISION
    if request.headers.get("Content-Type", "").startswith("application/json"):
        asked = json.loads(body)["paths"]
    else:
        asked = parse_qs(body.decode())["paths"]
    lines = []
    for path in asked:
        if path in at.files:
            lines.append(entry(request, path, at.files[path]))
        elif any(p.startswith(path.rstrip("/") + "/") for p in at.files):
            lines.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    return 200, lines, {}


def refs(request: Handler, parts: list[str], body: bytes) -> Answer:
    found = repository(request, *parts)
    if found is None:
        return NO_REPO
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1].oid}
        for name, commits in found.branches.items()
    ]
    return 200, {"branches": branches, "tags": [], "converts": []}, {}


def resolve(request: Handler, parts: list[str], body: bytes) -> Answer:
    prefix, name, revision, path = parts if len(parts) == 4 else ("models/", *parts)
    found = repository(request, prefix.rstrip("/"), name)
    if found is None:
        return NO_REPO
    at = found.commit(revision)
    if at is None:
        return NO_REVISION
    if path not in at.files:
        return NO_ENTRY
    oid = at.files[path]
    data = request.hub.blobs[oid]
    headers = {
        "X-Repo-Commit": at.oid,
        "ETag": f'"{oid}"',
        "Accept-Ranges": "bytes",
        "X-Linked-Size": str(len(data)),
        "X-Linked-Etag": f'"{oid}"',
    }
    if request.hub.root and is_large(path, len(data)):
        request.hub.redirected[oid] = path
        return 302, b"", {**headers, "Location": f"{request.hub.cdn}/lfs/{oid}"}
    return content(request, path, data, headers)


def from_cdn(request: Handler, parts: list[str], body: bytes) -> Answer:
    path, data = request.hub.redirected[parts[0]], request.hub.blobs[parts[0]]
    return content(request, path, data, {"ETag": f'"{parts[0]}"', "Accept-Ranges": "bytes"})


def content(request: Handler, path: str, data: bytes, headers: dict[str, str]) -> Answer:
    """The file or the range of it that is asked for."""
    status = 200
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if asked:
        start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
        if start >= len(data):
            return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
        status, whole, data = 206, len(data), data[start:stop]
        headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{whole}"
    if request.command != "HEAD":
        request.hub.served[path] += len(data)
    return status, data, {**headers, "Content-Length": str(len(data))}


KIND, NAME = r"(datasets|models)", r"([^/]+/[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[[Handler, list[str], bytes], Answer]]] = [
    (("POST",), r"/api/repos/create", create),
    (("POST",), r"/api/validate-yaml", validate_yaml),
    (("GET",), r"/api/whoami-v2", whoami),
    (("POST",), rf"/api/{KIND}/{NAME}/preupload/([^/]+)", preupload),
    (("POST",), r"/(?:datasets/)?[^/]+/[^/]+\.git/info/lfs/objects/batch", lfs_batch),
    (("PUT",), r"/upload/([0-9a-f]{64})", receive),
    (("POST",), r"/verify/([0-9a-f]{64})", verify),
    (("POST",), rf"/api/{KIND}/{NAME}/commit/([^/]+)", commit),
    (("POST",), rf"/api/{KIND}/{NAME}/branch/([^/]+)", new_branch),
    (("POST",), rf"/api/{KIND}/{NAME}/paths-info/([^/]+)", paths_info),
    (("GET",), rf"/api/{KIND}/{NAME}/tree/([^/]+)(?:/(.*))?", tree),
    (("GET",), rf"/api/{KIND}/{NAME}/refs", refs),
    (("GET", "HEAD"), rf"/api/{KIND}/{NAME}/revision/([^/]+)", info),
    (("GET", "HEAD"), rf"/api/{KIND}/{NAME}", info),
    (("GET", "HEAD"), rf"/(datasets/)?{NAME}/resolve/([^/]+)/(.+)", resolve),
    (("GET", "HEAD"), r"/lfs/([0-9a-f]{64})", from_cdn),
]
