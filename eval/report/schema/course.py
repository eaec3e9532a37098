"""What an analysis says of subgroups, phases and trends: :mod:`cbtrain.eval.analysis.subgroups` and ``trend``."""

from __future__ import annotations

from pydantic import Field

from cbtrain.eval.report.schema.estimates import ContrastRow, EstimateRow
from cbtrain.eval.report.schema.fields import Number, Numbers, Part, Rows, Text, Texts


class SubgroupRow(EstimateRow):
    """A contrast at one ``level`` of ``factor``; ``note`` says why there is no estimate or interval."""

    contrast: Text = ""
    factor: Text = ""
    level: Text = ""
    patients: Number = None
    pairs: Number = None
    note: Text = ""


class VariationRow(Part):
    """A test of whether a contrast varies over the ``levels`` of ``factor``; ``p_adjusted``: after Holm over all."""

    contrast: Text = ""
    factor: Text = ""
    levels: Texts = Field(default_factory=list)
    patients: Number = None
    method: Text = ""
    statistic: Number = None
    df: Numbers = Field(default_factory=list)
    p: Number = None
    p_adjusted: Number = None
    problem: Text = ""


class SubgroupsPart(Part):
    """``estimates`` and ``tests``: how many were looked at."""

    rows: Rows[SubgroupRow] = Field(default_factory=list)
    variation: Rows[VariationRow] = Field(default_factory=list)
    estimates: Number = None
    tests: Number = None
    note: Text = ""


class PhaseRow(Part):
    """An arm's rated sessions in one phase."""

    name: Text = ""
    phase: Text = ""
    n: Number = None
    patients: Number = None
    mean: Number = None
    sd: Number = None


class ArmTrendRow(Part):
    """The mean of the patients' slopes with an arm, in points for each session."""

    name: Text = ""
    patients: Number = None
    sessions: Number = None
    slope: Number = None
    se: Number = None
    ci_low: Number = None
    ci_high: Number = None
    p: Number = None


class TrendPart(Part):
    """``numbers``: of the sessions in their courses; ``contrasts``: differences of slopes."""

    numbers: Numbers = Field(default_factory=list)
    arms: Rows[ArmTrendRow] = Field(default_factory=list)
    contrasts: Rows[ContrastRow] = Field(default_factory=list)
    method: Text = ""
