"""Pairs: what a patient wrote and what was answered, in two columns of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.keys import MISSING, look_up
from cbtrain.transcripts.mapping.shapes import describe, listed
from cbtrain.transcripts.mapping.turns import FIX, GUESS, Dialogue, clean, text_of
from cbtrain.transcripts.types import Turn


def add_pairs(dialogue: Dialogue, record: Any, corpus_map: CorpusMap, where: str) -> int:
    """Add the pairs of the history, then the turns of each pair of columns in which both speakers have words.
    Return the number of pairs in which only one has."""
    incomplete = 0
    history = look_up(record, corpus_map.history) if corpus_map.history else None
    for pair in history if isinstance(history, list) else ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{corpus_map.history}: not a list of pairs", where=where, hint=FIX)
        incomplete += not _add_pair(dialogue, *(clean(text_of(text, "a pair", where), corpus_map) for text in pair))
    for patient, therapist in zip(corpus_map.patient, corpus_map.therapist, strict=True):
        texts = (_joined(record, columns, corpus_map, where) for columns in (patient, therapist))
        incomplete += not _add_pair(dialogue, *texts)
    return incomplete


def _add_pair(dialogue: Dialogue, question: str, answer: str) -> bool:
    """Add a pair if both have words; return whether it has both or neither."""
    if question and answer:
        dialogue.turns += [Turn("patient", question), Turn("therapist", answer)]
    return bool(question) == bool(answer)


def _joined(record: Any, columns: str, corpus_map: CorpusMap, where: str) -> str:
    """Return the words of one column, or of several (``a + b``) on lines of their own; a missing one is empty."""
    if type(record) is dict and type(text := record.get(columns)) is str:
        return clean(text, corpus_map)
    keys = [columns] if look_up(record, columns) is not MISSING else columns.split(" + ")
    values = [(key, look_up(record, key)) for key in keys]
    if all(value is MISSING for _, value in values):
        raise no_key(columns, record, where)
    texts = [clean(text_of(value, repr(key), where), corpus_map) for key, value in values if value is not MISSING]
    return "\n".join(filter(None, texts))


def no_key(key: str, record: Any, where: str, what: str = "") -> UserError:
    """Return the error for a column or key that the map names and ``record`` lacks."""
    there = f"among {listed(map(str, record))}" if isinstance(record, Mapping) else f"in {describe(record)}"
    return UserError(f"{what}no column {key!r} {there}", where=where, hint=GUESS)
