"""A sweep file: what its runs have in common, and in what each of them differs."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from cbtrain.config.layers import MergedSettings
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import EXTENDS, Layer, read_layers
from cbtrain.errors import UserError, nearest
from cbtrain.files import exists, expanded, shipped
from cbtrain.providers.overrides import merge
from cbtrain.settings import parse_yaml
from cbtrain.study.sweep.files import RESERVED
from cbtrain.study.sweep.grid import MOST_RUNS, runs_of_grid
from cbtrain.study.sweep.problems import Problems
from cbtrain.transcripts.types import Role

SWEEPS = "sweeps"
"""Folder of the shipped ones."""

PARTS = ("common", "runs", "grid")

CONFIG, SPEAKER = "config", "speaker"
"""Keys beside settings: the config that all runs start from, and whose adapter a run trains."""

ONE_SPEAKER = Layer("what a sweep trains if nothing is said", {"training": {"speakers": ["therapist"]}})

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
NAME_HINT = "A run's name is that of its folder: letters, digits and . _ + = -, at most 100."


@dataclass(frozen=True, slots=True)
class SweepFile:
    """``where`` is how errors name the file. ``common`` and each of ``runs`` are settings, nested. ``config`` names
    what all start from."""

    where: str
    folder: Path
    config: str | None
    common: dict[str, Any]
    runs: dict[str, dict[str, Any]]


def find_sweep(word: str) -> Path:
    """Return the file that ``word`` names: a path, or the name of a shipped sweep. Raises UserError if it names
    none."""
    path = expanded(word)
    if exists(path):
        return path
    if word not in shipped(SWEEPS):
        raise UserError("no such sweep file", where=word, hint=f"Shipped: {', '.join(shipped(SWEEPS))}.")
    return Path(str(importlib.resources.files("cbtrain.configs") / SWEEPS / f"{word}.yaml"))


def read_sweep(path: Path, problems: Problems) -> SweepFile:
    """Return the sweep in the YAML file ``path``, as far as it can be used. Collects what is wrong with its form: parts
    that are none, names that collide or are no names of folders, no run at all. Raises UserError if it is no sweep."""
    content = parse_yaml(lambda: path.read_text(encoding="utf-8"), path)
    where = str(path)
    if not isinstance(content, dict) or not content:
        hint = "See `cbtrain sweep --help` for an example."
        raise UserError("not a sweep: a mapping with runs or a grid", where=path, hint=hint)
    for part in content:
        if part not in PARTS:
            problems.add(_unknown_part(str(part), where))
    given, common = _section(content.get("common"), "common", where, problems), {}
    if EXTENDS in given:
        del given[EXTENDS]
        problems.add(UserError("common.extends is not a key of sweeps", where=where, hint="Write config: NAME."))
    config = given.pop(CONFIG, None)
    if config is not None and not isinstance(config, str):
        problems.add(UserError(f"common.config: {config!r} is not a name", where=where, hint="Name one config."))
        config = None
    written = _written_runs(content.get("runs"), where, problems)
    crossed = _crossed_runs(content.get("grid"), where, problems)
    runs = _named([*written, *crossed], where, problems)
    if not content.get("runs") and not content.get("grid"):
        problems.add(UserError("an empty sweep", where=where, hint="Name runs (runs:), or values to cross (grid:)."))
    with problems.collected():
        common = nested(given, f"{where}, common")
    return SweepFile(where, path.parent, config, common, runs)


def configs_of(sweep: SweepFile, overrides: Sequence[str], problems: Problems) -> dict[str, StudyConfig]:
    """Return the settings of each run, by name: those of the config that all start from, over them what is common, then
    what is the run's own, and ``overrides`` (``key=value``) over all. Runs with a problem, which is collected, are left
    out; all are, if what is common has one."""
    configs: dict[str, StudyConfig] = {}
    own = {name: Layer(f"{sweep.where}, run {name}", settings) for name, settings in sweep.runs.items()}
    common: list[Layer] | None = None
    with problems.collected():
        layers = _lower_layers(sweep)
        _merged(layers, overrides)
        common = layers
    for name, layer in own.items():
        with problems.collected():
            if common is None:
                _merged([layer], ())  # what is wrong with it in any case
            else:
                configs[name] = _merged([*common, layer], overrides).validated()
    return configs


def _lower_layers(sweep: SweepFile) -> list[Layer]:
    """Return the layers below a run's own."""
    config = sweep.config
    if config is not None and (beside := sweep.folder / expanded(config)).is_file():
        config = str(beside)
    below = read_layers(config) if config else []
    return [ONE_SPEAKER, *below, Layer(f"{sweep.where}, common", sweep.common)]


def _merged(layers: Sequence[Layer], overrides: Sequence[str]) -> MergedSettings[StudyConfig]:
    settings = MergedSettings(StudyConfig)
    for layer in layers:
        settings.add(layer)
    settings.override(overrides)
    return settings


