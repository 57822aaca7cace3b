"""Small SAMPLE tables, written the way a test reads best."""

from typing import Any

import polars as pl
import pyarrow as pa
import xxhash

from filters import judge
from tokenization.schema import SAMPLE


def image_record(**given: Any) -> dict[str, Any]:
    """A still of 640 x 480 px that no rule objects to, but for what is given."""
    usual = {"bytes": b"\xff\xd8", "width": 640, "height": 480, "dhash": 0x0F0F_3C3C_5A5A_9999}
    more = {"seconds": None, "contrast": 50.0, "sharpness": 500.0, "edges": 0.2}
    image = usual | more | given
    about = [image[name] for name in ("width", "height", "dhash", "contrast", "sharpness", "edges")]
    return {"pixels": xxhash.xxh3_64_intdigest(repr(about))} | image


def message(role: str, text: str, images: int = 0) -> dict[str, Any]:
    parts = [{"type": "image", "text": None}] * images + [{"type": "text", "text": text}]
    return {"role": role, "content": parts}


def sample(
    *turns: str, images: list[dict[str, Any]] | None = None, system: str = "", **given: Any
) -> dict[str, Any]:
    """User, assistant, user, ... say `turns`; the first message holds the images."""
    images = images or []
    roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(turns))]
    messages = [
        message(role, text, len(images) if n == 0 else 0)
        for n, (role, text) in enumerate(zip(roles, turns, strict=True))
    ]
    if system:
        messages.insert(0, message("system", system))
    usual = {"id": None, "source": "cauldron", "subset": "ai2d", "tags": []}
    usual |= {"duration": None, "defect": None, "ratings": None, "answer": None}
    return usual | {"messages": messages, "images": images} | given


def table(*samples: dict[str, Any]) -> pa.Table:
    numbered = [
        {**row, "id": row["id"] or f"cauldron/ai2d/{n:06}"} for n, row in enumerate(samples)
    ]
    return pa.Table.from_pylist(numbered, schema=SAMPLE)


def reasons(rules: dict[str, Any], *samples: dict[str, Any]) -> list[str | None]:
    """The reason for each sample, null where it stays."""
    return judge(table(*samples), rules=rules)["rule"].to_pylist()


def verdicts(rules: dict[str, Any], *samples: dict[str, Any]) -> pl.DataFrame:
    """VERDICTS with the columns that mixture-level rules expect of the build."""
    judged = pl.DataFrame(pl.from_arrow(judge(table(*samples), rules=rules)))
    return judged.with_columns(component=pl.lit("a"), priority=pl.lit(0))
