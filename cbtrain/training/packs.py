"""Packs per optimizer step, and the stream of packs for one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cbtrain.errors import UserError
from cbtrain.model.architecture import Architecture
from cbtrain.tokens.document import Document
from cbtrain.tokens.packing import EQUAL_COST
from cbtrain.tokens.stream import PackStream
from cbtrain.training import distributed
from cbtrain.training.config import StageConfig


def equal_cost(architecture: Architecture) -> float:
    """Return the document length at which attention costs as much as the linears:
    :data:`cbtrain.tokens.packing.EQUAL_COST`, for a known architecture."""
    a = architecture
    attention = a.heads * a.head_dim
    weights = a.hidden * (2 * attention + 2 * a.kv_heads * a.head_dim + 3 * a.intermediate)
    return weights / attention


def check_packs_per_step(config: StageConfig, world: int, name: str) -> int:
    """Return the packs per optimizer step of stage ``name``; full packs are assumed if its size is in tokens. Raises
    UserError if they cannot feed ``world`` ranks."""
    packs, key = config.packs_per_step or world, "packs_per_step"
    if config.tokens_per_step:
        packs, key = round(config.tokens_per_step / config.pack_tokens), "tokens_per_step"
    if packs < world:
        least = f"{world * config.pack_tokens} or more" if config.tokens_per_step else f"a multiple of {world}"
        problem = f"{packs} packs a step cannot feed {world} ranks"
        raise UserError(problem, where=f"{name}.{key}", hint=f"Set {name}.{key} to {least}.")
    return packs


def open_stream(
    documents: Sequence[Document],
    config: StageConfig,
    architecture: Architecture | None,
    name: str,
    packs_per_step: int | None = None,
    world: int | None = None,
) -> PackStream:
    """Return this rank's share of stage ``name``'s packs.

    ``packs_per_step`` is what an interrupted run was planned with: it outlives a change of ranks. ``world`` plans for
    so many ranks that are not here. Raises UserError if a step cannot feed the ranks.
    """
    ranks = distributed.world() if world is None else world
    make = partial(
        PackStream,
        documents,
        config.pack_tokens,
        config.seed,
        rank=distributed.rank(),
        world=ranks,
        equal=equal_cost(architecture) if architecture else EQUAL_COST,
    )
    if packs_per_step is not None:
        return make(packs_per_step=packs_per_step)
    stream = make(packs_per_step=check_packs_per_step(config, ranks, name))
    if config.tokens_per_step is None:
        return stream
    # Packs are not quite full, or hold one long document: as many as come to so many tokens.
    wanted = round(config.tokens_per_step * stream.plan(0).packs / stream.tokens_per_epoch)
    return make(packs_per_step=max(ranks, wanted))
