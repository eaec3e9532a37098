"""SpIEL-AG: grow where the gradients of a few updates add up to most.

Gradients are summed over a phase: the updates from the last multiple of ``every`` to the selection (the first phase
begins with training). In its first pack the candidates are fixed: of each linear as many as are trained, with the
largest gradients. Of several ranks' first packs it is that of the first rank which has something supervised in it.

Here an update's gradient is the sum over its packs and ranks, each divided by the supervised tokens of the whole
update: what the optimizer gets, clipped as it is clipped. A weight that grows begins with the mean of it and of its
square over the updates of the phase, as if it had been trained in them. With one pack an update this is what the
reference does. With n equal packs its mean is n times the reference's, which is over packs whose losses were divided by
n (the fault ``seeding``); packs with more supervised tokens count for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cbtrain.model.adapters.sparse_linear import SparseLinear
from cbtrain.model.adapters.sparse_optimizers import AGE, MEAN, SQUARE, AgedAdamW
from cbtrain.model.adapters.sparse_ranks import first_of, summed
from cbtrain.model.adapters.sparse_training import Exchange, SparseTraining, largest, smallest
from cbtrain.model.method_settings import SparseConfig

CANDIDATES, SUMS, SQUARES = "candidates", "candidate_sums", "candidate_squares"
STEPS, SAMPLES = "collected_steps", "collected_samples"
PHASE = (CANDIDATES, SUMS, SQUARES, STEPS, SAMPLES)


@dataclass(slots=True)
class _Pending:
    """Gradients at the ``candidates`` since the last update: their sum and that of their squares over ``packs``."""

    candidates: Tensor
    gradients: Tensor
    squares: Tensor
    packs: int = 0


class GradientTraining(SparseTraining):
    def __init__(
        self,
        modules: Mapping[str, SparseLinear],
        config: SparseConfig,
        rate: float,
        betas: tuple[float, float],
        decay: float,
    ) -> None:
        frozen = config.has("frozen-age")
        super().__init__(modules, config, AgedAdamW(list(modules.values()), rate, betas, decay, frozen=frozen))
        self.lockstep = self.agree
        self.pending: dict[str, _Pending] = {}
        self.begun_anew = False
        """Whether a phase has begun with a resumed training (the fault ``resume``)."""
        self._listen()

    def end_step(self, factor: float) -> None:
        super().end_step(factor)
        found = list(self.pending.values())
        gradients, squares, packs = (
            [one.gradients for one in found],
            [one.squares for one in found],
            [one.gradients.new_tensor(one.packs) for one in found],
        )
        if self.agree:
            gradients, squares, packs = summed(gradients), summed(squares), summed(packs)
        by_pack = self.config.has("seeding")
        for place, (path, one) in enumerate(self.pending.items()):
            gradient = gradients[place] * factor
            square = squares[place] * factor**2 if by_pack else gradient * gradient
            state = self.state_of(self.modules[path])
            if CANDIDATES not in state:
                state[CANDIDATES] = one.candidates
                state[SUMS], state[SQUARES] = torch.zeros_like(gradient), torch.zeros_like(square)
                state[STEPS], state[SAMPLES] = gradient.new_zeros(()), gradient.new_zeros(())
            state[SUMS] += gradient
            state[SQUARES] += square
            state[STEPS] += 1
            state[SAMPLES] += packs[place] if by_pack else 1
        self.pending.clear()

    def advance(self, done: float) -> None:
        super().advance(done)
        if self.updates % self.config.every == self.config.collect:
            self._end_phase()
        self._listen()

    def choose(self, module: SparseLinear, count: int) -> Exchange:
        state = self.state_of(module)
        out = smallest(module.values, count)
        if CANDIDATES not in state:  # no gradient has reached this linear
            return Exchange(out[:0], module.indices[:0])
        candidates, scores = state[CANDIDATES], state[SUMS].abs()
        stays = torch.ones(len(module.values), dtype=torch.bool, device=out.device)
        stays[out] = False
        free = ~torch.isin(candidates, module.indices[stays])
        best_first = scores[free].sort(descending=True, stable=True).indices
        wanted = candidates[free][best_first][:count]
        # One that is dropped and wanted stays as it is.
        places = wanted[~torch.isin(wanted, module.indices[out])]
        slots = out[~torch.isin(module.indices[out], wanted)]
        return Exchange(slots[: len(places)], places)

    def begin(self, module: SparseLinear, exchange: Exchange) -> None:
        if not len(exchange.slots):
            return
        state, slots = self.state_of(module), exchange.slots
        order = state[CANDIDATES].sort()
        at = order.indices[torch.searchsorted(order.values, exchange.places)]
        updates, (beta1, beta2) = float(state[STEPS]), self.optimizer.param_groups[0]["betas"]
        state[MEAN][slots] = state[SUMS][at] / state[SAMPLES] * (1 - beta1**updates)
        state[SQUARE][slots] = state[SQUARES][at] / state[SAMPLES] * (1 - beta2**updates)
        state[AGE][slots] = updates if self.config.has("age") else updates + 1

    def discard(self) -> None:
        self.pending.clear()

    def resume(self) -> None:
        super().resume()
        self.pending.clear()
        if self.config.has("resume"):
            self._end_phase()
            self.begun_anew = True
        self._listen()

    def close(self) -> None:
        for module in self.modules.values():
            module.watch = None

    @property
    def state_bytes(self) -> int:
        # Moments and age; candidates with two sums, and two more of the packs since the last update.
        return sum(4 * 8 * len(module.values) for module in self.modules.values())

    def _end_phase(self) -> None:
        self.begun_anew = False
        for module in self.modules.values():
            for key in PHASE:
                self.state_of(module).pop(key, None)

    def _listen(self) -> None:
        """Look at gradients if the next update belongs to a phase."""
        collects = self.begun_anew or (self.updates + 1) % self.config.every <= self.config.collect
        for path, module in self.modules.items():
            module.watch = partial(self._see, path) if collects else None

    @torch.no_grad()
    def _see(self, path: str, gradient: Tensor) -> None:
        """Add the ``gradient`` of a whole weight, in one pack, to what is known of the candidates."""
        module, flat = self.modules[path], gradient.reshape(-1)
        if path not in self.pending:
            candidates = self.state_of(module).get(CANDIDATES)
            if candidates is None:
                candidates = self._first(flat, len(module.values))
            if candidates is None:
                return
            nothing = torch.zeros(len(candidates), dtype=module.values.dtype, device=flat.device)
            self.pending[path] = _Pending(candidates, nothing, nothing.clone())
        pending = self.pending[path]
        here = flat[pending.candidates.long()].to(pending.gradients.dtype)
        pending.gradients += here
        pending.squares += here * here
        pending.packs += 1

    def _first(self, gradient: Tensor, count: int) -> Tensor | None:
        """Return the places of the largest entries of ``gradient``; None if there are none, on any rank."""
        scores = gradient.abs().nan_to_num_(0.0, 0.0, 0.0)  # an update with such a gradient is not made
        has_one = bool(scores.any())
        places = largest(scores, count)
        if self.agree:
            return first_of(places, has_one)
        return places if has_one else None
