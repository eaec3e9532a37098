"""Losses of pairs of answers, a number for each pair. They are averaged over the pairs of an optimizer step elsewhere
(:func:`cbtrain.training.step.share_of_loss`)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.training.objectives.answers import Answers

LARGEST_MEAN = -1e-6
"""Mean log-probabilities are taken to be at most this: the odds of a certain answer are infinite."""


def log_odds(mean: Tensor) -> Tensor:
    """Return log(p / (1 - p)) for p = exp(``mean``), the mean log-probability of an answer's tokens (Hong et al. 2024,
    arXiv 2403.07691, equations 3 and 4)."""
    mean = mean.clamp(max=LARGEST_MEAN)
    # log(1 - p): accurate for p close to 1 and for p close to 0 (Mächler 2012).
    near = torch.log(-torch.expm1(mean.clamp(min=-math.log(2))))
    far = torch.log1p(-torch.exp(mean.clamp(max=-math.log(2))))
    return mean - torch.where(mean > -math.log(2), near, far)


def nll(answers: Answers) -> Tensor:
    """Return the negative log-likelihood of a token of each chosen answer, and of what is before it if that counts."""
    return -(answers.chosen + answers.shared) / (answers.chosen_tokens + answers.shared_tokens)


def orpo(answers: Answers, beta: float, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the loss of ORPO, NLL - ``beta`` log σ(m), and the margin m, the difference of the log odds (equations 6
    and 7 of Hong et al. 2024)."""
    margin = log_odds(answers.chosen_mean) - log_odds(answers.rejected_mean)
    return nll(answers) + beta * _logistic(margin, smoothing), margin


def dpo(answers: Answers, reference: Tensor, beta: float, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the loss of DPO, -log σ(``beta`` m), and the margin m: how much more than the reference the model prefers
    the chosen answer (Rafailov et al. 2023, arXiv 2305.18290, equation 7). ``reference`` ``[n, 2]`` are the reference's
    log-probabilities. With ``smoothing`` this share of the pairs is taken to be labelled wrongly (cDPO, Mitchell
    2023)."""
    margin = _gain(answers, reference, each=False)
    return _logistic(beta * margin, smoothing), margin


def ipo(answers: Answers, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the loss of IPO, (m - 1 / 2 ``beta``)², and the margin m (Azar et al. 2023, arXiv 2310.12036, equation
    17), of mean log-probabilities: with sums, long answers would have large losses."""
    margin = _gain(answers, reference, each=True)
    return (margin - 1 / (2 * beta)).square(), margin


def _gain(answers: Answers, reference: Tensor, *, each: bool) -> Tensor:
    """Return the log-ratio of model and reference on the chosen answer less that on the rejected one: of whole answers,
    or of ``each`` token on average."""
    chosen, rejected = answers.chosen - reference[:, 0], answers.rejected - reference[:, 1]
    if each:
        return chosen / answers.chosen_tokens - rejected / answers.rejected_tokens
    return chosen - rejected


def _logistic(margin: Tensor, smoothing: float) -> Tensor:
    right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
    return -(right if smoothing == 0 else (1 - smoothing) * right + smoothing * wrong)
