"""Find what would stop an evaluation before it begins."""

from __future__ import annotations

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.eval.simulation.questionnaire import load_questionnaire
from cbtrain.eval.simulation.simulators import load_simulator
from cbtrain.providers.providers import check
from cbtrain.study.consent import imported_part, require_consent, stays_here
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.evaluation.course_plan import CoursePlan
from cbtrain.study.evaluation.judges import Jury, jury_of
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.treated import named_patients
from cbtrain.study.trained_run import TrainedRun
from cbtrain.transcripts.reading import SAMPLE


def check_evaluation(config: StudyConfig, *, allow_upload: bool = False) -> Jury:
    """Find before training what would stop the evaluation after it. Raises UserError."""
    if config.evaluation.therapists:
        hint = "Leave them out, or train first and name what was trained in a study for `cbtrain evaluate`."
        what = "a run evaluates the therapist that it trains, and others are named"
        raise UserError(what, where="evaluation.therapists", hint=hint)
    require_two_speakers(config)
    check_apis(config, allow_upload=allow_upload)
    jury = jury_of(config.evaluation, config.providers)
    check_judges(config, jury, allow_upload=allow_upload)
    if config.evaluation.questionnaire is not None:
        load_questionnaire(config.evaluation.questionnaire)
    _check_patients(config)
    return jury


def _check_patients(config: StudyConfig) -> None:
    """Raise UserError if the patients that are named cannot be read, or not played in the sessions that are asked
    for."""
    settings, problems = config.evaluation, Problems()
    treated = None
    with problems.collected("evaluation.patients"):
        treated = named_patients(config, lambda what: None)  # said when they are treated
    for name, simulator in settings.simulators.items():
        with problems.collected(f"evaluation.simulators.{name}"):
            load_simulator(simulator.method)
    problems.refuse()
    for name, simulator in settings.simulators.items():
        if simulator.provider is settings.patient_provider is settings.patient_model is None:
            where, hint = f"evaluation.simulators.{name}", "Name an API (provider), or leave the simulator out."
            raise UserError("the adapter that will be trained plays in its own way", where=where, hint=hint)
    if treated is not None:
        CoursePlan(settings.course, treated.profiles, treated.cases).check()
    elif settings.course.sessions == "phases" and set(settings.course.phases) != {"assessment"}:
        hint = "Name patients (evaluation.patients), or take other sessions."
        raise UserError(
            "patients of a corpus have no previous summaries", where="evaluation.course.sessions", hint=hint
        )


def check_apis(config: StudyConfig, *, allow_upload: bool = False) -> None:
    """Raise UserError if an API of therapists or patients cannot be asked, or if text of an imported corpus may not be
    sent to it."""
    settings = config.evaluation
    allow_upload = allow_upload or stays_here(config.providers)
    corpus, profiles, sessions, _ = _sent(config)
    roles = [
        (f"therapist {name}", arm.provider) for name, arm in settings.therapists.items() if arm.provider is not None
    ]
    for _, provider in roles:
        require_consent(corpus, "what patients with its profiles say", provider.base_url, allow_upload)
    patients = [("patient", settings.patient_provider)]
    patients += [(f"patient {name}", simulator.provider) for name, simulator in settings.simulators.items()]
    for role, patient in patients:
        if patient is not None:
            roles.append((role, patient))
            require_consent(corpus, profiles, patient.base_url, allow_upload)
    if (writer := settings.course.summary.provider) and settings.course.sessions == "whole":
        roles.append(("summaries", writer))
        require_consent(corpus, sessions, writer.base_url, allow_upload)
    check(config.providers, roles)


def check_judges(config: StudyConfig, jury: Jury, *, allow_upload: bool = False) -> None:
    """Raise UserError if an API of ``jury`` cannot be asked, or if text of an imported corpus may not be sent to it."""
    corpus, _, _, judged = _sent(config)
    roles = []
    for judge in jury.apis:
        assert judge.api is not None
        roles.append((judge.role, judge.api))
        require_consent(corpus, judged, judge.api.base_url, allow_upload or stays_here(config.providers))
    check(config.providers, roles)


def _sent(config: StudyConfig) -> tuple[str, str, str, str]:
    """Return the corpus or file from which text may be sent to APIs, and what of it is sent: to patients, to who writes
    summaries, and to judges."""
    settings, corpus = config.evaluation, imported_part(config.corpus)
    profiles, sessions = "its patients' profiles", "sessions simulated from its profiles"
    if settings.patients is not None and settings.patients.file is not None:
        return settings.patients.file, profiles, sessions, f"{sessions} and transcripts"
    if settings.patients is None:
        return corpus, profiles, sessions, f"{sessions} and transcripts"
    # A library is fictional and ships, but a run's therapist speaks as its corpus.
    spoken = "sessions with a therapist that was trained on it"
    return SAMPLE if settings.therapists else corpus, spoken, spoken, spoken


def require_two_speakers(config: StudyConfig) -> None:
    """Raise UserError if a run with ``config`` has no therapist, nobody who plays patients, or no held-out patient."""
    settings = config.evaluation
    missing = {"therapist"} if settings.patient_provider or settings.patient_model else {"therapist", "patient"}
    if absent := sorted(missing - set(config.training.speakers)):
        hint = "Train both, or name a patient behind an API (evaluation.patient_provider)."
        raise UserError(f"an evaluation needs a {absent[0]}", where="training.speakers", hint=hint)
    if config.corpus.test is None and config.split.test in (0, []):
        hint = "Train with split.test at a share of the patients, or with corpus.test, a file of theirs."
        raise UserError("nobody is held out, so there is nobody to treat", where="split.test", hint=hint)


def refuse_another_study(trained: TrainedRun, corpus: StudyCorpus, config: StudyConfig) -> None:
    """Raise UserError if corpus, split or base are not those that the run was trained with, or if its weights are not
    those that training wrote."""
    folder = trained.folder
    if corpus.summary["split"] != trained.corpus["split"]:
        hint = "Evaluate with the corpus and split settings of the training run."
        raise UserError("its patients were split differently in training", where=folder, hint=hint)
    if corpus.summary["fingerprint"] != trained.corpus["fingerprint"]:
        hint = "Restore the transcripts, corpus settings and tokens.system of the training run, or train again."
        raise UserError("the transcripts have changed since training", where=config.corpus.path, hint=hint)
    if config.model.path not in (None if trained.is_tiny else trained.model, trained.model):
        hint = "An adapter fits its own base only: leave model.path as it is."
        raise UserError(f"trained on {trained.model}, not on {config.model.path}", where=folder, hint=hint)
    trained.check_weights()
