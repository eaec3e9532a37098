"""Tokenizer and chat template of an adapter, put into the folder of a merged model in place of the base's."""

from __future__ import annotations

import shutil
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.files import read_json_object
from cbtrain.model.weights.card import system_section
from cbtrain.model.weights.stops import (
    AGAIN,
    CHAT_FORMAT,
    TEMPLATE,
    drop_old_template,
    read_stop_strings,
    read_system_prompt,
    write_stop_ids,
)

SETTINGS = "tokenizer_config.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
TOKENIZER_FILES = (*VOCABULARIES, "merges.txt", SETTINGS, "special_tokens_map.json", "added_tokens.json")


def bring_tokenizer(adapter: Path, target: Path) -> None:
    """Put the adapter's tokenizer in place of the one in ``target``, with all of its files: half of each would be a
    third tokenizer. The template of ``target`` stays if the adapter has none."""
    if any((adapter / name).exists() for name in VOCABULARIES):
        _write_template(_template_in(target), target)
        for name in TOKENIZER_FILES:
            (target / name).unlink(missing_ok=True)
            if (adapter / name).exists():
                shutil.copyfile(adapter / name, target / name)
    if not (adapter / TEMPLATE).exists() and (template := _template_in(adapter)):
        (target / TEMPLATE).unlink(missing_ok=True)
        _write_template(template, target)
        (target / CHAT_FORMAT).unlink(missing_ok=True)


def bring_format(adapter: Path, target: Path) -> None:
    """Put the chat template of the adapter in place of the base's, and say in files and model card what ends an answer
    and which system prompt belongs to it."""
    if not (adapter / TEMPLATE).exists():
        return
    shutil.copyfile(adapter / TEMPLATE, target / TEMPLATE)
    drop_old_template(target)
    (target / CHAT_FORMAT).unlink(missing_ok=True)  # of the base
    text = f"\nChats are laid out by `{TEMPLATE}`, as in training.\n"
    if (adapter / CHAT_FORMAT).exists():
        shutil.copyfile(adapter / CHAT_FORMAT, target / CHAT_FORMAT)
        write_stop_ids(target)
        stops = read_stop_strings(adapter / CHAT_FORMAT)
        text += f"End answers at {', '.join(map(repr, stops))} too.\n" if stops else ""
        prompt = read_system_prompt(adapter / CHAT_FORMAT)
        text += "\n" + system_section(*prompt) if prompt else ""
    with (target / "README.md").open("a", encoding="utf-8") as card:
        card.write(text)


def _write_template(template: str | None, target: Path) -> None:
    if template and not (target / TEMPLATE).exists():
        (target / TEMPLATE).write_text(template, encoding="utf-8")
        drop_old_template(target)


def _template_in(folder: Path) -> str | None:
    """The chat template in the settings of the tokenizer, as transformers before 4.46 wrote it; of several by name the
    one that is called default."""
    file = folder / SETTINGS
    try:
        template = read_json_object(file, AGAIN).get("chat_template") if file.exists() else None
        if isinstance(template, list):
            template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(f"damaged ({error})", where=file, hint=AGAIN) from None
    return None if template is None else str(template)
