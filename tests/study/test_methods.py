"""The whole study with other methods and weight formats than plain LoRA on fp32, and what is refused before it."""

import json
import os
import subprocess

import pytest
from command import ENTRY, cbtrain
from forked import run_ranks
from own_package import install_example
from places import BIN
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cbtrain.tokens.config import THERAPIST_SYSTEM

SMALL = ["base.token_budget=20000", "therapist.token_budget=8000", "patient.token_budget=6000"]
SMALL += ["evaluation.seeds=1", "evaluation.max_turns=4", "evaluation.max_failures=1"]


@pytest.mark.slow
def test_full_tuning_beside_dora_with_dropout_and_trained_embeddings(tmp_path):
    patient = ["patient.lora.dora=true", "patient.lora.dropout=0.1", "patient.lora.modules_to_save=[embed_tokens]"]
    few = [setting for setting in SMALL if not setting.startswith("therapist.")]
    therapist = ["therapist.method=full", "therapist.learning_rate=1e-3", *few, "therapist.token_budget=20000"]
    done = cbtrain("run", "--config", "quick", "--out", "run", *therapist, *patient, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["perplexity"]["mean_change_percent"] < 0
    # The tuned therapist is a model of its own; the patient, merged, too.
    tuned = tmp_path / "run" / "therapist"
    assert AutoModelForCausalLM.from_pretrained(tuned).num_parameters() > 100_000
    card = (tuned / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "PeftModel" not in card
    assert THERAPIST_SYSTEM in (tuned / "chat_template.jinja").read_text()
    merged = cbtrain("merge", "--model", "run/base", "--adapter", "run/patient", "--out", "merged", cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    training = {t["name"]: t for t in json.loads((tmp_path / "run" / "study.json").read_text())["training"]}
    assert training["therapist"]["trainable"] == training["therapist"]["parameters"] == training["base"]["parameters"]
    for stage in (training["therapist"], training["patient"]):
        assert [0 < text["kl"] < 5 for text in stage["forgetting"]] == [True, True]


@pytest.mark.slow
def test_the_determinism_switch_refuses_no_operation_and_repeats(tmp_path):
    settings = [
        "training.deterministic=true",
        "therapist.lora.dropout=0.1",
        "therapist.activation_checkpointing=selective",
        *SMALL,
    ]
    # Interpreters of their own: forked ones would share the seed of Python's hashes.
    command = [BIN / "cbtrain", "train", "--config", "quick", "training.speakers=[therapist]", *settings, "--out"]
    for name in ("one", "two"):
        done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    adapters = [(tmp_path / name / "therapist" / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert adapters[0] == adapters[1]


@pytest.mark.slow
def test_a_method_of_another_package_goes_through_the_whole_study(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(install_example(site))}
    settings = ["therapist.method=ia3", "therapist.options.mlp=false"]
    for arguments in (
        ["run", "--config", "quick", "--out", "run", *settings, *SMALL],
        ["merge", "--model", "run/base", "--adapter", "run/therapist", "--out", "merged"],
    ):
        command = [BIN / "cbtrain", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (therapist,) = (
        t for t in json.loads((tmp_path / "run" / "study.json").read_text())["training"] if t["name"] == "therapist"
    )
    assert therapist["method"] == "ia3"
    base = json.loads((tmp_path / "run" / "base" / "config.json").read_text())
    width = base["num_key_value_heads"] * base["hidden_size"] // base["num_attention_heads"]
    assert therapist["trainable"] == base["num_hidden_layers"] * 2 * width  # of keys and values
    assert "library_name: cbtrain" in (tmp_path / "run" / "therapist" / "README.md").read_text()
    without = subprocess.run(
        [BIN / "cbtrain", "merge", "--model", "run/base", "--adapter", "run/therapist", "--out", "again"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "unknown method 'ia3'" in without.stderr


OF_METHODS = {
    "lora": [],
    "rslora": [],
    "full": ["therapist.learning_rate=1e-3"],
    "half": ["therapist.options.round=1", "therapist.learning_rate=1e-3"],
    "hyplora": ["therapist.options.rank=8", "therapist.options.dropout=0.05"],
    "sparse": ["therapist.options.selection=accumulated-gradients"],
}
"""Settings of each method beside its name."""

WHOLE = ("full", "half")
"""What is saved is a whole model."""

UNMERGED = {
    "hyplora": "its update is not linear in the input, so no weight can hold it",
    **dict.fromkeys(WHOLE, "this is already a whole model. Use the folder as it is."),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model that every method fine-tunes."""
    folder = tmp_path_factory.mktemp("base")
    settings = ["base.token_budget=20000", "therapist.token_budget=1000", "training.speakers=[therapist]"]
    done = cbtrain("train", "--config", "quick", "--out", "run", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run" / "base"


def go_all_the_way(method, base, folder, *settings):
    """Train, evaluate, report and merge with ``method``; return its part of the study's summary."""
    settings = [f"model.path={base}", f"therapist.method={method}", *OF_METHODS[method], *settings]
    done = cbtrain("run", "--config", "quick", "--out", "run", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["perplexity"]["mean_change_percent"] < 1
    merged = cbtrain("merge", "--model", base, "--adapter", "run/therapist", "--out", "merged", cwd=folder)
    if reason := UNMERGED.get(method):
        assert (merged.returncode, merged.stderr.count("\n")) == (2, 1)
        assert reason in merged.stderr
    else:
        assert merged.returncode == 0, merged.stderr
    if method not in UNMERGED or method in WHOLE:
        AutoModelForCausalLM.from_pretrained(folder / ("run/therapist" if method in WHOLE else "merged"))
    summaries = json.loads((folder / "run" / "study.json").read_text())["training"]
    return next(summary for summary in summaries if summary["name"] == "therapist")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["half", "hyplora", "rslora"])  # the others go this way above and elsewhere
def test_a_method_goes_through_the_whole_study_in_small_steps(method, base, tmp_path):
    few = ["therapist.token_budget=3000", "patient.token_budget=1000", "therapist.validation_tokens=1000"]
    few += [
        "patient.validation_tokens=1000",
        "evaluation.max_patients=1",
        "evaluation.seeds=1",
        "evaluation.max_turns=2",
        "evaluation.max_failures=1",
    ]
    summary = go_all_the_way(method, base, tmp_path, *few)
    assert summary["method"] == ("lora" if method == "rslora" else method)


@pytest.mark.deep
@pytest.mark.parametrize("method", OF_METHODS)
def test_a_method_goes_through_the_whole_study(method, base, tmp_path):
    summary = go_all_the_way(method, base, tmp_path)
    assert summary["validation_best"] < summary["validation_before"]


@pytest.mark.slow
def test_sparse_deltas_go_through_the_whole_study_and_are_merged(tmp_path):
    settings = ["therapist.method=sparse", "therapist.options.selection=accumulated-gradients"]
    settings += ["therapist.options.every=6", "therapist.options.collect=2", "therapist.learning_rate=3e-3"]
    few = [setting for setting in SMALL if not setting.startswith("therapist.")]
    settings += [*few, "therapist.token_budget=20000", "patient.method=sparse"]
    done = cbtrain("run", "--config", "quick", "--out", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    training = {t["name"]: t for t in json.loads((tmp_path / "run" / "study.json").read_text())["training"]}
    assert training["therapist"]["method"] == training["patient"]["method"] == "sparse"
    assert training["therapist"]["validation_best"] < training["therapist"]["validation_before"]
    files = load_file(tmp_path / "run" / "therapist" / "adapter.safetensors")
    best = training["therapist"]["best_step"]
    checkpoint = tmp_path / "run" / "training" / "therapist" / "checkpoints" / f"step-{best}" / "adapter"
    kept = load_file(checkpoint / "adapter.safetensors")
    assert kept.keys() == files.keys()
    assert all((kept[name] == files[name]).all() for name in files)
    assert "chosen by their gradients (SpIEL-AG)" in (tmp_path / "run" / "therapist" / "README.md").read_text()
    merged = cbtrain("merge", "--model", "run/base", "--adapter", "run/therapist", "--out", "merged", cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("run/base", "merged"))
    changed = sum(int((after[name] != before[name]).sum()) for name in after)
    assert 0 < changed <= training["therapist"]["trainable"]


@pytest.mark.slow
def test_nf4(tmp_path):
    done = cbtrain("run", "--config", "quick", "--out", "run", "model.weights=nf4", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    training = {t["name"]: t for t in json.loads((tmp_path / "run" / "study.json").read_text())["training"]}
    assert training["therapist"]["base_weights"]["format"].startswith("nf4, double quantization")
    assert training["therapist"]["parameters"] == training["base"]["parameters"]
    assert training["therapist"]["validation_best"] < training["therapist"]["validation_before"]
    into = ("--adapter", "run/therapist", "--out", "merged", "--into", "dequantized")
    merged = cbtrain("merge", "--model", "run/base", *into, cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    assert load_file(tmp_path / "merged" / "model.safetensors")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            ["therapist.method=full", "model.weights=nf4"],
            "therapist.method: full cannot train weights in nf4: it needs fp32 or bf16 weights; set model.weights",
        ),
        (
            ["therapist.method=sparse", "therapist.options.parameters=99999999"],
            "therapist.options.parameters: 99,999,999 weights are to be trained, and the targets have",
        ),
        (
            ["therapist.method=sparse", "training.engine=deepspeed", "training.zero_stage=3"],
            "sparse cannot be sharded by ZeRO-3: it changes whole weights",
        ),
        (
            ["therapist.method=sparse", "therapist.options.selection=momentum", "training.engine=deepspeed"],
            "therapist.options.selection: places are exchanged by the torch engine only",
        ),
        (["model.attention=torch-varlen", "model.device=cpu"], "'torch-varlen' cannot be used"),
        (["patient.lora.targets=[layers.99.mlp.up_proj]"], "patient.lora.targets: target 'layers.99.mlp.up_proj'"),
        (["therapist.lora.layers=[0,77]"], "therapist.lora.layers: layer 77 is not in this model"),
        (["therapist.lora.rank_pattern={qproj: 3}"], "pattern 'qproj' matches no adapted linear"),
        (["therapist.lora.alpha=.inf"], "therapist.lora.alpha"),
        (["model.weights=bf16", "model.compute=fp32"], "bf16 weights compute in their own dtype"),
    ],
)
def test_what_cannot_be_trained_is_found_before_anything_is(settings, problem, tmp_path):
    done = cbtrain("train", "--config", "quick", "--out", "run", *settings, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert problem in done.stderr
    assert "validation loss" not in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("H9")
@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (
            (["tokens.cache=a", "threads=1"], ["tokens.cache=b", "threads=2", "therapist.learning_rate=1e-4"]),
            "therapist.learning_rate is 0.005 on rank 0, 0.0001 on rank 1.",
        ),
        ((["--out", "run"], ["--out", "other"]), "--out is run on rank 0, other on rank 1."),
    ],
)
def test_ranks_that_were_started_differently_do_not_train(own, problem, tmp_path):
    done = run_ranks(2, ENTRY, "train", "--config", "quick", *SMALL[:3], own=own, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    line = f"cbtrain: ranks that train together: {problem} Start every rank with the same.\n"
    assert (done.stdout, done.stderr) == ("", line)
    assert not list(tmp_path.iterdir())
