"""``launch/profile_training.py``: where the time and the memory of a training stage go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.exit_codes import BAD_INPUT, DONE, INTERRUPTED
from cbtrain.cli.parser import Parser, add_study_arguments
from cbtrain.errors import UserError
from cbtrain.files import require_new

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.config.schema import StudyConfig
    from cbtrain.model.architecture import Architecture
    from cbtrain.model.decoder import Decoder
    from cbtrain.study.datasets import SpeakerDataset
    from cbtrain.training.config import StageConfig
    from cbtrain.transcripts.types import Role


def entry(arguments: Sequence[str] | None = None) -> None:
    """Profile and exit: 0 on success, 2 with one line on bad input, 130 when interrupted."""
    # As in `cbtrain`: OpenMP threads that spin while they wait distort what is measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    status = DONE
    try:
        run(build_parser().parse_intermixed_args(arguments))
    except UserError as error:
        print(f"profile_training: {error}", file=sys.stderr)
        status = BAD_INPUT
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
    add_study_arguments(parser)
    parser.add_argument("--speaker", choices=["therapist", "patient"], default="therapist", help="whose adapter")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps to record, after one to warm up")
    parser.add_argument("--out", type=Path, help="new folder (default: runs/profile-DATE-TIME)")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="build the model from its config.json alone (and a tokenizer where it has none)",
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
    prepare_process(config)
    console = Console(quiet=distributed.rank() != 0)
    _profile(parsed, config, out, console)
    distributed.leave()  # not after an error: a rank that failed alone would wait here for the others


def _profile(parsed: argparse.Namespace, config: StudyConfig, out: Path, console: Console) -> None:
    from cbtrain.tokens.prefetch import Prefetcher
    from cbtrain.training.engines.factory import make_engine
    from cbtrain.training.packs import open_stream
    from cbtrain.training.profiling.profiler import profile_steps
    from cbtrain.training.profiling.tables import show

    settings: StageConfig = getattr(config, parsed.speaker)
    decoder, lessons = _prepare(parsed.speaker, config, console, random=parsed.random_weights)
    decoder.activation_checkpointing = settings.activation_checkpointing
    engine = make_engine(decoder, settings, config.training)
    stream = open_stream(lessons.chosen.documents, settings, decoder.architecture, parsed.speaker)
    with console.status("Training a few steps, then as many under the profiler"):
        with Prefetcher(stream, pin=decoder.device.type == "cuda") as batches:
            profile = profile_steps(
                decoder,
                engine,
                batches,
                steps=parsed.steps,
                learning_rate=settings.learning_rate,
                out=out,
                facts=_facts(parsed, config, decoder, engine.world),
            )
    engine.close()
    if profile:
        console.print()
        show(profile, console)
        console.print(f"\nwritten to {out}: {', '.join(sorted(file.name for file in out.iterdir()))}", highlight=False)
        console.print("open the trace in https://ui.perfetto.dev", highlight=False)


def _prepare(speaker: Role, config: StudyConfig, console: Console, *, random: bool) -> tuple[Decoder, SpeakerDataset]:
    """The model with its adapter, and the documents, as training makes them."""
    from cbtrain.console import say
    from cbtrain.model.architecture import read_architecture
    from cbtrain.model.weights.hub import resolve_model
    from cbtrain.study.corpus import load_corpus
    from cbtrain.study.datasets import build_dataset
    from cbtrain.study.finetune import check_adapters, load_for_training
    from cbtrain.study.tiny_base import make_tokenizer, tiny_architecture
    from cbtrain.tokens.tokenizer import load_tokenizer

    material = load_corpus(config, console)
    model = resolve_model(config.model.path) if config.model.path else None
    if model and not (random and not (model / "tokenizer.json").exists()):
        tokenizer = load_tokenizer(model)
    else:
        tokenizer = make_tokenizer(material.split, config)
    if model:
        architecture = read_architecture(model)
        positions = architecture.context
    else:
        architecture = tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id)
        positions = config.tiny.max_positions
    if len(tokenizer) > architecture.vocabulary:
        raise UserError("its vocabulary is smaller than the tokenizer's", where=model, hint="Add tokenizer.json to it.")
    check_adapters(config, architecture)
    lessons = build_dataset(speaker, material, tokenizer, positions, config, console)
    if model and not random:
        return load_for_training(speaker, model, config, console), lessons
    say(console, "random weights: times and memory are those of the model, the loss is not")
    return _random_decoder(speaker, architecture, config), lessons


def _random_decoder(speaker: Role, architecture: Architecture, config: StudyConfig) -> Decoder:
    import torch

    from cbtrain.generation.local_model import pick_device
    from cbtrain.model.linears.formats import weight_format
    from cbtrain.training.planning.random_model import random_decoder
    from cbtrain.training.planning.scenario import Scenario

    settings: StageConfig = getattr(config, speaker)
    device, held = torch.device(pick_device(config.model.device)), config.model
    form = weight_format(held.weights, device, compute=held.compute, double_quantization=held.double_quantization)
    return random_decoder(
        Scenario(architecture, form, settings.adapter, device=device.type, attention=held.attention), device
    )


def _facts(parsed: argparse.Namespace, config: StudyConfig, decoder: Decoder, world: int) -> dict[str, Any]:
    """What was measured, for whoever reads the numbers later."""
    from cbtrain.environment import describe_environment

    settings: StageConfig = getattr(config, parsed.speaker)
    return {
        "model": config.model.path or "tiny",
        "random_weights": parsed.random_weights or config.model.path is None,
        "weights": str(decoder.format),
        "attention": decoder.backend,
        "speaker": parsed.speaker,
        "settings": settings.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "ranks": world,
        "environment": describe_environment(),
    }
