"""Names of arms are read by one rule, and a file says what names cannot."""

import json
import shutil

import pytest
from places import SCORES2024, TAHIR2024, needs_scores
from scored import score

from cbtrain.cli.main import main
from cbtrain.eval.analysis.arms import arms_of
from cbtrain.eval.analysis.contrast_plan import describe_arms_found, plan_contrasts
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.scores import write_scores_csv

pytestmark = pytest.mark.fault("G2")

# Names, what is said of them, and the ids of the headline's family.
NAMES = {
    ("base", "tuned"): ("base, tuned", ["tuned − base"]),
    ("Llama: tuned", "Llama: untuned"): ("1 base (Llama) × untuned, tuned", ["Llama: tuned − untuned"]),
    ("Llama_Finetune_Simulation_Nov_6", "Llama_Instruct_Simulation_Nov_2"): (
        "1 base (Llama) × instruct, tuned", ["Llama: tuned − instruct"],
    ),
    ("Llama-3.1-8B-Instruct (fine-tuned)", "Llama-3.1-8B-Instruct (un-tuned)"): (
        "1 base (Llama-3.1-8B-Instruct) × untuned, tuned", ["Llama-3.1-8B-Instruct: tuned − untuned"],
    ),
    ("Qwen2.5-Instruct", "Qwen2.5-Instruct-tuned"): (
        "1 base (Qwen2.5-Instruct) × untuned, tuned", ["Qwen2.5-Instruct: tuned − untuned"],
    ),
    ("finetuned_llama", "llama"): ("1 base (llama) × untuned, tuned", ["llama: tuned − untuned"]),
    ("Yi: TUNED", "Yi: Base", "GPT-4"): (
        "1 base (Yi) × base, tuned; compared in pairs, since their names do not show a reference: GPT-4", ["Yi: tuned − base"],
    ),
    # Two references are none: which of them was meant is not guessed.
    ("Yi: base", "Yi: instruct", "Yi: tuned"): (
        "compared in pairs, since their names do not show an untuned and a tuned arm of the same base: Yi: base, Yi: instruct, Yi: tuned", [],
    ),
    ("llama", "llama-placebo", "llama-tuned"): (
        "1 base (llama) × placebo, untuned, tuned", ["llama: tuned − untuned"],
    ),
    ("mistral", "Placebo_mistral"): ("1 base (mistral) × placebo, untuned", []),
    ("detuned", "attuned"): ("compared in pairs, since their names do not show an untuned and a tuned arm of the same base: detuned, attuned", []),
}  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
def test_one_rule_for_names(names):
    told, headline = NAMES[names]
    arms = arms_of(names)
    assert describe_arms_found(arms) == told
    plans = plan_contrasts(arms)
    assert [plan.id for plan in plans if plan.family == "tuning"] == headline
    assert len({plan.id for plan in plans}) == len(plans)
    assert {name for plan in plans for pair in plan.pairs for name in pair} == set(names)  # none is forgotten


def scores(folder, arms):
    rows = [
        score(arm, patient, {"agenda": float(place + number)})
        for place, arm in enumerate(arms)
        for number, patient in enumerate("pqr")
    ]
    write_scores_csv(rows, folder / "scores.csv")
    return folder / "scores.csv"


