"""What a finished training has made the model forget: measured, and said."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cbtrain.errors import UserError
from cbtrain.model.decoder import Decoder
from cbtrain.study.untrained_texts import UntrainedText
from cbtrain.training import distributed
from cbtrain.training.forgetting import TextForgetting, measure


def measure_texts(decoder: Decoder, texts: Sequence[UntrainedText], pack_tokens: int) -> list[TextForgetting]:
    """Return what the adapter of ``decoder``, which is trained, has changed on ``texts``, or why that cannot be
    measured; on the leading rank, for which the others wait."""
    found = [_measured(decoder, text, pack_tokens) for text in texts] if distributed.rank() == 0 else []
    distributed.barrier()
    return found


def _measured(decoder: Decoder, text: UntrainedText, pack_tokens: int) -> TextForgetting:
    why = text.why_not
    if not why:
        try:
            return TextForgetting.of(text.name, text.about, measure(decoder, text.documents, pack_tokens))
        except UserError as error:  # training is done, and is not lost by this
            why = str(error)
        except torch.OutOfMemoryError:
            why = "it does not fit into the GPU's memory"
    return TextForgetting(text=text.name, not_measured=why)


def forgetting_lines(found: Sequence[TextForgetting]) -> list[str]:
    """Return lines for the console: one with all numbers, and a warning for each text of which much is forgotten."""
    if not found:
        return []
    numbers = "; ".join(text.in_words for text in found)
    return [f"forgetting: {numbers}", *(text.warning for text in found if text.warning)]
