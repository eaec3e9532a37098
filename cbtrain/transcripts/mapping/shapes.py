"""Find the map of a record or table whose names are common; say what was seen where none is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cbtrain.transcripts.labelled_text import parse_text
from cbtrain.transcripts.labels import TEXT_LABELS
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.names import ORDER, PAIRS, PATIENT_ID, SESSION, SPEAKER, TEXT, TURNS, texts_of
from cbtrain.transcripts.mapping.no_dialogue import is_judged, template_of
from cbtrain.transcripts.mapping.preferences import preference_shape
from cbtrain.transcripts.types import Role

MOST_NAMES = 12
"""Keys or columns that a message names."""

STANDARD = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""The keys of a turn in the two most common layouts."""

WHOLE = "[*]"
"""The key of the turns where a record is itself the list of them."""


SEGMENTS = CorpusMap(
    each="session",
    turns=["segments"],
    speaker="label",
    text="text",
    patient=["False"],
    therapist=["True"],
    markup="strip",  # the marks of beginning and end, <s> and </s>
)
"""Axolotl's ``input_output``: what is learnt is the therapist's, what is not the patient's."""


def shape_of(content: Any, labels: Mapping[str, Role]) -> CorpusMap | None:
    """Return the map of ``content``, an item of a JSON file, if it is a session by its names: an object with a list of
    turns or with labelled text, or such a list itself. None if it is not."""
    if isinstance(content, list):
        return _list_shape(content, WHOLE, labels)
    if not isinstance(content, Mapping) or is_judged(content):
        return None
    if preference := preference_shape(content):
        return preference
    for key in TURNS:
        value = content.get(key)
        if isinstance(value, list) and (shape := _list_shape(value, key, labels)):
            return shape
        if isinstance(value, str) and is_labelled(value, labels):
            return CorpusMap(each="text", text=key)
    if _are_segments(content.get("segments")) and template_of(content) is None:
        return SEGMENTS
    for key, (speaker, text) in STANDARD.items():
        if key in content:  # a session with a fault, which its reader names
            return CorpusMap(each="session", turns=[key], speaker=speaker, text=text)
    pair = [key for key in ("prompt", "completion") if isinstance(content.get(key), list)]
    if len(pair) == 2 and (shape := _list_shape([*content["prompt"], *content["completion"]], "prompt", labels)):
        return shape.model_copy(update={"turns": pair})
    if pairs := _pair_shape(content):
        return pairs
    texts = (key for key in ("transcript", "text") if isinstance(content.get(key), str))
    return next((CorpusMap(each="text", text=key) for key in texts if is_labelled(content[key], labels)), None)


def _pair_shape(content: Mapping[str, Any]) -> CorpusMap | None:
    """Return the map of a record with a text that is asked and one that is learnt, which no chat template has rendered.
    None if it is not one."""
    by_name = {str(name).strip().casefold(): str(name) for name in reversed(list(content))}
    for asked, learnt in PAIRS:
        texts = {name: content[by_name[name]] if name in by_name else None for name in (asked, learnt)}
        if not all(isinstance(text, str) for text in texts.values()):
            continue
        if "chosen" in by_name or template_of(texts) is not None:
            return None
        context = f" + {by_name.get('input', 'input')}" if asked == "instruction" else ""
        history = by_name.get("history", "history") if asked == "instruction" else None
        patient = f"{by_name[asked]}{context}"
        return CorpusMap(each="pair", patient=[patient], therapist=[by_name[learnt]], history=history)
    return None


def _are_segments(value: Any) -> bool:
    """Return whether ``value`` is Axolotl's ``input_output``: texts, each with whether it is learnt."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(item, Mapping) and isinstance(item.get("label"), bool) and isinstance(item.get("text"), str)
            for item in value
        )
    )


def table_shape(columns: Sequence[str]) -> CorpusMap | None:
    """Return the map of a table with a turn in each row, if its ``columns`` have common names. None if not."""
    speaker = first_column(columns, SPEAKER)
    text = first_column(columns, texts_of(speaker)) if speaker else None
    if speaker is None or text is None or speaker == text:
        return None
    session, order = first_column(columns, SESSION), first_column(columns, ORDER)
    patient = first_column([name for name in columns if name not in (speaker, text)], PATIENT_ID)
    # Sessions may be numbered anew for each patient.
    whose = {"course": patient, "patient_id": patient} if patient else {}
    return CorpusMap(each="turn", speaker=speaker, text=text, session=session, order=order, **whose)


def is_labelled(text: str, labels: Mapping[str, Role]) -> bool:
    """Return whether both speakers have labelled turns in ``text``."""
    return parse_text(text, labels or TEXT_LABELS).is_dialogue


def is_turn(content: Any) -> bool:
    """Return whether ``content`` is one turn of a session: an object with a speaker and words, and no list of turns."""
    return (
        isinstance(content, Mapping)
        and _keys(content) is not None
        and not any(isinstance(content.get(key), list) for key in TURNS)
    )


def describe(content: Any) -> str:
    """Return what was seen, for a message: ``a JSON object with the keys a, b``."""
    if isinstance(content, Mapping):
        return f"a JSON object with the keys {listed(map(str, content))}" if content else "an empty JSON object"
    if isinstance(content, list):
        inner = f" of {describe(content[0]).removeprefix('a ').replace('object', 'objects', 1)}" if content else ""
        return f"a JSON array{inner}"
    return "a text" if isinstance(content, str) else f"the JSON value {content!r:.40}"


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many there are more."""
    names = list(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(name[:40] for name in names[:MOST_NAMES]) + more


def _list_shape(turns: Sequence[Any], key: str, labels: Mapping[str, Role]) -> CorpusMap | None:
    if turns and all(isinstance(turn, str) for turn in turns):
        return CorpusMap(each="text", text=key) if is_labelled("\n".join(turns), labels) else None
    messages = [turn for turn in turns if isinstance(turn, Mapping)]
    if len(messages) < len(turns):
        return None
    keys = next(filter(None, map(_keys, messages)), None) if messages else STANDARD.get(key, (SPEAKER[0], TEXT[0]))
    return CorpusMap(each="session", turns=[key], speaker=keys[0], text=keys[1]) if keys else None


def _keys(message: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of the speaker and of the words of a message."""
    speaker = next((key for key in SPEAKER if isinstance(message.get(key), str | int)), None)
    keys = texts_of(speaker) if speaker else ()
    text = next((key for key in keys if key != speaker and isinstance(message.get(key), str | list)), None)
    text = text or next((key for key in keys if key != speaker and key in message), None)
    return (speaker, text) if speaker and text else None


def first_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """Return the column that is called by the first of ``names`` that there is, in any case; None if there is none."""
    by_name = {name.strip().casefold(): name for name in columns}
    return next((by_name[name] for name in names if name in by_name), None)
