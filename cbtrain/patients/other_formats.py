"""Patients in the formats of the two studies (Tahir 2024 and 2025) and of a corpus's profiles, as cases.

What such a format does not have stays empty; what cannot be taken over is said. The prose becomes the history word for
word: nothing is rewritten.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.patients.case import COLUMNS, Case
from cbtrain.patients.faults import Faults, Notes
from cbtrain.patients.record import case_of
from cbtrain.text.language import UNKNOWN, language_of
from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile, parse_author_profile, parse_profile
from cbtrain.transcripts.source import natural_key, stem_of

PROFILE_FILE = "patient_profile"
SET = re.compile(r"depression_set_(\d{1,9})")
NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9_-]+")

SYMPTOM = "depression"
LEVELS = {"mild": 1, "moderate": 2, "severe": 3}
"""What a severity of all symptoms is as that of the one symptom which the format does not divide."""

ABOUT_PROFILES = (
    "a profile of the 2024 study's kind: prose is the history, Symptom_Severity the one symptom; no style, risk, "
    "goals, beliefs, situations or phases are in it"
)
ABOUT_SCENARIOS = (
    "a profile of the 2025 study's kind: scenario is the history, interaction style how they are in a session; the "
    "archetype's instructions to a model are left out; no engagement, style, risk, beliefs or phases are in it"
)
NO_NAME = "the format has no name: they are called by their place in the file"
NO_LEVEL = "the format has no severity of the symptom: it is taken as 2 (moderate)"

SCENARIO = "full_scenario_text"
WHO = {
    "age": re.compile(r"\((\d[\d+-]{0,10})\)"),
    "gender": re.compile(r"identifies as ([^,.]{1,40})"),
    "occupation": re.compile(r"works as an? ([^,.]{1,60})"),
    "status": re.compile(r"is currently ([^,.]{1,40})"),
}
"""Facts of a scenario's first sentence."""
CONCERN, ENDS = "Primary concern involves ", (", particularly", ". ")


def is_profile(record: Mapping[str, Any]) -> bool:
    """Return whether a record is a profile of the 2024 study, or of a corpus in cbtrain's own layout."""
    return record.get("schema") == PROFILE_SCHEMA or ("profile" in record and "name" not in record)


def is_scenario(record: Mapping[str, Any]) -> bool:
    """Return whether a record is a profile of the 2025 study."""
    return SCENARIO in record


def profile_files(folder: Path) -> list[Path]:
    """Return the 2024 study's files of profiles under ``folder``, in the order of their numbers."""
    found = [*folder.rglob(f"{PROFILE_FILE}.json"), *folder.rglob(f"{PROFILE_FILE}.json.gz")]
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def id_of_file(path: Path) -> str:
    """Return the id of the patient in a file: that of the course (``set-7``) in the 2024 study's folders, else by the
    name of the file, or of its folder where all files are called the same."""
    name = path.absolute().parent.name if stem_of(path) == PROFILE_FILE else stem_of(path)
    match = SET.fullmatch(name)
    return f"set-{match[1]}" if match else id_from(name)


def id_from(text: str) -> str:
    """Return ``text`` as an id, without accents: ``Zoë Whitlock`` is ``zoe-whitlock``. May be empty."""
    letters = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return NOT_OF_AN_ID.sub("-", letters.lower()).strip("-_")[:60]


def case_of_profile(record: Mapping[str, Any], path: Path, where: str, faults: Faults, notes: Notes) -> Case | None:
    """Return a profile of the 2024 study, or of a corpus, as a case; None if it is none, and ``faults`` says why."""
    try:
        if record.get("schema") == PROFILE_SCHEMA:
            content = {key: value for key, value in record.items() if key != "schema"}
            profile = parse_profile(content, where)
        else:
            profile = parse_author_profile(id_of_file(path), record, where)
    except UserError as error:
        faults.add(error)
        return None
    severity = profile.first("Symptom_Severity") or profile.first("severity")
    if severity.lower() not in LEVELS:
        known = ", ".join(level.capitalize() for level in LEVELS)
        what = f"Symptom_Severity {severity!r}" if severity else "no Symptom_Severity"
        hint = f"A patient has a symptom, and this format tells its severity only there: {known}."
        faults.add(UserError(what, where=where, hint=hint))
        return None
    case = case_of(_from_profile(profile, severity.lower(), notes), where, faults)
    if case:
        notes.add(ABOUT_PROFILES, case.id)
    return case


