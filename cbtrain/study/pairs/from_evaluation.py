"""Pairs from a scored evaluation: two therapists' answers to the same dialogue state, the better session's chosen.

A session has one score, and a pair has one answer of it: the score of everything that was said is credited to the turn
in which two sessions part. That is a guess, a better one the wider the margin is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from cbtrain.errors import UserError
from cbtrain.study.pairs.forks import answer_at, fork_of
from cbtrain.study.pairs.made import MadePairs
from cbtrain.study.pairs.rated import RatedRuns, RatedSession
from cbtrain.study.pairs.writing import SYSTEM, made_by
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.types import Session, Turn

By = Literal["arm", "seed"]

MARGIN = 0.1
"""Share of the instrument's range by which the scores of two sessions differ at least, if nothing else is said."""

FAILED = "sessions failed"
UNRATED = "sessions without a score by all who rate"
UNMATCHED = "sessions without another one to compare with"
OTHER_SUMMARY = "pairs of sessions began with different knowledge of earlier ones"
ALONE = (
    "pairs of sessions share no dialogue state: a patient's words differ first, or one session is the other's beginning"
)
CLOSE = "pairs of sessions differ by less than the margin"
UNUSABLE = "pairs of sessions cannot be a pair of answers"
AGAIN = "pairs came again word for word"
OPPOSED = "pairs had the same two answers chosen both ways, and are left out"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pairs are made. ``margin``: least difference of two sessions, in points of the total; ``turns``: most turns
    of the therapist in an answer."""

    by: By = "arm"
    margin: float = 0.0
    turns: int = 1


def margin_of(given: float | None, rated: RatedRuns) -> float:
    """Return the least difference of two scores: ``given``, or a tenth of the instrument's range. Raises UserError."""
    if given is not None:
        if not 0 <= given < float("inf"):
            raise UserError(f"{given:g} is no difference of scores", where="--margin", hint="Give points from 0 on.")
        return given
    if rated.width is None:
        raise UserError("the instrument's range is not known here", where="--margin", hint="Give the points.")
    return MARGIN * rated.width


def pairs_of_evaluation(
    rated: RatedRuns, patients: Sequence[str], wanted: Wanted, facts: Mapping[str, str]
) -> MadePairs:
    """Return the pairs of the sessions of ``patients``: the prompt are the turns that two sessions share, the answers
    the therapists' next turns. ``facts`` are added to those of each pair."""
    left_out: Counter[str] = Counter()
    usable = list(_usable([one for one in rated.sessions if one.session.patient in set(patients)], left_out))
    pairs: dict[tuple[Any, ...], Session] = {}
    compared: set[str] = set()
    for first, second in _comparable(usable, wanted.by):
        compared |= {first.name, second.name}
        assert first.score is not None
        assert second.score is not None
        better, worse = (first, second) if first.score >= second.score else (second, first)
        begin = fork_of(first.session.turns, second.session.turns)
        difference = abs(first.score - second.score)
        if _known(first) != _known(second):
            left_out[OTHER_SUMMARY] += 1
        elif begin is None:
            left_out[ALONE] += 1
        elif difference < wanted.margin or not difference:
            left_out[CLOSE] += 1
        elif (pair := _pair(better, worse, begin, wanted, facts)) is None:
            left_out[UNUSABLE] += 1
        elif pairs.setdefault(_words_of(pair), pair) is not pair:
            left_out[AGAIN] += 1
    left_out[UNMATCHED] += len({one.name for one in usable} - compared)
    opposed = [key for key in pairs if (key[0], key[2], key[1]) in pairs]
    left_out[OPPOSED] += len(opposed)
    return MadePairs([pair for key, pair in pairs.items() if key not in set(opposed)], +left_out)


def _usable(sessions: Sequence[RatedSession], left_out: Counter[str]) -> Iterator[RatedSession]:
    for one in sessions:
        if one.session.failed:
            left_out[FAILED] += 1
        elif one.score is None:
            left_out[UNRATED] += 1
        else:
            yield one


def _comparable(sessions: Sequence[RatedSession], by: By) -> Iterator[tuple[RatedSession, RatedSession]]:
    """Yield every two sessions of one patient: of different therapists in the same place (``arm``), or of one
    therapist with different seeds (``seed``)."""
    groups: dict[tuple[Any, ...], list[RatedSession]] = defaultdict(list)
    for one in sessions:
        session = one.session
        place = (session.patient, session.number, session.simulator)
        groups[(*place, session.seed) if by == "arm" else (*place, one.run, session.arm)].append(one)
    for group in groups.values():
        for first, second in combinations(group, 2):
            same = (first.run, first.session.arm) == (second.run, second.session.arm)
            if same == (by == "seed"):
                yield first, second


def _pair(
    better: RatedSession, worse: RatedSession, begin: int, wanted: Wanted, facts: Mapping[str, str]
) -> Session | None:
    """Return the pair of answers at index ``begin``; None if they cannot be one (a speaker twice in a row, say)."""
    assert better.score is not None
    assert worse.score is not None
    prompt = tuple(better.session.turns[:begin])
    id_ = f"{better.session.id}-over-{worse.session.id}"
    if better.run != worse.run:
        id_ = f"{better.run}.{better.session.id}-over-{worse.run}.{worse.session.id}"
    said = {
        "source": "evaluation",
        **better.facts("chosen"),
        **worse.facts("rejected"),
        "margin": f"{better.score - worse.score:g}",
        "score_is_of": "the whole session",
        "turn": str(begin + 1),
        **facts,
        "made_by": made_by(),
        SYSTEM: _system(better, worse),
    }
    said = {name: text for name, text in said.items() if text}
    session = Session(id_, 1, prompt, better.name, patient=better.session.patient, facts=said)
    chosen, rejected = (answer_at(one.session.turns, begin, wanted.turns) for one in (better, worse))
    try:
        return pair_session(session, chosen, rejected)
    except UserError:
        return None


def _known(one: RatedSession) -> str:
    return one.plan.known(one.session)


def _system(better: RatedSession, worse: RatedSession) -> str:
    """Return the system prompt of both sessions: what both therapists were told of earlier sessions, after their own
    prompt if that is the same."""
    own, other = (one.plan.system(one.session) for one in (better, worse))
    return "\n\n".join(filter(None, [own if own == other else "", _known(better)]))


def _words_of(pair: Session) -> tuple[Any, ...]:
    """Return what a pair says: patient and prompt, chosen, rejected."""
    assert pair.preference is not None
    begin = pair.preference.begin
    prompt, chosen = _words(pair.turns[:begin]), _words(pair.turns[begin:])
    return (pair.patient, prompt), chosen, _words(pair.preference.rejected)


def _words(turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    return tuple((turn.role, turn.text.strip()) for turn in turns)
