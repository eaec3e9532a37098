"""What a process that trains one row knows, the base and the adapter that all of them start from, and its clock."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.training.rows import ALPHA, GEOMETRIES, INSTALLED_AS, PACKAGES, RANK, Plan, Row
from benchmarks.training.sessions import BASE, Work, open_work
from cbtrain.model.adapters.methods import save_adapter
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.config import LoraConfig
from cbtrain.model.linears.formats import choose_weight_format
from cbtrain.model.weights.saving import save_decoder
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario, attention_of, kernels_of

ADAPTER = "adapter"
LORA = LoraConfig(rank=RANK, alpha=ALPHA)


@dataclass(frozen=True, slots=True)
class Run:
    """``folder`` holds the base, the first adapter, the tokenizer and the sessions."""

    row: Row
    plan: Plan
    folder: Path
    device: str

    @property
    def work(self) -> Work:
        work = open_work(self.folder)
        return work.as_course(self.row.course) if self.row.course else work

    @property
    def scenario(self) -> Scenario:
        row = self.row
        architecture = parse_architecture(GEOMETRIES[row.geometry], row.geometry)
        weight_format = choose_weight_format(row.weights, self.device)
        attention = attention_of("auto", self.device, weight_format.compute, architecture.head_dim)
        return Scenario(
            architecture,
            weight_format,
            LORA,
            activation_checkpointing=row.activation_checkpointing,
            device=self.device,
            attention=attention,
            kernels=kernels_of("auto", self.device),
        )


def make_base(run: Run) -> None:
    """Write a base of random weights, made on the device with a fixed seed, and a new adapter in PEFT's layout."""
    decoder = random_decoder(run.scenario, torch.device(run.device))
    save_adapter(decoder, run.folder / ADAPTER, base=BASE)
    assert decoder.adapter is not None
    decoder.adapter.remove()
    (run.folder / BASE).mkdir(exist_ok=True)  # the tokenizer is there
    names = {"fp32": "float32", "bf16": "bfloat16"}
    save_decoder(decoder, run.folder / BASE, GEOMETRIES[run.row.geometry] | {"dtype": names[run.row.weights]})


class StepClock:
    """Called after each optimizer step. The first is the warm-up: time counts from its end. Peak memory on a GPU counts
    from here, when the model is loaded.

    ``parameters`` are those that are trained, by name.
    """

    def __init__(self, device: str, parameters: Mapping[str, Tensor]) -> None:
        self.device, self.parameters = device, parameters
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.ends: list[float] = []
        self.cpu: list[float] = []
        self.lora_b: list[float] = []
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def ended(self) -> None:
        """Count a step. What it costs to look at the adapter after the first step is not timed."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        if not self.ends:
            self.lora_b = [float(p.detach().float().norm()) for n, p in self.parameters.items() if ".lora_B." in n]
        self.ends.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def saw(self, loss: float, grad_norm: float) -> None:
        """Keep what the step has said of itself."""
        self.losses.append(loss)
        self.grad_norms.append(grad_norm)

    def measured(self, run: Run, work: Work, fill: float = 1.0) -> dict[str, Any]:
        """Return the result of the row's process (JSON). ``fill``: share of the slots that held a token."""
        return {
            "seconds": self.ends[-1] - self.ends[0],
            "step_seconds": [end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False)],
            "cpu_seconds": self.cpu[-1] - self.cpu[0],
            "tokens": sum(work.tokens[1:]),
            "supervised": sum(work.supervised[1:]),
            "losses": self.losses,
            "grad_norms": self.grad_norms,
            "lora_b": {"count": len(self.lora_b), "smallest": min(self.lora_b, default=0.0)},
            "trained": sum(p.numel() for p in self.parameters.values()),
            "fill": fill,
            **peak_memory(self.device),
            "versions": versions(run.row),
        }


def trained(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def peak_memory(device: str) -> dict[str, int]:
    """Return the most memory that this process has had: resident, or on a GPU allocated and reserved there."""
    if device == "cuda":
        return {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {"peak": int(match[1]) * 1024 if match else 0}


def missing(row: Row) -> list[str]:
    """Return the packages that the row needs and that are not here, by the names that pip knows."""
    names = PACKAGES.get(row.system, ())
    return [INSTALLED_AS.get(name, name) for name in names if importlib.util.find_spec(name) is None]


def versions(row: Row) -> dict[str, str]:
    names: Iterable[str] = ("torch", *PACKAGES.get(row.system, ()))
    installed: Sequence[str] = [INSTALLED_AS.get(name, name) for name in names]
    return {name: importlib.metadata.version(name) for name in installed}
