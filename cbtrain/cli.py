"""The ``cbtrain`` command. Each subcommand is a thin call into a room, imported only when it is asked for."""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cbtrain
from cbtrain.commands.analyze import add_analyze_command
from cbtrain.commands.compare import add_compare_command
from cbtrain.commands.config import add_config_arguments, show_config
from cbtrain.commands.corpus import add_corpus_commands
from cbtrain.commands.model import add_format_arguments, add_model_commands
from cbtrain.commands.plan import add_plan_command
from cbtrain.commands.power import add_power_command
from cbtrain.commands.providers import add_providers_commands
from cbtrain.commands.rate_audit import add_audit_arguments, audit_rater_command
from cbtrain.commands.rate_forms import add_rate_form_commands
from cbtrain.errors import Stopped, UserError, nearest
from cbtrain.files import require_new

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT = 2
STOPPED = 75
"""Training was asked to stop, and can go on: EX_TEMPFAIL of sysexits.h, "try again"."""
INTERRUPTED = 130
BROKEN_PIPE = 141

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
        return parsed.run(parsed) or 0
    except UserError as error:
        return _complain(str(error))
    except Stopped as stopped:
        if _rank() == 0:
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
    study = "Settings are key=value, e.g. therapist.learning_rate=1e-4; `cbtrain config` lists them all."

    run = _add(commands, "run", _run, "the whole study: train, simulate, score, report", study)
    _study_arguments(run)
    run.add_argument(
        "--out", type=Path, help="run folder to make (default: runs/study-DATE-TIME), or one in which to go on"
    )
    _upload_argument(run, "patients' profiles and simulated sessions")

    train = _add(commands, "train", _train, "the first half: base model, therapist and patient adapters", study)
    _study_arguments(train)
    train.add_argument(
        "--out",
        type=Path,
        help="run folder to make (default: runs/train-DATE-TIME), or to go on in: a run that was interrupted there, or "
        "stopped by a signal (exit status 75), continues with its own settings",
    )

    evaluate = _add(commands, "evaluate", _evaluate, "the second half: simulate, score, report", study)
    _study_arguments(evaluate)
    evaluate.add_argument(
        "--run", type=Path, dest="run_folder", help="a trained run folder (default: the newest; trains one if none)"
    )
    _upload_argument(evaluate, "patients' profiles and simulated sessions")

    rate = _add(
        commands,
        "rate",
        _rate,
        "score sessions that exist already, as labelled in their files",
        "Settings are key=value: corpus.path names the transcripts, evaluation.judging the rater. People rate too: "
        "`cbtrain rate export` makes blind forms for them, `cbtrain rate import` brings their ratings back.",
    )
    _study_arguments(rate)
    rate.add_argument("--out", required=True, type=Path, help="folder for scores.csv; an interrupted run in it goes on")
    _upload_argument(rate, "transcripts")
    add_rate_form_commands(functools.partial(_add, commands))

    audit = _add(
        commands,
        "rate audit",
        audit_rater_command,
        "test a rater on changed copies of sessions: padded, without an agenda, contradicting, empty …",
        "Settings are key=value, as for `cbtrain rate`. A fair rater lowers what was taken away, and nothing else.",
    )
    _study_arguments(audit)
    add_audit_arguments(audit)
    _upload_argument(audit, "transcripts")

    settings = "print the resolved settings of a study as YAML, check config files, or list the shipped ones"
    add_config_arguments(_add(commands, "config", show_config, settings, study))

    serve = _add(commands, "serve", _serve, "serve a model over the OpenAI chat protocol (this machine, no login)")
    serve.add_argument("--model", required=True, help="model folder or hub id")
    serve.add_argument("--adapter", help="adapter folder (PEFT format)")
    serve.add_argument(
        "--chat-format",
        default="auto",
        help="auto: the tokenizer's chat template; plain: labels, for a base model (an adapter brings its own)",
    )
    serve.add_argument("--name", default="cbtrain", help="model id that clients ask for")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one and prints it")
    add_format_arguments(serve)
    serve.add_argument("--device", default="auto")
    serve.add_argument("--threads", type=int, help="CPU threads")
    serve.add_argument("--slots", type=int, default=16, help="conversations kept in the cache")
    serve.add_argument("--context", type=int, default=8192, help="longest prompt plus answer, in tokens")
    serve.add_argument("--with-parent", action="store_true", help="end when standard input ends")

    add_analyze_command(functools.partial(_add, commands))
    add_compare_command(functools.partial(_add, commands))
    add_power_command(functools.partial(_add, commands))
    add_plan_command(functools.partial(_add, commands))
    add_model_commands(functools.partial(_add, commands))
    add_corpus_commands(commands)
    add_providers_commands(functools.partial(_add, commands))

    synthesize = _add(commands, "synthesize", _synthesize, "write new sessions with a large model behind an API")
    synthesize.add_argument("--config", default="hermes", help="YAML file, or the name of a shipped config")
    synthesize.add_argument("--profiles", default="sample", help="corpus whose patients' profiles are used")
    synthesize.add_argument("--out", required=True, type=Path, help="folder; an interrupted run in it goes on")
    _upload_argument(synthesize, "patients' profiles")
    synthesize.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the config")

    _add(commands, "doctor", _doctor, "what this machine can run, and the remedy for what it cannot")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], int | None],
    text: str,
    more: str = "",
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
    parser.set_defaults(run=function)
    return parser


