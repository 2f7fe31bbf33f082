"""What an error of one of several machines says of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.resources.context import Context
from components.vllm.errors import RolloutStopped

LIST_MAX_AGE = 3.0
"""Seconds; several machines may fail at once."""


@contextlib.contextmanager
def told_of(group: str | None, replicas: int, context: Context) -> Iterator[None]:
    """Add to an error how many siblings serve and what is billed.

    `group` is `<project>/<stack>/<endpoint>`; None for a machine without siblings.

    Raises:
        StackError: the same one.
    """
    try:
        yield
    except (Interrupted, RolloutStopped):
        raise
    except StackError as error:
        if group is not None:
            error.args = (f"{error}; {_describe(group, replicas, context)}",)
        raise


def _describe(group: str, replicas: int, context: Context) -> str:
    from components.resources.rollout_files import SharedRollout  # noqa: PLC0415
    from components.vast import fleet_cost  # noqa: PLC0415
    from components.vllm.rollout_notes import Notes  # noqa: PLC0415

    serving = contracts = None
    with contextlib.suppress(StackError):
        market = context.market(patient=False)
        with SharedRollout(market.shared, group).notes() as content:
            serving = Notes.from_json(content.values).serving()
        contracts = market.instances(LIST_MAX_AGE)
    return fleet_cost.describe(contracts, group, replicas=replicas, serving=serving)
