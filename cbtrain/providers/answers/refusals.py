"""Refusals that a model words itself, with the finish reason of an ordinary answer."""

from __future__ import annotations

import re

from cbtrain.text.words import count_words

MOST_WORDS = 120
"""A longer answer says more than that it refuses."""

AI = r"an ai(?: language model| assistant| model)?"
APOLOGY = (
    r"(?:(?:i'm|i am|we're|we are) (?:(?:really|very|so|truly|deeply) )?(?:sorry|afraid)|sorry|i apologi[sz]e"
    rf"|(?:my )?apologies|unfortunately|as {AI})"
)
CANNOT = (
    r"(?:(?:i|we) (?:can't|cannot|can not|won't|will not|(?:am|are) (?:unable|not able|not comfortable|not permitted"
    r"|not allowed) to|must decline to|have to decline to|must refuse to)"
    r"|(?:i'm|we're) (?:unable|not able|not comfortable|not permitted|not allowed) to)"
)
TASK = r"(?:request|role-?play|prompt|content|scenario)"
KIND = r"(?:(?:type|kind|sort) of |specific |particular |harmful |sensitive |explicit |role-?play )"
ENDED = r"(?=[^\w\s]|\s?$)"
THAT = rf"(?:(?:that|this)(?: {TASK})?{ENDED}|(?:that|this|your|the|such|these) {KIND}?{TASK})"
TASKS = (
    rf"(?:(?:assist|help)(?: you)? with {THAT}|(?:assist|help) you{ENDED}|assist{ENDED}|comply with {THAT}"
    rf"|fulfill? {THAT}|provide (?:the (?:help|support) (?:that )?you need|assistance|{THAT}|(?:any )?content\b)"
    rf"|(?:role-?play|simulate|portray|impersonate)\b"
    rf"|(?:generate|create|produce|write|discuss) (?:{THAT}|(?:any )?content\b)"
    rf"|(?:continue|engage|participate|proceed|go on) (?:with|in) (?:that|this|the|your|such) {KIND}?{TASK})"
)
"""A refusal says that it cannot do a task of a model's, at its beginning or after an apology: "I'm sorry, but I can't
assist with that." (OpenAI), "I apologize, but I cannot roleplay …" (Anthropic). The tasks are to fit no patient: "I
can't do that" and "I can't talk about it" are what patients say. Add another wording here."""

OTHERS = (
    r"(?:很|非常)?(?:抱歉|对不起)[，,。!！ ]{0,3}(?:但)?我[^。\n]{0,20}(?:无法|不能)[^。\n]{0,12}"
    r"(?:提供|协助|满足|生成)"
)
"""How whole refusals begin in other languages."""

MACHINES = (
    rf"as {AI},? (?:i|my)\b",
    rf"(?:i'm|i am) (?:just |only )?{AI}\b",
    r"作为(?:一个|一名)?(?:人工智能|ai|语言模型)",
)
"""How a model begins that falls out of a patient's role; a therapist may say so with good reason."""

APOLOGIZES = re.compile(rf"^{APOLOGY}")
DECLINES = re.compile(CANNOT)
A_TASK = re.compile(rf"^ {TASKS}")
FOREIGN = re.compile(rf"^{OTHERS}")
MACHINE = re.compile(rf"^(?:{'|'.join(MACHINES)})")
STRAIGHT = str.maketrans("’‘´`", "''''")

LONGEST_REASON = 80
"""Characters between an apology and what cannot be done."""


def is_refusal(text: str) -> bool:
    """Return whether the whole of ``text`` is a model's refusal: short, and beginning as one."""
    beginning = _beginning(text)
    if count_words(text) > MOST_WORDS:
        return False
    declines = DECLINES.search(beginning)
    if declines is None:
        return bool(FOREIGN.match(beginning))
    apology = APOLOGIZES.match(beginning)
    reason = beginning[apology.end() if apology else 0 : declines.start()]
    near = len(reason) <= LONGEST_REASON and not set(reason.strip()[:-1]) & set(".!?\n")
    return (near if apology else not reason) and bool(A_TASK.match(beginning[declines.end() :]))


def leaves_role(text: str) -> bool:
    """Return whether ``text``, in a patient's place, is a model that refuses or speaks of itself as one."""
    return is_refusal(text) or (bool(MACHINE.match(_beginning(text))) and count_words(text) <= MOST_WORDS)


def _beginning(text: str) -> str:
    return text[:2000].translate(STRAIGHT).lower().strip().lstrip("\"'*_ ")
