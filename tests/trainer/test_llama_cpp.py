"""llama.cpp says what `transformers` and this trainer say, of a checkpoint that has learned to see.

`make llama-cpp` puts llama.cpp's converter and `llama-mtmd-cli` where this test looks for them.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.shards import COLOURS, pack, png, sample, write
from tokenization.images import open_image
from trainer.evaluation.answer import Question, answers, open_checkpoint
from trainer.loop import train

LLAMA = Path(os.environ.get("LLAMA_CPP", Path(__file__).parents[2] / "out" / "llama.cpp"))
CLI = LLAMA / "build" / "bin" / "llama-mtmd-cli"
QUESTION = "Which colour is it?"
TOKENS = 8
IMAGES = [("red", (64, 48)), ("green", (90, 40)), ("blue", (30, 88)), ("white", (128, 96)),
          ("red", (33, 33))]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CLI.is_file(), reason="make llama-cpp builds what this needs"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that names the colour of an image."""
    folder = tmp_path_factory.mktemp("llama")
    learned = pack([sample(number, "image") for number in range(400)])
    held = pack([sample(9000 + number, "image") for number in range(10)])
    settings = Settings(write(folder / "colours", learned, val=held), folder / "run")
    return train(settings(steps=100, log_every=50, evaluate_rows=2))


def seen() -> list[bytes]:
    return [png(COLOURS[name], *size, number) for number, (name, size) in enumerate(IMAGES)]


def of_llama_cpp(checkpoint: Path, folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(LLAMA / "site")}
    for kind, words in (("model", []), ("mmproj", ["--mmproj"])):
        command = [sys.executable, str(LLAMA / "convert_hf_to_gguf.py"), str(checkpoint), *words,
                   "--outtype", "f32", "--outfile", str(folder / f"{kind}.gguf")]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
    said = []
    for number, data in enumerate(seen()):
        image = folder / f"{number}.png"
        image.write_bytes(data)
        command = [str(CLI), "-m", str(folder / "model.gguf"), "--mmproj",
                   str(folder / "mmproj.gguf"), "--image", str(image), "-p", QUESTION,
                   "--jinja", "--temp", "0", "-n", str(TOKENS), "-t", "1"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    return said


def of_transformers(checkpoint: Path) -> list[str]:
    """By its own model, image processor, chat template and image tokens; nothing of ours."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer, SmolVLMImageProcessorPil
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    processor = SmolVLMImageProcessorPil.from_pretrained(checkpoint)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    said = []
    for data in seen():
        made = processor([[open_image(data)]], return_tensors="pt", return_row_col_info=True)
        crops = get_image_prompt_string(
            made["rows"][0][0], made["cols"][0][0], model.model.image_seq_len,
            fake_token_around_image="<fake_token_around_image>", image_token="<image>",
            global_image_token="<global-img>",
        )  # fmt: skip
        ids = tokenizer(
            text.replace("<image>", crops), return_tensors="pt", add_special_tokens=False
        )["input_ids"]
        with torch.no_grad():
            written = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids),
                pixel_values=made["pixel_values"], do_sample=False, max_new_tokens=TOKENS,
            )  # fmt: skip
        said.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return said


def of_ours(checkpoint: Path) -> list[str]:
    model, tokenizer, encoding, _ = open_checkpoint(str(checkpoint), device="cpu")
    # As the published chat template writes it: no system prompt of the mixture.
    encoding = dataclasses.replace(encoding, system_prompts="none", media_intro_outro=False)
    questions = [Question(text=QUESTION, images=[data]) for data in seen()]
    return answers(
        model, tokenizer, questions, encoding=encoding, batch_size=1, max_new_tokens=TOKENS
    )


def test_three_programs_give_the_same_greedy_answers(checkpoint: Path, tmp_path: Path) -> None:
    expected = [name for name, _ in IMAGES]
    assert of_ours(checkpoint) == expected  # it sees
    assert of_transformers(checkpoint) == expected
    assert of_llama_cpp(checkpoint, tmp_path) == expected
