"""Ways of playing a patient: shipped ones by name, and files of one's own. Each is data: a template of the prompt."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Template, TemplateError
from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError, nearest
from cbtrain.eval.simulation.config import NARRATIVE
from cbtrain.files import exists, expanded, text_digest
from cbtrain.patients.case import Case
from cbtrain.settings import parse_yaml
from cbtrain.text.templates import compiled, without_gaps
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.source import validate
from cbtrain.transcripts.types import Phase, phase_of

MANNERS = {
    "": "One to four sentences a turn.",
    "plain": "Answer plainly, one to four sentences a turn.",
    "upset": "You are upset in the session, tearful, angry or on edge; it shows in the words. One to four sentences.",
    "verbose": "You talk at length: four to eight sentences a turn, with detail.",
    "reserved": "You say little: a few words to two sentences a turn. Open up only slowly, if at all.",
    "tangential": "You slide off the question into what is on your mind; two to six sentences a turn.",
    "pleasing": "You want to be a good patient and say what seems expected, while inside little changes; one to four "
    "sentences a turn.",
}
"""How the turns of a style sound, as a template's ``manner``."""


class _File(BaseModel):
    """A simulator as it is written: ``needs`` are parts of a profile without which the template says too little."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    version: int = 1
    about: str = ""
    needs: list[Literal["cognitive_model", "history", "complaint"]] = []
    system: str = Field(min_length=1)


@dataclass(frozen=True)
class SessionBegins:
    """What is known when a session begins: its ``number`` in the course, the ``summary`` of those before, which both
    know, and what has happened ``since``, which the patient knows. In the first session both are empty."""

    number: int
    summary: str = ""
    since: str = ""

    @property
    def phase(self) -> Phase:
        return phase_of(self.number)


@dataclass(frozen=True)
class Simulator:
    """A way of playing a patient. ``digest``: of its file."""

    name: str
    version: int
    about: str
    needs: Sequence[str]
    template: str
    where: str

    @cached_property
    def digest(self) -> str:
        return text_digest(self.template)

    @cached_property
    def _compiled(self) -> Template:
        return compiled(self.template, "system", self.where, "It is a Jinja template.")

    def check(self, profile: Profile, case: Case | None) -> None:
        """Raise UserError if this patient lacks something that the template needs."""
        for part in self.needs:
            if case is None or not _has(case, part):
                what = part.replace("_", " ")
                hint = f"Add it, or take another simulator: {', '.join(shipped_simulators())}."
                raise UserError(f"{profile.course} has no {what}, which {self.name} needs", where=self.where, hint=hint)

    def system(
        self, profile: Profile, case: Case | None, begins: SessionBegins | None = None, instructions: str = ""
    ) -> str:
        """Return the prompt of the patient. Raises UserError if the template cannot be filled in."""
        known = {
            "patient": profile,
            "case": case,
            "session": begins,
            "summary": begins.summary if begins else "",
            "since": begins.since if begins else "",
            "manner": MANNERS[(case.style if case else None) or ""],
            "instructions": instructions,
        }
        try:
            text = self._compiled.render(known)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            hint = f"Known are: {', '.join(known)}."
            problem = f"cannot be filled in for {profile.course} ({error})"
            raise UserError(problem, where=self.where, hint=hint) from None
        return without_gaps(text)


def _has(case: Case, part: str) -> bool:
    if part == "cognitive_model":
        model = case.cognitive_model
        return bool(model.core_beliefs or model.intermediate_beliefs) and bool(model.situations)
    return bool(getattr(case, part))


@cache
def shipped_simulators() -> dict[str, Simulator]:
    """Return the shipped simulators by name, the default one first."""
    folder = importlib.resources.files("cbtrain.configs") / "simulators"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = [_parsed(yaml.safe_load(file.read_text(encoding="utf-8")), file.name) for file in files]
    return {simulator.name: simulator for simulator in sorted(found, key=lambda one: one.name != NARRATIVE)}


def load_simulator(word: str) -> Simulator:
    """Return the shipped simulator called ``word``, or the one in the YAML file of that name. Raises UserError."""
    if word in shipped_simulators():
        return shipped_simulators()[word]
    if not exists(word):
        hint = f"{nearest(word, shipped_simulators())} A YAML file can be named, too."
        raise UserError(f"no simulator {word!r}", hint=hint)
    path = Path(expanded(word))
    return _parsed(parse_yaml(lambda: path.read_text(encoding="utf-8"), path), str(path))


def _parsed(content: Any, where: str) -> Simulator:
    hint = "A simulator has a name, and `system`, a Jinja template."
    if not isinstance(content, dict):
        raise UserError("no simulator", where=where, hint=hint)
    file = validate(_File, content, where, hint)
    simulator = Simulator(file.name, file.version, file.about, tuple(file.needs), file.system, where)
    _ = simulator._compiled
    return simulator
