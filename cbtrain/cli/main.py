"""The ``cbtrain`` command: run a command, and turn every way it can end into an exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence

import cbtrain
from cbtrain.cli import (
    analyze,
    chat,
    compare,
    compare_methods,
    compare_objectives,
    completion,
    config,
    corpus,
    doctor,
    evaluate,
    judge,
    model,
    pairs_make,
    patients,
    plan,
    power,
    providers,
    rate,
    rate_forms,
    rubric,
    run,
    serve,
    show,
    sweep,
    synthesize,
    task,
    train,
    watch,
)
from cbtrain.cli.complaint import complain
from cbtrain.cli.exit_codes import BROKEN_PIPE, DONE, INTERRUPTED, SIGNALLED, STOPPED, TABLE
from cbtrain.cli.parser import Parser, parse, rank
from cbtrain.environment import quiet_openmp
from cbtrain.errors import Stopped, UserError, system_problem
from cbtrain.files import share_with
from cbtrain.stopping import stop_at_once

GROUPS = {
    "run a study": (run, train, sweep, compare_methods, compare_objectives, task, evaluate, watch, show, plan),
    "corpora and patients": (corpus, pairs_make, synthesize, patients),
    "models": (model, serve, chat),
    "scores and people": (judge, rubric, rate, rate_forms, analyze, compare, power),
    "settings and this machine": (config, providers, doctor, completion),
}
"""In the order of ``--help``. Each module adds one command or a few, and imports other packages only to run one."""

NAME_WIDTH = 19
"""Columns of the names of commands in ``--help``."""


def entry(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with one of the statuses of :mod:`cbtrain.cli.exit_codes`."""
    status = main(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Gloo's threads can abort a rank while the interpreter shuts down, after all work is done and the group is
        # destroyed (pytorch issue 190489; one run in thirty here), and torchrun would call the run failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. An error is one line on standard error."""
    os.environ.update(quiet_openmp(os.environ))
    umask = share_with("owner")  # runs, forms and corpora hold words of sessions
    try:
        parsed = parse(build_parser(), sys.argv[1:] if arguments is None else arguments)
        if parsed.command == "model":  # what it writes is for others
            os.umask(umask)
        # What was to be written is removed then: without this, SIGTERM leaves temporary files.
        with stop_at_once(("SIGTERM", "SIGHUP")):
            return parsed.run(parsed) or DONE
    except UserError as error:
        return complain("cbtrain", str(error))
    except Stopped as stopped:
        if stopped.command is None:
            with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
                print(f"cbtrain: ended by {stopped.name}", file=sys.stderr)
            return SIGNALLED + signal.Signals[stopped.name].value
        if rank() == 0:
            print(f"cbtrain: {stopped}. Continue with: {stopped.command}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        problem = system_problem(error)
        if problem is None:
            raise
        return complain("cbtrain", problem)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        os.umask(umask)


def build_parser() -> Parser:
    """Return the parser of all commands; its help lists them by groups."""
    parser = Parser(
        prog="cbtrain", usage="cbtrain [-h] [--version] COMMAND …", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"cbtrain {cbtrain.__version__}")
    parser.set_defaults(top=parser)
    commands = parser.add_commands(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    width = min(shutil.get_terminal_size().columns, 120) - 2
    about = "Fine-tune small open-weight models to deliver CBT, and measure whether they got better."
    parts = [textwrap.fill(about, width)]
    for title, modules in GROUPS.items():
        before = set(commands.choices)
        for module in modules:
            module.add(commands)
        lines = [
            _line(name, command.summary, width) for name, command in commands.choices.items() if name not in before
        ]
        parts.append("\n".join([f"{title}:", *filter(None, lines)]))
    parser.description = "\n\n".join(parts)
    statuses = [_line(str(status), meaning, width) for status, meaning in TABLE.items()]
    parser.epilog = "\n".join(["exit status:", *statuses, "", textwrap.fill(cbtrain.NOTICE, width)])
    return parser


def _line(name: str, text: str, width: int) -> str:
    """Return the lines of one command in the help, or an empty text if it has no summary."""
    indent = " " * (NAME_WIDTH + 2)
    return textwrap.fill(text, width, initial_indent=f"  {name:{NAME_WIDTH}}", subsequent_indent=indent) if text else ""


if __name__ == "__main__":
    entry()
