"""The profiler tells where a step's time goes: every moment once, the backward pass by what it goes back through."""

import contextlib
import gzip
import json
from collections import Counter

import forked
import pytest
import torch.distributed as dist
from random_model import random_model

from cbtrain.errors import UserError
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import PackStream
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.profiling.components import IDLE, break_down, by_host
from cbtrain.training.profiling.memory import peak_of
from cbtrain.training.profiling.profiler import profile_steps
from cbtrain.training.profiling.ranges import PREFIX, RANGES, ranges
from cbtrain.training.profiling.trace import read_trace, understand
from cbtrain.training.stage import make_engine


@pytest.fixture
def stage(tiny, documents):
    """A decoder with LoRA and its engine."""
    decoder = tiny()
    inject(decoder, LoraConfig(rank=3), seed=0)
    return decoder, make_engine(decoder, StageConfig(), RuntimeConfig())


def profiled(stage, documents, folder, steps=2):
    decoder, engine = stage
    with Prefetcher(PackStream(documents, 64, seed=0, packs_per_step=2)) as batches:
        profile = profile_steps(decoder, engine, batches, steps=steps, learning_rate=1e-3, out=folder)
    return profile, read_trace(folder / "trace.json.gz")


def test_components_add_up_and_the_backward_pass_is_told_apart(stage, documents, tmp_path):
    profile, trace = profiled(stage, documents, tmp_path)
    breakdown = profile.breakdown
    assert breakdown.steps == 2
    assert not breakdown.on_gpu
    assert sum(breakdown.times.values()) == pytest.approx(breakdown.seconds, rel=1e-3)
    assert breakdown.seconds == pytest.approx(profile.profiled.seconds, rel=0.3)
    for component in ("attention", "linears", "LoRA", "norms", "rest of the decoder", "loss"):
        for phase in ("forward", "backward"):
            assert breakdown.of(component, phase) > 0, (component, phase)
        if component in ("attention", "linears", "LoRA", "loss"):  # norms always are, in a fused layer
            assert breakdown.of(component, "recomputed") == 0
    assert breakdown.of("optimizer") > 0
    assert breakdown.of("communication") == 0
    assert breakdown.of("embedding", "backward") == 0  # frozen
    # Matrix products of the backward pass of a pack, by hand (those that are added to something apart). Joined linears
    # have one for their input, but in front of the first layer's q, k and v nothing is trained. Of the side paths those
    # with A, joined, and with B are made here; the loss has had its own in the forward pass.
    found = Counter(
        call.component
        for call in trace.calls
        if call.name == "aten::mm" and call.phase == "backward" and call.step is not None
    )
    packs = sum(call.name == PREFIX + "embedding" for call in trace.calls)
    assert packs >= 2
    assert found == {"linears": packs * (8 - 1), "LoRA": packs * (8 + 14)}


def test_files(stage, documents, tmp_path):
    profile, _ = profiled(stage, documents, tmp_path)
    told = json.loads((tmp_path / "components.json").read_text())
    assert told["components"]["LoRA"]["backward"] == profile.breakdown.of("LoRA", "backward")
    assert sum(part["share"] for part in told["components"].values()) == pytest.approx(1, rel=1e-3)
    assert told["tokens_per_second"] > 0
    timeline = [json.loads(line) for line in (tmp_path / "memory.jsonl").read_text().splitlines()]
    assert max(record["live"] for record in timeline) == profile.peak.bytes > 0
    assert {"LoRA", "attention", "loss"} <= {record["component"] for record in timeline}
    held = sum(profile.peak.by_component.values())
    assert held >= profile.peak.bytes  # what is given back of older memory makes the difference


@pytest.mark.parametrize("level", ["selective", "full"])
def test_what_is_computed_again_has_a_column(stage, documents, tmp_path, level):
    stage[0].activation_checkpointing = level
    profile, _ = profiled(stage, documents, tmp_path)
    breakdown = profile.breakdown
    assert sum(breakdown.times.values()) == pytest.approx(breakdown.seconds, rel=1e-3)
    for component in ("norms", "LoRA", "rest of the decoder"):
        for phase in ("forward", "recomputed", "backward"):
            assert breakdown.of(component, phase) > 0, (component, phase)
    assert breakdown.of("loss", "recomputed") == 0


def test_training_is_left_as_it_was(stage):
    decoder, engine = stage
    before = {name: dict(vars(module)) for name, module in decoder.named_modules()}
    engine.world = 2  # as if there were ranks, whose exchanges are told apart
    collective, mine = dist.all_reduce, dict(vars(engine))
    with contextlib.suppress(KeyboardInterrupt), ranges(decoder, engine):
        assert dist.all_reduce is not collective
        assert "forward" in vars(decoder.lm_head)
        raise KeyboardInterrupt
    assert dist.all_reduce is collective
    assert {name: dict(vars(module)) for name, module in decoder.named_modules()} == before
    assert vars(engine) == mine


def event(name, begin, duration, thread=1, category="cpu_op", **args):
    return {"name": name, "ts": 1e6 + begin, "dur": duration, "tid": thread, "cat": category, "args": args}


def number(value):
    return {"Sequence number": value}


