"""Sparse deltas in training: ranks agree on the places, a resumed run chooses the same, the best keeps its own."""

import json
import shutil

import pytest
import torch
from batches import micro_batches
from equivalence_worker import decoder, packs
from forked import run_ranks
from safetensors.torch import load_file

from cbtrain.training.checkpoints.checkpoint import steps
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.step import train_step

PHASES = {"every": 4, "collect": 2, "share": 0.5, "rank": 2}
SELECTIONS = ("accumulated-gradients", "momentum")


STEPS = {"engine": "torch", "optimizer": "adamw", "rate": 1e-2, "clip": 0.02, "steps": 11}


def equivalent(folder, world, selections, **settings):
    """A run for each of ``selections``, by name, each with the ``settings`` of sparse deltas."""
    methods = {name: {**PHASES, "selection": name, **settings} for name in selections}
    return runs_on(folder, world, {n: {**STEPS, "layout": "masked first", "method": m} for n, m in methods.items()})


def runs_on(folder, world, runs):
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


def test_recomputation_changes_no_choice(tmp_path):
    method = {**PHASES, "selection": SELECTIONS[0]}
    levels = ("none", "selective", "full")
    runs = {n: {**STEPS, "layout": "several", "method": method, "activation_checkpointing": n} for n in levels}
    found = runs_on(tmp_path, 1, runs)
    for level in levels[1:]:
        for part in ("parameters", "optimizer"):
            for name, value in found["none"][part].items():
                assert torch.equal(found[level][part][name], value), (level, name)


@pytest.mark.slow
def test_zero_trains_it_at_fixed_places(tmp_path):
    settings = {**STEPS, "layout": "several", "method": {"rank": 2}}
    zero = {str(stage): {**settings, "engine": "deepspeed", "stage": stage} for stage in (0, 1, 2)}
    found = runs_on(tmp_path, 2, {"torch": settings, **zero})
    for stage in zero:
        assert found[stage]["alike"]
        assert found[stage]["parameters"].keys() == found["torch"]["parameters"].keys()
        for name, value in found["torch"]["parameters"].items():
            torch.testing.assert_close(found[stage]["parameters"][name], value, atol=1e-6, rtol=0)


def trained(folder, selection, world=1):
    """A run through the real loop, from the newest checkpoint in ``folder``."""
    settings = {
        "folder": str(folder),
        "method": "sparse",
        "config": {"options": {**PHASES, "selection": selection}, "learning_rate": 3e-2},
        "checkpoints": {"every_steps": 1, "keep_last": 99},
    }
    done = run_ranks(world, "resume_worker:main", json.dumps(settings))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def interrupted(whole, folder, step):
    """What ``whole`` had on disk after ``step``."""
    shutil.copytree(whole, folder)
    for path in steps(folder / "checkpoints"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    return folder


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_resumed_run_chooses_what_the_whole_one_chose(selection, tmp_path):
    trained(whole := tmp_path / "whole", selection)
    last = steps(whole / "checkpoints")[0]
    files = [last / "adapter" / "adapter.safetensors", last / "optimizer.safetensors"]
    number = int(last.name[5:])
    assert number > 12
    for step in (1, 5, 9):  # inside a phase: of updates 1-2, 4-6, 8-10
        again = interrupted(whole, tmp_path / f"from {step}", step)
        known = load_file(again / "checkpoints" / f"step-{step}" / "optimizer.safetensors")
        assert any(key.endswith("/candidates") for key in known) == (selection == "accumulated-gradients")
        assert f"continuing after step {step}" in trained(again, selection)
        for file in files:
            assert (again / file.relative_to(whole)).read_bytes() == file.read_bytes()
        ours, theirs = (torch.load(folder / "best.pt", weights_only=True) for folder in (again, whole))
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    result = json.loads((whole / "result.json").read_text())
    best = load_file(whole / "checkpoints" / f"step-{result['best_step']}" / "adapter" / "adapter.safetensors")
    assert best.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in best.items())  # of their own places
    assert any(not torch.equal(load_file(files[0])[name], value) for name, value in best.items() if "indices" in name)
    if selection == "accumulated-gradients":  # continued by two ranks, which end with the leading one's best
        trained(again := interrupted(whole, tmp_path / "on two", 5), selection, 2)
        ours = torch.load(again / "best.pt", weights_only=True)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items() if name.endswith(".indices"))
        two = load_file(again / "checkpoints" / last.name / "adapter" / "adapter.safetensors")
        assert all(torch.equal(two[n], value) for n, value in load_file(files[0]).items() if n.endswith(".indices"))


def test_the_best_values_are_kept_with_their_places():
    made = decoder({**PHASES, "selection": "momentum"})
    engine = TorchEngine(made, StageConfig(clip_norm=1.0))
    best = moved = None
    for step in range(10):
        train_step(made, engine, micro_batches(packs(step, "several")), 1e-2, step=step)
        engine.advance(step / 10)
        if step == 4:
            best = engine.parameters()
    moved = engine.parameters()
    assert any(not torch.equal(moved[name], best[name]) for name in best if name.endswith(".indices"))
    engine.load(best, None)
    for path, module in made.adapter.modules.items():
        assert torch.equal(module.indices, best[f"{path}.indices"])
        assert torch.equal(module.values, best[f"{path}.values"])
    engine.close()


@pytest.mark.parametrize("faults", [[], ["resume"]])
def test_a_phase_begins_with_a_resumed_run_only_by_the_reference_s_fault(faults):
    made = decoder({**PHASES, "selection": SELECTIONS[0], "faults": faults})
    engine = TorchEngine(made, StageConfig())
    watched = []
    for step in range(3):
        watched.append(all(module.watch for module in made.adapter.modules.values()))
        train_step(made, engine, micro_batches(packs(step, "several")), 1e-2, step=step)
        engine.advance(step / 10)
    assert watched == [True, True, False]
    made.adapter.modules["layers.0.self_attn.q_proj"].watch = None
    state = engine.optimizer_state()
    engine.load(engine.parameters(), state)
    assert engine.own.updates == 3
    engine.load(engine.parameters(), {key: value * (1 + key.endswith("updates")) for key, value in state.items()})
    assert engine.own.updates == 6  # a selection is due, and the next update is of no phase
    engine.advance(0.5)
    assert not engine.own.begun_anew
    engine.load(engine.parameters(), engine.optimizer_state())
    assert all(bool(module.watch) == bool(faults) for module in made.adapter.modules.values())
    engine.close()
    assert not any(module.watch for module in made.adapter.modules.values())


def test_a_step_that_is_not_made_leaves_nothing_behind():
    made = decoder({**PHASES, "selection": SELECTIONS[0]})
    engine = TorchEngine(made, StageConfig())
    batches = micro_batches(packs(0, "several"))
    poisoned = []
    made.norm.register_forward_hook(lambda module, inputs, out: out * float("nan") if poisoned else out)
    poisoned.append(True)
    assert train_step(made, engine, batches, 1e-2).skipped
    poisoned.clear()
    assert train_step(made, engine, batches, 1e-2, stop=lambda: True) is None
    assert engine.optimizer_state() == {}
    assert not engine.own.pending
    assert not train_step(made, engine, batches, 1e-2).skipped
    state = engine.optimizer_state()
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert {int(value) for key, value in state.items() if key.endswith("collected_steps")} == {1}
