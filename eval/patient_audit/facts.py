"""What a reader who knows only the dialogue finds out of a patient's case: facts recovered, contradicted, or not said.

The judge is asked twice: first to fill in a sheet from the dialogue alone, then whether the sheet holds each text of
the case. Facts with labels (age band, severity, engagement, style, risk) are compared without it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, create_model

from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, percentile_interval
from cbtrain.patients.case import COLUMNS, Case, Engagement, Risk, Severity, Style
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.structured import ask
from cbtrain.providers.types import ChatRequest, ChatResponse, Message
from cbtrain.transcripts.types import Turn

AgeBand = Literal["under 18", "18 to 29", "30 to 44", "45 to 59", "60 or more"]
BANDS: tuple[tuple[int, AgeBand], ...] = ((18, "under 18"), (30, "18 to 29"), (45, "30 to 44"), (60, "45 to 59"))
Verdict = Literal["recovered", "contradicted", "absent"]

FEWEST_PATIENTS = 5
"""With fewer, a bootstrap over patients gives an interval that is far too narrow: none is given."""

Chat = Callable[[ChatRequest], Awaitable[ChatResponse]]


class Sheet(BaseModel):
    """Every key must be there (``null`` where the dialogue says nothing), and no other."""

    model_config = ConfigDict(extra="forbid")


class Said(Sheet):
    value: str | None
    turns: list[int]


class AgeRead(Sheet):
    value: AgeBand | None
    turns: list[int]


class SeverityRead(Sheet):
    value: Severity | None
    turns: list[int]


class EngagementRead(Sheet):
    value: Engagement | None
    turns: list[int]


class StyleRead(Sheet):
    value: Style | None
    turns: list[int]


class RiskRead(Sheet):
    value: Risk | None
    turns: list[int]


class Reading(Sheet):
    """What a dialogue says of its patient, with the numbers of the turns that say it."""

    age_band: AgeRead
    gender: Said
    occupation: Said
    complaint: Said
    severity: SeverityRead
    engagement: EngagementRead
    style: StyleRead
    risk: RiskRead
    symptoms: list[Said]
    core_beliefs: list[Said]


class Match(Sheet):
    verdict: Verdict
    turns: list[int]


@dataclass(frozen=True, slots=True)
class Fact:
    """``kind`` is a key of :class:`Reading`; ``labelled``: one of a few values."""

    kind: str
    value: str
    labelled: bool


@dataclass(frozen=True, slots=True)
class FactRead:
    """The verdict on a fact of one session; ``read``: what the dialogue says instead, if that is known."""

    fact: Fact
    verdict: Verdict
    read: str = ""
    turns: Sequence[int] = ()


@dataclass(slots=True)
class SessionFacts:
    """The verdicts on one session; ``problem``: why there are none."""

    session: str
    patient: str
    facts: list[FactRead] = field(default_factory=list)
    problem: str = ""


def facts_in(case: Case) -> list[Fact]:
    """Return the facts of a case that a dialogue can show: labels, then texts. A symptom of severity 0 is none."""
    facts = []
    age = case.demographics.get("age")
    if isinstance(age, int):
        facts.append(Fact("age_band", band_of(age), True))
    labels = ((name, getattr(case, name)) for name in COLUMNS)
    facts += [Fact(name, value, True) for name, value in labels if value is not None]
    told = {name: str(case.demographics.get(name, "")).strip() for name in ("gender", "occupation")}
    facts += [Fact(name, value, False) for name, value in (*told.items(), ("complaint", case.complaint)) if value]
    facts += [Fact("symptoms", symptom.name, False) for symptom in case.symptoms if symptom.severity]
    return facts + [Fact("core_beliefs", belief, False) for belief in case.cognitive_model.core_beliefs]


def band_of(age: int) -> AgeBand:
    """Return the band of an age in years."""
    return next((band for below, band in BANDS if age < below), "60 or more")


async def read_session(
    chat: Chat, session: str, turns: Sequence[Turn], case: Case, max_tokens: int, reasks: int
) -> SessionFacts:
    """Return the verdicts on the facts of ``case`` in one dialogue; with a ``problem`` where the judge gave no usable
    answer: nothing is imputed."""
    found = SessionFacts(session, case.id)
    try:
        read = await ask(chat, _reading_request(turns, max_tokens), Reading, reasks)
        if read.value is None:
            found.problem = read.problem
            return found
        facts = facts_in(case)
        texts = [fact for fact in facts if not fact.labelled]
        verdicts = [_label(fact, read.value) for fact in facts if fact.labelled]
        if texts:
            keys: dict[str, Any] = {f"fact_{number}": (Match, ...) for number in range(1, len(texts) + 1)}
            shape = create_model("Matches", __base__=Sheet, **keys)
            matched = await ask(chat, _match_request(texts, read.value, max_tokens), shape, reasks)
            if matched.value is None:
                found.problem = matched.problem
                return found
            for number, fact in enumerate(texts, 1):
                match: Match = getattr(matched.value, f"fact_{number}")
                verdicts.append(FactRead(fact, match.verdict, _told(fact, read.value), match.turns))
        found.facts = verdicts
    except ProviderError as error:
        found.problem = str(error)
    return found


def summarized(sessions: Sequence[SessionFacts], seed: int) -> dict[str, Any]:
    """Return the counts by fact, the share recovered (mean over patients of their sessions' shares, with a 95 %
    bootstrap interval over patients and sessions), and each contradiction, as plain data."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    shares: dict[str, list[float]] = defaultdict(list)
    contradictions = []
    for session in sessions:
        if session.facts:
            shares[session.patient].append(fmean(read.verdict == "recovered" for read in session.facts))
        for read in session.facts:
            counts[read.fact.kind][read.verdict] += 1
            if read.verdict == "contradicted":
                row = {"session": session.session, "patient": session.patient, "fact": read.fact.kind}
                contradictions.append(row | {"expected": read.fact.value, "read": read.read, "turns": list(read.turns)})
    low = high = None
    if len(shares) >= FEWEST_PATIENTS:
        low, high = percentile_interval(
            hierarchical_bootstrap([np.array(values) for values in shares.values()], seed=seed)
        )
    return {
        "sessions": sum(bool(session.facts) for session in sessions),
        "patients": len(shares),
        "failed": sum(bool(session.problem) for session in sessions),
        "problems": sorted({session.problem for session in sessions if session.problem}),
        "share": fmean(map(fmean, shares.values())) if shares else None,
        "ci_low": low,
        "ci_high": high,
        "facts": [
            {
                "fact": kind,
                "asked": count.total(),
                **{name: count[name] for name in ("recovered", "contradicted", "absent")},
            }
            for kind, count in counts.items()
        ],
        "contradictions": contradictions,
    }


