"""A run that starves says what to raise; every run says how long it will take."""

import pytest

from tests.trainer.conftest import Settings
from tokenization.terminal import human_time
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (89.4, "89 s"), (90, "2 min"), (89 * 60, "89 min"), (90 * 60, "1 h 30 min"),
        (47 * 3600, "47 h 00 min"), (48 * 3600, "2 d 0 h"), (200_000, "2 d 7 h"),
    ],
)  # fmt: skip
def test_times_as_people_say_them(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
