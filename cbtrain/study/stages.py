"""One stage of training as specified before weights are loaded: for training, planner, profiler and previews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import loading_bar, say
from cbtrain.environment import pick_device
from cbtrain.errors import UserError
from cbtrain.model.adapters.lora import check_targets
from cbtrain.model.adapters.methods import attach, inject
from cbtrain.model.architecture import Architecture, read_architecture
from cbtrain.model.config import ModelConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.savings import Savings
from cbtrain.model.linears.formats import WeightFormat, configured_format, faster_dtype
from cbtrain.model.rope_keys import Rope
from cbtrain.model.weights.hub import describing_files, resolve_model
from cbtrain.model.weights.loading import load_configured
from cbtrain.model.weights.memory import weight_memory
from cbtrain.model.weights.unused import unused_facts
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.datasets import SpeakerDataset, build_dataset, make_builder
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.document_builder import DocumentBuilder
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.tokenizer import has_tokenizer, load_tokenizer, tokenizer_notes, train_tokenizer
from cbtrain.training import distributed
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.engines.zero3 import partitioner
from cbtrain.training.planning.fitting import Levels, fit_at, fit_levels, require_fit, smallest
from cbtrain.training.planning.machine import Machine, this_machine
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario, attention_of, kernels_of
from cbtrain.training.planning.workload import PackShape, Workload
from cbtrain.transcripts.split import Split
from cbtrain.transcripts.types import Role, Session

StageName = Literal["base", "therapist", "patient"]

Weights = Literal["real", "random", "none"]
"""Where weights come from: the model's files; random numbers of the same shapes and format; or nowhere, if only the
files that describe the model are wanted."""

UNBOUNDED = 2**31
"""Positions of a model whose folder has a tokenizer and no config."""


TOKENIZER_CHARACTERS = 4_000_000
"""Text that the tokenizer is trained on, at most: more changes a vocabulary of a few thousand entries little."""

CHARACTERS_PER_ENTRY = 60
"""Text for each vocabulary entry, at least: entries that are hardly ever seen are hardly ever learnt."""

SMALLEST_VOCABULARY = 600


@dataclass(frozen=True, slots=True)
class StudyModel:
    """The base model of a study without its weights. ``folder`` is None until a tiny one is made, ``architecture`` if
    the folder has no config.json, ``tokenizer`` if it has none."""

    folder: Path | None
    architecture: Architecture | None
    tokenizer: Any
    weights: Weights

    @classmethod
    def of(cls, config: StudyConfig, weights: Weights, console: Console, split: Split | None = None) -> StudyModel:
        """Read the files of the model that ``config`` names, its weights only if they are ``real``.

        A tokenizer is trained on ``split`` for a tiny model, and for random weights if the folder has none. Raises
        UserError if the model, or the tokenizer of real weights, cannot be read.
        """
        folder, architecture = None, None
        if config.model.path is not None:
            folder = (resolve_model if weights == "real" else describing_files)(config.model.path)
            if weights != "none" or (folder / "config.json").exists():
                architecture = read_architecture(folder)
                for note in (*unused_facts(folder), *tokenizer_notes(folder)):
                    say(console, f"not used: {note}")
        tokenizer: Any = None
        if folder and (weights == "real" or has_tokenizer(folder)):
            tokenizer = load_tokenizer(folder)
        elif folder is None or weights == "random":
            assert split is not None
            with console.status("Training a tokenizer"):
                tokenizer = make_tokenizer(split, config)
        if folder is None:
            architecture = tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id)
        return cls(folder, architecture, tokenizer, weights)

    @property
    def positions(self) -> int:
        return self.architecture.context if self.architecture else UNBOUNDED

    @property
    def vocabulary(self) -> int | None:
        """Number of embeddings; None if the folder has no config."""
        return self.architecture.vocabulary if self.architecture else None


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage of training, from the one place where its settings are read. ``name`` is its section in ``config``;
    ``device`` trains it, and may be a kind (``cuda``) that this machine does not have."""

    name: StageName
    config: StudyConfig
    model: StudyModel
    device: str

    @classmethod
    def of(cls, config: StudyConfig, name: StageName, model: StudyModel, device: str | None = None) -> StageSpec:
        """Specify the stage ``name`` on ``device`` (default: the configured one). Raises UserError if it is missing."""
        return cls(name, config, model, device or pick_device(config.model.device))

    @property
    def settings(self) -> StageConfig:
        settings: StageConfig = getattr(self.config, self.name)
        return settings

    @property
    def runtime(self) -> RuntimeConfig:
        """Runtime settings. The tiny base is trained by the torch engine: it is not worth sharding."""
        runtime = self.config.training
        return runtime.model_copy(update={"engine": "torch"}) if self.name == "base" else runtime

    @property
    def loading(self) -> ModelConfig:
        """Format, attention and device of the weights. A tiny base model is made in fp32."""
        model = self.config.model
        return model.model_copy(update={"weights": "fp32", "compute": "auto"}) if self.name == "base" else model

    @property
    def adapter(self) -> BaseModel:
        return self.settings.adapter

    @property
    def architecture(self) -> Architecture:
        """Raises UserError if the model's folder has no config."""
        if self.model.architecture is None:
            assert self.model.folder is not None
            return read_architecture(self.model.folder)
        return self.model.architecture

    @property
    def weight_format(self) -> WeightFormat:
        """Raises UserError on a format that cannot be used here."""
        return configured_format(self.loading, self.device)

    def scenario(self, world: int = 1) -> Scenario:
        """Return what memory and time depend on, for ``world`` ranks. Raises UserError as :meth:`check`."""
        settings, runtime, weight_format = self.settings, self.runtime, self.weight_format
        head_dim = self.architecture.head_dim
        return Scenario(
            self.architecture,
            weight_format,
            self.adapter,
            optimizer=settings.optimizer,
            activation_checkpointing=settings.fixed_level,
            device=torch.device(self.device).type,
            attention=attention_of(self.loading.attention, self.device, weight_format.compute, head_dim),
            accumulates=settings.accumulates(world),
            copies=torch.device(self.device).type == "cpu",
            zero_stage=runtime.zero_stage if runtime.engine == "deepspeed" else None,
            savings=Savings.without(runtime.savings_off),
            kernels=kernels_of(self.loading.kernels, self.device),
            world=world,
        )

    def check(self) -> None:
        """Raise UserError on a weight format, an attention back-end, a kernel, an adapter's targets or another of its
        settings that do not fit the model or the device."""
        self.scenario()
        with torch.device("meta"):
            decoder = Decoder(self.architecture)
        try:
            check_targets(self.adapter, decoder)
            attach(decoder, self.adapter, decoder.device).remove()
        except UserError as error:
            raise UserError(error.what, where=f"{self.name}.{error.where}", hint=error.hint) from None

    def require_limit(self, documents: TokenStore, machine: Machine | None = None) -> None:
        """Raise UserError if ``training.memory_limit`` is below the least that it takes to train ``documents``; with
        ``machine``, by itself on this one, whoever else trains beside."""
        if self.runtime.memory_limit is None:
            return
        least, world = "full" if self.chooses else self.settings.fixed_level, 1 if machine else distributed.world()
        machine = machine or self.machine()
        fit = fit_at(self.scenario(world), self.packs(documents), least, machine)
        require_fit(fit, machine, self.name)

    def levels(
        self,
        documents: TokenStore,
        console: Console,
        machine: Machine | None = None,
        needed: Callable[[Levels], int] | None = None,
    ) -> Levels:
        """Return how much the layers compute again, if ``documents`` are trained: with ``auto``, as little as
        ``machine`` allows (default: :meth:`machine`); on several ranks all compute as much again as the one with the
        least memory. ``needed`` returns the bytes that levels take (default: those of this stage alone). Raises
        UserError if ``training.memory_limit`` is too low."""
        limit, level = self.runtime.memory_limit, self.settings.fixed_level
        if limit is None and not self.chooses:
            return level
        machine = machine or self.machine()
        scenario, packs = self.scenario(distributed.world()), self.packs(documents)
        if self.chooses:
            fit = fit_levels(scenario, packs, machine, needed)
        else:
            fit = fit_at(scenario, packs, level, machine, needed)
        if limit is not None:
            require_fit(fit, machine, self.name)
        if not fit.fits:
            say(
                console,
                f"{self.name}: may not fit into memory: {(fit.needed or 0) / 1e9:.1f} GB of "
                f"{machine.memory / 1e9:.1f}; `cbtrain plan` says more",
            )
        elif fit.levels != "none" and self.chooses:
            say(console, f"{self.name}: activation checkpointing {fit.text}, to fit into {machine.memory / 1e9:.1f} GB")
        return smallest(distributed.gathered(fit.levels), scenario.architecture.layers)

    @property
    def chooses(self) -> bool:
        """Whether memory chooses what the layers compute again."""
        return self.settings.activation_checkpointing == "auto"

    def machine(self) -> Machine:
        """Return the machine that trains, with as much memory as training may take."""
        return this_machine(self.device, self.runtime.memory_limit)

    def packs(self, documents: TokenStore) -> list[PackShape]:
        """Return the packs of an epoch of ``documents``."""
        return Workload.of(documents, self.settings.pack_tokens).packs()

    def decoder(self, console: Console) -> Decoder:
        """Return the base model with a new adapter, its weights real or random as ``model.weights`` says. Raises
        UserError on files that cannot be loaded."""
        if self.model.weights == "random":
            return random_decoder(self.scenario(), torch.device(self.device))
        decoder = self.base_decoder(console)
        inject(decoder, self.adapter, seed=self.settings.seed)
        return decoder

    def base_decoder(self, console: Console) -> Decoder:
        """Return the base model with its real weights, and say how they are held. Raises UserError as
        :meth:`decoder`."""
        assert self.model.weights == "real"
        assert self.model.folder is not None
        placed = None
        if self.runtime.engine == "deepspeed" and self.runtime.zero_stage == 3:
            placed = partitioner(self.device, self.weight_format.compute, self.runtime)
        with loading_bar(console) as progress:
            decoder = load_configured(self.loading, str(self.model.folder), self.device, progress, placed)
        scenario = self.scenario()
        decoder.activation_checkpointing, decoder.savings = scenario.activation_checkpointing, scenario.savings
        memory = weight_memory(decoder)
        kernels = f"; kernels {', '.join(decoder.kernels.names)}" if decoder.kernels.names else ""
        share = f" on each of {distributed.world()} ranks, which hold a part each" if placed else ""
        say(
            console,
            f"{self.name}: base weights {decoder.format}, {memory.bytes / 1e6:,.1f} MB, "
            f"{memory.bytes_per_parameter:.2f} bytes a parameter{share}; attention by {decoder.backend}{kernels}",
        )
        if hint := faster_dtype(self.weight_format, self.device):
            say(console, f"{self.name}: {hint}")
        return decoder

    def renderer(self) -> ChatRenderer:
        """Return the renderer of this speaker's chats. Raises UserError if there is no tokenizer, or on a chat template
        that cannot be used."""
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            assert self.model.folder is not None
            tokenizer = load_tokenizer(self.model.folder)
        chat_format = choose_format(tokenizer, self.config.tokens.format, self._speaker)
        return ChatRenderer(tokenizer, chat_format, self.model.vocabulary)

    def builder(self) -> DocumentBuilder:
        """Return what makes this speaker's training documents. Raises UserError as :meth:`renderer`."""
        positions, speaker = self.model.positions, self._speaker
        return make_builder(self.renderer(), speaker, self.settings, positions, self.config, measured=False)

    def dataset(self, corpus: StudyCorpus, console: Console) -> SpeakerDataset:
        """Render and tokenize what this speaker is trained and validated on. Raises UserError as :meth:`renderer` and
        :func:`build_dataset`."""
        return build_dataset(self._speaker, corpus, self.renderer(), self.model.positions, self.config, console)

    @property
    def _speaker(self) -> Role:
        assert self.name != "base"
        return self.name


