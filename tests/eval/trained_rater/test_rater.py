"""A trained rater in its file, and the scores that it gives."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_sessions import examples, instrument, planted, session
from scipy import stats

from cbtrain.errors import UserError
from cbtrain.eval.rating.keying import Keying
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import read_scores_csv, write_scores_csv
from cbtrain.eval.trained_rater.rater import fit_rater, load_rater
from cbtrain.eval.trained_rater.rater_file import FittedTo, write_content
from cbtrain.transcripts.types import Turn

DOMAINS = [{"id": "homework"}, {"id": "evidence"}]
RUBRIC = Rubric.model_validate({"name": "two", "minimum": 0, "maximum": 6, "domains": DOMAINS})


def fitted_to(**changed):
    known = {"kind": "machine", "judges": ["gpt-x"], "sessions": 72, "patients": 6, "arms": 3, "languages": ["en"]}
    return FittedTo.model_validate(known | changed)


def fitted(scores=None, given=None, **changed):
    sessions, planned = planted()
    found = examples(sessions, planned if scores is None else scores)
    return fit_rater(found, given or instrument(), fitted_to(**changed), [{"score": "total", "r": 0.5}])


@pytest.fixture(scope="module")
def rater():
    return fitted()


def test_it_gives_new_sessions_scores_that_follow_from_what_is_said(rater):
    sessions, scores = planted(seed=9)
    rated = [rater.rate(session, RUBRIC) for session in sessions]
    assert {score.status for score in rated} == {"ok"}
    for place, item in enumerate(RUBRIC.ids):
        found = [score.domains[item] for score in rated]
        assert stats.spearmanr(found, scores[:, place]).statistic > 0.85
        assert all(0 <= value <= 6 and value == round(value, 2) for value in found)
    assert rater.rate(sessions[0], RUBRIC) == rated[0]
    assert (rated[0].judge, rated[0].evidence) == ("imitation of gpt-x", {})
    assert rated[0].total == pytest.approx(sum(rated[0].domains.values()))


def test_a_reason_says_what_it_is_and_adds_up_to_the_score(rater):
    score = rater.rate(session("a0", "p0", 0, 3, 1), RUBRIC)
    reason = score.reason["homework"]
    assert reason.startswith("trained rater: imitates gpt-x, a machine judge; no clinical judgement: mean ")
    assert "homework +" in reason
    numbers = [float(part.rpartition(" ")[2]) for part in reason.removeprefix(rater.label).split(", ")]
    assert len(numbers) == 5
    assert sum(numbers) == pytest.approx(score.domains["homework"], abs=0.04)


def test_its_file_gives_the_same_rater(rater, tmp_path):
    write_content(rater.content, tmp_path / "rater.json")
    again = load_rater(tmp_path / "rater.json")
    assert again == rater
    sessions, _ = planted(seed=3)
    rated = [again.rate(session, RUBRIC) for session in sessions]
    assert rated == [rater.rate(session, RUBRIC) for session in sessions]
    text = (tmp_path / "rater.json").read_text()
    assert json.loads(text)["label"] == rater.label == again.label
    assert "Not a medical device" in text
    write_scores_csv(rated, tmp_path / "scores.csv")  # its decimals survive a table
    assert [score.domains for score in read_scores_csv(tmp_path / "scores.csv")] == [score.domains for score in rated]


@pytest.mark.parametrize(
    ("changed", "label", "judge"),
    [
        ({"kind": "people", "judges": ["human: Ann"]}, "imitates ratings by one person; not validated", "one person"),
        ({"kind": "people", "judges": ["human: Ann", "human: Bo"]}, "ratings by 2 people; not valid", "2 people"),
        ({"judges": ["x", "y"]}, "imitates 2 judges (x, y), machine judges; no clin", "2 judges (x, y)"),
    ],
)
def test_it_says_whom_it_imitates(changed, label, judge):
    rater = fitted(**changed)
    assert label in rater.label
    assert rater.judge == f"imitation of {judge}"
    assert "Ann" not in rater.label + rater.judge


def test_scores_are_as_raters_give_them_and_totals_are_keyed():
    _, scores = planted()
    turned = np.column_stack([scores[:, 0], 6 - scores[:, 1]])
    rater = fitted(turned, instrument(Keying({"evidence": 6.0})))
    keyed = RUBRIC.model_validate({**RUBRIC.identity(), "domains": [DOMAINS[0], DOMAINS[1] | {"reversed": True}]})
    plain, score = (
        each.rate(session("a", "p", 0, 1, 2), RUBRIC if each is not rater else keyed) for each in (fitted(), rater)
    )
    assert score.domains["evidence"] == pytest.approx(6 - plain.domains["evidence"], abs=0.011)
    assert score.total == pytest.approx(plain.total, abs=0.02)


def test_what_it_cannot_rate_is_unratable(rater):
    german = [
        Turn("patient", "Ich bin seit Wochen sehr müde und ich weiß nicht, was ich mit der Arbeit machen soll."),
        Turn("therapist", "Was ist es, das Ihnen an der Arbeit nicht gefällt, und was haben Sie schon versucht?"),
    ] * 3
    for turns, why in (
        (german, "it is in German (de), and the trained rater was fitted to sessions in English (en)"),
        ([Turn("patient", "Hello.")], "no word of the therapist"),
        ([], "no speaker was found"),
    ):
        score = rater.rate(replace(session("a", "p", 0, 1, 1), turns=turns), RUBRIC)
        assert (score.status, score.total, set(score.domains.values())) == ("unratable", None, {None})
        assert why in score.reason["error"]


def test_a_rubric_has_to_have_its_items_and_scale(rater):
    assert rater.check(RUBRIC) == []
    named = Rubric.model_validate(
        {"name": "t", "minimum": 0, "maximum": 6, "domains": [{"name": "Evidence"}, {"name": "Homework"}]}
    )
    assert rater.check(named) == []
    score = rater.rate(session("a", "p", 0, 3, 0), named)
    assert list(score.domains) == ["evidence", "homework"]
    assert score.domains["homework"] > score.domains["evidence"]
    other = Rubric.model_validate(
        {"name": "t", "minimum": 1, "maximum": 5, "step": 0.5, "domains": [DOMAINS[0], {"id": "x"}]}
    )
    with pytest.raises(UserError) as caught:
        rater.check(other)
    text = str(caught.value)
    assert "does not rate x; the rubric lacks evidence, which it rates; its scores go from 0 to 6" in text
    assert "1 to 5 in steps of 0.5" in text
    assert "\n" not in text
    changed = fitted(given=replace(instrument(), digest="other"))
    assert changed.check(RUBRIC) == ["the rubric has changed since the trained rater was fitted (two)"]


def damaged(content):
    content["features"]["version"] = 0
    content["features"]["spread"][0] = 0
    content["items"][0]["coefficients"].pop()
    content["items"][1]["id"] = "homework"
    return content


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (damaged, "its features are of version 0, this cbtrain counts 1; items.homework.coefficients: 43 numbers for 44 "
         "features; features.spread: must be above 0; two items are called 'homework'"),
        (lambda content: {**content, "items": [], "own": 1, "fitted_to": {**content["fitted_to"], "kind": "x"}},
         "fitted_to.kind: must be 'machine' or 'people'; items: must have a length of at least 1; own: unknown key"),
        (lambda content: {**content, "schema": "cbtrain.rater/2"}, "its schema is 'cbtrain.rater/2', not 'cbtrain.rater/1'"),
        (lambda content: [content], "it names no schema"),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_a_file_is_one_line(rater, tmp_path, change, problem):
    path = tmp_path / "rater.json"
    write_content(rater.content, path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError) as caught:
        load_rater(path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_or_no_json_is_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_rater(tmp_path / "rater.json")
    (tmp_path / "rater.json").write_text("{")
    with pytest.raises(UserError, match="no trained rater"):
        load_rater(tmp_path / "rater.json")
