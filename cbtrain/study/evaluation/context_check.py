"""Whether the prompts of models on this machine fit into their contexts, before the first session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cbtrain.errors import UserError
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.model.architecture import read_architecture
from cbtrain.study.evaluation.estimate import TOKENS_PER_WORD
from cbtrain.study.evaluation.local_weights import LocalWeights
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.therapists import key_of
from cbtrain.text.words import count_words
from cbtrain.tokens.config import OPENING
from cbtrain.tokens.dialogue import Message

LONGEST = 3
"""Prompts, the longest by characters, that are counted in tokens."""


def check_contexts(protocol: EvaluationProtocol, sessions: Sequence[SimulatedSession], problems: Problems) -> None:
    """Add to ``problems`` each model on this machine whose longest prompt leaves no room for one exchange of turns, or,
    if a therapist here writes the summaries of a course, for its longest session and a summary. The longest summary
    counts with the tokens that its writer may write."""
    settings = protocol.config.evaluation
    summary = settings.course.summary
    whole = protocol.course.mode == "whole"
    yet = summary.max_tokens if whole else 0
    for therapist in protocol.therapists:
        if therapist.weights is not None:
            held = {protocol.therapist_prompt(therapist, one) for one in sessions if one.arm == therapist.name}
            more = yet + settings.patient.max_tokens
            if whole and summary.provider is None:
                asked = (count_words(summary.prompt) + settings.max_words) * TOKENS_PER_WORD
                turns = settings.max_turns / 2 * (settings.patient.max_tokens + therapist.sampling.max_tokens)
                more = yet + round(min(asked, turns + count_words(summary.prompt) * TOKENS_PER_WORD)) + yet
            with problems.collected(key_of(therapist.name)):
                _check(protocol, therapist.weights, held, more)
    weights = protocol.patient_weights
    if weights is not None:
        here = [one for one in sessions if protocol.players[one.simulator].weights is not None]
        with problems.collected("evaluation.patient"):
            _check(protocol, weights, {protocol.patient_prompt(one) for one in here}, yet + settings.patient.max_tokens)


def _check(protocol: EvaluationProtocol, weights: LocalWeights, prompts: Iterable[str], more: int) -> None:
    """Raise UserError if the longest of ``prompts`` with ``more`` tokens is longer than the context."""
    settings = protocol.config.evaluation
    context = min(settings.engine.context_tokens, read_architecture(weights.model).context)
    renderer = weights.voice(protocol.config.tokens.format).renderer
    longest = [text for text in sorted(prompts, key=len)[-LONGEST:] if text]
    chats = ([Message("system", text), Message("user", OPENING)] for text in longest)
    tokens = max((len(renderer.prompt(chat)) for chat in chats), default=0)
    needed = tokens + more + settings.therapist.max_tokens
    if needed > context:
        hint = (
            "Raise evaluation.engine.context_tokens, take a model with a longer context, or lower max_turns, max_words "
            "or the lengths of turns and summaries."
        )
        what = f"a session takes up to {needed:,} tokens, and the context holds {context:,}"
        raise UserError(what, hint=hint)
