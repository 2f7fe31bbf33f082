from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest


class RecordingPolicy(asyncio.DefaultEventLoopPolicy):
    """The usual event loops, and a list of those that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[asyncio.AbstractEventLoop] = []

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        self.made.append(loop)
        return loop


@pytest.fixture
def loop_for_pulumi() -> Iterator[None]:
    """An event loop for Pulumi's mocks, which take the thread's: whoever ran one took it away.

    The mocks' own threads make loops that they leave open. They are closed here: collected in the
    middle of some other test, they would fail that one.
    """
    policy, before = RecordingPolicy(), asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(policy)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    left = asyncio.all_tasks(loop)
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    asyncio.set_event_loop_policy(before)
    for one in policy.made:
        if not one.is_running():
            one.close()
    gc.collect()
