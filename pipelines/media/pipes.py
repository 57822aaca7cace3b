"""Messages between a worker and its child: pickled objects over pipes, with a deadline.

    8 bytes, little-endian: the length | that many bytes: the object, pickled

Both ends are ours: nothing that a file holds is ever unpickled.
"""

import os
import pickle
import select
import struct
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

LENGTH = struct.Struct("<Q")


def send(pipe: Any, message: object, deadline: float) -> None:
    """All of the message is in the pipe; raises TimeoutError after the deadline."""
    body = pickle.dumps(message)
    view = memoryview(LENGTH.pack(len(body)) + body)
    while view:
        _, ready, _ = select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        view = view[os.write(pipe.fileno(), view[:65536]) :]


def received(pipe: Any, deadline: float) -> Any:
    """The next message; raises TimeoutError after the deadline, EOFError where there is no end."""
    size = LENGTH.unpack(read_exactly(pipe, LENGTH.size, deadline))[0]
    return pickle.loads(read_exactly(pipe, size, deadline))


def read_exactly(pipe: Any, size: int, deadline: float) -> bytes:
    """`size` bytes of the pipe before the deadline."""
    parts = []
    while size:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(pipe.fileno(), min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_requests(stream: BinaryIO) -> Iterator[Any]:
    """Every message, until the other end closes the pipe; waits for each."""
    while header := stream.read(LENGTH.size):
        yield pickle.loads(stream.read(LENGTH.unpack(header)[0]))


def send_answer(stream: BinaryIO, message: object) -> None:
    """The message is in the pipe, however long the other end takes to read it."""
    body = pickle.dumps(message)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()
