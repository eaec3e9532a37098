"""Sparse deltas in training: ranks agree on the places, a resumed run chooses the same, the best keeps its own."""

import json
import shutil

import pytest
import torch
from equivalence_worker import decoder, packs
from forked import run_ranks
from batches import micro_batches
from safetensors.torch import load_file

from cbtrain.training.checkpoints.checkpoint import steps
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.step import train_step

PHASES = {"every": 4, "collect": 2, "share": 0.5, "rank": 2}
SELECTIONS = ("accumulated-gradients", "momentum")


def equivalent(folder, world, selections, **settings):
    runs = {
        name: {
            "engine": "torch",
            "layout": "masked first",
            "method": {**PHASES, "selection": name, **settings},
            **{"optimizer": "adamw", "rate": 1e-2, "clip": 0.02, "steps": 11},
        }
        for name in selections
    }
    done = run_ranks(world, "equivalence_worker:main", json.dumps(runs), folder / f"{world}.pt", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / f"{world}.pt", weights_only=True)


def test_two_ranks_choose_the_places_that_one_chooses(tmp_path):
    """The first pack of a step has nothing supervised, so that the second rank's is the first that counts."""
    alone, together = (equivalent(tmp_path, world, SELECTIONS) for world in (1, 2))
    for name in SELECTIONS:
        one, two = alone[name], together[name]
        assert two["alike"]
        assert sum(norm > 0.02 for norm in one["norm"]) > 5  # clipping takes part
        moved = 0
        for key, value in one["parameters"].items():
            if key.endswith(".indices"):
                assert torch.equal(two["parameters"][key], value), key
                moved += int((value != one["first"][key]).sum())
            else:
                torch.testing.assert_close(two["parameters"][key], value, atol=1e-6, rtol=1e-4)
        assert moved > 100
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    apart = equivalent(tmp_path, 2, SELECTIONS[:1], faults=["ranks"])
    assert not apart[SELECTIONS[0]]["alike"]
