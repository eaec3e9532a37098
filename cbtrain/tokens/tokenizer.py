"""Tokenizers: load one, save one, or train the byte-level BPE of a tiny model."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import read_json_object

# The library starts worker threads of its own; a fork after that can deadlock.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TINY_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def has_tokenizer(folder: Path) -> bool:
    """Return whether there are files of a tokenizer in ``folder``."""
    return any((folder / name).exists() for name in FILES)


def load_tokenizer(folder: str | Path) -> Any:
    """Return the fast tokenizer of a model folder. Python code in the folder (``auto_map``) is never run, and nobody is
    asked whether it may. Raises UserError if there is no tokenizer."""
    from transformers import AutoTokenizer

    folder = Path(folder)
    hint = "Add tokenizer.json to it."
    single = (folder / "tokenizer.model").exists() and not (folder / "tokenizer.json").exists()
    if single and importlib.util.find_spec("sentencepiece") is None:
        problem = "there is only tokenizer.model, which needs the package sentencepiece"
        raise UserError(problem, where=folder, hint="Install it (`pip install sentencepiece`), or add tokenizer.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds here, all about the files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            reason = "it comes as Python code (auto_map), which is never run"
            hint = "Use a model whose tokenizer is of a class of transformers, with a tokenizer.json."
        raise UserError(f"no usable tokenizer ({reason})", where=folder, hint=hint) from None
    if not tokenizer.is_fast:
        raise UserError("there is only a slow tokenizer", where=folder, hint="Add tokenizer.json (the fast one) to it.")
    return tokenizer


def tokenizer_notes(folder: Path) -> list[str]:
    """Return a short text for each setting in the tokenizer's files that is not used."""
    settings = read_settings(folder / "tokenizer_config.json")
    notes = []
    if settings.get("auto_map"):
        notes.append("tokenizer_config.json: auto_map (the tokenizer's own Python code is never run)")
    template, template_file = settings.get("chat_template"), folder / "chat_template.jinja"
    if template_file.exists() and template and template != template_file.read_text(encoding="utf-8"):
        notes.append("tokenizer_config.json: chat_template (another one is in chat_template.jinja, which counts)")
    others = [entry.get("name") for entry in template if isinstance(entry, dict)] if isinstance(template, list) else []
    others += sorted(file.stem for file in (folder / "additional_chat_templates").glob("*.jinja"))
    others = [name for name in others if name != "default"]
    if others:
        notes.append(f"chat templates besides the default one: {', '.join(map(str, others))}")
    return notes


def read_settings(file: Path) -> dict[str, Any]:
    """Return the JSON object in ``file``, empty if there is no such file. Raises UserError on other content."""
    return read_json_object(file, "Download it again.") if file.exists() else {}


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer that cbtrain has trained to ``folder``, so that transformers 4 and 5 open it: the class name
    and the key of the special tokens that version 5 writes are unknown to version 4."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = read_settings(file)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """Return a new byte-level BPE tokenizer of at most ``vocabulary`` entries, with the tiny models' chat template."""
    from tokenizers import pre_tokenizers

    return _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), None, texts, vocabulary, max_positions)


def train_word_tokenizer(texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """Return :func:`train_tokenizer`, but of texts in small letters without spaces, in which letters and digits are
    never one token: equal words are equal tokens wherever they stand. What it decodes has neither capitals nor
    spaces."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = pre_tokenizers.Sequence([words, as_bytes])
    return _trained(pieces, normalizers.Lowercase(), texts, vocabulary, max_positions)


def _trained(pieces: Any, normalizer: Any, texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """Return a byte-level BPE tokenizer trained on ``texts``, which ``normalizer`` (None: nothing) changes and
    ``pieces`` splits before."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pieces
    if normalizer is not None:
        bpe.normalizer = normalizer
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES),
        chat_template=TINY_TEMPLATE,
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
