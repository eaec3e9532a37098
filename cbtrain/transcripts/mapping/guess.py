"""Guess the map of files that nobody has described, and say what is not sure: who the therapist is, above all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cbtrain.errors import UserError
from cbtrain.transcripts.exports.layouts import unified
from cbtrain.transcripts.labels import count_labels
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.names import ORDER, SESSION, SPEAKER, TEXT, role_of
from cbtrain.transcripts.mapping.shapes import WHOLE, first_column, listed
from cbtrain.transcripts.mapping.tables import TABLES, read_rows
from cbtrain.transcripts.readers import plain_text, records
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import read_items, suffix_of
from cbtrain.transcripts.types import Role

LOOKED_AT = 200
"""Records that a guess is made from."""

MOST_SPEAKERS = 12
"""Different values from which a key is no speaker's name any more."""

QUESTIONS = ("question", "patient", "client", "user", "prompt", "instruction", "input", "query", "human", "context")
ANSWERS = ("answer", "therapist", "counsel", "assistant", "response", "output", "completion", "reply", "gpt", "doctor")
"""Parts of names of columns that hold a patient's and a therapist's words."""


@dataclass(slots=True)
class Guess:
    """``map``: its keys as they would be written; ``speakers`` counts turns by what the files call their speaker, in
    ``files`` that name speakers, of which each speaker is in ``in_files``; ``unsure`` says what a person has to decide;
    ``seen`` is what the first file holds."""

    seen: str
    map: dict[str, Any] = field(default_factory=dict)
    speakers: Counter[str] = field(default_factory=Counter)
    unsure: list[str] = field(default_factory=list)
    files: int = 1
    in_files: Counter[str] = field(default_factory=Counter)

    def add(self, speakers: Counter[str]) -> None:
        """Count the speakers of another file."""
        self.files += bool(speakers)
        self.speakers += speakers
        self.in_files.update(list(speakers))

    def roles(self, labels: Mapping[str, Role]) -> dict[str, Role | Literal["?"] | None]:
        """Return who each speaker is, ``"?"`` if nobody knows."""
        extra: dict[str, Role | None] = {name.casefold(): role for name, role in labels.items()}
        return {name: role_of(name, extra) for name in self.speakers}


def guess(path: Path, labels: Mapping[str, Role], metadata: Path | None = None) -> Guess:
    """Return a map for the files at ``path``, made from the first that can be read, with the speakers of all files of
    its kind. ``metadata``: a table among them that is no transcript. Raises UserError if there is none."""
    options = ReadOptions(on_bad=lambda error: None, labels=labels)
    files = records.data_files(path, metadata) if path.is_dir() or suffix_of(path) in records.SUFFIXES else []
    guessed = _of_records(files, options)
    if guessed is None:
        guessed = _of_texts([file for file in plain_text.text_files(path) if plain_text.detects(file)])
    if guessed is None:
        if files:
            raise records.unknown_shape(files[0], path, CorpusMap())
        raise UserError("no table, JSON or text in it", where=path, hint="Name a file or a folder of transcripts.")
    _ask_who(guessed, labels)
    return guessed


def _of_records(files: Sequence[Path], options: ReadOptions) -> Guess | None:
    """Return the guess for files of records and tables: the map of the first that can be read, the speakers of all."""
    guessed: Guess | None = None
    others: list[Path] = []
    for file in files:
        try:
            corpus_map = records.map_of(file, options)
            one = _known(file, corpus_map, options) if corpus_map else _unknown(file)
        except UserError as error:
            if len(files) == 1:
                raise
            one = Guess("", unsure=[str(error)])
        if guessed is None or not guessed.map:
            if one is not None:
                earlier = guessed.unsure if guessed else []
                guessed = replace(one, speakers=Counter(), unsure=[*earlier, *one.unsure], files=0)
                guessed.add(one.speakers)
        elif one is None or not _same_layout(one.map, guessed.map):
            others.append(file)
        else:
            guessed.add(one.speakers)
    if guessed is None or not guessed.map:
        return None
    if others:
        guessed.unsure.append(
            f"files of another layout: {listed(file.name for file in others)}; read them by themselves"
        )
    return guessed


