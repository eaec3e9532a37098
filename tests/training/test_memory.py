"""What is measured adds up, and what is counted is what autograd keeps."""

import gc
import json
import subprocess
import sys
import threading

import pytest
import torch

from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.tokens.pack import build_pack
from cbtrain.training.loss import loss_sum
from cbtrain.training.memory.allocations import LiveStorages
from cbtrain.training.memory.malloc import gives_back, returning_memory
from cbtrain.training.memory.meter import MemoryMeter, split_of

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "workspace")


def kept_by(decoder, pack):
    meter = MemoryMeter("cpu")
    with meter.track_activations():
        loss = loss_sum(decoder, pack)
    meter.close()
    loss.backward()
    return meter.activations


@pytest.fixture
def adapted(tiny):
    def make(level):
        decoder = tiny()
        inject(decoder, LoraConfig(rank=3))
        decoder.train()
        decoder.activation_checkpointing = level
        return decoder

    return make


def test_parts_add_up_and_say_where_counting_exceeds_the_peak():
    split = split_of(1000, weights=500, adapters=10, gradients=10, optimizer=20, activations=300)
    assert sum(getattr(split, part) for part in PARTS) == split.total == split.measured == 1000
    assert (split.workspace, split.overcounted) == (160, 0)
    split = split_of(700, weights=500, adapters=10, gradients=10, optimizer=20, activations=300)
    assert sum(getattr(split, part) for part in PARTS) == split.total == 840
    assert (split.workspace, split.overcounted, split.measured) == (0, 140, 700)


def test_activations_are_what_autograd_saves(tiny, documents):
    """A second method: storages that pass through autograd's own hooks, less parameters and the pack."""
    decoder, pack = tiny(), build_pack(documents)
    known = {p.untyped_storage().data_ptr() for p in decoder.parameters()}
    known |= {
        t.untyped_storage().data_ptr() for t in (pack.input_ids, pack.position_ids, pack.labels, pack.target_positions)
    }
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_sum(decoder, pack)
    by_hooks = sum(saved.values())
    loss.backward()
    # The loss itself is kept by the caller, and by nothing in the graph.
    assert kept_by(decoder, pack) == pytest.approx(by_hooks, rel=0.01)


def test_recomputation_keeps_less_by_level(adapted, documents):
    pack = build_pack(documents)
    none, selective, full = (kept_by(adapted(level), pack) for level in ("none", "selective", "full"))
    assert none > selective > full > 0


def test_the_largest_watched_pass_counts(tiny, documents):
    decoder = tiny()
    with MemoryMeter("cpu") as meter:
        for some in (documents, documents[:2]):
            with meter.track_activations():
                loss = loss_sum(decoder, build_pack(some))
            del loss
    assert meter.activations == pytest.approx(kept_by(decoder, build_pack(documents)), rel=0.01)


def test_live_storages_follow_views_frees_and_marks():
    with LiveStorages() as live:
        a = torch.zeros(10)
        view = a[2:5]
        assert live.bytes == 40
        live.mark()
        b = a + 1
        assert (live.bytes, live.marked, live.peak) == (80, 40, 80)
        del a
        assert live.marked == 40  # the view holds it
        del view
        gc.collect()
        assert (live.bytes, live.marked) == (40, 0)
    del b
    assert live.bytes == 0
    assert live.events == [40, 40, -1, -2]


def test_meter_ends_its_thread_and_keeps_its_figures():
    meter = MemoryMeter("cpu")
    block = torch.ones(4_000_000)
    assert meter.peak >= 15e6
    meter.close()
    meter.close()
    assert all(thread.name != "memory meter" for thread in threading.enumerate())
    peak = meter.peak
    del block
    assert meter.peak == peak
    split = meter.split(weights=0, adapters=0, gradients=0, optimizer=0)
    assert split.total == split.workspace == peak


def test_a_reset_forgets_the_peak_and_not_what_is_held():
    with MemoryMeter("cpu") as meter:
        held = torch.ones(10_000_000)
        passing = torch.ones(40_000_000)
        assert meter.peak >= 195e6
        del passing
        meter.reset_peak()
        assert 35e6 < meter.peak < 120e6
        del held


MEASURE = """
import json, sys, torch
from cbtrain.training.memory.meter import MemoryMeter
with MemoryMeter("cpu") as meter:
    held = torch.ones(25_000_000)
    for _ in range(3):
        torch.ones(50_000_000).sum()
    split = meter.split(weights=100_000_000, adapters=0, gradients=0, optimizer=0)
print(json.dumps(split.as_dict()))
"""


def test_the_peak_of_a_process_is_what_its_tensors_take(tmp_path):
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, cwd=tmp_path)
    split = json.loads(done.stdout)
    assert split["measured"] == pytest.approx(300e6, rel=0.1)
    assert split["workspace"] == split["measured"] - 100_000_000


def test_memory_is_given_back_only_where_something_is_recomputed():
    assert gives_back("cpu", "full")
    assert gives_back(torch.device("cpu"), "selective")
    assert not gives_back("cpu", "none")
    assert not gives_back("cuda", "full")
    with returning_memory("cpu", "full"), returning_memory("cpu", "none"):
        assert torch.ones(3).sum() == 3
