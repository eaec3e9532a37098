"""Where a model folder says how chats are laid out and what ends an answer, also for programs other than cbtrain."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import read_json_object
from cbtrain.model.config_values import TOKEN_ID

CHAT_FORMAT = "chat_format.json"
TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"

AGAIN = "Download it again."
FROM_ADAPTER = "Copy the adapter's folder again, or train it again."


def write_stop_ids(folder: Path, more: Iterable[int] = ()) -> None:
    """Add ``more`` and the stop tokens that ``chat_format.json`` in ``folder`` names to ``eos_token_id`` of
    ``generation_config.json``, where vLLM, ``transformers`` and llama.cpp's converter look. Nothing where it names
    none."""
    chat = folder / CHAT_FORMAT
    stops = read_stop_token_ids(chat) if chat.exists() else []
    stops += sorted(set(more) - set(stops))
    if not stops:
        return
    generation = folder / GENERATION
    settings = read_generation_config(folder)
    config = read_json_object(folder / "config.json", AGAIN)
    ids_in_config = settings.get("eos_token_id", config.get("eos_token_id"))
    before = ids_in_config if isinstance(ids_in_config, list) else [] if ids_in_config is None else [ids_in_config]
    # The stop token of chats comes first: some programs read only one.
    settings["eos_token_id"] = list(dict.fromkeys([*stops, *before]))
    generation.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def generation_stops(folder: Path) -> frozenset[int]:
    """Return the ``eos_token_id`` of ``generation_config.json``, with which transformers and vLLM end an answer; it may
    name more tokens than ``config.json``. Raises UserError on a malformed file."""
    eos = read_generation_config(folder).get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(TOKEN_ID.holds(token) for token in ids):
        raise UserError(f"eos_token_id is {eos!r}", where=folder / GENERATION, hint=AGAIN)
    return frozenset(map(int, ids))


def read_stop_token_ids(chat_format: Path) -> list[int]:
    """Return the ids of the stop tokens that the file ``chat_format.json`` names. Raises UserError where it is
    damaged."""
    ids = read_json_object(chat_format, FROM_ADAPTER).get("stop_token_ids", [])
    if not isinstance(ids, list) or not all(TOKEN_ID.holds(token) for token in ids):
        raise UserError(f"stop_token_ids is {ids!r}, not a list of token ids", where=chat_format, hint=FROM_ADAPTER)
    return list(map(int, ids))


def read_stop_strings(chat_format: Path) -> list[str]:
    """Return the texts that end an answer, as the file ``chat_format.json`` names them. Raises UserError where it is
    damaged."""
    texts = read_json_object(chat_format, FROM_ADAPTER).get("stop_strings", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"stop_strings is {texts!r}, not a list of texts", where=chat_format, hint=FROM_ADAPTER)
    return texts


def read_system_prompt(chat_format: Path) -> tuple[str | None, str, bool] | None:
    """Return what the file ``chat_format.json`` says of the system prompt of training: the text, or None and why there
    is none; and whether the chat template writes it. None if the file says nothing of one. Raises UserError where it is
    damaged."""
    settings = read_json_object(chat_format, FROM_ADAPTER)
    if "system_prompt" not in settings:
        return None
    text, note = settings["system_prompt"], settings.get("system_note", "")
    in_template = settings.get("system_in_template", False)
    if not isinstance(text, str | None) or not isinstance(note, str) or not isinstance(in_template, bool):
        raise UserError(f"system_prompt is {text!r}, not a text", where=chat_format, hint=FROM_ADAPTER)
    return text, note, in_template


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the parsed ``generation_config.json``, empty if there is none. Raises UserError on a malformed file."""
    file = folder / GENERATION
    return read_json_object(file, "Download it again, or remove it.") if file.exists() else {}


def drop_old_template(folder: Path) -> None:
    """Take the template in ``tokenizer_config.json`` away where ``folder`` has one in a file of its own: some readers
    look at that old place first."""
    config = folder / "tokenizer_config.json"
    if not config.exists() or not (folder / TEMPLATE).exists():
        return
    settings = read_json_object(config, AGAIN)
    if settings.pop("chat_template", None):
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