def _same_layout(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(
        one.get(key) == other.get(key) for key in ("each", "turns", "chosen", "speaker", "text", "patient", "therapist")
    )


def _known(file: Path, corpus_map: CorpusMap, options: ReadOptions) -> Guess:
    """Return the guess for a file whose names are common."""
    guessed = Guess(records.seen_in(file, options.map), corpus_map.given)
    if corpus_map.each in ("turn", "session"):
        guessed.speakers = records.count_speakers(file, corpus_map, options)
    if corpus_map.each == "turn" and corpus_map.order and suffix_of(file) in TABLES:
        keys = [key for key in (corpus_map.session, corpus_map.order) if key]
        rows = [row for _, row in islice(read_rows(file, lambda error: None), LOOKED_AT)]
        whole = (*keys, str(corpus_map.speaker), str(corpus_map.text))
        different = [len({tuple(row.get(key) for key in some) for row in rows}) for some in (keys, whole)]
        if different[1] > different[0]:
            guessed.map.pop("order")
            guessed.unsure.append(
                f"order: {corpus_map.order} is the same in rows of different words, so it is not used"
            )
        elif different[0] < len(rows):
            guessed.map["unique"] = keys
            guessed.unsure.append(f"unique: rows repeat {' and '.join(keys)}; are they the same turns?")
    return guessed


def _unknown(file: Path) -> Guess | None:
    """Return the guess for a file whose names are not common; None if nothing in it looks like words, or if it is known
    to hold no dialogue."""
    if records.no_dialogue_in(file, CorpusMap()):
        return None
    seen = records.seen_in(file, CorpusMap())
    if suffix_of(file) in TABLES:
        rows = [row for _, row in islice(read_rows(file, lambda error: None), LOOKED_AT)]
        guessed = _of_rows(rows, seen)
    else:
        items = [item for _, item in islice(read_items(file, lambda error: None), LOOKED_AT)]
        guessed = _of_items(items, seen)
    if guessed is None:
        return None
    try:
        corpus_map = CorpusMap.model_validate(guessed.map)
    except ValidationError:  # a key that a map cannot name, such as an empty one
        return None
    if corpus_map.speaker:
        guessed.speakers = records.count_speakers(file, corpus_map, ReadOptions(on_bad=lambda error: None))
    return guessed


def _of_rows(rows: Sequence[Mapping[str, Any]], seen: str) -> Guess | None:
    """Return the guess for a table: a turn a row if a column names speakers, else a pair a row, or a text a row."""
    texts = _text_keys(rows)
    if not texts:
        return None
    speaker = _speaker_key(rows, texts)
    if speaker is not None:
        guessed = Guess(seen, {"each": "turn", "speaker": speaker, "text": texts[0]})
        for key, names in (("session", SESSION), ("order", ORDER)):
            column = first_column(rows[0], names)
            if column is not None:
                guessed.map[key] = column
        if "session" not in guessed.map:
            guessed.unsure.append("session: no column is known to say where a session ends; each file is one session")
        return guessed
    return _of_flat(rows, texts, seen)


def _of_flat(rows: Sequence[Mapping[str, Any]], texts: Sequence[str], seen: str) -> Guess:
    """Return the guess for records without a speaker: two texts are a pair, one is a labelled text."""
    asked = next((key for key in texts if _has(key, QUESTIONS) and not _has(key, ANSWERS)), None)
    answered = next((key for key in texts if _has(key, ANSWERS) and key != asked), None)
    if len(texts) == 1:
        return Guess(seen, {"each": "text", "text": texts[0]}, unsure=["text: are its turns labelled?"])
    patient = asked or next(key for key in texts if key != answered)
    therapist = answered or next(key for key in texts if key != patient)
    patients, therapists = _numbered_like(patient, rows), _numbered_like(therapist, rows)
    if len(patients) != len(therapists):
        patients, therapists = [patient], [therapist]
    guessed = Guess(seen, {"each": "pair", "patient": patients, "therapist": therapists})
    shown = f"is {', '.join(patients)} what the patient says, and {', '.join(therapists)} the answer?"
    guessed.unsure.append(f"patient, therapist: {shown}")
    session = first_column(rows[0], SESSION)
    if session is None:
        guessed.unsure.append("session: each row is a session of its own; or which column says which rows are one?")
    elif session not in (*texts, *patients, *therapists):
        guessed.map["session"] = session
    if others := [key for key in texts if key not in (*patients, *therapists)]:
        guessed.unsure.append(f"other texts that are not used: {listed(others)}")
    if any("<" in str(row.get(therapist)) and ">" in str(row.get(therapist)) for row in rows):
        guessed.map["markup"] = "strip"
    return guessed


def _numbered_like(key: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns that are called as ``key`` but for their number, in its order."""
    stem = key.rstrip("0123456789")
    if stem == key:
        return [key]
    same = [str(name) for name in rows[0] if str(name).rstrip("0123456789") == stem and str(name) != stem]
    return sorted(same, key=lambda name: int(name.removeprefix(stem)))


def _of_items(items: Sequence[Any], seen: str) -> Guess | None:
    if items and all(isinstance(item, list) for item in items):
        return _of_lists(items, WHOLE, seen)
    objects = [item for item in items if isinstance(item, Mapping)]
    for key in dict.fromkeys(key for item in objects for key in item):
        lists = [item[key] for item in objects if isinstance(item.get(key), list) and item[key]]
        if lists and (guessed := _of_lists(lists, key, seen)):
            return guessed
        inner = [item[key] for item in objects if isinstance(item.get(key), Mapping)]
        for name in dict.fromkeys(name for value in inner for name in value):
            lists = [value[name] for value in inner if isinstance(value.get(name), list) and value[name]]
            if lists and (guessed := _of_lists(lists, f"{key}.{name}", seen)):
                return guessed
    return _of_rows(objects, seen) if objects else None


def _of_lists(lists: Sequence[Sequence[Any]], key: str, seen: str) -> Guess | None:
    """Return the guess for records with a list of turns under ``key``."""
    if all(isinstance(turn, str) for turns in lists for turn in turns):
        guessed = Guess(seen, {"each": "session", "turns": [key], "alternate": "patient"})
        guessed.unsure.append("alternate: no speaker is named; is the first turn the patient's?")
        return guessed
    messages = [turn for turns in lists for turn in turns if isinstance(turn, Mapping)]
    texts = _text_keys(messages)
    speaker = _speaker_key(messages, texts)
    if not texts or speaker is None:
        return None
    return Guess(seen, {"each": "session", "turns": [key], "speaker": speaker, "text": texts[0]})


def _of_texts(files: Sequence[Path]) -> Guess | None:
    """Return the guess for texts, subtitles and documents: the speakers of all. None if there is no file."""
    guessed: Guess | None = None
    unread: list[str] = []
    for file in files:
        try:
            export = plain_text.read_export(file, "utf-8")
        except UserError as error:
            unread.append(str(error))
            continue
        if not export.speakers and not export.cues:
            export = unified(export.text)
        guessed = guessed or Guess(export.layout, {"each": "text"}, files=0)
        guessed.add(export.speakers or count_labels(export.text))
    if guessed is None:
        return Guess("texts that cannot be read", {"each": "text"}, unsure=unread[:1]) if unread else None
    if unread:
        guessed.unsure.append(f"{len(unread)} files cannot be read, the first: {unread[0]}")
    if not guessed.speakers:
        guessed.unsure.append(f"no line begins with a speaker's label. {plain_text.NAME_SPEAKERS}")
    return guessed


def _ask_who(guessed: Guess, labels: Mapping[str, Role]) -> None:
    """Fill in who is known; leave who is not for a person to decide."""
    if guessed.map.get("each") == "pair" or "alternate" in guessed.map or not guessed.speakers:
        return
    if guessed.map.get("patient") and guessed.map.get("therapist"):  # the layout says so
        return
    roles = guessed.roles(labels)
    decided = {name for name, role in roles.items() if role != "?"}
    for role in ("patient", "therapist"):
        guessed.map[role] = [name for name in roles if roles[name] == role]
    unknown = [f"{name} ({count:,})" for name, count in guessed.speakers.most_common() if name not in decided]
    if unknown:
        guessed.unsure.append(
            f"who is {', '.join(unknown[:MOST_SPEAKERS])}? Write each under patient, therapist or ignore"
        )
    for role in ("patient", "therapist"):
        if not guessed.map[role] and not unknown:
            guessed.unsure.append(f"nobody is known to be the {role}")


def _text_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values are words, common names first, then by length of their texts."""
    lengths: dict[str, list[int]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str) and value.strip():
                lengths.setdefault(str(key), []).append(len(value) if _is_prose(value) else 0)
    mean = {key: sum(values) / len(values) for key, values in lengths.items()}
    words = [key for key, length in mean.items() if length > 0] or [key for key in mean if not _is_number(rows, key)]
    return sorted(words, key=lambda key: (key.casefold() not in TEXT, -mean[key]))


def _is_number(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(str(row.get(key)).replace(".", "", 1).isdecimal() for row in rows)


def _is_prose(value: str) -> bool:
    """Return whether a value is words rather than a name, a number or a code."""
    return len(value.split()) > 1 or not value.isascii()


def _speaker_key(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> str | None:
    """Return the key whose few values come again and again, common names first."""
    candidates = []
    for key in dict.fromkeys(str(key) for row in rows for key in row):
        if key in texts[:1]:
            continue
        values = [row[key] for row in rows if isinstance(row.get(key), str) and row[key].strip()]
        distinct = len(set(values))
        if 2 <= distinct <= min(MOST_SPEAKERS, len(values) // 2) and len(values) > len(rows) / 2:
            with_role = sum(role_of(value, {}) in ("patient", "therapist") for value in set(values))
            candidates.append((-with_role, key.casefold() not in SPEAKER, distinct, key))
    return min(candidates)[3] if candidates else None


def _has(key: str, parts: Sequence[str]) -> bool:
    return any(part in key.casefold() for part in parts)
