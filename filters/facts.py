"""Facts: one flat row of columns per sample, from which rules are written.

    SAMPLE --without_bytes--> messages, images as structs of numbers --facts--> one column per fact

Image bytes are never converted: the `bytes` child of `images` is replaced by its length before
Polars sees the table. All nested expressions live in this file; a rule reads flat columns only. A
fact is computed only if a rule (or VERDICTS) names it.

| fact                          | type    | what is true of it                                |
|-------------------------------|---------|---------------------------------------------------|
| modality                      | string  | video, multi_image, image or text                 |
| num_images, num_placeholders  | uint32  | images given; places in the messages for one      |
| num_turns                     | uint32  | answers of the assistant                          |
| num_bytes                     | int64   | encoded images and UTF-8 text                     |
| roles                         | string  | "system user assistant user assistant"            |
| questions, answers, documents | strings | text of every user, assistant, document message;  |
|                               |         | a rejected answer is one, right before the last   |
| asked                         | strings | `questions`, that of a rejected answer twice      |
| system_text                   | string  | text of the system messages                       |
| text                          | string  | all but the system text, a message a line         |
| learned_text                  | string  | answers and documents, a message a line           |
| all_tags                      | strings | the sample's tags, and "cot" where answers show it|
| min_side, max_side            | int32   | px, over the images                               |
| max_aspect                    | float64 | longer side / shorter, of the most extreme image|
| max_pixels                    | int64   | of the largest image                              |
| contrasts, dhashes, seconds   | list    | per image, in order; see IMAGES                   |
| min_contrast, min_sharpness,  | float32 | of the least (most) image; see IMAGES             |
| min_edges, max_edges          |         |                                                   |
| any_broken_exif               | bool    | of an image the EXIF cannot be read; see IMAGES   |
| relevance_mean, _min, and of  | float32 | over the turns; see RATINGS                       |
| the other three ratings       |         |                                                   |
"""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

# fmt: off
VERDICTS = pa.schema(
    [
        ("id", pa.string()),
        ("modality", pa.string()),        # text | image | multi_image | video
        ("duration", pa.float32()),       # s, of the video; else null
        ("num_images", pa.int32()),
        ("num_turns", pa.int32()),        # answers of the assistant
        ("num_bytes", pa.int64()),        # encoded images and UTF-8 text
        ("tags", pa.list_(pa.string())),  # the sample's own, and "cot" where its answers show it
        ("rule", pa.string()),            # the first that rejects, a defect before any; null: stays
        ("fired", pa.list_(pa.string())), # all that fire, marked ones too, in the mixture's order
        ("detail", pa.string()),          # of `rule`: the defect's, or which benchmark and question
        ("weight", pa.float32()),         # the fact that `weight_by` names; null where not asked
        # What mixture-level rules compare, so that samples are not read again; null if none asks,
        # but for `dhashes`, which the report compares.
        ("text_hash", pa.uint64()),       # xxh3 of the normalised text
        ("bytes_hash", pa.uint64()),      # xxh3 of the encoded images, in order
        ("pixels_hash", pa.uint64()),     # xxh3 of their pixels (a JPEG: its coded data), in order
        ("text_signature", pa.binary()),  # MinHash, 8 bits of each permutation
        ("dhashes", pa.list_(pa.uint64())),
        ("embedding_signature", pa.binary()),  # signs of an image embedding's random projections
    ]
)
# fmt: on

RATED = ("relevance", "image_correspondence", "visual_dependency", "formatting")
"""What FineVision rates of every turn, 1 to 5."""
_message = pl.element().struct
_image = pl.element().struct
_role = _message.field("role")

_spoken = _message.field("content").list.eval(_image.field("text")).list.join("", ignore_nulls=True)
_SHOWS_REASONING = (
    r"(?i)<think(?:ing)?>|<reasoning>|<thought>|<\|begin_of_thought\|>"
    r"|let'?s think (?:about (?:it|this) )?step[ -]by[ -]step|chain[ -]of[ -]thought"
)


NUMBERS = (
    *("num_images", "num_placeholders", "num_turns", "num_bytes", "duration", "header_seconds"),
    *("min_side", "max_side", "max_aspect", "max_pixels"),
    *("min_contrast", "min_sharpness", "min_edges", "max_edges"),
    *(f"{name}_{of}" for name in RATED for of in ("mean", "min")),
)
"""The facts that are a number of a sample: what bounds and quantiles may be stated of."""


def _texts_of(*roles: str) -> pl.Expr:
    """List<string>: the text of every message whose role is one of `roles`, in order."""
    said = pl.element().filter(_message.field("role").is_in(list(roles))).struct
    return pl.col("messages").list.eval(
        said.field("content").list.eval(_image.field("text")).list.join("", ignore_nulls=True)
    )


def _of_images(expression: pl.Expr) -> pl.Expr:
    return pl.col("images").list.eval(expression)


_short = pl.min_horizontal(_image.field("width"), _image.field("height"))
_long = pl.max_horizontal(_image.field("width"), _image.field("height"))

