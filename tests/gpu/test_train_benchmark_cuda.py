"""On a GPU: the systems of the training benchmark learn the same there, at a tiny size."""

import json
import subprocess
import sys

import pytest
import torch
from places import LAUNCH

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def test_all_systems_learn_the_same(tmp_path):
    file = tmp_path / "rows.json"
    command = [sys.executable, LAUNCH / "benchmark.py", "train", "--tiny", "--device", "cuda", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert {"limit", "ours", "plain", "course"} <= {name for name, row in rows.items() if row["status"] == "measured"}
    assert rows["ours"]["reserved"] >= rows["ours"]["peak_memory_bytes"] > 0
