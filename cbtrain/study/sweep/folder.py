"""The folder of a sweep: its settings as they were resolved, its lock, and whether it may continue there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.files import hold, seal, unseal, write_atomic
from cbtrain.settings import differences, parse_yaml
from cbtrain.study.anchored import anchored
from cbtrain.study.run_files import CONFIG, STATE
from cbtrain.study.run_folder import check_same_settings, check_same_study
from cbtrain.study.sweep.files import LOCK, NOTES, SWEEP
from cbtrain.study.sweep.problems import Problems

ANOTHER = "Choose another --out."


def check_folder(configs: Mapping[str, StudyConfig], folder: Path, problems: Problems) -> None:
    """Collect why the sweep of ``configs`` cannot begin or continue in ``folder``: it holds something else, or a run
    that is not in it, or that has begun with other settings. Runs may have been added."""
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK, NOTES}):
        return
    if not (folder / SWEEP).is_file():
        problems.add(UserError("exists and holds no sweep", where=folder, hint=ANOTHER))
        return
    with problems.collected():
        content = parse_yaml(lambda: (folder / SWEEP).read_text(encoding="utf-8"), folder / SWEEP)
        runs = content.get("runs") if isinstance(content, dict) else None
        if not isinstance(runs, dict):
            raise UserError("damaged: no runs in it", where=folder / SWEEP, hint=ANOTHER)
        for name in runs:
            if str(name) not in configs:
                hint = f"Continue with a file that has it, or choose another --out (or see {folder / SWEEP})."
                problems.add(UserError(f"another sweep is here: it has a run {name!r}", where=folder, hint=hint))
    for name, config in configs.items():
        if (folder / name / CONFIG).exists():
            with problems.collected():
                check_begun(config, folder / name)


def check_begun(config: StudyConfig, folder: Path) -> None:
    """Raise UserError if the run in ``folder`` has begun with other settings, and if an unfinished one must not
    continue."""
    if (folder / STATE).exists():
        check_same_settings(config, folder)
    else:
        check_same_study(config, folder)


def hold_sweep(folder: Path) -> None:
    """Lock ``folder`` for this sweep. Raises UserError if another process has it."""
    if not hold(folder / LOCK):
        hint = "Wait for it, end it, or choose another --out."
        raise UserError("another sweep is running in this folder", where=folder, hint=hint)


def write_sweep(configs: Mapping[str, StudyConfig], folder: Path) -> None:
    """Write all settings of all runs to ``folder``, so that the sweep can be read, repeated or continued: what is
    common once, and of each run what differs."""
    settings = {name: anchored(config).model_dump(mode="json") for name, config in configs.items()}
    first = next(iter(settings.values()))
    differ = {key for other in settings.values() for key, *_ in differences(first, other)}
    whole = {
        "common": _without(first, differ),
        "runs": {name: _only(values, differ) for name, values in settings.items()},
    }
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    write_atomic(folder / SWEEP, text)


def _without(settings: Mapping[str, Any], keys: set[str], at: str = "") -> dict[str, Any]:
    """Return ``settings`` without those that ``keys`` (dotted) name; no section is left empty by it."""
    kept = {}
    for key, value in settings.items():
        if f"{at}{key}" in keys:
            continue
        if isinstance(value, dict) and value:
            if inner := _without(value, keys, f"{at}{key}."):
                kept[key] = inner
        else:
            kept[key] = value
    return kept


def _only(settings: Mapping[str, Any], keys: set[str], at: str = "") -> dict[str, Any]:
    """Return those of ``settings`` that ``keys`` (dotted) name."""
    kept = {}
    for key, value in settings.items():
        if f"{at}{key}" in keys:
            kept[key] = value
        elif isinstance(value, dict) and (inner := _only(value, keys, f"{at}{key}.")):
            kept[key] = inner
    return kept


def write_note(folder: Path, name: str, **facts: Any) -> None:
    """Add ``facts`` (JSON) to what is known of run ``name`` beside its own folder."""
    write_atomic(_note(folder, name), json.dumps(seal({**read_note(folder, name), **facts})) + "\n")


def read_note(folder: Path, name: str) -> dict[str, Any]:
    """Return what :func:`write_note` has written; nothing if it is not there or damaged, as it can be found again."""
    try:
        noted = unseal(json.loads(_note(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in noted.items() if key != "checksum"}


def _note(folder: Path, name: str) -> Path:
    return folder / NOTES / f"{name}.json"
