"""The whole study, stage by stage: read, split, base model, fine-tune, simulate, score, report.

The stages leave everything that later ones need in the run folder, so the halves (``train``, ``evaluate``) can be run
apart and an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, say
from cbtrain.errors import UserError
from cbtrain.files import holds, share_with, write_atomic
from cbtrain.generation.local_model import pick_device
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.hub import resolve_model
from cbtrain.study.corpus import load_corpus
from cbtrain.study.datasets import build_dataset, check_held_out_patients
from cbtrain.study.finetune import check_adapters, train_adapter
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
from cbtrain.study.tiny_base import make_base_model, make_tokenizer, tiny_architecture
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training import distributed
from cbtrain.training.packs import check_packs_per_step


def train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    """Read, split, make or take a base model, train both adapters; returns the run folder, the same on every rank.

    A run that was interrupted in ``folder`` goes on where it stood. Whatever can be wrong with the input is found
    before the first file is written; where the disk fills up or another such thing ends a run that has no checkpoint
    yet, what it has written is removed. Raises Stopped where a signal ends it.
    """
    prepare_process(config)
    folder = distributed.agreed(folder)
    fresh = not (folder / CONFIG).exists()
    if not fresh:
        check_same_study(config, folder)
        hold_folder(folder)
    try:
        return _train_study(config, folder, console)
    except Exception as error:
        # safetensors and tokenizers write from Rust, with exceptions of their own
        ended = isinstance(error, (UserError, OSError)) or "No space left" in str(error)
        if ended and fresh and holds(folder / LOCK):
            remove_fruitless(folder)
        raise


def _train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    started = time.perf_counter()
    heading(console, "1/7", "Read the corpus")
    material = load_corpus(config, console)
    heading(console, "2/7", "Split it by patient")
    say(console, ", ".join(f"{len(ids)} {side}" for side, ids in material.facts["split"].items()))
    heading(console, "3/7", "Base model")
    results: list[dict[str, Any]] = []
    roles = config.training.speakers
    if config.model.path is None:
        with console.status("Training a tokenizer"):
            tokenizer = make_tokenizer(material.split, config)
        check_adapters(config, tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id))
        model, positions = folder / "base", config.tiny.max_positions
    else:
        model = resolve_model(config.model.path)
        architecture = read_architecture(model)
        check_adapters(config, architecture)
        positions, tokenizer = architecture.context, load_tokenizer(model)
    lessons = {role: build_dataset(role, material, tokenizer, positions, config, console) for role in roles}
    check_held_out_patients(material, lessons, positions, config)
    begin(config, folder, material.facts["fingerprint"])
    if config.model.path is None:
        place = folder / "training" / "base"
        done = finished_stage(place, model, console)
        results.append(done or make_base_model(material.split, tokenizer, config, model, place, console).as_dict())
    say(console, f"base model: {model}")
    heading(console, "4/7", f"Fine-tune: {', '.join(roles)}")
    for role in roles:
        done = finished_stage(folder / "training" / role, folder / role, console)
        base = anchored(config).model.path
        results.append(done or train_adapter(role, model, lessons[role], config, folder, console, base=base))
    if distributed.rank() == 0:
        base = anchored(config).model.path or os.path.relpath(model, folder)
        seconds = sum(stage["seconds"] for stage in results)  # of every part of an interrupted run
        seconds = max(seconds, time.perf_counter() - started)
        state = {"model": base, "corpus": material.facts, "training": results, "seconds": seconds}
        write_atomic(folder / STATE, json.dumps(state, indent=2) + "\n")
    distributed.leave()
    return folder


def prepare_process(config: StudyConfig) -> None:
    """Set who may read what is written, the threads, and the process group where ``torchrun`` started several ranks.

    Raises UserError on a wrong device.
    """
    pick_device(config.model.device)
    share_with(config.sharing)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    distributed.join(config.training.timeout_minutes)
    if config.base.method != "full" and config.model.path is None:
        raise UserError("base.method is 'lora'", where="config", hint="A base model is made with method 'full'.")
    for name in ("base", *config.training.speakers):
        check_packs_per_step(getattr(config, name), distributed.launched(), name)
