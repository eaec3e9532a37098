"""What changes single logits before the temperature: bias, grammar masks, forbidden stop tokens, penalties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cbtrain.generation.sampling.request import Draw


def apply_edits(logits: Tensor, rows: Sequence[Draw], allowed: Sequence[Tensor | None]) -> Tensor:
    """Return ``logits [B, vocabulary]`` in fp32 after the edits of ``rows``, in the order bias, masks, penalties.

    ``logits`` stay as they are; without an edit, and in fp32, they are returned themselves. Each id of a bias and each
    mask fits the vocabulary.
    """
    biased = [row for row, draw in enumerate(rows) if draw.logit_bias]
    masked = [row for row, mask in enumerate(allowed) if mask is not None]
    too_short = [row for row, draw in enumerate(rows) if draw.stop_ids and draw.position < draw.config.min_tokens]
    penalized = [row for row, draw in enumerate(rows) if draw.counts is not None]
    if not (biased or masked or too_short or penalized):
        return logits.to(torch.float32)
    edited = logits.to(torch.float32, copy=True)
    if biased:
        at = [(row, token) for row in biased for token in rows[row].logit_bias]
        values = [value for row in biased for value in rows[row].logit_bias.values()]
        edited[_places(at, edited.device)] += torch.tensor(values, dtype=torch.float32).to(edited.device)
    if masked:
        masks = torch.stack([mask.to(edited.device) for mask in allowed if mask is not None])
        _mask(edited, masked, ~masks)
    if too_short:
        vocabulary = edited.shape[1]
        at = [(row, token) for row in too_short for token in rows[row].stop_ids if 0 <= token < vocabulary]
        edited[_places(at, edited.device)] = -math.inf
    if penalized:
        _penalize(edited, penalized, rows)
    return edited


def _places(at: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    rows, tokens = torch.tensor(at, dtype=torch.int64).view(-1, 2).T.to(device)
    return rows, tokens


def _mask(edited: Tensor, rows: Sequence[int], forbidden: Tensor) -> None:
    """Set the logits ``forbidden [len(rows), vocabulary]`` of ``rows`` to minus infinity, in place."""
    if len(rows) == len(edited):
        edited.masked_fill_(forbidden, -math.inf)
        return
    index = torch.tensor(rows).to(edited.device)
    edited[index] = edited[index].masked_fill_(forbidden, -math.inf)


def _penalize(edited: Tensor, penalized: Sequence[int], rows: Sequence[Draw]) -> None:
    """Apply the penalties, in place: first repetition, over prompt and answer (Keskar et al. 2019, as in transformers),
    then frequency and presence, over the answer (as OpenAI's API documents them)."""
    tables = [counts.table for row in penalized if (counts := rows[row].counts) is not None]
    configs = [rows[row].config for row in penalized]
    settings = torch.tensor(
        [
            [row, config.repetition_penalty, config.frequency_penalty, config.presence_penalty]
            for row, config in zip(penalized, configs, strict=True)
        ],
        dtype=torch.float64,
    )
    lengths = torch.tensor([table.shape[1] for table in tables])
    tokens, counts = torch.cat(tables, dim=1).to(edited.device)
    index, *numbers = settings.repeat_interleave(lengths, dim=0).to(edited.device).T
    repetition, frequency, presence = (number.float() for number in numbers)
    places = (index.long(), tokens)
    values = edited[places]
    values = torch.where(values < 0, values * repetition, values / repetition)
    edited[places] = values - frequency * counts - presence * (counts > 0)
