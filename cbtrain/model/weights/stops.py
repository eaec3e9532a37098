"""Where a model folder says how chats are laid out and what ends an answer, for programs that read nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path

CHAT_FORMAT = "chat_format.json"
TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"


def write_stop_ids(folder: Path) -> None:
    """Add the stop tokens that ``chat_format.json`` in ``folder`` names to ``eos_token_id`` of
    ``generation_config.json``, where vLLM, ``transformers`` and llama.cpp's converter look. Nothing where it names
    none."""
    chat = folder / CHAT_FORMAT
    stops = json.loads(chat.read_text(encoding="utf-8")).get("stop_token_ids", []) if chat.exists() else []
    if not stops:
        return
    generation = folder / GENERATION
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.exists() else {}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = settings.get("eos_token_id", config.get("eos_token_id"))
    before = known if isinstance(known, list) else [] if known is None else [known]
    # The stop token of chats comes first: some programs read only one.
    settings["eos_token_id"] = list(dict.fromkeys([*stops, *before]))
    generation.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def drop_old_template(folder: Path) -> None:
    """Take the template in ``tokenizer_config.json`` away where ``folder`` has one in a file of its own: some readers
    look at that old place first."""
    config = folder / "tokenizer_config.json"
    if not config.exists() or not (folder / TEMPLATE).exists():
        return
    settings = json.loads(config.read_text(encoding="utf-8"))
    if settings.pop("chat_template", None):
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
