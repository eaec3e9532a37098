"""The whole study, stage by stage: read, split, base model, fine-tune, simulate, score, report.

Each stage writes everything that later ones need to the run folder, so the halves (``train``, ``evaluate``) can be run
separately, and an interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, say
from cbtrain.environment import pick_device
from cbtrain.errors import UserError, system_problem
from cbtrain.files import holds, seal, share_with, write_atomic
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.datasets import SpeakerDataset, check_held_out_patients
from cbtrain.study.finetune import train_adapter
from cbtrain.study.run_files import CONFIG, STATE
from cbtrain.study.run_folder import (
    LOCK,
    anchored,
    begin,
    check_same_study,
    finished_stage,
    hold_folder,
    remove_fruitless,
)
from cbtrain.study.same_study import require_same, require_same_start
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.study.tiny_base import make_base_model
from cbtrain.study.trained_run import WEIGHTS, weights_digest
from cbtrain.study.untrained_texts import check_general_text
from cbtrain.tokens.tokenize import tokenizer_digest
from cbtrain.training import distributed
from cbtrain.training.packs import check_packs_per_step
from cbtrain.training.telemetry.loggers import check_loggers
from cbtrain.transcripts.types import Role


def train_study(config: StudyConfig, folder: Path, console: Console, options: Mapping[str, Any] | None = None) -> Path:
    """Read and split the corpus, make or load a base model, train the adapters. Return the run folder, the same on
    every rank.

    A run that was interrupted in ``folder`` continues. Input is checked before the first file is written. If a run
    fails before its first checkpoint (a full disk, say), the files that it has written are removed. Raises UserError on
    input that cannot be used, on ranks that were not started with the same settings and ``options`` (of the command
    line) or do not read the same files, and Stopped if a signal ends the run.
    """
    prepare_process(config, options)
    folder = distributed.agreed(folder)
    fresh = distributed.agreed(not (folder / CONFIG).exists())
    if not fresh:
        check_same_study(config, folder)
        hold_folder(folder)
    try:
        return _train_study(config, folder, console)
    except Exception as error:
        ended = isinstance(error, (UserError, OSError)) or system_problem(error)
        if ended and fresh and holds(folder / LOCK):
            remove_fruitless(folder)
        raise


def _train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    started = time.perf_counter()
    check_general_text(config)
    heading(console, "1/7", "Read the corpus")
    corpus = load_corpus(config, console)
    heading(console, "2/7", "Split it by patient")
    say(console, ", ".join(f"{len(ids)} {side}" for side, ids in corpus.summary["split"].items()))
    heading(console, "3/7", "Base model")
    model = StudyModel.of(config, "real", console, corpus.split)
    specs = {role: StageSpec.of(config, role, model) for role in config.training.speakers}
    check_loggers(config.training)
    for spec in specs.values():
        spec.check()
    datasets = {role: spec.dataset(corpus, console) for role, spec in specs.items()}
    check_held_out_patients(corpus, datasets, model.positions, config, console)
    _require_same_files(corpus, model, datasets)
    for role, spec in specs.items():
        spec.require_limit(datasets[role].train.documents)
    begin(config, folder, corpus.summary["fingerprint"])
    results: list[dict[str, Any]] = []
    if model.folder is None:
        spec = StageSpec.of(config, "base", model)
        finished = finished_stage(folder / "training" / "base", folder / "base", console)
        results.append(finished or make_base_model(spec, corpus.split, folder, console).as_dict())
        model = replace(model, folder=folder / "base")
    say(console, f"base model: {model.folder}")
    heading(console, "4/7", f"Fine-tune: {', '.join(specs)}")
    for role, spec in specs.items():
        finished = finished_stage(folder / "training" / role, folder / role, console)
        spec, base = replace(spec, model=model), anchored(config).model.path
        results.append(finished or train_adapter(spec, datasets[role], folder, console, base=base))
    if distributed.rank() == 0:
        seconds = sum(stage["seconds"] for stage in results)  # of every part of an interrupted run
        finish_run(config, folder, corpus, results, max(seconds, time.perf_counter() - started))
    distributed.leave()
    return folder


def finish_run(
    config: StudyConfig, folder: Path, corpus: StudyCorpus, results: list[dict[str, Any]], seconds: float
) -> None:
    """Write what training passes on to the evaluation: the ``results`` of its stages, and digests of the weights that
    they left in ``folder``."""
    base = anchored(config).model.path or "base"
    names = ("base", *config.training.speakers)
    weights = {name: weights_digest(folder / name) for name in names if (folder / name).is_dir()}
    state = {"model": base, "corpus": corpus.summary, "training": results, "seconds": seconds, WEIGHTS: weights}
    write_atomic(folder / STATE, json.dumps(seal(state), indent=2) + "\n")


def _require_same_files(corpus: StudyCorpus, model: StudyModel, datasets: Mapping[Role, SpeakerDataset]) -> None:
    """Raise UserError, on every rank, if one has read another corpus or model, or made other documents of them."""
    fingerprints = {
        "fingerprint of the corpus": corpus.summary["fingerprint"],
        "split of the corpus": corpus.summary["split"],
        "architecture": json.loads(json.dumps(asdict(model.architecture), default=str)) if model.architecture else None,
        "tokenizer": tokenizer_digest(model.tokenizer),
        **{
            f"documents of the {role}": [dataset.train.describe(), dataset.validation.describe()]
            for role, dataset in datasets.items()
        },
    }
    require_same(fingerprints, "Give every node the same files.")


def prepare_process(config: StudyConfig, options: Mapping[str, Any] | None = None) -> None:
    """Set who may read what is written, threads and determinism; join the process group if ``torchrun`` started ranks.

    Raises UserError on a device that is not here, on ranks that differ in settings, in ``options`` of the command line
    or in versions, and on settings of a step that cannot feed the ranks.
    """
    set_up(config)
    distributed.join(config.training.timeout_minutes)
    require_same_start(config, options or {})
    if config.base.method != "full" and config.model.path is None:
        raise UserError(
            "base.method is 'lora'",
            where="config",
            hint="A new base model is trained with method 'full': set base.method=full.",
        )
    for name in ("base", *config.training.speakers):
        check_packs_per_step(getattr(config, name), distributed.launched(), name)


def set_up(config: StudyConfig) -> None:
    """Set who may read what is written, threads and determinism. Raises UserError on a device that is not here."""
    pick_device(config.model.device)
    share_with(config.sharing)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
