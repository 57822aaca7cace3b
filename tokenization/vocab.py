"""The tokenizer and the ids that bear meaning: marks of chat, of images and of crop positions.

A `Vocab` is what rendering needs of a tokenizer, looked up once. Two ways lead from text to ids:
the tokenizer itself, which turns `<image>` in a text into the special token, and `plain_tokenizer`,
which keeps every such string plain text. Text of datasets only ever takes the second.
"""

import hashlib
import json
import lzma
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenization.images import MAX_SIDE
from tokenization.published import is_hub_id, offline_way, split_revision
from tokenization.schema import Encoding

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

BUILTIN = Path(__file__).with_name("smolvlm_tokenizer.json.xz")

BEGIN = "<|im_start|>"
END = "<end_of_utterance>"
IMAGE = "<image>"
FAKE = "<fake_token_around_image>"
GLOBAL = "<global-img>"
DOCUMENT_END = "<|endoftext|>"
TOKENIZER_FILES = (".json", ".jinja", ".txt", ".model")
"""Endings of all that `transformers` reads of a tokenizer's folder."""
MAKES_IDS = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("*.jinja", "vocab*", "merges.txt", "*.model", "*.tiktoken"),
)
"""Of those the ones that say nothing but what the tokenizer does, and none of a model."""
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that are what tokenizer.json says; as `transformers` 5 and 4 call them."""
MAX_GRID = 6
"""Rows and columns for which SmolVLM has learned position tokens."""

CHAT_TEMPLATE = (
    "<|im_start|>"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}:"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% if message['content'][0]['type'] != 'image' %} {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] in ('image', 'video') %}{{ '<' + part['type'] + '>' }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{{ '<end_of_utterance>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Renders as the template of SmolVLM2 checkpoints does, and content that is a text as one part;
travels with the builtin tokenizer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocab:
    """The ids of one tokenizer under one encoding; -1 or empty where the tokenizer has none."""

    begin: int
    """`<|im_start|>`, once, before the first message."""
    end: int
    """`<end_of_utterance>`, after every message."""
    document_end: int
    """`<|endoftext|>` (else the tokenizer's eos), after a raw document."""
    pad: int
    image: int
    """`<image>`, `tokens_per_crop` times for each crop."""
    fake: int
    """`<fake_token_around_image>`, before every crop and after the last."""
    overview: tuple[int, ...]
    """`<global-img>`, as a token or spelled out."""
    positions: dict[tuple[int, int], tuple[int, ...]]
    """(row, column), from 1, to `<row_r_col_c>`, as a token or spelled out."""
    sides: int
    """Rows and columns of crops, at most, for which there are positions."""
    newline: tuple[int, ...]
    """Ids of a line break, between rows of crops."""
    blank: tuple[int, ...]
    """Ids of two line breaks, between the last row and the global view."""
    tokens_per_crop: int
    missing: bytes
    """Byte values for which a byte-level vocabulary has no symbol: they vanish when encoded."""
    unlearnable: frozenset[int]
    """Ids that are never learned: image, positions, pad, begin."""


def _hub_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """Raises FileNotFoundError where `name` is no tokenizer of the hub and no folder with one."""
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = _read(*(split_revision(name) if is_hub_id(name) else (name, None)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"encoding.tokenizer: found no tokenizer at {name!r} ({str(error).splitlines()[0]}). "
            "Expected `builtin` (SmolVLM's), a folder with tokenizer.json, or a hub id that can be "
            f"reached.{offline_way(name)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"encoding.tokenizer: {name!r} is a {type(tokenizer).__name__}, which has no "
            "tokenizer.json. Expected a tokenizer of the `tokenizers` library."
        )
    return tokenizer


def _read(place: str, revision: str | None) -> Any:
    """What `AutoTokenizer` makes of a folder or hub id. Of a folder whose tokenizer is of no class
    of a model's it is made without it, who imports PyTorch to find that out (3.7 CPU s of 4).
    """
    said = _stated(place, "tokenizer_config.json")
    of_smolvlm = _stated(place, "config.json").get("model_type", "smolvlm") == "smolvlm"
    if of_smolvlm and said.get("tokenizer_class") in GENERIC and "auto_map" not in said:
        from transformers import PreTrainedTokenizerFast as Reader
    else:
        from transformers import AutoTokenizer as Reader
    return Reader.from_pretrained(place, revision=revision, trust_remote_code=False)


def _stated(place: str, name: str) -> dict[str, Any]:
    """The file of a folder; empty: there is none, or its own reader says what is wrong with it."""
    try:
        found = json.loads(Path(place, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """The tokenizer called `name` (`builtin`, a folder or a hub id); the same object every time, of
    a folder as long as its files are the same.

    One process is one core here: parallelism comes from workers, so the tokenizer's own threads are
    off unless TOKENIZERS_PARALLELISM says otherwise.
    """
    return _loaded(name, *_written(name))


def tokenizer_digest(name: str) -> str:
    """Of a tokenizer in a folder, a digest of all that makes its ids and its template; of another
    "", for its name says which it is. A folder may hold a checkpoint besides, which is not in it.
    """
    if name == "builtin" or not Path(name).is_dir():
        return ""
    kind = _stated(name, "config.json").get("model_type", "")  # by which transformers reads some
    digest = hashlib.blake2b(str(kind).encode(), digest_size=8)
    for file in sorted(Path(name).iterdir()):
        if file.is_file() and any(map(file.match, MAKES_IDS)):
            digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _written(folder: str) -> Iterator[tuple[str, int, int, int]]:
    """(path, inode, bytes, time of writing) of each of a tokenizer's files in a folder; of no
    folder nothing. Hundreds of times quicker than their contents: it is asked for every batch.
    """
    if folder == "builtin" or not os.path.isdir(folder):  # noqa: PTH112 - as quick as can be
        return
    with os.scandir(folder) as entries:
        files = [e for e in entries if e.name.endswith(TOKENIZER_FILES) and e.is_file()]
    for file in sorted(files, key=lambda file: file.name):
        about = file.stat()
        yield file.path, about.st_ino, about.st_size, about.st_mtime_ns


@lru_cache(maxsize=8)
def _loaded(name: str, *_: tuple[str, int, int, int]) -> "PreTrainedTokenizerFast":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if name != "builtin":
        return _hub_tokenizer(name)
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(lzma.decompress(BUILTIN.read_bytes()).decode()),
        bos_token=BEGIN,
        eos_token=END,
        pad_token="<|im_end|>",
        unk_token=DOCUMENT_END,
        extra_special_tokens={
            "image_token": IMAGE,
            "fake_image_token": FAKE,
            "global_image_token": GLOBAL,
            "end_of_utterance_token": END,
        },
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=16384,  # the longest window any SmolVLM was trained for (2.2B)
    )


def plain_tokenizer(name: str) -> "Tokenizer":
    """The backend of `load_tokenizer(name)` for which no string is special."""
    return _plain(load_tokenizer(name))


@lru_cache(maxsize=8)
def _plain(tokenizer: "PreTrainedTokenizerFast") -> "Tokenizer":
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    for token in spec["added_tokens"]:
        token["special"] = True  # the switch below knows only special ones
    plain: Tokenizer = Tokenizer.from_str(json.dumps(spec))
    plain.encode_special_tokens = True
    return plain


def encode_plain(tokenizer: "Tokenizer", texts: Iterable[str]) -> list[list[int]]:
    """Ids of each text, with no string taken for a special token."""
    return [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def missing_bytes(tokenizer: "PreTrainedTokenizerFast") -> bytes:
    """Bytes without a symbol in a byte-level vocabulary without an unknown token, ascending."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    if '"ByteLevel"' not in json.dumps(spec["pre_tokenizer"]) or spec["model"].get("unk_token"):
        return b""
    symbols = spec["model"]["vocab"]
    return bytes(sorted(b for b, symbol in bytes_to_unicode().items() if symbol not in symbols))


@lru_cache(maxsize=16)
def vocab(tokenizer: "PreTrainedTokenizerFast", encoding: Encoding) -> Vocab:
    """The ids of `tokenizer` that `encoding` needs.

    Raises ValueError where SmolVLM's own rendering is asked for and the tokenizer lacks a mark.
    """
    known = tokenizer.get_vocab()
    learned = encoding.position_tokens == "learned"
    sides = MAX_GRID if learned else math.ceil(MAX_SIDE / encoding.crop_size)
    grid = [(r, c) for r in range(1, sides + 1) for c in range(1, sides + 1)]
    names = [f"<row_{r}_col_{c}>" for r, c in grid] + [GLOBAL]
    marks = [IMAGE, FAKE, *(names if learned else ())]
    if encoding.chat_template == "smolvlm":
        lacking = [mark for mark in [BEGIN, END, *marks] if mark not in known]
        if lacking:
            way_out = (
                "Set encoding.position_tokens to `string`"
                if learned and IMAGE in known and END in known and FAKE in known
                else "Add them to the tokenizer, or set encoding.chat_template to `tokenizer` for "
                "text in the tokenizer's own format"
            )
            raise ValueError(
                f"encoding.tokenizer: {encoding.tokenizer!r} lacks {len(lacking)} of SmolVLM's "
                f"marks ({', '.join(lacking[:3])}...). {way_out}."
            )
    has_images = all(mark in known for mark in marks)
    plain = _plain(tokenizer)
    ids = [[known.get(name, -1)] for name in names] if learned else encode_plain(plain, names)
    positions = {cell: tuple(i) for cell, i in zip(grid, ids, strict=False)} if has_images else {}
    overview = tuple(ids[-1]) if has_images else ()
    newline, blank = (tuple(i) for i in encode_plain(plain, ["\n", "\n\n"]))
    never = {known.get(BEGIN, -1)} | ({known[IMAGE], known[FAKE]} if has_images else set())
    if learned and has_images:
        never |= {token for cell in positions.values() for token in cell} | set(overview)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else -1
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else -1
    end = known.get(END, eos)
    document_end = known.get(DOCUMENT_END, eos)
    never |= {pad} - {end, document_end}
    return Vocab(
        begin=known.get(BEGIN, -1),
        end=end,
        document_end=document_end,
        pad=pad,
        image=known.get(IMAGE, -1) if has_images else -1,
        fake=known.get(FAKE, -1) if has_images else -1,
        overview=overview,
        positions=positions,
        sides=sides,
        newline=newline,
        blank=blank,
        tokens_per_crop=encoding.tokens_per_crop,
        missing=missing_bytes(tokenizer),
        unlearnable=frozenset(never - {-1}),
    )


@cache
def image_ids(vocab: Vocab, rows: int, cols: int) -> np.ndarray:
    """The ids that stand for one image of `rows` x `cols` crops: int32 [n], read-only.

    Crops row by row, a line break after each row, a blank line, then the global view; (0, 0) is the
    global view alone. Layout of transformers.models.smolvlm.processing_smolvlm.
    """
    crop = (vocab.image,) * vocab.tokens_per_crop
    ids: list[int] = []
    for row in range(1, rows + 1):
        for col in range(1, cols + 1):
            ids += (vocab.fake, *vocab.positions[row, col], *crop)
        ids += vocab.newline if row < rows else vocab.blank
    ids += (vocab.fake, *vocab.overview, *crop, vocab.fake)
    array = np.array(ids, dtype=np.int32)
    array.flags.writeable = False
    return array
