"""What a report says of corpus, training, perplexity, costs and the audit of the rater."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from cbtrain.errors import UserError
from cbtrain.eval.report.schema.estimates import EstimateRow
from cbtrain.eval.report.schema.fields import (
    Always,
    Loose,
    MaybeText,
    Number,
    Part,
    Rows,
    RowTable,
    Text,
    Texts,
    TextsTable,
    Whether,
)


class CleaningRow(Part):
    """How often a cleaning step changed something, in how many sessions, and words that are in no turn any more."""

    times: Number = None
    sessions: Number = None
    words_left_out: Number = None


class ReportCorpus(Part):
    """The corpus of training. ``split``: patients by part; ``together``: why courses were kept in one part; ``leaks``:
    patients and near-duplicate sessions in two parts; ``namesakes``: names in two parts; ``skipped``: why sessions were
    left out."""

    path: Text = ""
    format: Text = ""
    courses: Number = None
    sessions: Number = None
    therapist_turns: Number = None
    words: Number = None
    split: TextsTable = Field(default_factory=dict)
    cleaning: RowTable[CleaningRow] = Field(default_factory=dict)
    together: Texts = Field(default_factory=list)
    leaks: Texts = Field(default_factory=list)
    namesakes: Texts = Field(default_factory=list)
    skipped: Texts = Field(default_factory=list)


class CurvePoint(Part):
    """Losses in nats a token after ``tokens`` tokens of training."""

    tokens: Number = None
    train_loss: Number = None
    validation_loss: Number = None


class StageData(Part):
    """From sessions to tokens: counts for an epoch, and how well packs are filled (0 to 1)."""

    chat_format: MaybeText = None
    units: Number = None
    units_offered: Number = None
    documents: Number = None
    tokens_per_epoch: Number = None
    supervised_per_epoch: Number = None
    whole_recipe_tokens_per_epoch: Number = None
    paper_recipe_tokens_per_epoch: Number = None
    trimmed_tokens: Number = None
    context_left_out_tokens: Number = None
    packs: Number = None
    fill: Number = None
    imbalance: Number = None


class ForgettingRow(Part):
    """Perplexity of base and tuned model on a text that was not trained, by which share it has risen, and the mean
    divergence KL(base ‖ tuned) in nats a token; or why it was not measured. ``warning``: a line if the rise is
    large."""

    text: Text = ""
    about: Text = ""
    tokens: Number = None
    base_perplexity: Number = None
    tuned_perplexity: Number = None
    rise: Number = None
    kl: Number = None
    not_measured: Text = ""
    warning: Text = ""

    @property
    def change_percent(self) -> float | None:
        return None if self.rise is None else 100 * self.rise


class PairsRow(Part):
    """Validation on pairs of answers: how many, and the share (0 to 1) that the model ranked rightly."""

    pairs: Number = None
    accuracy: Number = None


class TrainingStage(Part):
    """One model that was trained; losses in nats a token, of pairs of answers those of the ``objective``. ``pairs`` and
    ``pairs_before`` are of the best validation and of the first."""

    name: Text = ""
    method: Text = ""
    objective: MaybeText = None
    pairs: Always[PairsRow] = Field(default_factory=PairsRow)
    pairs_before: Always[PairsRow] = Field(default_factory=PairsRow)
    parameters: Number = None
    trainable: Number = None
    token_budget: Number = None
    tokens: Number = None
    supervised_tokens: Number = None
    share_of_corpus: Number = None
    epochs: Number = None
    steps: Number = None
    seconds: Number = None
    tokens_per_second: Number = None
    stopped: MaybeText = None
    curve: Rows[CurvePoint] = Field(default_factory=list)
    validation_before: Number = None
    validation_best: Number = None
    forgetting: Rows[ForgettingRow] = Field(default_factory=list)
    data: Whether[StageData] = None


class PerplexityRow(Part):
    """Perplexity of the therapist's words of one held-out patient, before and after fine-tuning."""

    patient: Text = ""
    name: MaybeText = None
    tokens: Number = None
    base: Number = None
    tuned: Number = None
    change_percent: Number = None


class ReportPerplexity(Part):
    tokens_note: Text = ""
    patients: Rows[PerplexityRow] = Field(default_factory=list)
    mean_change_percent: Number = None
    verdict: Text = ""


class RoleCosts(Part):
    """Requests of one role, and what they cost in US dollars. ``models``: requests by the model that answered."""

    role: Text = ""
    models: Loose = Field(default_factory=dict)
    requests: Number = None
    unknown: Number = None
    reused: Number = None
    prompt_tokens: Number = None
    cached_tokens: Number = None
    completion_tokens: Number = None
    dollars: Number = None


class ReportCosts(Part):
    """What requests to APIs cost in US dollars, by prices of the date ``prices``; ``budget``: the limit, if there was
    one."""

    roles: Rows[RoleCosts] = Field(default_factory=list)
    prices: Text = ""
    budget: Number = None


class ProbeFinding(EstimateRow):
    """How far the score ``measure`` moved where one thing was changed, in points; or the ``value`` of a measure that is
    no shift. ``sessions`` were compared."""

    measure: Text = ""
    expected: MaybeText = None
    sessions: Number = None
    shift: Number = None
    value: Number = None
    verdict: MaybeText = None


class ProbeRow(Part):
    """``ways``: how many copies were made by wording, by a writer model, by structure, by code."""

    text: Text = ""
    copies: Number = None
    ways: Loose = Field(default_factory=dict)
    findings: Rows[ProbeFinding] = Field(default_factory=list)


class Rater(Part):
    """Who rated: the ``judge`` by name; ``kind`` is cue, llm, one or several; ``label`` is shown at every score."""

    judge: Text = ""
    kind: Text = ""
    label: Text = ""

    @property
    def credit(self) -> str:
        """Return the label without a full stop: it is quoted inside sentences."""
        return (self.label or self.judge).strip().rstrip(".") or "rater not recorded"


class AuditTest(Part):
    """What an audit says of one kind of bias."""

    name: Text = ""
    verdict: Text = ""
    text: Text = ""


class AuditRubric(Part):
    name: Text = ""


class ReportAudit(Part):
    """Whether the judge sees what was changed in copies of sessions (``cbtrain judge audit``). Files of older versions
    have no ``tests``."""

    cbtrain_version: Text = ""
    notice: Text = ""
    rubric: Always[AuditRubric] = Field(default_factory=AuditRubric)
    sessions: Number = None
    patients: Number = None
    interval: Text = ""
    tests: Rows[AuditTest] = Field(default_factory=list)
    rater: Always[Rater] = Field(default_factory=Rater)
    probes: Rows[ProbeRow] = Field(default_factory=list)


def read_audit(path: Path) -> ReportAudit:
    """Read an ``audit.json``. Raises UserError if it is damaged."""
    hint = "Restore it from a copy, or delete it and repeat `cbtrain judge audit`."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "probes" not in content:
            raise ValueError("not an audit")
        return ReportAudit.model_validate(content)
    except ValidationError as error:
        raise UserError(f"damaged ({error.errors()[0]['msg']})", where=path, hint=hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"damaged ({error})", where=path, hint=hint) from None
