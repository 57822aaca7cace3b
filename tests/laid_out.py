"""The repositories of a mixture, laid out as they are at the hub, each subset of a few rows.

    lay_out(ROOT, mixture)   ROOT/ORG/NAME/... for every source that the mixture names
    small_world(ROOT)        two of them, of which a few rows are bad, and a mixture of them

The folder serves as a mirror (`data=ROOT`), and behind the loopback hub as the hub itself.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixtures.config import Mixture
from pipelines.sources import SOURCES
from tests.pipelines.sources.making import (
    IMAGE,
    TEXTS,
    cell,
    coarse_jpeg,
    encoded_video,
    png,
    qa,
    tar,
    write,
    write_lines,
    write_parquet,
    zip_of,
)

CAULDRON = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])
TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
Subset = Callable[[Path, str, int, bytes], None]
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade")


def sentence(seed: int) -> str:
    """A text of its own for every seed."""
    return " ".join(WORDS[(seed * 7 + n * n * 3 + seed // 10 * n) % len(WORDS)] for n in range(9))


def turns(question: str, seed: int) -> list[dict[str, str]]:
    """A LLaVA conversation of one question."""
    return [
        {"from": "human", "value": f"{question} {sentence(seed)}?"},
        {"from": "gpt", "value": f"It is {sentence(seed + 1)} {seed}."},
    ]


def image(seed: int) -> bytes:
    """A picture of its own for every seed."""
    return png(64, 48, seed=seed)


def cauldron(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`SUBSET/train-*.parquet`; nlvr2 and spot_the_diff have two pictures."""
    first = hash_of(subset)
    count = 2 if subset in ("nlvr2", "spot_the_diff") else 1
    made = [
        {
            "images": [cell(image(first + n * 2 + k)) for k in range(count)],
            "texts": qa((f"What of {sentence(first + n)}?", f"It is {sentence(first + n + 1)}.")),
        }
        for n in range(rows)
    ]
    write_parquet(root / subset / "train-00000-of-00001-ab.parquet", made, schema=CAULDRON)


def hash_of(name: str) -> int:
    """A number of its own for every name."""
    return zlib.crc32(name.encode())


