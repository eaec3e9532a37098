"""Shared by the parsers of all commands."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from cbtrain.errors import Stopped, UserError, nearest
from cbtrain.files import exists
from cbtrain.stopping import stop_at_once

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.config.schema import StudyConfig

EXAMPLE = "therapist.learning_rate=1e-4"

SETTINGS = f"Settings are key=value, e.g. {EXAMPLE}; `cbtrain config explain` lists them all."

ALIASES = "An option with [KEY] is another way to write KEY=VALUE."
"""In the help of commands that have :meth:`Parser.add_alias`."""

COMMAND_LINE = "command line"
"""As cbtrain.config.overrides calls it, which takes longer to import than all of this."""


class _Once(argparse.Action):
    """Stores a value, as argparse does where nothing else is said, but refuses another one for the same option: of two,
    the first would be dropped silently."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        given: dict[str, Any] = namespace.__dict__.setdefault("given", {})
        if option is not None and self.dest in given and given[self.dest] != values:
            parser.error(f"argument {'/'.join(self.option_strings)}: given twice, with different values")
        given[self.dest] = values
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as everywhere in cbtrain, and which remembers its arguments and commands."""

    summary = ""
    """Its line in the help of the parser above."""

    settings_of: str | None = None
    """The config that its ``key=value`` settings belong to: ``study``, ``synthesis`` or ``provider``; None if it takes
    none."""

    takes_file = False
    """Whether a word that is neither option nor setting may name a file."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.options: list[argparse.Action] = []
        self.aliases: dict[str, tuple[str, str]] = {}
        """Option and setting of each argument that is another name of a setting, by where its value is put."""
        self.subcommands: Commands | None = None
        self.suggest: Callable[[], Sequence[str]] = tuple
        """Returns words that may stand as its positional arguments, for a shell to complete."""
        super().__init__(*args, **options)
        self.register("action", None, _Once)

    def add_argument(self, *args: Any, **options: Any) -> argparse.Action:
        """Add an argument as argparse does, and remember it."""
        action = super().add_argument(*args, **options)
        if action.option_strings and action.help != argparse.SUPPRESS:
            self.options.append(action)
        return action

    def add_alias(self, name: str, key: str, **options: Any) -> None:
        """Add the option ``name`` (or a positional argument), which is another name of the setting ``key``: see
        :func:`study_of`. A ``const`` is the value that it stands for."""
        value = f"={str(options['const']).lower()}" if "const" in options else ""
        action = self.add_argument(name, **options | {"default": None, "help": f"{options['help']} [{key}{value}]"})
        self.aliases[action.dest] = (name if action.option_strings else COMMAND_LINE, key)

    def add_commands(self, **options: Any) -> Commands:
        """Return the object to which commands are added, and remember it."""
        self.subcommands = self.add_subparsers(prog=self.prog, parser_class=Parser, **options)
        return self.subcommands

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        name = self.prog.removeprefix("cbtrain").strip() or None
        raise UserError(message, where=name, hint=f"See `{self.prog} --help`.")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""The object to which parsers of commands are added."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str, more: str = ""
) -> Parser:
    """Return a new parser of the command ``name``, which ``run`` carries out; ``text`` is its help, ``more`` stands
    behind it in its own ``--help``."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
    parser.summary = text
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_study_arguments(parser: Parser, example: str = EXAMPLE) -> None:
    """Add ``--config`` and settings over it, such as ``example``."""
    parser.add_argument("--config", help="YAML file, or the name of a shipped config")
    add_settings(parser, example=example)


def add_settings(parser: Parser, of: str = "study", example: str = EXAMPLE) -> None:
    """Add ``key=value …``, such as ``example``."""
    parser.settings_of = of
    text = f"settings that override the config, e.g. {example}"
    parser.add_argument("settings", nargs="*", metavar="key=value", help=text)


def add_optional_word(parser: Parser, name: str, text: str, key: str | None = None) -> None:
    """Add a positional argument that may be left out, before settings: see :func:`place_words`. It may be another name
    of the setting ``key``."""
    parser.takes_file = True
    parser.add_alias(name, key, nargs="?", help=text) if key else parser.add_argument(name, nargs="?", help=text)
    parser.set_defaults(optional_word=name)


def study_of(parsed: argparse.Namespace) -> StudyConfig:
    """Return the settings of a command: those of ``--config``, over them ``key=value``, and over these the options that
    are other names of settings. Raises UserError."""
    from cbtrain.config.loading import load_config

    given = {where: (key, getattr(parsed, name, None)) for name, (where, key) in parsed.parser.aliases.items()}
    options = [(where, key, value) for where, (key, value) in given.items() if value not in (None, [])]
    return load_config(parsed.config, parsed.settings, options=options)


def add_upload_argument(parser: Parser, what: str) -> None:
    """Add ``--allow-upload``, for ``what``."""
    text = f"{what} of an imported corpus may be sent to the APIs that the settings name"
    parser.add_argument("--allow-upload", action="store_true", help=text)


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed ``words``. Raises UserError on an unknown command or option, and on a word too many."""
    parsed, more = parser.parse_known_args(join_words(words, parser))
    parsed.command_line = list(words)
    if left := place_words(parsed, more):
        command: Parser = parsed.parser
        names = [name for option in command.options for name in option.option_strings]
        close = difflib.get_close_matches(left[0].partition("=")[0], names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"See `{command.prog} --help`."
        where = command.prog.removeprefix("cbtrain ")
        raise UserError(f"unrecognized arguments: {' '.join(left)}", where=where, hint=hint)
    return parsed


def place_words(parsed: argparse.Namespace, more: Sequence[str]) -> list[str]:
    """Put ``more``, words that argparse has left over, where they belong: it takes positional arguments from one place
    only, but settings may stand on both sides of an option, and before a word that may be left out.

    Return those that belong nowhere. Raises UserError if there are two words and room for one.
    """
    if not hasattr(parsed, "settings") or any(word.startswith("-") for word in more):
        return list(more)
    if not hasattr(parsed, "optional_word"):
        parsed.settings += [word for word in more if "=" in word]
        return [word for word in more if "=" not in word]
    name = parsed.optional_word
    words = [word for word in (getattr(parsed, name), *parsed.settings, *more) if word is not None]
    others = [word for word in words if not is_setting(word)]
    if len(others) > 1:
        raise UserError(f"unexpected {others[1]!r}", where=COMMAND_LINE, hint="Settings are key=value.")
    setattr(parsed, name, others[0] if others else None)
    parsed.settings = [*(getattr(parsed, "set", None) or []), *(word for word in words if is_setting(word))]
    return []


def is_setting(word: str) -> bool:
    """Return whether ``word`` is a setting ``key=value``, and not the name of a file."""
    return "=" in word and not exists(word)


def join_words(words: Sequence[str], parser: Parser) -> list[str]:
    """Return ``words`` with a command of two words (``rate export``) as one: argparse cannot tell them apart where the
    first word is a command too, and takes settings.

    Raises UserError on a word that is no command, with the one that was probably meant.
    """
    commands = _names(parser)
    first, second = (*words[:2], "", "")[:2]
    if not first or first.startswith("-"):
        return list(words)
    if first not in commands:
        whole = [f"{command} {word}" for command in commands for word in _below(parser, command) if word == first]
        hint = f"Did you mean {' or '.join(map(repr, whole))}?" if whole else nearest(first, commands)
        raise UserError(f"unknown command {first!r}", hint=hint)
    below = _below(parser, first)
    if not below or not second or second.startswith("-") or is_setting(second):
        return list(words)
    if second not in below:
        raise UserError(f"unknown command {f'{first} {second}'!r}", hint=_whole(nearest(second, below), first))
    two = f"{first} {second}"
    return [two, *words[2:]] if parser.subcommands and two in parser.subcommands.choices else list(words)


def _whole(hint: str, first: str) -> str:
    """Return ``hint`` with the first word of a command before the second."""
    return hint.replace("Did you mean '", f"Did you mean '{first} ")


def _names(parser: Parser) -> list[str]:
    """Return the first words of the commands below ``parser``."""
    choices = parser.subcommands.choices if parser.subcommands else {}
    return list(dict.fromkeys(name.partition(" ")[0] for name in choices))


def _below(parser: Parser, first: str) -> list[str]:
    """Return the second words of the command ``first``: its own sub-commands, and the commands of two words."""
    choices = parser.subcommands.choices if parser.subcommands else {}
    joined = [name.partition(" ")[2] for name in choices if name.startswith(f"{first} ")]
    return joined + (_names(choices[first]) if first in choices else [])


def options_of(parsed: argparse.Namespace) -> dict[str, str]:
    """Return the command and its options, each with its value. Not ``--config`` and ``key=value``: the settings that
    they give say what they mean."""
    command: Parser = parsed.parser
    given = {
        action.option_strings[-1]: str(getattr(parsed, action.dest))
        for action in command.options
        if hasattr(parsed, action.dest) and action.dest != "config"
    }
    return {"command": command.prog, **given}


@contextmanager
def continued_by(words: Sequence[str], option: str, folder: Path) -> Iterator[None]:
    """Inside, a signal ends the work with Stopped, which names the command that continues: ``words``, with ``option``
    naming ``folder``."""
    given = any(word == option or word.startswith(f"{option}=") for word in words)
    command = ["cbtrain", *words, *(() if given else (option, str(folder)))]
    with stop_at_once():
        try:
            yield
        except Stopped as stopped:
            stopped.command = stopped.command or shlex.join(command)
            raise


def rank() -> int:
    """Return this process's number among those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0"))


def leading_console() -> Console:
    """Return a console on standard output; silent on ranks other than the first."""
    from rich.console import Console

    return Console(quiet=rank() != 0)
