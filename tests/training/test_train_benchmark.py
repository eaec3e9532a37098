"""The benchmark of training at a tiny size: every system trains the same, and a row that does not learn has no speed."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from places import LAUNCH

sys.path.insert(0, str(LAUNCH))

from benchmarks import train as benchmark
from benchmarks.train import SYSTEMS
from benchmarks.training import ours, run, sessions
from benchmarks.training.results import Results, good, show
from benchmarks.training.rows import GEOMETRIES, PACKAGES, PLANS

from cbtrain.errors import UserError
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.savings import Savings

TINY = PLANS["tiny"]


@pytest.fixture
def here(monkeypatch):
    """Runs the processes of rows in this one."""

    def child(words, folder, parsed, seconds):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            benchmark.main([*words, "--tiny", "--threads", "1", "--device", parsed.device])
        return json.loads(said.getvalue().splitlines()[-1])

    threads = torch.get_num_threads()
    monkeypatch.setattr(benchmark, "_child", child)
    monkeypatch.delenv("CORPUS", raising=False)
    yield
    torch.set_num_threads(threads)


def test_all_systems_learn_the_same(here, tmp_path, capsys):
    pytest.importorskip("trl")
    file = tmp_path / "rows.json"
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--tiny", "--threads", "1", "--json", str(file)])
    assert ended.value.code == 0, capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert list(rows) == ["limit", "ours", "plain", "peft", "trl", "course"]
    for name in ("ours", "plain", "peft", "trl"):
        row = rows[name]
        assert row["status"] == "measured"
        assert row["tokens_per_second"] > row["supervised_tokens_per_second"] > 0
        assert row["losses"] == pytest.approx(rows["ours"]["losses"], rel=1e-5)
        assert row["grad_norms"] == pytest.approx(rows["ours"]["grad_norms"], rel=1e-4)
        assert row["peak_memory_bytes"] > 0
        assert row["share_of_limit"] == row["tokens_per_second"] / rows["limit"]["tokens_per_second"]
    assert 0.9 < rows["ours"]["fill"] <= 1


def call(*arguments):
    """The rows that a call has written, by name."""
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--tiny", "--threads", "1", *map(str, arguments)])
    assert ended.value.code == 0
    return {row["name"]: row for row in json.loads(arguments[1].read_text())}


def test_only_some_rows_go_on_with_those_of_the_file(here, tmp_path, capsys):
    file = tmp_path / "rows.json"
    first = call("--json", file, "--only", "limit,ours")
    assert list(first) == ["limit", "ours"]
    second = call("--json", file, "--only", "plain")
    assert list(second) == ["limit", "ours", "plain"]
    assert second["ours"] == first["ours"]
    assert second["plain"]["share_of_limit"] == (
        second["plain"]["tokens_per_second"] / first["limit"]["tokens_per_second"]
    )
    assert f"ours is that of {file}, written {first['ours']['written']}" in capsys.readouterr().out
    other = Results(TINY, {**first["ours"]["setup"], "data": "other sessions"}, file)
    other.keep_earlier(["plain"])
    assert other.kept == {}
    file.write_text('{"rows": []}')
    with pytest.raises(UserError, match=re.escape(f"--json {file}: it is not a file of this benchmark.")):
        other.keep_earlier(["plain"])


def test_a_system_that_is_not_installed_is_named(here, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "peft", ("no_such_package",))
    rows = call("--json", tmp_path / "rows.json", "--only", "ours,peft")
    assert rows["peft"]["status"] == "not installed"
    assert rows["peft"]["problems"] == ["pip install no_such_package"]


def test_rows_for_which_there_is_no_time_are_named(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PLANS, "tiny", replace(TINY, minutes=0.001))
    assert list(call("--json", tmp_path / "rows.json", "--only", "ours,course", "--rounds", "2")) == ["ours"]
    said = capsys.readouterr().out
    assert "ours: 1 of 2 rounds; the 0.001 minutes are over" in said
    assert "course: 0 of 2 rounds; the 0.001 minutes are over" in said
    assert "To go on: --only course with the same --json FILE" in said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with sessions, base and adapter, and what `ours` measured there."""
    folder = tmp_path_factory.mktemp("made")
    sessions.prepare(TINY, folder)
    whole = run.Run(TINY.named("ours"), TINY, folder, "cpu")
    run.make_base(whole)
    return whole, ours.train(whole)


