"""A case as the profile that simulation, rendering and synthesis are given."""

from __future__ import annotations

from collections.abc import Iterator

from cbtrain.patients.case import COLUMNS, Case, Symptom
from cbtrain.transcripts.profile import Profile

LEVELS = ("absent", "mild", "moderate", "severe")
"""What a symptom's severity from 0 to 3 is called."""

ALIASES = {"severity": "Symptom_Severity", "engagement": "Engagement_Level"}
"""What the 2024 study calls a column; splits and cards look for these names."""


def profile_of(case: Case) -> Profile:
    """Return the profile of a patient: ``brief`` in the second person, ``text`` all that is known before the first
    session in the third, under headings. What later phases begin with is in neither."""
    facts = {key.replace("_", " "): str(value) for key, value in case.demographics.items()}
    columns = {ALIASES.get(column, column): str(value) for column in COLUMNS if (value := getattr(case, column))}
    return Profile(
        course=case.id,
        name=case.name,
        brief=" ".join(_brief(case)),
        text="\n\n".join(_sections(case)),
        characteristics=facts | columns,
    )


def _brief(case: Case) -> Iterator[str]:
    yield f"You are {case.name}, a patient in therapy."
    about = [str(case.demographics[key]) for key in ("age", "gender", "occupation") if key in case.demographics]
    if about:
        yield f"About you: {', '.join(about)}."
    if case.complaint.strip():
        yield f'Why you come, in your words: "{_line(case.complaint)}"'
    else:
        present = [symptom.name for symptom in case.symptoms if symptom.severity > 0]
        yield f"You suffer from {', '.join(present) or 'no symptom'}."
    if case.severity:
        yield f"Your symptoms are {case.severity}."
    if case.engagement:
        yield f"Your engagement in therapy is {case.engagement}."


def _sections(case: Case) -> Iterator[str]:
    """Yield a heading with its text for each part of the case that is not empty."""
    model = case.cognitive_model
    who = [f"{key.replace('_', ' ')}: {value}" for key, value in case.demographics.items()]
    situations = [_sentence(one.situation, one.thought, one.feeling, one.behaviour) for one in model.situations]
    parts = {
        "About": _list([f"name: {case.name}", *who]),
        "Why they come, in their own words": _line(case.complaint),
        "History": case.history.strip(),
        f"Symptoms{f' (all in all {case.severity})' if case.severity else ''}": _list(map(_symptom, case.symptoms)),
        "Core beliefs": _list(model.core_beliefs),
        "Rules and assumptions": _list(model.intermediate_beliefs),
        "Situations": _list(situations),
        "Coping": _list(model.coping),
        "Goals": _list(case.goals),
        "In a session": _in_session(case),
        "Risk": case.risk or "",
    }
    yield from (f"{heading}:\n{text}" for heading, text in parts.items() if text)


def _in_session(case: Case) -> str:
    habits = [f"{column}: {value}" for column in ("engagement", "style") if (value := getattr(case, column))]
    return "\n".join(filter(None, [", ".join(habits), case.in_session.strip()]))


def _symptom(symptom: Symptom) -> str:
    return f"{symptom.name}, {LEVELS[symptom.severity]}{f': {symptom.shows}' if symptom.shows else ''}"


def _sentence(situation: str, thought: str, feeling: str, behaviour: str) -> str:
    parts = [f"thought: {thought}", f"feeling: {feeling}" if feeling else "", f"did: {behaviour}" if behaviour else ""]
    return f"{situation.rstrip('.')}. {'; '.join(filter(None, parts))}"


def _list(entries: Iterator[str] | list[str]) -> str:
    return "\n".join(f"- {_line(entry)}" for entry in entries)


def _line(text: str) -> str:
    return " ".join(text.split())
