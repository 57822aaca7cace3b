"""Decoders run in a child of their own: what a bad file costs, and what the child cannot do."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.media import decoders, images
from pipelines.sources.sample import Defect
from tests.pipelines.media.clips import encoded, noise
from tests.pipelines.sources.making import encoded_video, png

ALL = {"fps": 1.0, "max_frames": 64, "size": 512}


def page() -> bytes:
    """A PDF of one page."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PDF")
    return buffer.getvalue()


DECODERS = {
    "video": lambda folder, **limit: (
        decoders.decode_video(encoded_video(folder / "v.mp4"), **ALL, **limit).frames
    ),
    "image": lambda folder, **limit: [decoders.decode_image(png(), **limit)],
    "pdf": lambda folder, **limit: decoders.decode_pdf(page(), **limit),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_hangs_costs_one_sample_and_the_next_gets_a_fresh_child(tmp_path, kind):
    call = DECODERS[kind]
    whole = call(tmp_path)
    assert decoders.child is not None
    first = decoders.child.process.pid
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(Defect, match=f"{kind}_timeout"):
        call(tmp_path, limit=1)
    assert call(tmp_path) == whole
    assert decoders.child.process.pid != first


GREETS = (
    "import os, socket; from pipelines.media import pipes; end = socket.socket(fileno=os.dup(0));"
    "pipes.send_answer(end, {'confined': []});"
)


def hostile_child(monkeypatch, code: str) -> None:
    """The next decoding children run this, once they have greeted."""
    decoders.stop_child()
    setup = decoders.CODE.split("from")[0]
    monkeypatch.setattr(decoders, "CODE", setup + GREETS + code)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_dies_costs_one_sample(tmp_path, monkeypatch, kind):
    true = decoders.CODE
    hostile_child(monkeypatch, "end.recv(1); os._exit(139)")
    with pytest.raises(Defect, match="decoder_crash"):
        DECODERS[kind](tmp_path)
    monkeypatch.setattr(decoders, "CODE", true)
    assert DECODERS[kind](tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        "(1 << 60).to_bytes(8, 'little')",  # more than there is memory for
        "(9).to_bytes(8, 'little') + b'not JSON!'",
        "(13).to_bytes(8, 'little') + b'{\"sizes\": 3}'",
        "(19).to_bytes(8, 'little') + b'{\"sizes\": [1, -5]}'",
        "(22).to_bytes(8, 'little') + b'{\"sizes\": [9999999999]}'",
        "(12).to_bytes(8, 'little') + b'{\"sizes\":[]}'",  # no facts
        "(26).to_bytes(8, 'little') + b'{\"sizes\": [], \"facts\": 7}'",
        "__import__('pickle').dumps(print)",
    ],
)
def test_answers_are_data_and_are_checked(monkeypatch, answer):
    """What a file has made of its decoder cannot harm the worker, nor end the build."""
    hostile_child(monkeypatch, f"end.recv(1); end.sendall({answer}); os._exit(0)")
    with pytest.raises(Defect, match="decoder_crash"):
        decoders.decode_image(png())
    decoders.stop_child()


def test_a_child_that_does_not_start_is_an_error_that_says_why(monkeypatch):
    decoders.stop_child()
    monkeypatch.setattr(decoders, "CODE", "raise SystemExit('no such library')")
    with pytest.raises(RuntimeError, match="does not start: no such library"):
        decoders.decode_image(png())


def test_a_crash_is_believed_of_a_fresh_child_alone(monkeypatch):
    """What an earlier file did to the child costs the next one nothing."""
    data = png()
    expected = decoders.decode_image(data)
    assert decoders.child is not None
    os.kill(decoders.child.process.pid, signal.SIGKILL)
    assert decoders.decode_image(data) == expected


def test_the_child_says_of_stills_what_they_are_and_of_bugs_that_they_are_bugs():
    data = png(40, 30)
    assert decoders.decode_image(data) == images.image_record(data)
    with pytest.raises(Defect, match="undecodable_image"):
        decoders.decode_image(data[:60])
    with pytest.raises(Defect, match="undecodable_pdf"):
        decoders.decode_pdf(b"%PDF-1.4 nothing")
    (leaf,) = decoders.decode_pdf(page())
    assert leaf == images.image_record(leaf["bytes"])
    assert max(leaf["width"], leaf["height"]) == images.PAGE_EDGE
    with pytest.raises(RuntimeError, match=r"TypeError.*unheard"):
        decoders.decode_in_child("image", data, {"unheard": 1}, 60)


def alone(data: bytes) -> dict | str:
    """What `decode_image` gives, or the reason of what it raises."""
    try:
        return decoders.decode_image(data)
    except Defect as defect:
        return defect.reason


def test_stills_decoded_together_are_as_each_by_itself():
    data = [png(40, 30, seed=n) for n in range(6)]
    data[1], data[3], data[4] = data[1][:60], b"", png(9, 9, kind="JPEG")
    found = decoders.decode_images(data)
    told = [one.reason if isinstance(one, Defect) else one for one in found]
    assert told == [alone(one) for one in data]
    assert told[1] == told[3] == "undecodable_image"


