"""Settings of several layers merged, each value with the layer it comes from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from cbtrain.config.lists import with_lists
from cbtrain.config.overrides import COMMAND_LINE, apply_override, rank, value_of
from cbtrain.config.problems import first_problem, refuse_unknown
from cbtrain.config.sources import Layer
from cbtrain.errors import UserError
from cbtrain.providers.overrides import FOREIGN, merge
from cbtrain.settings import current_key, refuse_booleans, two_names, with_current_names

Config = TypeVar("Config", bound=BaseModel)


class MergedSettings(Generic[Config]):
    """The settings of all layers so far, each value with the layer that gave it. What a layer changes without naming it
    (another host takes a key's name away) is given by that layer too."""

    def __init__(self, model: type[Config]) -> None:
        self.model = model
        self.values: dict[str, Any] = {}
        self._layers: list[str] = []
        self._given_by: dict[str, int] = {}
        """The number of the layer that gave a value, by its dotted key."""

    @property
    def origins(self) -> dict[str, str]:
        """The name of the layer that gave a value, by its dotted key."""
        return {key: self._layers[number] for key, number in self._given_by.items()}

    def add(self, layer: Layer) -> None:
        """Lay the settings of a file over those so far. Raises UserError on an unknown key, on a setting that is
        given by two of its names, and on true or false for a number."""
        values = with_current_names(layer.values, self.model, layer.name)
        refuse_unknown(values, self.model, layer.name)
        refuse_booleans(values, self.model, layer.name)
        before = dict(_leaves(self.values))
        self.values = merge(_opened(self.values, values), values)
        self._record(layer.name, before, [key for key, _ in _leaves(values)])

    def override(self, overrides: Sequence[str]) -> None:
        """Lay ``key=value`` over the settings so far. Raises UserError on a word that is not a setting, on an unknown
        key, on a setting that is given twice with different values, and on true or false for a number."""
        if not overrides:
            return
        before, self.values = dict(_leaves(self.values)), copy.deepcopy(self.values)
        overrides = self._with_current_keys(overrides)
        for override in sorted(overrides, key=rank):
            apply_override(self.values, override, self.model, self.origins)
        self.values = with_current_names(self.values, self.model, COMMAND_LINE)
        refuse_unknown(self.values, self.model, COMMAND_LINE)
        refuse_booleans(self.values, self.model, COMMAND_LINE)
        self._record(COMMAND_LINE, before, [override.partition("=")[0] for override in overrides])

    def _with_current_keys(self, overrides: Sequence[str]) -> list[str]:
        """Return ``overrides`` with the current names of settings."""
        written: dict[str, tuple[str, Any]] = {}
        current = []
        for override in overrides:
            key, equals, value = override.partition("=")
            name = current_key(key, self.model)
            current.append(f"{name}{equals}{value}")
            for leaf, content in _leaves({name: value_of(current[-1], self.model) if equals else None}):
                leaf = current_key(leaf, self.model)
                other, before = written.setdefault(leaf, (key, content))
                if before is content or before == content:  # NaN, which a setting refuses, is not equal to itself
                    continue
                if leaf == name == current_key(other, self.model) and other != key:
                    raise two_names(other, key, name, COMMAND_LINE)
                hint = "Give it once."
                raise UserError(f"{leaf} is given twice, with different values", where=COMMAND_LINE, hint=hint)
        return current

    def validated(self) -> Config:
        """Return the checked settings. Raises UserError with the layer that is to blame as its place."""
        try:
            return self.model.model_validate(with_lists(self.values, self.model))
        except ValidationError as error:
            problem = first_problem(error, self.model)
            text = f"{problem.key}: {problem.text}" if problem.key else problem.text
            raise UserError(text, where=self._to_blame(problem.causes), hint=problem.hint) from None

    def _record(self, name: str, before: Mapping[str, Any], named: Sequence[str]) -> None:
        """Note that the layer ``name`` gave the values that it names, and those that differ from ``before``."""
        now = dict(_leaves(self.values))
        for key, value in now.items():
            changed = key not in before or before[key] != value
            if changed or any(key == word or key.startswith(f"{word}.") for word in named):
                self._given_by[key] = len(self._layers)
        self._given_by = {key: number for key, number in self._given_by.items() if key in now}
        self._layers.append(name)

    def _to_blame(self, causes: Sequence[str]) -> str:
        """Return the layer that is to blame: the last one that gave one of the settings ``causes``. If none did, a
        setting is missing: from the first layer that gave a part of its section."""
        if layers := self._layers_of(causes):
            return self._layers[max(layers)]
        section = causes[0].rpartition(".")[0]
        if layers := self._layers_of([section]):
            return self._layers[min(layers)]
        return self._layers[-1] if self._layers else COMMAND_LINE

    def _layers_of(self, causes: Sequence[str]) -> list[int]:
        return [number for key, number in self._given_by.items() if any(_concerns(key, cause) for cause in causes)]


def _concerns(key: str, cause: str) -> bool:
    """Return whether one of ``key`` and ``cause`` is the other, or a part of it; an empty ``cause`` is the whole."""
    return not cause or key == cause or key.startswith(f"{cause}.") or cause.startswith(f"{key}.")


def _leaves(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is not a section, with its dotted key."""
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
