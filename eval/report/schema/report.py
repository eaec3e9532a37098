"""One report: what an evaluation found, and how it was made.

``report.json`` has the same keys as these models, except for the aliases. Reading never trusts a file: a missing or odd
part becomes an empty one (see :mod:`cbtrain.eval.report.schema.fields`), and keys that this version does not know are
kept. Parts that hold what other packages decide (settings, protocol, prompts, environment) stay plain tables.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from cbtrain.errors import UserError
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.fields import (
    Always,
    Flag,
    IndicesTable,
    Loose,
    LooseRows,
    MaybeText,
    MaybeTexts,
    Number,
    NumberTable,
    Part,
    Rows,
    Text,
    Texts,
    TextTable,
    Whether,
    Whole,
    plain,
)
from cbtrain.eval.report.schema.patients import ReportPatients
from cbtrain.eval.report.schema.questionnaire import QuestionnairePart, ReportAnswers
from cbtrain.eval.report.schema.training import (
    Rater,
    ReportAudit,
    ReportCorpus,
    ReportCosts,
    ReportPerplexity,
    TrainingStage,
)
from cbtrain.files import write_atomic

VERSION = 2
"""Of the keys in ``report.json``. It rises where a key changes its meaning, not where one is added."""

SCHEMA = "cbtrain.report/2"


class ReportDomain(Part):
    """A domain of the scale. A domain without an id is left out."""

    id: Text = ""
    name: Text = ""
    description: Text = ""


class ReportScale(Part):
    """The instrument: the points of a domain, the lowest and highest total, and the total that counts as competent.
    None if it is not known."""

    name: Text = ""
    low: Number = Field(None, alias="min")
    high: Number = Field(None, alias="max")
    total_least: Number = Field(None, alias="total_min")
    total_high: Number = Field(None, alias="total_max")
    cutoff: Number = None
    note: Text = ""
    domains: Rows[ReportDomain] = Field(default_factory=list)

    @property
    def total_low(self) -> float | None:
        """Return the lowest total. Reports of older versions do not name it: no domain had a weight."""
        if self.total_least is not None or self.low is None:
            return self.total_least
        return self.low * len(self.domains)


class ArmFlow(Part):
    """What became of an arm's sessions, in sessions; None is not known.

    ``planned``: in the plan. ``held``: ended, in whatever way, and ``endings`` counts how. ``failed``: of these, those
    that ended for a reason that says nothing about the therapist and have no score; ``failures``: for which reason.
    ``rated``: with a score. ``paired``: of these, those with a rated session of another arm with the same patient and
    seed in a planned contrast. ``contrast``: the first planned contrast with this arm; ``compared``: sessions of this
    arm in it, and ``patients`` their patients.
    """

    planned: Number = None
    held: Number = None
    endings: NumberTable = Field(default_factory=dict)
    failed: Number = None
    failures: NumberTable = Field(default_factory=dict)
    rated: Number = None
    paired: Number = None
    contrast: Text = ""
    compared: Number = None
    patients: Number = None


class ReportArm(Part):
    """A therapist under test: its scores, and what became of its sessions. ``endings`` counts sessions by ending.
    ``reference``: whether every other arm is compared with this one."""

    name: Text = ""
    label: Text = ""
    base: Text = ""
    variant: Text = ""
    reference: Flag = False
    sessions: Number = None
    rated: Number = None
    failed: Number = None
    total_mean: Number = None
    total_sd: Number = None
    domains: NumberTable = Field(default_factory=dict)
    endings: NumberTable = Field(default_factory=dict)
    turns_mean: Number = None
    words_per_therapist_turn: Number = None
    flow: Whether[ArmFlow] = None


class ReportTurn(Part):
    """A turn. ``facts``: tokens, seconds, the model that answered. ``request`` is the place of the request in the
    report's ``requests``; ``raw``: the reply as it came, if it differs from ``text``."""

    role: Text = ""
    text: Text = ""
    facts: Loose = Field(default_factory=dict)
    request: Whole = None
    raw: MaybeText = None


class ReportRating(Part):
    """A rating of one session. ``evidence``: indices of turns, by domain; ``reason``: by domain, and under ``note`` and
    ``error`` what is about the whole session."""

    judge: Text = ""
    repeat: Whole = None
    status: Text = ""
    total: Number = None
    domains: NumberTable = Field(default_factory=dict)
    evidence: IndicesTable = Field(default_factory=dict)
    reason: TextTable = Field(default_factory=dict)


class ReportPatient(Part):
    """A patient: ``columns`` (severity and so on) that are known, rated sessions, mean total of each arm by name, and
    mean difference in the contrast ``contrast``, the first planned one that averages over bases or else the first."""

    id: Text = ""
    name: Text = ""
    columns: TextTable = Field(default_factory=dict)
    sessions: Number = None
    totals: NumberTable = Field(default_factory=dict)
    contrast: Text = ""
    difference: Number = None


