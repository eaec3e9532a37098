"""A model folder, with any number of adapters, that answers chats: renderers, generation engine and its thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

from cbtrain.environment import pick_device
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import Completion, Piece, Request
from cbtrain.generation.thread import EngineThread
from cbtrain.generation.voice import Voice
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.architecture import read_architecture
from cbtrain.model.config import ModelConfig
from cbtrain.model.weights.hub import resolve_model
from cbtrain.model.weights.loading import load_configured
from cbtrain.model.weights.reading import Progress
from cbtrain.tokens.dialogue import Message


class LocalModel:
    """Answers chats with a model in this process, by itself or with one of its ``adapters`` (folders by name), whose
    base is in memory once. Enter it (``async with``) to start its engine.

    ``voices`` are how each adapter is talked to, by name; without adapters, the model itself (None). ``loading`` names
    device, weight format and attention back-end (default: on the CPU); with ``force`` an adapter of another base is
    accepted. Raises UserError on a device that is not here, and on files that cannot be used.
    """

    def __init__(
        self,
        model: str,
        adapters: Mapping[str, str | Path],
        config: EngineConfig,
        *,
        loading: ModelConfig | None = None,
        chat_format: str = "auto",
        force: bool = False,
        progress: Progress = lambda done, of: None,
    ) -> None:
        loading = loading or ModelConfig(device="cpu")
        device, folder = pick_device(loading.device), resolve_model(model)
        vocabulary = read_architecture(folder).vocabulary
        folders: dict[str | None, Path | None] = {name: Path(adapter) for name, adapter in adapters.items()}
        self.voices = {
            name: Voice.of(folder, adapter, vocabulary, chat_format)
            for name, adapter in (folders or {None: None}).items()
        }
        self.decoder = load_configured(loading, str(folder), device, progress)
        self.adapters = MountedAdapters(self.decoder)
        for name, adapter_folder in adapters.items():
            self.adapters.mount(name, adapter_folder, force=force)
        self.engine = GenerationEngine(
            self.decoder,
            config,
            stop_ids=frozenset(self.decoder.architecture.eos_ids),
            adapters=self.adapters,
        )
        self._thread = EngineThread(self.engine)

    @property
    def voice(self) -> Voice:
        """The first voice: the only one of a model with at most one adapter."""
        return next(iter(self.voices.values()))

    @property
    def notes(self) -> list[str]:
        """What the voices note, each once."""
        return list(dict.fromkeys(note for voice in self.voices.values() for note in voice.notes))

    async def __aenter__(self) -> LocalModel:
        await self._thread.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._thread.__aexit__(kind, error, trace)

    @property
    def failed(self) -> bool:
        """Whether generation has ended because of a defect."""
        return self._thread.failed

    async def answer(
        self,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        *,
        seed: int,
        adapter: str | None = None,
        voice: str | None = None,
        stop: tuple[str, ...] = (),
    ) -> Completion:
        """Return the assistant's next turn, by ``adapter`` (None: the base) in the layout of ``voice`` (None: the
        adapter's own; for the base that of the first).

        Raises ContextOverflow if the chat is too long, BadRequest on what else cannot be done, UserError on bad text.
        """
        return await self._thread.complete(await self._request(messages, sampling, seed, adapter, voice, stop))

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        *,
        seed: int,
        adapter: str | None = None,
        voice: str | None = None,
        stop: tuple[str, ...] = (),
    ) -> AsyncGenerator[Piece | Completion, None]:
        """Yield :meth:`answer` piece by piece, then as a whole."""
        request = await self._request(messages, sampling, seed, adapter, voice, stop)
        async with aclosing(self._thread.stream(request)) as pieces:
            async for piece in pieces:
                yield piece

    async def _request(
        self,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        seed: int,
        adapter: str | None,
        voice: str | None,
        stop: tuple[str, ...],
    ) -> Request:
        spoken = self.voices.get(voice or adapter, self.voice)
        # Long chats take a while to be laid out and tokenized.
        prompt = await asyncio.to_thread(spoken.renderer.prompt, messages)
        stop = (*stop, *spoken.renderer.format.stop_strings)
        tokenizer = spoken.renderer.tokenizer
        return Request(prompt, sampling, seed, adapter, stop, stop_ids=spoken.stop_ids, tokenizer=tokenizer)
