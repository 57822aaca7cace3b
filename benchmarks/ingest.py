"""Ingest beside what one would write by hand: `python benchmarks/ingest.py [images] [videos]`.

| line              | does                                                                      |
|-------------------|---------------------------------------------------------------------------|
| ingest, images    | `list_parts` + `ingest`: decode, orientation, size, hash, three facts     |
| datasets.map      | `load_dataset` of the same Parquet, `.map` that decodes and keeps sizes   |
| ingest, videos    | the same for a LLaVA JSON beside mp4 files: frames by timestamps, as JPEG |
| decord loop       | VideoReader, `get_batch` of the same number of frames, resize, JPEG       |
| steps             | where ingest's time for a frame and for an image goes, ms                 |

Data is made first (1024 x 768 JPEG photographs of noise on gradients; 640 x 360 H.264, 30 s, a
keyframe every 8 s). CPU seconds are those of the process and of its children; peak is resident
memory of the fattest of them. Each line runs in a process of its own, one core.
"""

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXT = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
FPS, MAX_FRAMES, SIZE = 1.0, 64, 512


def make(folder: Path, image_records: int, videos: int) -> None:
    """The data of every line."""
    import av

    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 1024)[None, :, None] + np.linspace(0, 40, 768)[:, None, None]
    rows = []
    for _ in range(image_records):
        noise = np.kron(rng.integers(0, 60, (48, 64, 3)), np.ones((16, 16, 1)))
        buffer = io.BytesIO()
        Image.fromarray((ramp % 196 + noise).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        texts = [{"user": "What?", "assistant": "That.", "source": "made"}]
        rows.append({"images": [{"bytes": buffer.getvalue(), "path": None}], "texts": texts})
    schema = pa.schema([("images", pa.list_(IMAGE)), ("texts", pa.list_(TEXT))])
    (folder / "made").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, folder / "made" / "train-0.parquet", row_group_size=100)
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "That."}]
    records = []
    (folder / "videos").mkdir()
    for number in range(videos):
        path = folder / "videos" / f"{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.gop_size = 640, 360, 200
            stream.options = {"preset": "ultrafast"}
            scene = np.kron(rng.integers(0, 255, (9, 16, 3)), np.ones((40, 40, 1)))
            for frame in range(750):
                shot = np.roll(scene, 3 * frame, axis=1).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
            container.mux(stream.encode())
        records.append({"conversations": turns, "video": path.name})
    (folder / "videos" / "a.json").write_text(json.dumps(records))


def ingest_images(folder: Path) -> int:
    from pipelines.media import decoders
    from pipelines.reading.ingest import ingest
    from pipelines.reading.parts import list_parts

    parts = list_parts(source="cauldron", data=str(folder / "made"))
    count = sum(ingest(part).num_rows for part in parts)
    decoders.stop_child()  # the child's time counts once it has ended
    return count


def datasets_map(folder: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "texts": datasets.List(dict.fromkeys(TEXT.names, datasets.Value("string"))),
        }
    )
    files = str(folder / "made" / "*.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", features=features, cache_dir=str(folder / "c")
    )

    def sizes(row: dict) -> dict:
        image_records = [image.convert("RGB") for image in row["images"]]
        return {
            "width": [image_record.width for image_record in image_records],
            "height": [image_record.height for image_record in image_records],
        }

    return len(loaded.map(sizes))


def ingest_videos(folder: Path) -> int:
    from pipelines.media import decoders
    from pipelines.reading.ingest import ingest
    from pipelines.reading.parts import list_parts

    settings = {"fps": FPS, "max_frames": MAX_FRAMES, "size": SIZE}
    parts = list_parts(source="llava", data=str(folder / "videos"), frames=settings)
    rows = [row for part in parts for row in ingest(part)["images"].to_pylist()]
    decoders.stop_child()
    return sum(map(len, rows))


