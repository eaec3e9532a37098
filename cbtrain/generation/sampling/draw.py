"""Draw the next token of each row of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.generation.sampling.edits import apply_edits
from cbtrain.generation.sampling.filters import UNDECIDED, Filters, among_all, among_candidates, fits_candidates
from cbtrain.generation.sampling.request import Draw

__all__ = ["Draw", "Drawn", "LogitsNotFinite", "NothingAllowed", "TokenLogprobs", "draw"]

NOTHING_ALLOWED, NOT_FINITE = -2, -3
"""In place of a token: the row's exception."""


class NothingAllowed(ValueError):
    """Bias, masks and forbidden stop tokens leave no token to draw."""


class LogitsNotFinite(ArithmeticError):
    """A logit of the row is NaN, or plus infinity."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities of the model's own distribution, before any setting: of the drawn token, and
    of the likeliest tokens as (id, logarithm), best first, of equal ones the lowest id first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn token, and its logprobs where the request asks for them."""

    token: int
    logprobs: TokenLogprobs | None = None


@torch.inference_mode()
def draw(logits: Tensor, rows: Sequence[Draw], allowed: Sequence[Tensor | None]) -> list[Drawn | Exception]:
    """Return the next token of each row, or why it has none.

    ``logits [B, vocabulary]`` are on any device, in any floating dtype, and stay as they are. ``allowed`` holds None or
    a mask ``[vocabulary]`` (bool) for each row. Positions and counts of ``rows`` do not change: see :meth:`Draw.add`.

    The order is that of transformers: bias, masks, penalties, temperature, top-k, top-p, min-p. The draw is the largest
    sum of logit over temperature and Gumbel noise (Gumbel 1954), of equal sums the lowest id; with temperature 0 the
    largest logit. It depends on the row alone. A row without a possible token has LogitsNotFinite, NothingAllowed or
    ValueError (a bias or mask that does not fit the vocabulary) in its place.

    On a GPU it waits for the device once, when the tokens are read; again for rows whose filters keep more than the
    candidates (:mod:`cbtrain.generation.sampling.filters`), and for logprobs.
    """
    misfits = _misfits(rows, allowed, logits.shape[1])
    if misfits:
        sound = [row for row in range(len(rows)) if row not in misfits]
        index = torch.tensor(sound, dtype=torch.int64).to(logits.device)
        others = draw(logits[index], [rows[row] for row in sound], [allowed[row] for row in sound])
        drawn = misfits | dict(zip(sound, others, strict=True))
        return [drawn[row] for row in range(len(rows))]
    if not rows:
        return []
    tokens = _tokens(logits, rows, allowed)
    asked = {row: token for row, token in enumerate(tokens) if token >= 0 and rows[row].logprobs is not None}
    logprobs = _logprobs(logits, asked, rows) if asked else {}
    return [_drawn(token, logprobs.get(row)) for row, token in enumerate(tokens)]


def _misfits(rows: Sequence[Draw], allowed: Sequence[Tensor | None], vocabulary: int) -> dict[int, Drawn | Exception]:
    """Return the rows whose bias or mask does not fit the vocabulary, each with its exception."""
    misfits: dict[int, Drawn | Exception] = {}
    for row, (request, mask) in enumerate(zip(rows, allowed, strict=True)):
        outside = [token for token in request.logit_bias if not 0 <= token < vocabulary]
        if outside:
            misfits[row] = ValueError(
                f"logit_bias: token {outside[0]} is not one of the {vocabulary} of the vocabulary"
            )
        elif mask is not None and mask.shape != (vocabulary,):
            misfits[row] = ValueError(f"the mask has shape {list(mask.shape)}, the vocabulary {vocabulary} tokens")
    return misfits


def _tokens(logits: Tensor, rows: Sequence[Draw], allowed: Sequence[Tensor | None]) -> list[int]:
    """Return the token of each row, or the number of its exception."""
    edited = apply_edits(logits, rows, allowed)
    largest, tokens = edited.max(-1)
    few: list[int] = []
    many: list[int] = []
    for row, request in enumerate(rows):
        if request.config.temperature:
            (few if fits_candidates(request.config) else many).append(row)
    for group, choose in ((few, among_candidates), (many, among_all)):
        if len(group) == len(rows):
            tokens = choose(*_scaled(edited, largest, rows))
        elif group:
            index = torch.tensor(group).to(tokens.device)
            chosen = choose(*_scaled(edited[index], largest[index], [rows[row] for row in group]))
            tokens = tokens.index_copy(0, index, chosen)
    tokens = tokens.masked_fill(largest == -math.inf, NOTHING_ALLOWED)
    tokens = tokens.masked_fill(~(largest < math.inf), NOT_FINITE)
    if edited is not logits:  # a mask may hide a NaN, but a model that gives one is broken
        tokens = tokens.masked_fill(~(logits.amax(-1) < math.inf), NOT_FINITE)
    listed: list[int] = tokens.tolist()
    if undecided := [row for row, token in enumerate(listed) if token == UNDECIDED]:
        index = torch.tensor(undecided).to(tokens.device)
        chosen = among_all(*_scaled(edited[index], largest[index], [rows[row] for row in undecided]))
        for row, token in zip(undecided, chosen.tolist(), strict=True):
            listed[row] = token
    return listed


def _scaled(logits: Tensor, largest: Tensor, rows: Sequence[Draw]) -> tuple[Tensor, Filters, Tensor]:
    """Return the distances ``[n, vocabulary]`` of ``logits`` to the ``largest [n]`` over the temperature, the filters,
    and the keys ``[n, 1]`` of the noise."""
    filters = Filters.of([row.config for row in rows], logits.shape[1], logits.device)
    keys = torch.tensor([[row.key] for row in rows]).to(logits.device)
    # Less the largest first: however small the temperature, the largest stays 0.
    return (logits - largest[:, None]).div_(filters.temperature), filters, keys


def _logprobs(logits: Tensor, tokens: Mapping[int, int], rows: Sequence[Draw]) -> dict[int, TokenLogprobs]:
    """Return the logprobs of each row in ``tokens``, for the token that it has there."""
    # Row by row: the last bit of a softmax depends on how many rows it has.
    logarithms = torch.stack([logits[row].to(torch.float32).log_softmax(-1) for row in tokens])
    wanted = [min(rows[row].logprobs or 0, logits.shape[1]) for row in tokens]
    top = logarithms.topk(max(wanted))
    chosen = logarithms.gather(1, torch.tensor(list(tokens.values())).to(logits.device)[:, None])
    read = torch.cat([chosen.double(), top.values.double(), top.indices.double()], dim=1).tolist()
    found = {}
    for row, count, (first, *others) in zip(tokens, wanted, read, strict=True):
        pairs = zip(map(int, others[max(wanted) :]), others[: max(wanted)], strict=True)
        best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        found[row] = TokenLogprobs(first, tuple(best[:count]))
    return found


def _drawn(token: int, logprobs: TokenLogprobs | None) -> Drawn | Exception:
    if token == NOT_FINITE:
        return LogitsNotFinite("the model's logits have a NaN or an infinity")
    if token == NOTHING_ALLOWED:
        return NothingAllowed("no token may follow: bias, mask and forbidden stop tokens exclude all")
    return Drawn(token, logprobs)
