"""Messages between a worker and its decoding child: JSON and bytes over a socket.

    8 bytes, little-endian: the length | JSON, whose `sizes` say how long each of the | bytes

A request brings a file descriptor along, from which the child reads what is to be decoded. Both
sides read data, never objects: what a hostile file makes of the child cannot run in the worker.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

LENGTH = struct.Struct("<Q")
MAX_JSON = 64 << 20
MAX_BYTES = 2 << 30
"""Of an answer."""


class Given:
    """What lies behind a file descriptor, read from wherever one stands: a file for PyAV."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size, self.place = descriptor, size, 0

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes from here; all that are left without a count."""
        left = self.size - self.place if count < 0 else count
        parts = []
        while left > 0 and (part := os.pread(self.descriptor, min(left, 1 << 30), self.place)):
            parts.append(part)
            self.place += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The place one stands at afterwards."""
        self.place = max(0, offset + (0, self.place, self.size)[whence])
        return self.place

    def tell(self) -> int:
        """The place one stands at."""
        return self.place


def send_request(
    end: socket.socket, message: dict[str, Any], descriptor: int, deadline: float
) -> None:
    """The request is at the other end; raises TimeoutError after the deadline."""
    body = json.dumps(message).encode()
    end.settimeout(max(1e-3, deadline - time.monotonic()))
    sent = socket.send_fds(end, [LENGTH.pack(len(body)), body], [descriptor])
    assert sent == LENGTH.size + len(body), "a request is short"


def receive_requests(end: socket.socket) -> Iterator[tuple[dict[str, Any], int]]:
    """(message, descriptor) of every request, until the other end closes; waits for each."""
    while True:
        head, descriptors, *_ = socket.recv_fds(end, LENGTH.size, 1)
        if not head:
            return
        head += read_exactly(end, LENGTH.size - len(head))
        yield json.loads(read_exactly(end, LENGTH.unpack(head)[0])), descriptors[0]


def send_answer(end: socket.socket, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """The answer is at the other end, however long that takes to read it."""
    body = json.dumps({**message, "sizes": [len(blob) for blob in blobs]}).encode()
    for part in (LENGTH.pack(len(body)), body, *blobs):
        end.sendall(part)


def receive_answer(end: socket.socket, deadline: float) -> tuple[dict[str, Any], list[bytes]]:
    """The next answer; raises TimeoutError after the deadline, EOFError where there is no whole
    one.
    """
    (size,) = LENGTH.unpack(read_exactly(end, LENGTH.size, deadline))
    if size > MAX_JSON:
        raise EOFError(f"an answer of {size} bytes")
    try:
        message = json.loads(read_exactly(end, size, deadline))
        sizes = [int(size) for size in message["sizes"]]
    except (ValueError, TypeError, KeyError) as error:
        raise EOFError("an answer that is none") from error
    if min(sizes, default=0) < 0 or sum(sizes) > MAX_BYTES:
        raise EOFError(f"an answer of {sum(sizes)} bytes")
    return message, [read_exactly(end, size, deadline) for size in sizes]


def read_exactly(end: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """`size` bytes of the socket before the deadline, if there is one."""
    parts = []
    while size:
        if deadline is not None:
            end.settimeout(max(1e-3, deadline - time.monotonic()))
        part = end.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
