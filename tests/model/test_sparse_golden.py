"""Sparse deltas against numbers that the program of SpIEL's authors gave: a layer, and six trainings with every choice."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cbtrain.model.adapters.sparse_gradients import CANDIDATES, SQUARES, SUMS, GradientTraining
from cbtrain.model.adapters.sparse_linear import SparseLinear
from cbtrain.model.adapters.sparse_momentum import MomentumTraining
from cbtrain.model.adapters.sparse_optimizers import AGE, COLUMNS, MEAN, ROWS, SQUARE
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.method_settings import SparseConfig

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = np.load(GOLDEN / "spiel.npz")
RUNS = json.loads((GOLDEN / "spiel_runs.json").read_text())["runs"]
SELECTIONS = {"AG": "accumulated-gradients", "MA": "momentum"}
CPU = torch.device("cpu")


def number(name):
    return torch.from_numpy(NUMBERS[name])


def linear(weight, indices, values=None, *, bias=None, rounds=False):
    height, width = weight.shape
    base = DenseLinear(width, height, bias=bias is not None)
    base.load_weight(weight, weight.dtype)
    if bias is not None:
        base.bias = torch.nn.Parameter(bias, requires_grad=False)
    made = SparseLinear(base, "path", len(indices), CPU, rounds=rounds).train()
    with torch.no_grad():
        made.indices.copy_(torch.as_tensor(indices))
        if values is not None:
            made.values.copy_(values)
    return made


def test_the_layer_and_its_gradients():
    made = linear(number("W1"), number("layer.indices"), number("layer.values"), bias=number("layer.bias"))
    whole = []
    made.watch = whole.append
    for way in (made, lambda x: made.adapt(x, made.base(x))):  # one product, and one beside the base's
        x = number("layer.x").requires_grad_()
        y = way(x)
        made.values.grad = None
        (y * number("layer.G")).sum().backward()
        found = {"y": y, "dx": x.grad, "dvalues": made.values.grad, "dW_dense": whole.pop()}
        for name, value in found.items():
            torch.testing.assert_close(value.detach(), number(f"layer.{name}"), atol=2e-6, rtol=1e-6)


def test_beside_bf16_small_changes_stay_unless_the_reference_s_rounding_is_wanted():
    weight, x, values = number("bf16.W").bfloat16(), number("bf16.x"), number("bf16.values")
    reference = linear(weight, number("bf16.indices"), values, rounds=True)
    assert torch.equal(reference.matrix().float(), number("bf16.merged"))
    assert torch.equal(reference(x.bfloat16()).float(), number("bf16.y"))
    lost = (reference.matrix() == weight).flatten()[number("bf16.indices").long()]
    assert int(lost.sum()) == 15
    made = linear(weight, number("bf16.indices"), values)
    exact = torch.zeros(8, 16).flatten().index_add(0, number("bf16.indices").long(), values).view(8, 16)
    for training in (True, False):
        made.train(training)
        torch.testing.assert_close(
            made.update(x.bfloat16()).float(), x.bfloat16().float() @ exact.T, rtol=2e-2, atol=1e-5
        )
        assert made(x.bfloat16()).dtype == torch.bfloat16
    small = values.abs() < 1e-4  # of these alone nothing would be left
    with torch.no_grad():
        made.values.mul_(small)
    assert made.dense(torch.bfloat16).count_nonzero() == int(small.sum()) > 5
    assert torch.equal(made.effective_weight(weight) - weight.float() != 0, made.dense(torch.float32) != 0)


class Driven:
    """The reference's small model and loop, around the linears, optimizers and choices that cbtrain trains with."""

    def __init__(self, run, faults=("seeding", "age", "frozen-age", "ranks", "resume")):
        self.run = run
        self.linears = {
            name: linear(number(weight), run["initial_indices"][name]) for name, weight in (("l1", "W1"), ("l2", "W2"))
        }
        settings = {"every": run["S"], "collect": run["gamma"], "share": run["initial_rate"], "policy": run["policy"]}
        config = SparseConfig(selection=SELECTIONS[run["variant"]], faults=list(faults), **settings)
        if run["variant"] == "MA":
            self.own = MomentumTraining(self.linears, config, run["lr"], run["weight_decay"])
        else:
            betas = tuple(run["betas"])
            self.own = GradientTraining(self.linears, config, run["lr"], betas, run["weight_decay"])
            self.own.optimizer.param_groups[0]["eps"] = run["eps"]
        self.micro_batch = self.update = 0

    def state(self, name):
        return self.own.optimizer.state[self.linears[name].values]

    def __call__(self, x):
        return self.linears["l2"](torch.tanh(self.linears["l1"](x)))

    def losses(self, rows):
        return (number("Y")[rows] - self(number("X")[rows])).square().mean()

    def step(self):
        """Make an update, without the choice after it; return the loss."""
        total, several = 0.0, self.run["accumulation"]
        for _ in range(several):
            rows = (torch.arange(4) + 4 * self.micro_batch) % 48
            loss = self.losses(rows) / several
            loss.backward()
            total, self.micro_batch = total + loss.item(), self.micro_batch + 1
        self.own.optimizer.step()
        self.own.end_step(1.0)
        self.own.optimizer.zero_grad()
        self.update += 1
        return total

    def advance(self):
        self.own.advance(self.update / self.run["T"])


