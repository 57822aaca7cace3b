"""A proxy on loopback that breaks requests on their way to a store, then lets them through.

with Breaking("127.0.0.1", port) as proxy:
    proxy.faults.append(Fault("GET", r"\\.parquet", "short", times=2))
"""

import http.client
import re
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 3
"""So often in a row does one request fail that would come through in the end: clients try more
often than that."""
FOR_EVER = 1_000_000
HOP = {"connection", "expect", "keep-alive", "proxy-connection", "te", "transfer-encoding"}


@dataclass
class Fault:
    """The first `times` requests of this method and path fail."""

    method: str
    path: str
    """A regular expression, searched in path, query and the first kilobyte of the body (GCS has the
    name of an object there)."""
    how: int | str
    """A status; `reset`: the connection is reset before the store hears of it; `short`: half of the
    answer's body, then the connection ends; `lost`: the store does it, the answer never comes."""
    times: int = 1


@dataclass
class Breaking:
    """The proxy; `url` is what clients are told."""

    host: str
    port: int
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of each request, since it last came through."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Breaking":
        handler = type("Bound", (Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def fault_of(self, method: str, path: str, body: bytes) -> int | str | None:
        request, said = (method, path), path + body[:1024].decode("latin-1")
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                meant = fault.method == method and re.search(fault.path, said)
                patient = self.failures[request] < PATIENCE or fault.times > PATIENCE
                if meant and fault.times and patient:
                    fault.times -= 1
                    self.failures[request] += 1
                    return fault.how
            self.failures[request] = 0
        return None


class Handler(BaseHTTPRequestHandler):
    proxy: Breaking
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        if (self.headers.get("Transfer-Encoding") or "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def end(self, *, reset: bool = False) -> None:
        """No more of this connection."""
        self.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR) if not reset else self.connection.close()

    def handle_one(self) -> None:
        body = self.body()
        how = self.proxy.fault_of(self.command, self.path, body)
        if how == "reset":
            self.end(reset=True)
            return
        if isinstance(how, int):
            said = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"
            self.send_response(how)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else said)
            return
        upstream = http.client.HTTPConnection(self.proxy.host, self.proxy.port)
        kept = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
        kept["Content-Length"] = str(len(body))
        upstream.request(self.command, self.path, body=body, headers=kept)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if how == "lost":
            self.end()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"content-length", "server", "date"}:
                self.send_header(name, value)
        told = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", told or str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[: len(data) // 2] if how == "short" else data)
        if how == "short":
            self.end()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one
