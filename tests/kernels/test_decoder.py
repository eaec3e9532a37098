"""A tiny decoder with every kernel, in Triton's interpreter: training, evaluation and answers as the plain path's."""

import pytest
from interpreted import interpreted
from places import SHARED

from cbtrain.kernels.runtime import NAMES

pytest.importorskip("triton")

PROGRAM = f"""
import sys
sys.path.insert(0, {str(SHARED)!r})
"""
PROGRAM += """
import copy, importlib
from collections import Counter
from dataclasses import replace
import triton
from adapted_decoder import EVERYTHING, adapted, errors, gradients, pack_of
from batches import micro_batches
from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import Request
from cbtrain.kernels.runtime import NAMES
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.kernel_choice import choose_kernels, why_not
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.step import train_step
from tiny_architecture import TINY

launched = Counter()

class Counted:
    def __init__(self, name, function):
        self.name, self.function = name, function
    def __getitem__(self, grid):
        launched[self.name] += 1
        return self.function[grid]
    def __call__(self, *arguments):
        return self.function(*arguments)

for kernel in NAMES:
    module = importlib.import_module(f"cbtrain.kernels.{kernel}")
    for name, function in list(vars(module).items()):
        if type(function).__name__ == "InterpretedFunction" and function.fn.__module__ == module.__name__:
            setattr(module, name, Counted(kernel, function))

def launches():
    counted = dict(launched)
    launched.clear()
    return counted

cpu = torch.device("cpu")
ON = choose_kernels("on", cpu)

def relative(found, wanted):
    return abs(found - wanted) / abs(wanted)

def compared(decoder, pack, levels):
    # Losses with and without gradients, gradients at every level, a step, and the parameters after it.
    plain, tuned = copy.deepcopy(decoder), copy.deepcopy(decoder)
    tuned.kernels = ON
    loss, wanted = gradients(plain, pack)
    with torch.no_grad():
        evaluated = float(loss_sum(plain.eval(), pack))
    assert not launches()
    plain.train()
    first, result = None, {"loss": 0.0, "gradients": 0.0, "levels agree": True}
    for tuned.activation_checkpointing in levels:
        found_loss, got = gradients(tuned, pack)
        first = first or got
        result["levels agree"] &= all(torch.equal(got[name], first[name]) for name in got)
        result["loss"] = max(result["loss"], relative(found_loss, loss))
        result["gradients"] = max(result["gradients"], *errors(got, wanted).values())
    result["launched in training"], result["said"] = launches(), tuned.kernels_in_training
    with torch.no_grad():
        result["loss evaluated"] = relative(float(loss_sum(tuned.eval(), pack)), evaluated)
    result["launched in evaluation"] = launches()
    steps = []
    for made in (plain, tuned):
        made.train().activation_checkpointing = "none"
        steps.append(train_step(made, TorchEngine(made, StageConfig()), micro_batches([pack]), 1e-2))
    result["loss of the step"] = relative(steps[1].loss, steps[0].loss)
    result["gradient's norm"] = relative(steps[1].grad_norm, steps[0].grad_norm)
    launches()
    # Adam's first step goes by the signs of gradients, some of which are all but zero: so by what is learnt.
    result["loss after the step"] = relative(float(loss_sum(tuned, pack).detach()), float(loss_sum(plain, pack).detach()))
    launches()
    return result

def answers(decoder, adapters):
    config = EngineConfig(slots=3, context_tokens=64, prefill_tokens=16)
    engine = GenerationEngine(decoder.eval(), config, stop_ids=frozenset(), adapters=adapters)
    asked = {"tuned": [5, 9, 33, 2, 17, 4, 21, 8, 50, 11], None: [7, 7, 40]}
    greedy = SamplingConfig(temperature=0, max_tokens=5)
    done = engine.generate([Request(prompt, greedy, 0, adapter) for adapter, prompt in asked.items()])
    return [answer.ids for answer in done]

pack = pack_of(9, 6)
everything = replace(EVERYTHING, layers=2, sliding_window=4)
found["everything"] = compared(adapted(everything, LoraConfig(rank=4)), pack, [("none", "mlp"), ("selective", "full")])

wider = replace(TINY, hidden=64, head_dim=16, intermediate=128)
nf4 = random_decoder(Scenario(wider, WeightFormat("nf4", torch.float32), LoraConfig(rank=4)), cpu)
for parameter in nf4.trainable_parameters().values():
    parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
found["nf4"] = compared(nf4, pack, ["none"])

adapters = MountedAdapters(nf4)
adapters.add("tuned", nf4.adapter)
plain = answers(nf4, adapters)
assert not launches()
nf4.kernels = ON
found["answers"] = {"plain": plain, "ours": answers(nf4, adapters), "launched": launches()}

full = adapted(everything, FullConfig())
loss, wanted = gradients(full, pack)
full.kernels = ON
again, got = gradients(full, pack)
found["full"] = {"same": loss == again and all(torch.equal(got[n], wanted[n]) for n in got), "launched": launches()}
assert full.kernels_in_training == []

exact = adapted(everything, LoraConfig(rank=4), torch.float64)
loss, _ = gradients(exact, pack)
exact.kernels = ON
found["fp64"] = {"same": gradients(exact, pack)[0] == loss, "launched": launches()}

sharded = adapted(everything, LoraConfig(rank=4))
sharded.kernels = ON
sharded.norm.weight.ds_id = 0  # as ZeRO-3 marks what it has partitioned
with torch.no_grad():
    loss_sum(sharded.eval(), pack)
found["sharded"] = launches()

found["auto"] = why_not("auto", cpu)
found["some"] = choose_kernels({"rope": "on", "nf4": "off"}, cpu).names
"""


@pytest.fixture(scope="module")
def found():
    return interpreted(PROGRAM)


@pytest.mark.parametrize("name", ["everything", "nf4"])
def test_training_and_evaluation_are_those_of_the_plain_path(found, name):
    result = found[name]
    losses = {key: error for key, error in result.items() if key.startswith("loss")}
    assert len(losses) == 4
    assert max(losses.values()) < 1e-6, losses
    assert result["gradients"] < 1e-5
    assert result["gradient's norm"] < 1e-5
    assert result["levels agree"]
    assert set(result["said"]) == set(result["launched in training"])
    for phase in ("training", "evaluation"):
        assert set(result[f"launched in {phase}"]) == set(NAMES) - ({"nf4"} if name != "nf4" else set())


def test_answers_are_those_of_the_plain_path(found):
    result = found["answers"]
    assert result["ours"] == result["plain"]
    assert len({token for ids in result["plain"] for token in ids}) > 4
    assert set(result["launched"]) == set(NAMES) - {"cross_entropy"}


def test_full_tuning_and_fp64_stay_plain(found):
    assert found["full"] == found["fp64"] == {"same": True, "launched": {}}


def test_norms_that_zero_3_has_partitioned_are_not_read(found):
    assert found["sharded"] == {"cross_entropy": 1}  # ZeRO-3 fetches the head's weight around its call


def test_the_interpreter_serves_where_kernels_are_on(found):
    assert found["some"] == ["rope"]
    assert set(found["auto"].values()) == {"the interpreter is for tests"}
