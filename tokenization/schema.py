"""The tables that tokenization reads and writes, and its settings.

| table  | one row is                   | written by        | read by                 |
|--------|------------------------------|-------------------|-------------------------|
| SAMPLE | a conversation and its media | `ingest`          | `judge`, `encode`, pack |
| TOKENS | that sample as ids           | `encode`          | index, pack             |
| PACKED | several samples, one sequence| `pack`            | the trainer, `show`     |

TOKENS has the rows of SAMPLE, in the same order.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

CONTENT = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(CONTENT))]))
"""Roles are system, user, assistant, `document` (raw text, no chat marks, every token learned), and
`rejected`: right before the last answer, the one that it was preferred to; it is not encoded.
Content parts are `text` (with its text) and `image` (text null): the next image of `images`."""

IMAGES = pa.list_(
    pa.struct(
        [
            ("bytes", pa.binary()),  # encoded, as it came; null where it could not be decoded
            ("width", pa.int32()),  # px, after EXIF orientation
            ("height", pa.int32()),  # px
            (
                "pixels",
                pa.uint64(),
            ),  # xxh3 of size and oriented RGB image; of a JPEG, of what they come from
            ("dhash", pa.uint64()),  # 64-bit difference hash of the small copy
            (
                "seconds",
                pa.float32(),
            ),  # of a video frame, from the start of the clip; null: a still
            ("contrast", pa.float32()),  # deviation of luminance at thumbnail size, 0..127.5
            ("sharpness", pa.float32()),  # variance of the Laplacian of luminance at thumbnail size
            ("edges", pa.float32()),  # share of thumbnail pixels on an edge, 0..1
            ("broken_exif", pa.bool_()),  # its EXIF cannot be read: it may lie on its side
        ]
    )
)

RATINGS = pa.list_(
    pa.struct(
        [
            ("relevance", pa.int8()),
            ("image_correspondence", pa.int8()),
            ("visual_dependency", pa.int8()),
            ("formatting", pa.int8()),
        ]
    )
)
"""Per question-answer turn, 1..5, null where not rated (the four of FineVision)."""

SAMPLE = pa.schema(
    [
        ("id", pa.string()),  # "cauldron/ai2d/000123": source, subset, row; unique and stable
        ("source", pa.string()),
        ("subset", pa.string()),
        ("messages", MESSAGES),
        ("images", IMAGES),  # in order of appearance; the frames of a video are images
        ("duration", pa.float32()),  # s, of the video; null where there is none
        ("defect", pa.string()),  # why ingest could not make a whole sample; null: it is whole
        ("detail", pa.string()),  # what was found and expected, in names and types; of `defect`
        ("tags", pa.list_(pa.string())),  # e.g. "cot"
        ("ratings", RATINGS),
        ("answer", pa.string()),  # the gold answer where the source states one apart; else null
        ("header_seconds", pa.float32()),  # that the video's header states; null: it states none
    ]
)

GRIDS = pa.list_(pa.struct([("rows", pa.int8()), ("cols", pa.int8())]))

TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.bool_())),  # true where the token is learned
        ("grids", GRIDS),  # per image; (0, 0) = global view only
        ("num_tokens", pa.int32()),
        ("num_learned", pa.int32()),
        ("num_crops", pa.int32()),  # sum over images of rows x cols + 1
        ("problem", pa.string()),  # why it cannot be encoded (ids are then empty); or null
        ("splittable", pa.bool_()),  # may be spread over several rows, cut by seq_lengths
        ("seq_lengths", pa.list_(pa.int32())),  # tokens per sequence: one, or the parts of a
        #                                         sample that is split; sums to num_tokens
        ("lost_bytes", pa.int32()),  # of its text that the vocabulary has no symbol for
    ]
)
"""A `problem` is the `defect` that ingest found, or one of unknown_role, mixed_document,
more_placeholders_than_images, more_images_than_placeholders, no_image_token, grid_without_token,
unrepresentable_text, template_refuses, nothing_learned; of a rejected answer no_preference (it says
the same) and too_long (with it the sample does not fit a row)."""
PAIRED_TOKENS = TOKENS.append(pa.field("rejected", pa.string()))
"""TOKENS of a source of pairs: and the rejected answer; null where there is none."""

PACKED = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.bool_())),
        ("seq_lengths", pa.list_(pa.int32())),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("grids", GRIDS),
        ("sample_ids", pa.list_(pa.string())),
    ]
)

_LIST_OF = {
    "input_ids": {"dtype": "int32", "_type": "Value"},
    "loss_mask": {"dtype": "bool", "_type": "Value"},
    "seq_lengths": {"dtype": "int32", "_type": "Value"},
    "images": {"_type": "Image"},
    "grids": {
        "rows": {"dtype": "int8", "_type": "Value"},
        "cols": {"dtype": "int8", "_type": "Value"},
    },
    "sample_ids": {"dtype": "string", "_type": "Value"},
}
FEATURES = {name: {"feature": feature, "_type": "List"} for name, feature in _LIST_OF.items()}
PACKED_WRITTEN = PACKED.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
"""PACKED with the metadata by which `datasets` (4 and later) shows `images` as images."""
PAIRED = PACKED.append(pa.field("rejected", pa.list_(pa.string())))
"""PACKED of a mixture with a source of pairs: per sample its rejected answer, null where it has
none; `input_ids` hold the conversation that ends with the chosen one."""
_REJECTED = {"rejected": {"feature": _LIST_OF["sample_ids"], "_type": "List"}}
PAIRED_WRITTEN = PAIRED.with_metadata(
    {"huggingface": json.dumps({"info": {"features": FEATURES | _REJECTED}})}
)


LATER = {"identity": "where_changed"}
"""Of a setting that came after mixtures were finished: at its default it is no part of their
identity, so that they stay what they are."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a sample becomes ids: the `encoding:` block of a mixture. Every field bears identity."""

    tokenizer: str = "builtin"
    """A hub id, a folder (known by its files, from here or beside the mixture), or `builtin`
    (the bundled SmolVLM tokenizer, 49,280 ids)."""
    seq_len: int = 8192
    """Tokens in a packed row, at most."""
    max_crops: int = 128
    """Crops in a packed row, at most: bounds vision memory."""
    crop_size: int = 512
    """px, the side of the encoder's square input."""
    longest_edge: int = 2048
    """px, to which the longer side of a still image is resized before it is cut into crops."""
    tokens_per_crop: int = 64
    """`(crop_size / patch)^2 / shuffle_factor^2` of the model this is for."""
    split_images: bool = True
    """Cut stills into crops beside the global view; false: the global view only."""
    position_tokens: Literal["learned", "string"] = "learned"
    """`<row_1_col_2>` as one learned token, or spelled out as text (ablation)."""
    system_prompts: str = "smolvlm"
    """A named table of prompts per kind of task; `none` adds none."""
    media_intro_outro: bool = True
    """Say "Here is an image..." before media and a transition after it."""
    plain_prompts: float = field(default=0.0, metadata=LATER)
    """Share of samples, by hash of the id, that get neither a system prompt nor words around their
    images, as most programs send them (videos keep the words that `transformers` itself writes)."""
    learn: Literal["completions", "all"] = "completions"
    """Which text is learned: assistant answers only, or every text token."""
    chat_template: str = "smolvlm"
    """`smolvlm` (this package's own rendering), `tokenizer` (the tokenizer's Jinja template) or the
    text of a Jinja template; the last two need the `{% generation %}` keyword, which marks what is
    learned."""
    upscale: bool = True
    """Enlarge stills whose longer side is below `longest_edge`, as SmolVLM's processor does; false:
    only up to the next multiple of `crop_size`."""
    tiles: Literal["full", "random"] = "full"
    """Crops on the longer side of a still: what `longest_edge` gives, or a seeded random number (2,
    3, 4, 5 with 0.4, 0.3, 0.2, 0.1; SmolVLM's image stages), never above `longest_edge`."""
    brevity_hints: bool = False
    """Ask for a short answer where all answers of an image sample are short."""
    shuffle_turns: bool = False
    """Permute the questions about the images of the first turn, by hash of the sample id."""
    max_turns: int = 0
    """Question-answer pairs of a sample that are kept, the first after `shuffle_turns`; 0: all."""
    split_turns: int = 0
    """Samples of more pairs than this about the images of the first turn become several
    sequences, each with the images, of at most this many pairs and, where that can be, `seq_len`
    tokens; 0: never."""
    cut_documents: bool = True
    """Cut raw documents at `seq_len`; false: those that are longer are rejected as too long."""
    unrepresentable: Literal["reject", "drop"] = "reject"
    """What happens to text with bytes the vocabulary has no symbol for (builtin: 21 bytes): the
    sample is rejected, or the bytes go and `lost_bytes` counts them."""
    pack: Literal["best_fit", "none"] = "best_fit"
    """Fill rows with samples, or put one sample in each row."""
    images: Literal["original", "recompress", "fitted"] = "original"
    """Images in the shards: the bytes as they came; re-encoded where that makes them smaller and
    never above `longest_edge`; or already of their grid's size, the global view behind it, so that
    the loader only decodes."""
    image_format: Literal["jpeg", "webp", "png"] = "jpeg"
    """Of re-encoded images; png is lossless."""
    image_quality: int = 95
    """1..100, of re-encoded images."""
    seed: int = 0
    """Of every choice that hashes a sample id: prompts, tiles, turn order."""
