"""One number, however it is computed: packs, accumulation, ranks, engines, ZeRO stages, recomputation."""

import json

import pytest
import torch
from forked import run_ranks

from cbtrain.model.fused.levels import LEVELS

GRADIENT = {"optimizer": "sgd", "rate": 50.0, "clip": 1e9, "steps": 1, "decay": 0.0}
SGD = {"optimizer": "sgd", "rate": 0.05, "clip": 0.2, "steps": 10}
ADAM = {"optimizer": "adamw", "rate": 3e-3, "clip": 0.2, "steps": 10}

BASIC = {"gradient": GRADIENT, "sgd": SGD, "adam": ADAM}
NON_FINITE = {"healthy": {**ADAM, "steps": 3}, "poisoned": {**ADAM, "steps": 4, "poison": 3}}
FULL = {"full": {**ADAM, "method": "full"}}
BF16 = {"bf16": {**ADAM, "weights": "bf16"}}
FULL_BF16 = {"full bf16": {**ADAM, "weights": "bf16", "method": "full"}}
# Nine rows of logits at once: the losses of a pack are worked out in several stretches.
STRETCHES = {f"{name} in stretches": {**one, "logits": 9 * 61} for name, one in BASIC.items()}
FUSED = {f"fused {name}": {**one, "dropout": 0.0} for name, one in BASIC.items()}
BY_AUTOGRAD = {name: {**one, "plain": True} for name, one in FUSED.items()}
NF4 = {"nf4": {**ADAM, "weights": "nf4"}}
PAIRS = {
    "orpo": {**ADAM, "steps": 5, "objective": "orpo"},
    "dpo": {**ADAM, "steps": 5, "objective": "dpo", "dropout": 0.0},
    "dpo nf4": {**ADAM, "steps": 5, "objective": "dpo", "dropout": 0.0, "weights": "nf4"},
}
STAGES = (0, 1, 2, 3)


