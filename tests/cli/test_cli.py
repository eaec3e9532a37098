"""The command as people use it: its exit status, its one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command import cbtrain
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from cbtrain.cli import doctor
from cbtrain.cli.complaint import complain
from cbtrain.cli.main import main

CBTRAIN = Path(sys.executable).with_name("cbtrain")
SESSION = (
    '{"schema":"cbtrain.session/1","course":"%s","session":1,"turns":'
    '[{"role":"patient","text":"I feel low."},{"role":"therapist","text":"What happened?"}]}\n'
)


def run(*arguments, cwd):
    done = cbtrain(*arguments, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def process(*arguments, cwd):
    done = subprocess.run([CBTRAIN, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120)
    return done.returncode, done.stdout, done.stderr


def corpus(folder, *courses):
    folder.mkdir()
    (folder / "sessions.jsonl").write_text("".join(SESSION % course for course in courses))
    return folder


def no_permission(tmp_path):
    path = corpus(tmp_path / "c", "a", "b", "c") / "sessions.jsonl"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    return path


CASES = {
    "missing path": (lambda t: ["corpus.path=" + str(t / "nothing")], "nothing"),
    "malformed JSON": (
        lambda t: [f"corpus.path={_append(corpus(t / 'c', 'a', 'b', 'c'), '{oops')}"],
        "sessions.jsonl:4: ",
    ),
    "unknown format": (lambda t: ["corpus.format=cvs"], "'cvs'"),
    "empty corpus": (lambda t: [f"corpus.path={corpus(t / 'c')}"], "no sessions"),
    "one patient": (lambda t: [f"corpus.path={corpus(t / 'c', 'only')}"], "1 patient"),
    "unreadable": (lambda t: [f"corpus.path={no_permission(t)}"], "permission"),
    "unknown key": (lambda t: ["therapist.lerning_rate=1"], "Did you mean 'therapist.learning_rate'?"),
    "missing model": (lambda t: ["model.path=./nothing"], "no such model folder"),
    "unknown architecture": (lambda t: [f"model.path={_gpt2(t)}"], "'GPT2LMHeadModel' is not supported"),
    "missing config": (lambda t: ["--config", "nowhere.yaml"], "no such config file"),
}


def _append(folder, line):
    with (folder / "sessions.jsonl").open("a") as file:
        file.write(line)
    return folder


def _gpt2(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    from cbtrain.tokens.tokenizer import train_tokenizer

    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=300, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    train_tokenizer(["some text"], 300, 64).save_pretrained(folder / "gpt2")
    return folder / "gpt2"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["run", "train"])
def test_bad_input_is_one_line_with_status_2_and_leaves_nothing(case, command, tmp_path):
    make, message = CASES[case]
    (tmp_path / "material").mkdir()
    arguments = make(tmp_path / "material")
    (tmp_path / "cwd").mkdir()
    status, _, err = run(command, *arguments, cwd=tmp_path / "cwd")
    assert status == 2, err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("cbtrain: ")
    assert not list((tmp_path / "cwd").iterdir())


def test_a_process_ends_with_that_status_and_line(tmp_path):
    status, _, err = process("train", "corpus.path=nothing", cwd=tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("cbtrain: nothing: ")


def test_evaluate_names_what_is_not_a_run(tmp_path):
    status, _, err = run("evaluate", "--run", tmp_path / "nothing", cwd=tmp_path)
    assert status == 2
    assert "nothing" in err
    assert len(err.strip().splitlines()) == 1


def test_a_port_in_use_is_named(tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from cbtrain.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["some text"], 300, 64)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = run("serve", "--model", tmp_path / "m", "--port", port, cwd=tmp_path)
    assert status == 2
    assert f"127.0.0.1:{port}: cannot listen there" in err
    assert "--port" in err
    assert "Traceback" not in err


@pytest.fixture
def small_disk(tmp_path):
    """A file system that can be made larger."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", small], check=True)

    yield small, resize
    subprocess.run(["umount", small], check=True)


def test_a_full_disk_before_the_first_checkpoint_leaves_nothing(tmp_path, small_disk):
    small, _ = small_disk
    status, _, err = run("train", "--config", "quick", "--out", small / "run", cwd=tmp_path)
    assert status == 2
    assert "disk is full" in err
    assert "Traceback" not in err
    assert not list(small.rglob("*"))


def test_a_full_disk_after_a_checkpoint_loses_nothing(tmp_path, small_disk):
    small, resize = small_disk
    resize("3m")  # room for a checkpoint of the base, not for a second one beside it and all else
    few = ("base.token_budget=45000", "therapist.token_budget=6000", "patient.token_budget=4000")
    status, out, err = run("train", "--config", "quick", "--out", small / "run", *few, cwd=tmp_path)
    assert status == 2
    assert "disk is full" in err
    assert "Traceback" not in err
    assert "could not be written" in out
    assert list(small.rglob("checkpoints/step-*/state.json"))
    assert not list(small.rglob("*.tmp"))
    resize("60m")
    status, out, err = run("train", "--out", small / "run", cwd=tmp_path)
    assert status == 0, err
    assert "finished before, kept" in out or "continuing after step" in out


HELD_OUT = {
    "a special token in a session": ("sessions.jsonl", "turn 1 of sam/19 contains the special token '<|end|>'"),
    "a special token in a profile": ("profiles.jsonl", "profile of sam: the system prompt contains the special token"),
    "a session that is too long": (None, "tokens, but the model has"),
}


