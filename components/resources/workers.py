"""Provider processes for the machines of an endpoint that has several.

Pulumi starts one process for all dynamic resources, and that process serves four calls at once.
Renting and booting take an hour of one call. So machines beyond the first get processes of their
own, in groups. Another grouping replaces no resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pulumi

GROUP = 3
"""Machines of one process: one long call each, and one free for short calls."""


def process_of(index: int) -> int:
    """Which process a machine beyond the first has."""
    return (index - 1) // GROUP


def at_once(replicas: int) -> int:
    """How many operations `pulumi` must do at once, so that no machine waits for another."""
    return 2 * replicas + 8


def parallel_warning(replicas: int, parallel: int | None) -> str:
    """Say that machines would wait for each other; empty if none would.

    `parallel` is how many operations `pulumi` does at once; None or 0 if it does not say.
    """
    needed = at_once(replicas)
    if replicas == 1 or not parallel or parallel >= needed:
        return ""
    return (
        f"this pulumi does {parallel} things at once, and {replicas} machines come up beside each "
        f"other with {needed}: `export PULUMI_PARALLEL={needed}`"
    )


def processes(
    name: str, indices: Iterable[int], opts: pulumi.ResourceOptions
) -> Mapping[int, pulumi.ProviderResource]:
    """Declare the processes of the machines `indices` of the endpoint `name`, by their numbers.

    The first machine, 0, stays with Pulumi's own process.
    """
    numbers = sorted({process_of(index) for index in indices if index > 0})
    return {
        number: pulumi.ProviderResource("pulumi-python", f"{name}-workers-{number}", {}, opts)
        for number in numbers
    }
