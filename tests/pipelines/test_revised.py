"""Conversations with other texts: what is not given anew stays."""

from pipelines.revised import with_turns


def test_an_empty_or_missing_question_stays_as_it_is():
    asked = {"role": "user", "content": [{"type": "image", "index": 0},
                                         {"type": "text", "text": "What is shown?"}]}  # fmt: skip
    said = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    for question in ("", None):
        made = with_turns([asked, said], [{"question": question, "answer": "Eine Katze."}])
        assert made[0] == asked
        assert made[1]["content"][0]["text"] == "Eine Katze."
    made = with_turns([asked, said], [{"question": "Was ist das?", "answer": "Eine Katze."}])
    assert [part["type"] for part in made[0]["content"]] == ["image", "text"]
    assert made[0]["content"][1]["text"] == "Was ist das?"
