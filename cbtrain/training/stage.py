"""What one stage of training is: a decoder, what it learns from, the recipe, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.training.checkpoints.checkpoint import ParameterFiles, PlainFiles
from cbtrain.training.config import RuntimeConfig, StageConfig


@dataclass(frozen=True, slots=True)
class Stage:
    """``name`` is what metrics, warnings and settings call it. What requires a gradient in ``decoder`` is trained.

    ``documents`` are what one epoch holds. ``validation`` is measured before the first step, every
    ``settings.validate_every`` tokens and at the end; ``groups``, one name for each validation document, has the loss
    by group too (empty: one group). Checkpoints, in which trained parameters lie as ``files`` says, and
    ``metrics.jsonl`` are written to ``folder``. ``settings`` is the recipe, ``runtime`` how it is run: an interrupted
    stage may continue with other values of the latter only.
    """

    name: str
    decoder: Decoder
    documents: Sequence[Document]
    validation: Sequence[Document]
    settings: StageConfig
    folder: Path
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    files: ParameterFiles = field(default_factory=PlainFiles)
    groups: Sequence[str] = ()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"
