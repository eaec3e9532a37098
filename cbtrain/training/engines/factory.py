"""Engines: how gradients become steps, on one process or many. Each stands behind :class:`engine.TrainingEngine`."""

from __future__ import annotations

from cbtrain.model.decoder import Decoder
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.engines.engine import TrainingEngine


def make_engine(decoder: Decoder, config: StageConfig, runtime: RuntimeConfig) -> TrainingEngine:
    """Return the engine that ``runtime`` names, over what is trainable in ``decoder``. Raises UserError where the
    package that it needs is not installed."""
    if runtime.engine == "torch":
        from cbtrain.training.engines.torch_engine import TorchEngine

        return TorchEngine(decoder, config)
    from cbtrain.training.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(decoder, config, runtime)
