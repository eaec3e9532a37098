"""Decide which words of a turn the loss counts, and with which weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.tokens.config import PATTERNS, Supervise, TokensConfig
from cbtrain.transcripts.summary import opening_turn, pasted_summary
from cbtrain.transcripts.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[begin, end)`` of a turn's text that have ``weight`` (> 0) in the loss. A span that ends with the
    text includes the stop token; an empty span there is the stop token alone."""

    begin: int
    end: int
    weight: float


class LossPolicy:
    """``supervise`` says whose turns count; ``config`` has the weights by rule and the mask of pasted summaries.

    With ``everything``, all tokens of a record that ends with a turn of ``speaker`` count.
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
        """Return the weight of ``turn``, the ``index``-th (from 0) of its session: its own times that of the first rule
        that applies; 0 if the loss does not count it."""
        if turn.role not in self.roles:
            return 0.0
        for pattern, rule in self.rules:
            applies = rule.role in (None, turn.role) and (rule.first_turns is None or index < rule.first_turns)
            if applies and pattern.search(turn.text):
                return rule.weight * turn.weight
        return turn.weight

    def spans(self, turns: Sequence[Turn], last_summary: str = "") -> list[tuple[Span, ...]]:
        """Return for each of a session's ``turns`` (stripped texts) the spans that count, in order.

        ``last_summary`` closed the session before; it is searched for in the patient's opening turn.
        """
        spans: list[tuple[Span, ...]] = [
            (Span(0, len(turn.text), weight),) if (weight := self.weight(turn, index)) > 0 else ()
            for index, turn in enumerate(turns)
        ]
        opening = opening_turn(turns)
        if self.mask_pasted_summary and opening is not None and spans[opening]:
            text, weight = turns[opening].text, spans[opening][0].weight
            pasted = pasted_summary(text, last_summary)
            if pasted:
                begin, end = pasted
                before, after = Span(0, begin, weight), Span(end, len(text), weight)
                spans[opening] = tuple(s for s in (before, after) if s.end > s.begin or s is after)
        return spans
