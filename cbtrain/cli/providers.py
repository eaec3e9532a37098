"""``cbtrain providers list`` and ``check NAME``: list the known APIs, and test one of them."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cbtrain.cli.parser import Commands, add_command, add_settings
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.providers.config import ProviderConfig
    from cbtrain.providers.costs.prices import Price, Prices
    from cbtrain.providers.probe import Probe


def add(commands: Commands) -> None:
    """Add ``providers`` and its sub-commands."""
    parser = add_command(commands, "providers", _list, "APIs for patients, judges and writers: list them, check one")
    kinds = parser.add_commands(metavar="COMMAND")
    add_command(kinds, "list", _list, "the shipped presets, their models, and whether their keys are set")
    text = "make one small call (a few hundred tokens at most): features, speed and limits of the API"
    check = add_command(kinds, "check", _check, text)
    names = "a preset, a YAML file with a provider's settings, or, with --config, patient or judge"
    check.add_argument("name", metavar="NAME", help=names)
    check.add_argument("--config", help="check the patient's or the judge's API of this study, a YAML file or a name")
    add_settings(check, of="provider", example="model=NAME")
    check.suggest = _presets


def _presets() -> list[str]:
    from cbtrain.providers.overrides import presets

    return presets()


def _list(parsed: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cbtrain.config.sources import first_comment
    from cbtrain.providers.config import ProviderConfig
    from cbtrain.providers.overrides import FOLDER

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for title in ("preset", "key", ""):
        table.add_column(title, no_wrap=True)
    table.add_column("description, and its default model")
    for name in _presets():
        config = ProviderConfig.model_validate(name)
        key = config.api_key_env
        state = "" if key is None else "[green]set[/]" if os.environ.get(key) else "[dim]not set[/]"
        table.add_row(name, key or "[dim]none[/]", state, f"{first_comment(name, FOLDER)}. [cyan]{config.model}[/]")
    console = Console()
    console.print(table)
    text = (
        "Use one as evaluation.patient_provider, evaluation.judging.provider or a synthesis config's provider: by its "
        "name, or as {preset: NAME, model: …}. Try it with `cbtrain providers check NAME`."
    )
    console.print(text, highlight=False, markup=False)
    return 0


def _check(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from cbtrain.providers.errors import ProviderError
    from cbtrain.providers.probe import probe
    from cbtrain.providers.providers import price_of

    config, prices = _chosen(parsed)
    console = Console()
    try:
        with console.status(f"Asking {config.model} at {config.base_url}"):
            probed = asyncio.run(probe(config))
    except ProviderError as error:
        raise UserError(f"{config.model}: {error}", where=config.base_url, hint=_remedy(error.status)) from None
    for name, text in _facts(config, probed, price_of(config, prices)):
        console.print(f"{name:<18} {text}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _chosen(parsed: argparse.Namespace) -> tuple[ProviderConfig, Prices]:
    """Return the provider to check, and the table of prices."""
    from cbtrain.config.loading import load_config, load_provider_config
    from cbtrain.providers.costs.prices import load_prices

    if not parsed.config:
        return load_provider_config(parsed.name, parsed.settings), load_prices()
    study = load_config(parsed.config, parsed.settings)
    evaluation = study.evaluation
    roles = {"patient": evaluation.patient_provider, "judge": evaluation.judging.provider}
    if parsed.name not in roles:
        raise UserError("with --config, NAME is patient or judge", where=parsed.name, hint="Name one of them.")
    config = roles[parsed.name]
    if config is None:
        hint = "Set evaluation.patient_provider to ask an API."
        raise UserError("this study's patients are served on this machine", where=parsed.config, hint=hint)
    return config, load_prices(study.providers.prices)


def _facts(config: ProviderConfig, probed: Probe, price: Price | None) -> Iterator[tuple[str, str]]:
    answer, usage = probed.answer, probed.answer.usage
    yield "answers", f"{answer.model} at {config.base_url}, asked for as {config.model}"
    yield "latency", f"{probed.latency_s:.2f} s to the whole answer{', streamed' if config.stream else ''}"
    unknown = f" ({answer.reason!r}, which cbtrain does not know)" if answer.finish_reason == "unknown" else ""
    yield "finish", f"{answer.finish_reason}{unknown}"
    how = {"json_schema": "with a schema", "json_object": "as any JSON object", "none": "in the prompt only"}
    kept = "valid" if probed.shaped else f"NOT valid: {answer.text[:80]!r}"
    yield "structured answer", f"asked for {how[config.structure]}: {kept}"
    sampling = "sent and accepted" if config.sampling else "not sent: the API chooses temperature and top-p"
    yield "sampling", sampling
    yield "seed", "sent and accepted" if config.seed and config.kind != "anthropic" else "not sent"
    thinking = f", {usage.reasoning_tokens} of them thinking" if usage.reasoning_tokens else ""
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    yield "tokens", f"{usage.prompt_tokens} in the prompt{cached}, {usage.completion_tokens} in the answer{thinking}"
    if answer.thinking:
        yield "thinking", f"{answer.thinking:,} characters inside the answer: removed"
    if answer.unread:
        yield (
            "note",
            f"its usage cannot be used ({answer.unread}): the whole amount reserved for an answer is counted as spent",
        )
    if not config.paid:
        yield "cost", "none: no key is used"
    elif price is None:
        yield "cost", f"unknown: the table of prices does not have {config.model}; set the provider's price"
    elif answer.unread:
        yield "cost", "unknown: it depends on the usage"
    else:
        rate = f"${price.input:g} and ${price.output:g} for a million tokens of prompt and of answer"
        yield "cost", f"${price.cost(usage):.6f} for this call ({rate})"
    for name, value in sorted(probed.limits.items()):
        yield "limit", f"{name}: {value}"
    if not probed.limits:
        yield "limit", "the reply's headers name none"
    if answer.finish_reason == "length":
        yield "note", "the answer was cut: a model that thinks needs a max_tokens above the length of its answer"


def _remedy(status: int | None) -> str:
    if status in (401, 403):
        return "Check the key and its rights."
    if status == 404:
        return "Check base_url and model."
    if status == 400:
        return (
            "If the message names a field: structure, seed, sampling, output_limit and extra_body decide what is sent."
        )
    if status == 429:
        return "Wait, or look at the account's limits and credit."
    return "Check base_url, the network, and whether the server runs."