def zero_inputs(decoder):
    """With both matrices zero no gradient ever differs from zero."""
    for name, parameter in decoder.adapter.parameters().items():
        if ".lora_A." in name:
            parameter.data.zero_()


def freeze_one(decoder):
    decoder.adapter.parameters()["layers.1.mlp.up_proj.lora_B.weight"].requires_grad_(False)


def change_the_last_norm(decoder):
    """Losses hardly show it; gradients do."""
    decoder.norm.weight.data.mul_(1.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (zero_inputs, "gradient norms are not all positive: 0, 0, 0"),
        (freeze_one, "13 lora_B are trained, and not 14"),
        (change_the_last_norm, "gradient norms are not those of ours"),
    ],
)
def test_a_row_that_does_not_learn_the_same_is_refused(made, change, reason, tmp_path, capsys):
    whole, reference = made
    results = Results(TINY, {}, tmp_path / "rows.json")
    results.add("ours", reference)
    change(decoder := ours.loaded(whole, Savings()))
    results.add("plain", ours.train_steps(whole, decoder))
    sound, refused = json.loads((tmp_path / "rows.json").read_text())
    assert sound["status"] == "measured"
    assert refused["status"] == "refused"
    assert reason in "; ".join(refused["problems"])
    assert refused["tokens_per_second"] is refused["supervised_tokens_per_second"] is refused["share_of_limit"] is None
    assert not good([sound, refused])
    show([sound, refused])
    assert f"plain         refused: {refused['problems'][0]}" in capsys.readouterr().out


def test_the_rows_of_a_gpu_are_real_geometries_in_time():
    plan = PLANS["cuda"]
    names = [row.name for row in plan.rows]
    assert len(set(names)) == len(names)
    billions = {}
    for row in plan.rows:
        architecture = parse_architecture(GEOMETRIES[row.geometry], row.geometry)
        with torch.device("meta"):
            billions[row.geometry] = round(sum(p.numel() for p in Decoder(architecture).parameters()) / 1e9, 2)
    assert billions == {"llama-8b": 8.03, "qwen-7b": 7.62, "mistral-7b": 7.25}
    assert {row.system for row in plan.rows if row.compared} == set(SYSTEMS)
    assert plan.named("llama-nf4").most_bytes == 22e9
    assert plan.named("llama-course").course == 90_000
    assert plan.row_seconds < 180
    assert plan.minutes <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "limit,theirs,mine"], "--only: no such rows: theirs, mine. Rows: limit, ours, plain, peft, trl"),
        (["--device", "cuda"], "--device cuda: there is no GPU here. Use --device cpu."),
        (["--rounds", "0"], "--rounds: 0 is not a number of rounds. Use 1 or more."),
        (["--json", "nowhere/rows.json"], "--json nowhere/rows.json: its folder does not exist. Make it first."),
    ],
)
def test_bad_input_is_one_line(here, arguments, message):
    if torch.cuda.is_available() and "cuda" in arguments:
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=re.escape(message)):
        benchmark.main(["--tiny", *arguments])


def test_a_corpus_with_too_few_sessions_is_refused_before_anything_is_trained(tmp_path):
    """In real processes, as all rows are."""
    turns = [{"role": "patient", "text": "I am sad."}, {"role": "therapist", "text": "Since when?"}]
    record = {"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": turns}
    (tmp_path / "sessions.jsonl").write_text(json.dumps(record))
    command = [sys.executable, LAUNCH / "benchmark.py", "train", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CORPUS": str(tmp_path)})
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"CORPUS={tmp_path}: 0 packs of 2 sessions of 450 to 900 tokens. 3 are needed: name a larger corpus.\n"
    )
