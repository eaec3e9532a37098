"""The plan of memory is the real code: the same storages, whatever the method, format and level of recomputation."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import LAUNCH
from tiny_architecture import TINY

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.fused.levels import LEVELS, levels_of, mixtures
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.method_settings import HalfConfig, HypLoraConfig, SparseConfig
from cbtrain.model.weights.memory import weight_memory
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum
from cbtrain.training.memory.allocations import LiveStorages
from cbtrain.training.memory.heap import peak_of
from cbtrain.training.planning.fitting import MARGIN, bytes_needed, fit_levels, require_fit, worst_pack
from cbtrain.training.planning.machine import Machine, available_memory, other_machine, without_others
from cbtrain.training.planning.memory_plan import predict_memory
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.plan import PlannedStage, plan_stage
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import predict_static_memory, static_tensor_sizes
from cbtrain.training.planning.timing import Trained, estimate_time, measure_times
from cbtrain.training.planning.trace import trace
from cbtrain.training.planning.workload import PackShape, Workload, largest

ARCHITECTURE = replace(
    TINY, vocabulary=257, hidden=64, layers=5, head_dim=16, intermediate=160, max_positions=4096, tied_embeddings=True
)
SHAPE = PackShape((90, 50, 20), 100)
CPU = torch.device("cpu")
FORMATS = {
    "fp32": WeightFormat("fp32", torch.float32),
    "bf16": WeightFormat("bf16", torch.bfloat16),
    "nf4": WeightFormat("nf4", torch.float32),
}


def scenario(weight_format="fp32", adapter=None, **changes):
    architecture = changes.pop("architecture", ARCHITECTURE)
    return Scenario(architecture, FORMATS[weight_format], adapter or LoraConfig(rank=4), **changes)


def really(case, pack):
    """What the real decoder keeps after its forward pass, and at its peak, counted in the same way."""
    decoder = random_decoder(case, CPU)
    engine = TorchEngine(decoder, StageConfig())
    decoder.adapter.prepare(0, pack.names, pack.cu_seqlens)
    for _ in range(1 + case.accumulates):
        with LiveStorages() as live:
            loss = loss_sum(decoder, pack)
            kept = live.bytes
            engine.backward(loss)
        del loss
    waiting = engine.static_memory().gradients if case.accumulates else 0
    return kept, live.peak + waiting


CASES = {
    "lora": scenario(),
    "lora, dropout": scenario(adapter=LoraConfig(rank=4, dropout=0.1)),
    "dora": scenario(adapter=LoraConfig(rank=4, dora=True)),
    "head trained": scenario(adapter=LoraConfig(rank=4, modules_to_save=["lm_head"], ensure_weight_tying=False)),
    "some layers": scenario(adapter=LoraConfig(rank=4, layers=[1, 4], targets=["q_proj", "down_proj"])),
    "selective": scenario(activation_checkpointing="selective"),
    "recomputed": scenario(activation_checkpointing="full"),
    "bf16": scenario("bf16"),
    "nf4": scenario("nf4"),
    "nf4 recomputed": scenario("nf4", activation_checkpointing="full"),
    "full": scenario(adapter=FullConfig()),
    "full recomputed": scenario(adapter=FullConfig(), activation_checkpointing="full"),
    "full bf16": scenario("bf16", FullConfig()),
    "full bf16, accumulating": scenario("bf16", FullConfig(), accumulates=True),
    "full, accumulating": scenario(adapter=FullConfig(), accumulates=True),
    "lora, accumulating": scenario(accumulates=True),
    "half": scenario(adapter=HalfConfig()),
    "half bf16, recomputed": scenario("bf16", HalfConfig(), activation_checkpointing="full"),
    "hyplora": scenario(adapter=HypLoraConfig(rank=4)),
    "hyplora nf4": scenario("nf4", HypLoraConfig(rank=4)),
    "sparse": scenario(adapter=SparseConfig(rank=4)),
    "sparse bf16": scenario("bf16", SparseConfig(rank=4)),
    "sparse nf4": scenario("nf4", SparseConfig(rank=4)),
    "window": scenario(architecture=replace(ARCHITECTURE, sliding_window=32)),
    "qwen": scenario(architecture=replace(ARCHITECTURE, qkv_bias=True, qk_norm=True, tied_embeddings=False)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_meta_decoder_allocates_what_the_decoder_does(name):
    case, pack = CASES[name], SHAPE.pack(ARCHITECTURE.vocabulary)
    found = trace(meta_decoder(case), pack, accumulates=case.accumulates)
    kept, peak = really(case, pack)
    assert found.kept == pytest.approx(kept, rel=0.02)
    assert found.peak == pytest.approx(peak, rel=0.02)


@pytest.mark.parametrize(
    "name", ["lora", "dora", "bf16", "nf4", "full", "full bf16", "head trained", "half", "hyplora", "sparse"]
)
def test_what_is_held_is_counted_as_the_engine_does(name):
    case, pack = CASES[name], SHAPE.pack(ARCHITECTURE.vocabulary)
    decoder = random_decoder(case, CPU)
    engine = TorchEngine(decoder, StageConfig())
    engine.backward(loss_sum(decoder, pack))
    engine.step(1e-3)
    real, found = engine.static_memory(), predict_static_memory(meta_decoder(case), case)
    assert found.weights == weight_memory(decoder).bytes
    assert found.gradients == real.gradients
    assert found.adapters == (0 if case.full else real.adapters)
    assert found.optimizer == pytest.approx(
        real.optimizer, abs=4 * len(decoder.trainable_parameters())
    )  # counts of steps
    assert sum(static_tensor_sizes(meta_decoder(case), case)) == found.weights + found.adapters + found.optimizer


def test_zero_shards_by_stage_and_eight_bits_are_two_bytes():
    def parts(**changes):
        case = scenario(adapter=LoraConfig(rank=64), **changes)
        return predict_static_memory(meta_decoder(case), case)

    plain = parts()
    first, second, third = (parts(zero_stage=stage, world=4) for stage in (1, 2, 3))
    assert first.optimizer == (plain.optimizer + plain.adapters) // 4  # masters of its own
    assert first.gradients == plain.gradients == 4 * second.gradients
    assert third.weights < second.weights == plain.weights
    assert 2 / 8 < parts(optimizer="adamw8bit").optimizer / plain.optimizer < 0.4
    assert parts(optimizer="sgd").optimizer == 0


def test_gradients_that_wait_are_part_of_the_peak():
    pack = SHAPE.pack(ARCHITECTURE.vocabulary)
    waiting = trace(meta_decoder(scenario()), pack, accumulates=True)
    assert waiting.gradients == sum(4 * p.numel() for p in meta_decoder(scenario()).trainable_parameters().values())
    assert waiting.peak > trace(meta_decoder(scenario()), pack).peak


def test_predicted_parts_add_up():
    for case in (scenario(), scenario(adapter=FullConfig()), scenario(device="cuda", attention="torch-varlen")):
        split = predict_memory(case, SHAPE)
        parts = (split.weights, split.adapters, split.gradients, split.optimizer, split.activations, split.workspace)
        assert sum(parts) == split.total
        assert min(parts) >= 0


def test_kernels_over_packs_keep_no_copy_a_document():
    one = replace(scenario(), device="cuda", attention="torch-varlen")
    split = replace(one, attention="sdpa")
    pack = SHAPE.pack(ARCHITECTURE.vocabulary)
    # Document by document, results are joined into a copy, which adapters of o_proj keep beside them.
    assert trace(meta_decoder(one), pack).kept < trace(meta_decoder(split), pack).kept


def test_the_heap_is_larger_than_its_contents_and_mappings_are_not():
    events = []
    for n in range(40):  # kept, passing, kept, passing ...
        events += [1_000_000, 600_000, -(2 * n + 2)]
    loose = peak_of([5_000_000], events)
    tight = peak_of([5_000_000], events, threshold=100_000)
    if loose is None:
        pytest.skip("not glibc")
    assert tight == pytest.approx(45_600_000, rel=0.03)
    assert loose >= 0.99 * tight


def test_shapes_and_loads():
    pack = SHAPE.pack(257)
    assert (pack.cu_seqlens, pack.supervised) == ([0, 90, 140, 160], 100)
    small = SHAPE.scaled(0.1)
    assert small.lengths == (9, 5, 2)
    assert small.pack(257).supervised == small.supervised == 10
    documents = [Document(str(n), np.zeros(n, np.int32), np.ones(n, np.float32)) for n in (100, 40, 60)]
    workload = Workload.of(TokenStore.of(documents), 100)
    assert workload.tokens == 200
    assert sorted(shape.tokens for shape in workload.packs()) == [100, 100]
    assert sorted(shape.tokens for shape in workload.resized(50).packs()) == [50, 50, 50, 50]
    assert workload.resized(50).tokens == 200
    whole = Workload.of(TokenStore.of(documents), 100, 100).resized(50)
    assert max(shape.tokens for shape in whole.packs()) == 100
    assert workload.changes(50)
    long = Workload.of(TokenStore.of(documents[:1]), 20, 100)  # a document a pack, whatever its size
    assert not long.changes(40)
    assert Workload(64).packs() == [PackShape((64,), 38)]
    few, many = PackShape((100,), 10), PackShape((99,), 90)
    assert largest([few, many], scenario(), keeps_all=False) is many


def test_masks_of_a_window_decide_which_pack_is_the_largest():
    """One long document, or somewhat more tokens of documents within the window."""
    long, short = PackShape((1500,), 300), PackShape((300,) * 6, 1000)
    plain = scenario(architecture=replace(ARCHITECTURE, layers=1))
    window = replace(plain, architecture=replace(plain.architecture, sliding_window=300))
    for case, worst in ((plain, short), (window, long), (replace(window, attention="torch-varlen"), short)):
        assert {worst_pack(case, [short, long], level) for level in ("none", "full")} == {worst}
        peaks = {pack: trace(meta_decoder(case), pack.pack(257)).peak for pack in (short, long)}
        assert max(peaks, key=peaks.get) is worst


def test_time_is_measured_on_few_layers_and_estimated_elsewhere():
    somewhere = HypLoraConfig(rank=4, layers=[4], targets=["layers.4.mlp.up_proj"])
    for adapter in (LoraConfig(rank=4), somewhere):
        for found in measure_times(scenario(adapter=adapter), SHAPE, CPU):
            assert found.micro_batch > 0
            assert found.step > 0
    h100, l4 = (other_machine(name).gpu for name in ("h100", "L4"))
    times = [
        [estimate_time(case, SHAPE, Trained.of(meta_decoder(case), case), gpu).micro_batch for gpu in (h100, l4)]
        for case in (scenario("bf16"), scenario("bf16", FullConfig()), scenario("bf16", HalfConfig()))
    ]
    assert times[0][1] / times[0][0] == pytest.approx(989 / 121)
    assert times[0][0] < times[2][0] < times[1][0]  # half fine-tuning computes gradients of one half


TWO_LAYERS = replace(ARCHITECTURE, layers=2)


def plan(memory, config=None, workload=None, architecture=ARCHITECTURE):
    config = config or StageConfig(pack_tokens=1024, activation_checkpointing="none")
    case = scenario("bf16", device="cuda", attention="torch-varlen")
    case = replace(case, architecture=replace(architecture, layers=2))
    stage = PlannedStage("therapist", config, case, workload or Workload(config.pack_tokens))
    gpu = other_machine("h100").gpu
    return plan_stage(stage, Machine("a GPU", "cuda", memory, gpu), CPU, lambda text: None)


def test_advice_names_what_fits():
    roomy = plan(80_000_000_000)
    assert roomy.configured.fits
    assert roomy.advice.startswith("fits with therapist.pack_tokens=1024 therapist.activation_checkpointing=none")
    assert [a.pack_tokens for a in roomy.alternatives] == [1024] * 4 + [512] * 4 + [2048] * 4
    peaks = {(a.pack_tokens, a.activation_checkpointing): a.memory.total for a in roomy.alternatives}
    levels = [peaks[1024, level] for level in LEVELS]
    assert sorted(levels, reverse=True) == levels
    assert peaks[1024, "full"] > peaks[512, "full"]

    tight = plan(1_000_000_000 + peaks[1024, "mlp"])
    assert not tight.configured.fits
    assert (tight.choice.pack_tokens, tight.choice.activation_checkpointing) == (1024, "mlp")
    assert "therapist.pack_tokens=1024 therapist.activation_checkpointing=mlp" in tight.advice

    none = plan(1_000_001_000)
    assert none.choice is None
    assert "Take a larger machine" in none.advice  # its weights are the least of it
    wide = plan(1_000_001_000, architecture=replace(ARCHITECTURE, hidden=512, intermediate=2048, head_dim=128))
    assert "Set model.weights=nf4" in wide.advice


def test_auto_mixes_levels_so_that_they_just_fit():
    packs = [PackShape((1024,), 614)]
    case = scenario("bf16", architecture=replace(ARCHITECTURE, layers=3), device="cuda", attention="torch-varlen")
    machine = Machine("a GPU", "cuda", 80_000_000_000)
    peaks = [bytes_needed(case, packs, levels, machine) for levels in mixtures(3)]
    assert len(peaks) == 10
    assert sorted(peaks, reverse=True) == peaks
    for number in (0, 1, 4, 9):
        fit = fit_levels(case, packs, replace(machine, memory=machine.reserve + round(MARGIN * peaks[number])))
        assert (fit.fits, fit.needed) == (True, peaks[number])
        # Of several mixtures with one peak, the first: it computes least again.
        assert levels_of(fit.levels, 3) == list(mixtures(3)[peaks.index(peaks[number])])
        if number:
            assert fit.needed < peaks[peaks.index(peaks[number]) - 1]
    tight = replace(machine, memory=machine.reserve + peaks[-1] - 1)
    fit = fit_levels(case, packs, tight)
    assert (fit.levels, fit.fits) == ("full", False)
    with pytest.raises(UserError, match="therapist needs .* even if every layer is computed again"):
        require_fit(fit, tight, "therapist")
    with pytest.raises(
        UserError, match="with activation checkpointing none, .* set therapist.activation_checkpointing"
    ):
        require_fit(replace(fit, levels="none"), tight, "therapist")
    assert fit_levels(case, packs, machine).needed is None  # plenty: nobody counts
    two = [bytes_needed(replace(case, architecture=TWO_LAYERS), packs, levels, machine) for levels in mixtures(2)]
    auto = plan(1_000_000_000 + round(MARGIN * two[3]), StageConfig(pack_tokens=1024))
    assert auto.configured.activation_checkpointing == "auto"
    assert auto.configured.fits
    assert auto.choice is auto.configured


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        (scenario(adapter=LoraConfig(rank=512), copies=True), SHAPE),
        pytest.param(
            scenario(adapter=LoraConfig(rank=16, dora=True, dropout=0.1)),
            PackShape((1500, 900), 1400),
            marks=pytest.mark.deep,
        ),
        (scenario(architecture=replace(ARCHITECTURE, sliding_window=300)), PackShape((4000,), 2000)),
    ],
    ids=["large rank", "DoRA and dropout", "window"],
)
def test_where_nobody_counts_there_is_more_than_is_needed(case, shape):
    machine = Machine("this", "cpu", 0)
    needed = bytes_needed(case, [shape], "none", machine)
    for share in (0.5, 0.9):
        tight = replace(machine, memory=machine.reserve + round(share * needed))
        assert fit_levels(case, [shape], tight).levels != "none"


def test_epochs_count_the_real_documents():
    documents = [Document(str(n), np.zeros(n, np.int32), np.ones(n, np.float32)) for n in (1000, 400, 500)]
    found = plan(80_000_000_000, workload=Workload.of(TokenStore.of(documents), 1024))
    configured = found.configured
    assert configured.epoch_seconds == pytest.approx(1900 / configured.tokens_per_second)
    assert plan(80_000_000_000).configured.epoch_seconds is None


def test_available_memory_heeds_the_control_group(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert available_memory(tmp_path, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_memory(tmp_path, tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, tmp_path) == 5000 * 1024
    with pytest.raises(UserError, match="--memory"):
        available_memory(tmp_path / "no", tmp_path / "no")


def test_unknown_gpus_are_named():
    with pytest.raises(UserError, match="rtx4090"):
        other_machine("rtx4900")
    with pytest.raises(UserError, match="Known: h200, h100.* --memory"):
        other_machine("mi300x")
    for memory in (0, float("inf")):
        with pytest.raises(UserError, match="no amount of memory"):
            other_machine("h100", memory)


SMALL = [
    "tiny.vocabulary=512",
    "tiny.hidden=32",
    "tiny.layers=2",
    "tiny.intermediate=64",
    "therapist.token_budget=4000",
    "threads=1",
]


def test_the_command_plans_without_weights(tmp_path, capsys):
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 256, "num_hidden_layers": 2}
    config |= {"intermediate_size": 512, "num_attention_heads": 4, "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    arguments = ["plan", "--gpu", "rtx4090", f"model.path={tmp_path}", "--stage", "therapist"]
    assert main([*arguments, "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["configured"]["peak"] == sum(stage["configured"]["split"].values())
    assert len(stage["alternatives"]) == 15
    assert main([*arguments, "--memory", "1.01"]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main([*arguments, "training.memory_limit=1.01"]) == 1
    assert "1.0 GB on" in capsys.readouterr().out
    assert main([*arguments, "--ranks", "0"]) == 2
    assert main([*arguments, "--ranks", "3", "therapist.packs_per_step=2"]) == 2
    assert main(["plan", "--gpu", "abacus"]) == 2


@pytest.mark.deep
@pytest.mark.fault("H9")
def test_the_command_plans_a_tiny_study_here(capsys):
    assert main(["plan", "--stage", "therapist", "--json", *SMALL]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["tokens_per_epoch"] >= 4000
    assert stage["configured"]["epoch_seconds"] > 0
    # Ranks share the machine: each needs its own memory, and together they are no faster.
    needed = stage["configured"]["peak"]
    memory = str((600_000_000 + 1.5 * needed) / 1e9)
    two = ["--ranks", "2", "therapist.packs_per_step=2", "--memory", memory]
    assert stage["configured"]["fits"]
    assert main(["plan", "--stage", "therapist", *SMALL, *two]) == 1
    assert "Communication between the 2 ranks is not counted" in capsys.readouterr().out


def test_what_others_hold_on_a_gpu_is_not_there():
    gb = 1_000_000_000
    assert without_others(80 * gb, 80 * gb, 0) == 80 * gb
    assert without_others(80 * gb, 59 * gb, 20 * gb) == 80 * gb  # a context and an allocator of its own
    assert without_others(80 * gb, 29 * gb, 20 * gb) == 50 * gb


def test_a_memory_limit_below_the_least_is_refused_before_anything_is_trained(tmp_path, capsys):
    """That of the last stage too, and the base that comes before it is not made."""
    limit = ["training.memory_limit=0.64", "patient.lora.rank=512", "therapist.lora.rank=1", "therapist.pack_tokens=64"]
    assert main(["train", "--out", str(tmp_path / "run"), *SMALL, *limit]) == 2
    assert "training.memory_limit: patient needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


MEASURED = """
import json, sys
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from benchmarks import plan as benchmark
made, shape = benchmark.scenario_of(("32M", "fp32", "lora", sys.argv[1], "1024 in 3", False), "cpu")
made = replace(made, architecture=replace(made.architecture, layers=2))
split = benchmark.predict_memory(made, shape)
print(json.dumps([benchmark.measured(made, shape, steps=benchmark.STEPS)["peak"], split.total]))
"""


@pytest.mark.parametrize("level", ["none", pytest.param("full", marks=pytest.mark.deep)])
def test_the_peak_of_a_process_is_within_15_percent(level, tmp_path):
    command = [sys.executable, "-c", MEASURED, level, str(LAUNCH)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    real, predicted = json.loads(done.stdout.splitlines()[-1])
    assert predicted == pytest.approx(real, rel=0.15)