@pytest.mark.parametrize("case", HELD_OUT)
def test_what_is_wrong_with_held_out_patients_is_found_before_training(tmp_path, case):
    from cbtrain.transcripts.reading import read
    from cbtrain.transcripts.writing import write_canonical

    file, message = HELD_OUT[case]
    write_canonical(read("sample"), tmp_path / "c")
    if file:
        lines = (tmp_path / "c" / file).read_text().splitlines()
        key = '"text": "' if file == "sessions.jsonl" else '"brief": "'
        changed = [line.replace(key, key + "<|end|>", 1) if '"course": "sam"' in line else line for line in lines]
        (tmp_path / "c" / file).write_text("\n".join(changed))
    else:
        lines = (tmp_path / "c" / "sessions.jsonl").read_text().splitlines()
        long = "word " * 20_000
        changed = [
            line.replace('"text": "', f'"text": "{long}', 1) if '"course": "sam"' in line else line for line in lines
        ]
        (tmp_path / "c" / "sessions.jsonl").write_text("\n".join(changed))
    (tmp_path / "cwd").mkdir()
    settings = ["corpus.path=../c", "split.test=[sam]", "tiny.max_positions=8192"]
    status, _, err = run("run", "--config", "quick", *settings, cwd=tmp_path / "cwd")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert list((tmp_path / "cwd").rglob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "base.method=lora"], "base.method is 'lora'"),
        (["train", "seed=-1"], "seed: "),
        (["train", "--out", "/proc/nowhere/run"], "/proc/nowhere"),
        (["serve", "--model", "x", "--slots", "0"], "--slots: evaluation.engine.slots: must be at least 1. Got 0."),
        (["serve", "--model", "x", "--threads", "-1"], "--threads: threads: must be at least 1. Got -1."),
        (["evaluate", "--run", "begun"], "begun: training is not finished here"),
        (["evaluate", "--run", "nothing"], "nothing: not a trained run"),
        (["run", "model=foo"], "model: "),
    ],
)
def test_more_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "begun" / "training").mkdir(parents=True)
    status, _, err = run(*arguments, cwd=tmp_path)
    assert status == 2, err
    assert message in err
    assert err.count("\n") == 1


def test_settings_may_stand_on_both_sides_of_an_option(tmp_path):
    status, out, _ = run("config", "seed=3", "--config", "quick", "threads=2", cwd=tmp_path)
    assert status == 0
    assert "seed: 3" in out
    assert "threads: 2" in out
    status, _, err = run("config", "seed=3", "--config", "quick", "--threads", cwd=tmp_path)
    assert status == 2
    assert "unrecognized arguments: --threads" in err


def test_an_existing_run_folder_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    status, _, err = run("train", "--out", "run", cwd=tmp_path)
    assert status == 2
    assert "already exists" in err
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_help_is_quick_and_helps(tmp_path):
    assert "usage: cbtrain" in process("--help", cwd=tmp_path)[1]
    for command in ([], ["run"], ["train"], ["evaluate"], ["serve"], ["corpus", "stats"], ["config"]):
        status, out, _ = run(*command, "--help", cwd=tmp_path)
        assert status == 0
        assert "usage: cbtrain" in out
    assert "Not a medical device" in " ".join(run("--help", cwd=tmp_path)[1].split())


def test_doctor_prints_a_remedy_for_what_is_absent(tmp_path):
    status, out, _ = run("doctor", cwd=tmp_path)
    assert status == 0
    for check in ("Python", "torch", "CUDA", "attention", "NF4", "distributed", "memory", "disk", "hub access"):
        assert check in out
    for kernel in ("Triton kernels", "rms_norm", "cross_entropy"):
        assert kernel in out


@pytest.mark.fault("E3")
@pytest.mark.parametrize(
    ("version", "state"),
    [("0.19.8", "ok"), ("0.19.8+5f2c1d0", "ok"), ("0.20.0.dev1", "ok"), ("0.19.10", "ok"), ("0.19.7+cu130", "problem")],
)
def test_doctor_compares_versions_as_versions(version, state, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    found = doctor._deepspeed()
    assert (found.state, found.detail) == (state, f"{version}, for training.engine=deepspeed")
    assert "0.19.8" in found.remedy or state == "ok"
    monkeypatch.setattr("torch.__version__", f"2.{version[2:]}")
    assert doctor._torch().state == "ok"
    monkeypatch.setattr("torch.__version__", "2.10.1+rocm6")
    assert doctor._torch().state == "problem"


@pytest.mark.parametrize("command", ["rate", "synthesize"])
def test_a_file_in_a_folders_place_is_one_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "planted-secret-123")
    (tmp_path / "f").write_text("mine")
    settings = ["--allow-upload"] if command == "synthesize" else ["evaluation.judging.rater=cue"]
    assert main([command, "--out", str(tmp_path / "f"), *settings]) == 2
    error = capsys.readouterr().err
    assert "a file is there, where a folder has to be" in error
    assert error.count("\n") == 1
    assert (tmp_path / "f").read_text() == "mine"


@pytest.mark.fault("H9")
def test_one_rank_says_what_is_wrong(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("cbtrain.cli.complaint.WAIT_SECONDS", 0.0)
    report = tmp_path / "error.json"
    for rank, under_torchrun, printed in [
        ("0", True, "cbtrain: no such option --x\n"),
        ("1", True, ""),
        ("1", False, "rank 1: cbtrain: no such option --x\n"),
    ]:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report) if under_torchrun else "")
        assert complain("cbtrain", "no such option --x") == 2
        assert capsys.readouterr().err == printed
    assert ProcessFailure(0, 1, 2, str(report)).message["message"] == "cbtrain: no such option --x"
