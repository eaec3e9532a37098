"""A conversation of a person with a therapist: who said what, and what is answered again or taken back.

Nothing here reads, prints or asks a model.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from cbtrain.tokens.dialogue import Message, led_in
from cbtrain.transcripts.types import Session, Turn

BASE = "base"
"""How the model without an adapter is called."""

SOURCE = "cbtrain chat: a person wrote the patient's turns, a language model the therapist's"


@dataclass(frozen=True, slots=True)
class Answer:
    """The ``text`` of an answer by ``adapter`` (None: the base), drawn with ``seed`` as the tokens ``ids`` (empty if
    they do not give the text). A ``stopped`` answer was ended by the person."""

    text: str
    adapter: str | None
    seed: int
    ids: tuple[int, ...] = ()
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """The person's ``words`` and their answer, None while there is none."""

    words: str
    answer: Answer | None = None


class Conversation:
    """Exchanges in order. Answers are drawn with ``first_seed``, ``first_seed`` + 1 and so on."""

    def __init__(self, first_seed: int) -> None:
        self.name = f"chat-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.exchanges: list[Exchange] = []
        self.crisis_help_shown = False
        self.first_seed = self.seed = first_seed
        self._saved: list[Exchange] = []

    @property
    def unsaved(self) -> bool:
        """Whether it has words that differ from those saved last."""
        return bool(self.exchanges) and self.exchanges != self._saved

    def mark_saved(self) -> None:
        self._saved = list(self.exchanges)

    def next_seed(self) -> int:
        """Return ``seed``, that of the next answer, and make it another one for the answer after it."""
        self.seed += 1
        return self.seed - 1

    def say(self, words: str) -> None:
        """Add the person's ``words``. Words without an answer continue with them, after a blank line."""
        if self.exchanges and self.exchanges[-1].answer is None:
            words = f"{self.exchanges.pop().words}\n\n{words}"
        self.exchanges.append(Exchange(words))

    def set_answer(self, answer: Answer) -> None:
        """Answer the last words, in place of the answer that they may have."""
        self.exchanges[-1] = replace(self.exchanges[-1], answer=answer)

    def undo(self) -> Exchange:
        """Remove the last exchange and return it."""
        return self.exchanges.pop()

    def messages(self, system: str | None, adapter: str | None) -> list[Message]:
        """Return the chat for an answer of ``adapter`` to the last words, after the system prompt if there is one.

        Only its own earlier answers keep their tokens: another adapter's can be of another tokenizer.
        """
        messages = []
        for exchange in self.exchanges:
            messages.append(Message("user", exchange.words))
            answer = exchange.answer
            if answer and exchange is not self.exchanges[-1]:
                ids = answer.ids if answer.adapter == adapter else ()
                messages.append(Message("assistant", answer.text, ids=ids))
        return led_in(messages, system)

    def session(self, facts: Mapping[str, str]) -> Session:
        """Return the conversation as a session. Its facts are ``facts``, and by therapist's turn, as lists in JSON, the
        ``adapters`` that spoke, the ``seeds``, and whether the person ``stopped`` it."""
        turns: list[Turn] = []
        answers: list[Answer] = []
        for exchange in self.exchanges:
            turns.append(Turn("patient", exchange.words))
            if exchange.answer:
                turns.append(Turn("therapist", exchange.answer.text))
                answers.append(exchange.answer)
        by_turn = {
            "adapters": [answer.adapter or BASE for answer in answers],
            "seeds": [answer.seed for answer in answers],
            "stopped": [answer.stopped for answer in answers],
        }
        lists = {name: json.dumps(values, ensure_ascii=False) for name, values in by_turn.items()}
        return Session(self.name, 1, tuple(turns), facts={"source": SOURCE, **facts, **lists})
