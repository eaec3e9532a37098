"""Training on a GPU: ZeRO 1 to 3 at world size 1 under NCCL, recomputation, optimizers, memory that adds up."""

import json
import subprocess
import sys

import pytest
import torch
from places import SHARED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

ADAM = {"optimizer": "adamw", "rate": 3e-3, "clip": 0.2, "steps": 10, "layout": "several", "device": "cuda"}


def run(folder, runs):
    runs = json.dumps({name: {**ADAM, **one} for name, one in runs.items()})
    program = "import sys; sys.path.insert(0, sys.argv[1]); import equivalence_worker as w; w.main(sys.argv[2:])"
    command = [sys.executable, "-c", program, SHARED, runs, folder / "o.pt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "o.pt", weights_only=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    runs = {f"{weights} {level}": {"engine": "torch", "weights": weights, "activation_checkpointing": level}
            for weights in ("fp32", "bf16") for level in ("none", "mlp", "selective", "full")}  # fmt: skip
    runs |= {f"fused {name}": {**one, "dropout": 0.0} for name, one in runs.items()}
    runs |= {f"plain {weights}": {"engine": "torch", "weights": weights, "dropout": 0.0, "plain": True}
             for weights in ("fp32", "bf16")}  # fmt: skip
    cpu = {"cpu": {"engine": "torch", "device": "cpu"}}
    return run(tmp_path_factory.mktemp("plain"), {**runs, **cpu})


def test_fp32_on_the_gpu_is_what_the_cpu_computes(plain):
    # Dropout draws other numbers on another kind of device, so only the course of the loss can be compared.
    assert plain["fp32 none"]["loss"] == pytest.approx(plain["cpu"]["loss"], rel=5e-3)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["mlp", "selective", "full"])
def test_recomputation_changes_nothing(plain, weights, level):
    for path in ("", "fused "):
        assert plain[f"{path}{weights} {level}"]["loss"] == pytest.approx(
            plain[f"{path}{weights} none"]["loss"], rel=1e-5
        )


@pytest.mark.parametrize(("weights", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_layers_by_hand_learn_what_autograd_does(plain, weights, tolerance):
    assert plain[f"fused {weights} none"]["loss"] == pytest.approx(plain[f"plain {weights}"]["loss"], rel=tolerance)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_zero_under_nccl(plain, tmp_path, stage, weights):
    pytest.importorskip("deepspeed")
    found = run(tmp_path, {"zero": {"engine": "deepspeed", "stage": stage, "weights": weights}})["zero"]
    tolerance = 1e-5 if weights == "fp32" else 1e-2
    assert found["loss"] == pytest.approx(plain[f"{weights} none"]["loss"], rel=tolerance)


def test_the_determinism_switch_repeats_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    once = {"engine": "torch", "weights": "bf16", "deterministic": True}
    found = run(tmp_path, {"one": once, "two": once})
    assert found["one"]["loss"] == found["two"]["loss"]


@pytest.mark.parametrize("optimizer", ["adamw8bit", "paged_adamw", "paged_adamw8bit"])
def test_bitsandbytes_optimizers(tmp_path, optimizer):
    pytest.importorskip("bitsandbytes")
    found = run(tmp_path, {"one": {"engine": "torch", "optimizer": optimizer}})["one"]
    assert all(value == value for value in found["loss"])
    assert not any(found["skipped"])
