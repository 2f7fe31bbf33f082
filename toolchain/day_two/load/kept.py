"""A load test with its conditions, as it is kept on this computer, in a file of its own.

Nobody else can read the file. It has no key, no address and no text of a request.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from toolchain.day_two.answer import Model
from toolchain.day_two.load.curve import Point, knee
from toolchain.day_two.load.plan import Axis, Shape
from toolchain.on_emulator import BELONGINGS, VAST

MOST_FILES = 50
"""Tests that are kept of a stack, the newest."""

MOST_BYTES = 1_000_000


class Conditions(Model):
    """What the figures of a test hold for."""

    at: str
    """When it began: UTC, in ISO 8601."""
    stack: str
    marketplace: str
    """`Vast.ai` or `the emulator`."""
    release: str
    """Name of the release that ran; empty for the stack's own settings."""
    digest: str
    """Of what ran, as a release has it; empty if the stack does not say."""
    profile: str
    model: str
    vllm: str
    replicas: int = Field(gt=0)
    """Machines that served."""
    gpus: tuple[str, ...]
    """Of each machine, such as `2x H200`."""
    router: bool
    """Whether a router stood in front of them."""
    dollars_per_hour: float = Field(ge=0)
    """Of all machines."""
    axis: Axis
    shape: Shape
    seconds: float
    """Of each load."""
    guidellm: str
    """Its version."""


class LoadTest(Model):
    """A test: its conditions, and a point for each load."""

    format: Literal["vast-vllm/load-test/1"] = "vast-vllm/load-test/1"
    conditions: Conditions
    points: tuple[Point, ...] = Field(min_length=1)
    """By load, ascending."""
    flaws: tuple[str, ...] = ()
    """Why its figures are not those of all that was asked for, on the machines named."""

    @property
    def is_whole(self) -> bool:
        """Whether every load was measured on the same machines, and every request answered."""
        return not self.flaws and not any(point.failed for point in self.points)

    @property
    def knee(self) -> Point | None:
        """See `curve.knee`."""
        return knee(self.points)


def folder_of(stack: str, marketplace: str, belongings: Path = BELONGINGS) -> Path:
    """Where the tests of a stack are kept; the emulator's apart from the account's."""
    place = "account" if marketplace == VAST else "emulator"
    return belongings / "loads" / place / stack


def keep(test: LoadTest, folder: Path) -> Path:
    """Write a test's file and drop the oldest ones; give its path.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{test.conditions.at[:19].replace(':', '')}.json"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(test.model_dump_json(indent=1) + "\n")
    for old in sorted(folder.glob("*.json"))[:-MOST_FILES]:
        for gone in (old, old.with_suffix(".svg")):
            gone.unlink(missing_ok=True)
    return path


def kept(folder: Path) -> list[LoadTest]:
    """Read the tests of a stack, oldest first; a file that is none is left out."""
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    return [test for test in found if test is not None]


def alike(one: Conditions, other: Conditions) -> bool:
    """Whether two tests measured the same thing, whatever ran in it and when."""
    return not differences(one, other)


def differences(one: Conditions, other: Conditions) -> list[str]:
    """Name the conditions in which two tests differ, apart from what ran in them and when."""
    pairs: Sequence[tuple[str, object, object]] = (
        ("marketplace", one.marketplace, other.marketplace),
        ("replicas", one.replicas, other.replicas),
        ("GPUs", one.gpus, other.gpus),
        ("router", one.router, other.router),
        ("kind of load", one.axis, other.axis),
        ("request", one.shape, other.shape),
        ("guidellm", one.guidellm, other.guidellm),
    )
    return [name for name, mine, theirs in pairs if mine != theirs]


def _read(path: Path) -> LoadTest | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return LoadTest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
