"""Where decoders run: in a child process with a time limit and a memory limit.

    worker --(kind, bytes or path, settings)--> child --Clip | element of IMAGES | Defect--> worker

Nothing of a hostile file reaches the worker but what a decoder made of it. A decoder that hangs or
dies costs its sample a verdict; the next one gets a fresh child.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.media import images, pipes
from pipelines.media.video import Clip, decode, frame_bytes
from pipelines.sources.sample import Defect

MAX_BYTES = 4 << 30
"""Encoded bytes of a video, at most."""
SECONDS_LIMIT = 120.0
"""s of decoding, after which a video is given up: a 1080p hour scanned whole takes about 60."""
MEMORY_LIMIT = 8 << 30
"""Bytes of address space of the decoding child."""


@dataclass(frozen=True)
class DecodingDefect:
    """The Defect that the child met."""

    reason: str
    detail: str


def serve_requests() -> None:
    """The child's loop: one pickled request from stdin, one pickled answer to stdout."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    calls: dict[str, Callable[..., object]] = {
        "video": decode,
        "image": images.image_facts,
        "frame": frame_bytes,
        "pdf": images.pdf_pages,
    }
    for kind, data, settings in pipes.receive_requests(sys.stdin.buffer):
        answer: object
        try:
            answer = calls[kind](data, **settings)
        except Defect as defect:
            answer = DecodingDefect(defect.reason, defect.detail)
        except MemoryError:
            answer = DecodingDefect(f"undecodable_{kind}", "more memory than a decoder may take")
        except Exception as error:
            if kind == "video":  # what a broken file leads FFmpeg's bindings to: the child ends
                raise
            answer = error
        pipes.send_answer(answers, answer)


child: subprocess.Popen[bytes] | None = None
"""The decoding child of this worker process, started when first needed."""


def decode_video(
    video: bytes | Path,
    *,
    fps: float,
    max_frames: int,
    size: int,
    start: float = 0.0,
    end: float = float("inf"),
    limit: float = SECONDS_LIMIT,
) -> Clip:
    """The clip's frames, decoded by a child process within `limit` seconds; raises Defect
    (undecodable_video, truncated_video, video_timeout, decoder_crash) where it gives none.
    """
    data = video if isinstance(video, bytes) else str(video)
    length = len(video) if isinstance(video, bytes) else video.stat().st_size
    if length > MAX_BYTES:
        raise Defect("too_many_bytes", f"{length} bytes")
    settings = {"fps": fps, "max_frames": max_frames, "size": size, "start": start, "end": end}
    clip: Clip = decode_in_child("video", data, settings, limit)
    return clip


def decode_image(data: bytes, *, limit: float = SECONDS_LIMIT) -> dict[str, Any]:
    """The IMAGES element of a still, as `images.image_record` makes it; raises Defect, besides
    (image_timeout, decoder_crash).
    """
    return {**decode_in_child("image", data, {}, limit), "bytes": data}


def decode_frame(data: bytes, size: int, *, limit: float = SECONDS_LIMIT) -> bytes:
    """What `kept` makes of an image; raises Defect as `decode_image` does."""
    made: bytes = decode_in_child("frame", data, {"size": size}, limit)
    return made


def decode_pdf(data: bytes, *, limit: float = SECONDS_LIMIT) -> list[dict[str, Any]]:
    """The IMAGES elements of a PDF's pages; raises Defect, besides (pdf_timeout, decoder_crash)."""
    made: list[dict[str, Any]] = decode_in_child("pdf", data, {}, limit)
    return made


def decode_in_child(kind: str, data: bytes | str, settings: dict[str, Any], limit: float) -> Any:
    """The child's answer within `limit` seconds; raises the Defect or the bug that it met."""
    global child
    if child is None or child.poll() is not None:
        child = start_child()
    try:
        answer = ask_child(child, (kind, data, settings), time.monotonic() + limit)
    except TimeoutError as error:
        stop_child()
        name = "image" if kind == "frame" else kind
        raise Defect(f"{name}_timeout", f"not decoded after {limit:.0f} s") from error
    except (EOFError, BrokenPipeError) as error:
        stop_child()
        raise Defect("decoder_crash", "the decoder ended its process") from error
    if isinstance(answer, DecodingDefect):
        raise Defect(answer.reason, answer.detail)
    if isinstance(answer, Exception):
        raise answer
    return answer


def start_child() -> subprocess.Popen[bytes]:
    """A new decoding child, its errors to nowhere: decord and FFmpeg chatter on every bad file."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pipelines.media.decoders import serve_requests; serve_requests()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    )


def ask_child(process: subprocess.Popen[bytes], request: object, deadline: float) -> Any:
    """The child's answer; raises TimeoutError after the deadline, EOFError where it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    pipes.send(process.stdin, request, deadline)
    return pipes.received(process.stdout, deadline)


def stop_child() -> None:
    """The child of this process, if any, is ended."""
    global child
    if child is not None:
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # it died with a request half written
        child.wait()
        child = None


atexit.register(stop_child)
