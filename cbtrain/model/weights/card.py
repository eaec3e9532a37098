"""The files of a model folder other than weights: copies from its base, and a model card."""

from __future__ import annotations

import shutil
from pathlib import Path

import cbtrain
from cbtrain.files import is_folder

BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
"""Files of a base that are copied with its weights: config, tokenizer, template, licence."""

CARD = """---
base_model: {base}
tags: [{tags}]
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


def write_card(folder: Path, *, base: str, name: str, text: str, tags: str) -> None:
    """Write ``README.md`` of a model made from ``base``; ``text`` is its first sentence, without the full stop."""
    is_path = is_folder(base)  # a card is for publishing: no paths of this machine in it
    named = Path(base).resolve().name if is_path else base
    text = text.replace(f"`{base}`", f"`{named}`")
    card = CARD.format(base=named, tags=tags, name=name, text=text, version=cbtrain.__version__, notice=cbtrain.NOTICE)
    (folder / "README.md").write_text(card, encoding="utf-8")
