from __future__ import annotations

import gc

import pytest

from components.core.imports import to_stay


@pytest.mark.parametrize("was_on", [True, False])
def test_what_is_loaded_is_kept_out_of_a_collector_that_is_left_as_it_was(was_on):
    kept, before = gc.isenabled(), gc.get_freeze_count()
    try:
        (gc.enable if was_on else gc.disable)()
        with to_stay():
            assert not gc.isenabled()
            loaded = [[n] for n in range(1000)]
        assert gc.isenabled() is was_on
        assert gc.get_freeze_count() - before > len(loaded)
    finally:
        (gc.enable if kept else gc.disable)()


def test_a_failed_import_leaves_the_collector_on():
    gc.enable()
    with pytest.raises(ModuleNotFoundError), to_stay():
        import nosuch  # type: ignore[import-not-found]  # noqa: F401, PLC0415
    assert gc.isenabled()
