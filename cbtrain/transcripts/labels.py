"""Who speaks: labels such as ``Therapist:`` that begin a turn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cbtrain.transcripts.label_grammar import ASIDE, BLANK, BOLD, COLON, DASH, INDENT, TIME, TITLE, either
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Role, Session, Turn

AUTHOR_LABELS: Mapping[str, Role] = {"Therapist": "therapist", "Patient": "patient"}
COMMON_LABELS: Mapping[str, Role] = {
    **AUTHOR_LABELS,
    "Counselor": "therapist",
    "Counsellor": "therapist",
    "Clinician": "therapist",
    "Psychologist": "therapist",
    "Psychotherapist": "therapist",
    "Supporter": "therapist",
    "Client": "patient",
    "Seeker": "patient",
    "Help-seeker": "patient",
    **dict.fromkeys(
        ("治疗师", "咨询师", "心理咨询师", "支持者", "カウンセラー", "セラピスト", "상담사", "상담자"), "therapist"
    ),
    **dict.fromkeys(("来访者", "求助者", "患者", "クライエント", "クライアント", "相談者", "내담자"), "patient"),
}


NO_LABELS: Mapping[str, Role] = {}

TEXT_LABELS: Mapping[str, Role] = {
    **COMMON_LABELS,
    **dict.fromkeys(("Doctor", "Psychiatrist", "Helper", "Assistant"), "therapist"),
    **dict.fromkeys(("Therapeut", "Therapeutin", "Terapeuta"), "therapist"),
    **dict.fromkeys(("User", "Human", "Caller", "Visitor"), "patient"),
    **dict.fromkeys(("Klient", "Klientin", "Patientin", "Paciente"), "patient"),
}
"""Labels at the start of lines of a text. Those that :data:`COMMON_LABELS` lacks are words that people say inside turns
too often to be looked for there."""


@lru_cache(maxsize=64)
def strict_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of a label at the very start of a line, spelt exactly, as in the 2024 study's own regex."""
    return re.compile(rf"^({either(labels)}):", re.MULTILINE)


def parse_labelled(text: str, labels: Mapping[str, Role] = AUTHOR_LABELS) -> tuple[str, tuple[Turn, ...]]:
    """Return the preamble and the turns of ``text`` as the 2024 study labels them. A turn is everything up to the next
    label, stripped; the preamble is what stands before the first one."""
    parts = strict_pattern(tuple(labels)).split(text)
    turns = (Turn(labels[label], words.strip()) for label, words in zip(parts[1::2], parts[2::2], strict=True))
    return parts[0].strip(), tuple(turns)


@dataclass(frozen=True, slots=True)
class InnerLabel:
    """A speaker's label at ``[start, end)`` inside a turn's text."""

    start: int
    end: int
    label: str
    role: Role


def inner_labels(text: str, names: Mapping[str, Role]) -> Iterator[InnerLabel]:
    """Labels inside a turn: a common label or one of ``names`` (a patient's or therapist's) at the start of a line or
    right after the end of a sentence, as people and generators write them (``- Patient:``, ``**Patient (Jo):**``).

    A label in the middle of a sentence, or in lower case in running text, is speech about labels and none.
    """
    if ":" not in text and "：" not in text:
        return
    roles = {label.lower(): role for label, role in (*COMMON_LABELS.items(), *names.items())}
    for match in _inner_pattern(tuple(roles)).finditer(text):
        label = match.group(1) or match.group(2)
        if match.group(1) or label[0].isupper():
            yield InnerLabel(match.start(), match.end(), label, roles[label.lower()])


def unknown_labels(text: str, known_names: Iterable[str]) -> Iterator[str]:
    """Words at the start of a line that look like the label of an unknown speaker (``Mother: Yes.``)."""
    names = {name.lower() for name in known_names}
    for match in UNKNOWN.finditer(text):
        if match.group(1).lower() not in names:
            yield match.group(1)


def labels_seen(*texts: str) -> str:
    """Return what looks like a speaker's label at the start of lines, the most frequent ones by name: ``P, T``; nothing
    where there is none."""
    return ", ".join(sorted(label for label, _ in count_labels(*texts).most_common(MOST_SEEN)))


