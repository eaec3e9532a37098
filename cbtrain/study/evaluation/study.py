"""What an evaluation needs before its first call: therapists, patients, rubric; all that is wrong is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.eval.simulation.config import DEFAULT, NARRATIVE, SimulatorConfig, refuse_unsent
from cbtrain.eval.simulation.questionnaire import Questionnaire, load_questionnaire
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.simulators import Simulator, load_simulator
from cbtrain.files import exists, expanded, share_with
from cbtrain.model.weights.hub import resolve_model
from cbtrain.settings import SettingsConflict
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.evaluation.checks import check_apis, check_judges, refuse_another_study, require_two_speakers
from cbtrain.study.evaluation.context_check import check_contexts
from cbtrain.study.evaluation.judges import Jury, jury_of
from cbtrain.study.evaluation.local_weights import LocalWeights, layout_digest, local_weights
from cbtrain.study.evaluation.patient_player import PatientPlayer
from cbtrain.study.evaluation.patients_of_pairs import refuse_patients_of_pairs
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.protocol import EvaluationProtocol, notes_on_judges
from cbtrain.study.evaluation.simulate import sessions_of
from cbtrain.study.evaluation.therapists import PATIENT, Therapist, notes_on, require_name, therapists_of
from cbtrain.study.evaluation.treated import Treated, named_patients
from cbtrain.study.run_files import STATE
from cbtrain.study.trained_run import TrainedRun
from cbtrain.tokens.chat_files import saved_prompt
from cbtrain.transcripts.preference import held_out_name
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import SAMPLE

MOST_NAMED = 6


@dataclass(frozen=True)
class EvaluationStudy:
    """``trained``: the run whose base and tuned therapist are compared; None if the settings name therapists.
    ``corpus``: None if nothing of one is needed, since therapists and patients are named."""

    trained: TrainedRun | None
    corpus: StudyCorpus | None
    treated: Treated
    protocol: EvaluationProtocol


def open_study(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> EvaluationStudy:
    """Return the study that ``config`` describes, or the two arms of the trained run in ``folder``. Raises UserError,
    one for all that is wrong."""
    problems, settings = Problems(), config.evaluation
    trained = None if config.evaluation.therapists else TrainedRun.read(folder)
    jury = None
    with problems.collected():
        check_apis(config, allow_upload=allow_upload)
    with problems.collected():
        jury = jury_of(settings, config.providers)
        check_judges(config, jury, allow_upload=allow_upload)
    if trained is not None:
        problems.refuse()
        require_two_speakers(config)
    share_with(config.sharing)
    if trained or speaks_here(config):
        from cbtrain.study.pipeline import prepare_process

        prepare_process(config)
    therapists = therapists_of(config, trained, problems)
    player = player_of(config, trained, problems)
    corpus = treated = questionnaire = None
    with problems.collected("evaluation.questionnaire"):
        questionnaire = questionnaire_of(config, player)
    with problems.collected("evaluation.patients"):
        treated = named_patients(config, lambda what: say(console, f"note: {what}"))
    if trained is not None or settings.patients is None:
        with problems.collected():
            corpus = load_corpus(config, Console(quiet=True), all_treated=trained is None)
    for name, simulator in settings.simulators.items() if problems.found else ():  # else with the patients, below
        with problems.collected(f"evaluation.simulators.{name}"):
            load_simulator(simulator.method)
    problems.refuse()
    assert jury is not None
    assert player is not None
    if trained is not None:
        assert corpus is not None
        refuse_another_study(trained, corpus, config)
    if treated is None:
        assert corpus is not None
        adapters = [(therapist.name, therapist.weights) for therapist in therapists]
        adapters += [("the patients' model", player.weights)] if settings.patient_model else []
        treated = _of_corpus(config, corpus, adapters if trained is None else [], console)
    with problems.collected("evaluation.patients"):
        if treated.source:  # those of the corpus are of its test part
            refuse_patients_of_pairs(treated, config, trained, therapists)
    protocol = replace(protocol_of(config, treated, jury, therapists, player, problems), questionnaire=questionnaire)
    problems.refuse()
    sessions = sessions_of(protocol)
    _check_templates(protocol, sessions, problems)
    problems.refuse()
    check_contexts(protocol, sessions, problems)
    problems.refuse()
    _tell_prompts(protocol, console)
    if protocol.course.short:
        say(console, f"note: first meetings only (evaluation.course.sessions): {protocol.course.short[0]}")
    for note in (*notes_on(therapists), *notes_on_judges(protocol)):
        say(console, f"note: {note}")
    return EvaluationStudy(trained, corpus, treated, protocol)


def speaks_here(config: StudyConfig) -> bool:
    """Return whether a therapist that is named, or the patients' model, is on this machine."""
    settings = config.evaluation
    return settings.patient_model is not None or any(arm.model for arm in settings.therapists.values())


def player_of(config: StudyConfig, trained: TrainedRun | None, problems: Problems) -> PatientPlayer | None:
    """Return who plays the patients; None if that is a problem."""
    settings = config.evaluation
    player = partial(PatientPlayer, settings.patient, last=settings.patient_messages)
    provider = settings.patient_provider
    if provider is None and settings.patient_model is None and trained is None:  # simulators may all have their own
        theirs = [simulator.provider for simulator in settings.simulators.values()]
        provider = theirs[0] if theirs and all(theirs) else None
    if provider is not None:
        return player(instructions=settings.patient_instructions, provider=provider)
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


