"""Row ``limit``: the arithmetic of the timed steps as plain calls of torch, at their shapes, and nothing else.

Counted are the products with the frozen weights of the layers and of the head (forward, and the gradient of their
input), attention of each document forward and backward, and the softmax of the supervised rows. The adapters' products
(under 3 % of it), norms, positions and SwiGLU are not: a step that makes these calls needs their time and its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.training.run import Run, versions

ROWS = 512
"""Supervised rows that are projected to the vocabulary at once."""

REPEATS = 4


def measure(run: Run) -> dict[str, Any]:
    """Return the least seconds of the timed steps, of the wall and of the processor, with their parts."""
    work, scenario = run.work, run.scenario
    a, dtype, device = scenario.architecture, scenario.compute, run.device
    attention, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    linears = (
        (attention, a.hidden),
        (kv, a.hidden),
        (kv, a.hidden),
        (a.hidden, attention),
        (a.intermediate, a.hidden),
        (a.intermediate, a.hidden),
        (a.hidden, a.intermediate),
    )

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device)

    def products(rows: int, out: int, inner: int) -> tuple[float, float]:
        weight, x, gradient = random(out, inner), random(rows, inner), random(rows, out)
        return _sum(_least(lambda: x @ weight.t(), device), _least(lambda: gradient @ weight, device))

    def attends(tokens: int) -> tuple[float, float]:
        q, k, v = (random(1, heads, tokens, a.head_dim) for heads in (a.heads, a.kv_heads, a.kv_heads))

        def both() -> None:
            for tensor in (q, k, v):
                tensor.requires_grad_().grad = None
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=a.heads != a.kv_heads)
            out.backward(out.detach())

        return _least(both, device)

    tokens, supervised = sum(work.tokens[1:]), sum(work.supervised[1:])
    lengths = [int(work.documents.lengths[index]) for step in work.steps[1:] for index in step]
    rows, logits = work.tokens[1], random(ROWS, a.vocabulary)
    parts = {
        "linears": _times(_sum(*(products(rows, *shape) for shape in linears)), a.layers * tokens / rows),
        "attention": _times(_sum(*(attends(length) for length in lengths)), a.layers),
        "head": _times(products(ROWS, a.vocabulary, a.hidden), supervised / ROWS),
        "softmax": _times(_least(lambda: torch.softmax(logits, -1), device), supervised / ROWS),
    }
    seconds, cpu_seconds = _sum(*parts.values())
    return {
        "seconds": seconds,
        "step_seconds": [],
        "cpu_seconds": cpu_seconds,
        "tokens": tokens,
        "supervised": supervised,
        "parts": {name: wall for name, (wall, _) in parts.items()},
        "versions": versions(run.row),
    }


def _least(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Return the seconds of the quickest of some calls, and of the processor in it."""
    took = []
    for _ in range(REPEATS + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        took.append((time.perf_counter() - begin, time.process_time() - cpu))
    return min(took[1:])


def _sum(*times: tuple[float, float]) -> tuple[float, float]:
    return sum(wall for wall, _ in times), sum(cpu for _, cpu in times)


def _times(seconds: tuple[float, float], factor: float) -> tuple[float, float]:
    return seconds[0] * factor, seconds[1] * factor
