"""Sessions from records and tables: each record is a session, a pair or a turn, as the map says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.labelled_text import facts_of_times
from cbtrain.transcripts.mapping.config import CorpusMap, is_pattern
from cbtrain.transcripts.mapping.keys import MISSING, first_key, in_path, look_up
from cbtrain.transcripts.mapping.names import IDS
from cbtrain.transcripts.mapping.pairs import add_pairs, no_key
from cbtrain.transcripts.mapping.preferences import PreferenceReader, preference_shape
from cbtrain.transcripts.mapping.shapes import WHOLE, describe
from cbtrain.transcripts.mapping.turns import (
    FIX,
    GUESS,
    Dialogue,
    Speakers,
    add_messages,
    alternating,
    clean,
    speaker_name,
    text_of,
    time_key_of,
    time_of,
    weight_of,
)
from cbtrain.transcripts.mapping.values import optional_text, place_of
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.types import Session

NOTHING = (MISSING, None, "")
LONGEST_FACT = 4000
"""Characters of a list or an object, as JSON, that is kept as a fact."""

Record = tuple[str, Any]
"""A place (file, and line or item) and what stands there."""


@dataclass(slots=True)
class SourceFile:
    """One file of records. ``name`` is what sessions without an id are called after; ``path`` its POSIX path inside the
    corpus; ``alone``: it is the only file, so that ids need no file's name; ``single``: it is one record."""

    name: str
    path: str
    alone: bool
    single: bool


