"""A hub on loopback that speaks the read API of the real one, with faults on demand.

GET  /api/datasets/ORG/NAME[/revision/REV]       repository info
GET  /api/datasets/ORG/NAME/tree/REV[/PATH]      the tree, two entries a page
POST /api/datasets/ORG/NAME/paths-info/REV
GET, HEAD /datasets/ORG/NAME/resolve/REV/PATH    small files as they are; LFS files by redirect
GET, HEAD /lfs/SHA256                            on another port, as from a CDN, with ranges
"""

import hashlib
import json
import re
import threading
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LFS_FROM = 1000
"""Bytes from which a file is kept in LFS."""


@dataclass
class Hub:
    """The state that a test looks at."""

    root: Path
    gated: str = ""
    """The token that opens the repository; empty: open to all."""
    gated_repo: str = ""
    """The one repository behind the gate; empty: all are."""
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Part of a path -> what happens to its next requests: 429, 500, short, drop."""
    log: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Authorization header) of every request."""
    served: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes of content served, by file."""
    linked: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """LFS files that have been redirected to: content id -> name, bytes."""
    endpoint: str = ""
    cdn: str = ""

    def files(self, repo: str) -> dict[str, bytes]:
        """Every file of a repository."""
        folder = self.root / repo
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, **headers: str) -> None:
        self.send(200, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def fault(self) -> bool:
        """Whether this request meets a fault; if so it has been answered."""
        for part, faults in self.hub.faults.items():
            if part in self.path and faults:
                kind = faults.pop(0)
                if kind in ("429", "500", "503"):
                    self.send(int(kind), b"{}", Retry_After="0")
                elif kind == "short":
                    self.send_response(206 if "Range" in self.headers else 200)
                    self.send_header("Content-Length", "100000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                    self.close_connection = True
                elif kind == "drop":
                    self.close_connection = True
                return True
        return False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        self.do_GET()

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.hub.log.append((self.command, self.path, authorization))
        if self.fault():
            return
        path = unquote(urlsplit(self.path).path)
        if found := re.match(r"/lfs/([0-9a-f]{64})$", path):
            self.content_of(found[1])
            return
        found = re.match(r"/(?:api/)?datasets/([^/]+/[^/]+?)(?:/(.*))?$", path)
        if not found or not (self.hub.root / found[1]).is_dir():
            self.send(404, b"{}", X_Error_Code="RepoNotFound")
            return
        behind = self.hub.gated_repo in ("", found[1])
        if self.hub.gated and behind and authorization != f"Bearer {self.hub.gated}":
            status = 403 if authorization else 401
            message = "Access to this dataset is restricted"
            self.send(status, b"{}", X_Error_Code="GatedRepo", X_Error_Message=message)
            return
        self.of_repository(found[1], found[2] or "")

    def of_repository(self, repo: str, rest: str) -> None:
        files = self.hub.files(repo)
        verb, _, rest = rest.partition("/")
        revision, _, inside = rest.partition("/")
        if revision not in ("", "main", COMMIT):
            self.send(404, b"{}", X_Error_Code="RevisionNotFound")
        elif verb in ("", "revision"):
            self.send_json({"id": repo, "sha": COMMIT, "private": False, "siblings": []})
        elif verb == "tree":
            self.tree(files, inside)
        elif verb == "paths-info":
            asked = parse_qs(self.body.decode()).get("paths") or json.loads(self.body)["paths"]
            self.send_json([entry(name, files[name]) for name in asked if name in files])
        elif verb == "resolve":
            self.resolve(files, inside)
        else:
            self.send(404, b"{}", X_Error_Code="EntryNotFound")

    def tree(self, files: dict[str, bytes], inside: str) -> None:
        names = [name for name in files if not inside or name.startswith(f"{inside}/")]
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        headers = {}
        if start + 2 < len(names):
            base = self.path.split("?")[0]
            link = f"{self.hub.endpoint}{base}?recursive=true&cursor={start + 2}"
            headers["Link"] = f'<{link}>; rel="next"'
        self.send_json([entry(name, files[name]) for name in names[start : start + 2]], **headers)

    def resolve(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self.send(404, b"{}", X_Error_Code="EntryNotFound")
            return
        data = files[name]
        sha = hashlib.sha256(data).hexdigest()
        about = {"X_Repo_Commit": COMMIT, "ETag": f'"{sha}"', "Accept_Ranges": "bytes"}
        if len(data) >= LFS_FROM:
            self.hub.linked[sha] = (name, data)
            linked = {"X_Linked_Size": str(len(data)), "X_Linked_ETag": f'"{sha}"'}
            self.send(302, Location=f"{self.hub.cdn}/lfs/{sha}", **about, **linked)
        else:
            self.content(name, data, about)

    def content_of(self, sha: str) -> None:
        name, data = self.hub.linked[sha]
        self.content(name, data, {"ETag": f'"{sha}"', "Accept_Ranges": "bytes"})

    def content(self, name: str, data: bytes, about: dict[str, str]) -> None:
        status = 200
        if found := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", "")):
            start, stop = int(found[1]), int(found[2] or len(data) - 1) + 1
            about = {**about, "Content_Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            data, status = data[start:stop], 206
        if self.command != "HEAD":
            self.hub.served[name] += len(data)
        self.send(status, data, **about)


def entry(name: str, data: bytes) -> dict[str, object]:
    """A file in a tree."""
    sha = hashlib.sha256(data).hexdigest()
    about: dict[str, object] = {"type": "file", "oid": sha[:40], "size": len(data), "path": name}
    if len(data) >= LFS_FROM:
        about["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 134}
    return about


def serve(hub: Hub, stack: ExitStack) -> None:
    """The hub answers on two loopback ports until the stack is closed."""
    handler = type("Bound", (Handler,), {"hub": hub})
    ports = []
    for _ in range(2):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        ports.append(server.server_address[1])
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{port}" for port in ports)