def _from_profile(profile: Profile, severity: str, notes: Notes) -> dict[str, Any]:
    text = profile.text or profile.brief
    record: dict[str, Any] = {
        "id": id_from(profile.course) or profile.course,
        "name": profile.name,
        "language": language_in(text),
        "history": text,
        "severity": severity,
        "symptoms": [{"name": SYMPTOM, "severity": LEVELS[severity]}],
    }
    demographics = {}
    for name, value in profile.characteristics.items():
        key = "_".join(name.lower().split())
        if key in ("symptom_severity", "severity"):
            continue
        column = key.removesuffix("_level")
        if column in COLUMNS:
            first = profile.first(name).lower()
            if first in COLUMNS[column]:
                record[column] = first
            else:
                notes.add(f"{name} {first!r} is not one of {', '.join(COLUMNS[column])}: left out", record["id"])
        elif key == "coping_mechanisms":
            values = [value] if isinstance(value, str) else value
            record["cognitive_model"] = {"coping": [one for one in values if one.strip()]}
        else:
            demographics[key] = fact(value if isinstance(value, str) else "; ".join(value))
    return record | {"demographics": demographics}


def case_of_scenario(record: Mapping[str, Any], number: int, where: str, faults: Faults, notes: Notes) -> Case | None:
    """Return the ``number``-th profile of the 2025 study's file as a case; None if it is none."""
    texts = {key: value.strip() for key, value in record.items() if isinstance(value, str)}
    scenario = texts.get(SCENARIO, "")
    concern, shows = _concern(scenario)
    if not concern:
        hint = f"{SCENARIO} says 'Primary concern involves …', from which the symptom comes."
        faults.add(UserError("no primary concern", where=where, hint=hint))
        return None
    level, _, rest = concern.partition(" ")
    severity = level if level in LEVELS else None
    style = [texts.get("interaction_style_name", ""), texts.get("interaction_style_description", "")]
    first = scenario.partition(". ")[0]
    demographics = {name: found[1].strip() for name, pattern in WHO.items() if (found := pattern.search(first))}
    unknown = not demographics
    for key, name in (("archetype_name", "archetype"), ("psych_mindedness_level", "psychological_mindedness")):
        if texts.get(key):
            demographics[name] = texts[key]
    symptom = {
        "name": rest if severity else concern,
        "severity": LEVELS.get(level, 2),
        "shows": shows,
    }
    case = case_of(
        {
            "id": texts.get("profile_hash") or f"scenario-{number}",
            "name": f"Patient {number}",
            "language": language_in(scenario),
            "demographics": demographics,
            "severity": severity,
            "complaint": texts.get("presenting_problem_detail", ""),
            "history": scenario,
            "symptoms": [symptom],
            "in_session": ": ".join(filter(None, style)),
        },
        where,
        faults,
    )
    if case:
        notes.add(ABOUT_SCENARIOS, case.id)
        notes.add(NO_NAME, case.id)
        if severity is None:
            notes.add(NO_LEVEL, case.id)
        if unknown:
            notes.add("age, gender and occupation are not found in the scenario", case.id)
    return case


def _concern(scenario: str) -> tuple[str, str]:
    """Return what a scenario calls its primary concern, and how that shows (in parentheses); empty if it has none."""
    text = scenario.partition(CONCERN)[2]
    for end in ENDS:
        if end in text:
            text = text.partition(end)[0]
            break
    name, _, shows = text.partition(" (")
    return name.strip(" ."), shows.strip(" .").removesuffix(")")


def language_in(text: str) -> str:
    """Return the language of a text of somebody else's; English if it cannot be told."""
    found = language_of(text)
    return "en" if found == UNKNOWN else found


def fact(text: str) -> str | int:
    """Return a fact as a whole number if it is one, also with decimals that are 0 (``34,0``), else as it is."""
    text = text.strip()
    whole, mark, decimals = text.replace(",", ".").partition(".")
    # Digits that another number begins with would be lost: 0123 is a code.
    plain = whole.isascii() and whole.isdecimal() and len(whole) < 10 and (whole == "0" or whole[0] != "0")
    # 1,000 has a mark between thousands.
    return int(whole) if plain and (not mark or decimals in ("0", "00")) else text
