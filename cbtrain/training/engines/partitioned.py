"""Load a model for ZeRO stage 3: each weight is cut up as soon as it is read, so that no rank holds all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cbtrain.training import ranks
from cbtrain.training.config import RuntimeConfig
from cbtrain.training.engines.deepspeed_config import deepspeed_config
from cbtrain.training.engines.deepspeed_engine import require_deepspeed


def partitioner(device: str, dtype: torch.dtype, runtime: RuntimeConfig) -> Callable[[nn.Parameter], None]:
    """What takes a whole parameter and leaves this rank's share of it. Every rank must call it with the same parameters
    in the same order; values are those of the leading rank."""
    deepspeed = require_deepspeed(torch.device(device))
    ranks.join(runtime.timeout_minutes, alone=True)
    deepspeed.init_distributed(dist_init_required=False)
    config = deepspeed_config(3, dtype, clip_norm=1.0)

    def partition(parameter: nn.Parameter) -> None:
        holder = nn.Module()
        holder.weight = parameter
        deepspeed.zero.Init(module=holder, config_dict_or_path=config)

    return partition
