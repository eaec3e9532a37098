"""What is compared between a session and its copy: the total, a domain, the mean of others; with scale and margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.eval.judge_audit.findings import Scale
from cbtrain.eval.judge_audit.probes import AS_GIVEN, OTHERS, TOTAL
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score

SHARE_OF_MANY, SHARE_OF_ONE = 1 / 20, 1 / 12
"""Of the scale's range, for several domains and for one: smaller shifts count as none (3.3 of 66 points, 0.5 of 6).
Conventions of cbtrain."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The mean of ``domains``, or the total of the rubric. ``keyed``: reversed items turned round, so that more is
    better."""

    name: str
    rubric: Rubric
    domains: tuple[str, ...]
    keyed: bool = True

    def of(self, scores: Sequence[Score]) -> float | None:
        """Return the value as the mean of the ratings with a score in all domains; None if none has."""
        values = [value for score in scores if (value := self._of_one(score)) is not None]
        return sum(values) / len(values) if values else None

    def _of_one(self, score: Score) -> float | None:
        keying = self.rubric.keying
        given = {name: score.domains.get(name) for name in self.domains}
        if self.name == TOTAL:
            return keying.total(given)
        known = {name: value for name, value in given.items() if value is not None}
        if len(known) < len(given):
            return None
        return sum(keying.keyed(name, value) if self.keyed else value for name, value in known.items()) / len(known)

    @property
    def scale(self) -> Scale:
        rubric, count = self.rubric, len(self.domains)
        # Two scores, each off by up to half a step: the SD of their difference is a step by the root of 6.
        step = rubric.step / math.sqrt(6)
        if self.name == TOTAL:
            weights = math.sqrt(sum(domain.weight**2 for domain in rubric.domains))
            low, high = rubric.total_range
            return Scale(low, high, step * weights)
        return Scale(float(rubric.minimum), float(rubric.maximum), step / math.sqrt(count))

    @property
    def margin(self) -> float:
        share = SHARE_OF_ONE if len(self.domains) == 1 and self.name != TOTAL else SHARE_OF_MANY
        return share * (self.scale.high - self.scale.low)


def measure_of(name: str, rubric: Rubric, matched: Sequence[str] = ()) -> Measure | None:
    """Return the measure of this name; None if the rubric has no domain for it. ``matched``: domains that are not
    among the others."""
    domains = {
        TOTAL: rubric.ids,
        AS_GIVEN: rubric.ids,
        OTHERS: [domain for domain in rubric.ids if domain not in matched],
    }.get(name, [domain for domain in rubric.ids if domain == name])
    return Measure(name, rubric, tuple(domains), keyed=name != AS_GIVEN) if domains else None
