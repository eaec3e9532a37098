"""Simulations whose speakers are there already."""

from contextlib import nullcontext

from cbtrain.eval.simulation.runner import Batch


def lanes(sessions, speakers):
    """One lane of one batch."""
    return [[Batch(sessions, lambda: nullcontext(speakers))]]