def protocol_of(
    config: StudyConfig,
    treated: Treated,
    jury: Jury,
    therapists: Sequence[Therapist],
    player: PatientPlayer,
    problems: Problems,
) -> EvaluationProtocol:
    """Return the protocol; what of simulators and sessions does not fit the patients goes to ``problems``."""
    simulators = simulators_of(config, player, treated, problems)
    first, *_ = simulators.values()
    crossed = simulators if config.evaluation.simulators else {}
    protocol = EvaluationProtocol(config, treated.profiles, jury, therapists, first, treated.cases, crossed)
    with problems.collected():
        protocol.course.check()
    return protocol


def simulators_of(
    config: StudyConfig, player: PatientPlayer, treated: Treated, problems: Problems
) -> dict[str, PatientPlayer]:
    """Return who plays the patients by the name of the simulator; if none is named, ``player`` alone, who plays
    patients of a library or a file as a narrative, unless it is an adapter that was trained to be a patient."""
    settings = config.evaluation
    player = replace(player, drift=settings.drift)
    trained = player.instructions is None
    only = player
    if treated.cases and not trained:
        only = replace(player, simulator=_fitting(load_simulator(NARRATIVE), treated, problems))
    players = {}
    for name, simulator in settings.simulators.items():
        with problems.collected(f"evaluation.simulators.{name}"):
            if name == DEFAULT and simulator == SimulatorConfig():
                players[name] = only
                continue
            require_name(name, "a simulator")
            if name == DEFAULT:
                hint = f"Leave its settings out ({DEFAULT}: {{}}), or give it another name."
                what = f"{DEFAULT} is the way in which patients are played if no simulator is named"
                raise UserError(what, hint=hint)
            if trained and simulator.provider is None:
                hint = "Name a general model (evaluation.patient_model without adapter) or an API."
                raise UserError("an adapter that was trained to be a patient plays in its own way", hint=hint)
            one = replace(player, sampling=simulator.sampling or player.sampling)
            if simulator.provider is not None:
                instructions = settings.patient_instructions
                one = replace(one, provider=simulator.provider, weights=None, instructions=instructions)
            _check_sampling(one)
            players[name] = replace(one, simulator=_fitting(load_simulator(simulator.method), treated, problems))
    return players or {"": only}


def _check_sampling(player: PatientPlayer) -> None:
    """Raise UserError on sampling that an API would not be sent."""
    if player.provider is not None:
        try:
            refuse_unsent(player.sampling, "sampling", "a patient behind an API")
        except SettingsConflict as conflict:
            raise UserError(str(conflict)) from None


def _fitting(simulator: Simulator, treated: Treated, problems: Problems) -> Simulator:
    """Return ``simulator``; patients that it cannot play go to ``problems``."""
    for name, profile in treated.profiles.items():
        with problems.collected():
            if profile is None:
                hint = "Give the corpus profiles, or name patients (evaluation.patients)."
                raise UserError(f"{name} has no profile, which {simulator.name} needs", hint=hint)
            simulator.check(profile, treated.cases.get(name))
    return simulator


def _check_templates(protocol: EvaluationProtocol, sessions: Sequence[SimulatedSession], problems: Problems) -> None:
    """Fill in the templates of all simulators for every session, as far as its beginning is known; one of each that
    cannot be filled in goes to ``problems``."""
    broken = set[str]()
    for session in sessions:
        if session.simulator in broken:
            continue
        begins = session.begins
        if begins is not None and begins.number > 1 and not begins.summary:  # yet to be written
            begins = replace(begins, summary="…")
        before = len(problems.found)
        with problems.collected():
            protocol.patient_prompt(replace(session, begins=begins))
        if len(problems.found) > before:
            broken.add(session.simulator)


def questionnaire_of(config: StudyConfig, player: PatientPlayer | None) -> Questionnaire | None:
    """Return what ``player`` is asked after each session, None for nothing. Raises UserError if it cannot be read, or
    if a model on this machine could not be held to the form of an answer."""
    name = config.evaluation.questionnaire
    if name is None:
        return None
    questionnaire = load_questionnaire(name)
    if player is not None and player.weights is not None and find_spec("llguidance") is None:
        hint = "Install it: pip install 'cbtrain[schema]'."
        raise UserError("a patient on this machine needs the package llguidance to fill it in", hint=hint)
    return questionnaire


def _of_corpus(
    config: StudyConfig, corpus: StudyCorpus, adapters: Sequence[tuple[str, LocalWeights | None]], console: Console
) -> Treated:
    """Return who is treated: held-out patients, none of whom one of ``adapters`` (each with its name) was trained on,
    as far as its run's folder says."""
    patients = {course.id: course for course in corpus.split.test}
    known = set[str]()
    for name, weights in adapters:
        if weights is not None and weights.adapter is not None:
            known |= _trained_on(name, weights.adapter, corpus, config, console)
    if seen := [patient for patient in patients if patient in known]:
        names = ", ".join(seen[:MOST_NAMED]) + (f" and {len(seen) - MOST_NAMED} more" if seen[MOST_NAMED:] else "")
        say(console, f"note: left out, since a therapist here was trained or chosen on them: {names}")
        patients = {patient: course for patient, course in patients.items() if patient not in known}
    if not patients:
        hint = "Name other patients with corpus.path or corpus.test."
        raise UserError("every patient was in the training of a therapist", where=config.corpus.path, hint=hint)
    profiles: dict[str, Profile | None] = {}
    for course in patients.values():
        profiles.setdefault(held_out_name(course), course.profile)
    return Treated(dict(islice(profiles.items(), config.evaluation.max_patients)))


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
