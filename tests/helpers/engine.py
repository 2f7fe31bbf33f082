"""Pulumi's engine as the tests of programs have it: all is made at once, nobody is called."""

from __future__ import annotations

from typing import Any, TypeVar

import pulumi


class Mocks(pulumi.runtime.Mocks):
    """For a program that calls no function of a provider."""

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        raise AssertionError(f"nothing is to be called: {args.token}")


M = TypeVar("M", bound=Mocks)


def mocked(mocks: M) -> M:
    """Let Pulumi work with these in the stack `dev`; needs the fixture `loop_for_pulumi`."""
    pulumi.runtime.set_mocks(mocks, project="vast-vllm", stack="dev")
    return mocks
