"""Where decoders run: in a child process that can do nothing else.

    worker --(kind, settings) and a descriptor of the bytes--> child --JSON and bytes--> worker

Nothing of a hostile file reaches the worker but what a decoder made of it, and that comes as data,
checked here. The child has no environment, a time limit and a memory limit, and gives up files and
network before the first request (confinement.py). A decoder that hangs or dies costs its sample a
verdict; the next one gets a fresh child. A crash or a lack of memory is believed of a fresh child
alone, so that no verdict depends on what came before.
"""

import atexit
import gc
import importlib
import json
import logging
import math
import os
import pkgutil
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.media import confinement, frames, images, pipes, video
from pipelines.media.pipes import Given
from pipelines.media.video import Clip
from pipelines.sources.sample import Defect
from tokenization.terminal import log

MAX_BYTES = 4 << 30
"""Encoded bytes of a video, at most."""
SECONDS_LIMIT = 120.0
"""s of decoding, after which a video is given up: a 1080p hour scanned whole takes about 60."""
TOGETHER_SECONDS = 30.0
"""s of decoding several stills, after which each is asked for by itself."""
START_SECONDS = 120.0
"""s that a child may take to start, on however busy a machine."""
MEMORY_LIMIT = 4 << 30
"""Bytes of address space of the decoding child."""
MAX_SECONDS = 1e9
"""s of a video, at most: thirty years."""
REASON = re.compile("[a-z_]{1,40}")
MAX_DETAIL = 300
CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pipelines.media.decoders import serve_requests; serve_requests()"
)
APART = {
    "av.__main__",
    "av.datasets",
    "PIL.__main__",
    "PIL.ImageTk",
    "PIL.ImageQt",
    "PIL.ImageShow",
}
"""Modules that no decoder asks for, and that do things when they are imported."""


