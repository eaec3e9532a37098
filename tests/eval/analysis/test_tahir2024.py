"""The 2024 study's analysis, from its own raw scores, to the printed digit."""

from dataclasses import replace

import numpy as np
import pytest
from places import SCORES2024, needs_scores

from cbtrain.errors import UserError
from cbtrain.eval.analysis.descriptives import session_groups
from cbtrain.eval.analysis.mixed_models.random_intercept import OPTIMIZERS, fit_mixed
from cbtrain.eval.analysis.mixed_models.tahir2024 import DoesNotFit, analyze_as_published
from cbtrain.eval.analysis.ratings import join_ratings
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.scores import Score, write_scores_csv

HEAD = "id,patient_id,group,Warmth,Task,justifications\n"


@pytest.fixture(scope="module")
def published():
    return analyze_as_published(read_ratings(SCORES2024))


@needs_scores
def test_groups_are_the_published_ones(published):
    found = {(group.base, group.variant): group for group in published.groups}
    assert {key: (group.n, f"{group.mean:.2f} ± {group.sd:.2f}") for key, group in found.items()} == {
        ("Llama", "tuned"): (100, "67.86 ± 7.24"),
        ("Llama", "instruct"): (100, "59.83 ± 10.44"),
        ("Qwen", "tuned"): (100, "64.28 ± 9.55"),
        ("Qwen", "instruct"): (100, "55.09 ± 9.91"),
        ("Mistral", "tuned"): (100, "64.17 ± 9.79"),
        ("Mistral", "instruct"): (93, "47.20 ± 14.09"),
    }
    assert [(g.low, g.high) for key, g in found.items() if key == ("Mistral", "tuned")] == [(11, 77)]
    items = {key: group.items for key, group in found.items()}
    assert f"{items['Llama', 'tuned']['Agenda']:.2f}" == "5.79"
    assert f"{items['Qwen', 'instruct']['Guided Discovery']:.2f}" == "3.32"
    assert f"{items['Mistral', 'instruct']['Homework']:.2f}" == "4.13"


@needs_scores
def test_the_mixed_model_is_the_published_one(published):
    terms = {term.term: f"{term.estimate:.3f} [{term.ci_low:.3f}, {term.ci_high:.3f}]" for term in published.fit.terms}
    assert terms == {
        "intercept": "69.508 [67.650, 71.367]",
        "base: Mistral": "-8.054 [-10.113, -5.995]",
        "base: Qwen": "-4.160 [-6.200, -2.120]",
        "variant: instruct": "-11.326 [-13.002, -9.650]",
        "session": "0.179 [-0.659, 1.018]",
    }
    fit = published.fit
    assert (f"{fit.patient_variance:.3f}", f"{fit.scale:.3f}", f"{fit.log_likelihood:.3f}", f"{fit.aic:.2f}") == (
        *("0.873", "108.338", "-2232.285", "4478.57"),
    )
    assert (fit.n, fit.patients, fit.optimizer, fit.problem) == (593, 5, "powell", "")
    raw = {term.term: term.p for term in published.terms}
    assert f"{raw['session']:.3f}" == "0.675"
    # Six coefficients, as the study counts them.
    assert len(published.terms) == 6
    assert published.p_adjusted["base: Qwen"] == pytest.approx(6 * raw["base: Qwen"])
    assert published.p_adjusted["session"] == 1.0


@needs_scores
@pytest.mark.parametrize("optimizer", OPTIMIZERS[:3])
def test_every_optimizer_before_the_last_reaches_it(optimizer, monkeypatch):
    monkeypatch.setattr("cbtrain.eval.analysis.mixed_models.random_intercept.OPTIMIZERS", (optimizer,))
    fit = analyze_as_published(read_ratings(SCORES2024)).fit
    assert (fit.optimizer, f"{fit.log_likelihood:.3f}", f"{fit.patient_variance:.3f}") == (
        optimizer,
        "-2232.285",
        "0.873",
    )


