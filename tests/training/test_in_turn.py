"""Stages over one decoder that take turns: each as if it were alone."""

import io
import json
import re
import signal

import pytest
import torch
from rich.console import Console

from cbtrain.errors import Stopped
from cbtrain.model.adapters.in_turn import AdaptersInTurn
from cbtrain.model.adapters.methods import AdapterFiles, inject
from cbtrain.model.config import LoraConfig
from cbtrain.training import joint
from cbtrain.training.config import CheckpointConfig, RuntimeConfig, StageConfig
from cbtrain.training.in_turn import Outcomes, StagesInTurn
from cbtrain.training.loop import train
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.stage import Stage

BASIC = {"learning_rate": 1e-2, "pack_tokens": 64, "token_budget": 1500, "max_epochs": 99, "validate_every": 400}
STAGES = {
    "plain": (LoraConfig(rank=3), {"seed": 1}),
    "dropout": (LoraConfig(rank=2, dropout=0.2), {"seed": 1, "packs_per_step": 3}),
    "trained": (
        LoraConfig(rank=3, targets=["q_proj", "down_proj"], modules_to_save=["embed_tokens"], dora=True),
        {"seed": 2, "activation_checkpointing": "selective", "token_budget": 900},
    ),
    "early": (LoraConfig(rank=3, rslora=True), {"seed": 3, "learning_rate": 0.5, "patience": 1}),
}


def stage_of(decoder, documents, folder, changes, **runtime):
    every = CheckpointConfig(every_steps=3, every_minutes=None)
    return Stage(
        name="tiny",
        decoder=decoder,
        documents=documents[:9],
        validation=documents[9:],
        settings=StageConfig(**(BASIC | changes)),
        folder=folder,
        runtime=RuntimeConfig(checkpoints=every, peak_tflops=1.0, **runtime),
        files=AdapterFiles(decoder, base="tiny"),
    )


class Together:
    """What comes of stages that take turns; ``after`` is called with their tokens after each turn."""

    def __init__(self, decoder, documents, folder, stages=STAGES, after=lambda tokens: None, joint=False):
        self.done, self.failed, out = {}, {}, io.StringIO()
        console, adapters = Console(file=out, width=200), AdaptersInTurn(decoder)
        with MemoryMeter("cpu") as meter, StagesInTurn(adapters, console, meter, joint=joint) as turns:
            for name, (lora, changes) in stages.items():
                adapter = adapters.new(lora, seed=changes["seed"])
                turns.add(name, stage_of(decoder, documents, folder / name, changes), adapter)
            self.turns = turns
            turns.train(
                Outcomes(lambda name, *result: self.done.update({name: result}), self._fail),
                lambda: after({seat.name: seat.run.progress.tokens for seat in turns.seats}),
            )
        adapters.clear()
        self.out = out.getvalue()

    def _fail(self, name, error):
        self.failed[name] = error


def alone(tiny, documents, folder, lora, changes):
    decoder = tiny()
    inject(decoder, lora, seed=changes["seed"])
    return train(stage_of(decoder, documents, folder, changes), Console(file=io.StringIO()))


def numbers(folder):
    names = ("kind", "step", "tokens", "loss", "grad_norm", "batch", "best")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[line.get(name) for name in names] for line in lines if line["kind"] in ("step", "validation")]


def assert_same(folder, whole, values, expected):
    assert numbers(folder) == numbers(whole)
    assert values.keys() == expected.keys()
    assert all(torch.equal(values[name], tensor) for name, tensor in expected.items())
    ours, theirs = ({path.name for path in (at / "checkpoints").iterdir()} for at in (folder, whole))
    assert ours == theirs
    for name in theirs:
        for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "optimizer.safetensors"):
            assert (folder / "checkpoints" / name / file).read_bytes() == (
                whole / "checkpoints" / name / file
            ).read_bytes()


def test_each_stage_computes_the_bits_that_it_computes_alone(tiny, documents, tmp_path):
    decoder, tokens = tiny(), []
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    together = Together(decoder, documents, tmp_path, after=tokens.append)
    assert not together.failed
    for name, (lora, changes) in STAGES.items():
        result, expected = alone(tiny, documents, tmp_path / f"{name}-alone", lora, changes)
        ours, values = together.done[name]
        assert_same(tmp_path / name, tmp_path / f"{name}-alone", values, expected)
        kept = ("steps", "tokens", "stopped", "validation_best", "best_step", "trainable", "curve", "data")
        assert {key: getattr(ours, key) for key in kept} == {key: getattr(result, key) for key in kept}
    assert together.done["early"][0].stopped == "validation"
    assert "early: step " in together.out  # lines bear the name of their stage
    # The decoder is the base again, and nothing of it has changed.
    assert decoder.adapter is None
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    # None was ahead of another one by more than two steps of its own, of which the largest has some 190 tokens.
    assert max(max(now.values()) - min(now.values()) for now in tokens if now) <= 2 * 3 * 64
    assert max(len(now) for now in tokens) == len(STAGES)


