"""Methods of fine-tuning compared on one task: equal budgets, the rate searched, what is measured, what continues."""

import csv
import json
import signal
import time

import pytest
import torch
from command import cbtrain, start_cbtrain
from rich.console import Console
from safetensors.torch import load_file, save_file
from tiny_architecture import TINY

from cbtrain.errors import UserError
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.study.entity_matching.small_base import make_small_base
from cbtrain.study.method_comparison.budget import lora_size, matched_size
from cbtrain.study.method_comparison.comparison_file import find_comparison, read_comparison, shipped_comparisons

FP32 = WeightFormat("fp32", torch.float32)


@pytest.mark.parametrize("name", shipped_comparisons())
def test_methods_train_as_many_numbers_as_lora_where_they_can(name):
    file = read_comparison(find_comparison(name))
    wanted = lora_size(TINY, FP32, 3)
    for method in file.methods:
        size = matched_size(file.config(method, "base"), TINY, FP32, wanted)
        if method in ("full", "half"):
            assert size.set_by is None
            assert size.trained > wanted
            continue
        assert wanted / 2 < size.trained <= wanted, method
        assert size.set_by
        if method in ("lora", "rslora"):
            assert (size.trained, size.set_by) == (wanted, "lora.rank=3")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("methods: {hyplora: {options: {ranks: 3}}}", "methods.hyplora: therapist.options.ranks: unknown key. Did you"),
        ("methods: [lora, loro]", "methods.loro: therapist.method: unknown method 'loro'. Did you mean 'lora'?"),
        ("methods: {lora: {learning_rates: fast}}", "methods.lora.learning_rates: must be numbers above 0"),
        (
            "methods: {lora: {packs_per_step: 8}}",
            "methods.lora.packs_per_step: is the same for all methods, or searched",
        ),
        ("methods: {lora: {lora: {rank: 32}}}", "methods.lora.lora.rank: sizes are made equal to LoRA's of rank 8"),
        ("methods: [lora]\nsettings: {therapist: {seed: 3}}", "settings.therapist.seed: is decided by the comparison"),
        ("methods: {lora: {token_budget: 3}}", "methods.lora.token_budget: is the same for all methods, or searched"),
        ("methods: [lora]\nseeds: []", "seeds: must have a length of at least 1"),
        ("methods: [lora]\nseeds: [1, 1]", "seeds: one comes twice"),
        ("methods: [full]\nsettings: {model.weights: nf4}", "therapist.method: full cannot train weights in nf4"),
        ("methods: [lora]\nprompt: foo", "prompt: unknown prompt 'foo'"),
        ("methods: [lora]\npairs: 10", "pairs: must be at least 60"),
        ("methods: {../lora: {}}", "cannot name a folder"),
        ("[lora]", "not a comparison"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(text, problem, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_comparison(file)
    assert str(error.value).startswith(f"{file}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_comparison_is_stopped_continued_and_extended(tmp_path):
    base = tmp_path / "base"
    make_small_base(base, 0, Console(quiet=True), ["base.token_budget=4000", "base.validate_every=4000"])
    common = (
        "base: base\npairs: 100\ntest_pairs: 10\nrank: 4\ntokens: 3000\nseeds: [0]\nlearning_rates: [0.001, 0.01]\n"
    )
    file = tmp_path / "c.yaml"
    file.write_text(f"{common}methods: [lora]\n")
    command = ("compare-methods", "c.yaml", "--out", "out")
    child = start_cbtrain(*command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("runs/*/training/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 75, err
    assert "Continue with: cbtrain compare-methods c.yaml --out out" in err

    # It continues, with a method more, in a folder that was moved.
    (tmp_path / "out").rename(tmp_path / "moved")
    command = ("compare-methods", "c.yaml", "--out", "moved")
    file.write_text(f"{common}methods: {{lora: {{}}, half: {{learning_rates: [1.0e-4]}}}}\n")
    done = cbtrain(*command, "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "moved"
    rows = {row["method"]: row for row in csv.DictReader((out / "comparison.csv").open())}
    assert rows.keys() == {"lora", "half"}
    losses = {
        rate: json.loads((out / "runs" / f"lora_rate-{rate}_seed-0" / "summary.json").read_text())["validation_best"]
        for rate in ("0.001", "0.01")
    }
    assert float(rows["lora"]["learning_rate"]) == float(min(losses, key=losses.get))
    for row in rows.values():
        assert int(row["tokens"]) >= 3000
        assert 0 <= float(row["f1"]) <= 1
        assert float(row["KL, questions"]) > 0
        assert int(row["memory"]) > 0
        assert int(row["disk"]) > 0
    assert "one seed: how far another one would be is not known" in done.stdout
    assert "up to 2 runs at a time: seconds are those of a machine that was shared" in done.stdout
    page = (out / "comparison.md").read_text()
    assert "| (base) | 0 | – | " in page
    assert "size of LoRA of rank 4, seeds 0" in page
    assert all(f"{float(rate):g}: " in page for rate in losses)
    assert not list(out.glob("runs/*/adapter"))  # removed once it was measured
    assert (out / "comparison.png").stat().st_size > 5000
    assert "| lora | " in (out / "comparison.md").read_text()

    file.write_text(f"{common.replace('3000', '4000')}methods: [lora]\n")
    other = cbtrain(*command, cwd=tmp_path)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "the comparison here has another tokens. Choose another --out." in other.stderr

    # Another base in the same folder is refused before anything is trained, and so is one file of pairs for all parts.
    weights = base / "model.safetensors"
    save_file({name: 1.3 * tensor for name, tensor in load_file(weights).items()}, weights)
    for text, problem in (
        (f"{common}methods: [lora]\n", "this run has begun with another base ("),
        (f"{common.replace('pairs: 100', 'pairs: moved/pairs/test.jsonl')}methods: [lora]\n", "has another pairs"),
    ):
        file.write_text(text)
        other = cbtrain(*command, cwd=tmp_path)
        assert (other.returncode, other.stderr.count("\n")) == (2, 1)
        assert problem in other.stderr
    other = cbtrain(*command[:-1], "new", cwd=tmp_path)
    assert (
        "moved/pairs/test.jsonl: no such folder of pairs. Name a folder with train, validation and test" in other.stderr
    )
