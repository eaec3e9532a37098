"""The base that a sweep makes itself where no model is named: one, in the folder of each run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cbtrain.console import say
from cbtrain.files import atomic_folder, read_sealed
from cbtrain.study.run_files import SUMMARY
from cbtrain.study.run_folder import finished_stage
from cbtrain.study.stages import StageName, StageSpec
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.study.tiny_base import make_base_model

BASE: StageName = "base"


def share_base(runs: Sequence[PreparedRun], console: Console) -> None:
    """If no model is named, train the base of the first of ``runs`` and copy it to the others, as each would have made
    it; a run that has one keeps it."""
    first = runs[0]
    if first.config.model.path is not None or all(map(has_base, runs)):
        return
    stage_folder, product = first.folder / "training" / BASE, first.folder / BASE
    if finished_stage(stage_folder, product, console) is None:
        spec = StageSpec.of(first.config, BASE, first.spec.model)
        make_base_model(spec, first.corpus.split, first.folder, console)
    for run in runs[1:]:
        if has_base(run):
            continue
        for source in (product, stage_folder):  # the summary last: with it the stage is finished
            with atomic_folder(run.folder / source.relative_to(first.folder)) as temporary:
                shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    say(console, f"base model: {product}" + (", copied to the other runs" if len(runs) > 1 else ""))


def with_base(run: PreparedRun) -> PreparedRun:
    """Return ``run`` over the base that :func:`share_base` has made; as it is if a model is named."""
    return run if run.config.model.path is not None else run.with_base(run.folder / BASE)


def has_base(run: PreparedRun) -> bool:
    """Return whether the folder of ``run`` has its base, if it needs one."""
    stage, product = run.folder / "training" / BASE, run.folder / BASE
    return run.config.model.path is not None or ((stage / SUMMARY).exists() and product.is_dir())


def base_results(run: PreparedRun) -> list[dict[str, Any]]:
    """Return the summary of the base that the sweep has made for ``run``, alone in a list; an empty one if a model is
    named."""
    if run.config.model.path is not None:
        return []
    return [read_sealed(run.folder / "training" / BASE / SUMMARY, "Remove the run's folder to train it again.")]
