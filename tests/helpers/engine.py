"""Pulumi's engine as the tests of programs have it: all is made at once, nobody is called."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pulumi
from pulumi.runtime.stack import wait_for_rpcs


class Mocks(pulumi.runtime.Mocks):
    """For a program that calls no function of a provider."""

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        raise AssertionError(f"nothing is to be called: {args.token}")


M = TypeVar("M", bound=Mocks)


def mocked(mocks: M) -> M:
    """Let Pulumi work with these in the stack `dev`; needs the fixture `loop_for_pulumi`."""
    pulumi.runtime.set_mocks(mocks, project="vast-vllm", stack="dev")
    return mocks


async def settled() -> None:
    """Wait until all that a program has declared by now has been registered.

    An output may be known before a resource that it does not depend on.
    """
    await asyncio.sleep(0)  # until the registrations have begun
    await wait_for_rpcs(await_all_outstanding_tasks=False)
