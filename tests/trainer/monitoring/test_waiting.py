"""A run that starves says what to raise."""

import pytest

from tests.trainer.conftest import Settings
from trainer.monitoring.reporter import waiting_for_data


def test_waiting_is_told_with_what_to_raise(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    few = waiting_for_data(settings(workers=2), 0.31, fitted=False)
    assert "31% of the time went by waiting for data: 2 workers" in few
    assert "Raise workers to 16" in few
    all_used = waiting_for_data(settings(), 0.2, fitted=False)
    assert "16 workers" in all_used
    assert "encoding.images=fitted" in all_used
    assert "fitted" not in waiting_for_data(settings(), 0.2, fitted=True)
