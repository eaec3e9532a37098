"""The analysis in a report: what :func:`cbtrain.eval.analysis.analyze.analysis` computes, field by field."""

from __future__ import annotations

from pydantic import Field

from cbtrain.eval.report.schema.course import PhaseRow, SubgroupsPart, TrendPart
from cbtrain.eval.report.schema.estimates import ContrastRow, EstimateRow
from cbtrain.eval.report.schema.fields import (
    Always,
    Flag,
    MaybeText,
    Number,
    Numbers,
    NumbersTable,
    NumberTable,
    Pairs,
    Part,
    Rows,
    Text,
    Texts,
    Whether,
)


class JudgesContrastRow(ContrastRow):
    """A contrast by the first of two ``judges`` minus the same contrast by the second."""

    judges: Texts = Field(default_factory=list)


class ModelRow(EstimateRow):
    """A planned difference from a mixed model; ``problem`` says why there is none, or what is doubtful."""

    id: Text = ""
    problem: Text = ""


class ItemRow(EstimateRow):
    """A contrast of one domain."""

    contrast: Text = ""
    item: Text = ""


class SubscaleRow(EstimateRow):
    """A contrast of one sub-scale: the mean of its items, in points of an item."""

    contrast: Text = ""
    subscale: Text = ""
    items: Texts = Field(default_factory=list)


class PlanRow(Part):
    """A contrast that was planned: each pair is two arms by name, the first minus the second."""

    id: Text = ""
    family: Text = ""
    pairs: Pairs = Field(default_factory=list)


class ArmRow(Part):
    """Base and variant of an arm, and the arm that it is compared with if that is declared; ``is_reference``: every
    other arm is compared with this one."""

    name: Text = ""
    base: Text = ""
    variant: Text = ""
    reference: Text = ""
    is_reference: Flag = False


class PanelPart(Part):
    """``judges`` determine the result, those in ``secondary`` are reported for comparison (``beside`` in the file).
    ``rotating``: the judges took turns."""

    judges: Texts = Field(default_factory=list)
    secondary: Texts = Field(default_factory=list, alias="beside")
    pooled: Flag = False
    rotating: Flag = False
    linked: Flag = False


class BootstrapPart(Part):
    draws: Number = None
    seed: Number = None
    levels: Text = ""


class AnalysisScale(Part):
    minimum: Number = Field(None, alias="min")
    maximum: Number = Field(None, alias="max")
    total_min: Number = None
    total_max: Number = None
    cutoff: Number = None


class GroupRow(Part):
    """An arm's rated sessions: number, mean, SD and range of the totals, and the mean of each domain."""

    name: Text = ""
    base: Text = ""
    variant: Text = ""
    n: Number = None
    mean: Number = None
    sd: Number = None
    low: Number = None
    high: Number = None
    items: NumberTable = Field(default_factory=dict)


class VariancesPart(Part):
    """Variances of patients, of patients by arm and of sessions, in squared points."""

    patients: Number = None
    by_arm: Number = None
    residual: Number = None


class InteractionPart(Part):
    """A test of whether tuning changes bases by different amounts. ``sizes``: of each base, how far its gain lies above
    that of ``reference``; ``intervals``: two ends each."""

    statistic: Number = None
    df: Numbers = Field(default_factory=list)
    p: Number = None
    patients: Number = None
    reference: Text = ""
    sizes: NumberTable = Field(default_factory=dict)
    intervals: NumbersTable = Field(default_factory=dict)
    problem: Text = ""


class LevelRow(Part):
    """Of an arm's ``n`` rated sessions, those at or above the cut-off; of its single scores, those at either end."""

    name: Text = ""
    n: Number = None
    cutoff: Number = None
    at_or_above: Number = None
    share: Number = None
    share_low: Number = None
    share_high: Number = None
    floor_share: Number = None
    ceiling_share: Number = None


class ArmLengthRow(Part):
    name: Text = ""
    sessions: Number = None
    turns_mean: Number = None
    turns_sd: Number = None
    words_mean: Number = None


class CorrelationPart(Part):
    """Spearman's correlation of turns and total over ``n`` sessions."""

    r: Number = None
    ci_low: Number = None
    ci_high: Number = None
    n: Number = None


class SlopePart(Part):
    """Points for each unit of ln(turns)."""

    slope: Number = None
    se: Number = None
    ci_low: Number = None
    ci_high: Number = None
    p: Number = None


class LongSessionsPart(Part):
    """Contrasts of sessions of at least ``turns`` turns."""

    turns: Number = None
    contrasts: Rows[ContrastRow] = Field(default_factory=list)


class MatchedPart(Part):
    """Contrasts of pairs of sessions of about equal length."""

    caliper: Number = None
    contrasts: Rows[ContrastRow] = Field(default_factory=list)


class LengthPart(Part):
    """Whether differences between arms are differences in length."""

    arms: Rows[ArmLengthRow] = Field(default_factory=list)
    spearman: Whether[CorrelationPart] = None
    covariate: Whether[SlopePart] = None
    adjusted: Rows[ModelRow] = Field(default_factory=list)
    at_least: Always[LongSessionsPart] = Field(default_factory=LongSessionsPart)
    matched: Always[MatchedPart] = Field(default_factory=MatchedPart)