def count_labels(*texts: str) -> Counter[str]:
    """Return how often each word or two, perhaps with an aside, stand before a colon at the start of a line."""
    without_asides = (SEEN_ASIDE.sub("", text) if "(" in text or "（" in text else text for text in texts)
    return Counter(match["label"].strip() for text in without_asides for match in SEEN.finditer(text))


def names_of(profile: Profile | None, therapist_names: Iterable[str]) -> dict[str, Role]:
    """Names that a generator may have written as labels: the patient's whole name, its parts and nicknames, and the
    therapist's. A name of both is the patient's: the therapist must not be given a patient's words."""
    names: dict[str, Role] = dict.fromkeys(therapist_names, "therapist")
    if profile is None:
        return names
    words = [word for word in profile.name.split() if word.strip(".").lower() not in TITLES]
    nicknames = [match.group(1) for match in NICKNAME.finditer(profile.text[:500])]
    for name in (profile.name, " ".join(words), *words[:1], *words[-1:], *nicknames):
        if len(name) > 1:
            names = {other_name: role for other_name, role in names.items() if other_name.lower() != name.lower()}
            names[name] = "patient"
    return names


def speakers_of(
    session: Session, profile: Profile | None, therapist_names: Iterable[str], labels: Mapping[str, Role]
) -> dict[str, Role]:
    """Return what may stand as a label inside turns of ``session`` beside the common labels: :func:`names_of`, and in
    labelled texts ``labels``, those that the reader was given. Where a source names the speakers outside its texts,
    such labels are values of a column, and one inside a text is a word."""
    names = names_of(profile, therapist_names)
    if session.structured or not labels:
        return names
    given = {label.lower() for label in labels}
    return {**{name: role for name, role in names.items() if name.lower() not in given}, **labels}


NAME_THE_LABELS = "name the speakers' labels (corpus.therapist_labels=…, corpus.patient_labels=…)"
"""What reads a text whose labels are not the common ones."""

MOST_SEEN = 6
SEEN = re.compile(
    r"^[ \t]{0,8}(?:[\[(]?\d{1,2}:\d{2}(?::\d{2})?[\])]?[ \t]{1,4})?"  # a time
    r"[\[(<*#>-]{0,4}[ \t]?(?P<label>(?!\d{1,9}\b)[^\W_][\w.'’ -]{0,28})[ \t]?[\])>*]{0,4}[ \t]?[:：](?!//)",
    re.MULTILINE,
)
"""Whatever may be a label: any word or two before a colon."""

SEEN_ASIDE = re.compile(rf"(?<=[\w*]){ASIDE}(?=[*_]{{0,3}}[ \t]?[:：])")
TITLES = {"dr", "mr", "mrs", "ms", "mx", "prof"}
NICKNAME = re.compile(r"[A-Z][\w'-]{1,30} [\"“(]([A-Z][\w'-]{1,20})[\"”)] [A-Z]")
"""``Emilio "Em" Ramirez``."""
UNKNOWN = re.compile(
    rf"^{INDENT}{BOLD}((?:Dr\. )?[A-Z][a-z]{{1,15}}(?: [A-Z][a-z]{{1,15}})?)(?: \([^)\n]{{1,30}}\))?{BOLD}:{BOLD}"
    r"[ \t]{1,80}\S",
    re.MULTILINE,
)


@lru_cache(maxsize=1024)
def _inner_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    end = rf"(?:[ #]?\d{{1,3}})?\]?(?:{ASIDE})?{BOLD}{BLANK}?{COLON}{BOLD}"
    line_start = rf"^{INDENT}{DASH}{TIME}\[?{BOLD}{TITLE}({either(labels)}){end}{BLANK}{{0,8}}"
    after_sentence = rf"(?<=[.!?…。！？])[\"”’)*]{{0,6}}{BLANK}{{0,8}}\[?{BOLD}({either(labels)}){end}"
    after_sentence += rf"(?:{BLANK}{{1,8}}|(?<=：))"
    return re.compile(f"{line_start}|{after_sentence}", re.MULTILINE | re.IGNORECASE)
