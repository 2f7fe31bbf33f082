from __future__ import annotations

import pytest

from components.machine.errors import HostUnfit
from components.machine.inspection import Rate, judge_rate
from components.vast.api.models import Instance
from components.vast.lifecycle.order import expected_of
from components.vllm.readiness.download_rate import DownloadMeter
from components.vllm.readiness.plan import DOWNLOAD_SHARE, ReadinessPlan
from tests.helpers.offers import instance
from tests.helpers.states import inputs, search

Looks = list[tuple[float, float]]


def meter(looks: Looks, expected: float = 1000) -> DownloadMeter:
    made = DownloadMeter(expected)
    for now, size in looks:
        made = made.look(now, size)
    return made


@pytest.mark.parametrize(
    ("looks", "rate", "remaining"),
    [
        ([], 0, None),
        ([(0, 0)], 0, None),
        ([(0, 500)], 0, None),
        ([(0, 500), (10, 500)], 0, None),
        ([(0, 0), (10, 100)], 10, 90),
        # What was there before is not this download's doing.
        ([(0, 500), (10, 600)], 10, 40),
        # Waiting for the first byte is no slowness.
        ([(0, 0), (100, 0), (110, 100)], 10, 90),
        # The present minute, if it is better than all of it.
        ([(0, 0), (10, 10), (100, 100), (160, 700)], 10, 30),
        # All of it, if it is better than the present minute: a pause.
        ([(0, 0), (40, 400), (70, 400), (101, 404)], 4, 149),
        ([(0, 0), (10, 1000)], 100, 0),
        ([(0, 0), (10, 1200)], 120, 0),
        ([(0, 0), (10, 100), (20, 90)], 5, 180),
    ],
)
def test_rate_and_what_remains(looks: Looks, rate: float, remaining: float | None) -> None:
    found = meter(looks)
    assert found.rate == pytest.approx(rate)
    assert found.remaining == pytest.approx(remaining)


def test_quiet_and_measured_begin_with_the_bytes() -> None:
    found = meter([(5, 0), (10, 0), (20, 100), (50, 100)])
    assert found.quiet == 30
    assert found.measured == 40
    assert meter([(5, 0), (10, 0)]).quiet == 5
    assert meter([(5, 0), (10, 0)]).measured == 0
    assert meter([]).quiet == 0


@pytest.mark.parametrize("mbps", [300.0, 360.0, 400.0, 420.0, 422.0, 440.0, 1000.0])
def test_a_link_that_the_host_check_passes_is_fast_enough_for_the_wait(mbps):
    """Else a machine is rented, downloads for a while, and is given up for what was known."""
    asked = inputs(search=search(ready_minutes=45.0, weights_gb=120.92))
    machine = Instance.from_json(instance())
    expected = expected_of(machine, asked, DOWNLOAD_SHARE, adopted=False)
    plan = ReadinessPlan("m", 4096, "the-key", 120.92e9, deadline=45 * 60)
    fast_enough = 120.92e9 * 8 / (mbps * 1e6) <= plan.limit("download")
    if fast_enough:
        judge_rate(Rate(mbps, ""), expected)
    else:
        with pytest.raises(HostUnfit):
            judge_rate(Rate(mbps, ""), expected)
