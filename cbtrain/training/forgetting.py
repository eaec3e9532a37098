"""What a tuned model has forgotten: how it predicts texts on which it was not trained, beside its base.

Both models are one decoder with its adapter on and off, and both are asked for whole distributions over the next token.
Logits of both for some rows at a time, never for a whole text. Nothing is drawn, and nothing of the decoder is changed.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.adapters.full import FullAdapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.head import FEWEST_ROWS, rows_at_once
from cbtrain.model.stretches import stretches
from cbtrain.model.weights.checking import read_weights
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import Pack
from cbtrain.training.planning.machine import available_memory
from cbtrain.training.validation import packs_of

LARGE = 0.10
"""Rise of a perplexity, as a share of the base's, above which it is called large. Of 63 tunings of one 3B model for the
same task (the method comparison of the PEFT library), LoRA raised perplexity on Wikipedia by 5 to 6 %, full tuning with
a small learning rate by 3 %, one half of all by less than 8 %; 29 were above 10 %."""

FEW = 200
"""Tokens below which nothing is called large, and the numbers are said to mean nothing."""

COPIES = 6
"""Tensors as large as the logits of a stretch of rows that exist at a time: a stretch has fewer rows by as much."""


class CannotMeasure(UserError):
    """There is no base beside the tuned model to compare with, and why."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Mean losses of base and tuned model over ``tokens`` tokens of a text, and the mean divergence KL(base ‖ tuned)
    of their distributions over the next token, all in nats a token."""

    tokens: int
    base_loss: float
    tuned_loss: float
    kl: float

    @property
    def base_perplexity(self) -> float:
        return _perplexity(self.base_loss)

    @property
    def tuned_perplexity(self) -> float:
        return _perplexity(self.tuned_loss)

    @property
    def rise(self) -> float:
        """By which share of the base's the perplexity has risen; negative if it has fallen."""
        return _perplexity(self.tuned_loss - self.base_loss) - 1

    @property
    def is_large(self) -> bool:
        return self.rise > LARGE and self.tokens >= FEW


@dataclass(frozen=True, slots=True, kw_only=True)
class TextForgetting:
    """What is known of one ``text`` in summaries: what was measured, of how much of it (``about``), or why nothing was
    (``not_measured``). A number that is not finite is None. ``rise`` is :attr:`Forgetting.rise`; ``warning`` is a line
    that says so if it is large."""

    text: str
    about: str = ""
    tokens: int = 0
    base_perplexity: float | None = None
    tuned_perplexity: float | None = None
    rise: float | None = None
    kl: float | None = None
    not_measured: str = ""
    warning: str = ""

    @classmethod
    def of(cls, text: str, about: str, found: Forgetting) -> TextForgetting:
        names = ("base_perplexity", "tuned_perplexity", "rise", "kl")
        numbers: dict[str, Any] = {name: _finite(getattr(found, name)) for name in names}
        return cls(text=text, about=about, tokens=found.tokens, warning=_warning(text, found), **numbers)

    @property
    def in_words(self) -> str:
        if self.not_measured:
            return f"{self.text} not measured: {self.not_measured}"
        few = "" if self.tokens >= FEW else " (too few to mean anything)"
        both = f"perplexity {short(self.base_perplexity)} before, {short(self.tuned_perplexity)} after"
        return f"{self.text}, {self.tokens:,} tokens{few}: {both} ({percent(self.rise)}), KL {nats(self.kl)}"


@torch.no_grad()
def measure(decoder: Decoder, documents: Sequence[Document], pack_tokens: int) -> Forgetting:
    """Return what the adapter of ``decoder`` has changed on the supervised tokens of ``documents``, each counted once,
    dropout off. ``pack_tokens`` is the size of a forward pass.

    For a method that trains the base, the base's weights are read again while this runs. Raises CannotMeasure if they
    cannot be, or if the decoder has no adapter, and UserError on files that cannot be read.
    """
    was_training = decoder.training
    decoder.eval()
    sums, tokens = torch.zeros(3, dtype=torch.float64, device=decoder.device), 0
    try:
        with base_at_hand(decoder):
            for pack in packs_of(documents, pack_tokens):
                if pack.supervised:
                    sums += _sums(decoder, pack)
                    tokens += pack.supervised
    finally:
        decoder.train(was_training)
    base, tuned, divergence = (sums / tokens).tolist() if tokens else [math.nan] * 3
    return Forgetting(tokens, base, tuned, divergence)


