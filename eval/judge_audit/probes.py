"""Changed copies of sessions to test a rater: the scores that a fair rater would change are known.

All changes are made by deterministic code, so that a copy is the same on every machine, and none needs a model. They
are blunt on purpose: a rater that misses one of them will miss finer ones.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Literal

from cbtrain.transcripts.types import Turn

Turns = Sequence[Turn]
Expected = Literal["same", "falls", "unratable"]

TOTAL, OTHERS = "total", "others"
"""Measures other than a domain: the total, and the mean of all domains that no other expectation names."""


@dataclass(frozen=True, slots=True)
class Probe:
    """``change`` makes a session's copy, or None if there is nothing to change in it. ``expected``: what a fair rater
    does to the total, the ``OTHERS`` or a domain by its id; nothing for a copy that nobody can rate."""

    id: str
    text: str
    change: Callable[[Turns], list[Turn] | None]
    expected: dict[str, Expected]


SENTENCE = re.compile(r"(?<=[.!?…])\s+")

AGENDA = re.compile(
    r"\bagenda\b|\bpriorit\w+|\b(?:on|to) (?:our|the|your) (?:list|notes)\b|\bbefore we (?:start|begin)\b"
    r"|\b(?:focus on|work on|talk about|look at|plan for|hope for|aim for|start with|begin with|use) (?:for |from )?"
    r"(?:today|this session|this hour|our time|the time)\b|\btoday's (?:session|topics?|plan)\b"
    r"|\bwe (?:planned|agreed)\b|\bleft (?:out|over)\b",
    re.IGNORECASE,
)
WISHES = re.compile(
    r"\bwhat (?:would|do|shall|should|else would|else should) (?:you|we) (?:like|want|need|hope|add|put|have)\b"
    r"|\b(?:what|where) shall we\b|\bfor today\b|\bhad in mind\b"
    r"|\banything (?:else )?(?:you|that|to) (?:would |should )?(?:like|want|need|add|put|go)\b"
    r"|\bI(?: would|'d)? (?:suggest|propose) (?:that )?we\b|\b(?:we|to)(?: could)? cover\b"
    r"|\b(?:wish|hopes?) for (?:the|this|our)\b|\brather do first\b|\bin front of\b|\ba place today\b",
    re.IGNORECASE,
)
"""Questions that set an agenda where they stand early in a session, and may be anything later."""
HOMEWORK = re.compile(
    r"\bhomework\b|\bassignments?\b|\bbetween (?:now|sessions|our)\b|\bnext (?:time|session|week)\b|\bby next\b"
    r"|\b(?:this|the|over the|during the) (?:coming |next )?week\b|\bbefore (?:we|our) (?:next|meet)\b"
    r"|\bsince (?:we|our|last)\b|\blast (?:time|week|session)\b|\bpracti[sc]\w+|\baction (?:plan|steps?)\b"
    r"|\bworksheet\b|\btasks?\b|\bexperiments?\b|\bdid you (?:manage|get|try|do)\b|\bget in (?:the|your) way\b"
    r"|\b(?:keep|write) (?:a |it |them )?(?:log|diary|down|record)\b|\bnotebook\b|\bon paper\b"
    r"|\b(?:take|small thing) home\b|\bhow (?:likely|confident)\b|\btry (?:it|this|that|out)\b"
    r"|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b(?:each|every) (?:day|evening|morning|night)\b",
    re.IGNORECASE,
)

LECTURES = (
    "It is plain to me what is behind this, and I will explain it.",
    "Thoughts of this kind are distorted, and people who hold them draw the wrong conclusion from what happens.",
    "The evidence is against it, and the sensible view is the balanced one that I am giving you now.",
    "Research has shown how such problems arise, and yours arose in the same manner.",
    "A person in your position has to understand that feelings follow from thoughts and from nothing else.",
    "The right conclusion is the one I have drawn, and it applies to you as it does to everyone.",
    "There is a well-known explanation of this, and it leaves no room for doubt.",
    "I have seen this often, and the answer is always the same.",
)
"""Statements that stand where questions stood: they persuade, and leave the patient nothing to find."""

CONTRADICTIONS = (
    "No, you are mistaken about that.",
    "That is not what happened to you.",
    "No, you do not really feel that way.",
    "I do not believe that, and neither should you.",
    "You're wrong there, it cannot have been like that.",
    "That's not true, and you know it.",
)

SMALL_TALK = (
    ("Excuse me, I am only closing the window.", "Of course, it is loud out there."),
    ("The heating in this room is slow today.", "It is warm enough for me."),
    ("My chair makes a noise whenever I turn.", "Mine does as well."),
    ("The bus outside is late again, by the look of it.", "They are always late on this road."),
    ("The light in here is rather bright.", "It does not bother me."),
    ("They have painted the corridor green.", "I saw it on the way in."),
    ("The tea machine is out of order once more.", "I had some water downstairs."),
    ("It has begun to rain, I see.", "I have brought my umbrella."),
)
"""Therapist and patient: words that are in no way about the therapy."""


def again(turns: Turns) -> list[Turn] | None:
    """Return the same words, with two spaces between sentences. No reader sees them, and the rating is new: not the
    kept answer of an API, and not that of its fixed seed."""
    changed = [Turn(turn.role, SENTENCE.sub("  ", turn.text)) for turn in turns]
    return changed if changed != list(turns) else None


def padded(turns: Turns) -> list[Turn] | None:
    """Small talk before every third of the therapist's turns that answer the patient, so that speakers alternate."""
    places = [i for i in range(1, len(turns)) if (turns[i - 1].role, turns[i].role) == ("patient", "therapist")][1::3]
    if not places:
        return None
    changed: list[Turn] = []
    for index, turn in enumerate(turns):
        if index in places:
            therapist, patient = SMALL_TALK[places.index(index) % len(SMALL_TALK)]
            changed += [Turn("therapist", therapist), Turn("patient", patient)]
        changed.append(turn)
    return changed


