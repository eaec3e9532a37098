"""Data of known kinds that hold no dialogue, so that a message can name them and say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbtrain.transcripts.mapping.names import SPEAKER, TEXT, TIMES

TEMPLATES = {
    "<|im_start|>": "ChatML",
    "<|start_header_id|>": "Llama 3",
    "[INST]": "Llama 2 or Mistral",
    "<start_of_turn>": "Gemma",
    "<|user|>": "Phi or Zephyr",
    "<|assistant|>": "Phi or Zephyr",
    "<｜User｜>": "DeepSeek",
    "### Instruction:": "Alpaca",
    "### Human:": "Guanaco",
}
"""What a chat template writes between turns, and whose it is."""

SPEAKERLESS = (
    "Whisper does not tell speakers apart: transcribe with speakers (WhisperX --diarize), or write a label before each "
    "turn (Therapist: …) in a text."
)
LOOKED_AT = 4000
"""Characters of a text in which a template is looked for."""


def template_of(content: Any) -> str | None:
    """Return whose chat template has written the texts of ``content``, and its mark: ``ChatML: <|im_start|>``. None if
    none has."""
    for text in _texts(content):
        for mark, template in TEMPLATES.items():
            if mark in text[:LOOKED_AT]:
                return f"{template}: {mark}"
    return None


def is_judged(content: Mapping[str, Any]) -> bool:
    """Return whether a record says in ``label`` whether its answer is a good one, as TRL's and LLaMA-Factory's for KTO
    do."""
    return isinstance(content.get("label"), bool)


def no_dialogue(content: Any) -> tuple[str, str] | None:
    """Return what a record (or the columns of a table, with whatever values) is that cannot be read as sessions, and
    what to do; None if that is not known."""
    if not isinstance(content, Mapping):
        return None
    if "chosen" in content and "rejected" in content:
        what = "preferences whose chosen and rejected are neither texts nor lists of messages"
        return what, "Name the keys of both answers: each: preference, chosen and rejected of a map (--map)."
    if is_judged(content):
        what = "answers with a label, true or false: preferences (KTO), of which some are not to be learnt"
        return what, "Name a file for supervised fine-tuning; if label means something else, write a map with each."
    if "input_ids" in content:
        return "token ids, not words", "Name the file that they were made from."
    if template := template_of(content):
        what = f"texts that a chat template has rendered ({template}), not turns"
        return what, "Name the file with the messages from before the template."
    if count := _speakerless_segments(content):
        return f"{count:,} segments, and none names its speaker", SPEAKERLESS
    names = {str(key).casefold() for key in content}
    if "text" in names and names & {*TIMES, "end"} and not names & {*SPEAKER}:
        return "segments without a column for the speaker", SPEAKERLESS
    return None


def _speakerless_segments(content: Mapping[str, Any]) -> int:
    """Return the number of segments under a key of ``content`` that have words and times, but no speaker; 0 if there
    are none."""
    for value in content.values():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            words = all(any(key in item for key in TEXT) for item in value)
            timed = all(any(key in item for key in (*TIMES, "timestamps", "offsets")) for item in value)
            if words and timed and not any(key in item for item in value for key in SPEAKER):
                return len(value)
    return 0


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts of a record, and those in its lists of objects."""
    for value in content.values() if isinstance(content, Mapping) else ():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Sequence):
            yield from (text for item in value if isinstance(item, Mapping) for text in item.values() if _is_text(text))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
