"""Estimates with their intervals, and the planned contrasts that are such estimates."""

from __future__ import annotations

from pydantic import Field

from cbtrain.eval.report.schema.fields import Number, NumberTable, Part, Text, Texts, Whether


class EstimateRow(Part):
    """A difference or coefficient with its standard error, 95 % interval and p. None is a gap."""

    estimate: Number = None
    se: Number = None
    ci_low: Number = None
    ci_high: Number = None
    p: Number = None
    p_adjusted: Number = None


class EffectRow(Part):
    """Paired effect sizes with 95 % intervals; ``unit``: of what they are."""

    d_z: Number = None
    d_z_low: Number = None
    d_z_high: Number = None
    hedges_g: Number = None
    hedges_g_low: Number = None
    hedges_g_high: Number = None
    unit: Text = ""


class ContrastRow(EstimateRow):
    """A planned difference in points of the total, the patient as the unit; ``patients``: mean difference of each."""

    id: Text = ""
    family: Text = ""
    patients: NumberTable = Field(default_factory=dict)
    pairs: Number = None
    method: Text = ""
    bootstrap_low: Number = None
    bootstrap_high: Number = None
    p_sign_flip: Number = None
    effect: Whether[EffectRow] = None
    notes: Texts = Field(default_factory=list)
