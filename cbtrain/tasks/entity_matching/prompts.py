"""The questions: the four published test prompts, the training prompt, and how records are put into them.

They are those of TailorMatch (Steiner, Peeters and Bizer, arXiv 2409.08185). Its training prompt quotes the records;
its test prompts do not, since the code replaces the quotes of the template together with the words in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cbtrain.errors import UserError, nearest
from cbtrain.tasks.entity_matching.pair import Pair

_COMPLEX = "Do the two product descriptions refer to the same real-world product?"
_SIMPLE = "Do the two product descriptions match?"
_FORCE = "Answer with 'Yes' if they do and 'No' if they do not."
_ENTITIES = "Do the two entity descriptions refer to the same real-world entity?"

RECORDS, _QUOTED = "Entity 1: {left}. Entity 2: {right}.", "Entity 1: '{left}'. Entity 2: '{right}'."
"""How two records are written, in the test prompts and in the training prompt."""

TRAINING = "training"
AS_IN_FILE = "file"
"""The prompt that stands in a file of prompts and answers, word for word."""

PROMPTS = {
    "domain-complex-free": f"{_COMPLEX} {RECORDS}",
    "domain-simple-free": f"{_SIMPLE} {RECORDS}",
    "domain-complex-force": f"{_COMPLEX} {_FORCE} {RECORDS}",
    "domain-simple-force": f"{_SIMPLE} {_FORCE} {RECORDS}",
    TRAINING: f"{_ENTITIES} {_QUOTED}",
}
"""Prompts by name; ``{left}`` and ``{right}`` are the records."""

EVALUATION = tuple(name for name in PROMPTS if name != TRAINING)
"""The four published test prompts."""

DEFAULT = "domain-simple-force"
"""The prompt of training and evaluation if none is named: fixed before any score is known, since the best of four on
the test set is no fair figure. It says how to answer, so that a model is measured by what it knows and not by its
manners, and is the shorter of the two that do."""

_RECORDS = re.compile(r"Entity 1: ?(?P<left>.*)\. Entity 2: ?(?P<right>.*?)\.?\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question by ``name``, laid out by ``template``; None: as each pair's file has it."""

    name: str
    template: str | None

    @classmethod
    def named(cls, name: str) -> Prompt:
        """Raises UserError on an unknown name."""
        if name not in PROMPTS and name != AS_IN_FILE:
            raise UserError(f"unknown prompt {name!r}", where="--prompt", hint=nearest(name, (*PROMPTS, AS_IN_FILE)))
        return cls(name, PROMPTS.get(name))

    def render(self, pair: Pair) -> str:
        """Return the question about ``pair``. Raises UserError if the pair lacks what it needs."""
        if self.template is None:
            if pair.prompt is None:
                hint = f"Name one of {', '.join(PROMPTS)}."
                raise UserError("the file has records and no prompts", where=pair.id, hint=hint)
            return pair.prompt
        if not pair.has_records:
            hint = f"Use --prompt {AS_IN_FILE}, which asks as the file does."
            raise UserError(f"no two records can be read from its prompt for {self.name}", where=pair.id, hint=hint)
        # Not `format`: titles have braces. One pass, since a title may hold the words {right}.
        records = {"{left}": pair.left, "{right}": pair.right}
        return re.sub(r"\{left\}|\{right\}", lambda found: records[found.group()], self.template)


def records_of(prompt: str) -> tuple[str, str]:
    """Return the two records in a published ``prompt``, without their quotes; two empty texts if they cannot be told
    apart."""
    found = _RECORDS.search(prompt)
    if not found:
        return "", ""
    return _unquoted(found["left"]), _unquoted(found["right"])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
