"""Make the optimizers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.training.config import StageConfig

LORA_B = ".lora_B.weight"


def make_optimizer(parameters: Mapping[str, Tensor], config: StageConfig) -> torch.optim.Optimizer:
    """Return the optimizer that ``config`` names, over ``parameters`` by name.

    AdamW is Loshchilov and Hutter 2019 (arXiv 1711.05101), its eight-bit form Dettmers et al. 2022 (arXiv 2110.02861),
    with pages Dettmers et al. 2023 (arXiv 2305.14314, section 3). With LoRA+ (Hayou et al. 2024, arXiv 2402.12354) the
    B matrices are a group of their own. Raises UserError if bitsandbytes is wanted and not installed.
    """
    groups = _groups(parameters, config.lora_plus_ratio)
    rate, betas, decay = config.learning_rate, (config.beta1, config.beta2), config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, weight_decay=decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=decay, fused=True)
    names = {"adamw8bit": "AdamW8bit", "paged_adamw": "PagedAdamW32bit", "paged_adamw8bit": "PagedAdamW8bit"}
    make = getattr(_bitsandbytes(config.optimizer), names[config.optimizer])
    optimizer: torch.optim.Optimizer = make(groups, lr=rate, betas=betas, weight_decay=decay)
    return optimizer


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Use ``rate`` in the next step, times the ratio of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("ratio", 1.0)


def _groups(parameters: Mapping[str, Tensor], ratio: float | None) -> list[dict[str, Any]]:
    # An empty group would be dropped by some and be an error for others: there is none.
    if ratio is None:
        return [{"params": list(parameters.values())}]
    high = [p for name, p in parameters.items() if name.endswith(LORA_B)]
    rest = [p for name, p in parameters.items() if not name.endswith(LORA_B)]
    return [{"params": rest, "ratio": 1.0}, {"params": high, "ratio": ratio}]


def _bitsandbytes(name: str) -> Any:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes.optim
    except ImportError:
        hint = "Install it (`pip install bitsandbytes`), or take adamw."
        raise UserError(f"optimizer {name} needs the package bitsandbytes", where="optimizer", hint=hint) from None
    return bitsandbytes.optim
