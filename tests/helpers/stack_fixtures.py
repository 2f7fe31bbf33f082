"""Fixtures that several files of stories make for themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.helpers.stack_world import Emulator, Stack


def own_emulator() -> Any:
    """A fixture `emulator`: one for the tests of a file, which see no other's contracts."""

    @pytest.fixture(scope="module")
    def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
        # On a busy computer a story is longer, and an account without credit stops its machines.
        credit = ("--credit", "1000")
        with Emulator(tmp_path_factory.mktemp("market"), speed=300, options=credit) as one:
            yield one

    return emulator


def own_stack(name: str, settings: Mapping[str, Any], *, is_up: bool = False) -> Any:
    """A fixture `stack`: one for the tests of a file, which its `emulator` is empty after."""

    @pytest.fixture(scope="module")
    def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
        one = Stack(tmp_path_factory.mktemp("stack"), emulator, name=name, is_forked=True)
        one.configure(**settings)
        if is_up:
            done = one.up()
            assert done.status == 0, done.outcome()
        yield one
        emulator.disarm()
        done = one.destroy()
        assert done.status == 0, done.outcome()
        assert emulator.status()["contracts"] == []

    return stack