FACTS: dict[str, pl.Expr] = {
    "num_images": pl.col("images").list.len(),
    "num_placeholders": pl.col("messages")
    .list.eval(_message.field("content").list.eval(_image.field("type") == "image").list.sum())
    .list.sum(),
    "num_turns": pl.col("messages").list.eval(_message.field("role") == "assistant").list.sum(),
    "roles": pl.col("messages").list.eval(_role.filter(_role != "rejected")).list.join(" "),
    "questions": _texts_of("user"),
    "answers": _texts_of("assistant", "rejected"),
    "asked": pl.when(pl.col("messages").list.eval(_role == "rejected").list.any())
    .then(pl.concat_list("questions", pl.col("questions").list.tail(1)))
    .otherwise("questions"),
    "documents": _texts_of("document"),
    "system_text": _texts_of("system").list.join("\n"),
    "text": _texts_of("user", "assistant", "rejected", "document").list.join("\n"),
    "num_bytes": (
        _of_images(_image.field("num_bytes")).list.sum().fill_null(0)
        + (pl.col("text").str.len_bytes() + pl.col("system_text").str.len_bytes()).cast(pl.Int64)
    ),
    "modality": pl.when(
        pl.col("duration").is_not_null() | pl.col("seconds").list.drop_nulls().list.len().gt(0)
    )
    .then(pl.lit("video"))
    .when(pl.col("num_images") > 1)
    .then(pl.lit("multi_image"))
    .when(pl.col("num_images") == 1)
    .then(pl.lit("image"))
    .otherwise(pl.lit("text")),
    "all_tags": pl.when(
        pl.col("answers").list.eval(pl.element().str.contains(_SHOWS_REASONING)).list.any()
    )
    .then(pl.col("tags").fill_null([]).list.set_union(["cot"]))
    .otherwise(pl.col("tags").fill_null([])),
    "learned_text": _texts_of("assistant", "rejected", "document").list.join("\n"),
    "min_side": _of_images(_short).list.min(),
    "max_side": _of_images(_long).list.max(),
    "max_aspect": _of_images(_long / _short).list.max(),
    "max_pixels": _of_images(
        _image.field("width").cast(pl.Int64) * _image.field("height")
    ).list.max(),
    "contrasts": _of_images(_image.field("contrast")),
    "min_contrast": _of_images(_image.field("contrast")).list.min(),
    "min_sharpness": _of_images(_image.field("sharpness")).list.min(),
    "min_edges": _of_images(_image.field("edges")).list.min(),
    "max_edges": _of_images(_image.field("edges")).list.max(),
    "any_broken_exif": _of_images(_image.field("broken_exif")).list.any(),
    "dhashes": _of_images(_image.field("dhash")),
    "seconds": _of_images(_image.field("seconds")),
    **{
        f"{name}_{of}": getattr(
            pl.col("ratings").list.eval(_image.field(name).cast(pl.Float32)).list, of
        )()
        for name in RATED
        for of in ("mean", "min")
    },
}
"""Fact -> expression over the columns of SAMPLE (images without bytes) and over other facts."""


def without_bytes(samples: pa.Table) -> pa.Table:
    """The samples, where `images` holds `num_bytes` (int64; null: no image) in place of `bytes`.

    Nothing is copied but offsets: lengths come from the offsets of the binary column.
    """
    chunks = []
    for chunk in samples["images"].chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0)
        offsets = pa.concat_arrays(
            [pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())]
        )
        images = chunk.flatten()
        names = [field.name for field in images.type]
        columns = [
            pc.binary_length(images.field(name)).cast(pa.int64())
            if name == "bytes"
            else images.field(name)
            for name in names
        ]
        names[names.index("bytes")] = "num_bytes"
        structs = pa.StructArray.from_arrays(columns, names=names)
        chunks.append(pa.ListArray.from_arrays(offsets, structs))
    position = samples.schema.get_field_index("images")
    if not chunks:
        empty = pa.list_(
            pa.struct(
                [("num_bytes", pa.int64())]
                + [
                    (field.name, field.type)
                    for field in samples.schema.field("images").type.value_type
                    if field.name != "bytes"
                ]
            )
        )
        return samples.set_column(position, "images", pa.chunked_array([], type=empty))
    return samples.set_column(position, "images", pa.chunked_array(chunks))


def facts(samples: pa.Table, *, names: set[str]) -> pl.DataFrame:
    """The columns of SAMPLE and the facts `names`, a row per sample, in the order of the samples.

    A fact that reads another fact brings it along. Names that are columns of the samples are there
    anyway; an unknown name raises KeyError.
    """
    frame = pl.DataFrame(pl.from_arrow(without_bytes(samples)))
    wanted: dict[str, set[str]] = {}
    waiting = [name for name in names if name not in frame.columns]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            reads = set(FACTS[name].meta.root_names()) - set(frame.columns)
            wanted[name] = reads
            waiting.extend(reads)
    lazy, done = frame.lazy(), set(frame.columns)
    while wanted:
        ready = [name for name, reads in wanted.items() if reads <= done]
        lazy = lazy.with_columns(**{name: FACTS[name] for name in ready})
        done.update(ready)
        for name in ready:
            del wanted[name]
    return lazy.collect()


def evaluated_where(condition: pl.Expr, then: pl.Expr) -> pl.Expr:
    """Boolean: `condition` and `then`, of which `then` is computed only on rows of `condition`.

    For what is slow and seldom needed. Both read columns by name and row by row.
    """
    names = sorted(set(then.meta.root_names()))

    def evaluate(rows: pl.Series) -> pl.Series:
        frame = rows.struct.unnest().with_row_index("row")
        some = frame.filter(pl.col("condition").fill_null(value=False))
        fires = some.filter(then.fill_null(value=False))["row"]
        result = np.zeros(len(rows), bool)
        result[fires.to_numpy()] = True
        return pl.Series(result)

    columns = pl.struct(condition.alias("condition"), *names)
    return columns.map_batches(evaluate, return_dtype=pl.Boolean)