def without(pattern: re.Pattern[str], early: re.Pattern[str] | None = None) -> Callable[[Turns], list[Turn] | None]:
    """Return a change that leaves out every sentence of the therapist that ``pattern`` finds, in the first third of the
    session also those that ``early`` finds, and the patient's answers to turns of which nothing is left."""

    def change(turns: Turns) -> list[Turn] | None:
        kept: list[Turn] = []
        removed = gone = False
        for index, turn in enumerate(turns):
            if turn.role == "patient":
                if not gone:
                    kept.append(turn)
                gone = False
                continue
            patterns = [pattern, early] if early and 3 * index < len(turns) else [pattern]
            sentences = SENTENCE.split(turn.text)
            left = [sentence for sentence in sentences if not any(unwanted.search(sentence) for unwanted in patterns)]
            removed = removed or len(left) < len(sentences)
            gone = not left
            if left:
                kept.append(Turn(turn.role, " ".join(left)))
        return kept if removed and len({turn.role for turn in kept}) == 2 else None

    return change


def lecturing(turns: Turns) -> list[Turn] | None:
    """Replace each of the therapist's questions by a statement."""
    number = 0
    changed = []
    for turn in turns:
        sentences = SENTENCE.split(turn.text)
        for index, sentence in enumerate(sentences):
            if turn.role == "therapist" and "?" in sentence:
                sentences[index] = LECTURES[number % len(LECTURES)]
                number += 1
        changed.append(Turn(turn.role, " ".join(sentences)))
    return changed if number else None


def contradicting(turns: Turns) -> list[Turn] | None:
    """Begin every answer of the therapist with a denial of the patient's words."""
    number = 0
    changed = [*turns[:1]]
    for before, turn in pairwise(turns):
        if (before.role, turn.role) == ("patient", "therapist"):
            turn = Turn(turn.role, f"{CONTRADICTIONS[number % len(CONTRADICTIONS)]} {turn.text}")
            number += 1
        changed.append(turn)
    return changed if number else None


def empty(turns: Turns) -> list[Turn]:
    """Return turns without words."""
    return [Turn(turn.role, "") for turn in turns[:4]]


def garbage(turns: Turns) -> list[Turn]:
    """Replace every word by as many characters without meaning."""
    signs = string.ascii_letters + string.digits + "#%&*+/<=>@^_|~"
    rng = Random(" ".join(turn.text for turn in turns))

    def word(length: int) -> str:
        return "".join(rng.choices(signs, k=length))

    return [Turn(turn.role, " ".join(word(len(spoken)) for spoken in turn.text.split())) for turn in turns]


PROBES = (
    Probe("duplicate", "the same words once more", again, {TOTAL: "same"}),
    Probe("padded", "small talk in between, no CBT added", padded, {TOTAL: "same"}),
    Probe("no agenda", "agenda left out", without(AGENDA, WISHES), {"agenda": "falls", OTHERS: "same"}),
    Probe("no homework", "homework left out", without(HOMEWORK), {"homework": "falls", OTHERS: "same"}),
    Probe("lectures", "questions turned into lectures", lecturing, {"guided_discovery": "falls"}),
    Probe("contradicts", "therapist contradicts the patient", contradicting, {"understanding": "falls"}),
    Probe("empty", "no words at all", empty, {}),
    Probe("garbage", "signs without meaning", garbage, {}),
)
"""In the order in which they are reported. Probes without an expectation of scores are to be unratable."""
