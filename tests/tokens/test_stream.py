"""The stream of micro-batches: resumable at any of them, the same batches on any number of ranks."""

import threading
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import PackStream


def documents(count=23, seed=0):
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        length = int(random.integers(2, 12))
        weights = random.choice([0, 0.1, 1], length).astype(np.float32)
        made.append(Document(f"d{index}", random.integers(0, 50, length).astype(np.int32), weights))
    return made


def stream(rank=0, world=1, seed=4, per_step=3, capacity=16, of=None, equal=53_000.0):
    return PackStream(of or documents(), capacity, seed, packs_per_step=per_step, rank=rank, world=world, equal=equal)


def seen(batch):
    return (batch.step.epoch, batch.step.step, batch.pack.names, batch.pack.input_ids.tolist(), batch.last)


def test_every_document_is_seen_once_an_epoch_in_an_order_of_its_own():
    own = stream()
    steps = len(own.plan(0).steps)
    orders = []
    for epoch in (0, 1):
        names = [n for step in own.plan(epoch).steps for pack in step for i in pack for n in [own.documents[i].name]]
        assert sorted(names) == sorted(d.name for d in documents())
        orders.append(names)
    assert orders[0] != orders[1]
    taken = []
    for batch in own:
        if batch.step.epoch == 1:
            break
        taken += batch.pack.names
        assert batch.step.step < steps
    assert sorted(taken) == sorted(d.name for d in documents())
    assert [seen(b)[2] for b in islice(stream(seed=5), 9)] != [seen(b)[2] for b in islice(stream(), 9)]


@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 5))
def test_resuming_at_any_micro_batch_gives_the_identical_stream(stop, world, per_step):
    for rank in range(world):
        one = stream(rank, world, per_step=per_step)
        batches = iter(one)
        for _ in range(stop):
            next(batches)
        state = one.state()
        expected = [seen(batch) for batch in islice(batches, 25)]
        other = stream(rank, world, per_step=per_step)
        next(iter(other))
        other.load_state(state)
        assert [seen(batch) for batch in islice(other, 25)] == expected
        assert all(isinstance(value, int) for value in state.values())


def steps_of(world, per_step, count, state=None):
    """The first ``count`` optimizer steps, all ranks together: facts, and names of all packs as a set."""
    streams = [stream(rank, world, per_step=per_step) for rank in range(world)]
    if state:
        for own in streams:
            own.load_state(state)
    iterators = [iter(own) for own in streams]
    found = []
    for _ in range(count):
        packs, facts = [], None
        rounds = 0
        while True:
            batches = [next(iterator) for iterator in iterators]
            rounds += 1
            packs += [tuple(batch.pack.names) for batch in batches if batch.pack.names != ["filler"]]
            facts = batches[0].step
            assert len({batch.last for batch in batches}) == 1  # every rank steps at the same micro-batch
            if batches[0].last:
                break
        found.append((facts.epoch, facts.step, facts.tokens, facts.weight_sum, frozenset(packs), rounds))
    return found