def _label(fact: Fact, reading: Reading) -> FactRead:
    read = getattr(reading, fact.kind)
    if read.value is None:
        return FactRead(fact, "absent")
    return FactRead(fact, "recovered" if read.value == fact.value else "contradicted", read.value, read.turns)


def _told(fact: Fact, reading: Reading) -> str:
    read = getattr(reading, fact.kind)
    return "; ".join(said.value for said in (read if isinstance(read, list) else [read]) if said.value)


def _reading_request(turns: Sequence[Turn], max_tokens: int) -> ChatRequest:
    instructions = (
        "You read one therapy dialogue and fill in a sheet about the patient. Write only what the dialogue itself says "
        "or shows; where it says nothing, the value is null or the list empty. Give the numbers of the turns that each "
        "entry rests on. severity: how ill the patient seems; engagement: how they take part; style: how they talk; "
        "risk: thoughts of suicide or self-harm. core_beliefs are rigid beliefs about oneself, others or the world. "
        "Answer with one JSON object."
    )
    dialogue = "\n\n".join(f"[{number}] {turn.role.capitalize()}: {turn.text}" for number, turn in enumerate(turns, 1))
    messages = (Message("system", instructions), Message("user", dialogue))
    return ChatRequest(messages, max_tokens=max_tokens, temperature=0.0, seed=0)


def _match_request(texts: Sequence[Fact], reading: Reading, max_tokens: int) -> ChatRequest:
    instructions = (
        "You compare a sheet that was filled in from a therapy dialogue with facts of the patient's case. For each "
        "fact: recovered if the sheet says the same in other words, contradicted if it says what cannot be true "
        "together with the fact, absent otherwise. Give the turns that the sheet names for it. Answer with one JSON "
        "object."
    )
    facts = "\n".join(f"fact_{n} ({fact.kind.replace('_', ' ')}): {fact.value}" for n, fact in enumerate(texts, 1))
    sheet = reading.model_dump_json(indent=1)
    messages = (Message("system", instructions), Message("user", f"Sheet:\n{sheet}\n\nFacts:\n{facts}"))
    return ChatRequest(messages, max_tokens=max_tokens, temperature=0.0, seed=0)
