"""Weights that ZeRO stage 3 has cut up: cut them as they are loaded, so that no rank holds all of them, and see all of
one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cbtrain.training import distributed
from cbtrain.training.config import RuntimeConfig
from cbtrain.training.engines.deepspeed_config import deepspeed_config
from cbtrain.training.engines.deepspeed_engine import require_deepspeed


def partitioner(device: str, dtype: torch.dtype, runtime: RuntimeConfig) -> Callable[[nn.Parameter], None]:
    """Return a function that takes a whole parameter and keeps this rank's share of it. Every rank must call it with
    the same parameters in the same order; values are those of the leading rank."""
    deepspeed = require_deepspeed(torch.device(device))
    distributed.join(runtime.timeout_minutes, alone=True)
    deepspeed.init_distributed(dist_init_required=False)
    config = deepspeed_config(3, dtype, clip_norm=1.0)

    def partition(parameter: nn.Parameter) -> None:
        holder = nn.Module()
        holder.weight = parameter
        deepspeed.zero.Init(module=holder, config_dict_or_path=config)

    return partition


@contextmanager
def whole(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gather ``parameters`` on every rank for the body; without ZeRO-3 do nothing."""
    cut = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    gathered: Any = deepspeed.zero.GatheredParameters(cut)
    with gathered:
        yield
