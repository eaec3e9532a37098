"""``cbtrain evaluate``: any therapists with simulated patients, or the second half of a training run."""

from __future__ import annotations

import argparse
import asyncio
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_optional_word,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
)
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig

RUNS = Path("runs")
MORE = (
    "STUDY.yaml names the therapists (evaluation.therapists) and the patients (corpus.path): no training is needed. "
    "The same command continues a study that was interrupted, or extends it. Without STUDY.yaml, base and tuned "
    f"therapist of a training run are evaluated. {SETTINGS}"
)


def add(commands: Commands) -> None:
    evaluate = add_command(
        commands, "evaluate", _evaluate, "simulate sessions with therapists, score them, report", MORE
    )
    add_optional_word(evaluate, "study", "a study file, or the name of a shipped config; another way to write --config")
    add_study_arguments(evaluate)
    evaluate.add_argument("--out", type=Path, help="folder of a study that names therapists (default: runs/STUDY)")
    evaluate.add_argument("--run", type=Path, dest="run_folder", help="a trained run folder (default: the newest)")
    evaluate.add_argument(
        "--hold-again",
        action="store_true",
        help="hold sessions again that were held under other settings; the old ones stay in the journal",
    )
    evaluate.add_argument(
        "--dry-run",
        action="store_true",
        help="print calls, tokens, dollars and hours that are left, and what the design can detect; ask nothing",
    )
    evaluate.add_argument(
        "--effect", type=float, metavar="POINTS", help="with --dry-run: difference of totals to detect"
    )
    add_upload_argument(evaluate, "patients' profiles and simulated sessions")


def _evaluate(parsed: argparse.Namespace) -> None:
    if parsed.study and parsed.config and parsed.study != parsed.config:
        raise UserError(f"{parsed.study} and {parsed.config} are both named", where="evaluate", hint="Name one study.")
    if parsed.effect is not None and not parsed.dry_run:
        raise UserError("it plans, and nothing here runs by it", where="--effect", hint="Say --dry-run, too.")
    if parsed.effect is not None and not 0 < parsed.effect < math.inf:
        raise UserError(f"{parsed.effect:g} is no difference to detect", where="--effect", hint="Give points above 0.")
    parsed.config = parsed.config or parsed.study
    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.evaluate import evaluate_study, plan_study

    console = leading_console()
    config = load_config(parsed.config, parsed.settings)
    if config.evaluation.therapists:
        if parsed.run_folder:
            hint = "Name its folder with --out."
            raise UserError("this study names its own therapists", where="--run", hint=hint)
        option, folder = "--out", parsed.out or RUNS / Path(parsed.config or "study").stem
        _refuse_another_run(folder, set(config.evaluation.therapists))
    else:
        option, folder, config = _begun(parsed)
    if parsed.dry_run:
        plan_study(config, folder, console, allow_upload=parsed.allow_upload, effect=parsed.effect)
        return
    with continued_by(parsed.command_line, option, folder):
        study = evaluate_study(config, folder, console, allow_upload=parsed.allow_upload, hold_again=parsed.hold_again)
        asyncio.run(study)


def _refuse_another_run(folder: Path, therapists: set[str]) -> None:
    """Raise UserError if ``folder`` holds a training run, or a study of other therapists."""
    from cbtrain.config.loading import load_config
    from cbtrain.study.run_files import CONFIG, STATE

    hint = "Name another folder with --out."
    if (folder / STATE).exists() or (folder / "training").exists():
        raise UserError("a training run is in this folder", where=folder, hint=hint)
    if (folder / CONFIG).exists():
        others = set(load_config(None, (), folder / CONFIG).evaluation.therapists)
        if not others & therapists:
            named = ", ".join(sorted(others)[:6]) or "none"
            raise UserError(f"another study is in this folder (its therapists: {named})", where=folder, hint=hint)


def _begun(parsed: argparse.Namespace) -> tuple[str, Path, StudyConfig]:
    """Return the folder of a run that was trained, or of a study that was begun, after the option that names it, and
    its settings, over which those of the command lie: an evaluation fits what was trained."""
    from cbtrain.config.loading import load_config
    from cbtrain.console import plain
    from cbtrain.study.run_files import CONFIG, STATE
    from cbtrain.study.run_folder import newest_trained_run, trained_config

    folder = parsed.out or parsed.run_folder
    if folder is not None and not (folder / STATE).exists() and (folder / CONFIG).exists():
        config = load_config(parsed.config, parsed.settings, folder / CONFIG)
        if config.evaluation.therapists:
            _refuse_another_protocol(config, folder / CONFIG)
            return "--out", folder, config
    if parsed.out is not None:
        hint = "Name them in a study file (evaluation.therapists), or a trained run with --run."
        raise UserError("a study needs therapists", where=parsed.out, hint=hint)
    folder = folder or newest_trained_run(RUNS)
    if folder is None:
        named = ["--config", parsed.config] if parsed.config else []
        command = shlex.join(["cbtrain", "train", *named, *parsed.settings])
        hint = (
            f"Train one first (`{command}`), name the folder of one with --run, or name therapists in a study file "
            "(docs/evaluation.md)."
        )
        raise UserError("no trained run here, and evaluate trains none", where=f"{RUNS}/", hint=hint)
    if parsed.run_folder is None:
        plain(leading_console(), f"evaluating {folder}, the run trained last")
    config = load_config(parsed.config, parsed.settings, trained_config(folder))
    _refuse_another_protocol(config, folder / CONFIG)
    return "--run", folder, config


def _refuse_another_protocol(config: StudyConfig, saved: Path) -> None:
    """Raise UserError if the protocol was changed over settings that were saved: these name every value, so that the
    protocol's own would not apply."""
    from cbtrain.config.loading import load_config

    before = load_config(None, (), saved).evaluation.protocol
    if config.evaluation.protocol != before:
        hint = "Set it in a study file, and evaluate that into a folder of its own."
        raise UserError(f"the run was set up with {before}", where="evaluation.protocol", hint=hint)
