"""Ask a checkpoint about one image: `python examples/ask.py CHECKPOINT IMAGE "question"`.

CHECKPOINT is a checkpoint folder or a run (then its newest one). With `data=MIXTURE` in place
of an image, the first image of its val shards is shown, with its own question and answer.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tokenization.prompts import IMAGE_OUTROS
from trainer.evaluation.answer import Question, answers, open_checkpoint


def from_mixture(folder: Path, tokenizer: Any) -> tuple[bytes, str, str]:
    """(image, question, answer) of the first sample with one image in a mixture's val rows."""
    from trainer.data.batches import collate
    from trainer.data.shards import Rows, open_mixture

    mixture = open_mixture(str(folder))
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    for split in ("val", "train"):
        for row in Rows(mixture, split):
            batch = collate([row], image_token=image_token)
            start = images = 0
            for length, count in zip(batch.seq_lengths, batch.sample_images, strict=True):
                if count == 1:
                    ids = row.input_ids[start : start + length]
                    learned = row.loss_mask[start : start + length]
                    begin = int(learned.argmax())
                    end = begin + int((~learned[begin:]).argmax())
                    shown = int(np.flatnonzero(ids[:begin] == image_token)[-1]) + 1
                    text = tokenizer.decode(ids[shown:begin], skip_special_tokens=True)
                    question = text.rpartition("Assistant:")[0]
                    for outro in IMAGE_OUTROS:  # asking adds one again
                        question = question.removeprefix(outro)
                    answer = tokenizer.decode(ids[begin:end], skip_special_tokens=True).strip()
                    return row.images[images], question.strip(), answer
                start, images = start + length, images + count
    raise ValueError(f"{folder}: no sample with one image in it.")


def main(arguments: list[str]) -> int:
    """The exit status."""
    known = ("checkpoint", "data", "image", "question")
    pairs = dict(a.split("=", 1) for a in arguments if "=" in a and a.split("=", 1)[0] in known)
    plain = [a for a in arguments if a.partition("=")[0] not in pairs]
    for key, value in zip(("checkpoint", "image", "question"), plain, strict=False):
        pairs.setdefault(key, value)
    if "checkpoint" not in pairs or not ({"data", "image"} & set(pairs)):
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    try:
        model, tokenizer, encoding, _ = open_checkpoint(pairs["checkpoint"])
        expected = ""
        if "image" in pairs:
            image_record = Path(pairs["image"]).read_bytes()
            question = pairs.get("question", "What is in this image?")
        else:
            image_record, question, expected = from_mixture(Path(pairs["data"]), tokenizer)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    said = answers(
        model,
        tokenizer,
        [Question(text=question, images=[image_record])],
        encoding=encoding,
        max_new_tokens=32,
        batch_size=1,
    )[0]
    if "image" in pairs:
        print(f"image       {pairs['image']}")
    else:
        shown = Path(tempfile.gettempdir()) / "asked.png"
        shown.write_bytes(image_record)
        print(f"image       {shown}")
    print(f"question    {question}")
    if expected:
        print(f"data says   {expected}")
    print(f"model says  {said!r}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters < 50e6:
        print(
            f"({parameters / 1e6:.1f} M parameters after minutes of training are no oracle: this "
            "shows that every part works, not that the answer is right.)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
