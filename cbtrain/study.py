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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbtrain.base_model import make_base_model, make_tokenizer
from cbtrain.config import StudyConfig, dump_config
from cbtrain.environment import describe_environment
from cbtrain.errors import UserError
from cbtrain.eval.speakers import patient_system
from cbtrain.files import write_atomic
from cbtrain.generation.local_model import pick_device
from cbtrain.model.adapters.lora import inject
from cbtrain.model.adapters.peft_format import save_adapter
from cbtrain.model.architecture import read_architecture
from cbtrain.model.decoder import Decoder
from cbtrain.model.untrained import weak_rows
from cbtrain.model.weights import DTYPES, load_decoder, resolve_model
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import Supervise
from cbtrain.tokens.dialogue import dialogue
from cbtrain.tokens.documents import DocumentBuilder, Unit, units_of
from cbtrain.tokens.formats import choose_format, format_files
from cbtrain.tokens.tokenize import Selection, cache_root, tokenize
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training.config import TrainingConfig
from cbtrain.training.loop import check_packs_per_step, train
from cbtrain.transcripts.cleaning import CHANGES, clean, fingerprint
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import SAMPLE, read, speaker_labels
from cbtrain.transcripts.split import SIDES, Split, split
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.types import Corpus, Course, Role

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

    def names(self) -> dict[str, str]:
        """What each course's patient is called."""
        return {course: profile.name if profile else course for course, profile in self.profiles().items()}


def new_run_folder(name: str) -> Path:
    """``runs/NAME-DATE-TIME``, not yet made."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def gather(config: StudyConfig, console: Console) -> Material:
    """Read, count, clean and split the corpus. Raises UserError where one of these cannot be done."""
    settings = config.corpus
    with console.status("Reading the corpus"):
        labels = speaker_labels(settings.therapist_labels, settings.patient_labels)
        corpus = read(settings.path, settings.format, labels=labels, skip_bad=settings.skip_bad)
        counts = stats(corpus)
        cleaned, cleaning = clean(corpus, settings.cleaning)
    if not cleaned.courses:
        fix = "Check the speakers' labels (`cbtrain corpus check`)."
        raise UserError("no session in which both patient and therapist speak", where=settings.path, fix=fix)
    parts = split(cleaned, config.split)
    facts = {
        "path": corpus.source,
        "format": corpus.format,
        **{key: counts[key] for key in ("courses", "sessions", "therapist_turns", "words")},
        "skipped": list(corpus.skipped),
        "cleaning": {CHANGES[kind]: count for kind, count in cleaning.as_dict().items()},
        "fingerprint": _fingerprint(cleaned),
        "split": parts.ids(),
        "together": list(parts.together),
        "namesakes": _namesakes(parts),
    }
    say(console, f"{counts['courses']} courses, {counts['sessions']} sessions, {counts['words']:,} words")
    if corpus.skipped:
        say(console, f"{len(corpus.skipped)} malformed sessions left out, the first: {corpus.skipped[0]}")
    changed = [f"{count['times']} {CHANGES[kind]}" for kind, count in cleaning.as_dict().items() if count["times"]]
    say(console, f"cleaning: {'; '.join(changed) or 'nothing to mend'}")
    return Material(parts, facts)


def _namesakes(parts: Split) -> list[str]:
    """Patients of different sides who have one name: the same person twice, or chance? A reader must judge."""
    places: dict[str, dict[str, list[str]]] = {}
    for side in SIDES:
        for course in getattr(parts, side):
            if course.profile and course.profile.name != course.id:
                places.setdefault(course.profile.name, {}).setdefault(side, []).append(course.id)
    return [
        f"{name}: " + ", ".join(f"{', '.join(ids)} in {side}" for side, ids in found.items())
        for name, found in sorted(places.items())
        if len(found) > 1
    ]


def _fingerprint(corpus: Corpus) -> str:
    """Of everything that training and evaluation take from the cleaned corpus."""
    digest = blake2b(digest_size=16)
    for course in corpus.courses:
        digest.update((course.profile.model_dump_json() if course.profile else course.id).encode())
        for session in course.sessions:
            digest.update(session.id.encode() + fingerprint(session.turns))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Lessons:
    """What one speaker's adapter is trained on, what it is validated on, and how both are laid out."""

    renderer: ChatRenderer
    chosen: Selection
    unseen: Selection


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
        positions = config.tiny.max_positions
        lessons = {r: choose_lessons(r, material, tokenizer, positions, config, console) for r in roles}
        check_held_out(material, lessons, positions, config)
        model = folder / "base"
        result = make_base_model(material.split, tokenizer, config, model, folder / "training" / "base", console)
        results.append(result.as_dict())
    else:
        model = resolve_model(config.model.path)
        positions = read_architecture(model).context
        tokenizer = load_tokenizer(model)
        lessons = {role: choose_lessons(role, material, tokenizer, positions, config, console) for role in roles}
        check_held_out(material, lessons, positions, config)
    say(console, f"base model: {model}")
    heading(console, "4/7", "Fine-tune a therapist, and a patient with the mask on the other side")
    results += [train_adapter(role, model, lessons[role], config, folder, console) for role in roles]
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


