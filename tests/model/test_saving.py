"""What is saved is bounded, whole, and not there at all when something goes wrong."""

import json
import resource
import signal
import subprocess

import pytest
import torch
from adapter_values import lora_modules
from command import cbtrain
from random_model import random_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.model.weights.saving import save_decoder, save_tensors


@pytest.fixture
def decoder(tmp_path):
    return load_decoder(str(random_model(tmp_path / "base", "llama")))


def test_files_are_bounded_and_transformers_opens_them(decoder, tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        save_decoder(decoder, folder, decoder.source, limit=40_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    largest = max(p.numel() * 4 for p in decoder.parameters())
    assert all(file.stat().st_size < max(40_000, largest) + 4000 for file in files)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert {name: place for file in files for name, place in ((n, file.name) for n in load_file(file))} == index[
        "weight_map"
    ]
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in decoder.parameters())
    ids = torch.arange(30)
    expected = decoder.logits(decoder(ids, ids, decoder.packed([0, 30])))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(model(ids[None]).logits[0].detach(), expected, atol=1e-4, rtol=0)


def test_nothing_empty_or_not_finite_is_saved(decoder, tmp_path):
    with pytest.raises(UserError, match="no tensors to save"):
        save_tensors({}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="'x' is empty"):
        save_tensors({"x": torch.empty(0, 3)}, tmp_path / "a.safetensors")
    inject(decoder, LoraConfig(rank=2))
    save_adapter(decoder, tmp_path / "adapter", base="b")
    before = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    next(iter(lora_modules(decoder).values())).lora_A.data[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"lora_A\.weight' holds NaN or infinity and is not saved"):
        save_adapter(decoder, tmp_path / "adapter", base="b")
    # The good one of before is still there.
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_file_that_cannot_be_written_whole_leaves_nothing(decoder, tmp_path):
    """A limit on file sizes stands in for a full disk: the write fails in its midst."""
    inject(decoder, LoraConfig(rank=2))
    old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, old[0][1]))
    try:
        with pytest.raises(UserError, match=r"weights cannot be written: .*Free some space") as caught:
            save_adapter(decoder, tmp_path / "adapter", base="b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old[0])
        signal.signal(signal.SIGXFSZ, old[1])
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


@pytest.mark.slow
def test_a_full_disk_while_merging_is_one_line(decoder, tmp_path):
    inject(decoder, LoraConfig(rank=2))
    save_adapter(decoder, tmp_path / "adapter", base="b")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        folders = ("--model", tmp_path / "base", "--adapter", tmp_path / "adapter", "--out", small / "merged")
        done = cbtrain("merge", *folders, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "disk is full" in done.stderr
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_equal_tensors_make_equal_files(tmp_path):
    metadata = {f"key {i}": "ä\n" * i for i in range(9)}
    tensors = {"b": torch.ones(3), "a": torch.arange(4)}
    texts = set()
    for i in range(8):
        save_tensors(tensors, tmp_path / f"{i}.safetensors", metadata)
        texts.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(texts) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}
        assert torch.equal(file.get_tensor("a"), tensors["a"])
