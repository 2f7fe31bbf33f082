"""Reads Pulumi's states and locks for the doctor."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from toolchain.configuration import PROJECT
from toolchain.day_two.attempt import Failed, attempt
from toolchain.day_two.command import Asked
from toolchain.day_two.doctor.facts import Facts, LockFact
from toolchain.day_two.fleet import fleet_of
from toolchain.on_emulator import BELONGINGS
from toolchain.orphans import Known, ids_in, owners_in
from toolchain.overdue import recorded_in
from toolchain.stack_lock import Computer, Lock, Run, backend_of, locks_in, why_held


class Backend(Protocol):
    """What the doctor asks Pulumi."""

    def names(self) -> list[str]:
        """Names of the project's stacks, as `pulumi stack ls` gives them."""

    def deployment(self, stack: str, *, secrets: bool) -> dict[str, Any]:
        """A stack's state, with its secrets in clear or without them."""


def of_the_states(facts: Facts, asked: Asked, backend: Backend, computer: Computer) -> Facts:
    """Add what the states and the locks say."""
    environment = facts.environment if not isinstance(facts.environment, Failed) else {}
    place = backend_of(environment)
    stacks = attempt(lambda: tuple(backend.names()))
    facts = dataclasses.replace(
        facts, backend=place, stacks=stacks, locks=_locks(asked, place, computer)
    )
    if isinstance(stacks, Failed):
        return dataclasses.replace(facts, known=stacks, fleet=stacks)
    facts = dataclasses.replace(facts, known=Known({}, frozenset(), frozenset()))
    for name in stacks:
        facts = _with_stack(facts, asked, backend, name)
    return facts


def _with_stack(facts: Facts, asked: Asked, backend: Backend, name: str) -> Facts:
    """Add one stack: the one that was asked for whole, of another one what it rents."""
    stack = name.rsplit("/", 1)[-1]
    state = attempt(functools.partial(backend.deployment, name, secrets=stack == asked.stack))
    if stack == asked.stack:
        read = functools.partial(_fleet, stack, state)
        facts = dataclasses.replace(facts, fleet=read())
        if isinstance(state, Failed):
            state = attempt(functools.partial(backend.deployment, name, secrets=False))
    if isinstance(state, Failed):
        return dataclasses.replace(facts, known=state)
    if not isinstance(facts.known, Known):
        return facts
    return dataclasses.replace(
        facts,
        known=_with(facts.known, stack, state),
        recorded=(*facts.recorded, *recorded_in(stack, state)),
    )


def _fleet(stack: str, state: Mapping[str, Any] | Failed) -> Any:
    return state if isinstance(state, Failed) else attempt(lambda: fleet_of(stack, state))


def _with(known: Known, stack: str, deployment: Mapping[str, Any]) -> Known:
    owners = owners_in(deployment)
    pending = {stack} if deployment.get("pending_operations") else set()
    return Known(
        {**known.owners, stack: frozenset(owners)} if owners else known.owners,
        known.contracts | ids_in(deployment),
        known.pending | pending,
    )


def _locks(asked: Asked, backend: str, computer: Computer) -> tuple[LockFact, ...]:
    folder = locks_in(backend, PROJECT, asked.stack) if asked.stack else None
    if folder is None:
        return ()
    notes = Path.home() / ".cache/vast-vllm/running" if asked.on_account else BELONGINGS / "running"
    note = notes / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"
    return tuple(_lock(path, note, computer) for path in sorted(folder.glob("*.json")))


def _lock(path: Path, note: Path, computer: Computer) -> LockFact:
    try:
        lock = Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return LockFact(0, "an unknown time", is_stale=False, is_worked_on=False)
    began = computer.started(lock.pid) if lock.hostname == computer.hostname else None
    return LockFact(
        pid=lock.pid,
        since=f"{lock.timestamp:%Y-%m-%d %H:%M} UTC",
        is_stale=why_held(lock, _run(note), computer) is None,
        is_worked_on=began is not None and began <= lock.timestamp.timestamp(),
    )


def _run(note: Path) -> Run | None:
    try:
        return Run.model_validate_json(note.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
