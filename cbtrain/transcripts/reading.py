"""Read a corpus from wherever it lies, in whichever known layout."""

from __future__ import annotations

import importlib.resources
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from cbtrain.errors import UserError, nearest
from cbtrain.files import expanded
from cbtrain.transcripts.config import TranscriptsConfig
from cbtrain.transcripts.labels import COMMON_LABELS, count_labels
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.tables import TABLES
from cbtrain.transcripts.metadata import load_metadata
from cbtrain.transcripts.preference import refuse_mixed
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers import author, canonical, dialogues, pairs, plain_text, records, simulations
from cbtrain.transcripts.readers.options import Notes, ReadOptions
from cbtrain.transcripts.source import OnBad, files_in, is_same, read_items, refuse, suffix_of
from cbtrain.transcripts.types import Corpus, Course, Role, Session

SAMPLE = "sample"
SAMPLE_PAIRS = "sample-pairs"
SAMPLES = {SAMPLE: ("sample", "cbtrain"), SAMPLE_PAIRS: ("sample/pairs", "pairs")}
"""The embedded corpora: where each lies, and its format."""

DOCUMENTS = (".doc", ".rtf", ".odt", ".pdf", ".xlsx", ".xls", ".md")
OTHER_SUFFIXES = {
    **dict.fromkeys(("messages", "sharegpt", "records", "table"), (*plain_text.IN_FOLDERS, *DOCUMENTS)),
    "text": (*records.SUFFIXES, *DOCUMENTS),
}
"""Files in a folder that are not read with the others, by format."""

SEEN, MOST_LOOKED_AT = 4000, 100
"""Characters of a text without turns in which labels are looked for, and the number of such texts."""

MOST_SPEAKERS = 8
"""Speakers that a message names."""


@dataclass(frozen=True, slots=True)
class Reader:
    """``sessions`` yields them in the order of the source; ``profiles`` are by course."""

    says: str
    sessions: Callable[[Path, ReadOptions], Iterator[Session]]
    profiles: Callable[[Path, ReadOptions], dict[str, Profile]]


