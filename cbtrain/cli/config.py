"""``cbtrain config …``: show, explain, check and list settings, and print their JSON schema."""

from __future__ import annotations

import argparse
import json
import sys

from cbtrain.cli.exit_codes import DONE, FOUND
from cbtrain.cli.parser import (
    COMMAND_LINE,
    SETTINGS,
    Commands,
    add_command,
    add_optional_word,
    add_settings,
    add_study_arguments,
    is_setting,
)
from cbtrain.errors import UserError

KINDS = ("study", "synthesis", "provider")
"""What a config can be about."""


def add(commands: Commands) -> None:
    """Add ``config`` and its sub-commands. Alone, with settings, it is an alias of ``config show``."""
    text = "as `cbtrain config show`; see also `config explain`, `check`, `list` and `schema`"
    alone = add_command(commands, "config", _show, text, SETTINGS)
    add_study_arguments(alone)
    alone.set_defaults(name=None)
    alone.summary = ""  # the help of all commands has those below

    shown = add_command(commands, "config show", _show, "print settings as YAML, as they are resolved", SETTINGS)
    add_optional_word(shown, "name", "YAML file, or the name of a shipped config (default: all defaults)")
    shown.add_argument("--config", help=argparse.SUPPRESS)  # as everywhere else
    add_settings(shown)
    shown.suggest = _shipped

    text = "explain a setting: meaning, type, default, allowed values"
    explained = add_command(commands, "config explain", _explain, text)
    what = "a setting or a section, e.g. therapist.learning_rate (default: list the sections)"
    explained.add_argument("key", nargs="?", default="", help=what)
    explained.suggest = _every_key

    text = "check config files: unknown keys, wrong values, settings that contradict each other"
    more = "Exit status 0: all are valid; 1: one has a fault; 2: nothing could be checked."
    checked = add_command(commands, "config check", _check, text, more)
    what = "files or names of shipped configs, of studies or of synthesis; key=value overrides settings of each"
    checked.add_argument("words", nargs="*", metavar="FILE", help=what)
    checked.suggest = _shipped

    add_command(commands, "config list", _list, "list the shipped configs")

    text = "print the JSON schema of config files, with which editors complete and check them"
    schema = add_command(commands, "config schema", _schema, text)
    schema.add_argument("kind", nargs="?", choices=KINDS, default=KINDS[0], help="what is configured (default: study)")
    schema.suggest = lambda: list(KINDS)


def _show(parsed: argparse.Namespace) -> None:
    """Print the resolved settings, under a line that says what they were resolved from."""
    from cbtrain.config.loading import dump_config, kind_of, load_config, load_synthesis_config
    from cbtrain.config.sources import STUDIES, SYNTHESIS, read_layers

    if parsed.name and parsed.config:
        raise UserError(
            f"two configs are named, {parsed.name} and {parsed.config}", where=COMMAND_LINE, hint="Name one."
        )
    source = parsed.name or parsed.config
    written = source is not None and kind_of(source) == "synthesis"
    config = load_synthesis_config(source, parsed.settings) if written else load_config(source, parsed.settings)
    layers = [layer.name for layer in read_layers(source, SYNTHESIS if written else STUDIES)] if source else []
    places = dict.fromkeys(["defaults", *layers, *([COMMAND_LINE] if parsed.settings else [])])
    print(f"# Resolved from {', '.join(places)}: what comes later wins.\n{dump_config(config)}", end="")


def _explain(parsed: argparse.Namespace) -> None:
    from cbtrain.config.explain import explain
    from cbtrain.config.schema import StudyConfig
    from cbtrain.synthesis.config import SynthesisConfig

    first = parsed.key.partition(".")[0]
    of_study = first in StudyConfig.model_fields or first not in SynthesisConfig.model_fields
    print(explain(parsed.key, StudyConfig if of_study else SynthesisConfig))


def _check(parsed: argparse.Namespace) -> int:
    """Print one line for each config, with the settings (``key=value``) among the words over it; the bad ones on
    standard error."""
    from cbtrain.config.loading import kind_of, load_config, load_synthesis_config

    settings = [word for word in parsed.words if is_setting(word)]
    sources = [word for word in parsed.words if word not in settings]
    if not sources:
        raise UserError("nothing to check", where=COMMAND_LINE, hint="Name files or shipped configs.")
    status = DONE
    for source in sources:
        try:
            kind = kind_of(source)
            if kind == "synthesis":
                load_synthesis_config(source, settings)
            else:
                load_config(source, settings)
            print(f"ok: {source} ({kind})", flush=True)
        except UserError as error:
            print(f"cbtrain: {error}", file=sys.stderr, flush=True)
            status = FOUND
    return status


def _list(parsed: argparse.Namespace) -> None:
    """Print every shipped config with the first line of its comment."""
    from cbtrain.config.sources import SYNTHESIS, first_comment, shipped_configs

    studies, synthesis = shipped_configs(), shipped_configs(SYNTHESIS)
    width = max(map(len, studies + synthesis))
    for name in studies:
        print(f"{name:{width}}  {first_comment(name)}")
    print("\nFor `cbtrain synthesize`:")
    for name in synthesis:
        print(f"{name:{width}}  {first_comment(name, SYNTHESIS)}")


def _schema(parsed: argparse.Namespace) -> None:
    from cbtrain.config import loading
    from cbtrain.config.editor_schema import editor_schema

    print(json.dumps(editor_schema(loading.KINDS[parsed.kind], parsed.kind), indent=2, ensure_ascii=False))


def _shipped() -> list[str]:
    from cbtrain.config.sources import SYNTHESIS, shipped_configs

    return [*shipped_configs(), *shipped_configs(SYNTHESIS)]


def _every_key() -> list[str]:
    from cbtrain.config.problems import all_keys
    from cbtrain.config.schema import StudyConfig
    from cbtrain.config.sources import EXTENDS

    return [EXTENDS, *all_keys(StudyConfig)]
