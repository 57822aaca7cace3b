"""Videos and images that a stranger made: nothing is opened because their bytes say so, and any
mutation of any container, image or page is a verdict.
"""

import random
import resource
from collections import Counter
from pathlib import Path

import pytest

from pipelines.media import decoders
from pipelines.sources.sample import Defect
from tests.pipelines.media.clips import KINDS, encoded, noise, seconds_of
from tests.pipelines.media.hostile import noise as picture
from tests.pipelines.media.hostile import saved
from tests.pipelines.sources.making import png, read, write, write_lines

FRAMES = {"fps": 2.0, "max_frames": 4, "size": 32}


def session(port: int) -> bytes:
    """A description of a stream that FFmpeg would wait for on every interface."""
    return (
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
        b"m=video %d RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n" % port
    )


def udp_ports() -> set[int]:
    tables = [Path(f"/proc/net/{name}") for name in ("udp", "udp6")]
    lines = [line for path in tables if path.exists() for line in path.read_text().split("\n")[1:]]
    return {int(line.split()[1].split(":")[1], 16) for line in lines if line}


def test_no_video_opens_a_port_or_another_file(tmp_path):
    """The playlists name a clip that lies outside the media root, and would play."""
    elsewhere = write(tmp_path / "elsewhere" / "secret.ts", seconds_of("ts", "red", 2))
    folder = tmp_path / "data"
    port = random.Random(str(tmp_path)).randrange(20_000, 30_000) & ~1
    name = str(elsewhere).encode()
    media = {
        "session.sdp": session(port),
        "list.m3u8": b"#EXTM3U\n#EXTINF:2,\nfile://%b\n#EXT-X-ENDLIST\n" % name,
        "list.ffconcat": b"ffconcat version 1.0\nfile 'file:%b'\n" % name,
        "list.mp4": b"\0\0\0\x10ftypisom\0\0\0\0#EXTM3U\n#EXTINF:2,\nfile://%b\n" % name,
        "list.ts": b"G" + b"#EXTM3U\n#EXTINF:2,\nfile://%b\n" % name,
        "im%d.png": png(),
    }
    for file, data in media.items():
        write(folder / file, data)
    for number in range(3):
        write(folder / f"im{number}.png", png())
    talk = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "That."}]
    rows = [{"video": file, "conversations": talk} for file in media]
    write_lines(folder / "rows.jsonl", rows)
    before = udp_ports()
    defects = [row["defect"] for row in read("llava", data=str(folder))]
    assert set(defects) <= {"undecodable_video", "truncated_video"}
    assert port not in udp_ports() - before
    assert decoders.child is not None
    open_now = Path(f"/proc/{decoders.child.process.pid}/fd")
    assert not [p for p in open_now.iterdir() if "elsewhere" in str(p.readlink())]


def page() -> bytes:
    return saved(picture(64, 48), "PDF")


def corpus() -> dict[str, tuple[str, bytes]]:
    """Name -> (what it is asked as, bytes)."""
    shown = [noise(n, width=64, height=48) for n in range(20)]
    clips = {kind: ("video", encoded(kind, shown)) for kind in KINDS if kind != "rm"}
    clips["rm"] = ("video", encoded("rm", [noise(n) for n in range(20)]))
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF")
    stills = {kind: ("image", saved(picture(64, 48), kind)) for kind in kinds}
    return clips | stills | {"PDF": ("pdf", page())}


NUMBERS = (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to eight places changed, headers more often: bytes, numbers, runs that are cut out,
    doubled or noise, the end cut off.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        early = int(rng.expovariate(6 / len(changed)))
        at = min(early, len(changed) - 1) if rng.random() < 0.5 else rng.randrange(len(changed))
        length = rng.choice((1, 2, 4, 8, 64, 1000))
        how = rng.randrange(6)
        if how == 0:
            changed[at] = rng.randrange(256)
        elif how == 1:
            changed[at : at + 4] = rng.choice(NUMBERS)
        elif how == 2 and len(changed) > length + 16:
            del changed[at : at + length]
        elif how == 3:
            changed[at:at] = changed[at : at + length]
        elif how == 4:
            changed[at : at + length] = rng.randbytes(length)
        elif len(changed) > 32:
            del changed[max(16, len(changed) - rng.randrange(len(changed))) :]
    return bytes(changed)


def outcomes(count: int, seed: int) -> Counter[str]:
    """Verdict -> how many of `count` mutations had it."""
    rng, told = random.Random(seed), Counter[str]()
    originals = sorted(corpus().items())
    ask = {
        "video": lambda data: decoders.decode_video(data, limit=30, **FRAMES),
        "image": lambda data: decoders.decode_image(data, limit=30),
        "pdf": lambda data: decoders.decode_pdf(data, limit=30),
    }
    for number in range(count):
        _, (kind, data) = originals[number % len(originals)]
        try:
            ask[kind](mutated(data, rng))
        except Defect as defect:
            told[defect.reason] += 1
        else:
            told["whole"] += 1
    return told


def test_mutated_media_are_verdicts():
    told = outcomes(120, seed=16)
    assert sum(told.values()) == 120
    assert not {reason for reason in told if "timeout" in reason}


@pytest.mark.slow
def test_thousands_of_mutated_media_are_verdicts_within_a_gigabyte():
    told = outcomes(6000, seed=17)
    decoders.stop_child()
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    assert not {reason for reason in told if "timeout" in reason}, told
    assert told["decoder_crash"] <= 60, told
    assert peak < 1 << 20, f"{peak} kB"
