"""Reader for JSON, JSON Lines and tables of any layout whose names are common, or that a map describes.

OpenAI ``messages``, ShareGPT ``conversations``, lists under ``dialog``, ``turns`` and other common names, a list of
turns that is a whole file, labelled texts in fields, tables with a turn a row: see :mod:`cbtrain.transcripts.mapping`.
Other keys of a record are kept as facts of the session. Without ids, sessions are called by their file and place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.keys import MISSING, look_up
from cbtrain.transcripts.mapping.no_dialogue import no_dialogue
from cbtrain.transcripts.mapping.records import Record, RecordReader, SourceFile
from cbtrain.transcripts.mapping.shapes import WHOLE, describe, is_turn, listed, shape_of, table_shape
from cbtrain.transcripts.mapping.tables import BINARY_TABLES, TABLES, columns_of, read_rows
from cbtrain.transcripts.mapping.turns import UnknownSpeaker
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.canonical import PROFILES, read_profiles
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import files_in, is_same, read_items, stem_of, suffix_of, validate
from cbtrain.transcripts.types import Role, Session

JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*JSON, *TABLES)
PEEKED = 5
"""Items in which a file's shape is looked for: the first may be metadata."""

MOST_SPEAKERS = 20


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield the sessions of a file, or of all files of these kinds under a folder. A file whose shape is not known is
    passed over, with a note."""
    files = data_files(path, options.metadata)
    for file in files:
        inside = file.relative_to(path).as_posix() if path.is_dir() else file.name
        name = (Path(inside).parent / stem_of(file)).as_posix()
        try:
            corpus_map = map_of(file, options)
            if corpus_map is None:
                _pass_over(file, path, options)
                continue
        except UserError as error:
            options.on_bad(error)
            continue
        records, single = _records(file, corpus_map, options)
        reader = RecordReader(corpus_map, _telling_speakers(options, file, corpus_map))
        yield from reader.sessions(records, SourceFile(name, inside, len(files) == 1, single))


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    return read_profiles(path, options)


def data_files(path: Path, metadata: Path | None = None) -> list[Path]:
    """Return the files of records and tables: ``path`` itself, or those under the folder but the ``metadata`` table."""
    if not path.is_dir():
        return [path]
    others = (*PROFILES, "dataset_info.json")
    return [file for file in files_in(path, SUFFIXES) if file.name not in others and not is_same(file, metadata)]


def map_of(file: Path, options: ReadOptions) -> CorpusMap | None:
    """Return the map of a file: the given one, or the given keys over those found by common names. None if its shape is
    not known. Raises UserError if the file cannot be read, or the given keys do not fit."""
    given = options.map
    if given.each is not None:
        return given
    shape = _shape(file, given, options.labels)
    if shape is None:
        return None
    keys = {**shape.given, **given.given}
    return validate(CorpusMap, keys, f"{file}, with the keys of the map", "Write the whole map, with each.")


def _pass_over(file: Path, path: Path, options: ReadOptions) -> None:
    """Note that ``file`` is of no known shape. Raises UserError if it cannot be read, or is the whole corpus."""
    if file == path:
        raise unknown_shape(file, path, options.map)
    options.note(f"files passed over ({seen_in(file, options.map)})", example=file.relative_to(path).as_posix())


def unknown_shape(file: Path, path: Path, given: CorpusMap) -> UserError:
    """Return the error for a file at ``path`` whose shape is not known: what it holds, and what to do. Raises UserError
    if it cannot be read."""
    seen = seen_in(file, given)
    if reason := no_dialogue_in(file, given):
        what, hint = reason
        return UserError(f"{what}: {seen}", where=file, hint=hint)
    question = ": which of them is the speaker, and which the words?" if seen.startswith("a table") else ""
    hint = f"`cbtrain corpus guess {path}` prints a map to begin with; give it with --map FILE (corpus.map)."
    return UserError(f"no known layout: {seen}{question}", where=file, hint=hint)


def no_dialogue_in(file: Path, given: CorpusMap) -> tuple[str, str] | None:
    """Return why a file holds no dialogue, and what to do; None if that is not known. Raises UserError if it cannot be
    read."""
    return no_dialogue(_first_record(file, given))


def seen_in(file: Path, given: CorpusMap) -> str:
    """Return what a file holds, for a message. Raises UserError if it cannot be read."""
    if suffix_of(file) in TABLES:
        columns = columns_of(file, given.encoding, given.delimiter)
        return f"a table with the columns {listed(columns)}" if any(columns) else "an empty table"
    first = _first_record(file, given)
    return "nothing" if first is None else describe(first)


def _first_record(file: Path, given: CorpusMap) -> Any:
    """Return the first item or row of a file, the columns with empty cells if a table has no row; None if there is
    nothing. Raises UserError if it cannot be read."""
    if suffix_of(file) not in TABLES:
        return next((item for _, item in read_items(file)), None)
    columns = columns_of(file, given.encoding, given.delimiter)
    rows = read_rows(file, lambda error: None, given.encoding, given.delimiter)
    return next((row for _, row in rows), dict.fromkeys(columns, ""))


def _shape(file: Path, given: CorpusMap, labels: Mapping[str, Role]) -> CorpusMap | None:
    if suffix_of(file) in TABLES:
        if turn_rows := table_shape(columns_of(file, given.encoding, given.delimiter)):
            return turn_rows
        rows = islice(read_rows(file, lambda error: None, given.encoding, given.delimiter), PEEKED)
        shape = next(filter(None, (shape_of(row, labels) for _, row in rows)), None)
        is_list = shape is not None and shape.each == "session"  # which a cell of text cannot be
        return None if is_list and suffix_of(file) not in BINARY_TABLES else shape
    items = [item for _, item in islice(read_items(file, lambda error: None), PEEKED)]
    if items and all(map(is_turn, items)):
        turn_rows = table_shape([str(key) for key in items[0]])
        if turn_rows is not None and (turn_rows.session or turn_rows.course):
            return turn_rows
    if _is_one_session(file, items):
        return shape_of([item for _, item in read_items(file, lambda error: None)], labels)
    return next(filter(None, (shape_of(item, labels) for item in items)), None)


def _is_one_session(file: Path, items: list[Any]) -> bool:
    """Return whether the array in a JSON file is one session: its items are turns, or texts."""
    return suffix_of(file) == ".json" and bool(items) and (all(map(is_turn, items)) or _are_texts(items))


def _are_texts(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def _records(file: Path, corpus_map: CorpusMap, options: ReadOptions) -> tuple[Iterable[Record], bool]:
    """Return the records of a file, and whether it is one record."""
    if suffix_of(file) in TABLES:
        return read_rows(file, options.on_bad, corpus_map.encoding, corpus_map.delimiter), corpus_map.each == "turn"
    items = read_items(file, options.on_bad)
    if corpus_map.each == "turn":
        return items, True
    first = list(islice(items, 2))
    items = chain(first, items)
    whole = WHOLE in (*corpus_map.turns, corpus_map.text)
    if whole and suffix_of(file) == ".json" and not any(isinstance(item, list) for _, item in first):
        return [(str(file), [item for _, item in items])], True
    return items, len(first) == 1 and first[0][0] == str(file)


def _telling_speakers(options: ReadOptions, file: Path, corpus_map: CorpusMap) -> ReadOptions:
    """Return ``options`` that say once, with the first unknown speaker, who speaks how often in ``file``."""
    counted = False

    def on_bad(error: UserError) -> None:
        nonlocal counted
        if isinstance(error, UnknownSpeaker) and not counted:
            counted = True
            counts = count_speakers(file, corpus_map, options).most_common(MOST_SPEAKERS)
            shown = ", ".join(f"{name} ({count:,})" for name, count in counts)
            error = UserError(f"{error.what}; who speaks here: {shown}", where=error.where, hint=error.hint)
        options.on_bad(error)

    return replace(options, on_bad=on_bad)


def count_speakers(file: Path, corpus_map: CorpusMap, options: ReadOptions) -> Counter[str]:
    """Return how many turns each speaker has in ``file``, by the name that the file gives them."""
    quiet = replace(options, on_bad=lambda error: None)
    speakers: Counter[str] = Counter()
    key = corpus_map.speaker or "role"
    for _, record in _records(file, corpus_map, quiet)[0]:
        if corpus_map.each == "turn":
            if (name := look_up(record, key)) is not MISSING:
                speakers[str(name)] += 1
            continue
        for turns in corpus_map.turns:
            messages = record if turns == WHOLE else look_up(record, turns)
            for message in messages if isinstance(messages, list) else ():
                if isinstance(message, Mapping) and (name := look_up(message, key)) is not MISSING:
                    speakers[str(name)] += 1
    return speakers
