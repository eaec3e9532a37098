"""``cbtrain config``: the resolved settings of a study; ``check FILE…`` and ``list``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cbtrain.cli.exit_codes import BAD_INPUT
from cbtrain.cli.parser import SETTINGS, Commands, add_command
from cbtrain.errors import UserError

SYNTHESIS = "synthesis"
"""Folder of the shipped configs that say how new transcripts are written."""


def add(commands: Commands) -> None:
    text = "print the resolved settings of a study as YAML, check config files, or list the shipped ones"
    parser = add_command(commands, "config", show_config, text, SETTINGS)
    parser.add_argument("--config", help="YAML file, or the name of a shipped config")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="settings that override the config; or `check FILE… [key=value…]` (files or shipped names, of studies or "
        "of synthesis; all are checked) or `list` (what is shipped)",
    )


def show_config(parsed: argparse.Namespace) -> int:
    """Print the resolved settings, or do what the first word says."""
    word, rest = next(iter(parsed.settings), None), parsed.settings[1:]
    if word in ("check", "list") and parsed.config:
        raise UserError(f"{word} takes no --config", where="command line", hint="`cbtrain config check FILE…`.")
    if word == "check":
        return _check(rest)
    if word == "list":
        return _list(rest)
    from cbtrain.config.loading import dump_config, load_config

    print(dump_config(load_config(parsed.config, parsed.settings)), end="")
    return 0


def _check(words: list[str]) -> int:
    """One line for each config among ``words``, with the settings (``key=value``) among them; the bad ones on standard
    error."""
    from cbtrain.config.loading import load_config, load_synthesis_config

    settings = [word for word in words if "=" in word and not Path(word).exists()]
    sources = [word for word in words if word not in settings]
    if not sources:
        raise UserError("nothing to check", where="command line", hint="Name files or shipped configs.")
    status = 0
    for source in sources:
        try:
            kind = _kind(source)
            if kind == SYNTHESIS:
                load_synthesis_config(source, settings)
            else:
                load_config(source, settings)
            print(f"ok: {source} ({kind})", flush=True)
        except UserError as error:
            print(f"cbtrain: {error}", file=sys.stderr, flush=True)
            status = BAD_INPUT
    return status


def _kind(source: str) -> str:
    """``study`` or ``synthesis``: by the folder of a shipped name, else by which of them knows more of the keys."""
    from cbtrain.config.loading import read_keys, shipped_configs
    from cbtrain.config.schema import StudyConfig
    from cbtrain.synthesis.config import SynthesisConfig

    if not Path(source).exists():
        known, synthesis = shipped_configs(), shipped_configs(SYNTHESIS)
        return SYNTHESIS if source in synthesis and source not in known else "study"
    keys = set(read_keys(source))
    of_study, of_synthesis = (len(keys & set(model.model_fields)) for model in (StudyConfig, SynthesisConfig))
    return SYNTHESIS if of_synthesis > of_study else "study"


def _list(rest: list[str]) -> int:
    """Every shipped config with the first line of its comment."""
    if rest:
        raise UserError(
            f"unexpected {rest[0]!r}", where="command line", hint="`cbtrain config list` takes nothing more."
        )
    from cbtrain.config.loading import first_comment, shipped_configs

    studies, synthesis = shipped_configs(), shipped_configs(SYNTHESIS)
    width = max(map(len, studies + synthesis))
    for name in studies:
        print(f"{name:{width}}  {first_comment(name)}")
    print("\nFor `cbtrain synthesize`:")
    for name in synthesis:
        print(f"{name:{width}}  {first_comment(name, SYNTHESIS)}")
    return 0
