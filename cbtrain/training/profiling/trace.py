"""Read a trace of PyTorch's profiler (Chrome's format): who called what, and for which component.

What runs inside a range of :mod:`cbtrain.training.profiling.ranges` belongs to its component. The backward pass runs
outside of them. There the profiler gives each node of autograd the number of the operator that made it in the forward
pass, and a node belongs to the component of that operator.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.training.profiling.ranges import PREFIX, RANGES, STEP

CALLS = {"cpu_op", "user_annotation", "cuda_runtime", "cuda_driver"}
KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}
BACKWARD_NODE = "autograd::engine::evaluate_function"
COMMUNICATION = ("c10d::", "gloo:", "nccl:", "ncclDevKernel", "ncclKernel", "record_param_comms")


@dataclass(slots=True)
class Call:
    """A call on the host, in microseconds since the first. ``inner`` is the time of the calls inside it; ``step``
    counts the training steps from 0 and is None outside of them."""

    name: str
    begin: float
    end: float
    component: str
    phase: str
    step: int | None
    inner: float = 0.0

    @property
    def own(self) -> float:
        """Microseconds without the calls inside it."""
        return max(0.0, self.end - self.begin - self.inner)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Work of a GPU, in microseconds, and the call that has started it."""

    begin: float
    end: float
    call: Call
    communication: bool


@dataclass(frozen=True, slots=True)
class Allocation:
    """``bytes`` taken at ``address``, or given back where negative, by ``call``."""

    time: float
    bytes: int
    address: int
    on_gpu: bool
    call: Call | None


@dataclass(slots=True)
class Trace:
    """``calls`` are those of the thread that trains, from the first to the last."""

    calls: list[Call] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)

    @property
    def steps(self) -> list[Call]:
        return [call for call in self.calls if call.name == PREFIX + STEP]


def read_trace(path: Path) -> Trace:
    """Return the trace in ``path`` (JSON, gzipped)."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return understand(json.load(file)["traceEvents"])


def understand(events: list[dict[str, Any]]) -> Trace:
    """Return the trace of training in ``events``, which may be in any order."""
    wanted = [event for event in events if event.get("cat") in CALLS or event.get("name") == "[memory]"]
    threads: dict[Any, list[dict[str, Any]]] = {}
    # An outer call begins no later and ends no earlier than an inner one.
    for event in sorted(wanted, key=lambda event: (event["ts"], -event.get("dur", 0))):
        threads.setdefault(event["tid"], []).append(event)
    trainer = next((event["tid"] for event in wanted if event["name"] == PREFIX + STEP), None)
    trace = Trace()
    made_by: dict[int, Call] = {}
    started: dict[Any, Call] = {}
    zero = min((event["ts"] for event in wanted), default=0.0)
    # The forward pass is the trainer's: its operators must be known before the threads of the backward pass come.
    for thread in sorted(threads, key=lambda thread: thread != trainer):
        for call, event in _nested(threads[thread], zero, made_by, trace.allocations):
            if thread == trainer:
                trace.calls.append(call)
                _remember(call, event, made_by)
            correlation = event.get("args", {}).get("correlation")
            if correlation is not None:
                started[correlation] = call
    for event in events:
        starter = started.get(event.get("args", {}).get("correlation"))
        if event.get("cat") in KERNELS and starter is not None:
            begin, communication = event["ts"] - zero, event["name"].startswith(COMMUNICATION)
            trace.kernels.append(Kernel(begin, begin + event.get("dur", 0), starter, communication))
    return trace


def _nested(
    events: list[dict[str, Any]], zero: float, made_by: dict[int, Call], allocations: list[Allocation]
) -> Iterator[tuple[Call, dict[str, Any]]]:
    """Return the calls of one thread in order. ``made_by`` are operators by the number of the node that they made;
    ``allocations`` is added to."""
    stack: list[Call] = []
    steps = 0
    for event in events:
        begin = event["ts"] - zero
        while stack and stack[-1].end <= begin + 1e-3:
            stack.pop()
        outer = stack[-1] if stack else None
        args = event.get("args", {})
        if event["name"] == "[memory]":
            on_gpu = args.get("Device Type") == 1
            allocations.append(Allocation(begin, args["Bytes"], args["Addr"], on_gpu, outer))
            continue
        number = args.get("Sequence number", -1)
        component, phase = _place(event["name"], outer, made_by.get(number))
        call = Call(event["name"], begin, begin + event["dur"], component, phase, outer.step if outer else None)
        if event["name"] == PREFIX + STEP:
            call.step, steps = steps, steps + 1
        if outer:
            outer.inner += event["dur"]
        stack.append(call)
        yield call, event


def _remember(call: Call, event: dict[str, Any], made_by: dict[int, Call]) -> None:
    """Note which node ``call`` makes. Several operators bear one number, the outer ones and the innermost, which begins
    last and makes the node. What the backward pass computes again makes nodes that nobody runs."""
    number = event.get("args", {}).get("Sequence number", -1)
    if number >= 0 and call.phase not in ("backward", "recomputed"):
        made_by[number] = call


def _place(name: str, outer: Call | None, maker: Call | None) -> tuple[str, str]:
    """Return component and pass of a call inside ``outer``; ``maker`` created the autograd node with its number."""
    component, phase = (outer.component, outer.phase) if outer else ("other", "")
    if name.startswith(PREFIX):
        component, range_phase = RANGES[name.removeprefix(PREFIX)]
        recomputed = phase == "recomputed" or (phase == "backward" and range_phase == "forward")
        return component, "recomputed" if recomputed else range_phase or phase
    if name.startswith(BACKWARD_NODE):
        return (maker.component if maker else "other"), "backward"
    if name.startswith(COMMUNICATION):
        return "communication", phase
    return component, phase
