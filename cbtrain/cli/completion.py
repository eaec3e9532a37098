"""``cbtrain completion``: a shell script that completes commands, options, configs and settings.

The script is made from the parsers and holds all words, so that a Tab starts no Python. It is ours because generators
of such scripts know neither commands of two words beside one of the first word alone, nor ``key=value``.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cbtrain.cli.parser import Commands, Parser, add_command

BASH = """\
# bash completion of cbtrain. In ~/.bashrc: eval "$(cbtrain completion bash)"
{keys}
_cbtrain() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
    local at="" words="" keys="" below="" word rest last=""
    COMPREPLY=()
    if [[ "$prev" == "=" || "$cur" == "=" ]]; then return; fi
    if (( COMP_CWORD > 1 )); then at="${{COMP_WORDS[1]}}"; fi
    if (( COMP_CWORD > 2 )); then
        case "$at ${{COMP_WORDS[2]}}" in {pairs}) at="$at ${{COMP_WORDS[2]}}" ;; esac
    fi
    case "$at" in
{commands}
    esac
    if (( COMP_CWORD == 2 )); then words="$below $words"; fi
    case "$at $prev" in
{values}
    esac
    for word in $words; do
        if [[ "$word" == "$cur"* ]]; then COMPREPLY+=("$word "); fi
    done
    for word in $keys; do
        if [[ "$word" != "$cur"* ]]; then continue; fi
        rest="${{word:${{#cur}}}}"
        if [[ "$rest" == *.* ]]; then word="$cur${{rest%%.*}}."; else word="$word="; fi
        if [[ "$word" != "$last" ]]; then COMPREPLY+=("$word"); fi
        last="$word"
    done
}}
complete -o default -o nospace -F _cbtrain cbtrain
"""

ZSH = """\
# zsh completion of cbtrain. In ~/.zshrc: eval "$(cbtrain completion zsh)"
if ! typeset -f compdef >/dev/null; then autoload -Uz compinit && compinit; fi
autoload -U +X bashcompinit && bashcompinit
"""

FISH = """\
# fish completion of cbtrain. Save it as ~/.config/fish/completions/cbtrain.fish
function __cbtrain_at
    set -l words (commandline -opc)
    set -e words[1]
    test (count $words) -ge (count $argv); or return 1
    for i in (seq (count $argv))
        test "$words[$i]" = "$argv[$i]"; or return 1
    end
end
function __cbtrain_after
    test (count (commandline -opc)) -eq (math (count $argv) + 1); and __cbtrain_at $argv
