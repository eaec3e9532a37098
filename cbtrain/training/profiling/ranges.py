"""Names for parts of a training step, put around them from outside: training itself holds no code of the profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.distributed as dist
from torch._C._profiler import _RecordFunctionFast

from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.decoder import Block, Decoder, RMSNorm
from cbtrain.model.fused.joined import Joined
from cbtrain.model.fused.low_rank import SidePaths
from cbtrain.model.linears.linear import Linear
from cbtrain.training.engines.engine import TrainingEngine

PREFIX = "cbtrain::"
STEP = "step"

RANGES: dict[str, tuple[str, str]] = {
    "attention": ("attention", "forward"),
    "linears": ("linears", "forward"),
    "lora": ("LoRA", "forward"),
    "embedding": ("embedding", "forward"),
    "norms": ("norms", "forward"),
    "decoder": ("rest of the decoder", "forward"),
    "loss": ("loss", "forward"),
    "optimizer": ("optimizer", ""),
    "communication": ("communication", ""),
    "input": ("input wait", ""),
    STEP: ("other", ""),
    "backward": ("other", "backward"),
    "weights": ("linears", ""),
    "linears back": ("linears", "backward"),
    "lora back": ("LoRA", "backward"),
    "norms back": ("norms", "backward"),
}
"""Of each range, by its name in the trace behind :data:`PREFIX`: the component it belongs to, and the pass. A range
inside another takes its time out of it: a linear inside LoRA's counts as a linear."""

COMPONENTS = tuple(dict.fromkeys(component for component, _ in RANGES.values()))

COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
    "reduce",
    "broadcast",
    "all_to_all_single",
    "barrier",
)


FUSED: tuple[tuple[Any, str, str], ...] = (
    (Joined, "matrices", "weights"),
    (Joined, "forward", "linears"),
    (Joined, "add", "linears"),
    (Joined, "input_gradient", "linears back"),
    (SidePaths, "folded", "lora"),
    (SidePaths, "forward", "lora"),
    (SidePaths, "backward", "lora back"),
)
"""Parts of :mod:`cbtrain.model.fused`, whose layers call no modules: owner, attribute, range."""

BETWEEN = {"norm": "norms", "inverse_rms": "norms", "norm_backward": "norms back", "swiglu": "decoder"}
"""Functions of :class:`cbtrain.model.fused.elementwise.Elementwise`, and their ranges."""


@contextmanager
def ranges(decoder: Decoder, engine: TrainingEngine) -> Iterator[None]:
    """Run the body with every part of ``decoder`` and ``engine`` that :data:`RANGES` names in its profiler range."""
    with ExitStack() as stack:
        for owner, attribute, name in _places(decoder, engine):
            stack.enter_context(_replaced(owner, attribute, _ranged(getattr(owner, attribute), name)))
        stack.enter_context(_replaced(decoder, "packed", _attending(decoder.packed)))
        yield


def _places(decoder: Decoder, engine: TrainingEngine) -> Iterator[tuple[Any, str, str]]:
    """Yield owner and attribute of each callable, and its range."""
    yield decoder, "forward", "decoder"
    yield decoder.embed_tokens, "forward", "embedding"
    yield decoder.lm_head, "forward", "loss"
    for module in (*decoder.layers.modules(), decoder.norm):
        if isinstance(module, LoraLinear):
            yield module, "forward", "lora"
        elif isinstance(module, Linear):
            yield module, "forward", "linears"
        elif isinstance(module, RMSNorm):
            yield module, "forward", "norms"
        elif isinstance(module, Block):
            yield module, "forward", "decoder"  # its own, for when it is computed again in the backward pass
    yield from FUSED
    yield from ((decoder.between, attribute, name) for attribute, name in BETWEEN.items())
    yield engine, "token_losses", "loss"
    yield engine, "backward", "backward"
    yield engine, "step", "optimizer"
    if engine.world > 1:
        for collective in COLLECTIVES:
            yield dist, collective, "communication"


def within(name: str) -> Any:
    """Return the range ``name`` of :data:`RANGES`, as a context."""
    # Not torch.profiler.record_function: that one is an operator, which selective recomputation would intercept and
    # whose ranges then end too late.
    return _RecordFunctionFast(PREFIX + name)


def _ranged(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with within(name):
            return function(*args, **kwargs)

    return wrapper


def _attending(packed: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``packed`` whose result, which the layers call, is in the range of attention."""
    return lambda *args, **kwargs: _ranged(packed(*args, **kwargs), "attention")


@contextmanager
def _replaced(owner: Any, attribute: str, value: Any) -> Iterator[None]:
    before = vars(owner).get(attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        delattr(owner, attribute) if before is None else setattr(owner, attribute, before)
