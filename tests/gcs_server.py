"""Google Cloud Storage on loopback: what gcsfs asks of its JSON interface, buckets in memory.

Written after https://cloud.google.com/storage/docs/json_api/v1: objects appear whole, by a
multipart upload in one request or by a resumable session once its last chunk has come.

    with Gcs("bucket") as store:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

Answer = tuple[int, bytes | dict[str, Any], dict[str, str]]
MISSING: Answer = (404, {"error": {"code": 404, "message": "No such object"}}, {})


class Gcs:
    """The server, and what it holds: (bucket, name) -> (bytes, generation)."""

    def __init__(self, *buckets: str) -> None:
        self.buckets = set(buckets)
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.sessions: dict[str, tuple[str, str, bytearray]] = {}
        self.count = 0
        self.lock = threading.RLock()
        handler = type("Bound", (Handler,), {"gcs": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Gcs":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, bucket: str, name: str, data: bytes) -> dict[str, Any]:
        self.count += 1
        self.objects[bucket, name] = (data, self.count)
        return self.about(bucket, name)

    def about(self, bucket: str, name: str) -> dict[str, Any]:
        data, generation = self.objects[bucket, name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "etag": f"e{generation}",
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }


class Handler(BaseHTTPRequestHandler):
    gcs: Gcs
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def query(self, name: str) -> str:
        return parse_qs(urlparse(self.path).query).get(name, [""])[0]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path
        with self.gcs.lock:
            status, value, headers = self.route(path, body)
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def route(self, path: str, body: bytes) -> Answer:
        for method, pattern, function in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return function(self, [unquote(part) for part in found.groups()], body)
        return 400, {"error": {"code": 400, "message": f"no route: {self.command} {path}"}}, {}


def bucket(request: Handler, parts: list[str], body: bytes) -> Answer:
    if parts[0] not in request.gcs.buckets:
        return MISSING
    return 200, {"kind": "storage#bucket", "name": parts[0]}, {}


def listing(request: Handler, parts: list[str], body: bytes) -> Answer:
    """https://cloud.google.com/storage/docs/json_api/v1/objects/list"""
    prefix, delimiter = request.query("prefix"), request.query("delimiter")
    most = int(request.query("maxResults") or 1000)
    held = sorted(name for b, name in request.gcs.objects if b == parts[0])
    held = [name for name in held if name.startswith(prefix)]
    held = [name for name in held if name > request.query("pageToken")]
    names, folders = [], set()
    for name in held[:most]:
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.split(delimiter)[0] + delimiter)
        else:
            names.append(name)
    found: dict[str, Any] = {"kind": "storage#objects"}
    if names:
        found["items"] = [request.gcs.about(parts[0], name) for name in names]
    if folders:
        found["prefixes"] = sorted(folders)
    if held[most:]:
        found["nextPageToken"] = held[most - 1]
    return 200, found, {}


def about(request: Handler, parts: list[str], body: bytes) -> Answer:
    if (parts[0], parts[1]) not in request.gcs.objects:
        return MISSING
    if request.query("alt") == "media":
        return media(request, parts, body)
    return 200, request.gcs.about(*parts), {}


def media(request: Handler, parts: list[str], body: bytes) -> Answer:
    if (parts[0], parts[1]) not in request.gcs.objects:
        return MISSING
    data, _ = request.gcs.objects[parts[0], parts[1]]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return 200, data, {}
    start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
    if start >= len(data):
        return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
    part = data[start:stop]
    return 206, part, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}


def upload(request: Handler, parts: list[str], body: bytes) -> Answer:
    """https://cloud.google.com/storage/docs/json_api/v1/objects/insert"""
    store = parts[0]
    if store not in request.gcs.buckets:
        return MISSING
    if request.query("uploadType") == "multipart":
        mark = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
        assert mark is not None
        limit = b"--" + mark[1].encode()
        assert body.startswith(limit)
        assert body.endswith(b"\n" + limit + b"--")
        head, _, rest = body[len(limit) :].partition(b"\n\n")
        about, _, rest = rest.partition(b"\n" + limit)
        assert b"json" in head
        data = rest.partition(b"\n\n")[2][: -len(limit) - 3]
        return 200, request.gcs.put(store, json.loads(about)["name"], data), {}
    session = f"s{len(request.gcs.sessions)}"
    request.gcs.sessions[session] = (store, json.loads(body)["name"], bytearray())
    where = f"http://{request.headers['Host']}/upload/storage/v1/b/{store}/o?upload_id={session}"
    return 200, {}, {"Location": where}


def chunk(request: Handler, parts: list[str], body: bytes) -> Answer:
    """https://cloud.google.com/storage/docs/performing-resumable-uploads"""
    session = request.query("upload_id")
    if not session:
        return upload(request, parts, body)
    if session not in request.gcs.sessions:
        return MISSING
    if request.command == "DELETE":
        del request.gcs.sessions[session]
        return 499, {}, {}
    store, name, held = request.gcs.sessions[session]
    asked = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", request.headers["Content-Range"])
    assert asked is not None
    assert int(asked[1]) <= len(held)
    held[int(asked[1]) :] = body
    if asked[3] == "*" or len(held) < int(asked[3]):
        return 308, {}, {"Range": f"bytes=0-{len(held) - 1}"}
    del request.gcs.sessions[session]
    return 200, request.gcs.put(store, name, bytes(held)), {}


def delete(request: Handler, parts: list[str], body: bytes) -> Answer:
    if request.gcs.objects.pop((parts[0], parts[1]), None) is None:
        return MISSING
    return 204, b"", {}


def batch(request: Handler, parts: list[str], body: bytes) -> Answer:
    """https://cloud.google.com/storage/docs/batch: deletions, one status each."""
    answers = []
    for path in re.findall(r"^DELETE (\S+) HTTP", body.decode(), re.MULTILINE):
        found = re.fullmatch(rf"/storage/v1{OBJECT}", urlparse(path).path)
        assert found is not None
        status = delete(request, [unquote(part) for part in found.groups()], b"")[0]
        told = '{"error": {"message": "No such object"}}' if status == 404 else ""
        answers.append(
            f"\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} .\r\n\r\n{told}\r\n"
        )
    text = "--limit" + "--limit".join(answers) + "--limit--"
    return 200, text.encode(), {"Content-Type": "multipart/mixed; boundary=limit"}


OBJECT = r"/b/([^/]+)/o/(.+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[[Handler, list[str], bytes], Answer]]] = [
    (("GET",), r"/storage/v1/b/([^/]+)", bucket),
    (("GET",), r"/storage/v1/b/([^/]+)/o", listing),
    (("GET",), rf"/storage/v1{OBJECT}", about),
    (("DELETE",), rf"/storage/v1{OBJECT}", delete),
    (("GET",), rf"/download/storage/v1{OBJECT}", media),
    (("POST", "PUT", "DELETE"), r"/upload/storage/v1/b/([^/]+)/o", chunk),
    (("POST",), r"/batch/storage/v1", batch),
]