end
"""


@dataclass(frozen=True, slots=True)
class Known:
    """One command: what may follow it. ``below`` are the second words of commands that begin like it."""

    name: str
    about: str
    below: tuple[str, ...]
    options: tuple[argparse.Action, ...]
    words: tuple[str, ...]
    settings_of: str | None
    takes_file: bool


def add(commands: Commands) -> None:
    """Add ``completion``."""
    text = "print a script with which a shell completes commands, options, configs and settings"
    parser = add_command(commands, "completion", _print_script, text)
    parser.add_argument(
        "shell", choices=["bash", "zsh", "fish"], help="the first line of the script says where to put it"
    )
    parser.suggest = lambda: ["bash", "zsh", "fish"]


def _print_script(parsed: argparse.Namespace) -> None:
    print(script(parsed.shell, parsed.top), end="")


def script(shell: str, parser: Parser) -> str:
    """Return the script for ``shell`` (bash, zsh or fish) that completes what ``parser`` takes."""
    commands = list(_known(parser))
    if shell == "fish":
        return FISH + "\n".join(_fish_lines(commands)) + "\n"
    return (ZSH if shell == "zsh" else "") + _bash_script(commands)


def _known(parser: Parser) -> Iterator[Known]:
    """Yield every command, first ``cbtrain`` itself with an empty name."""
    parsers = {"": parser, **dict(_parsers(parser, ""))}
    for name, command in parsers.items():
        start = f"{name} " if name else ""
        below = [other.removeprefix(start).partition(" ")[0] for other in parsers if other and other.startswith(start)]
        words = tuple(command.suggest())
        yield Known(
            name,
            command.summary,
            tuple(dict.fromkeys(below)),
            tuple(command.options),
            words,
            command.settings_of,
            command.takes_file,
        )


def _parsers(parser: Parser, at: str) -> Iterator[tuple[str, Parser]]:
    for name, subparser in parser.subcommands.choices.items() if parser.subcommands else ():
        yield f"{at}{name}", subparser
        yield from _parsers(subparser, f"{at}{name} ")


def _keys(kind: str) -> list[str]:
    """Return the settings of a kind of config that hold a value, without sections."""
    from cbtrain.config.loading import KINDS
    from cbtrain.config.problems import all_keys

    keys = list(all_keys(KINDS[kind]))
    return [key for key, after in zip(keys, [*keys[1:], ""], strict=True) if not after.startswith(f"{key}.")]


def _configs(kind: str | None) -> list[str]:
    from cbtrain.config.sources import STUDIES, SYNTHESIS, shipped_configs

    return shipped_configs(SYNTHESIS if kind == "synthesis" else STUDIES)


def _choices(option: argparse.Action, command: Known) -> list[str] | None:
    """Return the words that may follow ``option``, or None for anything (a file, most often)."""
    if option.dest == "config":
        return _configs(command.settings_of)
    return [str(choice) for choice in option.choices] if option.choices else None


def _names(options: Sequence[argparse.Action]) -> list[str]:
    return [name for option in options for name in option.option_strings if name.startswith("--")]


def _bash_script(about_commands: Sequence[Known]) -> str:
    kinds = sorted({command.settings_of for command in about_commands if command.settings_of})
    keys = [f"_cbtrain_{kind}={shlex.quote(' '.join(_keys(kind)))}" for kind in kinds]
    commands = []
    values: dict[str, list[str]] = {}  # what is done after which commands and options
    for command in about_commands:
        words = (*command.words, *_names(command.options))
        if not command.name:
            words += command.below
        sets = [f"words={shlex.quote(' '.join(words))}"]
        if command.name and command.below:
            sets.append(f"below={shlex.quote(' '.join(command.below))}")
        if command.settings_of:
            sets.append(f'keys="$_cbtrain_{command.settings_of}"')
        commands.append(f"    {shlex.quote(command.name)}) {'; '.join(sets)} ;;")
        for option in command.options:
            if option.nargs != 0:
                choices = _choices(option, command)
                # With nothing of ours the shell completes files.
                then = "return" if choices is None else f'words={shlex.quote(" ".join(choices))}; keys=""'
                values.setdefault(then, []).extend(f"{command.name} {name}" for name in _names([option]))
    after = [f"    {'|'.join(map(shlex.quote, places))}) {then} ;;" for then, places in values.items()]
    pairs = "|".join(shlex.quote(command.name) for command in about_commands if " " in command.name)
    return BASH.format(keys="\n".join(keys), pairs=pairs, commands="\n".join(commands), values="\n".join(after))


def _fish_lines(about_commands: Sequence[Known]) -> Iterator[str]:
    for kind in sorted({command.settings_of for command in about_commands if command.settings_of}):
        yield f"set -g __cbtrain_{kind} {' '.join(f'{key}=' for key in _keys(kind))}"
    yield "complete -c cbtrain -f"
    about = {command.name: command.about for command in about_commands}
    for command in about_commands:
        for word in command.below:
            text = about.get(f"{command.name} {word}".strip(), "")
            yield f"complete -c cbtrain -n {_q(f'__cbtrain_after {command.name}')} -a {_q(word)} -d {_q(text)}"
        others = [f"; and not __cbtrain_at {command.name} {word}" for word in command.below] if command.name else []
        here = _q(f"__cbtrain_at {command.name}{''.join(others)}" if command.name else "__cbtrain_after")
        for option in command.options:
            words = _choices(option, command) if option.nargs != 0 else None
            takes = "" if option.nargs == 0 else " -r -F" if words is None else f" -x -a {_q(' '.join(words))}"
            for name in _names([option]):
                yield f"complete -c cbtrain -n {here} -l {name[2:]}{takes} -d {_q(str(option.help or ''))}"
        if command.words:
            yield f"complete -c cbtrain -n {here} -a {_q(' '.join(command.words))}"
        if command.settings_of:
            yield f"complete -c cbtrain -n {here} -a {_q(f'$__cbtrain_{command.settings_of}')}"
        if command.takes_file or (command.name and not command.settings_of and not command.below and not command.words):
            yield f"complete -c cbtrain -n {here} -F"


def _q(text: str) -> str:
    """Return ``text`` in fish's single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
