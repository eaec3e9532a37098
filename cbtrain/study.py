"""The whole study, stage by stage: read, split, base model, fine-tune, simulate, score, report.

The stages leave everything that later ones need in the run folder, so the halves (``train``, ``evaluate``) can be run
apart and an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from cbtrain.base_model import make_base_model, make_tokenizer, tiny_architecture
from cbtrain.config import StudyConfig, dump_config
from cbtrain.environment import describe_environment
from cbtrain.errors import UserError
from cbtrain.files import hold, holds, write_atomic
from cbtrain.fine_tuning import SUMMARY, check_adapters, train_adapter
from cbtrain.generation.local_model import pick_device
from cbtrain.lessons import check_held_out, choose_lessons
from cbtrain.material import gather
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.hub import resolve_model
from cbtrain.telling import heading, say
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training import ranks
from cbtrain.training.checkpoints.resuming import differences
from cbtrain.training.loop import SKIPPED
from cbtrain.training.packs import check_packs_per_step
from cbtrain.transcripts.reading import SAMPLE

STATE = "study.json"
"""What the training half tells the evaluation half."""

CONFIG = "config.yaml"

LOCK = Path("training") / ".lock"
"""Held by the process that trains: torchrun's ranks outlive it where it is killed."""

FREE = ("training.", "threads", "evaluation.", "tokens.cache", "model.device")
"""Settings that an interrupted run may go on with changed: they decide where and how it runs, not what is learnt."""