GPU = [
    event(PREFIX + "step", 0, 100),
    event(PREFIX + "input", 0, 10),
    event(PREFIX + "linears", 10, 5),
    event("aten::mm", 11, 4, **number(7)),
    event("cudaLaunchKernel", 12, 1, category="cuda_runtime", correlation=1),
    event(PREFIX + "backward", 20, 70),
    # The backward pass has a thread of its own on GPUs, which counts its operators for itself.
    event("autograd::engine::evaluate_function: MmBackward0", 25, 20, thread=2, **number(7)),
    event(PREFIX + "norms", 26, 5, thread=2),
    event("aten::mul", 27, 3, thread=2, **number(7)),
    event("cudaLaunchKernel", 28, 1, thread=2, category="cuda_runtime", correlation=2),
    event("cudaLaunchKernel", 35, 1, thread=2, category="cuda_runtime", correlation=3),
    event("aten::mm", 1, 2, thread=3, **number(7)),  # somebody else's
    event("c10d::allreduce_", 60, 5),
    event("cudaLaunchKernel", 61, 1, category="cuda_runtime", correlation=4),
    event("gemm", 20, 30, thread="stream 7", category="kernel", correlation=1),
    event("norm", 45, 10, thread="stream 7", category="kernel", correlation=2),  # 5 beside the one before
    event("gemm", 56, 14, thread="stream 7", category="kernel", correlation=3),
    event("ncclDevKernel_AllReduce", 62, 20, thread="stream 9", category="kernel", correlation=4),  # 12 of them alone
]


def test_gpu_time_goes_to_the_kernels():
    breakdown = break_down(understand(GPU))
    assert breakdown.on_gpu
    microseconds = {key: round(1e6 * seconds, 3) for key, seconds in breakdown.times.items()}
    assert microseconds == {
        ("linears", "forward"): 30,
        ("norms", "recomputed"): 5,
        ("linears", "backward"): 14,
        ("communication", "backward"): 12,
        ("input wait", ""): 10,
        (IDLE, ""): 29,
    }
    assert sum(microseconds.values()) == 100
    host = by_host(understand(GPU))
    assert sum(host.times.values()) == pytest.approx(100e-6)
    assert host.of("communication") == pytest.approx(5e-6)


def memory(time, size, address, thread=1):
    args = {"Bytes": size, "Addr": address, "Device Type": 0}
    return {"name": "[memory]", "ts": 1e6 + time, "tid": thread, "cat": "cpu_instant_event", "args": args}


def test_peak_names_who_holds_it():
    events = [
        event(PREFIX + "step", 0, 100),
        event(PREFIX + "lora", 10, 10),
        memory(1, -50, 900),  # of before
        memory(12, 1000, 1),
        memory(14, 300, 2),
        memory(16, -300, 2),
        event(PREFIX + "loss", 30, 10),
        memory(32, 200, 2),
        memory(33, 10, 3),
        memory(50, -1000, 1),
        memory(60, 900, 1),
    ]
    peak = peak_of(understand(events))
    assert (peak.bytes, peak.microseconds) == (1250, 14)
    assert peak.by_component == {"LoRA, forward": 1300}


def test_every_range_has_a_component():
    assert all(phase in ("", "forward", "backward") and component for component, phase in RANGES.values())


def launch(folder, *arguments):
    return forked.run("cbtrain.cli.profile_training:entry", *arguments, cwd=folder)


def test_the_launcher_profiles_real_training(tmp_path):
    model = random_model(tmp_path / "model", "llama", positions=4096)
    for weights in model.glob("*.safetensors"):
        weights.unlink()  # its geometry is enough
    arguments = ["--random-weights", "--steps", "2", "--out", "out", f"model.path={model}", "threads=1"]
    done = launch(tmp_path, *arguments, "therapist.pack_tokens=2048", "therapist.token_budget=20000")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    told = json.loads((out / "components.json").read_text())
    assert told["steps"] == 2
    assert told["components"]["LoRA"]["seconds"] > 0
    assert told["components"]["attention"]["backward"] > 0
    total = sum(part["seconds"] for part in told["components"].values())
    assert total == pytest.approx(told["seconds"], rel=1e-3)
    with gzip.open(out / "trace.json.gz", "rt") as file:
        assert len(json.load(file)["traceEvents"]) > 1000
    for word in ("attention", "linears", "LoRA", "optimizer", "communication", "input wait", "100.0%", "Memory"):
        assert word in done.stdout
    again = launch(tmp_path, "--out", "out")
    assert again.returncode == 2
    assert again.stderr.startswith("profile_training: out: already exists")


@pytest.mark.slow
def test_two_ranks_tell_communication(tmp_path):
    arguments = ("--out", "out", "--steps", 1, "threads=1")
    done = forked.run_ranks(2, "cbtrain.cli.profile_training:entry", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out/components.json").read_text())
    assert told["ranks"] == 2
    assert told["components"]["communication"]["seconds"] > 0


def test_bad_arguments(tmp_path):
    from cbtrain.cli.profile_training import build_parser, run

    with pytest.raises(UserError, match="At least 1"):
        run(build_parser().parse_intermixed_args(["--steps", "0"]))
    parsed = build_parser().parse_intermixed_args(["a.b=1", "--steps", "2", "c=3"])
    assert (parsed.steps, parsed.settings) == (2, ["a.b=1", "c=3"])
