"""Cross-entropy of one pack, token by token. What it is divided by is decided in one place, the training step."""

from __future__ import annotations

from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.layer import Group
from cbtrain.tokens.pack import Pack


def loss_sum(decoder: Decoder, pack: Pack, *, weighted: bool = True) -> Tensor:
    """Return the weighted sum of the cross-entropy over the supervised tokens of ``pack``: 0-d fp32, zero if none.
    With ``weighted=False`` each of them counts once.

    Only target positions are projected by the language-model head: the others cannot change the sum.
    """
    losses, loss_weights = token_losses(decoder, pack)
    return (losses * loss_weights).sum() if weighted else losses.sum()


def token_losses(decoder: Decoder, pack: Pack, groups: tuple[Group, ...] = ()) -> tuple[Tensor, Tensor]:
    """Return cross-entropy in nats and weight of each supervised token of ``pack``, in order: fp32 ``[S]`` both.
    ``groups`` of its rows may have adapters of their own (:meth:`cbtrain.model.decoder.Decoder.forward`)."""

    def on_device(tensor: Tensor) -> Tensor:
        return tensor.to(decoder.device, non_blocking=True)  # no wait, where the pack is page-locked

    attend, targets = decoder.packed(pack.cu_seqlens, pack.borders), on_device(pack.target_positions)
    hidden = decoder(on_device(pack.input_ids), on_device(pack.position_ids), attend, targets, groups)
    losses = decoder.token_losses(hidden, on_device(pack.labels)[targets])
    return losses, on_device(pack.loss_weights)[targets]
