"""How the scores of a session's domains become its total: reversed items turned round, then weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Keying:
    """``turned``: of each reversed domain, lowest plus highest point, from which its score is subtracted; ``weights``
    of the domains that have another than 1. Domains that are in neither count as they are."""

    turned: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def keyed(self, domain: str, score: float) -> float:
        """Return the score of ``domain`` so that more is better; of such a score, the one that was given."""
        return self.turned[domain] - score if domain in self.turned else score

    def weight(self, domain: str) -> float:
        return self.weights.get(domain, 1.0)

    def total(self, scores: Mapping[str, float | None]) -> float | None:
        """Return the weighted sum of the keyed ``scores``; None unless every domain has one."""
        known = {domain: score for domain, score in scores.items() if score is not None}
        if not known or len(known) < len(scores):
            return None
        return sum(self.weight(domain) * self.keyed(domain, score) for domain, score in known.items())


AS_GIVEN = Keying()
"""Of instruments without reversed or weighted domains, and of tables whose instrument is not known."""
