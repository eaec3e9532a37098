"""``cbtrain model`` and ``cbtrain merge``: describe a model, and merge an adapter into its base."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.parser import ALIASES, Commands, Parser, add_command, add_optional_word, add_study_arguments, study_of
from cbtrain.errors import UserError
from cbtrain.files import require_new

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig


def add(commands: Commands) -> None:
    show = add_command(
        commands,
        "model",
        _show,
        "load a model and describe it: sizes, memory of its weights, attention, fingerprint",
        f"Nothing is trained or sent. E.g. `cbtrain model DIR model.weights=nf4`. {ALIASES}",
    )
    add_optional_word(show, "name", "model folder or hub id", "model.path")
    add_study_arguments(show, "model.path=DIR model.weights=nf4")
    add_format_arguments(show)
    show.add_argument("--adapter", help="adapter folder; loaded on top, to see whether it fits")
    show.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    merge = add_command(
        commands,
        "merge",
        _merge,
        "merge an adapter into its base model, for programs that cannot load adapters",
        "The folder can be opened in transformers, vLLM and llama.cpp's converter to GGUF. E.g. `cbtrain merge "
        f"model.path=DIR --adapter DIR --out DIR`. {ALIASES}",
    )
    add_study_arguments(merge, "model.path=DIR")
    merge.add_alias("--model", "model.path", help="model folder or hub id that the adapter was trained on")
    merge.add_argument("--adapter", required=True, type=Path, help="adapter folder (PEFT format)")
    merge.add_argument("--out", required=True, type=Path, help="new folder")
    merge.add_argument(
        "--into",
        choices=["original", "dequantized"],
        help="for an adapter trained on NF4 weights, where one must be chosen: the base's own weights, or those after "
        "quantization",
    )
    merge.add_argument("--force", action="store_true", help="accept an adapter that was trained on another base")


def add_format_arguments(parser: Parser) -> None:
    """Add the options for the weight format, the attention backend, the device, and the check of an adapter against its
    base."""
    parser.add_alias(
        "--weights",
        "model.weights",
        choices=["auto", "fp32", "bf16", "nf4"],
        help="format of the weights in memory; auto: bf16 on CUDA, fp32 elsewhere",
    )
    parser.add_alias(
        "--compute",
        "model.compute",
        choices=["auto", "fp32", "bf16"],
        help="with nf4: dtype of activations and other weights",
    )
    text = "with nf4: keep the scales in 32 bits"
    parser.add_alias("--single-quantization", "model.double_quantization", action="store_const", const=False, help=text)
    parser.add_alias(
        "--attention",
        "model.attention",
        choices=["auto", "flash-attn", "torch-varlen", "sdpa"],
        help="attention backend for prompts and packs (single new tokens always use sdpa)",
    )
    parser.add_alias("--device", "model.device", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--force", action="store_true", help="accept an adapter that was trained on another base")


def model_of(config: StudyConfig, command: str) -> str:
    """Return the model that ``config`` names. Raises UserError if it names none."""
    if config.model.path is None:
        raise UserError("no model is named", where=command, hint="Give model.path=DIR-OR-HUB-ID.")
    return config.model.path


def _show(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.console import loading_bar
    from cbtrain.environment import pick_device
    from cbtrain.model.adapters.methods import load_adapter
    from cbtrain.model.attention.packed import obstacles
    from cbtrain.model.kernel_choice import described_kernels, kernel_text
    from cbtrain.model.linears.formats import choose_weight_format
    from cbtrain.model.weights.loading import load_decoder
    from cbtrain.model.weights.memory import weight_memory
    from cbtrain.model.weights.unused import unused_facts, unused_sampling

    config = study_of(parsed)
    name, settings = model_of(config, "model"), config.model
    device = pick_device(settings.device)
    weight_format = choose_weight_format(
        settings.weights, device, compute=settings.compute, double_quantization=settings.double_quantization
    )
    started = time.perf_counter()
    with loading_bar(Console(stderr=True)) as progress:
        decoder = load_decoder(
            name,
            weights=weight_format,
            device=device,
            attention=settings.attention,
            kernels=settings.kernels,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    memory, a = weight_memory(decoder), decoder.architecture
    shown: dict[str, Any] = {
        "architecture": a.name,
        "layers": a.layers,
        "hidden": a.hidden,
        "heads": a.heads,
        "kv_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "vocabulary": a.vocabulary,
        "tied_embeddings": a.tied_embeddings,
        "rope": a.rope.type,
        "context": a.context,
        "sliding_window": a.sliding_window,
        "parameters": memory.parameters,
        "fingerprint": decoder.fingerprint,
        "weights": str(weight_format),
        "bytes": memory.bytes,
        "bytes_per_parameter": round(memory.bytes_per_parameter, 4),
        "bytes_per_linear_parameter": round(memory.bytes_per_linear_parameter, 4),
        "device": str(decoder.device),
        "seconds_to_load": round(seconds, 2),
        "attention": decoder.backend,
        "attention_backends": obstacles(decoder.device, weight_format.compute, a.head_dim),
        "kernels": described_kernels(settings.kernels, decoder.device),
        "not_used": [*unused_facts(decoder.folder), *unused_sampling(decoder.folder)] if decoder.folder else [],
    }
    if parsed.adapter:
        adapter = load_adapter(decoder, parsed.adapter, force=parsed.force)
        adapter_parameters = adapter.parameters().values()
        shown["adapter"] = adapter.describe()
        shown["adapter_parameters"] = sum(parameter.numel() for parameter in adapter_parameters)
    print(json.dumps(shown, indent=2)) if parsed.json else _table(shown, kernel_text(settings.kernels, decoder.device))


def _table(shown: dict[str, Any], kernels: str) -> None:
    from rich.console import Console
    from rich.table import Table

    each = shown["bytes_per_linear_parameter"]
    window = shown["sliding_window"]
    rows = {
        "architecture": f"{shown['architecture']}, {shown['layers']} layers, hidden {shown['hidden']:,}",
        "attention heads": f"{shown['heads']} of {shown['head_dim']}, {shown['kv_heads']} of keys and values",
        "vocabulary": f"{shown['vocabulary']:,}" + (", embeddings and head tied" if shown["tied_embeddings"] else ""),
        "context": f"{shown['context']:,} tokens, RoPE {shown['rope']}" + (f", window {window:,}" if window else ""),
        "parameters": f"{shown['parameters']:,}",
        "weights": f"{shown['weights']} on {shown['device']}, {shown['bytes'] / 1e6:,.1f} MB, "
        f"{shown['bytes_per_parameter']:.3f} bytes a parameter ({each:.3f} in the layers' linears)",
        "loaded in": f"{shown['seconds_to_load']:.1f} s",
        "fingerprint": shown["fingerprint"],
    }
    if "adapter_parameters" in shown:
        rows["adapter"] = f"{shown['adapter']}; {shown['adapter_parameters']:,} parameters, fits"
    if shown["not_used"]:
        rows["not used"] = "; ".join(shown["not_used"])
    for name, reason in shown["attention_backends"].items():
        chosen = " (chosen)" if name == shown["attention"] else ""
        rows[f"attention by {name}"] = f"can serve{chosen}" if reason is None else f"no: {reason}"
    rows["Triton kernels"] = kernels
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _merge(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.console import loading_bar
    from cbtrain.model.adapters.merge import MergeOptions, merge
    from cbtrain.model.adapters.methods import is_whole_model
    from cbtrain.model.architecture import read_architecture
    from cbtrain.model.weights.hub import resolve_model
    from cbtrain.tokens.adapter_tokenizer import added_stop_ids

    require_new(parsed.out)
    base = model_of(study_of(parsed), "merge")
    model = resolve_model(base)
    stop_ids: frozenset[int] = frozenset()
    if not is_whole_model(parsed.adapter):
        stop_ids = added_stop_ids(model, parsed.adapter, read_architecture(model).vocabulary)
    console = Console(stderr=True)
    with loading_bar(console, "Merging") as progress:
        changed = merge(
            model,
            parsed.adapter,
            parsed.out,
            base=base,
            options=MergeOptions(parsed.into, parsed.force, stop_ids),
            progress=progress,
        )
    Console(highlight=False, markup=False, soft_wrap=True).print(f"{changed} matrices changed: {parsed.out}")
