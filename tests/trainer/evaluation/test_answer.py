"""A checkpoint's answers are its own, whoever is asked beside."""

from pathlib import Path

from tests.trainer.shards import COLOURS, png
from trainer.evaluation.answer import Question, answers, open_checkpoint


def test_answers_do_not_depend_on_the_batch(checkpoint: Path) -> None:
    model, tokenizer, encoding, _ = open_checkpoint(str(checkpoint))
    image_record = png(COLOURS["red"], 40, 30, 1)
    questions = [
        Question(text="Which colour is it?", images=[image_record]),
        Question(text="What comes after 3?"),
        Question(
            text="Which colours are these?", images=[image_record, png(COLOURS["blue"], 70, 30, 2)]
        ),
    ]
    settings = {"encoding": encoding, "max_new_tokens": 6}
    alone = [answers(model, tokenizer, [q], batch_size=1, **settings)[0] for q in questions]
    assert answers(model, tokenizer, questions, batch_size=3, **settings) == alone
