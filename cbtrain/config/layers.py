"""Settings of several layers merged, each value with the layer it comes from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbtrain.config.lists import with_lists
from cbtrain.config.overrides import COMMAND_LINE, apply_override, rank
from cbtrain.config.problems import first_problem, refuse_unknown
from cbtrain.config.sources import Layer
from cbtrain.errors import UserError
from cbtrain.providers.overrides import FOREIGN, merge
from cbtrain.settings import current_key, two_names, with_current_names

Config = TypeVar("Config", bound=BaseModel)


class MergedSettings(Generic[Config]):
    """The settings of all layers so far. ``origins`` says which layer each value comes from, by its dotted key; what a
    layer changes without naming it (another host takes a key's name away) comes from that layer too."""

    def __init__(self, model: type[Config]) -> None:
        self.model = model
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self._stages: list[tuple[str, dict[str, Any]]] = []

    def add(self, layer: Layer) -> None:
        """Lay the settings of a file over those so far. Raises UserError on an unknown key, and on a setting that is
        given by two of its names."""
        values = with_current_names(layer.values, self.model, layer.name)
        refuse_unknown(values, self.model, layer.name)
        before = dict(_leaves(self.values))
        self.values = merge(_opened(self.values, values), values)
        self._record(layer.name, before, [key for key, _ in _leaves(values)])

    def override(self, overrides: Sequence[str]) -> None:
        """Lay ``key=value`` over the settings so far. Raises UserError on what is no setting, on an unknown
        key, and on a setting that is given by two of its names."""
        if not overrides:
            return
        before, self.values = dict(_leaves(self.values)), copy.deepcopy(self.values)
        overrides = self._with_current_keys(overrides)
        for override in sorted(overrides, key=rank):
            apply_override(self.values, override, self.model, self.origins)
        self.values = with_current_names(self.values, self.model, COMMAND_LINE)
        refuse_unknown(self.values, self.model, COMMAND_LINE)
        self._record(COMMAND_LINE, before, [override.partition("=")[0] for override in overrides])

    def _with_current_keys(self, overrides: Sequence[str]) -> list[str]:
        """Return ``overrides`` with the current names of settings."""
        written: dict[str, tuple[str, str]] = {}
        current = []
        for override in overrides:
            key, equals, value = override.partition("=")
            name = current_key(key, self.model)
            other, before = written.setdefault(name, (key, value))
            if other != key and before != value:
                raise two_names(other, key, name, COMMAND_LINE)
            current.append(f"{name}{equals}{value}")
        return current

    def validated(self) -> Config:
        """Return the checked settings. Raises UserError with the layer that is to blame as its place."""
        try:
            return self._validate(self.values)
        except ValidationError as error:
            problem = first_problem(error, self.model)
            text = f"{problem.key}: {problem.text}" if problem.key else problem.text
            where = self._to_blame(problem.key, error.errors()[0])
            raise UserError(text, where=where, hint=problem.hint) from None

    def _validate(self, values: Mapping[str, Any]) -> Config:
        return self.model.model_validate(with_lists(values, self.model))

    def _record(self, name: str, before: Mapping[str, Any], named: Sequence[str]) -> None:
        """Note that the layer ``name`` has brought what it names, and what was not so ``before``."""
        now = dict(_leaves(self.values))
        for key, value in now.items():
            changed = key not in before or before[key] != value
            if changed or any(key == word or key.startswith(f"{word}.") for word in named):
                self.origins[key] = name
        self.origins = {key: origin for key, origin in self.origins.items() if key in now}
        self._stages.append((name, self.values))

    def _to_blame(self, key: str, error: ErrorDetails) -> str:
        """Return the layer of the value at ``key``. Where several values do not fit together, or one is missing: the
        first layer with which they say so."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):  # what is wrong may stand inside a list, whose key has the origin
            if origin := self.origins.get(".".join(parts[:end])):
                return origin
        for name, values in self._stages:
            try:
                self._validate(values)
            except ValidationError as earlier:
                if any(fault["loc"] == error["loc"] and fault["msg"] == error["msg"] for fault in earlier.errors()):
                    return name
        return self._stages[-1][0] if self._stages else COMMAND_LINE


def _leaves(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is no section, by its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _opened(lower_settings: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``lower_settings`` with a section in place of the name of a preset if ``upper`` has a section for it."""
    opened = dict(lower_settings)
    for key, value in upper.items():
        lower = lower_settings.get(key)
        if isinstance(value, dict) and isinstance(lower, str) and str(key).endswith("provider"):
            opened[key] = {"preset": lower}
        elif isinstance(value, dict) and isinstance(lower, dict) and key != FOREIGN:
            opened[key] = _opened(lower, value)
    return opened
