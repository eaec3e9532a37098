"""Length beside the contrasts: the 2024 study's figures, and matching against trying every pairing."""

import math
from itertools import permutations

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from rating_table import rating_table

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.mixed_models.random_intercept import fit_mixed
from cbtrain.eval.analysis.ratings import Scale
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.analysis.session_length import length_analysis
from cbtrain.eval.analysis.sessions import SessionOutcome, session_outcomes
from cbtrain.transcripts.reading import read


def one_item(rows):
    """Ratings of (arm, patient, session, total) on a scale from 0 to 66, and facts of (…, turns)."""
    arm, patient, session, total, _ = zip(*rows, strict=True)
    arms = {name: Arm(name, "", {"t": "tuned", "b": "instruct"}.get(name, "")) for name in dict.fromkeys(arm)}
    n = len(rows)
    ratings = rating_table(
        ("total",), arms, np.array(arm), np.array(patient), np.array(session), np.full(n, "j"),
        np.zeros(n, dtype=int), np.array(total, dtype=float)[:, None], Scale(0, 66, 40),
    )  # fmt: skip
    return ratings, {row[:3]: SessionOutcome(row[4], 10 * row[4], "patient_end", False) for row in rows}


@needs_scores
def test_the_2024_scores_depend_on_length():
    ratings = read_ratings(SCORES2024)
    facts = session_outcomes(read(str(SCORES2024.parents[2] / "CBT_Simulations")).sessions())
    found = length_analysis(ratings, facts, plan_contrasts(ratings.arms), 200, 0)
    assert (f"{found.spearman.r:.3f}", found.spearman.n) == ("0.410", 393)
    assert found.spearman.ci_low < 0.41 < found.spearman.ci_high
    assert f"{found.covariate.slope:.2f}" == "3.62"
    adjusted = {contrast.id: contrast for contrast in found.adjusted}
    assert f"{adjusted['Llama: tuned − instruct'].estimate:.2f}" == "5.89"
    # The figures of a model without patients by arm.
    turns = np.array([facts[session].turns if session in facts else np.nan for session in ratings.sessions])
    rows = np.isfinite(ratings.total) & np.isfinite(turns)
    arms = [name for name in ratings.arms if (ratings.arm[rows] == name).any()]
    design = np.column_stack([*(ratings.arm[rows] == name for name in arms), np.log(turns[rows])]).astype(float)
    fit = fit_mixed(ratings.total[rows], design, [*arms, "ln(turns)"], ratings.patient[rows])
    terms = {term.term: term.estimate for term in fit.terms}
    gain = terms["Llama_Finetune_Simulation_Nov_6"] - terms["Llama_Instruct_Simulation_Nov_2"]
    assert (f"{terms['ln(turns)']:.2f}", f"{gain:.2f}") == ("3.65", "5.87")
    assert "no session in the model" in adjusted["Qwen: tuned − instruct"].problem
    least = {contrast.id: contrast for contrast in found.at_least.contrasts}
    assert (least["Llama: tuned − instruct"].pairs, least["Mistral: tuned − instruct"].pairs) == (98, 46)
    assert "no session of Qwen_Finetune_Simulation_Nov_16 can be paired with one of Qwen_Instruct_Simulation_Nov_15: no mean over all bases can be given" in (
        least["all bases: tuned − instruct"].notes
    )  # fmt: skip
    lengths = {arm.name: (arm.sessions, round(arm.turns_mean, 1)) for arm in found.arms if arm.sessions}
    assert lengths["Llama_Finetune_Simulation_Nov_6"] == (100, 32.9)
    assert lengths["Mistral_Instruct_Simulation_Nov_2"] == (93, 6.4)  # 7 ended in an error
    assert lengths["Llama_Instruct_Simulation_Nov_2"][0] == 100  # one did too, and was scored


def test_a_difference_that_is_length_alone_vanishes():
    """Totals are 5 · ln(turns) and noise; the tuned arm talks longer."""
    draw = np.random.default_rng(0)
    rows = []
    for patient in range(20):
        for session in range(5):
            for arm, usual in (("t", 22), ("b", 12)):
                turns = int(np.clip(draw.normal(usual, 6), 2, 60))
                rows.append((arm, f"p{patient}", session, 20 + 5 * math.log(turns) + draw.normal(0, 0.5), turns))
    ratings, facts = one_item(rows)
    found = length_analysis(ratings, facts, plan_contrasts(ratings.arms), 500, 0)
    assert found.covariate.ci_low < 5 < found.covariate.ci_high
    (adjusted,), (matched,) = found.adjusted, found.matched.contrasts
    assert adjusted.ci_low < 0 < adjusted.ci_high
    assert abs(adjusted.estimate) < 0.2
    assert abs(matched.estimate) < 0.4
    assert 20 < matched.pairs < 100
    assert found.spearman.r > 0.9


def test_pairs_are_as_many_and_as_close_as_can_be():
    draw = np.random.default_rng(3)
    rows = [(arm, p, s, float(draw.integers(0, 67)), int(draw.integers(2, 30)))
            for p in "pq" for arm in "tb" for s in range(6)]  # fmt: skip
    ratings, facts = one_item(rows)
    found = length_analysis(ratings, facts, plan_contrasts(ratings.arms), 100, 0).matched
    made = 0
    for patient in "pq":
        one, other = ([(math.log(row[4]), row[3]) for row in rows if row[:2] == (arm, patient)] for arm in "tb")
        tried = []
        for order in permutations(range(6)):
            pairs = [(abs(one[i][0] - other[j][0]), one[i][1] - other[j][1]) for i, j in enumerate(order)]
            inside = [pair for pair in pairs if pair[0] <= found.caliper]
            gap, total = map(sum, zip(*inside, strict=True)) if inside else (0.0, 0.0)
            tried.append((-len(inside), round(gap, 9), total))
        most, closest, _ = min(tried)
        made -= most
        # Of pairings that are equally close none is better: the difference is the mean over them.
        totals = [total for count, gap, total in tried if (count, gap) == (most, closest)]
        assert found.contrasts[0].patients[patient] * -most == pytest.approx(np.mean(totals))
    assert found.contrasts[0].pairs == made > 3
    assert f"{made} of 12 sessions of t have a partner of about equal length in b" in found.contrasts[0].notes


def test_where_no_length_is_known_nothing_is_said():
    ratings, facts = one_item([("t", "p", 0, 3.0, 4), ("b", "p", 0, 2.0, 4)])
    plans = plan_contrasts(ratings.arms)
    assert length_analysis(ratings, {}, plans, 100, 0) is None
    alone = length_analysis(ratings, facts, plans, 100, 0)
    assert (alone.spearman, alone.covariate) == (None, None)
    assert alone.at_least.contrasts[0].estimate is None  # of four turns
    assert alone.matched.contrasts[0].estimate == pytest.approx(1.0)


def test_another_base_changes_nothing_in_the_matching_of_this_one():
    draw = np.random.default_rng(5)
    rows = [(arm, p, s, float(draw.integers(0, 67)), int(draw.integers(8, 12)))
            for p in "pqr" for arm in "tb" for s in range(5)]  # fmt: skip
    more = [(arm, p, s, 30.0, int(draw.integers(2, 60))) for p in "pqr" for arm in ("x", "y") for s in range(5)]
    alone, together = (
        length_analysis(ratings, facts, plan_contrasts(ratings.arms), 100, 0).matched.contrasts[0]
        for ratings, facts in (one_item(rows), one_item(rows + more))
    )
    assert alone.id == together.id
    assert (alone.pairs, alone.estimate) == (together.pairs, together.estimate)
