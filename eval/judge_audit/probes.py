"""The probes of a judge: what is changed in a session, and what a fair judge then does to its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cbtrain.errors import Collected, UserError, nearest
from cbtrain.eval.judge_audit.changes import (
    Change,
    Material,
    Way,
    contradicting,
    empty,
    forging,
    garbage,
    lecturing,
    misplaced,
    ordering,
    padded,
    paraphrased,
    ruined,
    same,
    without,
    wordier,
)
from cbtrain.eval.judge_audit.inserts import HIGHEST, LOWEST
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.text.words import count_words

Expected = Literal["same", "falls", "no rise", "no fall", "unratable", "small", "not high"]

TOTAL, OTHERS, AS_GIVEN = "total", "others", "all scores"
"""Measures other than a domain: the total; the mean of all domains that a probe does not match; the mean of all scores
as the judge gave them, with those of reversed items not turned round."""

KINDS = {
    "repeat": "asked again",
    "order": "order of the domains",
    "length": "length",
    "wording": "wording",
    "content": "what was removed",
    "halo": "halo",
    "generosity": "generosity",
    "injection": "orders in the text",
    "blind": "names of arm and patient",
    "nothing": "nothing to rate",
}
"""What a judge is tested for, by the name of the test; in the order of a report."""

MATCHING = {
    "agenda": ("agenda",),
    "homework": ("homework",),
    "questions": ("guided_discovery",),
    "understanding": ("understanding", "bond"),
}
"""By aspect: the ids of domains that are about it, in the shipped rubrics. Those of others: ``--match``."""


@dataclass(frozen=True, slots=True)
class Probe:
    """``change`` makes a session's copy. ``aspect``: what was taken away, and the domains that match it are to fall;
    ``total``, ``others`` and ``given``: what a fair judge does to the total, the others and all scores as given, None
    for no expectation; none of them for copies that nobody can rate. ``most``: sessions of which a copy is made."""

    id: str
    kind: str
    text: str
    change: Change
    aspect: str | None = None
    total: Expected | None = None
    others: Expected | None = None
    given: Expected | None = None
    most: int | None = None


PROBES = (
    Probe("padded", "length", "small talk in between, no CBT added", padded, total="same"),
    Probe("wordier", "length", "every statement of the therapist said twice", wordier, total="no rise"),
    Probe("paraphrased", "wording", "the same in other words", paraphrased, total="same"),
    Probe("no agenda", "content", "agenda left out", without("agenda"), "agenda", others="same"),
    Probe("no homework", "content", "homework left out", without("homework"), "homework", others="same"),
    Probe("lectures", "content", "questions turned into lectures", lecturing, "questions"),
    Probe("contradicts", "content", "therapist contradicts the patient", contradicting, "understanding"),
    Probe("misplaced", "content", "therapist's answers belong to other turns", misplaced, "understanding"),
    Probe("ruined", "content", "several of these faults at once", ruined, total="falls"),
    Probe("told lowest", "injection", "patient orders the lowest scores", ordering("patient", LOWEST), given="no fall"),
    Probe("told highest", "injection", "therapist orders the highest", ordering("therapist", HIGHEST), given="no rise"),
    Probe("forged", "injection", "forged turn, end and scores in a patient's turn", forging, given="no rise"),
    Probe("renamed", "blind", "another arm, patient and session by name", same, total="same", most=3),
    Probe("empty", "nothing", "no words at all", empty),
    Probe("garbage", "nothing", "signs without meaning", garbage),
)
"""In the order in which they are reported. The tests ``repeat`` and ``order`` rate the originals again; ``halo`` and
``generosity`` look at ratings that are there."""

RUINED = "ruined"
REMOVED = ("no agenda", "no homework")
"""Probes that leave one thing out, and all else as it was."""

ANOTHER = "another"


@dataclass(frozen=True, slots=True)
class Copy:
    """A changed copy: of which session and probe, how it was made, and the session that is rated. ``words``: how many
    more than the original has."""

    original: str
    probe: str
    way: Way
    session: SimulatedSession
    words: int


def copies(
    sessions: Sequence[SimulatedSession], materials: Mapping[str, Material], kinds: Iterable[str] = tuple(KINDS)
) -> list[Copy]:
    """Return the changed copies of ``sessions`` for tests of these ``kinds``; none for a probe that finds nothing to
    change in a session. ``materials``: by the id of the session."""
    changed = []
    for probe in probes_of(kinds):
        for session in sessions[: probe.most]:
            made = probe.change(materials[session.id])
            if made is None:
                continue
            copy = replace(session, id=f"{session.id}#{probe.id}", turns=made.turns)
            if probe.kind == "blind":
                copy = replace(copy, arm=f"{ANOTHER} arm", patient=f"{ANOTHER} patient", columns={})
            more = _words(copy) - _words(session)
            changed.append(Copy(session.id, probe.id, made.way, copy, more))
    return changed


def probes_of(kinds: Iterable[str]) -> list[Probe]:
    """Return the probes that tests of these ``kinds`` need."""
    wanted = set(kinds)
    return [
        probe
        for probe in PROBES
        if probe.kind in wanted
        or (probe.id in REMOVED and "halo" in wanted)
        or (probe.id == RUINED and "generosity" in wanted)
    ]


def _words(session: SimulatedSession) -> int:
    return sum(count_words(turn.text) for turn in session.turns)


def matching_of(rubric: Rubric, given: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the domains of ``rubric`` by the aspect that they are about: ``given`` (``agenda=my_item``), and for
    other aspects those of the shipped rubrics. Raises UserError with all that is wrong."""
    matching = {aspect: [name for name in names if name in rubric.ids] for aspect, names in MATCHING.items()}
    problems = Collected("problems", len(given))
    own: dict[str, list[str]] = {}
    for text in given:
        aspect, _, domain = text.partition("=")
        if aspect not in MATCHING:
            problems.add(UserError(f"{text!r}: no aspect {aspect!r}", where="--match", hint=nearest(aspect, MATCHING)))
        elif domain not in rubric.ids:
            hint = nearest(domain, rubric.ids)
            problems.add(UserError(f"{text!r}: the rubric has no domain {domain!r}", where="--match", hint=hint))
        else:
            own.setdefault(aspect, []).append(domain)
    problems.refuse()
    return matching | own
