"""The order of arms: base by base, in each base untuned, placebo, others, tuned."""

from itertools import pairwise

from analyzed import analyzed_report, random_ratings
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.eval.analysis.arm_order import arm_order, base_of, common_reference, in_arm_order, variant_rank
from cbtrain.eval.analysis.arms import Arm, arms_of

STUDY = [
    Arm("llama-tuned", "llama", "tuned"),
    Arm("qwen", "qwen", "instruct"),
    Arm("llama-cbt", "llama", "prompted"),
    Arm("gpt", "gpt", "untuned"),
    Arm("llama-placebo", "llama", "placebo"),
    Arm("qwen-tuned", "qwen", "tuned"),
    Arm("llama", "llama", "untuned"),
]


def test_arms_are_ordered_by_base_then_variant():
    llama, qwen = ["llama", "llama-placebo", "llama-cbt", "llama-tuned"], ["qwen", "qwen-tuned"]
    assert arm_order(STUDY) == [*llama, *qwen, "gpt"]
    assert arm_order(STUDY, "gpt") == ["gpt", *llama, *qwen]
    assert arm_order(STUDY, "qwen-tuned") == ["qwen-tuned", "qwen", *llama, "gpt"]
    # Arms of which nothing is known keep their order, and today's two have theirs.
    assert arm_order([Arm(name, "", "") for name in "cab"]) == ["c", "a", "b"]
    assert arm_order(list(arms_of(["tuned", "base"]).values())) == ["base", "tuned"]


@given(st.permutations(STUDY), st.sampled_from(["", *(arm.name for arm in STUDY)]))
def test_a_base_is_never_torn_apart(arms, reference):
    by_name = {arm.name: arm for arm in arms}
    ordered = [by_name[name] for name in arm_order(arms, reference)]
    assert sorted(arm.name for arm in ordered) == sorted(by_name)
    assert ordered[0].name == reference or not reference
    bases = [base_of(arm) for arm in ordered]
    assert len([1 for one, other in pairwise(bases) if one != other]) == len(set(bases)) - 1
    for one, other in pairwise(ordered):
        if base_of(one) == base_of(other) and one.name != reference:
            assert variant_rank(one.variant) <= variant_rank(other.variant)


def test_every_list_of_an_analysis_has_one_order():
    report = analyzed_report(random_ratings(STUDY, 4, 2, items=2), draws=20)
    found, names = report["analysis"], arm_order(STUDY)
    lists = [found["arms"], found["groups"], found["levels"], found["completion"]["arms"], found["length"]["arms"]]
    assert [[row["name"] for row in rows] for rows in [*lists, report["arms"]]] == [names] * 6
    # The reference of the study is declared, or read from the plan.
    plan = [{"family": "reference", "pairs": [[arm.name, "gpt"]]} for arm in STUDY if arm.name != "gpt"]
    declared = {**found, "arms": [{**row, "is_reference": row["name"] == "qwen"} for row in found["arms"]]}
    assert [common_reference(some) for some in (found, found | {"plan": plan}, declared)] == ["", "gpt", "qwen"]
    led = in_arm_order({**found, "plan": plan, "length": None})
    assert [row["name"] for row in led["completion"]["arms"]][:2] == ["gpt", "llama"]
    assert led["length"] is None
