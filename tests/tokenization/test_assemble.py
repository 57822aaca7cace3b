"""Ids and masks of a batch at once are those of each sample put together by itself."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenization.rows import BARE, IMAGE, SMALL, image_record, message, sample, table
from tokenization.assemble import Plan, assembled, learned_tokens
from tokenization.encode import encode, encoding_tools
from tokenization.vocab import encode_plain, image_ids, plain_tokenizer

TOOLS = encoding_tools(SMALL)
PLAIN = plain_tokenizer("builtin")
WHAT = st.one_of(
    st.text(max_size=12),
    st.lists(st.integers(0, 49_000), min_size=1, max_size=3).map(tuple),
    st.just(0),
)
SEQUENCES = st.lists(st.lists(st.tuples(WHAT, st.booleans()), max_size=5), max_size=3)
GRIDS = st.sampled_from([(0, 0), (1, 2), (3, 2)])


@st.composite
def plans(draw):
    sequences = draw(SEQUENCES)
    count = sum(what == 0 for sequence in sequences for what, _ in sequence)
    grids = draw(st.lists(GRIDS, min_size=count, max_size=count))
    return Plan(grids=grids, sequences=sequences, splittable=draw(st.booleans()))


def by_itself(plan, seq_len):
    """(ids, mask, lengths of the sequences), a token at a time."""
    ids, mask, lengths, grids = [], [], [], iter(plan.grids)
    for sequence in plan.sequences:
        begin = len(ids)
        for what, learned in sequence:
            if isinstance(what, str):
                own = encode_plain(PLAIN, [what])[0]
            else:
                own = image_ids(TOOLS.vocab, *next(grids)) if what == 0 else what
            ids += list(own)
            mask += [learned] * len(own)
        lengths.append(len(ids) - begin)
    if plan.splittable and len(lengths) == 1 and len(ids) > seq_len:
        lengths = [len(ids[at : at + seq_len]) for at in range(0, len(ids), seq_len)]
    at = 0
    for length in lengths:
        mask[at : at + 1] = [False] * len(mask[at : at + 1])
        at += length
    return ids, mask, lengths


@given(batch=st.lists(plans(), max_size=5), seq_len=st.integers(1, 40))
def test_a_batch_is_its_samples_one_behind_the_other(batch, seq_len):
    texts = [what for p in batch for s in p.sequences for what, _ in s if isinstance(what, str)]
    ids_of = iter(TOOLS.words.packed(texts))
    rows = [assembled(plan, ids_of, TOOLS.vocab, seq_len=seq_len) for plan in batch]
    expected = [by_itself(plan, seq_len) for plan in batch]
    ids = [np.frombuffer(b"".join(pieces), np.int32).tolist() for pieces, _, _ in rows]
    assert ids == [ids for ids, _, _ in expected]
    assert [lengths for *_, lengths in rows] == [lengths for *_, lengths in expected]
    mask = learned_tokens([f for _, f, _ in rows], [p for p, _, _ in rows], [n for *_, n in rows])
    assert mask.tolist() == [learned for _, mask, _ in expected for learned in mask]


ROWS = st.lists(
    st.tuples(st.text(max_size=8), st.text(max_size=8), st.lists(st.integers(1, 200), max_size=2)),
    max_size=7,
)


@given(rows=ROWS, sizes=st.lists(st.integers(1, 4), min_size=7, max_size=7))
def test_how_a_file_is_cut_into_batches_changes_nothing(rows, sizes):
    """Nor does what of the images is not asked for."""
    made = [
        sample(
            f"made/{n}",
            [message("user", *[IMAGE] * len(sides), asked), message("assistant", said)],
            [image_record(side, 64, data=b"x" * n) for side in sides],
        )
        for n, (asked, said, sides) in enumerate(rows)
    ]
    whole = table(*made)
    starts = np.cumsum([0, *sizes])
    pieces = [whole.slice(a, n) for a, n in zip(starts, sizes, strict=False)]
    cut = pa.concat_tables([*pieces, whole.slice(starts[-1])])
    for encoding in (SMALL, replace(BARE, unrepresentable="drop")):
        once = encode(whole, encoding=encoding)
        assert encode(cut, encoding=encoding) == once
        assert pa.concat_tables(encode(p, encoding=encoding) for p in pieces) == once.slice(
            0, sum(map(len, pieces))
        )
