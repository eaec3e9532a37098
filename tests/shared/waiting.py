"""Wait in a test for something that another task does."""

import asyncio
import time


async def until(holds, seconds=10.0):
    """Wait until ``holds()``."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)
