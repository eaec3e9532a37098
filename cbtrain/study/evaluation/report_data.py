"""Build the report: the same for an evaluation, for scores that exist already, and for several runs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cbtrain
from cbtrain.environment import now
from cbtrain.eval.analysis.agreement.panel import Panel, by_panel, panel_of, panel_ratings, panel_scores
from cbtrain.eval.analysis.arm_order import common_reference
from cbtrain.eval.analysis.descriptives import Group, session_groups
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.flags import FlagInput, Range, flags_of
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.questionnaire import ReportAnswers
from cbtrain.eval.report.schema.report import (
    SCHEMA,
    Report,
    ReportArm,
    ReportDomain,
    ReportRating,
    ReportScale,
    ReportSession,
    ReportTurn,
)
from cbtrain.eval.report.schema.training import Rater
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.answers.refusals import is_refusal
from cbtrain.study.evaluation.participant_flow import participant_flow
from cbtrain.study.evaluation.report_patients import describe_patients
from cbtrain.study.trained_run import TrainedRun
from cbtrain.text.words import count_words

ARMS = {"base": "Base model", "tuned": "Tuned therapist"}
"""Therapists under test, and their labels."""

SECONDARY = " (for comparison: "
"""In the label of the rater, before the judges that are not primary."""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """The input of a report's parts about scores. ``scores`` are the rows of ``ratings``, with evidence and
    reasons; ``results``: their analysis; ``rubric``: None if the instrument is none of ours; ``rater``: None to name
    it after the primary judges; ``answers``: of patients to a questionnaire, by session; ``rotating``: the primary
    judges took turns."""

    ratings: Ratings
    scores: Sequence[Score]
    primary_judges: Sequence[str]
    results: Mapping[str, Any]
    sessions: Sequence[SimulatedSession]
    patient_names: Mapping[str, str]
    rubric: Rubric | None
    rater: Rater | None = None
    answers: Mapping[str, ReportAnswers] = field(default_factory=dict)
    rotating: bool = False


def build_report(data: ReportInput, base_report: Report) -> Report:
    """Return ``base_report`` (training, costs, protocol: what does not come from scores) with rater, scale, arms,
    analysis and sessions of ``data``."""
    panel = panel_of(data.ratings, data.primary_judges, rotating=data.rotating)
    rater = data.rater or describe_rater(panel)
    analysis = Analysis.model_validate(data.results)
    sessions = describe_sessions(data.sessions, data.scores, data.patient_names, data.ratings, panel)
    for session in sessions:
        if session.id in data.answers:
            session.answers = data.answers[session.id]
    return base_report.updated(
        Report(
            schema_version=SCHEMA,
            created=now(),
            cbtrain_version=cbtrain.__version__,
            notice=cbtrain.NOTICE,
            rater=rater.model_copy(update={"label": with_secondary(rater.label, panel)}),
            scale=describe_scale(data.ratings, data.rubric),
            arms=describe_arms(data.sessions, data.ratings, panel, analysis, common_reference(data.results)),
            patients=describe_patients(data.ratings, panel, analysis, data.patient_names),
            analysis=analysis,
            sessions=sessions,
        )
    )


def describe_rater(panel: Panel) -> Rater:
    """Return the primary judges; the cue rater has the same label everywhere."""
    kind = "cue" if panel.judges == [CUE_RATER] else "several" if len(panel.judges) > 1 else "one"
    label = "; ".join(CUE_RATER_LABEL if judge == CUE_RATER else judge for judge in panel.judges) or "nobody"
    return Rater(judge=", ".join(panel.judges), kind=kind, label=label)


def with_secondary(label: str, panel: Panel) -> str:
    """Return ``label``, which names the primary judges, with the others added."""
    return f"{label}{SECONDARY}{', '.join(panel.secondary)})" if panel.secondary else label


def without_secondary(label: str) -> str:
    """Return ``label`` as it was before :func:`with_secondary`."""
    return label.partition(SECONDARY)[0]


def describe_scale(ratings: Ratings, rubric: Rubric | None) -> ReportScale:
    """Return the instrument: its ``rubric``, or what the table of ratings shows of it."""
    scale, items = ratings.scale, ratings.parts
    if rubric and items:
        domains = [ReportDomain(id=d.id, name=d.name, description=d.description) for d in rubric.domains]
    else:
        domains = [ReportDomain(id=name, name=name.replace("_", " ")) for name in items]
    return ReportScale(
        name=rubric.name if rubric else scale.name if scale else "",
        low=scale.low if scale else None,
        high=scale.high if scale else None,
        total_least=scale.low * ratings.weight if scale else None,
        total_high=scale.high * ratings.weight if scale else None,
        cutoff=scale.cutoff if scale else None,
        note=rubric.note if rubric else "" if scale else "The instrument of these scores is not known here.",
        domains=domains,
    )


def describe_arms(
    sessions: Sequence[SimulatedSession], ratings: Ratings, panel: Panel, analysis: Analysis, reference: str = ""
) -> list[ReportArm]:
    """Return scores, endings, lengths and flow of each arm, in the order of ``analysis``. Failures are those that
    ``analysis`` counts, never imputed. ``reference``: the arm that every other one is compared with, if there is
    one."""
    failed = {arm.name: arm.failed for arm in analysis.completion.arms}
    groups = {group.name: group for group in session_groups(panel_ratings(ratings, panel))}
    labels = Counter(map(_label, groups.values()))
    flows = participant_flow(sessions, ratings, panel, analysis)
    arms = []
    for group in (groups[row.name] for row in analysis.arms):
        arm_sessions = [session for session in sessions if session.arm == group.name]
        begun = [session for session in arm_sessions if session.turns]
        words = [count_words(turn.text) for s in begun for turn in s.turns if turn.role == "therapist"]
        arms.append(
            ReportArm(
                name=group.name,
                label=_label(group) if labels[_label(group)] == 1 else group.name,
                base=group.base,
                variant=group.variant,
                reference=group.name == reference,
                sessions=len(arm_sessions),
                rated=group.n,
                failed=failed[group.name],
                total_mean=group.mean,
                total_sd=group.sd,
                domains=dict(group.items),
                endings=dict(Counter(str(session.ending) for session in arm_sessions if session.ending)),
                turns_mean=_mean([len(session.turns) for session in begun]),
                words_per_therapist_turn=_mean(words),
                flow=flows[group.name],
            )
        )
    return arms


def _label(arm: Group) -> str:
    """Return base and variant if both are known (``Llama tuned``), else this program's label of the arm."""
    return f"{arm.base} {arm.variant}" if arm.base and arm.variant else ARMS.get(arm.name, arm.name)


