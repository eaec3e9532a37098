"""A model folder, with any number of adapters, that answers chats: renderers, generation engine and its thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

from cbtrain.environment import pick_device
from cbtrain.errors import UserError
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

LONG_TEXT = 16_384
"""Characters from which on a text waits for the long one before it, while shorter ones pass it."""


class LocalModel:
    """Answers chats with a model in this process, by itself or with one of its ``adapters`` (folders by name), whose
    base is in memory once. Enter it (``async with``) to start its engine.

    ``voices`` are how each adapter is talked to, by name; without adapters, the model itself (None; see also
    :meth:`give_base_a_voice`). ``loading`` names
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
        device, self.folder = pick_device(loading.device), resolve_model(model)
        self.vocabulary = read_architecture(self.folder).vocabulary
        self._chat_format, self._force = chat_format, force
        folders: dict[str | None, Path | None] = {name: Path(adapter) for name, adapter in adapters.items()}
        self.voices = {
            name: Voice.of(self.folder, adapter, self.vocabulary, chat_format)
            for name, adapter in (folders or {None: None}).items()
        }
        self._first_voice = next(iter(self.voices.values()))
        self.decoder = load_configured(loading, str(self.folder), device, progress)
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
        self._short_texts, self._long_texts = asyncio.Lock(), asyncio.Lock()

    @property
    def voice(self) -> Voice:
        """The first voice: the only one of a model with at most one adapter. It stays if its adapter is dropped."""
        return self._first_voice

    def voice_of(self, adapter: str | None) -> Voice:
        """Return how ``adapter`` is talked to; None and unknown names have the base's own voice, or the first."""
        return self.voices.get(adapter) or self.voices.get(None) or self.voice

    def give_base_a_voice(self) -> None:
        """Let the base be talked to in its own layout, if it has one, rather than in that of the first adapter."""
        if None not in self.voices:
            with contextlib.suppress(UserError):  # a base model without a chat template
                self.voices[None] = Voice.of(self.folder, None, self.vocabulary, self._chat_format)

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

    async def chat(
        self,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        *,
        seed: int,
        adapter: str | None = None,
        voice: str | None = None,
    ) -> Request:
        """Return the request for the assistant's next turn, by ``adapter`` (None: the base) in the layout of ``voice``
        (None: the adapter's own; for the base its own if it has one, else that of the first adapter).

        Raises UserError on text that cannot be laid out.
        """
        spoken = self.voice_of(voice or adapter)
        characters = sum(len(message.content) for message in messages)
        prompt = await self._off_loop(characters, lambda: spoken.renderer.prompt(messages))
        stop, tokenizer = tuple(spoken.renderer.format.stop_strings), spoken.renderer.tokenizer
        return Request(prompt, sampling, seed, adapter, stop, stop_ids=spoken.stop_ids, tokenizer=tokenizer)

    async def text(
        self, prompt: str | Sequence[int], sampling: SamplingConfig, *, seed: int, adapter: str | None = None
    ) -> Request:
        """Return the request to continue ``prompt``, text (special tokens in it count as such; the tokenizer adds its
        own) or token ids, by ``adapter`` (None: the base)."""
        spoken = self.voice_of(adapter)
        tokenizer = spoken.renderer.tokenizer
        if isinstance(prompt, str):
            encode = tokenizer.backend_tokenizer.encode_batch_fast  # as a batch, which lets other threads run
            ids: Sequence[int] = await self._off_loop(len(prompt), lambda: encode([prompt])[0].ids)
        else:
            ids = prompt
        return Request(ids, sampling, seed, adapter, stop_ids=spoken.stop_ids, tokenizer=tokenizer, continues=True)

    async def _off_loop(self, characters: int, tokenize: Callable[[], list[int]]) -> list[int]:
        """Return ``tokenize()``, of a text of so many ``characters``, run in a thread: of short texts one at a time,
        and of long ones. Each more would take its turn at the interpreter's lock whenever the event loop wants it."""
        async with self._long_texts if characters > LONG_TEXT else self._short_texts:
            return await asyncio.to_thread(tokenize)

    async def answer(
        self,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        *,
        seed: int,
        adapter: str | None = None,
        voice: str | None = None,
    ) -> Completion:
        """Return the completion of :meth:`chat`. Raises as both."""
        return await self.complete(await self.chat(messages, sampling, seed=seed, adapter=adapter, voice=voice))

    async def compile_schema(self, request: Request) -> None:
        """Compile the schema of ``request`` in a thread, so that the engine, and with it others, need not wait for it.
        Raises BadRequest on one that cannot be used."""
        if request.schema is not None:
            await asyncio.to_thread(self.engine.guide, request)

    async def complete(self, request: Request) -> Completion:
        """Return the completion of ``request``; cancelling the await ends it.

        Raises ContextOverflow if the prompt is too long, BadRequest on what else cannot be done, RequestFailed on a
        defect, EngineFailed if the engine has ended.
        """
        return await self._thread.complete(request)

    async def stream(self, request: Request) -> AsyncGenerator[Piece | Completion, None]:
        """Yield :meth:`complete` piece by piece, then as a whole. Close it (``contextlib.aclosing``) to end the
        request."""
        async with aclosing(self._thread.stream(request)) as pieces:
            async for piece in pieces:
                yield piece

    async def mount(self, name: str, folder: str | Path) -> None:
        """Load the adapter in ``folder`` as ``name`` while others answer; they wait for as long as it takes to read
        it. Raises UserError on a name in use and on files that cannot be used."""
        await self._change(name, folder, self.adapters.mount)

    async def replace(self, name: str, folder: str | Path) -> None:
        """Load the adapter in ``folder`` in place of ``name``, whose requests that have not ended fail. Raises
        UserError as :meth:`mount`; the old adapter stays then."""
        await self._change(name, folder, self.engine.replace_adapter)

    async def drop(self, name: str) -> None:
        """Unmount the adapter ``name``; requests for it that have not ended fail. Raises UserError on another name."""

        def drop() -> None:
            self.engine.drop_adapter(name)
            self.voices.pop(name, None)

        await self._thread.call(drop)

    async def _change(self, name: str, folder: str | Path, mount: Callable[..., object]) -> None:
        """Load adapter and voice as one: whoever is cancelled here has changed nothing, or all of it."""
        voice = await asyncio.to_thread(Voice.of, self.folder, Path(folder), self.vocabulary, self._chat_format)

        def change() -> None:
            mount(name, folder, force=self._force)
            self.voices[name] = voice

        await self._thread.call(change)