def serve_requests() -> None:
    """The child's loop: a request, an answer."""
    end = socket.socket(fileno=os.dup(0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    preload(sys.argv[2:])
    gc.freeze()  # what stays is not gone through again and again
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)  # FFmpeg chatters on every bad file
    pipes.send_answer(end, {"confined": confinement.confine()})
    for request, descriptor in pipes.receive_requests(end):
        signal.setitimer(signal.ITIMER_REAL, request["limit"])  # should the worker be gone by then
        message, blobs = answered(request, descriptor)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(descriptor)
        pipes.send_answer(end, message, blobs)


def preload(more: Sequence[str]) -> None:
    """Everything that decoding may import is imported, and the packages of `more`."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ.setdefault("PATH", "")  # decord adds to it
    for name in ("av", "PIL", "encodings"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if module.name not in APART:
                with suppress(ImportError):  # of what a plugin needs and is not installed
                    importlib.import_module(module.name)
    for name in ("numpy.ma", "pypdfium2", *more):
        importlib.import_module(name)
    Image.init()


def answered(request: dict[str, Any], descriptor: int) -> tuple[dict[str, Any], list[bytes]]:
    """(what is told, bytes) of what the decoder makes of it."""
    kind, settings = request["kind"], request["settings"]
    given = Given(descriptor, request["size"])
    try:
        if kind == "video":
            clip = video.decode(given, **settings)
            about = {"seconds": clip.seconds, "duration": clip.duration, "stated": clip.stated}
            return {**about, "facts": clip.facts}, list(clip.frames)
        if kind == "image":
            return {"facts": [images.image_facts(given.read(), **settings)]}, []
        if kind == "images":
            return {"facts": [facts_or_defect(given.read(size)) for size in settings["sizes"]]}, []
        if kind == "frame":
            frame = frames.frame_bytes(given.read(), **settings)
            return {"facts": [images.image_facts(frame)]}, [frame]
        leaves = images.pdf_pages(given.read(), **settings)
        return {"facts": leaves}, [leaf.pop("bytes") for leaf in leaves]
    except Defect as defect:
        return {"defect": defect.reason, "detail": defect.detail}, []
    except MemoryError:
        return {"memory": True}, []
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        # what a broken file leads FFmpeg's bindings to
        return {"defect": "decoder_crash", "detail": told} if kind == "video" else {"bug": told}, []


def facts_or_defect(data: bytes) -> dict[str, Any] | None:
    """What is told of one image of several; null where it is to be decoded by itself."""
    try:
        return images.image_facts(data)
    except Defect as defect:
        return {"defect": defect.reason, "detail": defect.detail}
    except (
        Exception
    ):  # a bug, or no memory: asked again, it is told of the image that it belongs to
        return None


@dataclass(frozen=True)
class Child:
    """A decoding child, and this end of the socket to it."""

    process: subprocess.Popen[bytes]
    end: socket.socket
    confined: tuple[str, ...]
    """What it gave files and network up by."""
    packages: tuple[str, ...] = ()
    """What it can import besides PyAV and Pillow."""


child: Child | None = None
"""The decoding child of this worker process, started when first needed."""


def decode_video(
    data: bytes | Path,
    *,
    fps: float,
    max_frames: int,
    size: int,
    start: float = 0.0,
    end: float = math.inf,
    decoder: str = "av",
    limit: float = SECONDS_LIMIT,
) -> Clip:
    """The clip's frames, decoded by a child process within `limit` seconds; raises Defect
    (undecodable_video, truncated_video, joined_video, video_timeout, decoder_crash) where it gives
    none. A clip on which decord dies is decoded by PyAV.
    """
    settings = {"fps": fps, "max_frames": max_frames, "size": size, "start": start, "end": end}
    asked = {**settings, "decoder": decoder}
    with well_formed():
        try:
            told, blobs = decode_in_child("video", data, asked, limit)
        except Defect as defect:
            if decoder == "av" or defect.reason != "decoder_crash":
                raise
            told, blobs = decode_in_child("video", data, settings, limit)
        stated = None if told["stated"] is None else number(told["stated"])
        facts = tuple(map(checked_facts, told["facts"]))
        seconds = tuple(map(number, told["seconds"]))
        if not len(blobs) == len(facts) == len(seconds):
            raise ValueError
        return Clip(tuple(blobs), facts, seconds, number(told["duration"]), stated)


def decode_image(data: bytes, *, limit: float = SECONDS_LIMIT) -> dict[str, Any]:
    """The IMAGES element of a still, as `images.image_record` makes it; raises Defect, besides
    (image_timeout, decoder_crash).
    """
    with well_formed():
        told, _ = decode_in_child("image", data, {}, limit)
        (facts,) = told["facts"]
        return {**checked_facts(facts), "bytes": data}


def decode_images(
    encoded: Sequence[bytes], *, limit: float = TOGETHER_SECONDS
) -> list[dict[str, Any] | Defect | None]:
    """Of each still what `decode_image` gives or raises, asked for at once; null where it is to be
    asked by itself: all of them where one hangs, or ends the child.
    """
    if len(encoded) < 2:
        return [None] * len(encoded)
    sizes = [len(data) for data in encoded]
    try:
        with well_formed():
            told, _ = decode_in_child("images", encoded, {"sizes": sizes}, limit)
            pairs = zip(told["facts"], encoded, strict=True)
            return [checked_outcome(one, data) for one, data in pairs]
    except Defect:
        return [None] * len(encoded)


def checked_outcome(told: Any, data: bytes) -> dict[str, Any] | Defect | None:
    """What the child says of one still of several."""
    if told is None:
        return None
    return defect_of(told) if "defect" in told else {**checked_facts(told), "bytes": data}


def decode_frame(data: bytes, size: int, *, limit: float = SECONDS_LIMIT) -> dict[str, Any]:
    """The IMAGES element of what `frames.frame_bytes` makes of an image; raises Defect as
    `decode_image` does.
    """
    with well_formed():
        told, (made,) = decode_in_child("frame", data, {"size": size}, limit)
        (facts,) = told["facts"]
        return {**checked_facts(facts), "bytes": made}


def decode_pdf(data: bytes, *, limit: float = SECONDS_LIMIT) -> list[dict[str, Any]]:
    """The IMAGES elements of a PDF's pages; raises Defect, besides (pdf_timeout, decoder_crash)."""
    with well_formed():
        told, blobs = decode_in_child("pdf", data, {}, limit)
        leaves = zip(told["facts"], blobs, strict=True)
        return [{**checked_facts(facts), "bytes": blob} for facts, blob in leaves]


@contextmanager
def well_formed() -> Iterator[None]:
    """An answer that is not what it should be is that of a child that no longer is what it was:
    a verdict, and the child ends.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        stop_child()
        raise Defect("decoder_crash", "the decoder gave no answer") from error


def checked_facts(told: Any) -> dict[str, Any]:
    """What the child says of an image: the fields of IMAGES but its bytes, each in its bounds."""
    for name, (kind, top) in images.FACTS.items():
        if type(told[name]) is not kind or not 0 <= told[name] < top:
            raise ValueError(name)
    return {name: told[name] for name in images.FACTS} | {"seconds": None}


def number(told: Any) -> float:
    """A finite number of seconds; raises ValueError where it is none."""
    if type(told) not in (int, float) or not abs(told) < MAX_SECONDS:
        raise ValueError("seconds")
    return float(told)


def decode_in_child(
    kind: str, data: bytes | Path | Sequence[bytes], settings: dict[str, Any], limit: float
) -> tuple[dict[str, Any], list[bytes]]:
    """The child's answer within `limit` seconds; raises the Defect or the bug that it met."""
    global child
    name = "image" if kind in ("frame", "images") else kind
    packages = ("decord",) if settings.get("decoder") == "decord" else ()
    with descriptor_of(data) as (descriptor, size):
        if size > MAX_BYTES:
            raise Defect("too_many_bytes", f"{size} bytes")
        request = {"kind": kind, "settings": settings, "size": size, "limit": limit + 60}
        while True:
            if child is not None and not set(packages) <= set(child.packages):
                stop_child()
            fresh = child is None or child.process.poll() is not None
            child = start_child(packages) if fresh or child is None else child
            deadline = time.monotonic() + limit
            try:
                pipes.send_request(child.end, request, descriptor, deadline)
                message, blobs = pipes.receive_answer(child.end, deadline)
            except TimeoutError as error:
                stop_child()
                raise Defect(f"{name}_timeout", f"not decoded after {limit:.0f} s") from error
            except (EOFError, ConnectionError) as error:
                stop_child()
                if not fresh:
                    continue
                raise Defect("decoder_crash", "the decoder ended its process") from error
            if "memory" in message:
                stop_child()
                if not fresh:
                    continue
                raise Defect(f"undecodable_{name}", "more memory than a decoder may take")
            break
    if "bug" in message:
        raise RuntimeError(f"the decoder of {kind}: {message['bug']}")
    if "defect" in message:
        raise defect_of(message)
    return message, blobs


def defect_of(told: dict[str, Any]) -> Defect:
    """The defect that the child found."""
    if not REASON.fullmatch(told["defect"]):
        raise ValueError("defect")
    return Defect(told["defect"], told["detail"][:MAX_DETAIL])


@contextmanager
def descriptor_of(data: bytes | Path | Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """(a descriptor from which the bytes can be read, how many): bytes and files look alike."""
    pieces = () if isinstance(data, Path) else (data,) if isinstance(data, bytes) else data
    if isinstance(data, Path):
        try:
            descriptor = os.open(
                data, os.O_RDONLY | os.O_NONBLOCK
            )  # a FIFO would wait for a writer
        except OSError as error:
            raise Defect("unreadable_media", error.strerror or "it cannot be opened") from error
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("encoded")
    else:
        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    try:
        place = 0
        for piece in pieces:
            written = 0
            while written < len(piece):
                written += os.pwrite(descriptor, memoryview(piece)[written:], place + written)
            place += written
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Defect("missing_media", "a path that is no file")
        yield descriptor, about.st_size
    finally:
        os.close(descriptor)


def start_child(packages: tuple[str, ...] = ()) -> Child:
    """A new decoding child, with no environment but where its libraries lie, that has given up
    files and network; raises RuntimeError where it does not start.
    """
    ours, theirs = socket.socketpair()
    places = [str(Path(place or ".").absolute()) for place in sys.path]
    kept = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", CODE, json.dumps(places), *packages],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=kept,
        )
        theirs.close()  # so that its end is seen here
        try:
            hello, _ = pipes.receive_answer(ours, time.monotonic() + START_SECONDS)
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.wait()
            ours.close()
            errors.seek(0)
            told = errors.read().decode(errors="replace").strip()
            why = told or repr(error)
            raise RuntimeError(f"the decoding child does not start: {why}") from error
    tell_if_unconfined(tuple(hello["confined"]))
    return Child(process, ours, tuple(hello["confined"]), packages)


@cache
def tell_if_unconfined(means: tuple[str, ...]) -> None:
    """One line, once a process, where decoders keep what they should have given up."""
    if "seccomp" not in means:
        only = f"only {', '.join(means)}" if means else "nothing"
        log(
            f"decoders are confined by {only} on this machine: docs/security.md",
            level=logging.WARNING,
        )


def stop_child() -> None:
    """The child of this process, if any, is ended."""
    global child
    if child is not None:
        child.process.kill()
        child.end.close()
        child.process.wait()
        child = None


atexit.register(stop_child)
