"""What a report says of the simulated patients' audit (``cbtrain patients audit``)."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from cbtrain.errors import UserError
from cbtrain.eval.report.schema.fields import (
    Always,
    Loose,
    LooseRows,
    MaybeText,
    Number,
    Numbers,
    NumberTable,
    Part,
    Rows,
    RowTable,
    Text,
    Texts,
    TextTable,
    Whether,
)


class MeasureOfSet(Part):
    """A measure over the patients of a set, and each patient's value."""

    patients: Number = None
    mean: Number = None
    sd: Number = None
    values: Numbers = Field(default_factory=list)


class AgreementCurve(Part):
    """Shares of answers that agree and that are reserved, by the number of the answer."""

    arm: Text = ""
    agreement: Numbers = Field(default_factory=list)
    reserve: Numbers = Field(default_factory=list)
    half_life: Number = None


class ResemblanceOfSet(Part):
    within: Number = None
    between: Number = None
    recognised: Number = None
    chance: Number = None


class PatientSet(Part):
    name: Text = ""
    source: Text = ""
    sessions: Number = None
    patients: Number = None
    turns: Number = None
    summaries_left_out: Number = None
    measures: RowTable[MeasureOfSet] = Field(default_factory=dict)
    drift: NumberTable = Field(default_factory=dict)
    endings: NumberTable = Field(default_factory=dict)
    agreement: Rows[AgreementCurve] = Field(default_factory=list)
    resemblance: Always[ResemblanceOfSet] = Field(default_factory=ResemblanceOfSet)


class MeasureDifference(Part):
    """The first set's mean of patients minus another's."""

    measure: Text = ""
    mean: Number = None
    other: Number = None
    difference: Number = None
    ci_low: Number = None
    ci_high: Number = None
    standardized: Number = None


class SetComparison(Part):
    with_name: Text = Field("", alias="with")
    differences: Rows[MeasureDifference] = Field(default_factory=list)
    all_at_once: Loose = Field(default_factory=dict)
    patients_of_both: Texts = Field(default_factory=list)


class FactsShare(Part):
    """What a judge read of the patients' cases in their dialogues."""

    fact: Text = ""
    asked: Number = None
    recovered: Number = None
    contradicted: Number = None
    absent: Number = None


class PatientFacts(Part):
    """``why_not``: why facts could not be compared."""

    why_not: MaybeText = None
    judge: Text = ""
    sessions: Number = None
    patients: Number = None
    failed: Number = None
    share: Number = None
    ci_low: Number = None
    ci_high: Number = None
    facts: Rows[FactsShare] = Field(default_factory=list)
    contradictions: LooseRows = Field(default_factory=list)


class ReportPatients(Part):
    """``measures``: what each measure is; ``sets``: the audited one first."""

    cbtrain_version: Text = ""
    notice: Text = ""
    cannot: Text = ""
    measures: TextTable = Field(default_factory=dict)
    sets: Rows[PatientSet] = Field(default_factory=list)
    comparisons: Rows[SetComparison] = Field(default_factory=list)
    facts: Whether[PatientFacts] = None


def read_patients_audit(path: Path) -> ReportPatients:
    """Read a ``patients_audit.json``. Raises UserError if it is damaged."""
    hint = "Restore it from a copy, or delete it and repeat `cbtrain patients audit`."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "sets" not in content:
            raise ValueError("not an audit of patients")
        return ReportPatients.model_validate(content)
    except ValidationError as error:
        raise UserError(f"damaged ({error.errors()[0]['msg']})", where=path, hint=hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"damaged ({error})", where=path, hint=hint) from None
