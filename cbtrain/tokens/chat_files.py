"""The files that say with an adapter how its chats are laid out: template, what ends an answer, system prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import read_json_object
from cbtrain.tokens.default_system import with_default_system, without_default_system
from cbtrain.tokens.formats import ChatFormat

TEMPLATE_FILE, FORMAT_FILE = "chat_template.jinja", "chat_format.json"

VERSION = 2
"""Version of ``chat_format.json``. Files without one are of version 1, which had no system prompt."""

TRAIN_AGAIN = "Train the adapter again, or remove it."


@dataclass(frozen=True, slots=True)
class TrainedPrompt:
    """The system prompt that a model was trained with, to be served where a chat has none. If ``text`` is None,
    ``note`` says why there is none. ``in_template``: the saved template writes it."""

    text: str | None
    note: str = ""
    in_template: bool = False


def format_files(
    chat_format: ChatFormat, stop_ids: Iterable[int] = (), prompt: TrainedPrompt | None = None
) -> dict[str, str]:
    """Return name and text of the files that store an adapter's layout: the template, by the name that vLLM and
    ``transformers`` read, and the rest that serving needs; ``stop_ids`` are the tokens that end an answer."""
    template = chat_format.template
    settings: dict[str, Any] = {
        "version": VERSION,
        "name": chat_format.name,
        "stop_strings": list(chat_format.stop_strings),
        "single_answer": chat_format.single_answer,
        "stop_token_ids": sorted(stop_ids),
    }
    if prompt is not None:
        settings |= {
            "system_prompt": prompt.text,
            "system_note": prompt.note,
            "system_in_template": prompt.in_template,
        }
        if prompt.in_template and prompt.text:
            template = with_default_system(template, prompt.text)
    return {TEMPLATE_FILE: template, FORMAT_FILE: json.dumps(settings, indent=2, ensure_ascii=False) + "\n"}


def saved_format(folder: str | Path) -> ChatFormat | None:
    """Return the layout of training that is saved in ``folder``, None if there is none. Raises UserError on a damaged
    file."""
    template_file, settings_file = Path(folder) / TEMPLATE_FILE, Path(folder) / FORMAT_FILE
    if not template_file.exists():
        if settings_file.exists():
            problem = f"{FORMAT_FILE} is here, but {TEMPLATE_FILE} is missing"
            raise UserError(problem, where=folder, hint="Copy the whole folder again, or name a --chat-format.")
        return None
    settings = _read_settings(settings_file)
    name, stops = settings.get("name", "template"), settings.get("stop_strings", [])
    single_answer = settings.get("single_answer", False)
    texts = [name, *stops] if isinstance(stops, list) else [None]
    if not all(isinstance(text, str) for text in texts) or not isinstance(single_answer, bool):
        problem = "damaged (name, stop_strings or single_answer is of a wrong kind)"
        raise UserError(problem, where=settings_file, hint=TRAIN_AGAIN)
    template = layout_template(read_template(template_file), folder)
    return ChatFormat(name, template, tuple(stops), single_answer, note="saved with the adapter")


def saved_prompt(folder: str | Path) -> TrainedPrompt | None:
    """Return the system prompt of training that is saved in ``folder``, None if cbtrain did not write the folder.
    Raises UserError on a damaged file."""
    file = Path(folder) / FORMAT_FILE
    if not file.exists():
        return None
    settings = _read_settings(file)
    if "system_prompt" not in settings:
        return TrainedPrompt(None, "an older cbtrain saved none: send the one of training")
    prompt = TrainedPrompt(
        settings["system_prompt"], settings.get("system_note", ""), settings.get("system_in_template", False)
    )
    kinds = (prompt.text, str | None), (prompt.note, str), (prompt.in_template, bool)
    if not all(isinstance(value, kind) for value, kind in kinds):
        problem = "damaged (system_prompt, system_note or system_in_template is of a wrong kind)"
        raise UserError(problem, where=file, hint=TRAIN_AGAIN)
    return prompt


def layout_template(template: str, folder: str | Path) -> str:
    """Return ``template``, which was read from ``folder``, without the block that writes the trained system prompt.
    Raises UserError like :func:`saved_prompt`."""
    prompt = saved_prompt(folder)
    return without_default_system(template, prompt.text) if prompt and prompt.text else template


def read_template(file: Path) -> str:
    """Return the chat template in ``file``. Raises UserError where it is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except (ValueError, OSError) as error:
        raise UserError(f"not a chat template ({error})", where=file, hint="Download or copy it again.") from None


def _read_settings(file: Path) -> dict[str, Any]:
    """Return the content of ``chat_format.json``, empty if there is no such file."""
    settings = read_json_object(file, TRAIN_AGAIN) if file.exists() else {}
    version = settings.get("version", 1)
    if not isinstance(version, int) or version > VERSION:
        hint = "Update cbtrain, or train the adapter again."
        raise UserError(f"version {version!r}, and this cbtrain reads up to {VERSION}", where=file, hint=hint)
    return settings
