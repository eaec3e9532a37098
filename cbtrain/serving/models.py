"""The models that clients ask for by name: the base, and each adapter."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.generation.local_model import LocalModel
from cbtrain.serving.answers.token_text import TokenText
from cbtrain.serving.errors import Refused


@dataclass(slots=True)
class ServedModels:
    """``base`` is the name of the base; adapters have the names under which they are mounted.

    A chat without a system message gets ``system``; where that is None and ``trained_prompts`` is set, the prompt that
    the adapter (or merged model) was trained with.
    """

    model: LocalModel
    base: str
    system: str | None = None
    trained_prompts: bool = True
    created: int = field(default_factory=lambda: int(time.time()))
    _spelled: dict[str | None, TokenText] = field(default_factory=dict, init=False)
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    @property
    def names(self) -> list[str]:
        return [self.base, *self.model.adapters.names]

    def adapter(self, name: str) -> str | None:
        """Return the adapter called ``name``, None for the base. Raises Refused (404) if there is no such model."""
        if name == self.base:
            return None
        if name not in self.model.adapters.names:
            names = ", ".join(map(repr, self.names))
            problem = f"the model {name[:100]!r} does not exist; this server has {names}"
            raise Refused(404, problem, code="model_not_found", param="model")
        return name

    def system_prompt(self, adapter: str | None) -> str | None:
        """Return the system prompt of chats with ``adapter`` that bring none."""
        if self.system is not None or not self.trained_prompts:
            return self.system
        trained = self.model.voice_of(adapter).trained_prompt
        # Beside adapters the base is there to be compared with them: it has a prompt only if its own folder does.
        if trained is None or (adapter is None and None not in self.model.voices and self.model.adapters.names):
            return None
        return trained.text

    def tokens(self, adapter: str | None) -> TokenText:
        """Return how the tokens of ``adapter`` are spelled."""
        tokenizer = self.model.voice_of(adapter).renderer.tokenizer
        spelled = self._spelled.get(adapter)
        if spelled is None or spelled.tokenizer is not tokenizer:  # another adapter has this name now
            spelled = self._spelled[adapter] = TokenText(tokenizer)
        return spelled

    def describe(self, name: str) -> dict[str, Any]:
        """Return the protocol's object of the model ``name``. Raises Refused (404)."""
        adapter = self.adapter(name)
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "cbtrain",
            "parent": None if adapter is None else self.base,
            "max_model_len": self.model.engine.context,
            "system_prompt": self.system_prompt(adapter),
        }

    async def load(self, name: str, folder: str, *, replace: bool = False) -> None:
        """Mount the adapter in ``folder``. Raises Refused: 400 if the name is in use and may not be replaced, or if the
        folder cannot be used; the adapter that was to be replaced stays then."""
        async with self._changing:
            await self._load(name, folder, replace=replace)

    async def unload(self, name: str) -> None:
        """Drop the adapter ``name``; its requests that have not ended fail. Raises Refused (404) on another name."""
        async with self._changing:
            if self.adapter(name) is None:
                raise Refused(400, f"{name!r} is the base; adapters can be unloaded", param="lora_name")
            await self.model.drop(name)
            self._spelled.pop(name, None)

    async def _load(self, name: str, folder: str, *, replace: bool) -> None:
        known = name in self.names
        if name == self.base or (known and not replace):
            hint = "" if name == self.base else "; send load_inplace=true to replace it"
            raise Refused(400, f"a model named {name[:100]!r} is served already{hint}", param="lora_name")
        if not await asyncio.to_thread(Path(folder).is_dir):
            raise Refused(404, f"there is no folder {folder[:300]!r} on this server", param="lora_path")
        try:
            await (self.model.replace if known else self.model.mount)(name, folder)
        except UserError as error:
            raise Refused(400, str(error), param="lora_path") from None
