"""What the hub on loopback holds, and what it answers, route by route; `hub_server` serves it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

import yaml

if TYPE_CHECKING:
    from tests.hub_server import Handler

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


def is_large(path: str, size: int) -> bool:
    return path.endswith(LFS_ENDINGS) or size > REGULAR_BYTES


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


Answer = tuple[int, Any, dict[str, str]]
NO_REPO: Answer = (404, {"error": "Repository not found", "code": "RepoNotFound"}, {})
NO_REVISION: Answer = (404, {"error": "Invalid rev id", "code": "RevisionNotFound"}, {})
GATED = {"error": "Access to this dataset is restricted", "code": "GatedRepo"}
NO_ENTRY: Answer = (404, {"error": "Entry not found", "code": "EntryNotFound"}, {})


class Refused(Exception):
    """The request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


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


def repository(request: Handler, kind: str, name: str) -> Repository:
    """What there is of that name; raises Refused where there is nothing."""
    hub = request.hub
    folder = hub.root / name if hub.root and kind.startswith("dataset") else None
    if folder is None or not folder.is_dir():
        found = hub.repositories.get((kind.rstrip("s"), name))
        if found is None:
            raise Refused(NO_REPO)
        return found
    files = {
        path.relative_to(folder).as_posix(): hub.put_blob(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Repository("dataset", False, {"main": [Commit(COMMIT, "as it lies there", files)]})


def commit_at(found: Repository, revision: str) -> Commit:
    """What stands at the revision; raises Refused where nothing does."""
    at = found.commit(revision)
    if at is None:
        raise Refused(NO_REVISION)
    return at


def preupload(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name, revision = parts
    commit = commit_at(repository(request, kind, name), revision)
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
    if branch in found.branches:
        return 409, {"error": "Reference already exists"}, {}
    found.branches[branch] = [found.branches["main"][-1]]
    return 200, {}, {}


def info(request: Handler, parts: list[str], body: bytes) -> Answer:
    kind, name = parts[:2]
    found = repository(request, kind, name)
    at = commit_at(found, parts[2] if len(parts) > 2 else "main")
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
    at = commit_at(repository(request, kind, name), revision)
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
    at = commit_at(repository(request, kind, name), revision)
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
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1].oid}
        for name, commits in found.branches.items()
    ]
    return 200, {"branches": branches, "tags": [], "converts": []}, {}


def resolve(request: Handler, parts: list[str], body: bytes) -> Answer:
    prefix, name, revision, path = parts if len(parts) == 4 else ("models/", *parts)
    at = commit_at(repository(request, prefix.rstrip("/"), name), revision)
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
