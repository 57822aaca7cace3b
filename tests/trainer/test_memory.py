"""What benchmarks/memory.py counts is what tensors take."""

import torch

from benchmarks.memory import image_record, peak_bytes, weight_bytes
from tokenization.images import image_size

MB = 1 << 20


def test_the_peak_is_what_lives_at_one_time() -> None:
    before = torch.zeros(4 * MB, dtype=torch.uint8)

    def work() -> None:
        kept = torch.zeros(8 * MB, dtype=torch.uint8)
        passing = torch.zeros(16 * MB, dtype=torch.uint8)
        del passing
        another = torch.zeros(12 * MB, dtype=torch.uint8)
        assert len(kept) + len(another) + len(before)

    assert peak_bytes(work) == 24 * MB


def test_temporaries_inside_an_operator_are_seen() -> None:
    values = torch.rand(MB)
    peak = peak_bytes(lambda: torch.sort(values).values.sum())
    assert peak >= 12 * MB  # 4 MB of values and 8 MB of indices


def test_shared_weights_are_weighed_once() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(100, 50, bias=False), torch.nn.Linear(100, 50)])
    model[1].weight = model[0].weight
    assert weight_bytes(model) == 100 * 50 * 4 + 50 * 4


def test_the_image_has_the_size_asked_for() -> None:
    assert image_size(image_record(96)) == (96, 96)
