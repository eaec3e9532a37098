"""Check the loss mask by a second method: training must show an answer after the same tokens as serving's prompt.

``chat.py`` sets loss weights by character positions in a text that was laid out with placeholders. Here the template
gets the words themselves, and no positions: each answer is the text after serving's prompt, up to the first special
token. Both methods must mark the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message, SpokenTurn
from cbtrain.tokens.loss_mask import Span

PROBE = [
    'I did not sleep.\n\nMy boss said: "You\'re  late" & left; 5 < 6 > 4.',
    "What went through your mind?",
    "That I fail." + " I tried, I could not do it, and so I stayed in bed." * 12,
    "How sure are you?\n- 1. 100%\n- 2. {less}",
    "Very.",
    "I see." + " Let us look at what speaks for it and what against it." * 12,
]
"""What templates could treat apart: new lines, quotes, brackets, lists, very short and very long turns."""


def check_renderer(renderer: ChatRenderer) -> None:
    """Run :func:`check_dialogue` on an invented dialogue, with and without a system prompt. Raises UserError."""
    talk = [Message(("user", "assistant")[index % 2], text) for index, text in enumerate(PROBE)]
    for messages in ([Message("system", "Be brief."), *talk], talk):
        check_dialogue(renderer, messages, renderer.tokenizer.name_or_path or "tokenizer")


def check_dialogue(renderer: ChatRenderer, messages: Sequence[Message], name: str) -> None:
    """Raise UserError unless both methods agree on every token of the answers in ``messages``.

    ``name`` (session, file) is used in errors. A beginning-of-text token that is not the first token is an error too.
    """
    marked = [_whole(message, index) for index, message in enumerate(messages)]
    answers = [index for index, message in enumerate(marked) if message.role == "assistant"]
    if renderer.format.single_answer:
        for answer in answers:
            record = [*(message.as_context() for message in marked[:answer]), marked[answer]]
            _check(renderer, record, [answer], name)
    else:
        _check(renderer, marked, answers, name)


def _check(renderer: ChatRenderer, messages: Sequence[Message], answers: Sequence[int], name: str) -> None:
    rendering = renderer.render(messages, name)
    expected = np.zeros(len(rendering.ids), dtype=bool)
    ids = rendering.ids.tolist()
    for answer in answers:
        prompt_length, answered = renderer.render_answer(messages[: answer + 1])
        same_words = ids[: len(answered)] == answered
        if not same_words or ids[:prompt_length] != renderer.prompt(messages[:answer], name):
            problem = f"the chat format {renderer.format.name!r} renders message {answer + 1}, or the text before it,"
            hint = "Use a template that changes neither words nor earlier turns."
            raise UserError(f"{problem} differently in training and in serving", where=name, hint=hint)
        expected[prompt_length : len(answered)] = True
    supervised = rendering.loss_weights > 0
    if (supervised != expected).any():
        first = int(np.flatnonzero(supervised != expected)[0])
        around = renderer.decode(ids[max(0, first - 4) : first + 4])
        problem = f"two methods disagree on whether token {first} is supervised, at {around!r}"
        raise UserError(
            problem, where=name, hint="Use another chat template (tokens.format), and report this one as a bug."
        )
    bos = renderer.tokenizer.bos_token_id
    if bos is not None and bos != renderer.tokenizer.eos_token_id and bos in ids[1:]:
        problem = f"the chat format {renderer.format.name!r} writes a beginning-of-text token after the beginning"
        raise UserError(problem, where=name, hint="Use a template that writes it only once, first.")


def _whole(message: Message, index: int) -> Message:
    """Return ``message`` supervised as a whole if it is an answer, else not at all."""
    if message.role != "assistant":
        return message.as_context()
    turn = message.turns[0] if message.turns else SpokenTurn("", index)
    return replace(message, turns=(replace(turn, spans=(Span(0, len(message.content.strip()), 1.0),)),))
