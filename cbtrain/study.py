"""The whole study, stage by stage: read, split, base model, fine-tune, simulate, score, report.

The stages leave everything that later ones need in the run folder, so the halves (``train``, ``evaluate``) can be run
apart and an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from cbtrain.base_model import make_base_model, sessions_of
from cbtrain.config import StudyConfig, dump_config
from cbtrain.environment import describe_environment
from cbtrain.errors import UserError
from cbtrain.eval.speakers import patient_system
from cbtrain.files import write_atomic
from cbtrain.generation.local_model import pick_device
from cbtrain.model.adapters.lora import inject
from cbtrain.model.adapters.peft_format import save_adapter
from cbtrain.model.weights import DTYPES, load_decoder, resolve_model
from cbtrain.tokens.chat import ChatRenderer, Document, check_template, dialogue
from cbtrain.tokens.dataset import select_documents
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training.config import TrainingConfig
from cbtrain.training.loop import train
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import Split, split
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.types import Role, Session

STATE = "study.json"
"""What the training half tells the evaluation half."""


@dataclass(frozen=True, slots=True)
class Material:
    """The cleaned corpus, split by patient, and what the report says about it."""

    split: Split
    facts: dict[str, Any]

    def profiles(self) -> dict[str, Profile | None]:
        courses = (*self.split.train, *self.split.validation, *self.split.test)
        return {course.id: course.profile for course in courses}


def new_run_folder(name: str) -> Path:
    """``runs/NAME-DATE-TIME``, not yet made."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def gather(config: StudyConfig, console: Console) -> Material:
    """Read, count, clean and split the corpus. Raises UserError where one of these cannot be done."""
    with console.status("Reading the corpus"):
        corpus = read(config.corpus.path, config.corpus.format)
        counts = stats(corpus)
        cleaned, cleaning = clean(corpus, config.corpus.cleaning)
    parts = split(cleaned, config.split)
    facts = {
        "path": corpus.source,
        "format": corpus.format,
        **{key: counts[key] for key in ("courses", "sessions", "therapist_turns", "words")},
        "cleaning": cleaning.as_dict(),
        "split": {
            "train": [course.id for course in parts.train],
            "validation": [course.id for course in parts.validation],
            "test": [course.id for course in parts.test],
        },
    }
    say(console, f"{counts['courses']} patients, {counts['sessions']} sessions, {counts['words']:,} words")
    say(
        console,
        f"split by patient: {len(parts.train)} train, {len(parts.validation)} validation, {len(parts.test)} test",
    )
    return Material(parts, facts)


def train_study(config: StudyConfig, folder: Path, console: Console) -> None:
    """Read, split, make or take a base model, train both adapters; the state goes to ``folder/study.json``."""
    started = time.perf_counter()
    prepare_process(config)
    leads = _rank() == 0
    heading(console, "1/7 and 2/7", "Read the corpus and split it by patient")
    material = gather(config, console)
    results = []
    heading(console, "3/7", "Base model")
    if config.model.path is None:
        model = folder / "base"
        results.append(make_base_model(material.split, config, model, folder / "training" / "base", console).as_dict())
    else:
        model = resolve_model(config.model.path)
    say(console, f"base model: {model}")
    heading(console, "4/7", "Fine-tune a therapist, and a patient with the mask on the other side")
    roles: tuple[Role, ...] = ("therapist", "patient")
    results += [train_adapter(role, model, material, config, folder, console) for role in roles]
    if leads:
        base = os.path.relpath(model, folder) if config.model.path is None else str(model)
        seconds = time.perf_counter() - started
        state = {"model": base, "corpus": material.facts, "training": results, "seconds": seconds}
        write_atomic(folder / STATE, json.dumps(state, indent=2) + "\n")
        write_atomic(folder / "config.yaml", dump_config(config))
        write_atomic(folder / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")


def train_adapter(
    name: Role, model: Path, material: Material, config: StudyConfig, folder: Path, console: Console
) -> dict[str, Any]:
    """Train the LoRA adapter of one speaker and save it to ``folder/NAME``; returns the report's facts."""
    settings: TrainingConfig = getattr(config, name)
    if settings.method != "lora":
        raise UserError(f"{name}.method is 'full'", where="config", fix="Adapters are trained with method 'lora'.")
    renderer = ChatRenderer(load_tokenizer(model))
    check_template(renderer)
    device = pick_device(config.model.device)
    decoder = load_decoder(str(model), dtype=DTYPES[config.model.dtype], device=device)
    limit = decoder.architecture.max_positions
    profiles = material.profiles()

    def render(session: Session) -> Document:
        return render_session(renderer, session, name, config, profiles[session.course], limit)

    chosen = select_documents(sessions_of(material.split.train), render, settings.token_budget, settings.seed)
    unseen = select_documents(sessions_of(material.split.validation), render, settings.validation_tokens, settings.seed)
    inject(decoder, settings.lora, seed=settings.seed)
    metrics = folder / "training" / name
    result = train(name, decoder, chosen.documents, unseen.documents, settings, metrics, console)
    result.share_of_corpus = chosen.share * min(1.0, result.tokens / chosen.tokens)
    if _rank() == 0:
        base = str(model) if config.model.path is None else str(config.model.path)
        facts = {"speaker": name, "training": result.as_dict(), "therapist_system": config.tokens.therapist_system}
        save_adapter(decoder, folder / name, settings.lora, base=base, facts=facts)
    before, after = result.validation_before, result.validation_best
    say(console, f"{name}: validation loss {before:.3f} before, {after:.3f} at its best after {result.tokens:,} tokens")
    return result.as_dict()


def render_session(
    renderer: ChatRenderer, session: Session, speaker: Role, config: StudyConfig, profile: Profile | None, limit: int
) -> Document:
    """A session as the document that teaches ``speaker``; a UserError names one that exceeds the model's positions."""
    system = config.tokens.therapist_system if speaker == "therapist" else patient_system(profile)
    document = renderer.document(session.id, dialogue(session.turns, speaker, system))
    if len(document) > limit:
        problem = f"{len(document)} tokens, but the model has {limit} positions"
        raise UserError(problem, where=session.where or session.id, fix="Choose a model with a longer context.")
    return document


def prepare_process(config: StudyConfig) -> None:
    """Threads, and the process group where ``torchrun`` started several ranks."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def heading(console: Console, stage: str, text: str) -> None:
    console.print(f"\n[bold]{stage}  {text}[/]", highlight=False)


def say(console: Console, text: str) -> None:
    console.print(f"     {text}", highlight=False, markup=False, soft_wrap=True)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