@pytest.mark.parametrize("per_step", [1, 3, 4, 7])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_batches_do_not_depend_on_the_number_of_ranks(per_step, world):
    one, more = steps_of(1, per_step, 25), steps_of(world, per_step, 25)
    assert [step[:5] for step in one] == [step[:5] for step in more]
    assert all(step[5] == -(-len(step[4]) // world) for step in more)


@pytest.mark.parametrize("stop", [1, 4, 7, 9, 16])
@pytest.mark.parametrize("worlds", [(2, 1), (2, 3), (3, 2), (1, 4)])
def test_a_run_goes_on_with_another_number_of_ranks(stop, worlds):
    before, after = worlds
    streams = [stream(rank, before, per_step=5) for rank in range(before)]
    done = []
    for _ in range(stop):
        for own in streams:
            batch = next(iter(own))
            done.append((batch.step.epoch, batch.step.step, tuple(batch.pack.names)))
    states = [own.state() for own in streams]
    assert all(state == states[0] for state in states)
    found = steps_of(after, 5, 12, states[0])
    whole = {(epoch, step): packs for epoch, step, _, _, packs, _ in steps_of(1, 5, 40)}
    for epoch, step, _, _, packs, _ in found:
        already = {names for e, s, names in done if (e, s) == (epoch, step) and names != ("filler",)}
        assert packs | already == whole[epoch, step]
        assert not packs & already


def test_host_counts_are_those_of_the_packs():
    own = stream()
    for batch in islice(own, 30):
        packs = [[own.documents[i] for i in pack] for pack in batch.step.packs]
        flat = [d for pack in packs for d in pack]
        assert batch.step.tokens == sum(map(len, flat))
        assert batch.step.supervised == sum(int((d.loss_weights[1:] > 0).sum()) for d in flat)
        assert batch.step.weight_sum == pytest.approx(sum(float(d.loss_weights[1:].sum()) for d in flat), rel=1e-6)


def test_a_position_in_a_far_epoch_needs_no_earlier_plan():
    own = stream()
    own.load_state({**own.state(), "epoch": 1000, "step": 2})
    assert seen(next(iter(own)))[:2] == (1000, 2)


def test_description_counts_slots_and_balance():
    facts = stream(world=2).describe()
    assert facts["packs"] * 16 - facts["unused_slots"] == stream().tokens_per_epoch
    assert facts["fill"] == pytest.approx(stream().tokens_per_epoch / facts["packs"] / 16)
    assert 0 <= facts["imbalance"] < 1


def test_prefetching_changes_nothing_and_its_position_is_the_consumers():
    plain = [seen(batch) for batch in islice(stream(), 40)]
    states, found = [], []
    with Prefetcher(stream(), ahead=5) as ahead:
        for batch in islice(ahead, 20):
            found.append(seen(batch))
            states.append(ahead.state())
    assert found == plain[:20]
    with Prefetcher(stream()) as ahead:
        step = ahead.step()
        assert [batch.last for batch in step] == [False] * (len(step) - 1) + [True]
    for at in (0, 7, 19):
        again = stream()
        again.load_state(states[at])
        assert [seen(batch) for batch in islice(again, 5)] == plain[at + 1 : at + 6]
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=4), st.integers(1, 9))
def test_after_any_changes_of_ranks_a_resumed_run_is_the_one_that_went_on(changes, per_step):
    """However many times the number of ranks changed before: going on and starting again give the same micro-batches."""
    state = None
    for world, count in changes:
        streams = [stream(rank, world, per_step=per_step) for rank in range(world)]
        for own in streams:
            if state:
                own.load_state(state)
        iterators = [iter(own) for own in streams]
        for _ in range(count):
            for iterator in iterators:
                next(iterator)
        state = streams[0].state()
        assert all(own.state() == state for own in streams)
        for rank, iterator in enumerate(iterators):
            again = stream(rank, world, per_step=per_step)
            again.load_state(state)
            assert [seen(b) for b in islice(again, 9)] == [seen(b) for b in islice(iterator, 9)]


@pytest.mark.parametrize(
    "other", [{"per_step": 4}, {"capacity": 17}, {"seed": 5}, {"of": documents(seed=1)}, {"equal": 90.0}]
)
def test_a_position_in_another_stream_is_refused(other):
    own = stream(**other)
    with pytest.raises(UserError, match="belongs to another stream of packs"):
        own.load_state(stream().state())


def test_what_goes_wrong_ahead_is_raised_to_the_consumer():
    broken = stream()
    broken.documents = TokenStore.of(documents())
    broken.documents.arrays["ids"] = None
    with Prefetcher(broken) as ahead:
        for _ in range(2):  # asking again does not wait for a thread that has ended
            with pytest.raises(TypeError):
                ahead.step()


def test_an_empty_stream_is_a_defect():
    with pytest.raises(ValueError, match="at least one document"):
        PackStream([], 16, 0)
