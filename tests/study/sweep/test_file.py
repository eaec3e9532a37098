"""What keeps a sweep from beginning is told at once, with the run's name, before anything is loaded."""

import re
from dataclasses import replace

import pytest
import yaml
from rich.console import Console
from sweeps import common_settings, write_sweep

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.files import shipped
from cbtrain.study.anchored import anchored
from cbtrain.study.run_files import CONFIG
from cbtrain.study.sweep.checks import differing
from cbtrain.study.sweep.folder import write_sweep as write_resolved
from cbtrain.study.sweep.levels import choose_levels
from cbtrain.study.sweep.memory import Need, Together, predicted_memory, require_memory
from cbtrain.study.sweep.options import Options
from cbtrain.study.sweep.prepare import prepare_runs
from cbtrain.study.sweep.sweep import plan_sweep
from cbtrain.study.sweep.sweep_file import SWEEPS, find_sweep
from cbtrain.training.planning import memory_plan
from cbtrain.training.planning.machine import this_machine
from cbtrain.training.planning.memory_plan import KERNELS

QUICK = "common: {config: quick}\n"


def planned(folder, text, *overrides, out="out"):
    (folder / "sweep.yaml").write_text(text)
    return plan_sweep(folder / "sweep.yaml", overrides, folder / out)


def refusal(folder, text, *overrides):
    with pytest.raises(UserError) as error:
        planned(folder, text, *overrides)
    assert "\n" not in str(error.value)
    assert not (folder / "out").exists()
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["not a sweep"]),
        ("- a\n", ["not a sweep"]),
        ("runs: {}\n", ["sweep.yaml: an empty sweep"]),
        ("comon: {}\nruns: {a: {}}\n", ["unknown part 'comon'. Did you mean 'common'?"]),
        ("therapist: {seed: 1}\nruns: {a: {}}\n", ["therapist is a setting of runs", "under common"]),
        ("extends: quick\nruns: {a: {}}\n", ["Write common: {config: …}"]),
        (
            "common: {config: quik}\nruns: {a: {}, b: {}, c: {seeed: 1}}\n",
            ["2 things", "quik: no such config file", "'quick'", "run c: unknown key 'seeed'. Did you mean 'seed'?"],
        ),
        (
            "common: {therapist.seed: 1, therapist: {seed: 2}}\nruns: {a: {}}\n",
            ["sweep.yaml, common: therapist.seed is given twice"],
        ),
        (
            QUICK + "runs: {a/b: {}, ..: {}, sweep.csv: {}, A: {}, a: {}, 1: {}, 'on': {}, off: {}}\n",
            [
                "'a/b' cannot name a run",
                "'..' cannot name a run",
                "'sweep.csv' is the name of a file of the sweep itself",
                "runs 'A' and 'a' would share a folder",
                "False cannot name a run. Put it in quotes.",
            ],
        ),
        (
            QUICK + "runs: {a: {therapist.lr: 3}, b: {therapist: {lora: {rank: zero}}}, c: {speaker: nobody}}\n",
            [
                "sweep.yaml, run a: unknown key 'therapist.lr'. Did you mean 'therapist.learning_rate'?",
                "sweep.yaml, run b: therapist.lora.rank: must be a whole number. Got 'zero'.",
                "sweep.yaml, run c: speaker: 'nobody' is nobody. One of patient, therapist.",
            ],
        ),
        (
            QUICK + "runs: {a: {}, b: {therapist.method: full}, c: {training.engine: deepspeed, seed: 1}, "
            "d: {training.speakers: [therapist, patient]}, e: {model.weights: bf16}, f: {threads: 3}}\n",
            [
                "6 things keep this sweep from beginning",
                "run b: therapist.method is full. A sweep trains LoRA adapters, which leave the base as it is",
                "run c: training.engine is deepspeed",
                "run c: seed is 1, in run a it is 0. Runs of a sweep share one base",
                "run d: training.speakers is therapist, patient. A run of a sweep trains one adapter",
                "run e: model.weights is bf16, in run a it is auto",
                "run f: threads is 3, in run a it is None",
            ],
        ),
        (QUICK + "runs: {a: {patient.seed: 1}, b: {}}\n", ["run b: it would train the same adapter as run a"]),
        (
            QUICK + "grid: {therapist.activation_checkpointing: [none, full]}\n",
            ["same adapter as run activation_checkpointing-none", "therapist.* (but activation_checkpointing)"],
        ),
        (
            "common: {model.path: here}\ngrid: {seed: [0, 1]}\n",
            ["run seed-1: it would train the same adapter as run seed-0", "a seed of training, therapist.seed."],
        ),
        (
            QUICK + "grid: {therapist.lora.rnk: [1, 2], therapist.seed: 3, patient.seed: [1, 1]}\n",
            [
                "sweep.yaml, grid: unknown key 'therapist.lora.rnk'. Did you mean 'therapist.lora.rank'?",
                "grid: therapist.seed has no list of values to cross. Write therapist.seed: [first, second].",
                "grid: patient.seed has a value twice",
            ],
        ),
        (
            QUICK
            + "grid: {therapist.seed: [0, 1]}\nruns: {seed-1: {}, plain: {therapist.seed: 0, therapist: {seed: 1}}}",
            ["run plain: therapist.seed is given twice", "two runs named 'seed-1'"],
        ),
        (QUICK + "runs: {a: {config: paper}}\n", ["config belongs under common"]),
        (
            "common: {extends: quick}\nruns: [a]\n",
            ["Write config: NAME", "runs is not a mapping. Write name: {key: value}"],
        ),
        (QUICK + "runs: {a: {training.wandb: mine}, b: {base.method: lora}}\n", ["run a: training.wandb is set"]),
    ],
)
def test_everything_wrong_is_told_at_once(tmp_path, text, told):
    found = refusal(tmp_path, text)
    for part in told:
        assert part in found