def onevision(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`SUBSET/train-*.parquet`; text sets have no picture."""
    first = hash_of(subset)
    text = subset.startswith(("magpie", "mathqa"))
    schema = pa.schema([("id", pa.string()), ("image", IMAGE), ("conversations", TURNS)])
    made = [
        {
            "id": f"{subset}-{n}",
            "image": None if text else cell(image(first + n)),
            "conversations": turns("" if text else "<image>\nWhat of", first + n),
        }
        for n in range(rows)
    ]
    write_parquet(root / subset / "train-00000-of-00001.parquet", made, schema=schema)


def docmatix(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`data/train-*`, and the stray folder."""
    cauldron(root, "data", rows, video)
    write(root / "pdf_data" / "data-00000-of-00001.arrow", b"stray")


def mathwriting(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`data/{train,validation,test}-*` in the mirror's features."""
    for split in ("train", "validation", "test"):
        made = [
            {
                "image": cell(image(9000 + n)),
                "label": f"\\frac{{{n}}}{{2}} ",
                "normalized_label": f"\\frac{{{n}}}{{2}}",
                "source": "human" if n % 2 else "synthetic",
                "sample_id": f"{split}{n}",
                "ink_path": f"{split}/{n}.inkml",
            }
            for n in range(rows)
        ]
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", made)


def llava_cot(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`train.jsonl` and a zip in parts."""
    made = [
        {
            "id": str(n),
            "image": f"pics/{n}.png",
            "conversations": [
                {"from": "human", "value": f"What of {sentence(n)}?"},
                {
                    "from": "gpt",
                    "value": f"<SUMMARY>{n}</SUMMARY><CAPTION>c</CAPTION><REASONING>{sentence(n)}"
                    f"</REASONING><CONCLUSION>{n}</CONCLUSION>",
                },
            ],
        }
        for n in range(rows)
    ]
    write_lines(root / "train.jsonl", made)
    packed = zip_of({f"pics/{n}.png": image(7000 + n) for n in range(rows)}.items())
    write(root / "image.zip.part-aa", packed[: len(packed) // 2])
    write(root / "image.zip.part-ab", packed[len(packed) // 2 :])


def llava_video(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`CONFIG/*_cap.json` and a tar.gz; those of ActivityNet in `CONFIGqa`; hound's videos away."""
    folder = root / (f"{subset}qa" if subset.endswith("activitynet") else subset)
    if subset == "llava_hound":
        names = [f"shareVideoGPTV/frames/all_frames/v{n}" for n in range(rows)]
        away = root.parent.parent / "ShareGPTVideo" / "train_video_and_instruction"
        frames = [(f"v{n}/c{k}.jpeg", image(n * 9 + k)) for n in range(rows) for k in range(2)]
        tar(away / "train_300k" / "chunk_0.tar.gz", frames, "w:gz")
    else:
        names = [f"clips/{subset}_{n}.mp4" for n in range(rows)]
        members = [(name, stamped(video, f"{subset}{name}")) for name in names]
        tar(folder / f"{subset}_videos_1.tar.gz", members, "w:gz")
    made = [
        {
            "id": str(n),
            "video": name,
            "conversations": turns("<image>\nWhat of", hash_of(subset) + n),
        }
        for n, name in enumerate(names)
    ]
    write(folder / f"{subset}_oe_v0_1_qa_processed.json", made)


def stamped(video: bytes, name: str) -> bytes:
    """The clip with bytes of its own behind its end, in a box that players pass over."""
    note = name.encode()
    return video + (len(note) + 8).to_bytes(4, "big") + b"free" + note


def vista(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`SUBSET.json` beside `SUBSET/SUBSET_1.tar`, members at its root."""
    made = [
        {"image": f"{subset}_{n}.mp4", "conversations": turns("What of", hash_of(subset) + n)}
        for n in range(rows)
    ]
    write(root / f"{subset}.json", made)
    members = [(row["image"], stamped(video, row["image"])) for row in made]
    tar(root / subset / f"{subset}_1.tar", members)


def sharegpt4video(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`sharegpt4video_40k.jsonl` and `zip_folder/mixit/mixkit_videos.zip`."""
    made = [
        {
            "video_id": str(n),
            "video_path": f"mixit/m{n}.mp4",
            "zip_folder": "mixit",
            "captions": [{"idx": "-1", "content": f"A clip of {sentence(n)}."}],
        }
        for n in range(rows)
    ]
    write_lines(root / "sharegpt4video_40k.jsonl", made)
    clips = {f"m{n}.mp4": stamped(video, f"m{n}") for n in range(rows)}
    write(root / "zip_folder" / "mixit" / "mixkit_videos.zip", zip_of(clips.items()))
    write(root / "zip_folder" / "bdd100k" / "bdd100k_videos.zip", zip_of({"b.mp4": video}.items()))
    mix = [{"video": "mixit/m0.mp4", "conversations": turns("<video>\nWhat of", 1)}]
    write(root / "sharegpt4video_mix181k_vqa-153k_share-cap-28k.json", mix)


def video_star(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`ft_json/NAME_tune_.json` and no videos."""
    made = [
        {"video": f"{subset}/{n}.mp4", "conversations": turns("<video>\nWhat of", n)}
        for n in range(rows)
    ]
    write(root / "ft_json" / f"{subset}_tune_.json", made)


def vript(root: Path, subset: str, rows: int, video: bytes) -> None:
    """Captions and a zip of clips."""
    made = [
        {
            "meta": {"video_id": f"v{n}"},
            "clip_id": f"v{n}-Scene-001",
            "caption": {
                "content": f"{subset} {sentence(n)}",
                "shot_type": "",
                "camera_movement": "",
            },
            "voiceover": [],
        }
        for n in range(rows)
    ]
    write_lines(root / "vript_captions" / f"vript_{subset}_videos_captions.jsonl", made)
    clips = {f"v{n}/v{n}-Scene-001.mp4": stamped(video, f"{subset}{n}") for n in range(rows)}
    write(root / f"vript_{subset}_videos_clips" / "clips_1_of_1.zip", zip_of(clips.items()))


def moviechat(root: Path, subset: str, rows: int, video: bytes) -> None:
    """A JSON file per film and the films, but for the one that the repository lacks."""
    for n in range(rows):
        about = {
            "info": {"video_path": f"{n}.mp4"},
            "caption": f"A film of {sentence(n)}.",
            "global": [{"question": f"What of {sentence(n + 1)}?", "answer": f"It is {n}."}],
        }
        write(root / "jsons" / f"{n}.json", about)
        if n != 2:
            write(root / "raw_videos" / f"{n}.mp4", stamped(video, f"film{n}"))


def finevideo(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`data/train-*` with videos inside."""
    made = [
        {
            "mp4": stamped(video, f"fine{n}"),
            "json": {
                "content_metadata": {
                    "description": f"A video of {sentence(n)}.",
                    "qAndA": [{"question": f"What of {sentence(n)}?", "answer": f"Nothing {n}."}],
                    "scenes": [{"title": f"Scene {n}"}],
                }
            },
        }
        for n in range(rows)
    ]
    write_parquet(root / "data" / "train-00000-of-00001.parquet", made)


def m4_instruct(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`m4_instruct_annotations.json` and zips."""
    made = [
        {
            "id": str(n),
            "image": [f"set/{n}_a.png", f"set/{n}_b.png"],
            "conversations": turns("<image><image>\nWhat of", 300 + n),
        }
        for n in range(rows)
    ]
    write(root / "m4_instruct_annotations.json", made)
    pictures = {name: image(hash_of(name)) for row in made for name in row["image"]}
    write(root / "set.zip", zip_of(pictures.items()))


def mammoth_vl(root: Path, subset: str, rows: int, video: bytes) -> None:
    """`mammoth_ov_2M.json` and tar.gz shards; every second answer reasons step by step."""
    made = [
        {
            "id": str(n),
            "image": [f"multi/{n}_a.png", f"multi/{n}_b.png"],
            "conversations": [
                {"from": "human", "value": f"<image><image>\nWhat of {sentence(n)}?"},
                {
                    "from": "gpt",
                    "value": f"To answer, compare the two. First, {sentence(n)}. Therefore, the "
                    f"answer is {n}."
                    if n % 2
                    else f"It is {sentence(n)}.",
                },
            ],
        }
        for n in range(rows)
    ]
    write(root / "mammoth_ov_2M.json", made)
    members = [(name, image(hash_of(name) + 1)) for row in made for name in row["image"]]
    tar(root / "multi_image_data" / "multi_0.tar.gz", members, "w:gz")


WRITERS: dict[str, Subset] = {
    "cauldron": cauldron,
    "docmatix": docmatix,
    "finevideo": finevideo,
    "llava_cot": llava_cot,
    "llava_onevision": onevision,
    "llava_video": llava_video,
    "m4_instruct": m4_instruct,
    "mammoth_vl": mammoth_vl,
    "mathwriting": mathwriting,
    "moviechat": moviechat,
    "sharegpt4video": sharegpt4video,
    "video_star": video_star,
    "vista_400k": vista,
    "vript": vript,
}


def lay_out(root: Path, mixture: Mixture, *, rows: int = 4, **more: Any) -> Path:
    """The repositories of the mixture under `root`; `more`: source -> rows of each subset."""
    clip = encoded_video(root / "clip.mp4", seconds=2, fps=4, size=(64, 48)).read_bytes()
    (root / "clip.mp4").unlink()
    for component in mixture.components.values():
        about = SOURCES[component.source]
        folder = root / about.hub
        names = list(component.subsets) or list(about.default or about.subsets)
        for subset in names:
            WRITERS[component.source](folder, subset, more.get(component.source, rows), clip)
        write(folder / "README.md", "made for a test")
    return root


def small_world(root: Path) -> Path:
    """Two repositories with 150 samples, of which a few are bad; returns a mixture's YAML."""
    # Longer than a screen: a list of what lies in the world.
    rows = [
        {
            "images": [coarse_jpeg(i, 64 + i % 5 * 24, 64)],
            "texts": [(f"What is number {i}?", f"It is {i}."), ("Is it red?", "no")],
        }
        for i in range(60)
    ]
    rows[7]["images"] = [rows[7]["images"][0][:300]]  # cut short
    rows[9]["texts"] = [("Say nothing.", "")]
    rows[11] = rows[10]
    rows[13]["texts"] = [("What does <image> mean in HTML?", "Nothing.")]
    tall = [
        {
            "images": [coarse_jpeg(500 + i, 48, 96)] * (1 + i % 2),
            "texts": [("Read it.", f"word {i}")],
        }
        for i in range(30)
    ]
    for subset, some in (("ai2d", rows), ("iam", tall)):
        made = [
            {"images": [cell(b) for b in row["images"]], "texts": qa(*row["texts"])} for row in some
        ]
        file = root / "HuggingFaceM4/the_cauldron" / subset / "train-00000-of-00001-0123.parquet"
        write_parquet(file, made, schema=CAULDRON, group=20)
    talks = [
        [
            {"role": "user", "content": f"Count to {i}."},
            {"role": "assistant", "content": " ".join(map(str, range(i % 40 + 1)))},
        ]
        for i in range(60)
    ]
    folder = root / "HuggingFaceTB/smoltalk/data/everyday-conversations"
    made = [{"messages": talk, "source": "everyday"} for talk in talks]
    write_parquet(folder / "train-00000-of-00001.parquet", made, group=60)
    path = root / "small.yaml"
    path.write_text(
        f"""
description: A small world.
tokens: max
val_fraction: 0.05
seed: 3
shard_bytes: 60_000
encoding: {{seq_len: 512, max_crops: 40, crop_size: 32, longest_edge: 64, tokens_per_crop: 4}}
filters:
  empty_answer: {{}}
  duplicate_sample: {{}}
components:
  images:
    source: cauldron
    data: {root}/HuggingFaceM4/the_cauldron
    subsets: {{ai2d: {{}}, iam: {{keep: 0.5}}}}
    placeholders: literal
    ratio: 0.7
  text:
    source: smoltalk
    data: {root}/HuggingFaceTB/smoltalk
    subsets: [everyday-conversations]
    ratio: 0.3
"""
    )
    return path
