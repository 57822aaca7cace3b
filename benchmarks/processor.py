"""What `AutoProcessor` and `pipeline` of transformers make of a checkpoint, against our own.

    python -m benchmarks.processor [data=out/quickstart] [output=out/processor]
    PYTHON benchmarks/processor.py out/processor

The first trains `tiny` for two steps and writes the checkpoint, images, and for each our prompt's
ids, crops and greedy answer. The second needs torch, torchvision and transformers only (PYTHON: of
another environment, ours has no torchvision) and compares ids, grids, crops and answers.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np

QUESTION = "What is in the picture?"
SIZES = ((300, 200), (64, 64), (90, 250), (517, 331), (1024, 40))
"""px; of images with colours everywhere and edges that resizing must place alike."""
NEW_TOKENS = 12


def image_record(width: int, height: int, seed: int) -> bytes:
    """A PNG of rectangles over a ramp."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    across, down = np.arange(width) * 255 // width, np.arange(height) * 255 // height
    pixels = np.stack(
        np.broadcast_arrays(across[None], down[:, None], across[None] ^ down[:, None])
    )
    image = Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        colour = tuple(int(each) for each in rng.integers(0, 256, 3))
        draw.rectangle((x, y, x + width // 6, y + height // 6), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(data: str, output: Path) -> None:
    """The folder holds a checkpoint and what our side makes of the images."""
    import dataclasses

    from tokenization.images import crop_pixels as crops
    from trainer.config_file import load
    from trainer.evaluation.answer import Question, answers, open_checkpoint, prompts
    from trainer.loop import train

    run = {"data": data, "output": str(output / "run"), "steps": "2", "evaluate_rows": "1",
           "page_samples": "0"}  # fmt: skip
    folder = train(load("tiny", run))
    model, tokenizer, encoding, _ = open_checkpoint(str(folder), device="cpu")
    # As the published chat template writes it: no system prompt of the mixture.
    encoding = dataclasses.replace(encoding, system_prompts="none", media_intro_outro=False)
    questions = [
        Question(text=QUESTION, images=[image_record(*size, seed)])
        for seed, size in enumerate(SIZES)
    ]
    said = answers(
        model, tokenizer, questions, encoding=encoding, batch_size=1, max_new_tokens=NEW_TOKENS
    )
    facts = {}
    for number, (question, prompt) in enumerate(
        zip(questions, prompts(questions, encoding), strict=True)
    ):
        (output / f"{number}.png").write_bytes(question.images[0])
        facts[f"ids{number}"] = prompt.ids
        facts[f"crops{number}"] = crops(question.images[0], *prompt.grids[0], encoding=encoding)
    np.savez(output / "ours.npz", **facts)
    (output / "ours.json").write_text(json.dumps({"checkpoint": folder.name, "said": said}))
    print(f"{output}: now PYTHON {__file__} {output}, with a PYTHON that has torchvision")


def compare(output: Path) -> bool:
    """Prints one line per image; true where ids, grids and answers are equal."""
    import torch
    import torchvision
    import transformers
    from PIL import Image

    ours, told = np.load(output / "ours.npz"), json.loads((output / "ours.json").read_text())
    folder = str(output / "run" / told["checkpoint"])
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    pipe = transformers.pipeline(
        "image-text-to-text", model=folder, dtype=torch.float32, device="cpu"
    )
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, transformers "
          f"{transformers.__version__}: {type(processor).__name__}, "
          f"{type(processor.image_processor).__name__}, {type(model).__name__}")  # fmt: skip
    print("| picture | ids | crops | largest, mean pixel difference of 255 | answer | pipeline |")
    print("|---|---|---|---|---|---|")
    fine = True
    for number, (width, height) in enumerate(SIZES):
        image = Image.open(output / f"{number}.png")
        content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        messages = [{"role": "user", "content": content}]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        ids, expected = inputs["input_ids"][0].numpy(), ours[f"ids{number}"]
        same_ids = len(ids) == len(expected) and bool((ids == expected).all())
        theirs = (inputs["pixel_values"][0].permute(0, 2, 3, 1).numpy() + 1) * 127.5
        mine = ours[f"crops{number}"].astype(np.float32)
        same_crops = theirs.shape == mine.shape
        apart = np.abs(theirs - mine) if same_crops else np.array([np.nan])
        with torch.no_grad():
            made = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        answer = processor.batch_decode(made[:, len(ids) :], skip_special_tokens=True)[0].strip()
        piped = pipe(text=messages, max_new_tokens=NEW_TOKENS, return_full_text=False,
                     generate_kwargs={"do_sample": False})[0]["generated_text"].strip()  # fmt: skip
        said = told["said"][number]
        equal = (same_ids, same_crops, answer == said, piped == said)
        one, two, three, four = ("equal" if each else "DIFFERENT" for each in equal)
        fine &= all(equal)
        print(f"| {width} x {height} | {one} ({len(ids)}) | {two} ({len(mine)}) | "
              f"{apart.max():.1f}, {apart.mean():.3f} | {three} | {four} |")  # fmt: skip
    return fine


if __name__ == "__main__":
    if len(sys.argv) == 2 and "=" not in sys.argv[1]:
        sys.exit(0 if compare(Path(sys.argv[1])) else 1)
    from trainer.arguments import split_pairs

    options = {"data": "out/quickstart", "output": "out/processor"} | split_pairs(sys.argv[1:])
    write(options["data"], Path(options["output"]))