class ReportSession(Part):
    """A simulated session with its dialogue, its score (``domains``, ``total``), all its ratings, its flags, and
    the patient's own ``answers`` if there was a questionnaire. ``number``: in its course; ``simulator``: who played the
    patient, if there are several. ``begins_with``: the summary that both knew at its beginning; ``summary``: the one
    that was written after it."""

    id: Text = ""
    arm: Text = ""
    patient: Text = ""
    patient_name: MaybeText = None
    seed: Whole = None
    number: Whole = None
    simulator: Text = ""
    begins_with: Text = ""
    summary: Text = ""
    ending: MaybeText = None
    error: MaybeText = None
    turns: Rows[ReportTurn] = Field(default_factory=list)
    domains: NumberTable = Field(default_factory=dict)
    total: Number = None
    status: Text = ""
    flags: Texts = Field(default_factory=list)
    ratings: Rows[ReportRating] = Field(default_factory=list)
    answers: Whether[ReportAnswers] = None


class ReportInstrument(Part):
    """The result by an instrument beside the primary one. ``judges``: who rated by it."""

    id: Text = ""
    scale: Always[ReportScale] = Field(default_factory=ReportScale)
    judges: Text = ""
    analysis: Always[Analysis] = Field(default_factory=Analysis)


class Report(Part):
    """``requests`` are those that turns answer, each once, without the turns before. ``deviations`` is None if no
    protocol was journalled, so that nothing can be said of any. ``questionnaire``: what the simulated patients
    answered, None if they were asked nothing. ``seconds`` and ``peak_memory_gb`` are of training and evaluation
    together."""

    schema_version: Text = Field("", alias="schema")
    created: Text = ""
    cbtrain_version: Text = ""
    notice: Text = ""
    title: Text = ""
    peak_memory_gb: Number = None
    corpus: Whether[ReportCorpus] = None
    training: Rows[TrainingStage] = Field(default_factory=list)
    rater: Always[Rater] = Field(default_factory=Rater)
    scale: Always[ReportScale] = Field(default_factory=ReportScale)
    arms: Rows[ReportArm] = Field(default_factory=list)
    patients: Rows[ReportPatient] = Field(default_factory=list)
    analysis: Always[Analysis] = Field(default_factory=Analysis)
    instruments: Rows[ReportInstrument] = Field(default_factory=list)
    questionnaire: Whether[QuestionnairePart] = None
    audit: Whether[ReportAudit] = None
    patients_audit: Whether[ReportPatients] = None
    protocol: Loose = Field(default_factory=dict)
    deviations: MaybeTexts = None
    prompts: Loose = Field(default_factory=dict)
    sessions: Rows[ReportSession] = Field(default_factory=list)
    requests: LooseRows = Field(default_factory=list)
    config: Loose = Field(default_factory=dict)
    environment: Loose = Field(default_factory=dict)
    costs: Whether[ReportCosts] = None
    perplexity: Whether[ReportPerplexity] = None
    seconds: Number = None

    @model_validator(mode="after")
    def _complete(self) -> Report:
        """Name every arm, and add the arms and domains that only sessions and scores name."""
        arms: dict[str, ReportArm] = {}
        for arm in self.arms:
            arm.name = arm.name or arm.label or "arm"
            arm.label = arm.label or arm.name
            arms.setdefault(arm.name, arm)
        for session in self.sessions:
            if session.arm and session.arm not in arms:
                arms[session.arm] = ReportArm(name=session.arm, label=session.arm)
        if list(arms.values()) != self.arms:
            self.arms = list(arms.values())
        domains = {domain.id: domain for domain in self.scale.domains if domain.id}
        scored = [arm.domains for arm in self.arms] + [session.domains for session in self.sessions]
        for name in dict.fromkeys(name for scores in scored for name in scores):
            domains.setdefault(name, ReportDomain(id=name, name=name))
        for domain in domains.values():
            domain.name = domain.name or domain.id
        if list(domains.values()) != self.scale.domains:
            self.scale.domains = list(domains.values())
        return self

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a ``report.json`` of this version or an older one. Raises UserError if it is missing, damaged, no
        report, or of a newer version."""
        hint = "Name a report.json that cbtrain has written."
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError("no such report", where=path, hint=hint) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"damaged ({error})", where=path, hint="Evaluate the run again.") from None
        schema = content.get("schema") if isinstance(content, dict) else None
        version = re.fullmatch(r"cbtrain\.report/(\d{1,9})", schema) if isinstance(schema, str) else None
        if version is None:
            raise UserError("no report of cbtrain", where=path, hint=hint)
        if int(version[1]) > VERSION:
            what = f"written by a newer cbtrain (schema {schema}, and this version reads up to {VERSION})"
            raise UserError(what, where=path, hint="Install that version.")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"damaged ({where}: {first['msg']})", where=path, hint="Evaluate the run again.") from None

    def to_json(self) -> str:
        """Return the text of ``report.json``: every part that was set, with null for what JSON has no number for."""
        content = plain(self.model_dump(by_alias=True, exclude_unset=True))
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        write_atomic(path, self.to_json())

    def updated(self, newer: Report) -> Report:
        """Return a copy in which the parts that were set in ``newer`` take the place of these."""
        parts = {name: getattr(newer, name) for name in newer.model_fields_set}
        return self.model_copy(update=parts)
