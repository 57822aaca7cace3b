"""One shard's records as a file of another trainer: rows of `messages` or of pairs in Parquet, or
a tar.

| format      | file                        | a record is                                          |
|-------------|-----------------------------|------------------------------------------------------|
| messages    | messages/SPLIT-N.parquet    | a row: messages, images, image_seconds, id, subset.. |
|             | documents/SPLIT-N.parquet   | a row: text, id, component.. of raw documents        |
| webdataset  | shards/SPLIT-N.tar          | KEY.json with the same, beside KEY.0.jpg KEY.1.png.. |
| preferences | preferences/SPLIT-N.parquet | a row, if it is a pair: prompt, chosen, rejected, .. |

`content: parts` are the typed parts of transformers, TRL and axolotl; `text` is one string with
`<image>` at the place of each image, as LLaMA-Factory and ms-swift take it. Equal records give
equal bytes, and a file appears whole or not at all.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine import tables
from pipelines.export.conversations import Record
from pipelines.sources.webdataset import STILLS
from tokenization.images import open_image

FORMATS = ("messages", "webdataset", "preferences")
CONTENTS = ("parts", "text")
PLACE = "<image>"
LITERAL = "<image >"
"""What `content: text` has for an `<image>` that a text says, which would be taken for a place."""
ROWS_PER_GROUP = 100
"""Of a Parquet row group: images are heavy, and viewers read whole groups."""
GROUP_BYTES = 32 << 20
"""Of images in a row group, about: what is in memory while a file is written."""
ALTERED = "smolvlm_pipelines.altered"
"""In a file's metadata: rows in which LITERAL stands for a text's own `<image>`."""

_VALUE = {
    name: {"dtype": dtype, "_type": "Value"}
    for name, dtype in (("string", "string"), ("float", "float32"))
}
ORIGIN = [("id", pa.string()), ("component", pa.string()), ("subset", pa.string())]
ORIGIN_FEATURES = {name: _VALUE["string"] for name, _ in ORIGIN}
STRING = _VALUE["string"]
PARTS = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))
PARTS_FEATURE = {"feature": {"type": STRING, "text": STRING}, "_type": "List"}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def messages_schema(content: str) -> pa.Schema:
    """Of messages/*.parquet, with the features by which `datasets` shows images."""
    held, of_content = (PARTS, PARTS_FEATURE) if content == "parts" else (pa.string(), STRING)
    return schema_of(["messages"], held, of_content)


def preferences_schema() -> pa.Schema:
    """Of preferences/*.parquet: conversations, in the columns that TRL asks for."""
    return schema_of(["prompt", "chosen", "rejected"], PARTS, PARTS_FEATURE)


def schema_of(names: Sequence[str], content: pa.DataType, feature: Any) -> pa.Schema:
    """Columns of messages, whose content is of this type, then images, and where they are from."""
    features = {
        **{
            name: {"feature": {"role": STRING, "content": feature}, "_type": "List"}
            for name in names
        },
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "image_seconds": {"feature": _VALUE["float"], "_type": "List"},
        **ORIGIN_FEATURES,
        "modality": STRING,
    }
    message = pa.struct([("role", pa.string()), ("content", content)])
    fields = [
        *((name, pa.list_(message)) for name in names),
        ("images", pa.list_(IMAGE)),
        ("image_seconds", pa.list_(pa.float32())),
        *ORIGIN,
        ("modality", pa.string()),
    ]
    return with_features(pa.schema(fields), features)


def documents_schema() -> pa.Schema:
    """Of documents/*.parquet."""
    features = {"text": _VALUE["string"], **ORIGIN_FEATURES}
    return with_features(pa.schema([("text", pa.string()), *ORIGIN]), features)


def with_features(schema: pa.Schema, features: dict[str, Any]) -> pa.Schema:
    """The schema with what `datasets` reads of it."""
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def messages_of(record: Record, content: str) -> list[dict[str, Any]]:
    """The conversation as messages, whose images are those of the record in order."""
    if content == "text":
        return [
            {"role": role, "content": "".join(as_text(part) for part in parts)}
            for role, parts in record.conversation
        ]
    return [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "text": None}
                for part in parts
            ],
        }
        for role, parts in record.conversation
    ]


def pair_of(record: Record) -> dict[str, list[dict[str, Any]]]:
    """The prompt of a pair, and both answers, as messages."""
    assert record.rejected is not None
    *prompt, chosen = messages_of(record, "parts")
    other = {"role": "assistant", "content": [{"type": "text", "text": record.rejected}]}
    return {"prompt": prompt, "chosen": [chosen], "rejected": [other]}


def as_text(part: str | int) -> str:
    """A part of a message inside one string."""
    return part.replace(PLACE, LITERAL) if isinstance(part, str) else PLACE


def says_place(record: Record) -> bool:
    """Whether a text of the record has an `<image>` of its own."""
    said = (part for _, parts in record.conversation for part in parts)
    return any(isinstance(part, str) and PLACE in part for part in said)


def origin(record: Record) -> dict[str, str]:
    """Where a record is from."""
    return {"id": record.id, "component": record.component, "subset": record.subset}


def extension_of(image: bytes) -> tuple[str, bytes]:
    """(ending of the image's format, its bytes); of a format that tars have no ending for, PNG."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        ending = {"jpeg": "jpg", "mpo": "jpg"}.get(kind := (opened.format or "").lower(), kind)
    if ending in STILLS:
        return ending, image
    buffer = io.BytesIO()
    open_image(image).save(buffer, "PNG")
    return "png", buffer.getvalue()


class Table:
    """A Parquet file that is being written, a row group at a time."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.schema, self.rows, self.num_bytes = schema, list[dict[str, Any]](), 0
        self.altered = 0
        self.writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            write_page_index=True,
            use_content_defined_chunking=True,
        )

    def add(self, row: dict[str, Any], *, num_bytes: int = 0) -> None:
        """One more row, which holds so many bytes of images."""
        self.rows.append(row)
        self.num_bytes += num_bytes
        if len(self.rows) >= ROWS_PER_GROUP or self.num_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """The rows so far are a row group of the file."""
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.num_bytes = [], 0

    def finish(self) -> None:
        """All rows are in the file."""
        self.flush()
        self.writer.add_key_value_metadata({ALTERED: str(self.altered)})


@contextmanager
def parquet(path: str, schema: pa.Schema) -> Iterator[Table]:
    """A Parquet file that appears when the block ends, or never."""
    with tables.atomic_file(path) as file:
        table = Table(file, schema)
        try:
            yield table
            table.finish()
        finally:
            table.writer.close()


def write_messages(records: Iterable[Record], root: str, name: str, *, content: str) -> None:
    """messages/NAME.parquet holds the conversations, documents/NAME.parquet the raw documents,
    where there are any; the former appears last.
    """
    documents: Table | None = None
    with (
        parquet(file_of(root, name, format="messages"), messages_schema(content)) as conversations,
        ExitStack() as stack,
    ):
        for record in records:
            if record.is_document:
                if documents is None:
                    documents = stack.enter_context(
                        parquet(documents_of(root, name), documents_schema())
                    )
                text = "".join(part for part in record.conversation[0][1] if isinstance(part, str))
                documents.add({"text": text, **origin(record)})
                continue
            conversations.altered += content == "text" and says_place(record)
            add_conversation(conversations, record, content)


def write_preferences(records: Iterable[Record], root: str, name: str) -> None:
    """preferences/NAME.parquet holds the records that are pairs."""
    path = file_of(root, name, format="preferences")
    with parquet(path, preferences_schema()) as table:
        for record in records:
            if record.rejected is not None:
                add_row(table, record, pair_of(record))


def write_table(records: Iterable[Record], path: str) -> None:
    """The Parquet file holds the records, raw documents too, as typed parts."""
    with parquet(path, messages_schema("parts")) as table:
        for record in records:
            add_conversation(table, record, "parts")


def add_conversation(table: Table, record: Record, content: str) -> None:
    """One more row: messages, images, and where they are from."""
    add_row(table, record, {"messages": messages_of(record, content)})


def add_row(table: Table, record: Record, said: dict[str, Any]) -> None:
    """One more row: what is said, the images, and where they are from."""
    table.add(
        {
            **said,
            "images": [{"bytes": image, "path": None} for image in record.images],
            "image_seconds": record.seconds,
            **origin(record),
            "modality": record.modality,
        },
        num_bytes=sum(map(len, record.images)),
    )


def write_webdataset(records: Iterable[Record], root: str, name: str) -> None:
    """shards/NAME.tar holds the records, documents too, in order."""
    with (
        tables.atomic_file(file_of(root, name, format="webdataset")) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, record in enumerate(records):
            key = f"{name}-{number:06d}"
            images = [extension_of(image) for image in record.images]
            members = [(f"{n}.{ending}", data) for n, (ending, data) in enumerate(images)]
            about = {
                **origin(record),
                "modality": record.modality,
                "messages": messages_of(record, "parts"),
                "images": [member for member, _ in members],
                "image_seconds": record.seconds,
            }
            text = json.dumps(about, ensure_ascii=False).encode()
            for member, data in [("json", text), *members]:
                entry = tarfile.TarInfo(f"{key}.{member}")
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))


def file_of(root: str, name: str, *, format: str) -> str:
    """The file that a shard becomes; there, its export is done."""
    if format != "webdataset":
        return tables.join(root, format, f"{name}.parquet")
    return tables.join(root, "shards", f"{name}.tar")


def documents_of(root: str, name: str) -> str:
    """The file of a shard's raw documents, in `format: messages`."""
    return tables.join(root, "documents", f"{name}.parquet")


def altered_in(path: str) -> int:
    """Rows of a messages file in which LITERAL stands for a text's own `<image>`."""
    source = pa.BufferReader(tables.read_bytes(path)) if tables.is_remote(path) else path
    found = pq.read_metadata(source).metadata or {}
    return int(found.get(ALTERED.encode(), b"0"))