def _upload_argument(parser: argparse.ArgumentParser, what: str) -> None:
    text = f"{what} of an imported corpus may be sent to the APIs that the settings name"
    parser.add_argument("--allow-upload", action="store_true", help=text)


def _study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="YAML file, or the name of a shipped config")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the config")


def _run(parsed: argparse.Namespace) -> None:
    from cbtrain.config import load_config
    from cbtrain.study import new_run_folder, train_study

    folder = parsed.out or new_run_folder("study")
    config = load_config(parsed.config, parsed.settings, _begun(folder))
    from cbtrain.evaluation import check_evaluation, evaluate_study

    check_evaluation(config, allow_upload=parsed.allow_upload)
    console = _console()
    folder = train_study(config, folder, console)
    if _rank() == 0:  # training takes every rank of a torchrun, evaluation one process
        asyncio.run(evaluate_study(config, folder, console, allow_upload=parsed.allow_upload))


def _train(parsed: argparse.Namespace) -> None:
    from cbtrain.config import load_config
    from cbtrain.study import new_run_folder, train_study

    folder = parsed.out or new_run_folder("train")
    config = load_config(parsed.config, parsed.settings, _begun(folder))
    console = _console()
    folder = train_study(config, folder, console)
    console.print(f"\ntrained: {folder}\nnext: cbtrain evaluate --run {folder}", highlight=False, markup=False)


def _begun(folder: Path) -> Path | None:
    """The settings of a run that was begun in ``folder``, on whose ground it goes on; None where there is nothing.
    Raises UserError where something else is there."""
    settings = folder / "config.yaml"
    if settings.exists() and (folder / "training").is_dir():
        return settings
    if folder.is_dir() and {path.name for path in folder.rglob("*")} <= {"training", ".lock", "corpus.json"}:
        return None  # killed at its very beginning
    require_new(folder)
    return None


def _evaluate(parsed: argparse.Namespace) -> None:
    from cbtrain.config import load_config
    from cbtrain.evaluation import check_evaluation, evaluate_study, newest_trained_run, trained_config
    from cbtrain.study import new_run_folder, train_study

    console = _console()
    folder = parsed.run_folder or newest_trained_run(Path("runs"))
    if folder is None:
        config = load_config(parsed.config, parsed.settings)
        check_evaluation(config, allow_upload=parsed.allow_upload)
        console.print("no trained run under runs/: training one first", highlight=False)
        folder = train_study(config, new_run_folder("study"), console)
    else:
        # The run's own settings are the ground, so that an evaluation fits what was trained.
        config = load_config(parsed.config, parsed.settings, trained_config(folder))
    asyncio.run(evaluate_study(config, folder, console, allow_upload=parsed.allow_upload))


