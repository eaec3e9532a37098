"""The option ``--system``, of commands in which a model is talked to."""

from __future__ import annotations

from pathlib import Path

from cbtrain.cli.parser import Parser
from cbtrain.errors import UserError

TRAINED, NONE = "trained", "none"


def add_system_option(parser: Parser, text: str) -> None:
    """Add ``--system``; ``text`` is the beginning of its help."""
    text = f"{text}: trained (the prompt that is saved with the adapter), none, or a text file"
    parser.add_argument("--system", default=TRAINED, metavar="trained|none|FILE", help=text)


def system_text(option: str) -> str | None:
    """Return the text of the file that ``--system`` names, None if it names none. Raises UserError if there is no text
    in it."""
    if option in (TRAINED, NONE):
        return None
    try:
        text = Path(option).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Give trained, none, or a text file with a system prompt."
        raise UserError(f"{option!r} cannot be read ({reason})", where="--system", hint=hint) from None
    if not text:
        raise UserError(f"{option!r} is empty", where="--system", hint="Use --system none for no system prompt.")
    return text