def test_the_command_line_is_over_all_runs(tmp_path):
    text = QUICK + "runs: {a: {}, b: {therapist.lora.rank: 4}}\n"
    assert {config.therapist.seed for config in planned(tmp_path, text, "therapist.seed=7").values()} == {7}
    assert "it would train the same adapter as run a" in refusal(tmp_path, text, "therapist.lora.rank=2")
    once = refusal(tmp_path, text, "therapist.sed=7")
    assert once == "command line: unknown key 'therapist.sed'. Did you mean 'therapist.seed'?"


def test_a_grid_crosses_values_and_names_runs_by_them(tmp_path):
    text = """
common: {config: quick, therapist.seed: 5}
grid:
  therapist: {lora: {rank: [8, 32], targets: [[q_proj, v_proj], all-linear]}, learning_rate: [1e-4, 0.002]}
  speaker: [therapist]
runs:
  mine: {speaker: patient}
"""
    configs = planned(tmp_path, text)
    assert len(configs) == 9
    name = "rank-32_targets-q_proj+v_proj_learning_rate-1e-4_therapist"
    assert configs[name].therapist.lora.targets == ["q_proj", "v_proj"]
    assert configs[name].therapist.learning_rate == 1e-4
    assert configs["mine"].training.speakers == ["patient"]
    assert {config.therapist.seed for config in configs.values()} == {5}
    assert differing(configs)[name].keys() == {
        "therapist.lora.rank",
        "therapist.lora.targets",
        "therapist.learning_rate",
    }
    assert differing(configs)["mine"] == {}


