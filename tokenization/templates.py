"""Chat in another tokenizer's own format: its Jinja template renders, its `{% generation %}` blocks
say what is learned.

The template sees the conversation as it is, except for what it must not take for its own: strings
of added tokens inside a dataset's text, and images, stand in the rendered string as private marks
and are put back as plain text and as images. The ids are those of
`tokenizer.apply_chat_template(..., return_assistant_tokens_mask=True)` wherever text holds no such
string (https://huggingface.co/docs/transformers/chat_templating).
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tokenization.chat import Piece
from tokenization.prompts import Conversation
from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer, plain_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_IMAGE = "\ufdd0{}\ufdd1"
_TEXT = "\ufdd2{}\ufdd3"
_MARK = re.compile("\ufdd0(\\d+)\ufdd1|\ufdd2(\\d+)\ufdd3")
"""Noncharacters of Unicode, which no text interchange uses; where a text has them, they too are
marked."""


class TemplateRefusal(Exception):
    """The template raised for this conversation, say for an order of roles it does not take."""


def template_of(tokenizer: "PreTrainedTokenizerFast", *, encoding: Encoding) -> str:
    """The Jinja template that `encoding` asks for; "" for SmolVLM's own rendering.

    Raises ValueError where there is none, or it does not say what is learned.
    """
    if encoding.chat_template == "smolvlm":
        return ""
    template = encoding.chat_template
    if template == "tokenizer":
        template = tokenizer.chat_template
        if not isinstance(template, str):
            raise ValueError(
                f"encoding.chat_template: tokenizer {encoding.tokenizer!r} has no chat template. "
                "Expected one in its tokenizer_config.json; or give the text of a template."
            )
    elif "{%" not in template:
        raise ValueError(
            f"encoding.chat_template: found {template!r}. Expected `smolvlm`, `tokenizer` or the "
            "text of a Jinja template."
        )
    if not re.search(r"\{%-?\s*generation\s*-?%\}", template) and encoding.learn != "all":
        raise ValueError(
            "encoding.chat_template: the template marks nothing as learned.\nexpected: the answer "
            "between {% generation %} and {% endgeneration %}\n"
            "way out: give such a template as text, or "
            "set encoding.learn to `all`."
        )
    return template


@lru_cache(maxsize=8)
def _added_tokens(
    tokenizer: "PreTrainedTokenizerFast",
) -> tuple[re.Pattern[str], dict[str, int]]:
    """(what finds any added token in a text, the id of each); longer strings first."""
    tokens = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items()}
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)"), tokens


def _rendered(
    messages: list[dict[str, str]], template: str, tokenizer: "PreTrainedTokenizerFast"
) -> tuple[str, list[tuple[int, int]]]:
    """(the string, the character spans of its generation blocks)."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        special_tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)
        rendered: Any = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            return_assistant_tokens_mask="generation" in template,
            **special_tokens,
        )
    except TemplateError as error:
        raise TemplateRefusal(str(error)) from error
    strings, spans = rendered
    return str(strings[0]), [(start, end) for start, end in spans[0]] if spans else []


def pieces_of(conversation: Conversation, template: str, *, encoding: Encoding) -> list[Piece]:
    """The pieces of a conversation as `template` renders it; text comes as ids.

    Raises TemplateRefusal where the template does.
    """
    # Longer than a screen: one scan over the rendered string, whose state is four variables.
    tokenizer = load_tokenizer(encoding.tokenizer)
    added, id_of = _added_tokens(tokenizer)
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match[0])
        return _TEXT.format(len(hidden) - 1)

    risky = re.compile(f"{added.pattern}|[\ufdd0-\ufdd3]")
    messages = [
        {
            "role": role,
            "content": "".join(
                _IMAGE.format(part) if isinstance(part, int) else risky.sub(hide, part)
                for part in parts
            ),
        }
        for role, parts in conversation
    ]
    string, spans = _rendered(messages, template, tokenizer)
    learned = bytearray(len(string))
    if encoding.learn == "all":
        learned = bytearray(b"\x01" * len(string))
    for start, end in spans:
        learned[start:end] = b"\x01" * (end - start)

    pieces: list[Piece] = []
    run: list[str] = []  # plain text between special tokens, with hidden strings put back
    flags = bytearray()  # learned, per character of the run

    def flush() -> None:
        if run:
            pieces.extend(_encoded_run("".join(run), bytes(flags), encoding.tokenizer))
        run.clear()
        flags.clear()

    at = 0
    for match in re.finditer(f"{_MARK.pattern}|({added.pattern})", string):
        run.append(string[at : match.start()])
        flags += learned[at : match.start()]
        flag = learned[match.start()]
        if match[2] is not None:
            text = hidden[int(match[2])]
            run.append(text)
            flags += bytes([flag]) * len(text)
        else:
            flush()
            if match[1] is not None:
                pieces.append((int(match[1]), False))
            else:
                pieces.append(((id_of[match[0]],), bool(flag)))
        at = match.end()
    run.append(string[at:])
    flags += learned[at:]
    flush()
    return pieces


def _encoded_run(text: str, flags: bytes, tokenizer_name: str) -> list[Piece]:
    """Ids of one run of text; a token is learned where any of its characters is."""
    if not text:
        return []
    encoded = plain_tokenizer(tokenizer_name).encode(text, add_special_tokens=False)
    return [
        ((id_,), any(flags[start:end]))
        for id_, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
    ]
