"""The second method: what serving feeds the model before an answer must be how training shows that answer.

The weights of ``chat.py`` come from places in a text that was laid out with placeholders. Here the template gets the
words themselves and nothing is known of places: each answer is what serving's prompt leaves open, up to the first
special token. Both must name the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message, SpokenSpan
from cbtrain.tokens.loss_mask import Span

PROBE = ["I did not sleep.", "What went through your mind?", "That I fail.", "How sure are you?", "Very.", "I see."]


def check_renderer(renderer: ChatRenderer) -> None:
    """:func:`check_dialogue` of a made-up one, with a system prompt and without. Raises UserError."""
    talk = [Message(("user", "assistant")[index % 2], text) for index, text in enumerate(PROBE)]
    for messages in ([Message("system", "Be brief."), *talk], talk):
        check_dialogue(renderer, messages, renderer.tokenizer.name_or_path or "tokenizer")


def check_dialogue(renderer: ChatRenderer, messages: Sequence[Message], name: str) -> None:
    """Raise UserError unless both methods agree on every answer in ``messages``, token by token.

    More than one beginning-of-text token, or one elsewhere than first, is an error too.
    """
    marked = [_whole(message, index) for index, message in enumerate(messages)]
    places = [index for index, message in enumerate(marked) if message.role == "assistant"]
    if renderer.format.single_answer:
        for place in places:
            record = [*(message.as_context() for message in marked[:place]), marked[place]]
            _check(renderer, record, [place], name)
    else:
        _check(renderer, marked, places, name)


def _check(renderer: ChatRenderer, messages: Sequence[Message], places: Sequence[int], name: str) -> None:
    rendering = renderer.render(messages, name)
    expected = np.zeros(len(rendering.ids), dtype=bool)
    ids = rendering.ids.tolist()
    for place in places:
        prompt, through = renderer.render_answer(messages[: place + 1])
        if ids[: len(through)] != through or ids[:prompt] != renderer.prompt(messages[:place], name):
            problem = f"the chat format {renderer.format.name!r} shows what leads to message {place + 1}, or its words"
            hint = "Use a template whose rendering only grows, and that leaves words as they are."
            raise UserError(f"{problem}, otherwise in serving than in training", where=name, hint=hint)
        expected[prompt : len(through)] = True
    found = rendering.weights > 0
    if (found != expected).any():
        first = int(np.flatnonzero(found != expected)[0])
        around = renderer.decode(ids[max(0, first - 4) : first + 4])
        problem = f"two methods disagree on whether token {first} is supervised, at {around!r}"
        raise UserError(problem, where=name, hint="Use another chat template (tokens.format), and report this one.")
    bos = renderer.tokenizer.bos_token_id
    if bos is not None and bos != renderer.tokenizer.eos_token_id and bos in ids[1:]:
        problem = f"the chat format {renderer.format.name!r} puts a beginning-of-text token elsewhere than first"
        raise UserError(problem, where=name, hint="Use a template that writes it once.")


def _whole(message: Message, index: int) -> Message:
    """``message`` with all of it supervised if it is an answer, else nothing."""
    if message.role != "assistant":
        return message.as_context()
    own = message.said[0] if message.said else SpokenSpan("", index)
    return replace(message, said=(replace(own, spans=(Span(0, len(message.content.strip()), 1.0),)),))