def test_a_signal_in_the_middle_loses_nothing(tiny, documents, tmp_path):
    turns = [0]

    def stop_at_five(tokens):
        turns[0] += 1
        if turns[0] == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        Together(tiny(), documents, tmp_path, after=stop_at_five)
    together = Together(tiny(), documents, tmp_path)
    assert "plain: continuing after step 6" in together.out
    for name, (lora, changes) in STAGES.items():
        _, expected = alone(tiny, documents, tmp_path / f"{name}-alone", lora, changes)
        values = together.done[name][1]
        assert numbers(tmp_path / name) == numbers(tmp_path / f"{name}-alone")
        assert all(torch.equal(values[key], tensor) for key, tensor in expected.items())


def test_a_stage_that_fails_leaves_the_others_alone(tiny, documents, tmp_path):
    wild = (
        LoraConfig(rank=3),
        {"seed": 1, "learning_rate": 1e30, "warmup": 0.0, "optimizer": "sgd", "clip_norm": 1e30},
    )
    together = Together(tiny(), documents, tmp_path, {"wild": wild, "plain": STAGES["plain"]})
    assert "not finite 5 steps in a row" in str(together.failed["wild"])
    _, expected = alone(tiny, documents, tmp_path / "alone", *STAGES["plain"])
    assert all(torch.equal(together.done["plain"][1][name], tensor) for name, tensor in expected.items())


JOINT = {
    "plain": (LoraConfig(rank=3), {"seed": 1}),
    "few linears": (LoraConfig(rank=5, targets=["k_proj", "o_proj", "up_proj"]), {"seed": 2, "packs_per_step": 3}),
    "one layer": (LoraConfig(rank=2, layers=[1], rslora=True), {"seed": 3, "learning_rate": 3e-3}),
    "dropout": (LoraConfig(rank=2, dropout=0.2), {"seed": 1}),
}


def test_in_one_pass_they_come_to_the_same_up_to_rounding(tiny, documents, tmp_path, monkeypatch):
    passes = []
    terms = joint._terms
    monkeypatch.setattr(joint, "_terms", lambda d, tasks, n: passes.append(len(tasks)) or terms(d, tasks, n))
    monkeypatch.setattr(joint, "MOST_TOKENS", 130)
    together = Together(tiny(), documents, tmp_path / "joint", JOINT, joint=True)
    assert not together.failed
    assert {1, 2} <= set(passes)  # packs of 64 tokens, two at a time
    for name, (lora, changes) in JOINT.items():
        _, expected = alone(tiny, documents, tmp_path / "alone" / name, lora, changes)
        result, values = together.done[name]
        assert (result.joint_steps == 0) == (name == "dropout")
        assert result.joint_steps <= result.steps
        found, wanted = (numbers(tmp_path / way / name) for way in ("joint", "alone"))
        assert [line[:3] + line[5:] for line in found] == [line[:3] + line[5:] for line in wanted]  # the same packs
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours[3] == pytest.approx(theirs[3], rel=1e-5)
        if name == "dropout":  # it cannot be joined, and is exact
            assert all(torch.equal(values[key], tensor) for key, tensor in expected.items())
        assert max(float((values[key] - tensor).abs().max()) for key, tensor in expected.items()) < 1e-4


@pytest.mark.parametrize("joint", [True, False])
def test_what_began_jointly_may_continue_alone_and_the_reverse(tiny, documents, tmp_path, joint):
    ten = {"token_budget": 600, "validate_every": 10_000}
    stages = {name: (JOINT[name][0], JOINT[name][1] | ten) for name in ("plain", "one layer")}
    turns = []

    def stop_at_five(tokens):
        turns.append(tokens)
        if len(turns) == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        Together(tiny(), documents, tmp_path, stages, after=stop_at_five, joint=joint)
    together = Together(tiny(), documents, tmp_path, stages, joint=not joint)
    for name in stages:
        result, _ = together.done[name]
        assert 0 < result.joint_steps < result.steps
        told = "were joint (equal up to rounding), the next are" if joint else "were computed alone, the next are joint"
        assert re.search(rf"{name}: (\d) of \1 steps {re.escape(told)}", together.out)


def test_ten_joint_steps_are_within_a_millionth(tiny, documents, tmp_path):
    """At a usual learning rate."""
    ten = {"token_budget": 600, "learning_rate": 1e-4, "validate_every": 10_000}
    stages = {name: (lora, changes | ten) for name, (lora, changes) in JOINT.items() if name != "dropout"}
    together = Together(tiny(), documents, tmp_path / "joint", stages, joint=True)
    for name, (lora, changes) in stages.items():
        expected = alone(tiny, documents, tmp_path / "alone" / name, lora, changes)[1]
        values = together.done[name][1]
        assert max(float((values[key] - tensor).abs().max()) for key, tensor in expected.items()) < 1e-6
