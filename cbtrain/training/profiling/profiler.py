"""Run real training steps under PyTorch's profiler and write down what they spend."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from cbtrain.files import write_atomic
from cbtrain.model.decoder import Decoder
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.profiling.components import Breakdown, break_down
from cbtrain.training.profiling.memory import Peak, peak_of, write_timeline
from cbtrain.training.profiling.ranges import STEP, ranges, within
from cbtrain.training.profiling.trace import read_trace
from cbtrain.training.step import train_step

TRACE = "trace.json.gz"
"""Opens in https://ui.perfetto.dev and in chrome://tracing."""
SNAPSHOT = "memory_snapshot.pickle"
"""Opens in https://pytorch.org/memory_viz; on CUDA only."""
TIMELINE = "memory.jsonl"
COMPONENTS = "components.json"

WARM_UP = 1
"""Steps before any are timed, and once more before any are recorded: the profiler's own start is slow."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Some steps, all ranks together."""

    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Profile:
    """The measurements: time by component, memory at its peak, and the pace with and without the profiler."""

    breakdown: Breakdown
    peak: Peak
    without: Pace
    profiled: Pace

    def as_dict(self) -> dict[str, Any]:
        return {
            "steps": self.breakdown.steps,
            "seconds": self.breakdown.seconds,
            "clock": "gpu" if self.breakdown.on_gpu else "training thread",
            "tokens": self.profiled.tokens,
            "tokens_per_second_profiled": self.profiled.tokens_per_second,
            "tokens_per_second": self.without.tokens_per_second,
            "components": self.breakdown.as_dict(),
            "memory_peak": self.peak.as_dict(),
        }


def profile_steps(
    decoder: Decoder,
    engine: TrainingEngine,
    batches: Prefetcher,
    *,
    steps: int,
    learning_rate: float,
    out: Path,
    description: dict[str, Any] | None = None,
) -> Profile | None:
    """Train ``steps`` steps without the profiler and as many with it, each after :data:`WARM_UP` more. Write the trace,
    the memory and the table of components, with ``description``, to ``out``. Every rank must call it. Return the
    profile on the leading rank, None on the others."""
    decoder.train()
    run = _Steps(decoder, engine, batches, learning_rate)
    run.pace(WARM_UP)
    without = run.pace(steps)
    if engine.rank:
        run.pace(WARM_UP + steps)
        return None
    out.mkdir(parents=True, exist_ok=True)
    with ranges(decoder, engine), _snapshot(out, decoder.device), _profiler(out, decoder.device, steps) as profiler:
        for _ in range(WARM_UP):
            run.pace(1)
            profiler.step()
        paces = []
        for _ in range(steps):
            paces.append(run.pace(1))
            profiler.step()
    trace = read_trace(out / TRACE)
    write_timeline(trace, out / TIMELINE)
    profiled = Pace(sum(pace.seconds for pace in paces), sum(pace.tokens for pace in paces))
    result = Profile(break_down(trace), peak_of(trace), without, profiled)
    write_atomic(out / COMPONENTS, json.dumps({**(description or {}), **result.as_dict()}, indent=2) + "\n")
    return result


@dataclass(slots=True)
class _Steps:
    decoder: Decoder
    engine: TrainingEngine
    batches: Prefetcher
    learning_rate: float
    done: int = 0

    def pace(self, count: int) -> Pace:
        """Make ``count`` steps; each ends with a wait for the device."""
        begun, tokens = time.perf_counter(), 0
        for _ in range(count):
            with within(STEP):
                with within("input"):
                    batch = self.batches.step()
                train_step(self.decoder, self.engine, batch, self.learning_rate, step=self.done)
                self.engine.advance(0.0)
            self.done += 1
            tokens += batch[0].step.tokens
        return Pace(time.perf_counter() - begun, tokens)


def _profiler(out: Path, device: torch.device, steps: int) -> Any:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    return profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=WARM_UP, active=steps, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(out / TRACE)),
        profile_memory=True,
    )


@contextmanager
def _snapshot(out: Path, device: torch.device) -> Iterator[None]:
    """Record on CUDA every allocation of the body with its call stack, and what is alive at the end."""
    if device.type != "cuda":
        with nullcontext():
            yield
        return
    torch.cuda.memory._record_memory_history(max_entries=200_000, stacks="python")
    try:
        yield
        torch.cuda.memory._dump_snapshot(str(out / SNAPSHOT))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
