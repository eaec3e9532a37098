"""Models on this machine that speak in an evaluation: their folders, and digests of all that decides what they say.

Studies whose speakers are all behind APIs start without torch: what needs it is imported where a model is named.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cbtrain.eval.rating.families import family_of
from cbtrain.eval.simulation.config import LocalModelConfig
from cbtrain.files import file_digest, read_json_object, text_digest
from cbtrain.generation.voice import Voice
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.hub import resolve_model
from cbtrain.study.trained_run import weights_digest

MODEL_CONFIG = "config.json"

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")

SAYING_NOTHING = {"_name_or_path", "transformers_version", "base_model_name_or_path", "revision", "peft_version"}
"""Settings of models and adapters that decide nothing."""


@dataclass(frozen=True)
class LocalWeights:
    """A model folder and an adapter's. ``layout_of``: the adapter in whose chat format the base is talked to; None for
    its own."""

    model: Path
    adapter: Path | None = None
    layout_of: Path | None = None

    @cached_property
    def digests(self) -> dict[str, str]:
        """Return the digests of all that decides what the model computes: the same weights mean something else with
        another architecture, or an adapter's with another scale."""
        digests = {
            "weights": weights_digest(self.model),
            "architecture": _settings_digest(self.model / MODEL_CONFIG),
            "tokenizer": _tokenizer_digest(self.model, self.adapter),
        }
        if self.adapter is None:
            return digests
        from cbtrain.model.adapters.methods import settings_file

        config = settings_file(self.adapter)
        return digests | {"adapter": weights_digest(self.adapter), "adapter settings": _settings_digest(config)}

    @property
    def family(self) -> str:
        """The family of the model, by its names and architecture; empty if it is not known."""
        settings = read_json_object(self.model / MODEL_CONFIG, "Restore it from a copy.")
        names = [str(settings.get(key, "")) for key in ("model_type", "_name_or_path")]
        return next(filter(None, map(family_of, (self.model.name, *reversed(names)))), "")

    def voice(self, chat_format: str) -> Voice:
        """Return how the model is talked to. Raises UserError."""
        adapter = self.adapter or self.layout_of
        return Voice.of(self.model, adapter, read_architecture(self.model).vocabulary, chat_format)


def _settings_digest(file: Path) -> str:
    """Return a digest of the settings of a model or an adapter, without names of models and programs."""
    settings = read_json_object(file, "Copy the whole folder again.")
    kept = {key: value for key, value in settings.items() if key not in SAYING_NOTHING}
    return text_digest(json.dumps(kept, sort_keys=True))


def _tokenizer_digest(*folders: Path | None) -> str:
    files = [folder / name for folder in folders if folder for name in TOKENIZERS if (folder / name).is_file()]
    return text_digest("".join(map(file_digest, files)))


def local_weights(settings: LocalModelConfig) -> LocalWeights:
    """Return the folders that ``settings`` name. Raises UserError if they are not there, or if the adapter is one of
    another base."""
    from cbtrain.model.adapters.methods import check_adapter
    from cbtrain.model.weights.reading import require_whole, weight_files

    model = resolve_model(settings.model)
    read_architecture(model)
    for file in weight_files(model):
        require_whole(file)
    if settings.adapter is None:
        return LocalWeights(model)
    adapter = Path(settings.adapter).expanduser()
    check_adapter(model, adapter)
    return LocalWeights(model, adapter)


def layout_digest(voice: Voice) -> str:
    """Return a digest of how a voice lays chats out and ends answers."""
    layout = voice.renderer.format
    text = "\0".join([layout.template, *layout.stop_strings, repr(sorted(voice.stop_ids))])
    return text_digest(text)
