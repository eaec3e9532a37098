"""The ``cbtrain`` command: what is asked for, carried out, and every way in which it can end."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

import cbtrain
from cbtrain.cli import (
    analyze,
    compare,
    config,
    corpus,
    doctor,
    evaluate,
    model,
    plan,
    power,
    providers,
    rate,
    rate_audit,
    rate_forms,
    run,
    serve,
    synthesize,
    train,
)
from cbtrain.cli.exit_codes import BAD_INPUT, BROKEN_PIPE, DONE, INTERRUPTED, STOPPED
from cbtrain.cli.parser import rank
from cbtrain.errors import Stopped, UserError

COMMANDS = (
    *(run, train, evaluate, rate, rate_forms, rate_audit, config, serve, analyze, compare, power, plan, model),
    *(corpus, providers, synthesize, doctor),
)
"""In the order of ``--help``. Each adds one command or a few, and imports a room only when it is asked for."""

JOINED = {("rate", "audit"), ("rate", "export"), ("rate", "import")}
"""Commands of two words whose first one is a command too."""


def entry(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 on success, 2 with one line on bad input, 75 when training was stopped and can go
    on, 130 when interrupted."""
    status = main(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Gloo's threads can abort a rank while the interpreter shuts down, after all work is done and the group is
        # destroyed (pytorch issue 190489; one run in thirty here), and torchrun would call the run failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    # OpenMP threads that spin while they wait make a step up to 28 times slower as soon as another program takes one
    # of few cores (docs/log.md). Read when torch is first imported, which is later than here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = build_parser()
    parsed, more = parser.parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    # argparse takes positional arguments from one place only; settings may stand on both sides of an option.
    if more and hasattr(parsed, "settings") and not any(word.startswith("-") or "=" not in word for word in more):
        parsed.settings += more
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        return parsed.run(parsed) or DONE
    except UserError as error:
        return _complain(str(error))
    except Stopped as stopped:
        if rank() == 0:
            print(f"cbtrain: {stopped}. The same command with --out goes on from there.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.ENOENT: "no such file or folder, and it cannot be made there",
            errno.EACCES: "permission denied; choose another place or change its permissions",
            errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
            errno.EEXIST: "a file is there, where a folder has to be; choose another place",
            errno.EISDIR: "a folder is there, where a file has to be; choose another place",
            errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
            errno.EROFS: "the file system is read-only; choose another place",
        }
        if error.errno not in reasons:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{reasons[error.errno]}")
    except Exception as error:
        # safetensors and tokenizers write from Rust, with exceptions of their own
        if "No space left on device" not in str(error):
            raise
        return _complain("the disk is full; free some space")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def _joined(words: Sequence[str]) -> list[str]:
    """``words`` with a command of two words as one, beside a command of the first word alone that takes settings."""
    return [" ".join(words[:2]), *words[2:]] if tuple(words[:2]) in JOINED else list(words)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cbtrain",
        description="Fine-tune small open-weight models to deliver CBT, and measure whether they got better.",
        epilog=cbtrain.NOTICE,
    )
    parser.add_argument("--version", action="version", version=f"cbtrain {cbtrain.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _complain(line: str) -> int:
    print(f"cbtrain: {line}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    entry()
