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
from datetime import datetime, timezone
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

from cbtrain.base_model import make_base_model, make_tokenizer, tiny_architecture
from cbtrain.config import StudyConfig, dump_config
from cbtrain.environment import describe_environment
from cbtrain.errors import UserError
from cbtrain.files import write_atomic
from cbtrain.fine_tuning import check_adapters, train_adapter
from cbtrain.generation.local_model import pick_device
from cbtrain.lessons import check_held_out, choose_lessons
from cbtrain.material import gather
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.hub import resolve_model
from cbtrain.telling import heading, say
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training.loop import check_packs_per_step
from cbtrain.transcripts.reading import SAMPLE
from cbtrain.transcripts.types import Role

STATE = "study.json"
"""What the training half tells the evaluation half."""


def new_run_folder(name: str) -> Path:
    """``runs/NAME-DATE-TIME``, not yet made."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    """Read, split, make or take a base model, train both adapters; returns the run folder, the same on every rank.

    Whatever can be wrong with the input is found before the first file is written; where the disk fills up or another
    such thing ends the run, what it has written is removed.
    """
    prepare_process(config)
    folder = _agreed(folder)
    try:
        return _train_study(config, folder, console)
    except Exception as error:
        # safetensors and tokenizers write from Rust, with exceptions of their own
        if isinstance(error, (UserError, OSError)) or "No space left" in str(error):
            for path in folder.iterdir() if folder.exists() and _rank() == 0 else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _train_study(config: StudyConfig, folder: Path, console: Console) -> Path:
    started = time.perf_counter()
    heading(console, "1/7", "Read the corpus")
    material = gather(config, console)
    heading(console, "2/7", "Split it by patient")
    say(console, ", ".join(f"{len(ids)} {side}" for side, ids in material.facts["split"].items()))
    heading(console, "3/7", "Base model")
    results = []
    roles: tuple[Role, ...] = ("therapist", "patient")
    if config.model.path is None:
        with console.status("Training a tokenizer"):
            tokenizer = make_tokenizer(material.split, config)
        check_adapters(config, tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id))
        positions = config.tiny.max_positions
        lessons = {r: choose_lessons(r, material, tokenizer, positions, config, console) for r in roles}
        check_held_out(material, lessons, positions, config)
        model = folder / "base"
        result = make_base_model(material.split, tokenizer, config, model, folder / "training" / "base", console)
        results.append(result.as_dict())
    else:
        model = resolve_model(config.model.path)
        architecture = read_architecture(model)
        check_adapters(config, architecture)
        positions = architecture.context
        tokenizer = load_tokenizer(model)
        lessons = {role: choose_lessons(role, material, tokenizer, positions, config, console) for role in roles}
        check_held_out(material, lessons, positions, config)
    say(console, f"base model: {model}")
    heading(console, "4/7", "Fine-tune a therapist, and a patient with the mask on the other side")
    results += [
        train_adapter(role, model, lessons[role], config, folder, console, base=_anchored(config).model.path)
        for role in roles
    ]
    if _rank() == 0:
        anchored = _anchored(config)
        base = anchored.model.path or os.path.relpath(model, folder)
        seconds = time.perf_counter() - started
        state = {"model": base, "corpus": material.facts, "training": results, "seconds": seconds}
        write_atomic(folder / "config.yaml", dump_config(anchored))
        write_atomic(folder / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")
        write_atomic(folder / STATE, json.dumps(state, indent=2) + "\n")
    if dist.is_available() and dist.is_initialized():
        dist.barrier()  # nobody leaves before everything is written
        dist.destroy_process_group()
    return folder


def prepare_process(config: StudyConfig) -> None:
    """Threads, and the process group where ``torchrun`` started several ranks. Raises UserError on a wrong device."""
    pick_device(config.model.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if config.base.method != "full" and config.model.path is None:
        raise UserError("base.method is 'lora'", where="config", fix="A base model is made with method 'full'.")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    for name in ("base", "therapist", "patient"):
        check_packs_per_step(getattr(config, name), world, name)


def _agreed(folder: Path) -> Path:
    """The leading rank's choice: a name made from the clock can differ between ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return folder
    box = [folder]
    dist.broadcast_object_list(box)
    return box[0]


def _anchored(config: StudyConfig) -> StudyConfig:
    """``config`` with absolute paths, so that the run folder can be evaluated from anywhere."""
    anchored = config.model_copy(deep=True)
    for part in (anchored.corpus, anchored.model):
        if part.path and part.path != SAMPLE and Path(part.path).expanduser().exists():
            part.path = str(Path(part.path).expanduser().resolve())
    return anchored


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