def decord_loop(folder: Path) -> int:
    import decord

    count = 0
    for path in sorted((folder / "videos").glob("*.mp4")):
        reader = decord.VideoReader(str(path), num_threads=1)
        wanted = min(max(1, round(len(reader) / reader.get_avg_fps() * FPS)), MAX_FRAMES)
        for frame in reader.get_batch(
            np.linspace(0, len(reader) - 1, wanted).astype(int)
        ).asnumpy():
            image = Image.fromarray(frame)
            image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
            image.save(io.BytesIO(), "JPEG", quality=90)
            count += 1
    return count


def steps(folder: Path) -> int:
    """Prints the CPU time of every step, in this process, without its imports."""
    from pipelines.media import frames, images, video

    spent: dict[str, float] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        begun = time.process_time()
        made = call()
        spent[step] = spent.get(step, 0.0) + time.process_time() - begun
        return made

    def told(what: str, count: int) -> None:
        costs = [f"{step} {1000 * seconds / count:.2f}" for step, seconds in spent.items()]
        print(f"ms a {what}: {', '.join(costs)}")
        spent.clear()

    count = 0
    for path in sorted((folder / "videos").glob("*.mp4")):
        stream = io.BytesIO(path.read_bytes())
        seen = timed("timestamps", lambda stream=stream: video.probe(stream))
        last = seen.times[-1]
        wanted = frames.frame_instants(seen.duration, fps=FPS, max_frames=MAX_FRAMES, last=last)
        chosen = seen.stamps[frames.nearest_frames(seen.times, wanted)].tolist()
        found = timed(
            "decode and resize",
            lambda stream=stream, seen=seen, chosen=chosen: video.frames_at(
                stream, seen, chosen, SIZE
            ),
        )
        encoded = timed("JPEG", lambda found=found: [frames.jpeg(image) for _, image in found])
        timed("decode JPEG", lambda encoded=encoded: list(map(images.decode, encoded)))
        timed("facts", lambda encoded=encoded: list(map(images.image_facts, encoded)))
        count += len(chosen)
    told("frame", max(1, count))
    rows = pq.read_table(folder / "made" / "train-0.parquet")["images"].to_pylist()
    for (cell,) in rows:
        timed("decode", lambda cell=cell: images.decode(cell["bytes"]))
        timed("one copy", lambda cell=cell: images.decode_copy(cell["bytes"], least=(128, 32)))
        timed("copy and facts", lambda cell=cell: images.image_facts(cell["bytes"]))
    told("image", max(1, len(rows)))
    return count


LINES: dict[str, tuple[Callable[[Path], int], str]] = {
    "ingest, images": (ingest_images, "images"),
    "datasets.map": (datasets_map, "images"),
    "ingest, videos": (ingest_videos, "frames"),
    "decord loop": (decord_loop, "frames"),
    "steps": (steps, "frames"),
}


def measured(name: str, folder: Path) -> None:
    """One line, timed in this process."""
    run, unit = LINES[name]
    begun, busy = time.monotonic(), cpu_seconds()
    count = run(folder)
    wall, busy = time.monotonic() - begun, cpu_seconds() - busy
    peak = max(usage.ru_maxrss for usage in usages()) / 1024
    print(
        f"{name:<18}{count:>6} {unit:<9}{wall:>7.2f} s{busy:>8.2f} CPU s"
        f"{count / busy:>9.1f} a CPU s{peak:>8.0f} MiB"
    )


def usages() -> list[resource.struct_rusage]:
    """Of this process, and of its children that have ended."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def cpu_seconds() -> float:
    """CPU seconds so far, children included."""
    return sum(usage.ru_utime + usage.ru_stime for usage in usages())


if __name__ == "__main__":
    # children do the work: resident memory of a parent would count as theirs
    if sys.argv[1:2] == ["--line"]:
        measured(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        image_records, videos = [*map(int, sys.argv[1:]), 600, 12][:2]
        with tempfile.TemporaryDirectory() as temporary:
            root = str(Path(__file__).parents[1])
            quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
            quiet["PYTHONSAFEPATH"] = "1"  # scripts beside this one are no packages
            making = ["--make", temporary, str(image_records), str(videos)]
            for line in [making, *(["--line", name, temporary] for name in LINES)]:
                command = [sys.executable, __file__, *line]
                subprocess.run(command, check=True, env={**os.environ, **quiet})
