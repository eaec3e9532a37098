"""Objectives compared on the same pairs: what a file may say, what is equal, what continues, what is answered."""

import csv
import json
import signal
import time

import pytest
from command import cbtrain, start_cbtrain
from rich.console import Console
from study_files import model_with_adapters

from cbtrain.errors import UserError
from cbtrain.eval.analysis.contrasts import Contrast
from cbtrain.study.corpus import load_corpus
from cbtrain.study.method_comparison.comparison_file import find_comparison, shipped_comparisons
from cbtrain.study.objective_comparison.answer import answer_of
from cbtrain.study.objective_comparison.arms import CONTRASTS, KINDS
from cbtrain.study.objective_comparison.comparison_file import on_parts, read_objectives
from cbtrain.study.objective_comparison.data import write_pairs
from cbtrain.study.objective_comparison.measure import Preferences

QUIET = Console(quiet=True)
FILE = "pairs: sample-pairs\ntokens: 3000\nlearning_rates: [0.001]\nseeds: [0]\nsplit: {validation: 0.25, test: 0}\n"


@pytest.mark.parametrize("name", shipped_comparisons(of_objectives=True))
def test_arms_of_a_shipped_comparison_differ_in_the_objective_alone(name, tmp_path):
    file = read_objectives(find_comparison(name, of_objectives=True))
    assert list(file.arms) == list(KINDS)
    settings = {}
    for arm in file.tuned:
        config = file.config_of(arm, "base", tmp_path, rate=1e-4, seed=5)
        assert (config.therapist.learning_rate, config.therapist.seed) == (1e-4, 5)
        assert config.therapist.token_budget == file.tokens
        dumped = config.model_dump(mode="json")
        for key in ("objective", "supervise", "preference"):
            del dumped["therapist"][key]
        del dumped["tokens"]["recipe"]
        settings[arm] = dumped
    assert all(one == settings["sft"] for one in settings.values())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FILE.replace("[0.001]", "[]"), "arms.placebo: no learning rates above 0 to try"),
        (FILE + "arms: [untuned, sfd]", "arms: unknown arm 'sfd'. Did you mean 'sft'?"),
        (FILE + "arms: [untuned, prompted]", "untuned and at least one tuned arm are needed"),
        (FILE + "passes: 2", "tokens or passes: give one of them"),
        (FILE + "settings: {therapist.objective: dpo}", "settings.therapist.objective: is decided by the comparison"),
        (FILE + "arms: {untuned: {}, sft: {preference: {beta: 1}}}", "arms.sft.preference: is the same for all arms"),
        (FILE + "arms: {untuned: {}, orpo: {preference: {loss: ipo}}}", "preference.loss has no effect with objective"),
        (FILE.replace("[0]", "[1, 1]"), "seeds: one comes twice"),
        (FILE + "settings: {evaluation.seed: 3}", "seed"),
        ("[sft]", "not a comparison"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(text, problem, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_objectives(path)
    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_the_placebo_has_the_same_pairs_with_the_answers_exchanged(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    file = read_objectives(path)
    parts = write_pairs(file, tmp_path / "data", QUIET)
    assert parts.counts["train"] + parts.counts["validation"] == 7
    assert parts.counts["test"] == 0
    assert write_pairs(file, tmp_path / "data", QUIET) == parts
    sides = [load_corpus(on_parts(file.study(), folder), QUIET).split for folder in (parts.pairs, parts.placebo)]
    assert sides[0].ids() == sides[1].ids()
    for one, other in zip(sides[0].train, sides[1].train, strict=True):
        (pair,), (placebo,) = one.sessions, other.sessions
        begin = pair.preference.begin
        words = [[turn.text for turn in turns] for turns in (pair.turns[begin:], pair.preference.rejected)]
        exchanged = [[turn.text for turn in turns] for turns in (placebo.preference.rejected, placebo.turns[begin:])]
        assert words == exchanged
        assert [(turn.text, turn.weight) for turn in placebo.turns[:begin]] == [
            (turn.text, turn.weight) for turn in pair.turns[:begin]
        ]
        assert "exchanged" in placebo.facts["placebo"]
    assert parts.patients == {
        s.patient for part in (sides[0].train, sides[0].validation) for c in part for s in c.sessions
    }
    # Another split of the same pairs would be other data, and pairs without a validation part cannot choose a rate.
    for text, problem in (("seed: 9, ", "not those with which this comparison began"), ("", "have no validation part")):
        share = "validation: 0" if not text else "validation: 0.5"
        path.write_text(FILE.replace("validation: 0.25", f"{text}{share}"))
        with pytest.raises(UserError, match=problem):
            write_pairs(read_objectives(path), tmp_path / "data", QUIET)
    path.write_text(FILE.replace("sample-pairs", "sample"))
    with pytest.raises(UserError, match="these are sessions, not pairs of answers"):
        write_pairs(read_objectives(path), tmp_path / "other", QUIET)


def test_what_models_say_of_pairs_is_counted_alike():
    base = {"a": [-10.0, -10.0, 5, 5], "b": [-8.0, -20.0, 4, 5]}
    tuned = {"a": [-9.0, -12.0, 5, 5], "b": [-8.5, -20.0, 4, 5]}
    found, alone = Preferences.of(tuned, base), Preferences.of(base, None)
    assert (found.pairs, found.ranked, found.moved) == (2, 1.0, 0.5)
    assert (found.chosen, found.rejected) == (pytest.approx(-17.5 / 9), pytest.approx(-3.2))
    assert (alone.ranked, alone.moved) == (0.5, None)  # equal answers are not ranked rightly


def contrast(name, estimate, p, patients=20):
    low, high = (None, None) if p is None else (estimate - 1, estimate + 1)
    of = {f"p{number}": estimate for number in range(patients)}
    return Contrast(
        id=name,
        family="objectives",
        patients=of,
        pairs=patients,
        estimate=estimate,
        p_adjusted=p,
        ci_low=low,
        ci_high=high,
    )


@pytest.mark.parametrize(
    ("sft", "orpo", "patients", "answer"),
    [
        ((-2.0, 0.01), (3.0, 0.001), 20, "Yes: sft lowers it, and orpo raises it."),
        ((2.0, 0.01), (3.0, 0.001), 20, "No: sft raises it."),
        ((-2.0, 0.2), (3.0, 0.001), 20, "Half of it: preference tuning raises it"),
        ((-2.0, 0.01), (-3.0, 0.001), 20, "Half of it: sft lowers it"),
        ((-2.0, 0.2), (0.0, None), 20, "It is not shown"),
        ((-2.0, None), (3.0, None), 1, "This run cannot tell"),
    ],
)
def test_the_answer_follows_from_the_planned_contrasts(sft, orpo, patients, answer):
    found = [contrast("sft − untuned", *sft, patients), contrast("orpo − untuned", *orpo, patients)]
    first, *sentences = answer_of(found)
    assert answer in first
    assert len(sentences) == 2
    assert sentences[0].startswith("sft − untuned: -2.00" if sft[0] < 0 else "sft − untuned: +2.00")


@pytest.mark.slow
def test_one_objective_is_trained_measured_and_evaluated(tmp_path):
    base = model_with_adapters(tmp_path / "base", adapters=("kind",))
    settings = {
        "model": {"path": str(base)},
        "threads": 1,
        "therapist": {"pack_tokens": 2048},
        "training": {"forgetting": {"enabled": False}},
        "evaluation": {
            "patient_model": {"model": str(base), "adapter": str(base / "kind")},
            "judging": {"rater": "cue"},
            **{"max_turns": 4, "seeds": 1, "drift": "ignore", "engine": {"context_tokens": 4096}},
            **{"therapist": {"max_tokens": 8}, "patient": {"max_tokens": 8}},
        },
    }
    text = FILE.replace("tokens: 3000", "passes: 3").replace("[0.001]", "[0.01]")
    path = tmp_path / "c.yaml"
    path.write_text(f"{text}arms: [untuned, orpo]\nsettings: {json.dumps(settings)}\n")
    dry = cbtrain("compare-objectives", "c.yaml", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "1 run; then 2 therapists are evaluated" in dry.stdout
    assert not (tmp_path / "runs").exists()

    done = cbtrain("compare-objectives", "c.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    results = json.loads((out / "objectives.json").read_text())
    untuned, orpo = results["arms"]
    assert (untuned["name"], orpo["name"], orpo["seeds"]) == ("untuned", "orpo", [0])
    assert [one["rate"] for one in orpo["search"]] == [orpo["rate"]] == [0.01]
    assert orpo["passes"] == pytest.approx(3)
    assert orpo["pairs"]["validation"]["chosen"]["mean"] != untuned["pairs"]["validation"]["chosen"]["mean"]
    assert 0 <= orpo["pairs"]["validation"]["moved"]["mean"] <= 1
    assert "moved" not in untuned["pairs"]["validation"]
    # Random models babble: every session is held and judged, and the judge cannot rate it, which is said.
    rows = list(csv.DictReader((out / "evaluation" / "scores.csv").open()))
    assert sorted((row["arm"], row["patient"]) for row in rows) == [
        (arm, patient) for arm in ("orpo-seed-0", "untuned") for patient in ("amara", "leila")
    ]
    assert "untuned, orpo: no session could be rated" in results["limits"]
    assert "This run cannot tell" in results["answer"][0]
    assert [one["id"] for one in results["contrasts"]] == ["orpo − untuned"]
    assert "patients: small differences cannot be shown" in " ".join(results["limits"])
    assert results["answer"][0] in (out / "objectives.md").read_text()

    path.write_text(path.read_text().replace("passes: 3", "passes: 4"))
    other = cbtrain("compare-objectives", "c.yaml", "--out", "out", cwd=tmp_path)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "the comparison here has another passes" in other.stderr


@pytest.mark.deep
def test_the_whole_comparison_on_a_small_base_is_stopped_and_continued(tmp_path):
    child = start_cbtrain("compare-objectives", "objectives-quick", "--out", "out", cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out").glob("runs/*/training/therapist/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 75, err
    done = cbtrain("compare-objectives", "objectives-quick", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "objectives.json").read_text())
    assert [one["name"] for one in results["arms"]] == list(KINDS)
    assert [one["id"] for one in results["contrasts"]] == [f"{a} − {b}" for a, b in CONTRASTS]
    for one in results["arms"]:
        if one["search"]:
            tried = {run["rate"]: (-(run["accuracy"] or 0), run["loss"]) for run in one["search"]}
            assert one["rate"] == min(tried, key=tried.get)
        assert one["score"]["sessions"] == 2
        assert not one["failed"]
        if KINDS[one["name"]].tuned:
            step = results["pass_tokens"][one["name"]]
            assert 6000 <= one["tokens"] < 6000 + step
            assert one["pairs"]["validation"]["chosen"]["mean"] != one["pairs"]["validation"]["rejected"]["mean"]