@dataclass(frozen=True)
class PanelScores:
    """The panel's scores of each session ``(arm, patient, slot)``: those that the analysis compares
    (:func:`cbtrain.eval.analysis.agreement.panel.panel_scores`). A rating without a total counts in the domains that it
    scored. Pooled judges give a total only: single scores without their severity may lie outside the scale."""

    ratings: Ratings
    panel: Panel

    @cached_property
    def totals(self) -> dict[Key, float]:
        return panel_scores(self.ratings, self.panel, self.ratings.total)

    @cached_property
    def domains(self) -> dict[str, dict[Key, float]]:
        """The scores of each domain, by session."""
        if self.panel.pooled:
            return {name: {} for name in self.ratings.parts}
        columns = zip(self.ratings.parts, self.ratings.items.T, strict=bool(self.ratings.parts))
        return {name: panel_scores(self.ratings, self.panel, column) for name, column in columns}

    @cached_property
    def rated(self) -> set[Key]:
        """Sessions with a rating of the panel."""
        return by_panel(self.ratings, self.panel).rated_sessions

    @property
    def limits(self) -> Range:
        """The ends of the scale; without a known scale no score can be at one of them."""
        scale = self.ratings.scale
        return Range(scale.low, scale.high, scale.cutoff) if scale else Range(-math.inf, math.inf)


def describe_sessions(
    sessions: Sequence[SimulatedSession],
    scores: Sequence[Score],
    patient_names: Mapping[str, str],
    ratings: Ratings,
    panel: Panel,
) -> list[ReportSession]:
    """Return every session with its dialogue, all its ratings, their mean, its flags. ``ratings`` are ``scores`` as a
    table."""
    scores_by_session: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        scores_by_session[score.session_id].append(score)
    panel_scores = PanelScores(ratings, panel)
    return [
        _describe_session(
            session,
            scores_by_session[session.id],
            panel_scores,
            patient_names.get(session.patient, session.patient),
        )
        for session in sessions
    ]


def _describe_session(
    session: SimulatedSession, scores: Sequence[Score], panel_scores: PanelScores, patient_name: str
) -> ReportSession:
    """Return ``session`` with its ``scores``, whose status it has."""
    key = (session.arm, session.patient, session.slot)
    not_rated = "not rated: the session failed" if session.failed else "not rated"
    return ReportSession(
        id=session.id,
        arm=session.arm,
        patient=session.patient,
        patient_name=patient_name,
        seed=session.seed,
        number=session.number or None,
        simulator=session.simulator,
        begins_with=session.begins.summary if session.begins else "",
        summary=session.summary,
        ending=session.ending,
        error=session.error,
        turns=[ReportTurn(role=turn.role, text=turn.text) for turn in session.turns],
        domains={name: domain.get(key) for name, domain in panel_scores.domains.items()},
        total=panel_scores.totals.get(key),
        status=", ".join(dict.fromkeys(score.status for score in scores)) or not_rated,
        flags=flags_of(_flag_input(session, scores, panel_scores), panel_scores.limits),
        ratings=[_describe_rating(score) for score in scores],
    )


def _flag_input(session: SimulatedSession, scores: Sequence[Score], panel_scores: PanelScores) -> FlagInput:
    key, panel = (session.arm, session.patient, session.slot), panel_scores.panel
    is_rated = key in panel_scores.rated
    return FlagInput(
        ending=session.ending,
        failed=session.failed and not is_rated,
        turns=len(session.turns),
        domains=[_mean(_panel_domain(scores, name, panel)) for name in panel_scores.ratings.item_names],
        rated=key in panel_scores.totals or (is_rated and not panel.linked),
        total=panel_scores.totals.get(key),
        totals=[score.total for score in scores if score.total is not None],
        marks=[name for name, count in session.marks.items() if count],
        refused=any(is_refusal(turn.text) for turn in session.turns),
    )


def _describe_rating(score: Score) -> ReportRating:
    return ReportRating(
        judge=score.judge,
        repeat=score.repeat,
        status=score.status,
        total=score.total,
        domains=dict(score.domains),
        evidence=score.evidence,
        reason=score.reason,
    )


def _panel_domain(scores: Sequence[Score], domain: str, panel: Panel) -> list[float]:
    """Return the scores that the panel's ratings of a session have in a domain."""
    domain_scores = [score.domains.get(domain) for score in scores if score.judge in panel.judges]
    return [score for score in domain_scores if score is not None]


def title_of(trained: TrainedRun) -> str:
    title = "Base model and tuned therapist with simulated patients"
    if trained.is_tiny:
        size = trained.training[0]["parameters"] / 1e6
        title += (
            f". Smoke test: the base is a tiny model of {size:.1f} million parameters, made from the corpus. It shows "
            "that every stage works, and says nothing about therapy"
        )
    return title


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