def test_a_file_says_what_names_cannot(tmp_path, capsys):
    table = scores(tmp_path, ["run-17", "run-18", "run-19", "vendor"])
    file = tmp_path / "arms.yaml"
    file.write_text(
        "arms:\n"
        "  run-17: {base: Llama, variant: untuned}\n"
        "  run-18: {base: Llama, variant: tuned}\n"
        "  run-19: {base: Llama, variant: DPO, reference: run-17}\n"
    )
    assert main(["analyze", str(table), "--arms", str(file), "--json", "--draws", "100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [plan["id"] for plan in found["plan"] if plan["family"] == "tuning"] == [
        "Llama: DPO − untuned",
        "Llama: tuned − untuned",
    ]
    assert found["interaction"]["sizes"].keys() == {"Llama: tuned − untuned"}  # beyond the other's
    assert found["arms_found"].startswith("1 base (Llama) × DPO, untuned, tuned; compared in pairs, since their names")
    assert {arm["name"]: arm["reference"] for arm in found["arms"]}["run-19"] == "run-17"
    assert main(["analyze", str(table), "--arms", str(file), "--draws", "100", "--out", str(tmp_path / "out")]) == 0
    assert "Arms, by their names or --arms: 1 base (Llama) × DPO, untuned, tuned" in capsys.readouterr().out
    assert "Arms: 1 base (Llama) × DPO" in (tmp_path / "out" / "report.md").read_text()
    assert "Arms: 1 base (Llama) × DPO" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("arms: {run-71: {base: Llama}}", "no arm 'run-71' in the scores. Did you mean 'run-1"),
        (
            "arms: {run-17: {reference: run-20}}",
            "run-17: its reference 'run-20' is not an arm in the scores. Did you mean",
        ),
        ("arms: {run-17: {reference: run-17}}", "run-17: it is its own reference"),
        ("arms: {run-17: {reference: run-18}, run-18: {reference: run-17}}", "a circle: run-17 → run-18 → run-17"),
        (
            "arms: {run-17: {base: L, variant: tuned}, run-18: {base: L, variant: base, reference: run-17}}",
            "references lead in a circle: run-17 → run-18 → run-17. One contrast would count twice",
        ),
        (
            "arms: {run-17: {reference: true}, run-18: {reference: true}}",
            "2 arms have reference: true: run-17, run-18. Every arm is compared with one reference",
        ),
        ("arms: {run-19: {reference: true}}", "no arm 'run-19' in the scores. Did you mean"),
        ("arms: {run-17: {reference: 18}}", "arms.run-17.reference: give the name of an arm, or true"),
        ("arms: {run-17: {bases: Llama}}", "arms.run-17.bases"),
        ("arms: {run-17: tuned}", "arms.run-17"),
        ("arms: {}", "arms"),
        ("- run-17", "the file declares no arms"),
        ("arms: [", "malformed YAML"),
    ],
)
@pytest.mark.fault("G2")
def test_a_file_that_does_not_fit_is_one_line(text, problem, tmp_path, capsys):
    table = scores(tmp_path, ["run-17", "run-18"])
    (tmp_path / "arms.yaml").write_text(text)
    assert main(["analyze", str(table), "--arms", str(tmp_path / "arms.yaml")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), problem in err) == ("", 1, True), err


def test_arms_whose_names_tell_the_same_are_not_called_the_same(tmp_path, capsys):
    table = scores(tmp_path, ["Llama_Finetune_1", "Llama_Finetune_2", "Llama_Instruct"])
    assert main(["analyze", str(table), "--draws", "100", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [arm["label"] for arm in report["arms"]] == ["Llama instruct", "Llama_Finetune_1", "Llama_Finetune_2"]


@needs_scores
def test_the_2024_simulations_rated_here_have_the_contrasts_of_the_studys_table(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CBTRAIN_JUDGE_API_KEY", raising=False)
    simulations = TAHIR2024 / "CBT_Simulations"
    for file in simulations.glob("*/*/session_[12]_*.txt"):
        copy = tmp_path / "CBT_Simulations" / file.relative_to(simulations)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    rated = tmp_path / "rated"
    assert main(["rate", f"corpus.path={tmp_path / 'CBT_Simulations'}", "--out", str(rated)]) == 0
    capsys.readouterr()
    assert main(["analyze", str(rated / "scores.csv"), "--json", "--draws", "100"]) == 0
    found = json.loads(capsys.readouterr().out)
    theirs = plan_contrasts(read_ratings(SCORES2024).arms)
    ours = {plan["id"]: plan["family"] for plan in found["plan"]}
    expected = {plan.id: plan.family for plan in theirs if "Qwen" not in plan.id}
    assert ours == expected
    assert set(ours.values()) == {plan.family for plan in theirs} == {"tuning", "pooled", "tuned"}
    assert found["arms_found"] == "2 bases (Llama, Mistral) × instruct, tuned"
