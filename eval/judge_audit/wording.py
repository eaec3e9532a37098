"""English wording by which agenda and homework are found; other languages need a writer model or structure."""

from __future__ import annotations

import re

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


def speaks_of(aspect: str, sentence: str, *, early: bool) -> bool:
    """Return whether an English ``sentence`` of a therapist is about ``aspect``: ``agenda`` or ``homework``. ``early``:
    in the first third of the session."""
    if aspect == "agenda":
        return bool(AGENDA.search(sentence) or (early and WISHES.search(sentence)))
    return bool(HOMEWORK.search(sentence))
