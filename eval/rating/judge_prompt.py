"""What an LLM judge is told: a shipped template, or a YAML file of one's own."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError, nearest
from cbtrain.eval.rating.rubric import Domain, Rubric
from cbtrain.files import exists, expanded, shipped, text_digest
from cbtrain.providers.types import Message
from cbtrain.settings import parse_yaml
from cbtrain.text.templates import compiled, without_gaps
from cbtrain.transcripts.source import validate

HINT = "A judge's prompt has a name, `system` and `user`: Jinja templates, see docs/judges.md."
PLACE = "\ue000transcript\ue000"
"""Stands for a transcript where a template is checked."""


class _File(BaseModel):
    """A prompt as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    version: int = 1
    about: str = ""
    system: str = ""
    user: str = Field(min_length=1)


@dataclass(frozen=True)
class JudgePrompt:
    """A template of what a judge is told. ``where``: its file, or its name if it is shipped."""

    name: str
    version: int
    about: str
    system: str
    user: str
    where: str

    @cached_property
    def digest(self) -> str:
        return text_digest(f"{self.system}\n\n{self.user}")

    @cached_property
    def _compiled(self) -> tuple[Template, Template]:
        parts = (("system", self.system), ("user", self.user))
        system, user = (compiled(text, part, self.where, HINT) for part, text in parts)
        return system, user

    def messages(self, rubric: Rubric, domains: Sequence[Domain], transcript: str) -> tuple[Message, ...]:
        """Return what is sent to rate ``domains`` of ``rubric`` in a session in its form (``transcript``). Raises
        UserError if the template cannot be filled in."""
        known = {
            "rubric": rubric,
            "scale": rubric.scale_words,
            "points": [f"{point:g}" for point in rubric.points],
            "sparse": any(len(domain.anchors) < len(rubric.points) for domain in domains),
            "domains": [_described(domain) for domain in domains],
            "transcript": transcript,
        }
        try:
            system, user = (template.render(known) for template in self._compiled)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            hint = f"Known are: {', '.join(known)}."
            raise UserError(f"cannot be filled in ({error})", where=self.where, hint=hint) from None
        parts = (("system", without_gaps(system)), ("user", user.strip("\n")))
        return tuple(Message(role, text) for role, text in parts if text)  # type: ignore[arg-type]

    def check(self, rubric: Rubric) -> None:
        """Raise UserError if the template cannot be filled in for ``rubric``, has no place for the transcript or more
        than one, or does not name a domain."""
        text = "\n".join(message.content for message in self.messages(rubric, rubric.domains, PLACE))
        if (places := text.count(PLACE)) != 1:
            what = "has no place for the transcript" if not places else f"has the transcript {places} times"
            raise UserError(what, where=self.where, hint="Write {{ transcript }} once, best in `user`.")
        missing = [domain.id for domain in rubric.domains if domain.id not in text and domain.name not in text]
        if missing:
            what = f"does not say what to rate ({', '.join(missing)} missing)"
            raise UserError(what, where=self.where, hint="Write them with {% for domain in domains %}.")


def _described(domain: Domain) -> dict[str, Any]:
    """Return what a template knows of a domain."""
    anchors = [(f"{point:g}", text) for point, text in sorted(domain.anchors.items())]
    return {"id": domain.id, "name": domain.name, "description": domain.description, "anchors": anchors}


def shipped_prompts() -> list[str]:
    """Return the names of the shipped prompts."""
    return shipped("judges")


def load_judge_prompt(word: str) -> JudgePrompt:
    """Return the shipped prompt called ``word``, or the one in the YAML file of that name. Raises UserError."""
    if word in shipped_prompts():
        folder = importlib.resources.files("cbtrain.configs") / "judges"
        return _parsed(parse_yaml(lambda: (folder / f"{word}.yaml").read_text(encoding="utf-8"), word), word)
    if not exists(word):
        hint = f"{nearest(word, shipped_prompts())} A YAML file can be named, too."
        raise UserError(f"no prompt {word!r}", hint=hint)
    path = Path(expanded(word))
    return _parsed(parse_yaml(lambda: path.read_text(encoding="utf-8-sig"), path), str(path))


def _parsed(content: Any, where: str) -> JudgePrompt:
    if not isinstance(content, dict):
        raise UserError("no prompt of a judge", where=where, hint=HINT)
    file = validate(_File, content, where, HINT)
    prompt = JudgePrompt(file.name, file.version, file.about, file.system, file.user, where)
    _ = prompt._compiled
    return prompt
