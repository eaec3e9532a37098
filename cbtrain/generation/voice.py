"""How a model is talked to: the layout of its chats, the tokens that end its answers, the prompt of its training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cbtrain.model.weights.stops import generation_stops
from cbtrain.model.weights.unused import unused_facts, unused_sampling
from cbtrain.tokens.adapter_tokenizer import serving_format, serving_tokenizer
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, saved_prompt
from cbtrain.tokens.mask_check import check_renderer
from cbtrain.tokens.tokenizer import tokenizer_notes


@dataclass(frozen=True, slots=True)
class Voice:
    """``notes`` say what the folders hold that is not used, and which chat format was chosen. ``trained_prompt`` is the
    system prompt that is saved with the adapter or the merged model (None: nothing is said of one); whoever asks adds
    it."""

    renderer: ChatRenderer
    stop_ids: frozenset[int]
    trained_prompt: TrainedPrompt | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: Path, adapter: Path | None, vocabulary: int, chat_format: str = "auto") -> Voice:
        """Return the voice of the ``model`` folder with ``adapter``. Chats have the format ``chat_format``; with
        ``auto`` the one in which the adapter was trained. ``vocabulary`` counts the model's embeddings.

        Raises UserError on files that cannot be used.
        """
        tokenizer = serving_tokenizer(model, adapter, vocabulary)
        chosen = serving_format(tokenizer, model, adapter, chat_format)
        renderer = ChatRenderer(tokenizer, chosen, vocabulary)
        check_renderer(renderer)
        unused = (*unused_facts(model), *unused_sampling(model), *tokenizer_notes(adapter or model))
        notes = [f"not used: {text}" for text in unused]
        notes += [f"chat format {chosen.name}: {chosen.note}"] if chosen.note else []
        return cls(renderer, renderer.stop_ids | generation_stops(model), saved_prompt(adapter or model), tuple(notes))
