"""The files of a model folder other than weights: copies from its base, and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

import cbtrain
from cbtrain.files import is_folder

BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
"""Files of a base that are copied with its weights: config, tokenizer, template, licence."""

CARD = """---
{metadata}# license: add yours; the licence of the base model and the terms of the transcripts apply
---

# {name}

{text}, by cbtrain {version}.

> {notice}
"""


def copy_beside_weights(source: Path, target: Path) -> None:
    """Copy all files of a model folder except the weights and their index."""
    for pattern in BESIDE_WEIGHTS:
        for file in source.glob(pattern):
            if file.is_file() and not file.name.endswith(".index.json"):
                shutil.copyfile(file, target / file.name)


def write_card(folder: Path, *, base: str, name: str, text: str, tags: Sequence[str]) -> None:
    """Write ``README.md`` of a model made from ``base``; ``text`` is its first sentence, without the full stop."""
    card = model_card(base=base, name=name, text=text, metadata={"library_name": "transformers", "tags": list(tags)})
    (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(*, base: str, name: str, text: str, metadata: Mapping[str, Any]) -> str:
    """Return the beginning of a model card: the Hugging Face ``metadata`` with the base's name, a title, and ``text``
    as the first sentence, given without the full stop."""
    named = public_name(base)
    header = yaml.safe_dump(
        {"base_model": named, **metadata}, sort_keys=False, default_flow_style=None, allow_unicode=True, width=10**6
    )
    text = text.replace(f"`{base}`", f"`{named}`")
    return CARD.format(metadata=header, name=name, text=text, version=cbtrain.__version__, notice=cbtrain.NOTICE)


def public_name(base: str) -> str:
    """Return the name of a base model for publishing: a hub id as it is, of a folder only its name."""
    return Path(base).resolve().name if is_folder(base) else base


def system_section(text: str | None, note: str, in_template: bool) -> str:
    """Return the section of a card on the system prompt ``text`` of training (None: ``note`` says why there is none),
    which the chat template writes or does not."""
    if text is None:
        return f"## System prompt\n\nNone is saved: {note}.\n"
    how = (
        "`chat_template.jinja` writes it into a chat without a system message. A chat with one is left as it is."
        if in_template
        else "The chat template cannot write it by itself. Send it with each chat: as the system message, or, if the "
        "template refuses system messages, before the first message of the user, with a blank line between them. "
        "`cbtrain serve` does this."
    )
    return f"## System prompt\n\nTrained with this system prompt. {how}\n\n{indent(text.strip(), '    ')}\n"
