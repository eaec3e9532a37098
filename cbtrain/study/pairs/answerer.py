"""Whoever gives the answers of one side of pairs: a model on this machine, or one behind an API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import loading_bar, say
from cbtrain.errors import UserError
from cbtrain.eval.simulation.api_speakers import ApiTherapist
from cbtrain.eval.simulation.config import LocalModelConfig, refuse_unsent
from cbtrain.eval.simulation.dialogue import Speaker
from cbtrain.eval.simulation.local_speakers import LocalTherapist
from cbtrain.generation.config import SamplingConfig
from cbtrain.model.weights.hub import resolve_model
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.providers import Providers
from cbtrain.settings import SettingsConflict
from cbtrain.study.evaluation.local_weights import LocalWeights, layout_digest, local_weights

ADAPTER = "adapter"
"""Its name in the engine."""

ROLE = "therapist"
"""The role of requests in journal and costs."""


@dataclass(frozen=True)
class Answerer:
    """``weights`` here, or ``provider``; ``force``: take an adapter of another base, too."""

    config: StudyConfig
    weights: LocalWeights | None = None
    provider: ProviderConfig | None = None
    force: bool = False

    @property
    def sampling(self) -> SamplingConfig:
        return self.config.evaluation.therapist

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return all that decides what it answers to a prompt, but the seed."""
        sampling = {"sampling": self.sampling.model_dump(mode="json")}
        if self.provider is not None:
            return {"api": self.provider.identity(), **sampling}
        assert self.weights is not None
        layout = layout_digest(self.weights.voice(self.config.tokens.format))
        return {**self.weights.digests, "chat format": layout, **sampling}

    def facts(self, side: str) -> dict[str, str]:
        """Return who gave the answers of one ``side`` (chosen, rejected), for the facts of a pair."""
        words = {"sampling": ", ".join(f"{name} {value}" for name, value in self.sampling.model_dump().items())}
        if self.provider is not None:
            words["model"] = self.provider.model
        if self.weights is not None:
            words |= {"model": self.weights.model.name, "weights": self.weights.digests["weights"]}
            words |= {"adapter": self.weights.adapter.name} if self.weights.adapter else {}
        return {f"{side}_{name}": text for name, text in words.items()}

    async def open(
        self, stack: AsyncExitStack, providers: Providers | None, console: Console
    ) -> Callable[[str], Speaker]:
        """Return a function that gives the speaker with a system prompt; ``stack`` closes it. Raises UserError if the
        model cannot be loaded or the API cannot be asked."""
        if self.provider is not None:
            assert providers is not None
            api = await providers.open(self.provider, ROLE)
            return lambda system: ApiTherapist(api, self.sampling, system)
        from cbtrain.study.local_model import open_local_model  # an API is asked without torch

        assert self.weights is not None
        adapter = ADAPTER if self.weights.adapter else None
        adapters = {ADAPTER: self.weights.adapter} if self.weights.adapter else {}
        with loading_bar(console) as progress:
            model, note = open_local_model(
                str(self.weights.model), adapters, self.config, force=self.force, progress=progress
            )
        for text in filter(None, [*model.notes, note]):
            say(console, text)
        entered = await stack.enter_async_context(model)
        return lambda system: LocalTherapist(entered, self.sampling, system, adapter=adapter, voice=adapter, ids={})


def local_answerer(config: StudyConfig, model: str, adapter: Path | None, *, force: bool) -> Answerer:
    """Return the answerer of ``model`` (a folder or hub id) with ``adapter``. Raises UserError if they cannot be used,
    or, without ``force``, if the adapter is one of another base."""
    if force and adapter is not None:
        return Answerer(config, LocalWeights(resolve_model(model), adapter), force=True)
    weights = local_weights(LocalModelConfig(model=model, adapter=str(adapter) if adapter else None))
    return Answerer(config, weights)


def api_answerer(config: StudyConfig, provider: ProviderConfig) -> Answerer:
    """Return the answerer behind ``provider``. Raises UserError on sampling that an API is not sent."""
    try:
        refuse_unsent(config.evaluation.therapist, "evaluation.therapist", "a therapist behind an API")
    except SettingsConflict as conflict:
        raise UserError(str(conflict)) from None
    return Answerer(config, provider=provider)