def test_a_config_is_found_beside_the_file_and_has_its_own_speakers(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: quick\ntraining: {speakers: [patient]}\nthreads: 2\n")
    configs = planned(tmp_path, "common: {config: mine.yaml}\nruns: {a: {}, b: {patient.seed: 1}}\n")
    assert {(*config.training.speakers, config.threads) for config in configs.values()} == {("patient", 2)}


def test_what_is_written_is_a_sweep_file_of_the_same_runs(tmp_path):
    text = (
        QUICK + "runs: {a: {}, b: {therapist.lora.rank_pattern: {layers.0.self_attn.q_proj: 3}}, c: {speaker: patient}}"
    )
    configs = planned(tmp_path, text)
    write_resolved(configs, tmp_path / "out")
    again = plan_sweep(tmp_path / "out" / "sweep.yaml", (), tmp_path / "other")
    assert {name: config.model_dump() for name, config in again.items()} == {
        name: anchored(config).model_dump() for name, config in configs.items()
    }
    assert set(yaml.safe_load((tmp_path / "out" / "sweep.yaml").read_text())["runs"]["a"]) == {"training"}


def test_a_folder_that_holds_another_sweep_is_refused(tmp_path):
    text = QUICK + "runs: {a: {}, b: {therapist.seed: 1}}\n"
    configs = planned(tmp_path, text)
    write_resolved(configs, tmp_path / "out")
    (tmp_path / "out" / "a" / "training").mkdir(parents=True)
    (tmp_path / "out" / "a" / CONFIG).write_text(yaml.safe_dump(anchored(configs["a"]).model_dump(mode="json")))
    planned(tmp_path, text)  # the same sweep continues
    planned(tmp_path, QUICK + "runs: {a: {}, b: {therapist.seed: 1}, c: {therapist.seed: 2}}\n")  # and may grow
    with pytest.raises(UserError, match="another sweep is here: it has a run 'b'"):
        planned(tmp_path, QUICK + "runs: {a: {}, other: {therapist.seed: 1}}\n")
    with pytest.raises(UserError, match=r"therapist.lora.rank is 2, the interrupted run has 16"):
        planned(tmp_path, text, "therapist.lora.rank=2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="exists and holds no sweep"):
        planned(tmp_path, text, out="mine")


@pytest.mark.parametrize("name", shipped(SWEEPS))
def test_shipped_sweeps_can_begin(tmp_path, name):
    assert len(plan_sweep(find_sweep(name), (), tmp_path / "out")) > 4


def test_memory_is_that_of_the_largest_run_and_what_the_others_keep(place, tmp_path):
    runs = {
        "a": {},
        "b": {"therapist.seed": 1},
        "wide": {"therapist.lora.rank": 64},
        "long": {"therapist.pack_tokens": 2048},
    }
    file = write_sweep(tmp_path / "sweep.yaml", common_settings(place), runs)
    configs = plan_sweep(file, (), tmp_path / "out")
    prepared = {run.name: run for run in prepare_runs(configs, tmp_path / "out", "here", Console(quiet=True))}
    alone = {name: predicted_memory([run]) for name, run in prepared.items()}
    assert all(memory.others == 0 for memory in alone.values())
    two = predicted_memory([prepared["a"], prepared["b"]])
    wide = predicted_memory([prepared["a"], prepared["wide"]])
    assert two.one == max(alone["a"].total, alone["b"].total)
    # Adapter, two moments and the best, fp32 each, of seven linears in two layers.
    assert two.others == 4 * 4 * 16 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert wide.total - wide.one in (two.others, 4 * two.others)
    every = predicted_memory(list(prepared.values()))
    assert every.total > max(memory.total for memory in alone.values())
    once = predicted_memory(list(prepared.values()), Options(at_once=1))
    assert once.total == max(memory.total for memory in alone.values())


def test_a_run_leaves_room_for_what_the_others_keep(place, tmp_path, capsys, monkeypatch):
    # As without glibc: what its heap takes beyond the tensors differs by a half with the last token of a document.
    monkeypatch.setattr(memory_plan, "peak_of", lambda *sizes, **options: None)
    big = {"therapist.lora.rank": 256, "therapist.activation_checkpointing": "auto", "training.memory_limit": 9.0}
    file = write_sweep(
        tmp_path / "sweep.yaml",
        common_settings(place, **big, **{"tokens.document_tokens": 1024}),
        {name: {"therapist.seed": n} for n, name in enumerate("abcd")},
    )
    console, packs = Console(quiet=True), "therapist.pack_tokens=8192"

    def prepared(*overrides):
        configs = plan_sweep(file, (packs, *overrides), tmp_path / "out")
        return prepare_runs(configs, tmp_path / "out", str(file), console)

    runs = prepared()
    all_together, reserve = predicted_memory(runs), this_machine("cpu").reserve
    least = predicted_memory(runs, level="full").total
    between = (least + all_together.total) / 2
    assert least < 0.9 * all_together.total
    limited = prepared(f"training.memory_limit={(between + reserve) / 1e9}")
    machine = limited[0].spec.machine()

    def levels(some, machine):
        return choose_levels(some, machine, lambda name: console, joint=False)

    assert levels(limited[:1], machine) == {"a": "none"}
    assert "none" not in levels(limited, machine).values()
    # Of the ranks on a CPU each has its part of the memory.
    two = replace(machine, memory=2 * machine.memory - reserve)
    assert (two.share_of(2), two.share_of(1)) == (machine, two)
    assert replace(two, kind="cuda").share_of(2).memory == two.memory  # each has its own
    most, least_of_a = (predicted_memory(runs[:1], level=level).one for level in ("none", "full"))
    limit = (least_of_a + most) / 2 + reserve
    fixed = f"training.memory_limit={limit / 1e9}", "therapist.activation_checkpointing=none"
    enough = prepared(fixed[0])[:1]
    require_memory(enough, Options())
    with monkeypatch.context() as started_by_torchrun:
        started_by_torchrun.setenv("LOCAL_WORLD_SIZE", "2")
        with pytest.raises(UserError, match="on each of 2 ranks here"):
            require_memory(enough, Options())
    with pytest.raises(UserError, match="run a, training.memory_limit: .* with activation checkpointing none"):
        require_memory(prepared(*fixed)[:1], Options())
    assert main(["sweep", str(file), "--dry-run", packs, f"training.memory_limit={(between + reserve) / 1e9}"]) == 0
    assert "layers will compute again (at least 0.6" in capsys.readouterr().out
    assert main(["sweep", str(file), "--dry-run", packs, f"training.memory_limit={(0.8 * least + reserve) / 1e9}"]) == 0
    assert re.search(
        r"Warning: 0\.6\d GB at least, and training\.memory_limit leaves 0\.6\d GB", capsys.readouterr().out
    )


def test_joint_passes_are_planned_and_fit_into_the_limit(place, tmp_path, capsys):
    runs = {name: {"therapist.seed": n} for n, name in enumerate("abc")} | {
        "dropout": {"therapist.lora.dropout": 0.1},
        "wide": {"therapist.pack_tokens": 4096},
    }
    common = common_settings(place)
    common["therapist"] |= {"pack_tokens": 1024, "activation_checkpointing": "auto"}
    file = write_sweep(tmp_path / "sweep.yaml", common, runs)
    configs = plan_sweep(file, (), tmp_path / "out")
    console = Console(quiet=True)
    prepared = prepare_runs(configs, tmp_path / "out", str(file), console)
    needs = {run.name: Need.of(run, joint=True) for run in prepared}
    told = {name: need.obstacle for name, need in needs.items() if need.obstacle}
    assert told == {"dropout": "LoRA dropout", "wide": "packs of 4,096 tokens"}
    three = Together([needs[name] for name in "abc"])
    joint, in_turn = three.memory(), predicted_memory(prepared[:3])
    assert (joint.joined, joint.others, in_turn.joined) == (3, 0, 1)
    assert joint.total - KERNELS > 1.5 * (in_turn.total - KERNELS)
    most, least = joint.total, three.memory("full").total
    machine = replace(this_machine("cpu", 1.0), memory=this_machine("cpu").reserve + (most + least) // 2)
    levels = choose_levels(prepared[:3], machine, lambda name: console, joint=True)
    (level,) = set(levels.values())
    assert level != "none"
    assert machine.fits(three.memory(level).total)
    between = (least + predicted_memory(prepared[:3], level="full").total) / 2
    limit = f"training.memory_limit={(between + machine.reserve) / 1e9}"
    configs = plan_sweep(file, [limit], tmp_path / "out")
    limited = prepare_runs(configs, tmp_path / "out", str(file), console)
    with pytest.raises(UserError, match=r"memory_limit: 3 runs need .* more than .* leave out --joint"):
        require_memory(limited[:3], Options(joint=True))
    require_memory(limited[:3], Options())
    # Where one run is to keep everything, the others make room for it.
    runs["c"] |= {"therapist.activation_checkpointing": "none"}
    file = write_sweep(tmp_path / "fixed.yaml", common, {name: runs[name] for name in "abc"})
    configs = plan_sweep(file, (f"training.memory_limit={machine.memory / 1e9}",), tmp_path / "out")
    fixed = prepare_runs(configs, tmp_path / "out", str(file), console)
    levels = choose_levels(fixed, machine, lambda name: console, joint=True)
    assert levels["c"] == "none" != levels["a"] == levels["b"]
    del runs["c"]["therapist.activation_checkpointing"]
    file = write_sweep(tmp_path / "three.yaml", common, {name: runs[name] for name in "abc"})
    assert main(["sweep", str(file), "--dry-run", "--joint"]) == 0
    assert "for a pass of 3 runs, 0.00 GB for what" in capsys.readouterr().out


def test_errors_of_corpora_and_targets_come_before_weights(place, tmp_path, capsys):
    (place / "base" / "model.safetensors").rename(tmp_path / "kept")  # nothing may ask for them
    try:
        runs = {
            "gone": {"corpus.path": str(tmp_path / "nowhere")},
            "target": {"therapist.lora.targets": ["layers.9.mlp.up_proj"]},
            "good": {},
        }
        file = write_sweep(tmp_path / "sweep.yaml", common_settings(place), runs)
        assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "2 things keep this sweep from beginning" in error
        assert "run gone: " in error
        assert "run target: therapist.lora.targets: target 'layers.9.mlp.up_proj' matches no linear" in error
        assert not (tmp_path / "out").exists()
        file = write_sweep(tmp_path / "sweep.yaml", common_settings(place), {"a": {}, "b": {"therapist.seed": 1}})
        assert main(["sweep", str(file), "--dry-run"]) == 0
        out = capsys.readouterr().out
        limited = [str(file), "--out", str(tmp_path / "out"), "training.memory_limit=0.61"]
        assert main(["sweep", *limited]) == 2
        assert re.search(r"memory_limit: 2 runs need 0\.\d\d GB at least, more than 0.61 GB", capsys.readouterr().err)
        assert "2 runs over one base, 16,000 tokens at most" in out
        one, others = re.search(
            r"\((\d\.\d\d) GB for one run, (\d\.\d\d) GB for what the others keep, 0.60 GB outside", out
        ).groups()
        assert 0 <= float(others) < float(one)
    finally:
        (tmp_path / "kept").rename(place / "base" / "model.safetensors")