def made(patients=8, each=12, spread=3.0, seed=0):
    """Scores with known effects: 60, ten more when tuned, patients that differ by ``spread``."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), each)
    tuned = np.tile([0.0, 1.0], patients * each // 2)
    level = rng.normal(0, spread, patients) if spread else np.zeros(patients)
    y = 60 + 10 * tuned + level[patient] + rng.normal(0, 4, len(patient))
    return y, np.column_stack([np.ones(len(y)), tuned]), patient


def test_a_balanced_design_has_an_answer_by_hand():
    """With as many sessions of each kind for every patient, the effect is the mean difference within patients, and the
    patients' variance the one that the analysis of variance gives, by maximum likelihood."""
    y, design, patient = made()
    fit = fit_mixed(y, design, ["intercept", "tuned"], patient)
    cells = np.array([[y[(patient == p) & (design[:, 1] == t)].mean() for t in (0, 1)] for p in range(8)])
    assert fit.terms[1].estimate == pytest.approx((cells[:, 1] - cells[:, 0]).mean())
    n, k = 96, 12
    within = y - design[:, 1] * fit.terms[1].estimate - fit.terms[0].estimate
    means = np.array([within[patient == p].mean() for p in range(8)])
    residual = sum(((within[patient == p] - means[p]) ** 2).sum() for p in range(8)) / (n - 8)
    assert fit.scale == pytest.approx(residual, rel=1e-3)
    assert fit.patient_variance == pytest.approx((means**2).mean() - residual / k, rel=1e-2)
    assert fit.problem == ""


def test_what_is_wrong_with_a_fit_is_told():
    y, design, patient = made(spread=0, seed=5)
    level = np.array([y[patient == p].mean() for p in range(8)])
    flat = fit_mixed(y - level[patient] + y.mean(), design, ["intercept", "tuned"], patient)
    assert "boundary of zero" in flat.problem
    with pytest.raises(ValueError, match="depend on each other"):
        fit_mixed(y, np.column_stack([design, design[:, 1]]), ["a", "b", "c"], patient)
    with pytest.raises(ValueError, match="finite"):
        fit_mixed(np.where(y == y[0], np.nan, y), design, ["a", "b"], patient)


def test_our_own_scores_are_read_and_gaps_stay_gaps(tmp_path):
    rows = [
        Score(
            session_id=f"p{n}.tuned.0",
            arm="tuned",
            patient=f"p{n}",
            seed=0,
            judge="j",
            repeat=repeat,
            status="ok",
            domains={"agenda": 3.0, "homework": h},
        )
        for n in range(2)
        for repeat, h in enumerate([2.0, None])
    ]
    write_scores_csv(rows, tmp_path / "scores.csv")
    ratings = read_ratings(tmp_path / "scores.csv")
    assert (len(ratings), ratings.item_names) == (4, ("agenda", "homework"))
    assert np.isnan(ratings.total).tolist() == [False, True, False, True]
    (group,) = session_groups(ratings)
    assert (group.n, group.mean, group.sd) == (2, 5.0, 0.0)
    with pytest.raises(ValueError, match="two bases"):
        analyze_as_published(ratings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "column 'arm' is missing"),
        ("id,patient,group\n", "column 'arm' is missing. .*--map arm=COLUMN.*Columns: id, patient, group"),
        ("session_id,arm,patient\n", "no column has scores"),
        (HEAD, "the table has no ratings"),
        (HEAD + "1_x,p,,3,4,\n", r":2: group is empty"),
        (HEAD + "x,p,Llama_Instruct_1,3,4,\n", r":2: no session number in id 'x'"),
        (HEAD + "1_x,p,Llama_Instruct_1,3,many,\n", r":2: Task: 'many' is not a number"),
        (HEAD + "1_x,p,Llama_Instruct_1,3,inf,\n", r":2: Task: 'inf' is not a number"),
        (
            HEAD + "1_x,p,Llama_Instruct_1,3,4,\n1_y,p,Llama_Instruct_1,3,5,\n",
            "session 1 of patient p .* occurs twice",
        ),
    ],
)
def test_bad_tables_are_one_line(text, problem, tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=problem) as caught:
        read_ratings(file)
    assert "\n" not in str(caught.value)


@needs_scores
def test_sessions_rated_twice_are_not_taken_for_more_sessions():
    ratings = read_ratings(SCORES2024)
    again = replace(ratings, judge=np.full(len(ratings), "another"))
    with pytest.raises(DoesNotFit, match="one rating per session"):
        analyze_as_published(join_ratings([ratings, again], "both"))
