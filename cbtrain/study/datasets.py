"""Training and validation documents of each speaker's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import counted_bar, say
from cbtrain.errors import UserError
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.untrained_texts import UntrainedText, untrained_texts
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import Supervise
from cbtrain.tokens.dialogue import dialogue, patient_system, system_prompts
from cbtrain.tokens.document_builder import DocumentBuilder, Unit, units_of
from cbtrain.tokens.pair_builder import PairBuilder
from cbtrain.tokens.tokenize import NothingUsable, TokenizedCorpus, cache_root, tokenize
from cbtrain.training.config import StageConfig
from cbtrain.transcripts.preference import held_out_name
from cbtrain.transcripts.types import Course, Role


@dataclass(frozen=True, slots=True)
class SpeakerDataset:
    """Training and validation documents of one speaker's adapter, the renderer that made them, and the texts on which
    forgetting is measured."""

    renderer: ChatRenderer
    train: TokenizedCorpus
    validation: TokenizedCorpus
    untrained: tuple[UntrainedText, ...] = ()


def build_dataset(
    speaker: Role,
    corpus: StudyCorpus,
    renderer: ChatRenderer,
    positions: int,
    config: StudyConfig,
    console: Console,
) -> SpeakerDataset:
    """Render sessions, all or until the token budgets are full. Raises UserError on sessions that cannot be rendered,
    such as one with a token that the model has no embedding for; with ``corpus.skip_bad`` they are left out and named.
    """
    train = training_part(speaker, corpus, renderer, positions, config, console)
    validation = validation_part(speaker, corpus, renderer, positions, config, console)
    return SpeakerDataset(renderer, train, validation, untrained_part(speaker, corpus, renderer, positions, config))


def training_part(
    speaker: Role, corpus: StudyCorpus, renderer: ChatRenderer, positions: int, config: StudyConfig, console: Console
) -> TokenizedCorpus:
    """Return what is trained. Raises UserError as :func:`build_dataset`."""
    settings: StageConfig = getattr(config, speaker)
    if renderer.format.note:
        say(console, f"{speaker}: chat format {renderer.format.name} ({renderer.format.note})")
    if speaker == "therapist" and config.tokens.system == "none" and renderer.own_system_text:
        written = f"the chat template writes one of its own, as it will in serving: {renderer.own_system_text}"
        say(console, f"{speaker}: no system prompt is trained, but {written}")
    units = course_units(corpus.split.train, speaker, config)
    _check_objective(speaker, settings, units, config, console)
    with counted_bar(console, f"Tokenizing for the {speaker}") as progress:
        train = tokenize(
            units,
            make_builder(renderer, speaker, settings, positions, config, measured=False),
            budget=settings.token_budget,
            seed=settings.seed,
            root=cache_root(config.tokens.cache),
            progress=progress,
            skip_bad=config.corpus.skip_bad,
        )
    if train.note:
        say(console, train.note)
    _say_skipped(speaker, "training", train, config, console)
    return train


def _check_objective(
    speaker: Role, settings: StageConfig, units: Sequence[Unit], config: StudyConfig, console: Console
) -> None:
    """Raise UserError if answers are to be compared and no unit is a pair of them; say what is learnt of pairs if they
    are not compared."""
    pairs = any(session.preference for unit in units for session in unit.sessions)
    if settings.objective != "sft" and not pairs:
        problem = f"{settings.objective} compares answers, and the corpus has sessions, no pairs of answers"
        hint = "Give records with prompt, chosen and rejected (docs/preferences.md), or set therapist.objective=sft."
        raise UserError(problem, where=config.corpus.path, hint=hint)
    if settings.objective == "sft" and pairs and speaker == "therapist":
        say(console, "therapist: of pairs the chosen answers are learnt, and the rejected ones are not used")


def validation_part(
    speaker: Role, corpus: StudyCorpus, renderer: ChatRenderer, positions: int, config: StudyConfig, console: Console
) -> TokenizedCorpus:
    """Return what is validated on. Raises UserError as :func:`build_dataset`."""
    settings: StageConfig = getattr(config, speaker)
    try:
        validation = tokenize(
            course_units(corpus.split.validation, speaker, config),
            make_builder(renderer, speaker, settings, positions, config, measured=True),
            budget=settings.validation_tokens,
            seed=settings.seed,
            skip_bad=config.corpus.skip_bad,
        )
    except NothingUsable as error:
        problem = f"no {config.tokens.document} of the validation part can be used, e.g. {error.what}"
        hint = "Choose another split.seed or corpus.validation, or none: split.validation=0 trains without."
        raise UserError(problem, where=error.where, hint=hint) from None
    _say_skipped(speaker, "validation", validation, config, console)
    return validation


def untrained_part(
    speaker: Role, corpus: StudyCorpus, renderer: ChatRenderer, positions: int, config: StudyConfig
) -> tuple[UntrainedText, ...]:
    """Return the texts on which forgetting is measured. Raises UserError as
    :func:`~cbtrain.study.untrained_texts.untrained_texts`."""
    units = course_units(corpus.split.validation, speaker, config)
    return untrained_texts(speaker, units, renderer, positions, config)


def _say_skipped(speaker: Role, part: str, tokenized: TokenizedCorpus, config: StudyConfig, console: Console) -> None:
    if tokenized.skipped:
        count = f"{len(tokenized.skipped)} {part} {config.tokens.document}{'s' * (len(tokenized.skipped) != 1)}"
        say(console, f"{speaker}: {count} left out that cannot be used, the first: {tokenized.skipped[0]}")


def course_units(courses: Sequence[Course], speaker: Role, config: StudyConfig) -> list[Unit]:
    """Return the units of ``courses`` to render for the model that plays ``speaker``, with its system prompts."""
    return [
        unit
        for course in courses
        for unit in units_of(course, config.tokens, system_prompts(course, speaker, config.tokens))
    ]


def make_builder(
    renderer: ChatRenderer,
    speaker: Role,
    settings: StageConfig,
    positions: int,
    config: StudyConfig,
    *,
    measured: bool,
) -> DocumentBuilder:
    """Return what makes one speaker's documents, pairs of answers if its objective compares them. If they are only
    ``measured``, every turn of the speaker has the same loss weight, so that losses of different training settings can
    be compared."""
    supervise: Supervise = settings.supervise or speaker
    tokens = config.tokens
    if settings.objective != "sft":
        text = settings.preference.likelihood == "text"
        return PairBuilder(renderer, speaker, tokens, settings.pack_tokens, positions, prompt_counts=text)
    if measured:
        supervise = speaker
        tokens = tokens.model_copy(update={"weights": []})
    return DocumentBuilder(renderer, speaker, supervise, tokens, settings.pack_tokens, positions)


def held_out_datasets(
    corpus: StudyCorpus, renderer: ChatRenderer, config: StudyConfig, positions: int, console: Console
) -> dict[str, TokenizedCorpus]:
    """Return documents for perplexity, by held-out patient. Raises UserError on sessions that cannot be rendered; with
    ``corpus.skip_bad`` they are left out and named, and the error comes only if no patient has another one."""
    settings = config.therapist.model_copy(update={"objective": "sft"})
    builder = make_builder(renderer, "therapist", settings, positions, config, measured=True)
    datasets: dict[str, TokenizedCorpus] = {}
    skipped: list[str] = []
    patients: dict[str, list[Course]] = {}
    for course in corpus.split.test:
        patients.setdefault(held_out_name(course), []).append(course)
    for patient, courses in patients.items():
        try:
            datasets[patient] = tokenize(
                course_units(courses, "therapist", config),
                builder,
                budget=config.evaluation.perplexity_tokens,
                seed=config.seed,
                skip_bad=config.corpus.skip_bad,
            )
        except NothingUsable as error:
            if not datasets and patient == [*patients][-1]:
                problem = f"no {config.tokens.document} of the test part can be used, e.g. {error.what}"
                hint = "Choose another split.seed or corpus.test, or none: split.test=0 trains without."
                raise UserError(problem, where=error.where, hint=hint) from None
            skipped.append(f"{error.where}: {error.what}")
    if skipped:
        count = f"{len(skipped)} held-out patient{'s' * (len(skipped) != 1)}"
        say(console, f"no perplexity of {count} without a {config.tokens.document} to use, the first: {skipped[0]}")
    return datasets


def check_held_out_patients(
    corpus: StudyCorpus,
    datasets: Mapping[Role, SpeakerDataset],
    positions: int,
    config: StudyConfig,
    console: Console,
) -> None:
    """Check before training what the evaluation needs. Raises UserError on held-out patients' sessions and profiles
    that cannot be rendered."""
    if "therapist" in datasets:
        held_out_datasets(corpus, datasets["therapist"].renderer, config, positions, console)
    for course in corpus.split.test if "patient" in datasets else ():
        try:
            datasets["patient"].renderer.prompt(dialogue((), "patient", patient_system(course.profile)))
        except UserError as error:
            raise UserError(error.what, where=f"profile of {course.id}", hint=error.hint) from None
