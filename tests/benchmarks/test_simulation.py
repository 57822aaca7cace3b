"""The model of builds on many workers, of real plans: what issue 19 asks of them holds."""

import pytest

from benchmarks.simulation import BEFORE, WORKERS, bounds_of, hours_of, planned, thumbnails
from mixtures.plan import BuildSpeed

STATED_HOURS = 180
"""Of `plan mixture=sft_v2` on two cores when everything was read (issue 19)."""


def test_enough_of_the_flagship_is_a_sixth_of_the_hours_and_little_more_than_is_used():
    enough = planned("sft_v2", read="enough", speed=BuildSpeed())
    everything = planned("sft_v2", read="all", speed=BEFORE)
    assert enough.hours / 2 <= STATED_HOURS / 6
    read, used = enough.ample
    assert 1 <= read / used <= 1.15
    assert everything.ample[0] / used > 5
    assert enough.work.tasks < everything.work.tasks
    for n in WORKERS:
        hours = [
            hours_of(bounds_of(found.work, workers=n, driver=1e-5, per_task=3e-3))
            for found in (enough, everything)
        ]
        assert hours[0] < hours[1]


@pytest.mark.parametrize("field", ["tasks", "seconds", "written", "samples"])
def test_twice_the_samples_are_twice_the_work(field):
    one, two = thumbnails(1_000_000), thumbnails(2_000_000)
    assert getattr(two, field) == pytest.approx(2 * getattr(one, field))