def new_run_folder(name: str) -> Path:
    """``runs/NAME-DATE-TIME``, not yet made."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    """Read, split, make or take a base model, train both adapters; returns the run folder, the same on every rank.

    A run that was interrupted in ``folder`` goes on where it stood. Whatever can be wrong with the input is found
    before the first file is written; where the disk fills up or another such thing ends a run that has no checkpoint
    yet, what it has written is removed. Raises Stopped where a signal ends it.
    """
    prepare_process(config)
    folder = ranks.agreed(folder)
    fresh = not (folder / CONFIG).exists()
    if not fresh:
        check_same_study(config, folder)
        _hold(folder)
    try:
        return _train_study(config, folder, console)
    except Exception as error:
        # safetensors and tokenizers write from Rust, with exceptions of their own
        ended = isinstance(error, (UserError, OSError)) or "No space left" in str(error)
        if ended and fresh and holds(folder / LOCK):
            _remove_fruitless(folder)
        raise


def _remove_fruitless(folder: Path) -> None:
    """Remove what a run has written that has not come to a checkpoint, nor to a list of what went wrong."""
    if any(folder.glob("training/*/checkpoints/step-*")) or any(folder.glob(f"training/*/{SKIPPED}")):
        return
    for name in ("training", "base", "therapist", "patient"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CONFIG, "environment.json"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _hold(folder: Path) -> None:
    """Keep ``folder`` for this run. Raises UserError where another one is at it."""
    free = ranks.agreed(hold(folder / LOCK) if ranks.rank() == 0 else True)
    if not free:
        fix = "Wait for it, end it, or choose another --out."
        raise UserError("another process is training in this folder", where=folder, fix=fix)


def check_same_study(config: StudyConfig, folder: Path) -> None:
    """Raise UserError where the run in ``folder`` is finished, is not to go on, or was begun with other settings."""
    if (folder / STATE).exists():
        fix = f"`cbtrain evaluate --run {folder}` goes on from here; choose another --out to train again."
        raise UserError("training has come to its end here", where=folder, fix=fix)
    if config.training.resume == "never":
        fix = "Choose another --out, or leave out training.resume=never to go on."
        raise UserError("an interrupted run is in this folder", where=folder, fix=fix)
    before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    for key, one, other in differences(before, yaml.safe_load(dump_config(_anchored(config)))):
        if not key.startswith(FREE):
            fix = f"Set {key}={one} to go on, or choose another --out."
            raise UserError(f"{key} is {other}, the interrupted run has {one}", where=folder, fix=fix)


def _train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    started = time.perf_counter()
    heading(console, "1/7", "Read the corpus")
    material = gather(config, console)
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
    lessons = {role: choose_lessons(role, material, tokenizer, positions, config, console) for role in roles}
    check_held_out(material, lessons, positions, config)
    _begin(config, folder, material.facts["fingerprint"])
    if config.model.path is None:
        place = folder / "training" / "base"
        done = _finished(place, model, console)
        results.append(done or make_base_model(material.split, tokenizer, config, model, place, console).as_dict())
    say(console, f"base model: {model}")
    heading(console, "4/7", f"Fine-tune: {', '.join(roles)}")
    for role in roles:
        done = _finished(folder / "training" / role, folder / role, console)
        base = _anchored(config).model.path
        results.append(done or train_adapter(role, model, lessons[role], config, folder, console, base=base))
    if ranks.rank() == 0:
        base = _anchored(config).model.path or os.path.relpath(model, folder)
        seconds = sum(stage["seconds"] for stage in results)  # of every part of an interrupted run
        seconds = max(seconds, time.perf_counter() - started)
        state = {"model": base, "corpus": material.facts, "training": results, "seconds": seconds}
        write_atomic(folder / STATE, json.dumps(state, indent=2) + "\n")
    ranks.leave()
    return folder


def _begin(config: StudyConfig, folder: Path, corpus: str) -> None:
    """Write down what is about to be run, so that it can be run again or go on. Raises UserError where a run goes on
    whose transcripts, with the fingerprint ``corpus``, were others."""
    _hold(folder)
    known = folder / "training" / "corpus.json"
    if known.exists() and json.loads(known.read_text(encoding="utf-8"))["fingerprint"] != corpus:
        fix = "Bring the transcripts back to go on, or choose another --out."
        raise UserError("the transcripts have changed since this run began", where=folder, fix=fix)
    if ranks.rank() == 0:
        write_atomic(known, json.dumps({"fingerprint": corpus}) + "\n")
        write_atomic(folder / CONFIG, dump_config(_anchored(config)))
        _write_environment(folder / "environment.json")
    ranks.barrier()


def _write_environment(path: Path) -> None:
    """Where the run began, and under ``continued`` the other environments in which it went on."""
    here = describe_environment() | {"ranks": ranks.world()}
    facts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else here
    known = [facts, *facts.get("continued", [])]
    if all({key: one.get(key) for key in here} != here for one in known):
        facts["continued"] = [*known[1:], here]
    write_atomic(path, json.dumps(facts, indent=2) + "\n")


def _finished(place: Path, product: Path, console: Console) -> dict[str, Any] | None:
    """What a stage came to that an earlier part of this run has finished; None where there is none."""
    found: dict[str, Any] | None = None
    if ranks.rank() == 0 and (place / SUMMARY).exists() and product.is_dir():
        found = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
    found = ranks.agreed(found)
    if found is not None:
        say(console, f"{place.name}: finished before, kept")
    return found


def prepare_process(config: StudyConfig) -> None:
    """Threads, and the process group where ``torchrun`` started several ranks. Raises UserError on a wrong device."""
    pick_device(config.model.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    ranks.join(config.training.timeout_minutes)
    if config.base.method != "full" and config.model.path is None:
        raise UserError("base.method is 'lora'", where="config", fix="A base model is made with method 'full'.")
    for name in ("base", *config.training.speakers):
        check_packs_per_step(getattr(config, name), ranks.launched(), name)


def _anchored(config: StudyConfig) -> StudyConfig:
    """``config`` with absolute paths, so that the run folder can be evaluated from anywhere."""
    anchored = config.model_copy(deep=True)
    for part in (anchored.corpus, anchored.model):
        if part.path and part.path != SAMPLE and Path(part.path).expanduser().exists():
            part.path = str(Path(part.path).expanduser().resolve())
    return anchored
