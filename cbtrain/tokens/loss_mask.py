"""Which words of a turn the loss counts, and how much."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.tokens.config import PATTERNS, Supervise, TokensConfig
from cbtrain.transcripts.summary import opening_turn, pasted_summary
from cbtrain.transcripts.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[begin, end)`` of a turn's text that weigh ``weight`` (> 0) in the loss. One that ends where the
    text ends takes the stop token with it; an empty one there stands for the stop token alone."""

    begin: int
    end: int
    weight: float


class LossPolicy:
    """``supervise`` says whose turns count; ``config`` has the weights by rule and the mask of pasted summaries.

    With ``everything`` the records that end with a turn of ``speaker`` count whole.
    """

    def __init__(self, supervise: Supervise, speaker: Role, config: TokensConfig) -> None:
        roles: dict[Supervise, set[Role]] = {
            "therapist": {"therapist"},
            "patient": {"patient"},
            "both": {"therapist", "patient"},
            "everything": {speaker},
        }
        self.roles = roles[supervise]
        self.everything = supervise == "everything"
        self.mask_pasted_summary = config.mask_pasted_summary
        self.rules = [
            (re.compile(PATTERNS.get(rule.match, rule.match), re.IGNORECASE), rule) for rule in config.weights
        ]

    def weight(self, turn: Turn, index: int) -> float:
        """The weight of ``turn``, the ``index``-th (from 0) of its session: 0 where its speaker is not supervised."""
        if turn.role not in self.roles:
            return 0.0
        for pattern, rule in self.rules:
            concerned = rule.role in (None, turn.role) and (rule.first_turns is None or index < rule.first_turns)
            if concerned and pattern.search(turn.text):
                return rule.weight
        return 1.0

    def spans(self, turns: Sequence[Turn], last_summary: str = "") -> list[tuple[Span, ...]]:
        """For each of a session's ``turns`` (stripped texts) the spans that count, in order; none where nothing does.

        ``last_summary`` closed the session before; it is looked for in the patient's opening turn.
        """
        found: list[tuple[Span, ...]] = [
            (Span(0, len(turn.text), weight),) if (weight := self.weight(turn, index)) > 0 else ()
            for index, turn in enumerate(turns)
        ]
        opening = opening_turn(turns)
        if self.mask_pasted_summary and opening is not None and found[opening]:
            text, weight = turns[opening].text, found[opening][0].weight
            pasted = pasted_summary(text, last_summary)
            if pasted:
                begin, end = pasted
                before, after = Span(0, begin, weight), Span(end, len(text), weight)
                found[opening] = tuple(s for s in (before, after) if s.end > s.begin or s is after)
        return found
