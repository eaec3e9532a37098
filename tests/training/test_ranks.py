"""Two real processes under torchrun train to the same numbers as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import json, os, sys
sys.path.insert(0, SHARED)
import numpy as np, torch, torch.distributed as dist
from cbtrain.model.adapters.methods import inject
from cbtrain.model.adapters.adapter import trainable
from cbtrain.model.architecture import Architecture, Rope
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import TrainingConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.step import train_step
from batches import micro_batches

torch.set_num_threads(1)
if len(sys.argv) > 2:
    dist.init_process_group("gloo")
decoder = Decoder(Architecture("LlamaForCausalLM", 61, 24, 2, 4, 2, 6, 40, 512, 1e-5, Rope(), False, False, False,
                               False, None, (1,)))
initialize(decoder, 0)
inject(decoder, LoraConfig(rank=3, alpha=6))
random = np.random.default_rng(0)
def document(n, share):
    return Document("d", random.integers(0, 61, n).astype(np.int32), (random.random(n) < share).astype(np.float32))
steps = [[build_pack([document(9, 0.9)]), build_pack([document(30, 0.1)]), build_pack([document(17, 0.5)])],
         [build_pack([document(12, 0.7)]), build_pack([document(20, 0.0)]), build_pack([document(11, 0.3)])],
         [build_pack([document(14, 0.4)]), build_pack([document(8, 0.0)])]]
engine = TorchEngine(trainable(decoder), TrainingConfig())
results = [train_step(decoder, engine, micro_batches(packs, engine.rank, engine.world), 3e-3) for packs in steps]
if engine.rank == 0:
    out = {"loss": [r.loss for r in results], "norm": [r.grad_norm for r in results], "world": engine.world,
           "parameters": [p.flatten().tolist() for p in trainable(decoder)]}
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps(out))
if engine.distributed:
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # as `cbtrain` leaves: gloo may abort the interpreter's shutdown
"""


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.replace("SHARED", repr(str(Path(__file__).parents[1] / "shared"))))
    torchrun = Path(sys.executable).with_name("torchrun")
    subprocess.run([sys.executable, worker, tmp_path / "one.json"], check=True, cwd=tmp_path)
    command = [torchrun, "--standalone", "--nproc-per-node", "2", worker, tmp_path / "two.json", "distributed"]
    subprocess.run(command, check=True, cwd=tmp_path)
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert (one["world"], two["world"]) == (1, 2)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    for a, b in zip(one["parameters"], two["parameters"], strict=True):
        assert b == pytest.approx(a, abs=1e-5)
