"""Packs: what is in them, how full they are, and what bounds that."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import IGNORED, build_pack, filler_pack
from cbtrain.tokens.packing import GOOD_FILL, best_fit, cost, fewest_packs, imbalance, into_steps, plan_packs, share_out
from cbtrain.tokens.repack import refill

LENGTHS = st.lists(st.integers(1, 130), min_size=1, max_size=80)


def document(name, length, start=0):
    ids = np.arange(start, start + length, dtype=np.int32)
    return Document(name, ids, (ids % 3 == 0).astype(np.float32) * 0.5)


def everything_once(packs, count):
    return sorted(index for pack in packs for index in pack) == list(range(count))


@given(LENGTHS, st.integers(1, 100), st.none() | st.integers(0, 5))
def test_plan_holds_every_document_once_within_capacity(lengths, capacity, seed):
    lengths = np.asarray(lengths)
    packing = plan_packs(lengths, capacity, None if seed is None else np.random.default_rng(seed))
    assert everything_once(packing.packs, len(lengths))
    for pack in packing.packs:
        assert lengths[pack].sum() <= capacity or len(pack) == 1
    assert fewest_packs(lengths, capacity) <= len(packing.packs)
    slots = sum(max(capacity, lengths[pack].sum()) for pack in packing.packs)
    assert packing.fill == pytest.approx(lengths.sum() / slots)


def fewest_by_trying(lengths, capacity):
    """The true optimum, by trying every assignment (few documents only)."""
    for count in range(1, len(lengths) + 1):
        for places in itertools.product(range(count), repeat=len(lengths)):
            loads = [0] * count
            for place, length in zip(places, lengths, strict=True):
                loads[place] += length
            if max(loads) <= capacity:
                return count
    raise AssertionError


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_the_bound_never_exceeds_the_optimum_and_the_search_never_beats_it(lengths):
    optimum = fewest_by_trying(lengths, 20)
    assert fewest_packs(np.asarray(lengths), 20) <= optimum <= len(plan_packs(np.asarray(lengths), 20).packs)


def test_the_bound_counts_documents_that_cannot_share():
    # Nine of more than half a pack: the total alone would allow six.
    assert fewest_packs(np.asarray([60] * 9), 100) == 9
    assert fewest_packs(np.asarray([51] * 4 + [50] * 2), 100) == 5
    assert fewest_packs(np.asarray([], dtype=np.int64), 100) == 0


def test_best_fit_takes_the_tightest_gap():
    assert best_fit(np.asarray([6, 5, 4, 3, 2]), np.arange(5), 10) == [[0, 2], [1, 3, 4]]


def test_refilling_finds_what_best_fit_decreasing_misses():
    lengths = np.asarray([8, 6, 5, 4, 4, 3, 5, 5])  # 40 tokens in packs of 10: four are possible
    packs = [[0], [1, 5], [2, 3], [4, 6], [7]]
    better = refill(packs, lengths, 10, 4, np.random.default_rng(0))
    assert everything_once(better, len(lengths))
    assert all(lengths[pack].sum() <= 10 for pack in better)
    assert len(better) <= 5
    # Sessions of like length, a few to a pack, are where it matters.
    many = np.clip(np.random.default_rng(3).normal(4600, 900, 960), 1500, 9000).astype(int)
    order = np.argsort(-many)
    first = best_fit(many, order, 16_384)
    planned = plan_packs(many, 16_384, np.random.default_rng(0))
    assert many.sum() / len(first) / 16_384 < GOOD_FILL <= planned.fill
    assert planned.method == "refilled"


def test_ties_and_near_equal_lengths_come_in_another_order_with_another_seed():
    lengths = np.asarray([100, 100, 100, 100, 50, 50, 50, 50])
    plans = {str(plan_packs(lengths, 150, np.random.default_rng(seed)).packs) for seed in range(8)}
    assert len(plans) > 4


def test_pack_layout_never_predicts_across_documents():
    pack = build_pack([document("a", 4, 0), document("b", 3, 6)])
    assert pack.input_ids.tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert pack.labels.tolist() == [IGNORED, IGNORED, 3, IGNORED, IGNORED, IGNORED, IGNORED]
    assert pack.loss_weights.tolist() == [0, 0, 0.5, 0, 0, 0, 0]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert pack.cu_seqlens == [0, 4, 7]
    assert (pack.supervised, pack.weight_sum, pack.tokens) == (1, 0.5, 7)
    assert pack.names == ["a", "b"]


def test_a_filler_teaches_nothing():
    assert (filler_pack().supervised, filler_pack().weight_sum, filler_pack().tokens) == (0, 0.0, 1)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 5))
def test_steps_and_ranks_share_packs_evenly(costs, per_step, world):
    steps = into_steps(np.asarray(costs), per_step, np.random.default_rng(0))
    assert everything_once(steps, len(costs))
    sizes = [len(step) for step in steps]
    assert max(sizes) <= per_step
    assert max(sizes) - min(sizes) <= 1
    for step in steps:
        rounds = share_out([costs[place] for place in step], world)
        given_out = [place for row in rounds for place in row if place is not None]
        assert sorted(given_out) == list(range(len(step)))
        assert all(len(row) == world for row in rounds)
        assert all(None not in row for row in rounds[:-1])


def test_packs_of_like_cost_share_a_step_and_ranks_get_equal_work():
    lengths = np.random.default_rng(0).integers(100, 16_000, 400)
    costs = cost(lengths)
    steps = into_steps(costs, 8, np.random.default_rng(0))
    shuffled = np.random.default_rng(1).permutation(costs)
    at_random = imbalance([shuffled[i : i + 8].tolist() for i in range(0, 400, 8)], 8)
    assert imbalance([costs[step].tolist() for step in steps], 8) < 0.1 * at_random
    assert imbalance([[3.0, 1.0]], 2) == pytest.approx(2 / 6)  # one waits two of three units
    assert cost(np.asarray([53_000]))[0] == pytest.approx(2 * 53_000)