class ArmCompletionRow(Part):
    """What became of the sessions that were planned for an arm; ``endings`` counts them by ending."""

    name: Text = ""
    planned: Number = None
    failed: Number = None
    unrated: Number = None
    rated: Number = None
    endings: NumberTable = Field(default_factory=dict)


class CompletionPart(Part):
    """``contrasts``: differences in the share of sessions with a score; ``failures``: in the share that failed."""

    arms: Rows[ArmCompletionRow] = Field(default_factory=list)
    contrasts: Rows[ContrastRow] = Field(default_factory=list)
    failures: Rows[ContrastRow] = Field(default_factory=list)


class BoundsRow(EstimateRow):
    """How far the ``missing`` scores could move a contrast."""

    id: Text = ""
    missing: Number = None
    worst_low: Number = None
    worst_high: Number = None
    worst_ci_low: Number = None
    worst_ci_high: Number = None


class AgreementRow(Part):
    """Agreement of several judges on the total or on one domain (``item``)."""

    item: MaybeText = None
    icc_single: Always[EstimateRow] = Field(default_factory=EstimateRow)
    icc_mean: Always[EstimateRow] = Field(default_factory=EstimateRow)
    icc_consistency: Always[EstimateRow] = Field(default_factory=EstimateRow)
    kappa: Always[EstimateRow] = Field(default_factory=EstimateRow)
    alpha: Always[EstimateRow] = Field(default_factory=EstimateRow)
    exact: Always[EstimateRow] = Field(default_factory=EstimateRow)
    adjacent: Always[EstimateRow] = Field(default_factory=EstimateRow)


class BetweenRow(Part):
    """Agreement of ``judges`` on the ``sessions`` that all of them rated. ``kind``: people, people and judges, judges,
    or all; older reports have none."""

    kind: Text = ""
    judges: Texts = Field(default_factory=list)
    sessions: Number = None
    total: Always[AgreementRow] = Field(default_factory=AgreementRow)
    items: Rows[AgreementRow] = Field(default_factory=list)


class RetestRow(Part):
    """A judge's agreement with itself over ``repeats`` ratings of the same sessions."""

    judge: Text = ""
    sessions: Number = None
    repeats: Number = None
    icc: Always[EstimateRow] = Field(default_factory=EstimateRow)
    sd: Always[EstimateRow] = Field(default_factory=EstimateRow)


class HaloRow(Part):
    """How much one overall impression determines a judge's ratings of all domains."""

    judge: Text = ""
    sessions: Number = None
    alpha: Always[EstimateRow] = Field(default_factory=EstimateRow)
    mean_r: Always[EstimateRow] = Field(default_factory=EstimateRow)
    first_factor: Always[EstimateRow] = Field(default_factory=EstimateRow)


class JudgeRow(Part):
    """The planned contrasts from one judge's ratings alone."""

    judge: Text = ""
    contrasts: Rows[ContrastRow] = Field(default_factory=list)


class AgreementPart(Part):
    """Reliability of the ratings: agreement between judges and of a judge with itself, halo, conclusions by judge."""

    judges: Texts = Field(default_factory=list)
    between: Rows[BetweenRow] = Field(default_factory=list)
    severity: NumberTable = Field(default_factory=dict)
    retest: Rows[RetestRow] = Field(default_factory=list)
    halo: Rows[HaloRow] = Field(default_factory=list)
    by_judge: Rows[JudgeRow] = Field(default_factory=list)
    judge_by_arm: Rows[JudgesContrastRow] = Field(default_factory=list)


class Analysis(Part):
    """The planned contrasts and everything that checks them; a list is empty and a part None if it was not computed.

    The own analyses of the two studies (``protocol`` is ``tahir2024`` or ``tahir2025``) have other keys, and no report.
    """

    protocol: Text = ""
    notice: Text = ""
    ratings: Number = None
    patients: Number = None
    judges: Texts = Field(default_factory=list)
    scale: Whether[AnalysisScale] = None
    arms: Rows[ArmRow] = Field(default_factory=list)
    arms_found: Text = ""
    panel: Always[PanelPart] = Field(default_factory=PanelPart)
    notes: Texts = Field(default_factory=list)
    bootstrap: Always[BootstrapPart] = Field(default_factory=BootstrapPart)
    plan: Rows[PlanRow] = Field(default_factory=list)
    groups: Rows[GroupRow] = Field(default_factory=list)
    contrasts: Rows[ContrastRow] = Field(default_factory=list)
    mixed_models: Rows[ModelRow] = Field(default_factory=list)
    variances: Whether[VariancesPart] = None
    interaction: Whether[InteractionPart] = None
    items: Rows[ItemRow] = Field(default_factory=list)
    subscales: Rows[SubscaleRow] = Field(default_factory=list)
    levels: Rows[LevelRow] = Field(default_factory=list)
    length: Whether[LengthPart] = None
    subgroups: Whether[SubgroupsPart] = None
    by_phase: Rows[PhaseRow] = Field(default_factory=list)
    trend: Whether[TrendPart] = None
    completion: Always[CompletionPart] = Field(default_factory=CompletionPart)
    bounds: Rows[BoundsRow] = Field(default_factory=list)
    agreement: Whether[AgreementPart] = None
