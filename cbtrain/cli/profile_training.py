"""``launch/profile_training.py``: where the time and the memory of a training stage go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.complaint import complain
from cbtrain.cli.exit_codes import DONE, INTERRUPTED
from cbtrain.cli.parser import Parser, add_study_arguments, options_of
from cbtrain.environment import quiet_openmp
from cbtrain.errors import UserError, system_problem
from cbtrain.files import require_new

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.config.schema import StudyConfig
    from cbtrain.model.decoder import Decoder
    from cbtrain.study.datasets import SpeakerDataset
    from cbtrain.study.stages import StageSpec


def entry(arguments: Sequence[str] | None = None) -> None:
    """Profile and exit: 0 on success, 2 with one line on bad input, 130 when interrupted."""
    os.environ.update(quiet_openmp(os.environ))  # as in `cbtrain`
    status = DONE
    try:
        run(build_parser().parse_intermixed_args(arguments))
    except UserError as error:
        status = complain("profile_training", str(error))
    except Exception as error:
        problem = system_problem(error)
        if problem is None:
            raise
        status = complain("profile_training", problem)
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.stdout.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(status)  # as in `cbtrain`: gloo can abort the shutdown
    sys.exit(status)


def build_parser() -> Parser:
    """Return the parser of this command, which stands by itself."""
    parser = Parser(
        prog="profile_training.py",
        description="Train a few steps under PyTorch's profiler: a trace, memory over time, and time by component.",
    )
    parser.set_defaults(parser=parser)
    add_study_arguments(parser)
    parser.add_argument("--speaker", choices=["therapist", "patient"], default="therapist", help="whose adapter")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps to record, after one to warm up")
    parser.add_argument("--out", type=Path, help="new folder (default: runs/profile-DATE-TIME)")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="build the model from its config.json alone (and a new tokenizer if it has none)",
    )
    return parser


def run(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.config.loading import load_config
    from cbtrain.study.pipeline import prepare_process
    from cbtrain.study.run_folder import new_run_folder
    from cbtrain.training import distributed

    if parsed.steps < 1:
        raise UserError(f"{parsed.steps} steps", where="--steps", hint="At least 1.")
    config = load_config(parsed.config, parsed.settings)
    out = require_new(parsed.out or new_run_folder("profile"))
    prepare_process(config, options_of(parsed))
    console = Console(quiet=distributed.rank() != 0)
    _profile(parsed, config, out, console)
    distributed.leave()  # not after an error: a rank that failed alone would wait here for the others


def _profile(parsed: argparse.Namespace, config: StudyConfig, out: Path, console: Console) -> None:
    from cbtrain.tokens.prefetch import Prefetcher
    from cbtrain.training.packs import open_stream
    from cbtrain.training.profiling.profiler import profile_steps
    from cbtrain.training.profiling.tables import show
    from cbtrain.training.stage import make_engine

    spec, dataset = _prepare(parsed, config, console)
    decoder = spec.decoder(console)
    engine = make_engine(decoder, spec.settings, spec.runtime)
    stream = open_stream(dataset.train.documents, spec.settings, spec.architecture, spec.name)
    with console.status("Training a few steps, then as many under the profiler"):
        with Prefetcher(stream, pin=decoder.device.type == "cuda") as batches:
            profile = profile_steps(
                decoder,
                engine,
                batches,
                steps=parsed.steps,
                learning_rate=spec.settings.learning_rate,
                out=out,
                description=_describe(spec, decoder, engine.world),
            )
    engine.close()
    if profile:
        console.print()
        show(profile, console)
        console.print(f"\nwritten to {out}: {', '.join(sorted(file.name for file in out.iterdir()))}", highlight=False)
        console.print("open the trace in https://ui.perfetto.dev", highlight=False)


def _prepare(parsed: argparse.Namespace, config: StudyConfig, console: Console) -> tuple[StageSpec, SpeakerDataset]:
    """Return the stage as training would run it, and its documents. Raises UserError on what cannot be trained."""
    from cbtrain.console import say
    from cbtrain.study.corpus import load_corpus
    from cbtrain.study.stages import StageSpec, StudyModel

    random = parsed.random_weights or config.model.path is None
    corpus = load_corpus(config, console)
    model = StudyModel.of(config, "random" if random else "real", console, corpus.split)
    spec = StageSpec.of(config, parsed.speaker, model)
    spec.check()
    dataset = spec.dataset(corpus, console)
    if random:
        say(console, "random weights: times and memory are those of the model, the loss is not")
    return spec, dataset


def _describe(spec: StageSpec, decoder: Decoder, world: int) -> dict[str, Any]:
    """Return model, settings and machine of the measurement, for readers of its numbers."""
    from cbtrain.environment import describe_environment

    return {
        "model": spec.config.model.path or "tiny",
        "random_weights": spec.model.weights == "random",
        "weights": str(decoder.format),
        "attention": decoder.backend,
        "kernels": decoder.kernels_in_training,
        "speaker": spec.name,
        "settings": spec.settings.model_dump(mode="json"),
        "training": spec.runtime.model_dump(mode="json"),
        "ranks": world,
        "environment": describe_environment(),
    }