def nested(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``settings`` with dotted keys as sections, and ``speaker`` as the setting that it stands for. Keys inside
    a section stay as they are: some are patterns. Raises UserError if one setting is given twice."""
    whole: dict[str, Any] = {}
    for key, value in settings.items():
        if key == SPEAKER:
            key, value = "training.speakers", [_speaker(value, where)]
        wrapped = reduce(lambda inner, part: {part: inner}, reversed(str(key).split(".")), value)
        if twice := set(_leaves(whole)) & set(_leaves(wrapped)):
            raise UserError(f"{min(twice)} is given twice", where=where, hint="Give it once.")
        whole = merge(whole, wrapped)
    return whole


def _speaker(value: Any, where: str) -> Any:
    if value not in get_args(Role):
        raise UserError(f"speaker: {value!r} is nobody", where=where, hint=f"One of {', '.join(get_args(Role))}.")
    return value


def _leaves(values: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}"


def _unknown_part(part: str, where: str) -> UserError:
    if part in StudyConfig.model_fields or part.partition(".")[0] in StudyConfig.model_fields:
        return UserError(f"{part} is a setting of runs", where=where, hint=f"Put it under common: {{{part}: …}}.")
    if part in (EXTENDS, CONFIG):
        return UserError(f"{part} is not a part of a sweep", where=where, hint="Write common: {config: …}.")
    return UserError(f"unknown part {part!r}", where=where, hint=nearest(part, PARTS))


def _section(value: Any, what: str, where: str, problems: Problems) -> dict[str, Any]:
    """Return ``value`` as a section, an empty one for null."""
    if value is None or isinstance(value, dict):
        return dict(value or {})
    hint = "Write name: {key: value}." if what == "runs" else "Write key: value."
    problems.add(UserError(f"{what} is not a mapping", where=where, hint=hint))
    return {}


def _written_runs(value: Any, where: str, problems: Problems) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings of each run under ``runs``."""
    runs = []
    for name, given in _section(value, "runs", where, problems).items():
        if not isinstance(name, str):
            if isinstance(name, bool) or not isinstance(name, int | float):
                problems.add(UserError(f"{name!r} cannot name a run", where=where, hint="Put it in quotes."))
                continue
            name = str(name)
        settings = _section(given, f"run {name}", where, problems)
        if CONFIG in settings:
            problem = "config belongs under common: runs of a sweep start from one config"
            problems.add(UserError(problem, where=f"{where}, run {name}"))
            continue
        with problems.collected():
            runs.append((name, nested(settings, f"{where}, run {name}")))
    return runs


def _crossed_runs(value: Any, where: str, problems: Problems) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings of each combination under ``grid``."""
    grid: dict[str, list[Any]] = {}
    for key, values in _dotted(_section(value, "grid", where, problems)):
        if not isinstance(values, list) or not values:
            hint = f"Write {key}: [first, second]."
            problems.add(UserError(f"grid: {key} has no list of values to cross", where=where, hint=hint))
        elif any(values[:place].count(one) for place, one in enumerate(values)):
            problems.add(UserError(f"grid: {key} has a value twice", where=where, hint="Give each once."))
        else:
            with problems.collected():
                MergedSettings(StudyConfig).add(Layer(f"{where}, grid", nested({key: values[0]}, f"{where}, grid")))
                grid[key] = values
    count = reduce(lambda product, values: product * len(values), grid.values(), 1) if grid else 0
    if count > MOST_RUNS:
        problems.add(UserError(f"a grid of {count:,} runs", where=where, hint=f"At most {MOST_RUNS:,}."))
        return []
    runs = []
    for name, settings in runs_of_grid(grid) if grid else ():
        with problems.collected():
            runs.append((name, nested(settings, f"{where}, grid")))
    return runs


def _dotted(section: Mapping[Any, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the lists of a grid by dotted key."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _named(runs: Sequence[tuple[str, dict[str, Any]]], where: str, problems: Problems) -> dict[str, dict[str, Any]]:
    """Return ``runs`` by name, those that have a name of their own which a folder can have."""
    named: dict[str, dict[str, Any]] = {}
    folders: dict[str, str] = {name.casefold(): name for name in RESERVED}
    for name, settings in runs:
        other = folders.get(name.casefold())
        if not NAME.fullmatch(name) or name.endswith("."):
            problems.add(UserError(f"{name!r} cannot name a run", where=where, hint=NAME_HINT))
        elif other in RESERVED:
            hint = "Choose another name."
            problems.add(UserError(f"{name!r} is the name of a file of the sweep itself", where=where, hint=hint))
        elif other is not None:
            what = f"two runs named {name!r}" if other == name else f"runs {other!r} and {name!r} would share a folder"
            hint = "Choose another name; combinations of a grid can be written as runs with names of your own."
            problems.add(UserError(what, where=where, hint=hint))
        else:
            named[name], folders[name.casefold()] = settings, name
    return named