def choose_lessons(
    speaker: Role, material: Material, tokenizer: Any, positions: int, config: StudyConfig, console: Console
) -> Lessons:
    """Render sessions until the budgets are full. Raises UserError on a template that cannot be used, and on what
    cannot be rendered."""
    settings: TrainingConfig = getattr(config, speaker)
    if settings.method != "lora":
        raise UserError(f"{speaker}.method is 'full'", where="config", fix="Adapters are trained with method 'lora'.")
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer, config.tokens.format, speaker))
    if renderer.format.note:
        say(console, f"{speaker}: chat format {renderer.format.name} ({renderer.format.note})")

    def builder(*, measured: bool) -> DocumentBuilder:
        return make_builder(renderer, speaker, settings, positions, config, measured=measured)

    columns = (TextColumn(f"Tokenizing for the {speaker}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        chosen = tokenize(
            course_units(material.split.train, speaker, config),
            builder(measured=False),
            budget=settings.token_budget,
            seed=settings.seed,
            root=cache_root(config.tokens.cache),
            progress=lambda done, of: progress.update(task, completed=done, total=of),
        )
    if chosen.note:
        say(console, chosen.note)
    unseen = tokenize(
        course_units(material.split.validation, speaker, config),
        builder(measured=True),
        budget=settings.validation_tokens,
        seed=settings.seed,
    )
    return Lessons(renderer, chosen, unseen)


def course_units(courses: Sequence[Course], speaker: Role, config: StudyConfig) -> list[Unit]:
    """What is rendered of ``courses`` for the model that plays ``speaker``, with its system prompts."""
    return [
        unit
        for course in courses
        for unit in units_of(course, config.tokens, system_prompt(speaker, config, course.profile))
    ]


def make_builder(
    renderer: ChatRenderer,
    speaker: Role,
    settings: TrainingConfig,
    positions: int,
    config: StudyConfig,
    *,
    measured: bool,
) -> DocumentBuilder:
    """How one speaker's documents are made. What is ``measured`` only counts every turn of the speaker alike, whatever
    the weights in training, so that losses of different policies can be compared."""
    supervise: Supervise = settings.supervise or speaker
    tokens = config.tokens
    if measured:
        supervise = speaker
        tokens = tokens.model_copy(update={"weights": []})
    return DocumentBuilder(renderer, speaker, supervise, tokens, settings.pack_tokens, positions)


def held_out_lessons(
    material: Material, renderer: ChatRenderer, config: StudyConfig, positions: int
) -> dict[str, Selection]:
    """What perplexity is measured on, by held-out patient. Raises UserError on a session that cannot be rendered."""
    builder = make_builder(renderer, "therapist", config.therapist, positions, config, measured=True)
    return {
        course.id: tokenize(
            units_of(course, config.tokens, system_prompt("therapist", config, None)),
            builder,
            budget=config.evaluation.perplexity_tokens,
            seed=config.seed,
            check=1 if course is material.split.test[0] else 0,
        )
        for course in material.split.test
    }


def system_prompt(speaker: Role, config: StudyConfig, profile: Profile | None) -> str:
    """What the model that plays ``speaker`` is told first, in training and in serving."""
    return config.tokens.therapist_system if speaker == "therapist" else patient_system(profile)


def check_held_out(material: Material, lessons: Mapping[Role, Lessons], positions: int, config: StudyConfig) -> None:
    """Find before training what would stop an evaluation: raises UserError on held-out patients' sessions and profiles
    that cannot be rendered."""
    held_out_lessons(material, lessons["therapist"].renderer, config, positions)
    for course in material.split.test:
        try:
            lessons["patient"].renderer.prompt(dialogue((), "patient", patient_system(course.profile)))
        except UserError as error:
            raise UserError(error.what, where=f"profile of {course.id}", fix=error.fix) from None


def train_adapter(
    speaker: Role, model: Path, lessons: Lessons, config: StudyConfig, folder: Path, console: Console
) -> dict[str, Any]:
    """Train the LoRA adapter of one speaker and save it to ``folder/SPEAKER``; returns the report's facts."""
    settings: TrainingConfig = getattr(config, speaker)
    device = pick_device(config.model.device)
    decoder = load_decoder(str(model), dtype=DTYPES[config.model.dtype], device=device)
    warn_of_weak_stop(decoder, lessons.renderer, console)
    inject(decoder, settings.lora, seed=settings.seed)
    chosen, metrics = lessons.chosen, folder / "training" / speaker
    text = f"{speaker}: {len(chosen.documents)} documents, {chosen.documents.tokens:,} tokens an epoch"
    if chosen.paper_tokens is not None and config.tokens.recipe == "whole":
        text += f" (by the 2024 recipe {chosen.paper_tokens:,})"
    if chosen.cut:
        text += f"; {chosen.cut} of {len(chosen.units)} are cut between turns (tokens.document_tokens)"
    if chosen.left_out:
        text += f"; {chosen.left_out:,} tokens of turns found no room as context"
    say(console, text)
    result = train(speaker, decoder, chosen.documents, lessons.unseen.documents, settings, metrics, console)
    result.share_of_corpus = chosen.share * min(1.0, result.tokens / chosen.documents.tokens)
    result.data = {"chat_format": lessons.renderer.format.name, **chosen.facts(), **result.data}
    if _rank() == 0:
        base = _anchored(config).model.path or str(model.resolve())
        facts = {"speaker": speaker, "training": result.as_dict(), "therapist_system": config.tokens.therapist_system}
        beside = format_files(lessons.renderer.format)
        save_adapter(decoder, folder / speaker, settings.lora, base=base, facts=facts, beside=beside)
    before, after = result.validation_before, result.validation_best
    say(
        console,
        f"{speaker}: validation loss {before:.3f} before, {after:.3f} at its best after {result.tokens:,} tokens",
    )
    return result.as_dict()


def warn_of_weak_stop(decoder: Decoder, renderer: ChatRenderer, console: Console) -> None:
    """Say that a base model may never stop, where the token that ends a turn was never trained."""
    stop = renderer.answer_stop_id
    for ratio in weak_rows(decoder, [stop]).values():
        token = renderer.decode([stop])
        text = (
            f"Warning: the base model hardly knows its stop token {token!r} (its output row has {ratio:.0%} of the "
            "usual norm), and a LoRA adapter does not train it: the therapist may not learn to stop. Use an instruct "
            "model, or tokens.format=plain."
        )
        say(console, text)


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


def heading(console: Console, stage: str, text: str) -> None:
    console.print(f"\n[bold]{stage}  {text}[/]", highlight=False)


def say(console: Console, text: str) -> None:
    console.print(f"     {text}", highlight=False, markup=False, soft_wrap=True)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