def run(folder, runs, world=1, **settings):
    """Each of ``runs`` in one set of processes."""
    runs = {name: {"engine": "torch", "layout": "several", **one, **settings} for name, one in runs.items()}
    done = run_ranks(world, "equivalence_worker:main", json.dumps(runs), folder / "out.pt", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(folder / "out.pt", weights_only=True)
    assert all(one["world"] == world for one in found.values())
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Everything in one pack, one process."""
    folder = tmp_path_factory.mktemp("reference")
    return run(
        folder, {**BASIC, **BY_AUTOGRAD, **NON_FINITE, **FULL, **BF16, **FULL_BF16, **NF4, **PAIRS}, layout="one"
    )


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory):
    runs = BASIC | {f"again {level}": {**ADAM, "activation_checkpointing": level} for level in LEVELS[1:]}
    runs |= FUSED
    full = {"full in stretches": {**FULL["full"], "logits": 9 * 61}}
    return run(tmp_path_factory.mktemp("accumulated"), {**runs, **NON_FINITE, **STRETCHES, **full, **PAIRS})


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return run(tmp_path_factory.mktemp("two"), {**BASIC, **FUSED, **NON_FINITE, **PAIRS}, 2)


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    """Runs of each ZeRO stage on two ranks, made when they are first asked for."""
    made = {}

    def of(stage):
        if stage not in made:
            runs = (
                BASIC
                | FUSED
                | NON_FINITE
                | STRETCHES
                | (BF16 | FULL if stage else {})
                | (NF4 | PAIRS if stage in (1, 2) else {})
            )
            runs = runs | (FULL_BF16 if stage in (2, 3) else {})
            runs = runs | {"half": {**ADAM, "steps": 5}}
            folder = tmp_path_factory.mktemp(f"zero{stage}")
            made[stage] = run(folder, runs, 2, engine="deepspeed", stage=stage)
        return made[stage]

    return of


def assert_equal_runs(found, reference):
    gradients, expected = found["gradient"]["gradients"], reference["gradient"]["gradients"]
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert value.norm() > 0
        assert (gradients[name] - value).norm() <= 1e-5 * value.norm(), name
    assert found["gradient"]["norm"] == pytest.approx(reference["gradient"]["norm"], rel=1e-5)
    for name, value in reference["sgd"]["parameters"].items():
        assert (found["sgd"]["parameters"][name] - value).abs().max() <= 1e-6, name
    assert found["adam"]["loss"] == pytest.approx(reference["adam"]["loss"], rel=1e-5)
    assert not any(found["adam"]["skipped"])


def assert_untouched(found):
    """The poisoned fourth step has left everything as it was after three."""
    poisoned, healthy = found["poisoned"], found["healthy"]
    assert poisoned["skipped"] == [False, False, False, True]
    for part in ("parameters", "optimizer"):
        assert poisoned[part].keys() == healthy[part].keys()
        assert all(torch.equal(poisoned[part][name], value) for name, value in healthy[part].items())


def assert_equal_pairs(found, reference):
    for name in PAIRS:
        assert found[name]["loss"] == pytest.approx(reference[name]["loss"], rel=1e-5)
        assert found[name]["norm"] == pytest.approx(reference[name]["norm"], rel=1e-4)
        for ours, theirs in zip(found[name]["pairs"], reference[name]["pairs"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    first, last = (reference["dpo"]["pairs"][step] for step in (0, -1))
    assert first["pairs"] == 7
    assert abs(last["gain_chosen"]) > abs(first["gain_chosen"])  # it moves away from the base


def test_accumulation_equals_one_large_pack(accumulated, reference):
    assert len(reference["adam"]["loss"]) == 10
    assert sum(norm > ADAM["clip"] for norm in reference["adam"]["norm"]) > 5  # clipping takes part
    assert_equal_runs(accumulated, reference)
    assert_equal_runs(fused(accumulated), fused(reference))
    assert_equal_pairs(accumulated, reference)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_recomputation_changes_nothing(accumulated, level):
    plain, spared = accumulated["adam"], accumulated[f"again {level}"]
    assert spared["loss"] == plain["loss"]
    assert all(torch.equal(spared["parameters"][name], value) for name, value in plain["parameters"].items())


def fused(found):
    """Runs without dropout, whose layers are computed by hand; in the reference they are left to autograd."""
    return {name: found[f"fused {name}"] for name in BASIC}


def in_stretches(found):
    return {name: found[f"{name} in stretches"] for name in BASIC}


def test_losses_in_stretches_are_the_same(accumulated, reference):
    assert_equal_runs(in_stretches(accumulated), reference)
    assert accumulated["full in stretches"]["loss"] == pytest.approx(reference["full"]["loss"], rel=1e-5)


def test_a_non_finite_step_changes_nothing(accumulated):
    assert_untouched(accumulated)


@pytest.mark.slow
def test_two_ranks_equal_one(two_ranks, reference):
    assert_equal_runs(two_ranks, reference)
    assert_equal_runs(fused(two_ranks), fused(reference))
    assert_equal_pairs(two_ranks, reference)
    assert_untouched(two_ranks)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_deepspeed_on_two_ranks_equals_plain_autograd_on_one(zero, reference, stage):
    assert_equal_runs(zero(stage), reference)
    assert_equal_runs(fused(zero(stage)), fused(reference))
    assert_equal_runs(in_stretches(zero(stage)), reference)
    if stage in (1, 2):
        assert_equal_pairs(zero(stage), reference)
    held, whole = zero(stage)["adam"]["held"], reference["adam"]["held"]
    assert held[0] <= whole[0] * (0.6 if stage >= 2 else 1)
    # Moments and masters: 12 bytes a number in all, halved by sharding.
    assert held[1] <= whole[1] * (0.8 if stage >= 1 else 1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_non_finite_step_changes_nothing_under_deepspeed(zero, stage):
    assert_untouched(zero(stage))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_all_weights_trained_by_deepspeed(zero, reference, stage):
    assert zero(stage)["full"]["loss"] == pytest.approx(reference["full"]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_nf4_under_zero(zero, reference, stage):
    assert zero(stage)["nf4"]["loss"] == pytest.approx(reference["nf4"]["loss"], rel=1e-5)
    assert abs(reference["nf4"]["loss"][0] - reference["adam"]["loss"][0]) > 1e-4  # it was NF4


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_bf16_base_under_zero(zero, reference, stage):
    found, expected = zero(stage)["bf16"], reference["bf16"]
    # Stages 1 and 2 leave adapters in fp32; stage 3 holds them in bf16 beside fp32 masters.
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2 if stage == 3 else 5e-4)
    assert all(value.dtype == torch.float32 for value in found["parameters"].values())


def test_bf16_weights_are_trained_on_fp32_masters(reference):
    """They follow training in fp32, though each single step is smaller than what bf16 can hold."""
    found = reference["full bf16"]
    assert all(value.dtype == torch.float32 for value in found["parameters"].values())
    assert found["loss"] == pytest.approx(reference["full"]["loss"], rel=2e-3)
    name = "layers.0.self_attn.q_proj.weight"
    moved = [(run["parameters"][name] - run["first"][name]).norm().item() for run in (found, reference["full"])]
    assert moved[0] == pytest.approx(moved[1], rel=0.05)
    assert not torch.equal(found["parameters"][name], found["parameters"][name].bfloat16().float())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_bf16_weights_trained_by_deepspeed(zero, reference, stage):
    assert zero(stage)["full bf16"]["loss"] == pytest.approx(reference["full bf16"]["loss"], rel=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("writer", "reader"), [(2, (0, 1)), (3, (2, 1)), (1, (3, 2))])
def test_state_moves_between_engines_and_numbers_of_ranks(tmp_path, zero, reference, writer, reader):
    """``writer`` is a ZeRO stage on two ranks; ``reader`` a stage (0: the plain engine) and its ranks."""
    torch.save(zero(writer)["half"], tmp_path / "half.pt")
    engine = {"engine": "deepspeed", "stage": reader[0]} if reader[0] else {}
    rest = run(tmp_path, {"rest": {**ADAM, "load": str(tmp_path / "half.pt")}}, reader[1], **engine)["rest"]
    assert rest["loss"] == pytest.approx(reference["adam"]["loss"][5:], rel=1e-5)
    for name, value in reference["adam"]["parameters"].items():
        assert (rest["parameters"][name] - value).abs().max() <= 1e-5, name
