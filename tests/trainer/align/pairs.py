"""Small finished mixtures of pairs: the toy samples, each with a rejected answer."""

from pathlib import Path

import pyarrow as pa

from tests.trainer.shards import KINDS, pack, sample, write
from tokenization.schema import PAIRED
from tokenization.vocab import load_tokenizer


def rejected_of(one: dict) -> str:
    """Its answer, worse: what is preferred is not to say `maybe`."""
    ids = [i for i, learned in zip(one["input_ids"], one["loss_mask"], strict=True) if learned]
    return f"maybe{load_tokenizer('builtin').decode(ids[:-1])}"


def pairs(folder: Path, count: int = 60, *, held: int = 20, unpaired: int = 0) -> Path:
    """A mixture of `count` pairs of all kinds, with val rows; the first `unpaired` are none."""
    samples = [sample(n, KINDS[n % len(KINDS)]) for n in range(count)]
    others = [sample(10_000 + n, KINDS[n % len(KINDS)]) for n in range(held)]
    write(folder, pack(samples), val=pack(others) if held else None)
    rejected = {one["id"]: rejected_of(one) for one in (*samples[unpaired:], *others)}
    for path in (folder / "shards").iterdir():
        with pa.ipc.open_file(path) as reader:
            table = reader.read_all()
        column = [[rejected.get(name) for name in ids] for ids in table["sample_ids"].to_pylist()]
        table = table.append_column(PAIRED.field("rejected"), pa.array(column))
        with pa.ipc.new_file(str(path), PAIRED) as writer:
            writer.write_table(table.cast(PAIRED), max_chunksize=3)
    return folder
