"""Which kernels are used, by setting and device, and why not the others."""

import sys
from typing import get_args

import pytest
import torch
import yaml
from adapted_decoder import adapted
from pydantic import ValidationError
from tiny_architecture import TINY

from cbtrain.errors import UserError
from cbtrain.kernels import runtime
from cbtrain.kernels.runtime import NAMES, obstacle
from cbtrain.model.config import KernelName, LoraConfig, ModelConfig
from cbtrain.model.kernel_choice import Kernels, choose_kernels, kernel_text, why_not

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU of capability 9.0, as far as torch is asked for it, and what compiles launches."""
    pytest.importorskip("triton")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("CC", sys.executable)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_paths", lambda scheme: {"include": tmp_path})


def test_settings_name_the_kernels():
    assert get_args(KernelName) == tuple(Kernels.__dataclass_fields__) == NAMES
    read = {text: ModelConfig(**yaml.safe_load(text)).kernels for text in ("kernels: off", "kernels: {rope: on}")}
    assert list(read.values()) == ["off", {"rope": "on"}]  # true and false for YAML
    with pytest.raises(ValidationError):
        ModelConfig(kernels={"rop": "on"})


def test_a_head_behind_a_trained_one_is_told():
    decoder = adapted(TINY, LoraConfig(rank=2, modules_to_save=["lm_head"]))
    decoder.kernels = Kernels(cross_entropy=True)
    decoder.adapter.remove()
    assert decoder.lm_head.kernel


def test_a_cpu_computes_in_plain_pytorch():
    pytest.importorskip("triton")
    assert choose_kernels("auto", CPU) == choose_kernels("off", CPU) == Kernels()
    assert kernel_text("auto", CPU) == f"{', '.join(NAMES)}: they run on CUDA, this is 'cpu'"
    with pytest.raises(UserError, match="kernel nf4 cannot be used: they run on CUDA, this is 'cpu'"):
        choose_kernels({"nf4": "on"}, CPU)


def test_a_gpu_uses_all_that_are_not_off(gpu):
    assert choose_kernels("auto", CUDA).names == choose_kernels("on", CUDA).names == list(NAMES)
    assert choose_kernels({"rope": "off", "nf4": "on"}, CUDA).names == ["rms_norm", "swiglu", "cross_entropy", "nf4"]
    assert why_not({"rope": "off"}, CUDA) == dict.fromkeys(NAMES) | {"rope": "model.kernels is off"}


def test_what_keeps_kernels_from_a_gpu(gpu, monkeypatch, tmp_path):
    assert obstacle(CUDA) is None
    (tmp_path / "Python.h").unlink()
    assert "no Python.h" in obstacle(CUDA)
    monkeypatch.setenv("CC", "no-compiler")
    assert "no C compiler (no-compiler)" in obstacle(CUDA)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "no C compiler (gcc or clang)" in obstacle(CUDA)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    assert obstacle(CUDA) == "compute capability 7.5, less than 8.0"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert obstacle(CUDA) == "no CUDA device is here"
    monkeypatch.setattr(runtime, "triton", None)
    assert obstacle(CUDA) == obstacle(CPU) == "Triton is not installed"
    assert choose_kernels("auto", CUDA) == Kernels()
