"""Check that a chat template renders earlier turns the same however many turns follow."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Protocol

PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
"""A message's placeholder: private-use characters, which no template changes."""

CLOCK = re.compile(r"strftime_now\(\s*(?:(['\"])(.*?)\1)?")
"""The only clock that templates have, and its format if that is a literal."""


class Layout(Protocol):
    """Lays out ``(role, content)`` pairs as text; ``generate`` adds the text before an answer."""

    def __call__(self, messages: list[tuple[str, str]], generate: bool = False) -> str: ...


def probe(*roles: str) -> list[tuple[str, str]]:
    """Return messages of these roles with a placeholder in each."""
    return [(role, f"\ue000{index}\ue001") for index, role in enumerate(roles)]


def writes_date(template: str, rendered: str) -> bool:
    """Return whether ``rendered`` has the date or time that ``template`` asks the clock for.

    If the format is not a literal, any use of the clock counts.
    """
    formats = [match.group(2) for match in CLOCK.finditer(template)]
    return any(text is None or datetime.now().strftime(text) in rendered for text in formats)


def has_system_role(layout: Layout) -> bool:
    """Return whether the template takes a system message; templates refuse one by an exception of their own."""
    try:
        layout(probe("system", "user", "assistant"))
    except Exception:
        return False
    return True


def why_unstable(layout: Layout, template: str) -> str | None:
    """Return the first reason why prompts in training and serving would differ, None if there is none; ``layout`` lays
    out by ``template``.

    Raises the template's own exception if it fails on a plain dialogue of user and assistant: it is no chat template.
    """
    system = ["system"] if has_system_role(layout) else []
    roles = [*system, "user", "assistant", "user", "assistant", "user"]
    for end in range(len(system) + 2, len(roles) + 1):
        messages = probe(*roles[:end])
        text = layout(messages, generate=messages[-1][0] == "user")
        rendered = [int(index) for index in PLACEHOLDER.findall(text)]
        if rendered != list(range(end)):
            if system and rendered != [0, *(index for index in rendered if index)]:
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
        # Some layouts put a space before the answer; the model itself has to write it.
        if not whole.startswith(prompt.rstrip(" ")):
            return "shows the model another prompt in training than in serving"
        if whole[len(prompt.rstrip(" ")) : whole.index(content)].strip(" "):
            return "does not say where an answer begins (add_generation_prompt has no effect)"
        shorter = layout(messages[: index + 1])
        if shorter[: shorter.index(content)] != whole[: whole.index(content)]:
            return "renders earlier turns differently once later ones follow"
    return None
