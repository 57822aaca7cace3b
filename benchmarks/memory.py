"""Peak tensor memory of a SmolVLM that answers a question about one image, in bfloat16.

    python -m benchmarks.memory [config=smolvlm_256m] [longest_edge=2048] [dtype=bfloat16]

The model has the config's full size and random weights, which weigh what trained ones do; the
image is a square of `longest_edge`, so that all crops are there. Measured is everything that
PyTorch's CPU allocator hands out while prompt, crops and answer are made (`torch.profiler`, its
running total after every allocation), the key-value cache and the temporaries inside operators
included, on top of the weights. Not in it: the interpreter, libraries and the decoded image,
which no GPU would hold.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer
from trainer.arguments import split_pairs
from trainer.config_file import load
from trainer.evaluation.answer import Question, answers, prompts
from trainer.model.smolvlm import count_parameters, random_model


def peak_bytes(function: Callable[[], Any]) -> int:
    """The most that tensors made by `function` take at one time, beyond what was there before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    totals = [event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"]
    return max(totals, default=0)


def weight_bytes(model: torch.nn.Module) -> int:
    """Of all parameters and buffers, shared ones once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def image_record(side: int) -> bytes:
    """A JPEG of `side` px a side with something everywhere."""
    from PIL import Image

    ramp = np.arange(side, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[:, None] ^ ramp), -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def main(arguments: list[str]) -> None:
    options = {
        "config": "smolvlm_256m", "longest_edge": "2048", "dtype": "bfloat16", "threads": "1",
        "max_new_tokens": "2",
    } | split_pairs(arguments)  # fmt: skip
    torch.set_num_threads(int(options["threads"]))
    config = load(options["config"], {})
    tokenizer = load_tokenizer("builtin")
    encoding = Encoding(
        seq_len=config.model.language.max_position_embeddings,
        crop_size=config.model.vision.image_size,
        longest_edge=int(options["longest_edge"]),
        tokens_per_crop=config.model.tokens_per_crop,
        system_prompts="none",
    )
    model = random_model(config.model, tokenizer, seed=0).to(getattr(torch, options["dtype"]))
    question = Question(text="What is in the image?", images=[image_record(encoding.longest_edge)])
    prompt = prompts([question], encoding)[0]
    crops = sum(rows * cols + 1 for rows, cols in prompt.grids)
    weights = weight_bytes(model)
    before = time.perf_counter()
    peak = peak_bytes(
        lambda: answers(
            model, tokenizer, [question], encoding=encoding, batch_size=1,
            max_new_tokens=int(options["max_new_tokens"]),
        )
    )  # fmt: skip
    seconds = time.perf_counter() - before
    parameters = sum(count_parameters(model).values())
    print(f"{config.name}, {parameters / 1e6:.1f} M parameters, {options['dtype']}; one image of "
          f"{crops} crop(s) of {encoding.crop_size} px, {len(prompt.ids):,} tokens of prompt, "
          f"{options['max_new_tokens']} tokens of answer ({seconds:.0f} s)")  # fmt: skip
    print("| weights MB | on top at the peak MB | peak of tensors MB |\n|---|---|---|")
    print(f"| {weights / 1e6:.0f} | {peak / 1e6:.0f} | {(weights + peak) / 1e6:.0f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
