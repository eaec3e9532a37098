"""What is told of pairs besides their loss: sums that add up over packs and ranks, and the means that they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cbtrain.training.objectives.answers import Answers
from cbtrain.training.objectives.losses import log_odds

MEASURES = (
    "pairs",
    "weight",
    "weighted_loss",
    "right",
    "margin",
    "chosen",
    "rejected",
    "chosen_tokens",
    "rejected_tokens",
    "odds_chosen",
    "odds_rejected",
    "compared",
    "gain_chosen",
    "gain_rejected",
)
"""Sums over pairs. ``right`` counts those with a margin above 0, and half of those with none: before training a model
prefers nothing more than its base does. ``chosen`` and ``rejected`` are log-probabilities, ``odds_…`` log odds;
``gain_…`` are log-ratios of model and base, over the ``compared`` pairs of which the base's log-probabilities are
known."""


def measures_of(answers: Answers, values: Tensor, margin: Tensor, reference: Tensor | None) -> Tensor:
    """Return the sums of :data:`MEASURES` over the pairs of a pack, float64, without a gradient."""
    with torch.no_grad():
        ones = torch.ones_like(margin)
        gains = [torch.zeros_like(margin)] * 3
        if reference is not None:
            gains = [ones, answers.chosen - reference[:, 0], answers.rejected - reference[:, 1]]
        columns = [
            ones,
            answers.weights,
            answers.weights * values,
            ((1 + margin.sign()) / 2).to(margin.dtype),
            margin,
            answers.chosen,
            answers.rejected,
            answers.chosen_tokens,
            answers.rejected_tokens,
            log_odds(answers.chosen_mean),
            log_odds(answers.rejected_mean),
            *gains,
        ]
        return torch.stack(columns).double().sum(1)


def nothing(device: torch.device) -> Tensor:
    """Return the sums over no pair."""
    return torch.zeros(len(MEASURES), dtype=torch.float64, device=device)


def means_of(sums: Sequence[float]) -> dict[str, Any]:
    """Return what is told of pairs with these ``sums``: nothing if there is none.

    ``accuracy`` is the share of pairs that are ``right``; ``chosen`` and ``rejected`` are log-probabilities of a
    token, ``odds_…`` log odds, ``gain_…`` log-ratios of model and base on a whole answer, all in nats; ``…_tokens`` the
    mean lengths of answers.
    """
    s = dict(zip(MEASURES, sums, strict=True))
    if not s["pairs"]:
        return {}

    def mean(name: str, of: str = "pairs") -> float:
        return s[name] / s[of] if s[of] else math.nan

    means: dict[str, Any] = {
        "pairs": round(s["pairs"]),
        "accuracy": mean("right"),
        "margin": mean("margin"),
        "chosen": mean("chosen", "chosen_tokens"),
        "rejected": mean("rejected", "rejected_tokens"),
        "chosen_tokens": mean("chosen_tokens"),
        "rejected_tokens": mean("rejected_tokens"),
        "odds_chosen": mean("odds_chosen"),
        "odds_rejected": mean("odds_rejected"),
    }
    if s["compared"]:
        means |= {name: mean(name, "compared") for name in ("gain_chosen", "gain_rejected")}
    return means
