"""Optimizer steps made of given packs."""

from cbtrain.tokens.pack import Pack, filler_pack
from cbtrain.tokens.stream import MicroBatch, StepInfo


def micro_batches(packs: list[Pack], rank: int = 0, world: int = 1) -> list[MicroBatch]:
    """The micro-batches of ``rank`` in a step of ``packs``, dealt out in turn, with fillers where they run out."""
    facts = StepInfo(
        0,
        0,
        [[index] for index in range(len(packs))],
        sum(pack.tokens for pack in packs),
        sum(pack.supervised for pack in packs),
        sum(pair.weight for pack in packs for pair in pack.pairs) or sum(pack.weight_sum for pack in packs),
    )
    slots = -(-len(packs) // world)
    own = packs[rank::world]
    own += [filler_pack()] * (slots - len(own))
    return [MicroBatch(pack, facts, place == slots - 1) for place, pack in enumerate(own)]