def make_tokenizer(split: Split, config: StudyConfig) -> Any:
    """Return a byte-level BPE tokenizer of the training split's text, with no larger vocabulary than the text fills."""
    texts = _texts([session for course in split.train for session in course.sessions])
    vocabulary = max(SMALLEST_VOCABULARY, sum(map(len, texts)) // CHARACTERS_PER_ENTRY)
    return train_tokenizer(texts, min(config.tiny.vocabulary, vocabulary), config.tiny.max_positions)


def _texts(sessions: list[Session]) -> list[str]:
    texts, characters = [], 0
    for session in sessions:
        for turn in session.turns:
            texts.append(turn.text)
            characters += len(turn.text)
        if characters > TOKENIZER_CHARACTERS:
            break
    return texts


def tiny_architecture(config: StudyConfig, vocabulary: int, eos_id: int) -> Architecture:
    """Return the architecture of the tiny base model that ``config`` describes."""
    sizes = config.tiny
    return Architecture(
        name="LlamaForCausalLM",
        vocabulary=vocabulary,
        hidden=sizes.hidden,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.hidden // sizes.heads,
        intermediate=sizes.intermediate,
        max_positions=sizes.max_positions,
        norm_eps=1e-5,
        rope=Rope(theta=10_000.0),
        tied_embeddings=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        sliding_window=None,
        eos_ids=(eos_id,),
    )
