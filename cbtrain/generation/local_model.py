"""A model folder with or without an adapter that answers chats: renderer, generation engine and its thread."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from cbtrain.environment import pick_device
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import Completion, GenerationEngine, Request
from cbtrain.generation.thread import EngineThread
from cbtrain.model.adapters.methods import load_adapter
from cbtrain.model.config import ModelConfig
from cbtrain.model.weights.hub import resolve_model
from cbtrain.model.weights.loading import load_configured
from cbtrain.model.weights.reading import Progress
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.formats import FORMAT_FILE, choose_format, saved_format
from cbtrain.tokens.mask_check import check_renderer
from cbtrain.tokens.tokenizer import load_tokenizer


class LocalModel:
    """Answers chats with a model in this process. Enter it (``async with``) to start its engine.

    Chats have the format in which the adapter was trained (its ``chat_template.jinja``), else ``chat_format``.
    ``loading`` names device, weight format and attention back-end (default: on the CPU); with ``force`` an adapter of
    another base is accepted. Raises UserError on a device that is not here, and on files that cannot be used.
    """

    def __init__(
        self,
        model: str,
        adapter: str | None,
        config: EngineConfig,
        *,
        loading: ModelConfig | None = None,
        chat_format: str = "auto",
        force: bool = False,
        progress: Progress = lambda done, of: None,
    ) -> None:
        loading = loading or ModelConfig(device="cpu")
        device, folder = pick_device(loading.device), resolve_model(model)
        tokenizer = load_tokenizer(folder)
        saved = saved_format(adapter) if adapter else None
        if not adapter and chat_format == "auto" and (folder / FORMAT_FILE).exists():
            saved = saved_format(folder)  # a merged or fully tuned model
        self.renderer = ChatRenderer(tokenizer, saved or choose_format(tokenizer, chat_format))
        check_renderer(self.renderer)
        self.decoder = load_configured(loading, str(folder), device, progress)
        if adapter:
            load_adapter(self.decoder, adapter, force=force)
        stop_ids = self.renderer.stop_ids | set(self.decoder.architecture.eos_ids)
        engine = GenerationEngine(
            self.decoder,
            config,
            stop_ids=stop_ids,
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        )
        self._thread = EngineThread(engine)

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
        adapter: bool = True,
        stop: tuple[str, ...] = (),
    ) -> Completion:
        """Return the assistant's next turn. Raises ContextOverflow if the chat is too long, UserError on bad text."""
        prompt = self.renderer.prompt(messages)
        stop = (*stop, *self.renderer.format.stop_strings)
        return await self._thread.complete(Request(prompt, sampling, seed, adapter, stop))
