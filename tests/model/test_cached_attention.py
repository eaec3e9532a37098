"""Attention of single tokens over slots: in place, each slot alone, and gathered, against the plain formula in fp64."""

import random

import pytest
import torch

from cbtrain.model.attention.cached import Chunk, GatheredSlots, SlotsInPlace


@pytest.mark.parametrize("window", [None, 30])
def test_every_way_computes_the_same(window):
    drawn = random.Random(0)
    torch.manual_seed(0)
    keys, values = torch.randn(9, 2, 300, 16), torch.randn(9, 2, 300, 16)
    rows = [(row, Chunk(slot, drawn.randrange(299), 1)) for row, slot in enumerate(drawn.sample(range(9), 7))]
    q = torch.randn(7, 4, 16)
    exact = torch.empty(7, 4, 16, dtype=torch.float64)
    for row, chunk in rows:
        first = 0 if window is None else max(0, chunk.end - window)
        seen = [t[chunk.slot, :, first : chunk.end].double().repeat_interleave(2, 0) for t in (keys, values)]
        scores = (seen[0] @ q[row].double()[:, :, None] / 4).softmax(1)
        exact[row] = (scores * seen[1]).sum(1)
    in_place = SlotsInPlace(rows, window, torch.float32, alone=False)
    assert len(in_place.calls) < 7 or window
    ways = (in_place, SlotsInPlace(rows, window, torch.float32, alone=True), GatheredSlots(rows, window, q.device))
    for way in ways:
        out = torch.zeros(7, 4, 16)
        way(q, keys, values, out)
        torch.testing.assert_close(out.double(), exact, atol=1e-5, rtol=1e-5)
