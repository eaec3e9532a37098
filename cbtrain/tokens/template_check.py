"""Whether a chat template's rendering of a dialogue only grows while the dialogue grows."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Protocol

PLACEHOLDER = re.compile("\ue000(\\d{1,9})\ue001")
"""Stands for a message: private-use characters, which no template touches."""


CLOCK = re.compile(r"strftime_now\(\s{0,20}(?:(['\"])(.{0,40}?)\1)?")
"""The one clock that templates have, and the format that it is asked for, where that is written out."""


class Layout(Protocol):
    """Lays out ``(role, content)`` pairs as text; ``generate`` adds what comes before an answer."""

    def __call__(self, messages: list[tuple[str, str]], generate: bool = False) -> str: ...


def probe(*roles: str) -> list[tuple[str, str]]:
    """Messages of these roles, a placeholder in each."""
    return [(role, f"\ue000{index}\ue001") for index, role in enumerate(roles)]


def writes_date(template: str, rendered: str) -> bool:
    """Whether what ``template`` asks the clock for stands in ``rendered``; where the format is not written out, any
    question counts."""
    formats = [found.group(2) for found in CLOCK.finditer(template)]
    return any(wanted is None or datetime.now().strftime(wanted) in rendered for wanted in formats)


def has_system_role(layout: Layout) -> bool:
    """Whether the template takes a system message at all; those that refuse it raise errors of their own kinds."""
    try:
        layout(probe("system", "user", "assistant"))
    except Exception:
        return False
    return True


def why_unstable(layout: Layout, template: str) -> str | None:
    """The first reason why what is trained and what is served would differ, None where there is none. ``layout`` lays
    out by ``template``.

    Raises whatever the template raises on a plain dialogue of user and assistant: it is no chat template then.
    """
    system = ["system"] if has_system_role(layout) else []
    roles = [*system, "user", "assistant", "user", "assistant", "user"]
    for end in range(len(system) + 2, len(roles) + 1):
        messages = probe(*roles[:end])
        text = layout(messages, generate=messages[-1][0] == "user")
        found = [int(index) for index in PLACEHOLDER.findall(text)]
        if found != list(range(end)):
            if system and found != [0, *(index for index in found if index)]:
                return "moves or drops the system text"
            return "drops, repeats or reorders messages"
    messages = probe(*roles)
    whole = layout(messages)
    if writes_date(template, whole):
        return "writes today's date"
    for index, (role, content) in enumerate(messages):
        if role != "assistant":
            continue
        prompt = layout(messages[:index], generate=True)
        # Some layouts put a space before the answer, which the model itself has to write.
        if not whole.startswith(prompt.rstrip(" ")):
            return "shows the model another prompt in training than in serving"
        if whole[len(prompt.rstrip(" ")) : whole.index(content)].strip(" "):
            return "does not say where an answer begins (add_generation_prompt has no effect)"
        begun = layout(messages[: index + 1])
        if begun[: begun.index(content)] != whole[: whole.index(content)]:
            return "renders earlier turns differently once later ones follow"
    return None
