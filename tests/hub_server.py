"""A hub on loopback: the HTTP interface that `huggingface_hub` and `datasets` use.

Branches are lists of commits, a commit is a mapping from path to blob. Large files arrive by the
LFS protocol and are checked against their SHA-256; a commit that names a blob which never arrived
whole is refused, as at the real hub. `faults` makes requests fail: each rule is used up `times`.

    with Hub() as hub:                     # empty; what is pushed lies in memory
    with Hub(folder) as hub:               # the data sets of folder/ORG/NAME, as they are now
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

Of a folder, trees come by pages, and large files from another port, as from a CDN.
"""

import hashlib
import json
import os
import re
import threading
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from tests import hub_routes
from tests.hub_routes import Commit, Repository

ROOT = Path(__file__).parents[1]


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
            return 403 if token else 401, hub_routes.GATED, {}
        for wanted, pattern, function in hub_routes.ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method in wanted:
                parts = [unquote(part) for part in found.groups() if part is not None]
                try:
                    return function(self, parts, body)
                except hub_routes.Refused as refused:
                    return refused.answer
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
