"""The tokenizer and the chat format that a base model is served with, with and without an adapter.

An adapter's folder holds its tokenizer and template, from cbtrain or from other tools. Both belong to the adapter: a
token that was added in training is one id there and several pieces in the base's tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import FORMAT_FILE, TEMPLATE_FILE, layout_template, read_template, saved_format
from cbtrain.tokens.formats import ChatFormat, choose_format
from cbtrain.tokens.tokenize import tokenizer_digest
from cbtrain.tokens.tokenizer import load_tokenizer, read_settings, save_tokenizer

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES = (*VOCABULARIES, "merges.txt", *SETTINGS)
SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token")


def serving_tokenizer(base: Path, adapter: Path | None, rows: int) -> Any:
    """Load the tokenizer of ``adapter`` where its folder holds one, else that of ``base`` with the special tokens and
    the template that the adapter's ``tokenizer_config.json`` names.

    ``rows`` are the embeddings of ``base``. Raises UserError if the adapter's tokenizer has a token beyond them that
    the base's has not, and where its settings name tokens and its vocabulary is missing.
    """
    if adapter is None:
        tokenizer = load_tokenizer(base)
        if isinstance(tokenizer.chat_template, str):
            tokenizer.chat_template = layout_template(tokenizer.chat_template, base)
        return tokenizer
    if any((adapter / name).exists() for name in VOCABULARIES):
        tokenizer = load_tokenizer(adapter)
        _require_rows(tokenizer, base, adapter, rows)
        if not tokenizer.chat_template:
            tokenizer.chat_template = load_tokenizer(base).chat_template
    else:
        tokenizer = load_tokenizer(base)
        try:
            _take_settings(tokenizer, adapter)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"a value of a wrong kind ({type(error).__name__}: {error})"
            raise UserError(problem, where=adapter / "tokenizer_config.json", hint="Download it again.") from None
    if (adapter / TEMPLATE_FILE).exists():
        tokenizer.chat_template = layout_template(read_template(adapter / TEMPLATE_FILE), adapter)
    return tokenizer


def tokenizer_files(base: Path, tokenizer: Any) -> dict[str, bytes]:
    """Return name and content of files from which ``transformers`` opens ``tokenizer``, which was loaded from ``base``,
    in any other folder: copies, or files written anew if those of ``base`` need its config.json."""
    files = {name: (base / name).read_bytes() for name in TOKENIZER_FILES if (base / name).exists()}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            if tokenizer_digest(load_tokenizer(folder)) == tokenizer_digest(tokenizer):
                return files
        except UserError:
            pass
    with TemporaryDirectory() as temporary:
        save_tokenizer(tokenizer, Path(temporary))
        return {path.name: path.read_bytes() for path in sorted(Path(temporary).glob("*.json"))}


def added_stop_ids(base: Path, adapter: Path, rows: int) -> frozenset[int]:
    """Return the tokens that end an answer in the adapter's own tokenizer and template, for a model that holds both;
    none if its folder has no tokenizer. Raises UserError as :func:`serving_tokenizer` does, and if the template
    cannot be used."""
    if not any((adapter / name).exists() for name in (*VOCABULARIES, "tokenizer_config.json")):
        return frozenset()
    tokenizer = serving_tokenizer(base, adapter, rows)
    if not tokenizer.chat_template:
        return frozenset() if tokenizer.eos_token_id is None else frozenset({tokenizer.eos_token_id})
    return ChatRenderer(tokenizer, serving_format(tokenizer, base, adapter), rows).stop_ids


def serving_format(tokenizer: Any, base: Path, adapter: Path | None, wanted: str = "auto") -> ChatFormat:
    """Choose how chats are laid out: as ``wanted`` says; if that is ``auto``, as cbtrain saved it with the adapter or
    the merged model, else by :func:`choose_format` from the template of ``tokenizer``.

    Raises UserError as these do.
    """
    folder = adapter or base
    if wanted == "auto" and (folder / FORMAT_FILE).exists():
        saved = saved_format(folder)
        if saved is not None:
            return saved
    return choose_format(tokenizer, wanted, where=folder if adapter and _has_template(adapter) else base)


def _has_template(folder: Path) -> bool:
    return (folder / TEMPLATE_FILE).exists() or bool(
        read_settings(folder / "tokenizer_config.json").get("chat_template")
    )


def _require_rows(tokenizer: Any, base: Path, adapter: Path, rows: int) -> None:
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    base_vocabulary = load_tokenizer(base).get_vocab() if beyond else {}
    added = sorted((number, token) for token, number in beyond.items() if base_vocabulary.get(token) != number)
    if added:
        number, token = added[0]
        problem = f"its tokenizer has the token {token!r} as number {number}, but the base has only {rows} embeddings"
        hint = "Resize the base to this tokenizer and merge the adapter with peft, or train it without new tokens."
        raise UserError(problem, where=adapter, hint=hint)


def _take_settings(tokenizer: Any, adapter: Path) -> None:
    """Take template and special tokens from the settings of an adapter whose folder has no vocabulary."""
    settings = read_settings(adapter / "tokenizer_config.json")
    special = read_settings(adapter / "special_tokens_map.json")
    base_vocabulary = tokenizer.get_vocab()
    added = {str(_text(entry)): int(number) for number, entry in (settings.get("added_tokens_decoder") or {}).items()}
    added |= read_settings(adapter / "added_tokens.json")
    named = {key: _text(settings.get(key) or special.get(key)) for key in SPECIALS}
    unknown = [token for token, number in added.items() if base_vocabulary.get(token) != number]
    unknown += [token for token in named.values() if token is not None and token not in base_vocabulary]
    if unknown:
        problem = f"its settings name the token {unknown[0]!r}, which the base's tokenizer does not have"
        raise UserError(problem, where=adapter, hint="Put the tokenizer.json that belongs to the adapter into it.")
    for key, token in named.items():
        if token is not None:
            setattr(tokenizer, key, token)
    if settings.get("chat_template"):
        template = settings["chat_template"]
        named_templates = isinstance(template, list)
        tokenizer.chat_template = (
            {entry["name"]: entry["template"] for entry in template} if named_templates else template
        )


def _text(token: Any) -> str | None:
    """Return the text of a token, which settings write as a text or as an object with ``content``."""
    return token.get("content") if isinstance(token, dict) else token
