"""Parse answers and score them as published: F1 of the positive class, answers without Yes or No counted apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

UNPARSED = -1

DRAWS, LEVEL = 10_000, 0.95
"""Samples of the bootstrap, and the probability that its interval holds."""


def parse_answer(answer: str) -> int:
    """Return 1 if ``yes`` is in the lower-cased answer, else 0 if ``no`` is (also in *not* or *know*), else -1.

    This is the published rule, with its weakness: *Yesterday* is a yes, *cannot be decided* a no.
    """
    lowered = answer.lower()
    return 1 if "yes" in lowered else 0 if "no" in lowered else UNPARSED


@dataclass(frozen=True, slots=True)
class MatchingScores:
    """Scores of ``pairs`` answers. An unparsed one counts as No in ``tp``, ``fp``, ``fn``, ``tn`` (so in precision,
    recall and F1 of the positive class), and as wrong in ``accuracy``.

    ``f1_low`` and ``f1_high`` bound F1 with probability 0.95, by a bootstrap over pairs: as if pairs were independent,
    though several may be about one product. ``f1_parsed`` is F1 of the parsed answers alone.
    """

    pairs: int
    positives: int
    tp: int
    fp: int
    fn: int
    tn: int
    unparsed: int
    unparsed_positives: int
    precision: float
    recall: float
    f1: float
    f1_low: float
    f1_high: float
    f1_parsed: float
    accuracy: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(labels: Sequence[int], answers: Sequence[str], seed: int = 0) -> MatchingScores:
    """Return the scores of ``answers``, texts, to pairs with these ``labels``. Raises ValueError on different lengths,
    and if there is none."""
    return score_parsed(labels, [parse_answer(answer) for answer in answers], seed)


def score_parsed(labels: Sequence[int], parsed: Sequence[int], seed: int = 0) -> MatchingScores:
    """Return the scores of answers that :func:`parse_answer` has parsed; as :func:`score`."""
    if not labels or len(labels) != len(parsed):
        raise ValueError(f"{len(labels)} labels and {len(parsed)} answers")
    truth, said = np.asarray(labels), np.asarray(parsed)
    positive, yes = truth == 1, said == 1
    unparsed = said == UNPARSED
    tp, fp = int((positive & yes).sum()), int((~positive & yes).sum())
    fn, tn = int((positive & ~yes).sum()), int((~positive & ~yes).sum())
    low, high = _bootstrap((tp, fp, fn, tn), seed)
    lost = int((positive & unparsed).sum())
    return MatchingScores(
        pairs=len(labels),
        positives=int(positive.sum()),
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        unparsed=int(unparsed.sum()),
        unparsed_positives=lost,
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        f1_low=low,
        f1_high=high,
        f1_parsed=_share(2 * tp, 2 * tp + fp + fn - lost),
        accuracy=_share(int((truth == said).sum()), len(labels)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _bootstrap(counts: tuple[int, int, int, int], seed: int) -> tuple[float, float]:
    """Return the percentile interval of F1. F1 depends on ``counts`` (tp, fp, fn, tn) alone, and those of a sample of
    pairs with replacement are multinomial: no pair need be drawn."""
    total = sum(counts)
    drawn = np.random.default_rng(seed).multinomial(total, np.asarray(counts) / total, size=DRAWS)
    tp, fp, fn = drawn[:, 0], drawn[:, 1], drawn[:, 2]
    whole = 2 * tp + fp + fn
    f1 = np.divide(2 * tp, whole, out=np.zeros(DRAWS), where=whole > 0)
    low, high = np.quantile(f1, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
