"""What an evaluation needs before its first call: therapists, patients, rubric; all that is wrong is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.eval.rating.rubric import load_rubric
from cbtrain.files import exists, expanded, share_with
from cbtrain.model.weights.hub import resolve_model
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.evaluation.checks import check_apis, refuse_another_study, require_two_speakers
from cbtrain.study.evaluation.local_weights import LocalWeights, layout_digest, local_weights
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.protocol import EvaluationProtocol, PatientPlayer
from cbtrain.study.evaluation.therapists import PATIENT, notes_on, therapists_of
from cbtrain.study.run_files import STATE
from cbtrain.study.trained_run import TrainedRun
from cbtrain.tokens.chat_files import saved_prompt
from cbtrain.transcripts.reading import SAMPLE

MOST_NAMED = 6


@dataclass(frozen=True)
class EvaluationStudy:
    """``trained``: the run whose base and tuned therapist are compared; None if the settings name therapists."""

    trained: TrainedRun | None
    corpus: StudyCorpus
    protocol: EvaluationProtocol


def open_study(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> EvaluationStudy:
    """Return the study that ``config`` describes, or the two arms of the trained run in ``folder``. Raises UserError,
    one for all that is wrong."""
    problems, settings = Problems(), config.evaluation
    trained = None if config.evaluation.therapists else TrainedRun.read(folder)
    with problems.collected():
        check_apis(config, allow_upload=allow_upload)
    if trained is not None:
        problems.refuse()
        require_two_speakers(config)
    share_with(config.sharing)
    if trained or speaks_here(config):
        from cbtrain.study.pipeline import prepare_process

        prepare_process(config)
    therapists = therapists_of(config, trained, problems)
    player = player_of(config, trained, problems)
    rubric = corpus = None
    with problems.collected():
        rubric = load_rubric(config.evaluation.judging.rubric)
    with problems.collected():
        corpus = load_corpus(config, Console(quiet=True), all_treated=trained is None)
    problems.refuse()
    assert corpus is not None
    assert rubric is not None
    assert player is not None
    if trained is not None:
        refuse_another_study(trained, corpus, config)
    adapters = [(therapist.name, therapist.weights) for therapist in therapists]
    adapters += [("the patients' model", player.weights)] if settings.patient_model else []
    patients = _patients(config, corpus, adapters if trained is None else [], console)
    profiles = corpus.profiles()
    protocol = EvaluationProtocol(
        config, {patient: profiles[patient] for patient in patients}, rubric, therapists, player
    )
    _tell_prompts(protocol, console)
    for note in notes_on(therapists):
        say(console, f"note: {note}")
    return EvaluationStudy(trained, corpus, protocol)


def speaks_here(config: StudyConfig) -> bool:
    """Return whether a therapist that is named, or the patients' model, is on this machine."""
    settings = config.evaluation
    return settings.patient_model is not None or any(arm.model for arm in settings.therapists.values())


def player_of(config: StudyConfig, trained: TrainedRun | None, problems: Problems) -> PatientPlayer | None:
    """Return who plays the patients; None if that is a problem."""
    settings = config.evaluation
    player = partial(PatientPlayer, settings.patient, last=settings.patient_messages)
    if settings.patient_provider is not None:
        return player(instructions=settings.patient_instructions, provider=settings.patient_provider)
    with problems.collected("evaluation.patient_model" if settings.patient_model else None):
        if settings.patient_model is not None:
            weights = local_weights(settings.patient_model)
        elif trained is not None:
            weights = LocalWeights(resolve_model(trained.base), trained.folder / PATIENT)
        else:
            hint = "Name an API (evaluation.patient_provider) or a model on this machine (evaluation.patient_model)."
            raise UserError("nobody plays the patients", where="evaluation", hint=hint)
        instructions = None if weights.adapter else settings.patient_instructions
        layout = layout_digest(weights.voice(config.tokens.format))
        return player(instructions=instructions, weights=weights, layout=layout)
    return None


def _patients(
    config: StudyConfig, corpus: StudyCorpus, adapters: Sequence[tuple[str, LocalWeights | None]], console: Console
) -> list[str]:
    """Return who is treated: held-out patients, none of whom one of ``adapters`` (each with its name) was trained on,
    as far as its run's folder says."""
    patients = [course.id for course in corpus.split.test]
    known = set[str]()
    for name, weights in adapters:
        if weights is not None and weights.adapter is not None:
            known |= _trained_on(name, weights.adapter, corpus, config, console)
    if seen := [patient for patient in patients if patient in known]:
        names = ", ".join(seen[:MOST_NAMED]) + (f" and {len(seen) - MOST_NAMED} more" if seen[MOST_NAMED:] else "")
        say(console, f"note: left out, since a therapist here was trained or chosen on them: {names}")
        patients = [patient for patient in patients if patient not in known]
    if not patients:
        hint = "Name other patients with corpus.path or corpus.test."
        raise UserError("every patient was in the training of a therapist", where=config.corpus.path, hint=hint)
    return patients[: config.evaluation.max_patients]


def _trained_on(name: str, adapter: Path, corpus: StudyCorpus, config: StudyConfig, console: Console) -> set[str]:
    """Return the patients of ``corpus`` that ``adapter``, which is called ``name``, was trained or validated on."""
    if not (adapter.parent / STATE).is_file():
        say(console, f"note: {name}: its folder does not say on whom it was trained")
        return set()
    trained = TrainedRun.read(adapter.parent).corpus
    path, split = str(trained.get("path")), trained["split"]
    patients = {*split.get("train", ()), *split.get("validation", ())}
    same = trained["fingerprint"] == corpus.summary["fingerprint"]
    if same or _same_place(path, config.corpus.test or config.corpus.path):
        return patients
    alike = sorted(patients & {course.id for course in corpus.split.test})
    more = f"; {len(alike)} are called like patients of its training, e.g. {alike[0]}" if alike else ""
    say(console, f"note: {name} was trained on {path}: patients here are taken for others{more}")
    return set()


def _same_place(first: str, second: str) -> bool:
    if SAMPLE in (first, second) or not (exists(first) and exists(second)):
        return first == second
    return expanded(first).resolve() == expanded(second).resolve()


def _tell_prompts(protocol: EvaluationProtocol, console: Console) -> None:
    """Say which adapters get another system prompt than in training."""
    for therapist in protocol.therapists:
        adapter = therapist.weights.adapter if therapist.weights else None
        saved = saved_prompt(adapter) if adapter else None
        if saved is not None and saved.text is not None and saved.text != therapist.system:
            what = f"{therapist.name} was trained with another system prompt than it is given here"
            say(console, f"note: {what} (prompt: trained gives it that one)")
