"""Log-probabilities of both answers of each pair in a pack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.tokens.pack import Pack


@dataclass(frozen=True, slots=True)
class Answers:
    """The ``n`` pairs of a pack. All fp32 ``[n]``: log-probabilities in nats, summed over the supervised tokens of the
    chosen answer, of the rejected one and, if they count, of what both share; and the numbers of these tokens. Tokens
    with a loss weight count so many times. ``weights`` are those of the pairs."""

    chosen: Tensor
    rejected: Tensor
    shared: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    shared_tokens: Tensor
    weights: Tensor

    @property
    def chosen_mean(self) -> Tensor:
        """Mean log-probability of a token of the chosen answer."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> Tensor:
        """Mean log-probability of a token of the rejected answer."""
        return self.rejected / self.rejected_tokens


def answers_of(losses: Tensor, loss_weights: Tensor, pack: Pack) -> Answers:
    """Return what :func:`cbtrain.training.loss.token_losses` of ``pack``, ``[S]`` both, says of its pairs, which are
    all its documents. Gradients flow to ``losses``."""
    counts = [count for pair in pack.pairs for count in pair.labels]
    parts = zip((losses * loss_weights).split(counts), loss_weights.split(counts), strict=True)
    sums = torch.stack([torch.stack([-loss.sum(), weight.sum()]) for loss, weight in parts]).view(-1, 3, 2)
    (shared, chosen, rejected), (of_shared, of_chosen, of_rejected) = sums.unbind(-1)[0].T, sums.unbind(-1)[1].T
    weights = torch.tensor([pair.weight for pair in pack.pairs], dtype=losses.dtype).to(losses.device)
    return Answers(chosen, rejected, shared, of_chosen, of_rejected, of_shared, weights)