READERS: dict[str, Reader] = {
    "author": Reader(
        "a folder with Synthetic_Transcripts/depression_set_N/session_M.json", author.sessions, author.profiles
    ),
    "simulations": Reader(
        "CBT_Simulations/, one arm of it, or one patient's folder", simulations.sessions, simulations.profiles
    ),
    "dialogues": Reader(
        "the 2025 study's ARM/simulation_N_clean_dialogue.txt, or one arm's folder",
        dialogues.sessions,
        dialogues.profiles,
    ),
    "cbtrain": Reader(
        "sessions.jsonl, or a folder that holds one (cbtrain.session/1)", canonical.sessions, canonical.profiles
    ),
    "pairs": Reader("pairs.jsonl, or a folder that holds one (cbtrain.pair/1)", pairs.sessions, pairs.profiles),
    "messages": Reader("JSONL or JSON of OpenAI 'messages'", records.sessions, records.profiles),
    "sharegpt": Reader("JSONL or JSON of ShareGPT 'conversations'", records.sessions, records.profiles),
    "records": Reader(
        "JSONL or JSON with turns under other common names, or prompt, chosen and rejected, or read by a map",
        records.sessions,
        records.profiles,
    ),
    "table": Reader(
        "CSV, TSV, Parquet or Arrow with a turn in each row, or read by a map", records.sessions, records.profiles
    ),
    "text": Reader(
        ".txt, .docx, .srt or .vtt with labels such as Therapist: and Client: at the start of lines",
        plain_text.sessions,
        plain_text.profiles,
    ),
}
"""Each format by its name."""


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """A corpus that is not read yet: ``sessions()`` streams it, one session in memory at a time. ``notes``: what was
    left out on purpose, as far as it has been read."""

    path: Path
    name: str
    format: str
    labels: Mapping[str, Role] = field(default_factory=dict)
    map: CorpusMap = field(default_factory=CorpusMap)
    metadata: Path | None = None
    notes: Notes = field(default_factory=Notes)

    def sessions(self, on_bad: OnBad = refuse) -> Iterator[Session]:
        """Yield the sessions in the order of the source, each id once, with what the metadata table says of them; a
        second session with one id is a fault.

        Raises UserError on a metadata table that does not fit; and at the end, if there were sessions and none has a
        turn, or if third speakers have more turns than patients and therapists.
        """
        first: Session | None = None
        places: dict[str, str] = {}
        turns: Counter[str] = Counter()
        unread: list[str] = []
        self._note_other_files()
        options = self._options(on_bad)
        table = None
        if self.metadata:
            own_courses = self.format in OTHER_SUFFIXES  # in other formats profiles belong to the courses
            table = load_metadata(self.metadata, self.path, self.notes, own_courses=own_courses)
        options.notes.third_speakers.clear()
        for session in READERS[self.format].sessions(self.path, options):
            try:
                session = table.apply(session, self.notes) if table else session
                first = session if first is None else first
                refuse_mixed(first, session)
            except UserError as error:
                on_bad(error)
                continue
            if session.id in places:
                problem = f"session {session.number} of course {session.course!r} is already at {places[session.id]}"
                on_bad(UserError(problem, where=session.where, hint="Remove or renumber one of the two."))
                continue
            places[session.id] = session.where
            turns.update(turn.role for turn in session.turns)
            if not session.turns and len(unread) < MOST_LOOKED_AT:
                unread.append(session.preamble[:SEEN])
            yield session
        if table:
            table.note_unused(self.notes)
        if places and not turns:
            raise self._no_turns(unread)
        self._refuse_many_third_speakers(turns)

    def profiles(self, on_bad: OnBad = refuse) -> dict[str, Profile]:
        return READERS[self.format].profiles(self.path, self._options(on_bad))

    def _note_other_files(self) -> None:
        """Note the files in a folder that the reader of its format does not open, though they may be transcripts."""
        if not self.path.is_dir() or self.format not in OTHER_SUFFIXES:
            return
        for file in files_in(self.path, OTHER_SUFFIXES[self.format]):
            if not plain_text.NO_TRANSCRIPTS.fullmatch(file.name) and not is_same(file, self.metadata):
                kind = f"{suffix_of(file)} files, which are not read as {self.format!r}: name them by themselves"
                self.notes.add(kind, example=file.relative_to(self.path).as_posix())

    @property
    def given_labels(self) -> Mapping[str, Role]:
        """Return the speakers' labels that options or a map give, for check and cleaning."""
        return self._options(refuse).given_labels

    def _options(self, on_bad: OnBad) -> ReadOptions:
        return ReadOptions(on_bad, self.labels, self.map, self.notes, self.metadata)

    def _no_turns(self, texts: list[str]) -> UserError:
        """Return the error for a corpus in which nobody known speaks; ``texts`` are the beginnings of its sessions."""
        third_speakers = self.notes.third_speakers
        what = f"no turn in any session, read as {self.format!r}"
        if third_speakers:
            what += f"; who speaks here: {_counted(third_speakers + count_labels(*texts))}"
        elif labels := count_labels(*texts):
            what += f"; labels in the text that were not read: {_counted(labels)}"
        else:
            what += "; no label was seen in it"
        left_out = [line for line in self.notes.lines() if "neither patient nor therapist" not in line]
        if left_out:
            what += f"; left out: {'; '.join(left_out)}"
        return UserError(what, where=self.name, hint=f"If it is a transcript, {say_who_is_who(self.name)}")

    def _refuse_many_third_speakers(self, turns: Counter[str]) -> None:
        """Raise UserError if more turns were left out as third speakers' than were kept, or if third speakers take
        turns with one speaker alone: then a name was not known."""
        third_speakers = self.notes.third_speakers
        left_out, kept = third_speakers.total(), turns.total()
        if left_out > kept or (left_out and len(turns) == 1 and 2 * left_out > kept):
            what = (
                f"{left_out:,} turns of third speakers would be left out and {kept:,} kept: {_counted(third_speakers)}"
            )
            hint = f"{say_who_is_who(self.name)} Who is neither goes under ignore of the map."
            raise UserError(what, where=self.name, hint=f"{hint[0].upper()}{hint[1:]}")


def _counted(speakers: Counter[str]) -> str:
    """Return the most frequent speakers with their turns: ``Ann (12), Bob (3)``."""
    more = f" and {len(speakers) - MOST_SPEAKERS} more" if len(speakers) > MOST_SPEAKERS else ""
    return ", ".join(f"{name} ({count:,})" for name, count in speakers.most_common(MOST_SPEAKERS)) + more


def say_who_is_who(name: str) -> str:
    """Return what reads a corpus whose speakers nobody knows."""
    return (
        "say who is who: --therapist-label NAME --patient-label NAME (corpus.therapist_labels=…, "
        "corpus.patient_labels=…), "
        f"or therapist and patient of a map (--map); `cbtrain corpus guess {name}` lists who speaks."
    )


