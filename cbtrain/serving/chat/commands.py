"""The commands of a chat: lines that begin with ``/``."""

from __future__ import annotations

from dataclasses import dataclass

from cbtrain.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Command:
    """``argument`` as the help shows it, "" if there is none."""

    name: str
    argument: str
    about: str


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "list the commands"),
        Command("crisis", "", "show how to reach people who help"),
        Command("save", "[FILE]", "write the conversation to a new file (.jsonl) or folder"),
        Command("switch", "[NAME]", "let another adapter answer from here on, or base; without a name: list them"),
        Command("regenerate", "", "answer the last words again, with a new seed"),
        Command("undo", "", "take back the last exchange"),
        Command("system", "[TEXT]", "show the system prompt, or set it; trained and none are set by these words"),
        Command("new", "", "start a new conversation"),
        Command("stats", "", "show tokens, speed and how full the context is"),
        Command("quit", "", "leave (also Ctrl-D, or Ctrl-C twice)"),
    )
}
"""In the order of the help."""


@dataclass(frozen=True, slots=True)
class Call:
    """The command ``name``, as a person has called it."""

    name: str
    argument: str = ""


def parse(line: str) -> Call | str:
    """Return the command that ``line`` calls, or the words that it says: ``//`` at the beginning is a ``/`` of the
    words. Raises UserError on an unknown command, and on an argument where none belongs."""
    line = line.strip()
    if not line.startswith("/"):
        return line
    if line.startswith("//"):
        return line[1:]
    name, _, argument = line[1:].partition(" ")
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS, "/") if name else "/help lists the commands."
        raise UserError(f"unknown command {f'/{name}'!r}", hint=f"{hint} Words that begin with / are typed with //.")
    if argument.strip() and not COMMANDS[name].argument:
        raise UserError(f"/{name} takes no argument")
    return Call(name, argument.strip())