@dataclass(slots=True)
class RecordReader:
    """Reads the records of one corpus by ``corpus_map``."""

    corpus_map: CorpusMap
    options: ReadOptions
    _speakers: Speakers = field(init=False)
    _preferences: PreferenceReader = field(init=False)
    _numbers: Counter[str] = field(init=False, default_factory=Counter)
    _keys: frozenset[str] = field(init=False)
    """Keys of a record that the map names."""
    _session_keys: list[str] = field(init=False)
    """Columns that tell the sessions of a table apart."""
    _by_rows: bool = field(init=False)
    """Whether a session has several records: turns, or pairs that name their session."""

    def __post_init__(self) -> None:
        self._speakers = Speakers(self.corpus_map, self.options.labels)
        self._preferences = PreferenceReader(
            self.corpus_map, self._speakers, replace(self.options, map=self.corpus_map)
        )
        self._keys = frozenset(first_key(key) for key in _keys_of(self.corpus_map))
        keys = (self.corpus_map.course, self.corpus_map.session)
        self._session_keys = [key for key in keys if key and not is_pattern(key)]
        rows_of_sessions = self.corpus_map.session in self._session_keys
        self._by_rows = self.corpus_map.each == "turn" or (self.corpus_map.each == "pair" and rows_of_sessions)

    def sessions(self, records: Iterable[Record], file: SourceFile) -> Iterator[Session]:
        """Yield the sessions in ``records``; each fault goes to the reader's options."""
        if self._by_rows:
            yield from self._from_rows(records, file)
            return
        for number, (where, record) in enumerate(records, 1):
            try:
                session = self._session(record, number, where, file)
            except UserError as error:
                self.options.on_bad(error)
            else:
                if session is not None:
                    yield session

    def _session(self, record: Any, number: int, where: str, file: SourceFile) -> Session | None:
        """Return one record as a session; None if it is a pair without two texts."""
        if self.corpus_map.each == "preference":
            pair = self._preferences.read(record, where)
            session = self._with_identity(pair.dialogue, record, number, where, file)
            return pair_session(session, pair.chosen, pair.rejected, pair.weight)
        dialogue, preamble = Dialogue(), ""
        if self.corpus_map.each == "pair":
            self._add_pairs(dialogue, record, where)
            if not dialogue.turns:
                return None
        elif self.corpus_map.each == "text":
            preamble = self._add_labelled(dialogue, record, where)
        else:
            add_messages(dialogue, self._messages(record, where), self.corpus_map, self._speakers, where)
        return self._with_identity(dialogue, record, number, where, file, preamble)

    def _add_pairs(self, dialogue: Dialogue, record: Any, where: str) -> None:
        before = len(dialogue.turns)
        incomplete = add_pairs(dialogue, record, self.corpus_map, where)
        if incomplete or len(dialogue.turns) == before:
            self.options.note("pairs without the words of both speakers", max(1, incomplete), where)

    def _messages(self, record: Any, where: str) -> list[Any]:
        """Return the messages of a session: those of each list that the map names, and of each column."""
        messages: list[Any] = []
        for key in self.corpus_map.turns:
            value = record if key == WHOLE and isinstance(record, list) else look_up(record, key)
            if isinstance(value, list):
                messages += self._in_step(value, record, where)
            elif len(self.corpus_map.turns) > 1 and (value is None or isinstance(value, str | int | float)):
                messages.append(text_of(value, repr(key), where))  # also if empty: the next column has its own speaker
            else:
                if isinstance(record, Mapping) and preference_shape(record):
                    hint = "Put pairs into a file of their own."
                    raise UserError("a pair of answers among sessions", where=where, hint=hint)
                problem = f"no list of turns under {key!r}: {describe(record)}"
                raise UserError(problem, where=where, hint=GUESS)
        return messages

    def _in_step(self, texts: list[Any], record: Any, where: str) -> list[Any]:
        """Return ``texts`` with the speakers of a list beside them, if the map names such a list."""
        speaker = self.corpus_map.speaker
        if speaker is None or not texts or not all(text is None or isinstance(text, str) for text in texts):
            return texts
        names = look_up(record, speaker)
        if not isinstance(names, list) or len(names) != len(texts):
            problem = f"{len(texts)} texts, and {speaker!r} is not a list of as many speakers"
            raise UserError(problem, where=where, hint=FIX)
        return [
            {speaker: name, self.corpus_map.text or "content": text} for name, text in zip(names, texts, strict=True)
        ]

    def _add_labelled(self, dialogue: Dialogue, record: Any, where: str) -> str:
        """Add the turns of a labelled text; return what stands before the first label."""
        key = self.corpus_map.text or "text"
        value = record if key == WHOLE and isinstance(record, list) else look_up(record, key)
        if value is MISSING:
            raise no_key(key, record, where)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        options = replace(self.options, map=self.corpus_map)  # its own keys over those found by common names
        parsed = options.labelled(text_of(value, f"{key!r}", where), where)
        dialogue.turns, dialogue.times, dialogue.ignored = parsed.turns, parsed.times, parsed.ignored
        return parsed.preamble

    def _from_rows(self, rows: Iterable[Record], file: SourceFile) -> Iterator[Session]:
        """Yield the sessions of a table with a turn or a pair in each row; the rows of one session stand together."""
        each = self.corpus_map.each
        seen: set[str] = set()
        for number, (key, group) in enumerate(groupby(rows, self._session_key), 1):
            where = ""
            try:
                kept = list(self._once(group))
                where = kept[0][0]
                if key in seen:
                    hint = "Sort the table by session, or give each session a name of its own."
                    raise UserError(f"the rows of session {key!r} do not stand together", where=where, hint=hint)
                seen.add(key)
                self._refuse_two_patients(kept, key)
                dialogue = Dialogue()
                time_key = time_key_of(kept[0][1])
                for row_number, (where, row) in enumerate(kept, 1):
                    if each == "turn":
                        self._add_row(dialogue, row, row_number, where, time_key)
                    else:
                        self._add_pairs(dialogue, row, where)
                if each == "pair" and not dialogue.turns:
                    continue
                yield self._with_identity(dialogue, kept[0][1], number, kept[0][0], file)
            except UserError as error:
                self.options.on_bad(error)

    def _session_key(self, record: Record) -> str:
        row = record[1]
        if len(self._session_keys) == 1 and type(row) is dict and type(value := row.get(self._session_keys[0])) is str:
            return value
        values = [look_up(row, key) for key in self._session_keys]
        return "/".join("" if value is MISSING or value is None else str(value) for value in values)

    def _refuse_two_patients(self, rows: list[Record], session: str) -> None:
        """Raise UserError if the rows of one session are of several patients."""
        key = self.corpus_map.patient_id
        if key is None or is_pattern(key) or key in self._session_keys:
            return
        patients = {str(value): where for where, row in reversed(rows) if (value := look_up(row, key)) not in NOTHING}
        if len(patients) > 1:
            named = " and ".join(sorted(patients)[:2])
            hint = f"If each patient's sessions are numbered anew, write course: {key} in the map."
            raise UserError(f"session {session!r} is of the patients {named}", where=rows[0][0], hint=hint)

    def _once(self, group: Iterable[Record]) -> Iterator[Record]:
        """Yield the rows of one session in their order, each row that ``unique`` tells apart once."""
        rows = list(group)
        unique, order = self.corpus_map.unique, self.corpus_map.order
        if unique:
            if lacking := next((key for key in unique if look_up(rows[0][1], key) is MISSING), None):
                raise no_key(lacking, rows[0][1], rows[0][0], "unique: ")
            first: dict[tuple[str, ...], Record] = {}
            for record in rows:
                first.setdefault(tuple(str(look_up(record[1], key)) for key in unique), record)
            if len(first) < len(rows):
                self.options.note("rows that repeat another one (unique)", len(rows) - len(first))
            rows = list(first.values())
        if order:
            places = [place_of(look_up(row, order), order, where) for where, row in rows]
            doubled = next((row_order for row_order, count in Counter(places).items() if count > 1), None)
            if doubled is not None:
                where = rows[places.index(doubled)][0]
                keys = ", ".join(key for key in (self.corpus_map.session, order) if key)
                hint = f"If the same turn stands there twice, write unique: [{keys}] in a map, else leave order out."
                raise UserError(f"{order} {doubled:g} comes twice in one session", where=where, hint=hint)
            rows = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]
        yield from rows

    def _add_row(self, dialogue: Dialogue, row: Any, row_number: int, where: str, time_key: str | None) -> None:
        corpus_map = self.corpus_map
        text_key = corpus_map.text or "text"
        text = look_up(row, text_key)
        if text is MISSING:
            raise no_key(text_key, row, where)
        text = clean(text if type(text) is str else text_of(text, repr(text_key), where), corpus_map)
        if corpus_map.alternate:
            name: Any = alternating(corpus_map.alternate, row_number - 1)
        else:
            speaker_key = corpus_map.speaker or "speaker"
            name = look_up(row, speaker_key)
            if name is MISSING:
                raise no_key(speaker_key, row, where)
            if type(name) is not str:
                name = speaker_name(name, "the row", where)
        time = time_of(row, time_key) if time_key else ""
        self._speakers.add(dialogue, name, text, weight_of(row, corpus_map, row_number, where), where, time)

    def _with_identity(
        self, dialogue: Dialogue, record: Any, number: int, where: str, file: SourceFile, preamble: str = ""
    ) -> Session:
        """Return the session: whose it is, its number, and what else the record says of it."""
        for name, count in dialogue.ignored.items() if self.corpus_map.each != "text" else ():  # told as it was parsed
            self.options.note(f"turns of {name!r}, who is ignored", count)
        record = record if isinstance(record, Mapping) else {}
        used = set(self._keys)
        course = self._value("course", record, where, file)
        if course is None:
            course = self._default_course(record, number, file, used)
        if self.corpus_map.each == "preference":  # a prompt's id comes with all its pairs
            self._numbers[course] += 1
            course = course if self._numbers[course] == 1 else f"{course}#{self._numbers[course]}"
            session_number = 1
        else:
            session_number = self._number(course, record, where, file, used)
        patient = self._value("patient_id", record, where, file)
        if patient is None:
            patient = optional_text(record, "patient" if "patient" in record else "patient_id", where, used)
        preamble = preamble or optional_text(record, "preamble", where, used)
        facts = self._facts(record, used, where)
        system = list(dialogue.system)
        key = self.corpus_map.system or "system"
        if (text := look_up(record, key)) not in (MISSING, None, ""):
            system.insert(0, text_of(text, key, where))
            facts.pop(key, None)
        if system:
            facts["system"] = "\n\n".join(system)
        if len(dialogue.times) == len(dialogue.turns):
            facts = facts_of_times(dialogue.times) | facts
        return Session(
            course,
            session_number,
            tuple(dialogue.turns),
            where,
            patient,
            preamble,
            facts=facts,
            ignored=sum(dialogue.ignored.values()),
            # What we have written ourselves may come from a text.
            structured=self.corpus_map.each != "text" and "course" not in record,
        )

    def _value(self, name: str, record: Mapping[str, Any], where: str, file: SourceFile) -> str | None:
        """Return what the map's key ``name`` says of a session; None if the map has none. Raises UserError if it says
        nothing of this one."""
        key: str | None = getattr(self.corpus_map, name)
        if key is None:
            return None
        if is_pattern(key):
            value: Any = in_path(key, file.path, name)
            if value is None:
                raise UserError(f"{name}: the pattern matches nothing in {file.path!r}", where=where, hint=FIX)
        else:
            value = look_up(record, key)
        if value is MISSING or value is None or isinstance(value, list | Mapping) or not str(value).strip():
            raise UserError(f"no {name}: {key!r} has no value", where=where, hint=FIX)
        return str(value).strip()

    def _default_course(self, record: Mapping[str, Any], number: int, file: SourceFile, used: set[str]) -> str:
        """Return the course of a session whose map names none: what the record calls itself, or its place."""
        if self._by_rows:
            session = self.corpus_map.session
            if session is None or is_pattern(session):
                return file.name
            name = str(look_up(record, session))
            return name if file.alone else f"{file.name}/{name}"
        for key in ("course",) if self.corpus_map.each == "pair" else IDS:  # a question's id comes with every answer
            value = record.get(key)
            if key not in used and isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                used.add(key)
                return str(value) if file.alone or key == "course" else f"{file.name}/{value}"
        return file.name if file.single else f"{file.name}-{number}"

    def _number(self, course: str, record: Mapping[str, Any], where: str, file: SourceFile, used: set[str]) -> int:
        """Return a session's number in its course: what the map or the record says, or the next one."""
        value = self._value("session", record, where, file) if self.corpus_map.session else None
        if self._by_rows and self.corpus_map.course is None:
            return 1
        if value is None and "session" in record and "session" not in used:
            used.add("session")
            raw = record["session"]
            value = str(raw)
            is_name = isinstance(raw, str) and not raw.lstrip("+-").replace(".", "").isdecimal()
            if not is_name and (isinstance(raw, bool) or not value.isdecimal() or len(value) > 9):
                raise UserError(f"session {raw!r} is not a number from 0", where=where, hint=FIX)
        if value is not None and value.isdecimal() and len(value) <= 9:
            return int(value)
        if self.corpus_map.course is None and value is None:
            return 1
        self._numbers[course] += 1
        return self._numbers[course]

    def _facts(self, record: Mapping[str, Any], used: set[str], where: str) -> dict[str, str]:
        """Return the facts of a session: those that the map names, else every value that is not something else."""
        given = record.get("facts", {})
        if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
            raise UserError("facts are not texts by name", where=where, hint="Give each fact a text, or remove them.")
        facts = {str(name): str(value) for name, value in given.items()}
        if self.corpus_map.facts:
            values = {key: look_up(record, key) for key in self.corpus_map.facts}
        elif self._by_rows:
            values = {}
        else:
            values = {str(key): value for key, value in record.items() if key not in used and key != "facts"}
        for key, value in values.items():
            if isinstance(value, str | int | float) and value != "":
                facts[key] = str(value)
            elif value and value is not MISSING:
                text = json.dumps(value, ensure_ascii=False, default=str)
                if len(text) <= LONGEST_FACT:
                    facts[key] = text
                else:
                    self.options.note(f"values of {key!r}, too long to be kept as facts", example=where)
        return facts


def _keys_of(corpus_map: CorpusMap) -> list[str]:
    """Return the keys of a record that are parts of the session itself."""
    single = (corpus_map.text, corpus_map.speaker, corpus_map.course, corpus_map.session, corpus_map.patient_id)
    columns = [*corpus_map.patient, *corpus_map.therapist] if corpus_map.each == "pair" else []
    pairs = [key for column in columns for key in (column, *column.split(" + "))]
    if corpus_map.each == "preference":
        prompt = corpus_map.prompt or ""
        pairs = [prompt, *prompt.split(" + "), corpus_map.chosen or "", corpus_map.rejected or "", "weight"]
    several = (corpus_map.order, corpus_map.weight, corpus_map.system, corpus_map.history, *corpus_map.turns, *pairs)
    return [key for key in (*single, *several) if key]
