"""What an engine makes smaller: values of a pack with their weights. The weighted mean over an optimizer step is the
loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from cbtrain.tokens.pack import Pack
from cbtrain.training.config import PreferenceConfig, StageConfig
from cbtrain.training.objectives.answers import answers_of
from cbtrain.training.objectives.losses import dpo, ipo, nll, orpo
from cbtrain.training.objectives.measures import measures_of


@dataclass(frozen=True, slots=True)
class Terms:
    """``values`` and ``weights`` fp32 ``[n]`` of a pack's tokens or pairs; ``measures`` float64
    ``[len(MEASURES)]`` are sums over its pairs (:data:`cbtrain.training.objectives.measures.MEASURES`), 0 of
    sessions."""

    values: Tensor
    weights: Tensor
    measures: Tensor | float = 0.0


class Objective(ABC):
    """``needs_reference`` says whether the base's log-probabilities belong to the loss, ``of_pairs`` whether the
    documents are pairs."""

    needs_reference = False
    of_pairs = False

    @abstractmethod
    def terms(self, losses: Tensor, loss_weights: Tensor, pack: Pack, reference: Tensor | None) -> Terms:
        """Return the terms of ``pack``. ``losses`` and ``loss_weights`` ``[S]`` are those of its tokens, ``reference``
        ``[pairs, 2]`` the base's log-probabilities of both answers, None if they are not known."""


class Supervised(Objective):
    """Cross-entropy of each supervised token."""

    def terms(self, losses: Tensor, loss_weights: Tensor, pack: Pack, reference: Tensor | None) -> Terms:
        return Terms(losses, loss_weights)


class Preference(Objective):
    """A loss of pairs of answers, as ``config`` says."""

    of_pairs = True

    def __init__(self, name: str, config: PreferenceConfig) -> None:
        self.name, self.config = name, config
        self.needs_reference = name == "dpo"

    def terms(self, losses: Tensor, loss_weights: Tensor, pack: Pack, reference: Tensor | None) -> Terms:
        if not pack.pairs:  # a filler: nothing is learnt from it
            return Terms(losses, loss_weights)
        c, answers = self.config, answers_of(losses, loss_weights, pack)
        reference = reference if reference is None else reference.to(losses)
        if self.name == "orpo":
            values, margin = orpo(answers, c.beta, c.label_smoothing)
        else:
            assert reference is not None
            if c.loss == "ipo":
                values, margin = ipo(answers, reference, c.beta)
            else:
                values, margin = dpo(answers, reference, c.beta, c.label_smoothing)
            if c.sft_weight:
                values = values + c.sft_weight * nll(answers)
        return Terms(values, answers.weights, measures_of(answers, values, margin, reference))


def objective_of(settings: StageConfig) -> Objective:
    """Return the objective that ``settings`` name."""
    return Supervised() if settings.objective == "sft" else Preference(settings.objective, settings.preference)
