"""What decoders of real widths launch is what the compile gate builds, no more and no less. Nothing is computed."""

import pytest
from interpreted import interpreted
from places import LAUNCH

pytest.importorskip("triton")

PROGRAM = f"sys.path.insert(0, {str(LAUNCH)!r})"
PROGRAM += """
import importlib, inspect
from triton.runtime.interpreter import InterpretedFunction
from benchmarks.kernel_cases import Sizes, cases
from benchmarks.training.rows import GEOMETRIES
from cbtrain.kernels.runtime import NAMES
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.config import LoraConfig
from cbtrain.model.kernel_choice import Kernels
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.linears.nf4 import Nf4Linear
from cbtrain.training.loss import loss_sum
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.workload import PackShape

KINDS = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64", torch.uint8: "*u8"}
launched = {}

def described(name, kinds, constants, aligned, *options):
    return json.dumps([name, kinds, constants, sorted(aligned), *options], sort_keys=True)

def launch(function, *args, grid, warmup, num_warps=4, num_stages=3, enable_fp_fusion=True, **named):
    # As Triton specializes: an integer of 1 is a constant, and multiples of 16 are known as such.
    given, kinds, constants, aligned = dict(zip(function.arg_names, args)) | named, {}, {}, []
    signature, general = inspect.signature(function.fn).parameters, function.kwargs.get("do_not_specialize") or ()
    for name, value in given.items():
        if "constexpr" in str(signature[name].annotation) or (type(value) is int and value == 1 and name not in general):
            kinds[name], constants[name] = "constexpr", value
        elif type(value) is int:
            kinds[name] = "i32"
            aligned += [name] if value % 16 == 0 and name not in general else []
        else:
            kinds[name] = KINDS[value.dtype] if isinstance(value, torch.Tensor) else "fp32"
    what = described(function.fn.__qualname__, kinds, constants, aligned, num_warps, num_stages, enable_fp_fusion)
    launched[what] = function.fn.__module__

InterpretedFunction.run = launch

built = {}
for module in NAMES:
    for build in importlib.import_module(f"cbtrain.kernels.{module}").builds():
        aligned = [list(build.signature)[place] for place in build.aligned]
        aligned = [name for name in aligned if build.signature[name][0] != "*"]  # where tensors lie is the allocator's
        options = build.warps, build.stages, build.fusion
        name = build.function.fn.__qualname__
        built[described(name, dict(build.signature), dict(build.constants), aligned, *options)] = module

qwen3 = GEOMETRIES["llama-8b"] | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128}
models = [GEOMETRIES[name] for name in ("llama-8b", "qwen-7b", "mistral-7b")] + [qwen3]
shape = PackShape((50, 30), 40)
for config in models:
    architecture = parse_architecture(config | {"num_hidden_layers": 1}, "here")
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        scenario = Scenario(architecture, WeightFormat(name, dtype), LoraConfig(), device="cuda")
        decoder, pack = meta_decoder(scenario), shape.pack(architecture.vocabulary)
        decoder.kernels = Kernels(*[True] * len(NAMES))
        for decoder.activation_checkpointing in ("none", "full"):
            loss_sum(decoder, pack).backward()
        with torch.no_grad():
            loss_sum(decoder.eval(), pack)

for dtype in KINDS:
    if dtype.is_floating_point:
        # A product of bf16 that gives fp32 needs CUDA; bitsandbytes quantizes no meta tensors.
        for case in cases(Sizes("tiny", 2)):
            if case.kernel in ("cross_entropy", "nf4"):
                case.ours(*case.make(torch.device("cpu"), dtype))
        linear = Nf4Linear(64, 64, bias=False, double_quantization=False)
        linear.load_weight(torch.randn(64, 64), dtype)
        linear.kernel = True
        linear.matrix()

found["not built"] = sorted(what for what in launched if what not in built)
found["not launched"] = sorted(what for what in built if what not in launched)
found["launched"] = len(launched)
"""


def test_all_launches_are_built_and_all_builds_are_launched():
    found = interpreted(PROGRAM)
    assert not found["not built"], "\n".join(found["not built"])
    assert not found["not launched"], "\n".join(found["not launched"])
    assert found["launched"] > 20
