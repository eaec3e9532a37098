"""Describe the patients of a study for its report: who they are, and how each fared with each therapist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cbtrain.eval.analysis.agreement.panel import Panel, panel_scores
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.report.course import main_contrast
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.report import ReportPatient
from cbtrain.transcripts.source import natural_key


def describe_patients(
    ratings: Ratings, panel: Panel, analysis: Analysis, names: Mapping[str, str]
) -> list[ReportPatient]:
    """Return every patient in ``ratings``, in natural order of their names; ``names``: by id, where they are known."""
    totals: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (arm, patient, _), total in panel_scores(ratings, panel, ratings.total).items():
        totals[patient][arm].append(total)
    contrast = main_contrast(analysis)
    differences = contrast.patients if contrast else {}
    order = [row.name for row in analysis.arms]
    patients = []
    for patient in sorted(set(map(str, ratings.patient)), key=lambda id_: natural_key(names.get(id_) or id_)):
        by_arm = totals[patient]
        means = {arm: sum(by_arm[arm]) / len(by_arm[arm]) for arm in order if by_arm.get(arm)}
        described = ReportPatient(
            id=patient,
            name=names.get(patient) or patient,
            columns={name: values[patient] for name, values in ratings.moderators.items() if patient in values},
            sessions=sum(map(len, by_arm.values())),
            totals=means,
            contrast=contrast.id if contrast else "",
            difference=differences.get(patient),
        )
        patients.append(described)
    return patients