def _rate(parsed: argparse.Namespace) -> None:
    from cbtrain.config import load_config
    from cbtrain.rating import rate_corpus

    config = load_config(parsed.config, parsed.settings)
    rate_corpus(config, parsed.out, _console(), allow_upload=parsed.allow_upload)


def _serve(parsed: argparse.Namespace) -> None:
    import torch

    from cbtrain.generation.config import EngineConfig
    from cbtrain.generation.local_model import LocalModel, pick_device
    from cbtrain.generation.server import serve
    from cbtrain.model.config import ModelConfig
    from cbtrain.model.weights.progress import loading_bar
    from cbtrain.tokens.config import FORMATS

    if parsed.compute != "auto" and parsed.weights != "nf4":
        fix = "Leave it out; other weights compute in their own dtype."
        raise UserError(f"{parsed.compute} beside {parsed.weights} weights", where="--compute", fix=fix)
    for name, low in (("threads", 1), ("slots", 1), ("context", 64), ("port", 0)):
        value = getattr(parsed, name)
        if value is not None and value < low:
            raise UserError(f"{value} is too small", where=f"--{name}", fix=f"At least {low}.")
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    config = EngineConfig(slots=parsed.slots, context_tokens=parsed.context)
    device = pick_device(parsed.device)
    if parsed.chat_format not in FORMATS:
        raise UserError(
            f"unknown format {parsed.chat_format!r}", where="--chat-format", fix=nearest(parsed.chat_format, FORMATS)
        )
    held = ModelConfig(
        weights=parsed.weights,
        compute=parsed.compute,
        double_quantization=not parsed.single_quantization,
        attention=parsed.attention,
    )
    with loading_bar(_console()) as progress:
        model = LocalModel(
            parsed.model,
            parsed.adapter,
            config,
            held=held,
            device=device,
            chat_format=parsed.chat_format,
            force=parsed.force,
            progress=progress,
        )
    asyncio.run(serve(model, parsed.name, parsed.host, parsed.port, until_stdin_closes=parsed.with_parent))


def _synthesize(parsed: argparse.Namespace) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cbtrain.config import load_synthesis_config
    from cbtrain.synthesis.prompts import PARTS
    from cbtrain.synthesis.write import write_corpus
    from cbtrain.transcripts.reading import read
    from cbtrain.uploads import require_consent, stays_here

    config = load_synthesis_config(str(parsed.config), parsed.settings)
    profiles = [course.profile for course in read(str(parsed.profiles)).courses if course.profile]
    allowed = parsed.allow_upload or stays_here(config.providers)
    require_consent(str(parsed.profiles), "its patients' profiles", config.provider.base_url, allowed)
    if not profiles:
        raise UserError("no patient profile here", where=parsed.profiles, fix="Add profiles.jsonl to it.")
    folder, console = parsed.out, _console()
    columns = (
        *(TextColumn("Writing"), BarColumn(), MofNCompleteColumn(), TextColumn("parts  {task.fields[line]}")),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(profiles) * config.sessions * len(PARTS), line="")

        def advance(line: str) -> None:
            progress.update(task, advance=1, line=line)

        def warn(text: str) -> None:
            console.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)

        written = asyncio.run(write_corpus(config, profiles, folder, advance, warn))
    sessions = sum(1 for _ in written.corpus.sessions())
    if sessions:
        text = f"{len(written.corpus.courses)} courses, {sessions} sessions: {folder / 'corpus'}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for course, reason in written.failed.items():
        _complain(f"{course} stopped at {reason}. Run the same command again to go on.")
    return BAD_INPUT if written.failed else 0


def _doctor(parsed: argparse.Namespace) -> int:
    from cbtrain.doctor import show

    return show(_console())


def _console() -> Console:
    from rich.console import Console

    return Console(quiet=_rank() != 0)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _complain(line: str) -> int:
    print(f"cbtrain: {line}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    entry()
