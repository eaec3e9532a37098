"""A bound on how long a block may take, which costs no task of its own (as ``asyncio.wait_for`` does)."""

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # type: ignore[import-not-found]  # comes with aiohttp there

__all__ = ["timeout"]