def locate(
    path: str | Path,
    format: str = "auto",
    labels: Mapping[str, Role] | None = None,
    corpus_map: CorpusMap | None = None,
    metadata: str | Path | None = None,
) -> CorpusSource:
    """Return the source at ``path``, or an embedded one (``sample``, ``sample-pairs``); ``auto`` finds the format out.

    ``labels`` are what the speakers are called, by role; ``corpus_map`` says where a session's parts are; ``metadata``
    is a table that says whose session each file is. Raises UserError on a path that is not there, an unknown format,
    and a layout that no reader knows.
    """
    if format != "auto" and format not in READERS:
        raise UserError(f"unknown format {format!r}", where="corpus", hint=nearest(format, [*READERS, "auto"]))
    table = expanded(metadata) if metadata else None
    if str(path) in SAMPLES:
        inside, own_format = SAMPLES[str(path)]
        folder = importlib.resources.files("cbtrain.transcripts") / inside
        return CorpusSource(Path(str(folder)), str(path), own_format, metadata=table)
    path = expanded(path)
    if path.is_symlink() and not path.exists():
        raise UserError("a broken link", where=path, hint=f"It points to {path.readlink()}, which is not there.")
    try:
        if not path.exists():
            hint = "Name a corpus, or 'sample' for the embedded one."
            raise UserError("no such file or folder", where=path, hint=hint)
        if not path.is_dir() and not path.is_file():
            raise UserError("neither a file nor a folder", where=path, hint="Write it to a file first.")
        corpus_map = corpus_map or CorpusMap()
        options = ReadOptions(labels=labels or {}, map=corpus_map, metadata=table)
        detected = _detect(path, options) if format == "auto" else format
    except PermissionError as error:
        raise UserError("permission denied", where=error.filename or path, hint="Change its permissions.") from None
    return CorpusSource(path, str(path), detected, labels or {}, corpus_map, table)


def read(
    path: str | Path,
    format: str = "auto",
    *,
    labels: Mapping[str, Role] | None = None,
    corpus_map: CorpusMap | None = None,
    metadata: str | Path | None = None,
    skip_bad: bool = False,
) -> Corpus:
    """Return the whole corpus at ``path`` as labelled in its files: courses in the order of their first session.

    Raises UserError on everything that :func:`locate` does, on malformed content (file and line; with ``skip_bad`` it
    is left out and named in ``skipped``), and where no session is left.
    """
    source = locate(path, format, labels, corpus_map, metadata)
    skipped: list[str] = []
    on_bad: OnBad = (lambda error: skipped.append(str(error))) if skip_bad else refuse_with_hint
    by_course: dict[str, list[Session]] = {}
    try:
        for session in source.sessions(on_bad):
            by_course.setdefault(session.course, []).append(session)
        profiles = source.profiles(on_bad)
    except PermissionError as error:
        raise UserError("permission denied", where=error.filename or path, hint="Change its permissions.") from None
    if not by_course:
        raise no_sessions(source, skipped)
    courses = tuple(
        Course(course, tuple(sorted(course_sessions, key=lambda session: session.number)), profiles.get(course))
        for course, course_sessions in by_course.items()
    )
    notes = tuple(source.notes.lines())
    return Corpus(source.name, source.format, courses, tuple(skipped), notes, source.given_labels)


def read_configured(config: TranscriptsConfig) -> Corpus:
    """Return the whole corpus that ``config`` names. Raises UserError as :func:`read` does."""
    return read(
        config.path,
        config.format,
        labels=speaker_labels(config.therapist_labels, config.patient_labels),
        corpus_map=config.map,
        metadata=config.metadata,
        skip_bad=config.skip_bad,
    )


def speaker_labels(therapist: list[str], patient: list[str]) -> dict[str, Role]:
    """Labels by role. Where only one speaker's are given, the other keeps the common ones.

    Raises UserError where one label stands for both, or is empty.
    """
    if not therapist and not patient:
        return {}
    labels: dict[str, Role] = {}
    given: tuple[tuple[Role, list[str]], ...] = (("therapist", therapist), ("patient", patient))
    for role, names in given:
        for name in names or [label for label, label_role in COMMON_LABELS.items() if label_role == role]:
            name = name.strip().removesuffix(":")
            if not name:
                raise UserError("an empty speaker's label", where=f"{role} label", hint="Give a name.")
            if labels.get(name, role) != role:
                raise UserError(f"{name!r} is the label of both speakers", where="labels", hint="Give each their own.")
            labels[name] = role
    return labels


