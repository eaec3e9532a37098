"""The protocol of an evaluation: how sessions are simulated, who rates them and how, which differences are computed.

It is journalled, and written to ``plan.yaml``, before the first session. What was changed afterwards is a deviation
that the report names; sessions that were begun under other settings are not continued; runs whose protocols differ in
more than the therapists are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import Plan, plan_contrasts
from cbtrain.eval.analysis.contrasts import METHOD
from cbtrain.eval.rating.families import family_of, overlaps
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.courses import opening_words, therapist_prompt
from cbtrain.eval.simulation.questionnaire import Questionnaire
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.files import text_digest
from cbtrain.patients.case import Case
from cbtrain.settings import MISSING, differences
from cbtrain.study.evaluation.course_plan import CoursePlan
from cbtrain.study.evaluation.identity import as_always, wherever
from cbtrain.study.evaluation.judges import Jury
from cbtrain.study.evaluation.local_weights import LocalWeights
from cbtrain.study.evaluation.patient_player import PatientPlayer
from cbtrain.study.evaluation.run_context import PLAN
from cbtrain.study.evaluation.therapists import Therapist, notes_on
from cbtrain.transcripts.profile import Profile

THERAPISTS = "therapists"
"""The part of a plan that says who the therapists are: compared runs may differ in it."""

OF_ONE_RUN = ("families", "outcomes", "notes")
"""Parts of a plan that follow from others."""

PLACES = (".model", ".adapter folder")
"""Ends of keys that say where files lie: what they hold has a digest of its own."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Who is treated by whom, and how sessions are held and rated. ``patients`` are the profiles of those who are
    simulated, ``cases`` what else is known of them. ``simulators`` are those that are crossed, by name, if any are
    named: ``player`` is then the first. ``questionnaire``: what patients are asked after each session, None for
    nothing."""

    config: StudyConfig
    patients: Mapping[str, Profile | None]
    jury: Jury
    therapists: Sequence[Therapist]
    player: PatientPlayer
    cases: Mapping[str, Case] = field(default_factory=dict)
    simulators: Mapping[str, PatientPlayer] = field(default_factory=dict)
    questionnaire: Questionnaire | None = None

    @property
    def rubric(self) -> Rubric:
        """Return the primary instrument."""
        return self.jury.rubric

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {therapist.name: therapist.arm for therapist in self.therapists}

    @cached_property
    def players(self) -> Mapping[str, PatientPlayer]:
        """Return who plays the patients, by the name of the simulator; "" if there is one way only."""
        return self.simulators or {"": self.player}

    @property
    def patient_weights(self) -> LocalWeights | None:
        """Return the model on this machine that plays patients; None if only APIs do. All simulators share it."""
        return next((player.weights for player in self.players.values() if player.weights), None)

    @cached_property
    def course(self) -> CoursePlan:
        """Return which sessions are held, and what is known at their beginning."""
        return CoursePlan(self.config.evaluation.course, self.patients, self.cases)

    def patient_prompt(self, session: SimulatedSession) -> str:
        """Return the prompt of the patient in ``session``."""
        profile, case = self.patients[session.patient], self.cases.get(session.patient)
        begins = self._told_in_prompts(session)
        if begins is not None and session.begins is not None:  # the patient alone knows it, wherever the rest is told
            begins = replace(begins, since=session.begins.since)
        return self.players[session.simulator].prompt(profile, case, begins)

    def therapist_prompt(self, therapist: Therapist, session: SimulatedSession) -> str:
        """Return the system prompt of ``therapist`` in ``session``."""
        case = self.cases.get(session.patient)
        return therapist_prompt(therapist.system, self._told_in_prompts(session), case.foreign if case else "")

    def _told_in_prompts(self, session: SimulatedSession) -> SessionBegins | None:
        begins = session.begins
        if begins is None or self.config.evaluation.course.told == "prompts":
            return begins
        return SessionBegins(begins.number)

    def opening(self, session: SimulatedSession) -> str:
        """Return the patient's first words, if they are written: they then tell the summary."""
        if session.begins is None or self.config.evaluation.course.told == "prompts":
            return ""
        return opening_words(self.patients[session.patient], session.begins)

    @cached_property
    def _contrasts(self) -> list[Plan]:
        return plan_contrasts(self.arms)

    def session_settings(self, session: SimulatedSession) -> dict[str, Any]:
        """Return everything that decides what is said in ``session``: once begun, it continues under the same only."""
        settings = self.config.evaluation
        therapist = next(therapist for therapist in self.therapists if therapist.name == session.arm)
        player = self.players[session.simulator]
        speaker = dict(therapist.identity)
        if therapist.provider is not None:
            speaker["api"] = wherever(therapist.provider)
        said = {
            "therapist": as_always(speaker),
            "patient": player.in_session | {"profile": digest(self._profile(session.patient))},
            "limits": self._limits,
            "seed": self.config.seed,
        }
        if session.number:
            said["course"] = self.course.described(session.patient, session.number)
        if therapist.weights is None and player.weights is None:
            return said
        model = self.config.model
        formats = {key: getattr(model, key) for key in ("weights", "double_quantization", "compute")}
        engine = {"context_tokens": settings.engine.context_tokens, "deterministic": settings.deterministic}
        return said | {"on this machine": formats | as_always(engine)}

    def _profile(self, patient: str) -> Any:
        """Return what is known of ``patient``, but the summaries, which are of sessions."""
        if patient in self.cases:
            return self.cases[patient].model_dump(mode="json", exclude={"phases"})
        profile = self.patients[patient]
        return profile.model_dump(mode="json") if profile else patient

    @property
    def _limits(self) -> dict[str, Any]:
        settings = self.config.evaluation
        limits: dict[str, Any] = {"max_turns": settings.max_turns, "max_words": settings.max_words}
        limits |= {"min_turns": settings.min_turns} if settings.min_turns else {}
        return limits | ({"end_phrases": settings.end_phrases} if settings.end_phrases else {})

    @cached_property
    def compare_key(self) -> dict[str, Any]:
        """Return the settings that compared runs must share, and that the report shows. The therapists themselves (base
        model, adapter, training) are what is compared, and are not part of it."""
        config, settings = self.config, self.config.evaluation
        known = [self._profile(name) if profile else None for name, profile in self.patients.items()]
        asked = self.questionnaire
        return {
            "seed": config.seed,
            "sessions": {"seeds": settings.seeds, **self._limits, **self.course.plan},
            "patients": list(self.patients),
            "profiles": digest(known),
            "patient": self._played,
            "therapist": {
                "system prompt": _shared({arm.name: arm.system for arm in self.therapists}),
                "sampling": _shared({arm.name: as_always(arm.applied_sampling) for arm in self.therapists}),
            },
            "rubric": {"name": self.rubric.name, "digest": self.rubric.digest},
            **self._judges(),
            **({"questionnaire": {"name": asked.name, "digest": asked.digest}} if asked else {}),
            "contrasts": [contrast.id for contrast in self._contrasts],
            "method": METHOD,
        }

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Return what is settled before the first session: :attr:`compare_key`, what is measured, and who the
        therapists are."""
        families: dict[str, dict[str, list[str]]] = {}
        for contrast in self._contrasts:
            pairs = [f"{first} − {second}" for first, second in contrast.pairs]
            families.setdefault(contrast.family, {})[contrast.id] = pairs
        outcomes: dict[str, Any] = {"primary": "total", "secondary": [domain.id for domain in self.rubric.domains]}
        therapists = {arm.name: as_always(arm.described) for arm in self.therapists}
        others = [name for name in self.jury.instruments if name != self.jury.first.instrument]
        if others:
            outcomes["totals of other instruments"] = others
        notes = [*notes_on(self.therapists), *notes_on_judges(self)]
        more = {"families": families, "outcomes": outcomes, "notes": notes}
        return {**self.compare_key, **more, THERAPISTS: therapists}

    @property
    def _played(self) -> dict[str, Any]:
        return {name: player.identity for name, player in self.simulators.items()} or self.player.identity

    def _judges(self) -> dict[str, Any]:
        """Return the raters and how they are asked."""
        judges = self.jury.judges
        if not self.jury.first.named:
            return {"judge": judges[0].described}
        described = {}
        for judge in judges:
            rubric = {"name": judge.rubric.name, "digest": judge.rubric.digest}
            described[judge.name] = {**judge.described, "rubric": rubric, **({"beside": True} if judge.beside else {})}
        return {"judges": described, **({"allocation": "cyclic"} if self.jury.rotation else {})}


def notes_on_judges(protocol: EvaluationProtocol) -> list[str]:
    """Return what a reader has to know of the judges beside therapists and patients."""
    speakers = {f"therapist {arm.name}": arm.family for arm in protocol.therapists}
    for name, player in protocol.players.items():
        speakers[f"the patients of {name}" if name else "the patients"] = player.family
    if generator := protocol.config.corpus.generator:
        speakers["the generator of the corpus"] = family_of(generator)
    judges = {judge.name: family_of(judge.api.model) for judge in protocol.jury.apis if judge.api}
    return [*protocol.jury.notes, *overlaps(judges, speakers)]


def _shared(values: Mapping[str, Any]) -> Any:
    """Return the value that all arms have, or else each arm's."""
    first, *others = values.values()
    return first if all(value == first for value in others) else dict(values)


def comparable(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``plan`` that compared runs must share, as the plans of older versions were."""
    return {key: value for key, value in plan.items() if key not in (THERAPISTS, *OF_ONE_RUN)}


def shown(value: Any) -> str:
    """Return a value of a protocol, short enough for a line; ``nothing`` if it is missing."""
    text = "nothing" if value is MISSING else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def deviations(protocol: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what has been changed since the plan was journalled, by ``events`` of the run."""
    planned = next((event for event in events if event["kind"] == PLAN), None)
    if planned is None:
        return ["no plan was journalled before these sessions were held (an older version of cbtrain)"]
    before = as_always(planned["protocol"])
    if THERAPISTS not in before:  # as older versions wrote it
        protocol = comparable(protocol)
    return [
        f"{key} was {shown(old)} in the plan of {planned['time'][:16].replace('T', ' ')} UTC, and is {shown(now)}"
        for key, old, now in differences(before, protocol)
        if not (key.startswith(f"{THERAPISTS}.") and key.endswith(PLACES))
    ]


def digest(value: Any) -> str:
    return text_digest(json.dumps(value, sort_keys=True))
