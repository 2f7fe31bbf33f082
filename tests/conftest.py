from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def loop_for_pulumi() -> Iterator[None]:
    """An event loop for Pulumi's mocks, which take the thread's: whoever ran one took it away."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    left = asyncio.all_tasks(loop)
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()
    with warnings.catch_warnings():
        # Threads of Pulumi's mocks leave loops of their own open; they are collected here.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
