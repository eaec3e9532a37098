"""What the base says of both answers of a pair: the reference of DPO. With an adapter it is the same decoder with the
adapter off, so there is no second model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.pack import Pack, build_pack
from cbtrain.tokens.packing import plan_packs
from cbtrain.training import distributed
from cbtrain.training.loss import token_losses
from cbtrain.training.objectives.answers import answers_of


def known_reference(pack: Pack, device: torch.device) -> Tensor | None:
    """Return the base's log-probabilities ``[pairs, 2]`` that the documents bring, None if one lacks them."""
    known = [pair.reference for pair in pack.pairs if pair.reference is not None]
    if len(known) < len(pack.pairs):
        return None
    return torch.tensor(known, dtype=torch.float64).to(device, non_blocking=True)


def base_answers(decoder: Decoder, pack: Pack) -> Tensor:
    """Return :func:`pack_answers` by ``decoder`` without its adapter."""
    with decoder.with_adapter(False):
        return pack_answers(decoder, pack)


@torch.no_grad()
def pack_answers(decoder: Decoder, pack: Pack) -> Tensor:
    """Return the log-probabilities (nats) of both answers of each pair by ``decoder`` as it is, without gradients:
    ``[pairs, 2]``."""
    answers = answers_of(*token_losses(decoder, pack), pack)
    return torch.stack([answers.chosen, answers.rejected], dim=1)


def answers_of_all(
    decoder: Decoder,
    documents: TokenStore,
    pack_tokens: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> NDArray[np.float64]:
    """Return :func:`pack_answers` of all ``documents``, pairs of answers: float64 ``[D, 2]``, the same on every rank.
    All ranks share the work; ``progress`` is called with the packs done and all of this rank's."""
    planned = plan_packs(documents.lengths, pack_tokens, search=False).packs
    own = planned[distributed.rank() :: distributed.world()]
    was_training = decoder.training
    decoder.eval()
    found: list[tuple[list[int], NDArray[np.float64]]] = []
    for number, members in enumerate(own, 1):
        answers = pack_answers(decoder, build_pack([documents[index] for index in members]))
        found.append((list(members), answers.double().cpu().numpy()))
        progress(number, len(own))
    decoder.train(was_training)
    reference = np.full((len(documents), 2), np.nan)
    for of_rank in distributed.gathered(found):
        for members, numbers in of_rank:
            reference[members] = numbers
    return reference
