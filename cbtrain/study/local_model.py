"""Open a model on this machine as the settings of a study say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cbtrain.config.schema import StudyConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.model.config import ModelConfig
from cbtrain.model.weights.reading import Progress


def open_local_model(
    model: str,
    adapters: Mapping[str, Path],
    config: StudyConfig,
    *,
    loading: ModelConfig | None = None,
    force: bool = False,
    progress: Progress = lambda done, of: None,
) -> tuple[LocalModel, str]:
    """Return ``model`` (a folder or hub id) with ``adapters``, whose base has a voice of its own if it can, and what
    ``evaluation.deterministic`` costs, "" if that is not set. ``loading``: instead of ``config.model``; ``force``: take
    adapters of another base, too. Raises UserError."""
    opened = LocalModel(
        model,
        adapters,
        config.evaluation.engine,
        loading=loading or config.model,
        chat_format=config.tokens.format,
        force=force,
        progress=progress,
    )
    opened.give_base_a_voice()
    return opened, opened.engine.be_deterministic() if config.evaluation.deterministic else ""