def refuse_with_hint(error: UserError) -> NoReturn:
    """Raise ``error`` and say how one bad session need not stop the rest."""
    hint = "--skip-bad (in a study: corpus.skip_bad=true) skips faulty sessions; `cbtrain corpus check` lists them all."
    raise UserError(error.what, where=error.where, hint=f"{error.hint or ''} {hint}".strip()) from None


def no_sessions(source: CorpusSource, skipped: Sequence[str] = ()) -> UserError:
    """Return the error for a corpus in which nothing can be read; ``skipped`` says why what is malformed was not."""
    hint = f"It was read as {source.format!r} ({READERS[source.format].says}): check path and --format."
    bad = f", {len(skipped)} malformed, the first: {skipped[0]}" if skipped else ""
    return UserError(f"no sessions in it{bad}", where=source.name, hint=hint)


def _detect(path: Path, options: ReadOptions) -> str:
    """Return the format of what lies at ``path``. Raises UserError if no reader knows it."""
    if path.is_dir():
        # Files of text need no key for it, and may have one.
        if options.map.each not in (None, "text") or (options.map.text and records.data_files(path, options.metadata)):
            return "records"
        for name, detects in (
            ("author", author.detects),
            ("simulations", simulations.detects),
            ("dialogues", dialogues.detects),
            ("cbtrain", canonical.detects),
            ("pairs", pairs.detects),
        ):
            if detects(path):
                if name == "cbtrain" and pairs.detects(path):
                    problem = f"both {canonical.SESSIONS[0]} and {pairs.PAIRS[0]} are in it"
                    raise UserError(problem, where=path, hint="Name one of the files, or say --format pairs.")
                return name
        sniffed = (_sniff(file, options) for file in records.data_files(path, options.metadata))
        if detected := next(filter(None, sniffed), None):
            return detected
        if plain_text.detects(path):
            return "text"
    elif suffix_of(path) in records.SUFFIXES:
        detected = _sniff(path, options)
        # If nothing in it can be read, its reader says what and where.
        if detected or (
            suffix_of(path) in records.JSON and not any(True for _ in read_items(path, lambda error: None))
        ):
            return detected or "cbtrain"
    elif plain_text.detects(path):
        return "text"
    raise _unknown(path, options)


def _sniff(file: Path, options: ReadOptions) -> str | None:
    """Return the format of a file of records by the names in its first readable ones; None if they are not known."""
    if options.map.each is None and suffix_of(file) in records.JSON:
        # The first record may be metadata.
        for _, record in islice(read_items(file, lambda error: None), records.PEEKED):
            schema = str(record.get("schema", "")) if isinstance(record, dict) else ""
            if schema.startswith("cbtrain.pair"):
                return "pairs"
            if isinstance(record, dict) and (schema.startswith("cbtrain.") or _is_ours(record)):
                return "cbtrain"
    try:
        corpus_map = records.map_of(file, options)
    except UserError:
        return "records"  # its reader says what and where
    if corpus_map is None:
        return None
    if suffix_of(file) in TABLES:
        return "table"
    return {"messages": "messages", "conversations": "sharegpt"}.get(next(iter(corpus_map.turns), ""), "records")


def _is_ours(record: dict[str, Any]) -> bool:
    """Return whether ``record`` is a session of our own layout, perhaps without its schema."""
    turns = record.get("turns")
    return "course" in record and isinstance(turns, list) and all(isinstance(t, dict) and "text" in t for t in turns)


def _unknown(path: Path, options: ReadOptions) -> UserError:
    """Return the error for a layout that no reader knows; it names what was seen."""
    files = records.data_files(path, options.metadata) if path.is_dir() else [path]
    files = [file for file in files if suffix_of(file) in records.SUFFIXES]
    if files:
        try:
            return records.unknown_shape(files[0], path, options.map)
        except UserError as error:
            return error
    layouts = "; ".join(f"{name}: {reader.says}" for name, reader in READERS.items())
    there = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    kinds = Counter(suffix_of(file) or "nameless" for file in there).most_common(6)
    seen = f"files: {', '.join(f'{count:,} {kind}' for kind, count in kinds)}" if kinds else "no file in it"
    save = "Save documents as .docx or .txt. " if {kind for kind, _ in kinds} & {*DOCUMENTS} else ""
    return UserError(f"no known corpus layout ({seen})", where=path, hint=f"{save}Known: {layouts}.")