@contextlib.contextmanager
def base_at_hand(decoder: Decoder) -> Iterator[None]:
    """Inside, ``decoder.with_adapter(False)`` is the base, whatever the method. Raises as :func:`measure`."""
    adapter = decoder.adapter
    if adapter is None:
        raise CannotMeasure("the model has no adapter, so base and tuned model are one")
    if any(hasattr(parameter, "ds_id") for parameter in decoder.parameters()):
        raise CannotMeasure("no rank holds whole weights in ZeRO stage 3")
    if not isinstance(adapter, FullAdapter) or adapter.has_base:
        yield
        return
    if decoder.folder is None:
        raise CannotMeasure("the base's weights were changed, and no folder is known to read them from")
    _require_memory(decoder, adapter)
    try:
        adapter.hold_base(read_weights(decoder.folder, decoder.architecture))
        yield
    finally:
        adapter.drop_base()


def _require_memory(decoder: Decoder, adapter: FullAdapter) -> None:
    """Raise CannotMeasure if the base's weights do not fit beside the tuned ones."""
    gc.collect()  # optimizer and gradients may be part of cycles
    needed = sum(p.numel() * p.element_size() for p in adapter.parameters().values() if p.requires_grad)
    if decoder.kind == "cuda":
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(decoder.device)[0]
    else:
        try:
            free = available_memory()
        except UserError:  # this system does not say
            return
    if needed > free:
        sizes = f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise CannotMeasure(f"the base's weights do not fit beside the tuned ones: they take {sizes}")


def _sums(decoder: Decoder, pack: Pack) -> Tensor:
    """Return the sums over the supervised tokens of ``pack`` of base loss, tuned loss and divergence: fp64 ``[3]``."""
    targets = pack.target_positions.to(decoder.device)
    labels = pack.labels.to(decoder.device)[targets]
    with decoder.with_adapter(False):
        base = _hidden(decoder, pack, targets)
    tuned = _hidden(decoder, pack, targets)
    sums = torch.zeros(3, dtype=torch.float64, device=decoder.device)
    rows = max(FEWEST_ROWS, rows_at_once(decoder.architecture.vocabulary, decoder.kind) // COPIES)
    for some in stretches(len(targets), rows):
        with decoder.with_adapter(False):
            expected = _log_probabilities(decoder, base[some])
        found, target = _log_probabilities(decoder, tuned[some]), labels[some, None]
        sums[0] -= expected.gather(-1, target).double().sum()
        sums[1] -= found.gather(-1, target).double().sum()
        sums[2] += _divergence(expected, found).double().sum()
    return sums


def _hidden(decoder: Decoder, pack: Pack, targets: Tensor) -> Tensor:
    ids, positions = pack.input_ids.to(decoder.device), pack.position_ids.to(decoder.device)
    return decoder(ids, positions, decoder.packed(pack.cu_seqlens, pack.borders), targets)


def _log_probabilities(decoder: Decoder, hidden: Tensor) -> Tensor:
    """Return log probabilities of the next token ``[rows, vocabulary]``, in fp32 at least."""
    logits = decoder.logits(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _divergence(expected: Tensor, found: Tensor) -> Tensor:
    """Return KL(expected ‖ found) of each row of log probabilities ``[rows, vocabulary]``, not below zero. A token that
    ``expected`` rules out adds nothing, whatever ``found`` says of it."""
    probabilities = expected.exp()
    terms = torch.where(probabilities > 0, probabilities * (expected - found), 0.0)
    return terms.sum(-1).clamp_min(0.0)  # rounding can take a sum of zero a little below


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0)) if not math.isnan(loss) else math.nan


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _warning(text: str, found: Forgetting) -> str:
    """Return a line that says that much of ``text`` is forgotten, "" if it is not."""
    what = f"Warning: the tuned model's perplexity on {text}"
    if not math.isfinite(found.tuned_loss):
        return f"{what} is not finite"
    both = f"{short(found.base_perplexity)} to {short(found.tuned_perplexity)}"
    return f"{what} rose by {found.rise:,.0%} ({both}): more than {LARGE:.0%}" if found.is_large else ""


NO_NUMBER = "not finite"


def short(perplexity: float | None) -> str:
    """Return a perplexity with three digits or more."""
    if perplexity is None:
        return NO_NUMBER
    return f"{perplexity:,.0f}" if perplexity >= 1000 else f"{perplexity:.3g}"


def percent(share: float | None) -> str:
    if share is None:
        return NO_NUMBER
    return f"{share:+,.1%}" if abs(share) >= 0.0005 else "0.0%"


def nats(divergence: float | None) -> str:
    return NO_NUMBER if divergence is None else f"{divergence:.3g}"