@pytest.mark.parametrize(
    "code", ["os._exit(139)", "end.sendall(b'no answer')", "end.recv(1 << 20)"]
)
def test_where_decoding_together_fails_each_is_asked_for_by_itself(monkeypatch, code):
    hostile_child(monkeypatch, f"end.recv(1 << 16); {code}; os._exit(1)")
    assert decoders.decode_images([png(), png()], limit=2) == [None, None]
    monkeypatch.undo()
    decoders.stop_child()
    assert decoders.decode_images([png()]) == [None]  # one alone is asked for alone


def test_the_child_ends_with_its_worker(tmp_path):
    path = encoded_video(tmp_path / "v.mp4")
    code = (
        "import sys; from pathlib import Path; from pipelines.media import decoders;"
        "decoders.decode_video(Path(sys.argv[1]), fps=1, max_frames=4, size=64);"
        "print(decoders.child.process.pid)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_long_video_is_read_in_bounded_memory(tmp_path):
    """The child's peak stays far below decord's 2 GB, whatever the clip."""
    path = encoded_video(tmp_path / "v.mp4", seconds=12, fps=2, size=(1920, 1080), gop=24)
    decoders.stop_child()
    clip = decoders.decode_video(path, **ALL)
    assert len(clip.frames) == 12
    assert decoders.child is not None
    status = Path(f"/proc/{decoders.child.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 1_000_000, f"{peak} kB"


def test_the_child_has_no_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    decoders.stop_child()
    decoders.decode_image(png())
    assert decoders.child is not None
    environment = Path(f"/proc/{decoders.child.process.pid}/environ").read_bytes()
    names = {entry.split(b"=")[0] for entry in environment.split(b"\0") if entry}
    assert names <= {b"LD_LIBRARY_PATH", b"LC_CTYPE"}


CONFINED = """
import json, os, socket, subprocess, threading
from pathlib import Path
from pipelines.media.confinement import confine

held = confine()
def outcome(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__
    return "done"

done = []
thread = threading.Thread(target=lambda: done.append(1)); thread.start(); thread.join()
print(json.dumps({
    "held": held,
    "threads": done == [1],
    "read": outcome(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "write": outcome(lambda: Path(FOLDER, "made").write_text("x")),
    "list": outcome(lambda: os.listdir("/")),
    "udp": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "tcp": outcome(lambda: socket.create_server(("127.0.0.1", 0))),
    "unix": outcome(lambda: socket.socketpair()),
    "program": outcome(lambda: os.execv("/bin/true", ["true"])),
    "fork": outcome(os.fork),
    "kill": outcome(lambda: os.kill(os.getppid(), 0)),
}))
"""


def test_a_confined_process_opens_no_file_and_no_socket_and_starts_no_program(tmp_path):
    code = CONFINED.replace("FOLDER", repr(str(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    told = json.loads(done.stdout)
    if "seccomp" not in told.pop("held"):
        pytest.skip("this kernel confines no process")
    assert told.pop("threads")
    assert set(told.values()) == {"PermissionError"}, told
    assert not (tmp_path / "made").exists()


def odd_clips() -> dict[str, bytes]:
    """Whole, cut, joined and odd ones."""
    shown = [noise(n) for n in range(20)]
    found = {}
    for kind in ("mp4", "mkv", "webm", "flv", "avi", "ts"):
        data = encoded(kind, shown)
        found[kind] = data
        for share in (30, 60, 95):
            found[f"{kind} {share}"] = data[: len(data) * share // 100]
    narrow = [noise(n, width=72, height=64) for n in range(8)]
    return {**found, "narrow": encoded("mp4", narrow), "twice": found["ts"] * 2, "none": b"?" * 999}


def test_a_verdict_depends_on_nothing_but_the_bytes(tmp_path):
    """In random orders, as bytes and as files, by several children: the same frames or defect."""
    clips = odd_clips()
    for name, data in clips.items():
        (tmp_path / name).write_bytes(data)

    def verdict(video) -> object:
        try:
            return decoders.decode_video(video, **ALL)
        except Defect as defect:
            return str(defect)

    expected = {name: verdict(data) for name, data in clips.items()}
    assert {name for name, found in expected.items() if "crash" in str(found)[:20]} == set()
    asked = [(name, way) for name in clips for way in (bytes, Path)]
    decoders.stop_child()
    random.Random(17).shuffle(asked)
    for name, way in asked:
        given = clips[name] if way is bytes else tmp_path / name
        assert verdict(given) == expected[name], (name, way)


def test_a_film_that_cannot_be_opened_is_a_verdict(tmp_path):
    with pytest.raises(Defect, match="unreadable_media"):
        decoders.decode_video(tmp_path / "gone.mp4", **ALL)


def test_a_fifo_in_place_of_a_film_is_no_film(tmp_path):
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(Defect, match="missing_media"):
        decoders.decode_video(tmp_path / "v.mp4", **ALL)
