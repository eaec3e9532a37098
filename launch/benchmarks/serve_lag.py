"""How late the event loop gets in a process that generates (for ``benchmark.py serve``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

TIMER_SECONDS = 0.005


def quantiles(times: Iterable[float]) -> dict[str, Any]:
    """Return median, 99th percentile and maximum of ``times`` (seconds) in ms."""
    seconds = sorted(times) or [float("nan")]
    of = {name: seconds[int(share * len(seconds))] * 1000 for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {"probes": len(seconds), **of, "max_ms": seconds[-1] * 1000}


async def lag(folder: str, streams: int, words: str, seconds: float) -> dict[str, float]:
    """Return by how much a task that wants to run every 5 ms is late, while ``streams`` answers of the model in
    ``folder`` are drawn and, if there are any, the long prompt ``words`` arrives five times a second."""
    import torch

    from cbtrain.generation.config import EngineConfig, SamplingConfig
    from cbtrain.generation.local_model import LocalModel
    from cbtrain.tokens.dialogue import Message

    torch.set_num_threads(1)
    late: list[float] = []
    drawn = 0
    sampling = SamplingConfig(temperature=2, top_p=1, min_tokens=200, max_tokens=200)

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + TIMER_SECONDS
            await asyncio.sleep(TIMER_SECONDS)
            late.append(loop.time() - wanted)

    async def converse(number: int) -> None:
        nonlocal drawn
        while True:
            request = await model.chat([Message("user", f"I feel low. {number}")], sampling, seed=number)
            async with aclosing(model.stream(request)) as pieces:
                async for piece in pieces:
                    drawn += len(piece.ids)

    async def ask_at_length() -> None:
        while True:
            await model.chat([Message("user", words)], sampling, seed=1)
            await asyncio.sleep(0.2)

    async with LocalModel(folder, {}, EngineConfig(slots=32, context_tokens=8192)) as model:
        tasks = [asyncio.create_task(converse(number)) for number in range(streams)]
        tasks += [asyncio.create_task(ask_at_length())] if streams else []
        await asyncio.sleep(1)
        late.clear()
        watching = asyncio.create_task(watch())
        await asyncio.sleep(seconds)
        for task in (watching, *tasks):
            task.cancel()
        await asyncio.gather(watching, *tasks, return_exceptions=True)
    return {"seconds": seconds, "drawn_tokens": drawn, **quantiles(late)}
