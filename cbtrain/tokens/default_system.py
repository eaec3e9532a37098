"""The system text that a chat template writes into a chat without a system message: its own, or the trained prompt.

A folder is also opened by programs that know nothing of cbtrain. Its template therefore begins with a block that puts
the trained system prompt before a chat that has none. cbtrain itself takes the block away again: there the layout is
that of training, and the server adds the prompt.
"""

from __future__ import annotations

import json
from typing import Any

from cbtrain.tokens.formats import PLACEHOLDER, Layout, has_system_role, layout_of, probe

BLOCK = (
    "{{%- if not messages or messages[0]['role'] != 'system' %}}"
    "{{%- set messages = [{{'role': 'system', 'content': {text}}}] + messages %}}{{%- endif %}}\n"
)
"""``text`` is a JSON string, which Jinja reads too. Templates are rendered with ``trim_blocks``: the line break is no
part of the layout."""


def with_default_system(template: str, text: str) -> str:
    """Return ``template`` with the system message ``text`` in every chat that has none."""
    return BLOCK.format(text=json.dumps(text.strip(), ensure_ascii=False)) + template


def without_default_system(template: str, text: str) -> str:
    """Return the template that :func:`with_default_system` has changed, any other one as it is."""
    return template.removeprefix(with_default_system("", text))


def takes_default_system(tokenizer: Any, template: str, text: str) -> bool:
    """Return whether ``template``, with ``text`` as the default, lays out a chat without a system message as training
    lays it out with ``text``, and a chat with one as before.

    No for templates that refuse a system message: there a client's own prompt is a part of the first user message.
    """
    before, after = layout_of(tokenizer, template), layout_of(tokenizer, with_default_system(template, text))
    chat = [("user", "a"), ("assistant", "b"), ("user", "c")]
    trained, other = ("system", text.strip()), ("system", "d")
    try:
        return all(
            after(turns, generate) == before([trained, *turns], generate)
            and after([other, *turns], generate) == before([other, *turns], generate)
            for turns, generate in ((chat[:1], True), (chat[:2], False), (chat, True))
        )
    except Exception:  # templates raise exceptions of their own to refuse roles
        return False


def own_system_text(layout: Layout) -> str:
    """Return the text that a template puts into the system message by itself where a chat has none, "" if it puts
    none there."""
    if not has_system_role(layout):
        return ""
    system, user = probe("system", "user")
    before, _, between, *_ = PLACEHOLDER.split(layout([system, user], generate=True))
    written = PLACEHOLDER.split(layout([user], generate=True))[0]
    if len(written) < len(before) + len(between) or not written.startswith(before) or not written.endswith(between):
        return ""
    return written[len(before) : len(written) - len(between)].strip()
