"""The embedded rater: counts wording that is typical of each domain. A smoke test, no clinical judgement.

A domain's score is ``maximum · (weight of the cues met ÷ weight of all its cues)``, rounded to a point of the scale.
Cues stand in the rubric's YAML: patterns are searched in the therapist's turns (``opening`` is the first third of the
session, ``closing`` the last), measures are the numbers of :func:`measures`. It needs no API, gives equal text equal
scores, and can be fooled by anyone who knows the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from cbtrain.errors import UserError
from cbtrain.eval.rating.cue import Cue
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.text.language import UNKNOWN, language_name, language_of
from cbtrain.text.words import count_words
from cbtrain.transcripts.types import Turn

CUE_RATER = "cue"
"""Name of this judge in tables of scores."""

FEW_WORDS = "fewer than two turns of ordinary words from each speaker"

CUE_RATER_LABEL = "smoke-test cue rater: counts wording, no clinical judgement"

OPEN_QUESTION = re.compile(r"\b(?:what|how|when|where|which|who|could you|can you)\b[^.?!]{0,500}\?", re.IGNORECASE)
CONTRADICTION = re.compile(
    r"\b(?:you'?re wrong|that'?s not true|you shouldn'?t feel|no, you|stop (?:saying|thinking)|just get over)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[a-z']{5,}")
ORDINARY_ENGLISH = re.compile(r"[A-Za-z][A-Za-z'’-]*[.,;:!?]?")
ORDINARY = re.compile(r"[^\d\s#%&*+/<=>@^_|~\\]+")
LONGEST_PIECE = 4_000
COMMON = frozenset(
    """
    about after again always because before being could didn't doesn't don't doing every feel feeling feels going
    great having maybe might other really right should something that's their there these they're thing things think
    thinking those thought thoughts today understand until we've where which while would you're you've
    """.split()
)
"""Words too frequent to show that the patient was heard."""


def check(rubric: Rubric) -> None:
    """Raise UserError if ``rubric`` has a domain without cues, which only people and LLM judges can rate."""
    without = [domain.id for domain in rubric.domains if not domain.cues]
    if without:
        which = "no domain has" if len(without) == len(rubric.domains) else f"{', '.join(without)}: without"
        hint = "Have an LLM judge rate (its key set, or rater: llm), or people (`cbtrain rate export`)."
        raise UserError(f"the cue rater cannot rate it ({which} cues)", where=f"rubric {rubric.name!r}", hint=hint)


def rate(session: SimulatedSession, rubric: Rubric) -> Score:
    """Return the score of one session; ``unratable``, never a minimum, without two turns of words from each speaker,
    and in another language than that of the cues."""
    turns = session.turns
    score = Score.empty(session, CUE_RATER, 0, rubric)
    if why := why_unratable(turns, session.labels_seen) or _why_not_by_cues(turns, rubric):
        score.reason["error"] = why
        return score
    score.status = "ok"
    numbers = measures(turns)
    for domain in rubric.domains:
        weight_met, evidence, names = 0.0, set(), []
        for cue in domain.cues:
            cue_turns = _turns_with(cue, turns, numbers)
            if cue_turns is not None:
                weight_met += cue.weight
                evidence.update(cue_turns)
                names.append(cue.name)
        share = weight_met / sum(cue.weight for cue in domain.cues)
        score.domains[domain.id] = float(rubric.points[round(share * (len(rubric.points) - 1))])
        score.evidence[domain.id] = sorted(evidence)
        score.reason[domain.id] = f"cues met: {', '.join(names) or 'none'}"
    return score


def measures(turns: Sequence[Turn]) -> dict[str, float]:
    """Return numbers about the therapist's turns.

    ``question_share``: turns with a question; ``open_question_share``: turns with an open one; ``lecture_share``: turns
    over 60 words without a question; ``words_per_turn``; ``talk_share``: the therapist's share of all words;
    ``pickup_share``: turns that take up a content word of the patient's turn before; ``contradictions``: turns that
    tell the patient that they are wrong; ``double_question_share``: turns with more than two questions.
    """
    spoken = [(index, turn.text) for index, turn in enumerate(turns) if turn.role == "therapist"]
    count = len(spoken)
    lengths = [count_words(text) for _, text in spoken]
    patient_words = sum(count_words(turn.text) for turn in turns if turn.role == "patient")
    questions = [text.count("?") + text.count("？") for _, text in spoken]
    pickups = sum(
        bool(_content_words(turns[index - 1].text) & _content_words(text))
        for index, text in spoken
        if index > 0 and turns[index - 1].role == "patient"
    )
    return {
        "question_share": sum(q > 0 for q in questions) / count,
        "open_question_share": sum(bool(OPEN_QUESTION.search(text)) for _, text in spoken) / count,
        "lecture_share": sum(n > 60 and q == 0 for n, q in zip(lengths, questions, strict=True)) / count,
        "double_question_share": sum(q > 2 for q in questions) / count,
        "words_per_turn": sum(lengths) / count,
        "talk_share": sum(lengths) / max(1, sum(lengths) + patient_words),
        "pickup_share": pickups / count,
        "contradictions": float(sum(bool(CONTRADICTION.search(text)) for _, text in spoken)),
    }


def _turns_with(cue: Cue, turns: Sequence[Turn], numbers: dict[str, float]) -> list[int] | None:
    """Return the indices of the turns that meet ``cue`` (none for a measure), or None if it is not met."""
    if cue.measure is not None:
        value = numbers[cue.measure]
        low = cue.at_least is None or value >= cue.at_least
        high = cue.at_most is None or value <= cue.at_most
        return [] if low and high else None
    third = max(2, -(-len(turns) // 3))
    span = {"whole": (0, len(turns)), "opening": (0, third), "closing": (len(turns) - third, len(turns))}[cue.part]
    pattern = _compile(cue.pattern or "")
    spoken = [index for index in range(*span) if turns[index].role == "therapist"]
    return [index for index in spoken if any(map(pattern.search, _pieces(turns[index].text)))] or None


def _pieces(text: str) -> Iterator[str]:
    """``text`` in parts of at most ``LONGEST_PIECE`` characters, cut at a space where there is one.

    A rubric's own pattern may cost the square of what it is searched in; an ordinary turn is one piece.
    """
    start = 0
    while len(text) - start > LONGEST_PIECE:
        cut = text.rfind(" ", start + 1, start + LONGEST_PIECE)
        stop = cut if cut > 0 else start + LONGEST_PIECE
        yield text[start:stop]
        start = stop
    yield text[start:]


def _why_not_by_cues(turns: Sequence[Turn], rubric: Rubric) -> str:
    """Return why cues say nothing of ``turns``; an empty text if each speaker has at least two turns of ordinary words,
    in the language of the cues as far as it is found."""
    language = language_of("\n".join(turn.text for turn in turns))
    if language not in (UNKNOWN, rubric.cue_language):
        cues = language_name(rubric.cue_language)
        return f"it is in {language_name(language)}, and the cues of this rubric are in {cues}"
    ordinary = ORDINARY_ENGLISH if rubric.cue_language == "en" else ORDINARY
    spoken = {"patient": 0, "therapist": 0}
    for turn in turns:
        words = turn.text.split()
        count = sum(bool(ordinary.fullmatch(word)) for word in words)
        # Where no blanks are between words, one part is many of them.
        enough = count >= 2 or (count > 0 and count_words(turn.text) > len(words))
        spoken[turn.role] += enough and 2 * count >= len(words)
    return "" if min(spoken.values()) >= 2 else FEW_WORDS


def _content_words(text: str) -> set[str]:
    return set(WORD.findall(text.lower())) - COMMON


@lru_cache(maxsize=512)
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
