"""What a shared file promises, on the disk and in the memory of tests."""

from __future__ import annotations

import pytest

from components.vast.api.locked_file import Busy, LockedJsonFile
from tests.helpers.held_files import HeldFiles
from tests.helpers.interleaving import Interleaving
from tests.helpers.paced_market import PacedMarket, VirtuallyLocked


def virtually(path):
    return VirtuallyLocked(path, MARKET)


MARKET = PacedMarket(Interleaving(0), 1, 1.0)
OPENERS = [LockedJsonFile, HeldFiles(), virtually]


@pytest.fixture(params=OPENERS, ids=["on disk", "in memory", "in virtual time"])
def opened(request):
    return request.param


def test_what_was_saved_is_there_for_the_next_and_nothing_else(opened, tmp_path):
    with opened(tmp_path / "a.json").lock() as content:
        assert content.values == {}
        content.values = {"numbers": (1, 2)}
        content.save()
        content.values["later"] = True
    with opened(tmp_path / "a.json").lock() as content:
        assert content.values == {"numbers": [1, 2]}
    with opened(tmp_path / "b.json").lock() as content:
        assert content.values == {}


def test_an_empty_content_is_none(opened, tmp_path):
    for values in ({"one": 1}, {}):
        with opened(tmp_path / "a.json").lock() as content:
            content.values = values
            content.save()
    with opened(tmp_path / "a.json").lock() as content:
        assert content.values == {}


def test_it_is_held_once(opened, tmp_path):
    with opened(tmp_path / "a.json").lock():
        with pytest.raises(Busy), opened(tmp_path / "a.json").lock(wait=False):
            pass
        with opened(tmp_path / "b.json").lock(wait=False):
            pass


def test_it_is_free_after_an_error(opened, tmp_path):
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "a.json").lock():
        1 / 0  # noqa: B018  (what goes wrong inside)
    with opened(tmp_path / "a.json").lock(wait=False):
        pass