@pytest.mark.parametrize("name", RUNS)
def test_every_choice_of_the_golden_runs(name):
    run = RUNS[name]
    made, phases, losses = Driven(run), {phase["after_update"]: phase for phase in run["phases"]}, []
    for update in range(1, 31):
        losses.append(made.step())
        phase = phases.get(update)
        if phase is None:
            made.advance()
            continue
        before = {name: set(one.indices.tolist()) for name, one in made.linears.items()}
        known = {name: dict(made.state(name)) for name in made.linears}
        made.advance()
        for layer, wanted in phase["layers"].items():
            after = set(made.linears[layer].indices.tolist())
            assert wanted["num_to_reallocate"] == math.floor(phase["p"] * len(after))
            assert sorted(before[layer] - after) == wanted["dropped"], (update, layer)
            assert sorted(after - before[layer]) == wanted["grown"], (update, layer)
            check_state(made, layer, wanted, known[layer])
    assert losses == pytest.approx(run["loss_per_update"], abs=1e-5)
    with torch.no_grad():
        assert made.losses(slice(None)).item() == pytest.approx(run["final_full_data_loss"], abs=1e-5)
    check_end(made, name)


def check_state(made, layer, wanted, known):
    """What a choice knew, and what it left."""
    one, state, gradients = made.linears[layer], made.state(layer), made.run["variant"] == "AG"
    for place, index in enumerate(one.indices.tolist()):
        found = [one.values[place].item()]
        found += [state[key][place].item() for key in (MEAN, SQUARE, AGE)] if gradients else []
        assert found == pytest.approx(wanted["after"][str(index)], abs=1e-5)
    if gradients:
        places, sums, squares = (known[key].tolist() for key in (CANDIDATES, SUMS, SQUARES))
        assert set(map(str, places)) == wanted["candidates"].keys()
        for place, one_sum, square in zip(places, sums, squares, strict=True):
            assert [one_sum, square] == pytest.approx(wanted["candidates"][str(place)][:2], abs=1e-5)
    else:
        assert state[ROWS].tolist() == pytest.approx(wanted["row_accumulator"], abs=1e-5)
        assert state[COLUMNS].tolist() == pytest.approx(wanted["col_accumulator"], abs=1e-5)


def check_end(made, name):
    for layer, one in made.linears.items():
        state, order = made.state(layer), one.indices.argsort()
        assert torch.equal(one.indices[order], number(f"{name}.{layer}.final_indices"))
        found = {"final_values": one.values[order]}
        if made.run["variant"] == "AG":
            arrays = {"final_exp_avg": MEAN, "final_exp_avg_sq": SQUARE, "final_age": AGE}
            found |= {array: state[key][order] for array, key in arrays.items()}
        else:
            found |= {"final_accumulator_0": state[ROWS], "final_accumulator_1": state[COLUMNS]}
        found["merged_weight"] = one.effective_weight(one.base.weight)
        for array, value in found.items():
            torch.testing.assert_close(value.detach(), number(f"{name}.{layer}.{array}"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fault", [None, "seeding", "age"])
def test_what_a_grown_weight_begins_with(fault):
    """Three updates of two packs each, one update clipped to a half."""
    made = linear(number("W1"), range(96))
    config = SparseConfig(selection="accumulated-gradients", every=8, collect=3, faults=[fault] if fault else [])
    own = GradientTraining({"l1": made}, config, 0.01, (0.9, 0.999), 0.0)
    random, packs, factors = torch.Generator().manual_seed(0), [], (1.0, 0.5, 1.0)
    for factor in factors:
        packs.append([0.1 * torch.randn(24, 16, generator=random) for _ in range(2)])
        for gradient in packs[-1]:
            made.watch(gradient)
        made.values.grad = torch.randn(96, generator=random)
        own.optimizer.step()
        own.end_step(factor)
    first = packs[0][0].abs().flatten()
    candidates = set(first.argsort(descending=True)[:96].tolist())
    own.advance(0.1)
    grown, updates, state = made.indices >= 96, 3, own.optimizer.state[made.values]
    assert set(made.indices.tolist()) == candidates  # the first selection exchanges all
    pairs = [(factor * one, factor * two) for factor, (one, two) in zip(factors, packs, strict=True)]
    steps = torch.stack([one + two for one, two in pairs]).flatten(1)
    mean, square, age = steps.mean(0), steps.square().mean(0), updates + 1
    if fault == "seeding":  # as the reference adds up what it has divided
        each = torch.stack([pack for pair in pairs for pack in pair]).flatten(1)
        mean, square = each.mean(0), each.square().mean(0)
    if fault == "age":
        age = updates
    places = made.indices[grown].long()
    torch.testing.assert_close(state[MEAN][grown], mean[places] * (1 - 0.9**updates), atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(state[SQUARE][grown], square[places] * (1 - 0.999**updates), atol=1e-9, rtol=1e-3)
    assert set(state[AGE][grown].tolist()) == {age}
    assert not made.values[grown].any()
    assert set(state[AGE][~grown].tolist()) == {4}
