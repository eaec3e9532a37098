"""Rubrics of one's own: the documented example works at the first try, and everything wrong is told at once."""

import json
import re

import pytest
from places import ROOT
from scored import score

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import example_text, load_rubric, shipped_rubrics, write_rubric
from cbtrain.eval.rating.scores import write_scores_csv


def run(capsys, *words):
    code = main([*map(str, words)])
    return code, *capsys.readouterr()


@pytest.fixture
def documented(tmp_path):
    """The file of the example in docs/rubrics.md."""
    page = (ROOT / "docs" / "rubrics.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    return path


@pytest.mark.fault("G3")
def test_the_documented_rubric_works_from_check_to_analysis(documented, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("CBTRAIN_JUDGE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "rubric", "example") == (0, documented.read_text(encoding="utf-8"), "")
    code, out, err = run(capsys, "rubric", "check", "mine.yaml")
    assert (code, err) == (0, "")
    assert out in (ROOT / "docs" / "rubrics.md").read_text(encoding="utf-8")
    code, _, err = run(capsys, "rate", "corpus.path=sample", f"evaluation.judging.rubric={documented}", "--out", "o")
    assert (code, err.count("\n")) == (2, 1)
    assert "the cue rater cannot rate it (no domain has cues). Have an LLM judge rate" in err
    assert not (tmp_path / "o").exists()
    rubric = load_rubric(str(documented))
    scores = [
        score(arm, patient, {"warmth": 3.5, "order": 2, "asking": 2 + (arm == "tuned"), "lecturing": lecturing})
        for arm, lecturing in (("base", 5), ("tuned", 1))
        for patient in ("ann", "ben")
    ]
    for one in scores:
        one.keying = rubric.keying
    write_scores_csv(scores, tmp_path / "rated" / "scores.csv")
    write_rubric(rubric, tmp_path / "rated" / "rubric.yaml")
    code, out, _ = run(capsys, "analyze", "rated/scores.csv", "--json", "--out", "out")
    found = json.loads(out)
    assert (code, found["contrasts"][0]["estimate"]) == (0, 5)
    assert [(row["subscale"], row["estimate"], row["items"]) for row in found["subscales"]] == [
        ("method", 0.5, ["order", "asking"])
    ]
    assert "| method | tuned − base | +0.50 |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Sub-scales" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert found["scale"] == {"min": 1, "max": 5, "total_min": 4, "total_max": 20, "cutoff": None}
    assert any("the instrument is that of rated/rubric.yaml: Session impression" in note for note in found["notes"])


WRONG = """
name: Mine
minimum: 1
maximum: 5
items:
  - {name: Warmth, weight: true, anchors: {low: cold, 6: warm}}
  - {name: Warmth, anchor: {1: cold}, cues: [{name: asks, measure: questions}]}
"""


def test_all_that_is_wrong_is_told_at_once_a_line_each(capsys, tmp_path):
    path, good = tmp_path / "r.yaml", tmp_path / "good.yaml"
    path.write_text(WRONG)
    good.write_text(example_text())
    code, out, err = run(capsys, "rubric", "check", path, good, tmp_path / "none.yaml")
    assert (code, out.splitlines()[0]) == (2, f"{good}: Session impression (4 items, 1-5)")
    assert [line.removeprefix(f"cbtrain: {path}: ") for line in err.splitlines()[:-1]] == [
        "items.0.weight: must be a number. Got True.",
        "items.0 (Warmth).anchors.low: must be a number",
        "items.1 (Warmth).cues.0 (asks).measure: no such measure. Did you mean 'question_share'?",
        "items.1 (Warmth).anchor: unknown key. Did you mean 'anchors'?",
        "items.0 (warmth): anchors at 6, no point of the scale (1 to 5)",
        "two domains have the id 'warmth'",
        "two domains have the name 'Warmth'",
    ]
    assert "none.yaml: cannot be read" in err.splitlines()[-1]
    code, _, err = run(capsys, "rubric", "show", path)
    assert (code, err.count("\n")) == (2, 1)
    assert "7 problems: (1) items.0.weight" in err


def test_shipped_rubrics_are_listed_and_shown_and_survive_a_file(capsys, tmp_path):
    code, out, _ = run(capsys, "rubric", "list")
    assert code == 0
    for name in shipped_rubrics():
        assert f"\n{name} " in out
        rubric = load_rubric(name)
        shown = run(capsys, "rubric", "show", name)[1]
        assert all(
            " ".join(text.split()) in " ".join(shown.split()) for d in rubric.domains for text in d.anchors.values()
        )
        assert json.loads(run(capsys, "rubric", "show", name, "--json")[1])["digest"] == rubric.digest
        write_rubric(rubric, tmp_path / "copy.yaml")
        assert load_rubric(str(tmp_path / "copy.yaml")) == rubric


def test_the_alliance_is_our_own_with_three_parts_and_reversed_items():
    rubric = load_rubric("alliance")
    assert {name: len(ids) for name, ids in rubric.subscales.items()} == {"bond": 3, "goals": 3, "tasks": 3}
    assert list(rubric.keying.turned) == ["strain", "cross_purposes"]
    assert all(list(domain.anchors) == [1, 3, 5] and not domain.cues for domain in rubric.domains)
    assert "not the WAI, not validated" in rubric.name
    best = {domain.id: 1.0 if domain.reversed else 5.0 for domain in rubric.domains}
    assert rubric.keying.total(best) == rubric.total_range[1] == 45
