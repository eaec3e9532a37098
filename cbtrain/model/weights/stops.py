"""Where a model folder says how chats are laid out and what ends an answer, for programs that read nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError

CHAT_FORMAT = "chat_format.json"
TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"


def write_stop_ids(folder: Path, more: Iterable[int] = ()) -> None:
    """Add ``more`` and the stop tokens that ``chat_format.json`` in ``folder`` names to ``eos_token_id`` of
    ``generation_config.json``, where vLLM, ``transformers`` and llama.cpp's converter look. Nothing where it names
    none."""
    chat = folder / CHAT_FORMAT
    stops = json.loads(chat.read_text(encoding="utf-8")).get("stop_token_ids", []) if chat.exists() else []
    stops += sorted(set(more) - set(stops))
    if not stops:
        return
    generation = folder / GENERATION
    settings = read_generation_config(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = settings.get("eos_token_id", config.get("eos_token_id"))
    before = known if isinstance(known, list) else [] if known is None else [known]
    # The stop token of chats comes first: some programs read only one.
    settings["eos_token_id"] = list(dict.fromkeys([*stops, *before]))
    generation.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def generation_stops(folder: Path) -> frozenset[int]:
    """Return the ``eos_token_id`` of ``generation_config.json``, with which transformers and vLLM end an answer; it may
    name more tokens than ``config.json``. Raises UserError on a malformed file."""
    eos = read_generation_config(folder).get("eos_token_id")
    try:
        return frozenset(map(int, eos if isinstance(eos, list) else [] if eos is None else [eos]))
    except (TypeError, ValueError):
        raise UserError(f"eos_token_id is {eos!r}", where=folder / GENERATION, hint="Download it again.") from None


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the parsed ``generation_config.json``, empty if there is none. Raises UserError on a malformed file."""
    file = folder / GENERATION
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"malformed JSON ({error})", where=file, hint="Download it again, or remove it.") from None
    if not isinstance(settings, dict):
        raise UserError("not a JSON object", where=file, hint="Download it again, or remove it.")
    return settings


def drop_old_template(folder: Path) -> None:
    """Take the template in ``tokenizer_config.json`` away where ``folder`` has one in a file of its own: some readers
    look at that old place first."""
    config = folder / "tokenizer_config.json"
    if not config.exists() or not (folder / TEMPLATE).exists():
        return
    settings = json.loads(config.read_text(encoding="utf-8"))
    if settings.pop("chat_template", None):
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
