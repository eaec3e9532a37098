"""Which contrasts are planned: written out for studies of many arms, and what holds for any arms."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import report_of
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import UNTUNED, Arm, arms_of, check_references
from cbtrain.eval.analysis.contrast_plan import describe_arms_found, plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.report.claim import claim_of
from cbtrain.eval.report.latex import escape, render_latex
from cbtrain.eval.report.notable import FAMILIES
from cbtrain.eval.report.render import render_html

pytestmark = pytest.mark.fault("G2")

BASES = ("llama", "mistral", "qwen")
VENDOR = Arm("gpt", "gpt", "untuned", is_reference=True)
STUDY = [Arm(f"{base}-{kind}", base, kind) for base in BASES for kind in ("untuned", "tuned", "placebo")]


def by_family(*arms):
    """The ids of each family of ``arms``, in order."""
    families = {}
    for plan in plan_contrasts({arm.name: arm for arm in arms}):
        families.setdefault(plan.family, []).append(plan.id)
    return families


def test_three_bases_with_placebos_and_a_vendors_model():
    assert by_family(*STUDY, VENDOR) == {
        "tuning": ["llama: tuned − untuned", "mistral: tuned − untuned", "qwen: tuned − untuned"],
        "placebo": [
            "llama: tuned − placebo",
            "llama: placebo − untuned",
            "mistral: tuned − placebo",
            "mistral: placebo − untuned",
            "qwen: tuned − placebo",
            "qwen: placebo − untuned",
        ],
        "pooled": ["all bases: tuned − untuned", "all bases: tuned − placebo", "all bases: placebo − untuned"],
        "tuned": ["tuned: llama − mistral", "tuned: llama − qwen", "tuned: mistral − qwen"],
        "reference": [f"{base}-{kind} − gpt" for base in BASES for kind in ("placebo", "tuned", "untuned")],
    }
    plans = {plan.id: plan for plan in plan_contrasts({arm.name: arm for arm in [*STUDY, VENDOR]})}
    assert plans["qwen: placebo − untuned"].pairs == (("qwen-placebo", "qwen-untuned"),)
    assert plans["all bases: tuned − placebo"].pairs == tuple((f"{b}-tuned", f"{b}-placebo") for b in BASES)
    assert describe_arms_found({arm.name: arm for arm in [*STUDY, VENDOR]}) == (
        "3 bases (llama, mistral, qwen) × placebo, untuned, tuned; each compared with gpt"
    )


def test_the_plan_of_the_2024_study():
    """By the names of its folders; as it was before there were placebos and references."""
    arms = arms_of([f"{base}_{kind}_Simulation_Nov_1" for base in ("Llama", "Mistral", "Qwen") for kind in ("Finetune", "Instruct")])  # fmt: skip
    pairs = [(f"{base}_Finetune_Simulation_Nov_1", f"{base}_Instruct_Simulation_Nov_1") for base in ("Llama", "Mistral", "Qwen")]  # fmt: skip
    assert [(plan.id, plan.family, plan.pairs) for plan in plan_contrasts(arms)] == [
        ("Llama: tuned − instruct", "tuning", (pairs[0],)),
        ("Mistral: tuned − instruct", "tuning", (pairs[1],)),
        ("Qwen: tuned − instruct", "tuning", (pairs[2],)),
        ("all bases: tuned − instruct", "pooled", tuple(pairs)),
        ("tuned: Llama − Mistral", "tuned", ((pairs[0][0], pairs[1][0]),)),
        ("tuned: Llama − Qwen", "tuned", ((pairs[0][0], pairs[2][0]),)),
        ("tuned: Mistral − Qwen", "tuned", ((pairs[1][0], pairs[2][0]),)),
    ]


def test_prompts_of_one_base():
    """Each has its place, whether it is a variant, or untuned like another one."""
    tuned, untuned = Arm("tuned", "llama", "tuned"), Arm("plain", "llama", "untuned")
    prompts = [Arm("cbt", "llama", "cbt"), Arm("few", "llama", "few-shot")]
    variants = ["llama: tuned − cbt", "llama: cbt − untuned", "llama: tuned − few-shot", "llama: few-shot − untuned"]
    assert by_family(tuned, untuned, *prompts) == {"tuning": ["llama: tuned − untuned"], "variants": variants}

    alike = [replace(arm, variant="untuned") for arm in prompts]
    assert by_family(tuned, untuned, *alike) == {
        "arms": [f"{a} − {b}" for a, b in combinations(("tuned", "plain", "cbt", "few"), 2)]
    }
    assert by_family(replace(tuned, reference="cbt"), untuned, *alike) == {
        "tuning": ["tuned − cbt"],
        "variants": ["tuned − few", "few − cbt", "tuned − plain", "plain − cbt"],
    }
    placebo = Arm("placebo", "llama", "placebo")
    assert by_family(tuned, untuned, alike[0], placebo) == {
        "placebo": ["llama: tuned − placebo"],
        "arms": ["tuned − plain", "tuned − cbt", "plain − cbt", "plain − placebo", "cbt − placebo"],
    }
    # Another base, which lacks one of the prompts.
    other = [Arm(f"qwen-{kind}", "qwen", kind) for kind in ("tuned", "untuned", "cbt")]
    third = [Arm(f"yi-{kind}", "yi", kind) for kind in ("tuned", "untuned")]
    assert by_family(tuned, untuned, *prompts, *other, *third)["pooled"] == [
        "all bases: tuned − untuned",
        "2 of 3 bases: tuned − cbt",
        "2 of 3 bases: cbt − untuned",
    ]


def test_an_arm_may_be_in_its_base_and_the_reference_of_all():
    """Its contrasts are in two families, under two ids, also where both are the arms' names."""
    first, second = Arm("a", "", ""), Arm("b", "", "", reference="c")
    assert by_family(first, second, Arm("c", "", "", is_reference=True)) == {
        "tuning": ["b − c"],
        "reference": ["a − c", "reference: b − c"],
    }


NAMES = ["a", "b", "a − b", "b − a", "tuned: A − B", "reference: a − b", "A: tuned − untuned", "all bases: x − y"]
VARIANTS = ["", "tuned", "tuned", "placebo", "untuned", "instruct", "few-shot", "DPO"]


@st.composite
def many_arms(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=8, unique=True))
    shared = draw(st.sampled_from(["", *names]))
    arms = {}
    for name in names:
        base, variant = draw(st.sampled_from(["", "A", "B"])), draw(st.sampled_from(VARIANTS))
        reference = draw(st.sampled_from(["", "", "", *names]))
        arms[name] = Arm(name, base, variant, "" if name == shared else reference, name == shared)
    try:
        check_references(arms, "test", "the test")
    except UserError:
        assume(False)
    return arms


@given(many_arms())
def test_whatever_the_arms_are(arms):
    plans = plan_contrasts(arms)
    assert len({plan.id for plan in plans}) == len(plans)
    assert {plan.family for plan in plans} <= set(FAMILIES)
    order = [list(FAMILIES).index(plan.family) for plan in plans]
    assert order == sorted(order)
    pairs = [(plan.family, frozenset(pair)) for plan in plans for pair in plan.pairs]
    assert all(len(pair) == 2 and pair <= set(arms) for _, pair in pairs)
    assert max(Counter(pairs).values()) == 1  # once in a family, in one direction
    assert {name for _, pair in pairs for name in pair} == set(arms)
    within = Counter(pair for family, pair in pairs if family in ("tuning", "placebo", "variants", "tuned", "arms"))
    assert max(within.values(), default=1) == 1  # only the reference of all is compared twice, and means repeat
    for arm in arms.values():
        if arm.reference:
            assert frozenset((arm.name, arm.reference)) in within
        if arm.is_reference:
            assert all((("reference", frozenset((arm.name, other)))) in pairs for other in arms if other != arm.name)
    # Without declared references, a trained arm and an untuned one are compared with all others of their base.
    if not any(arm.reference for arm in arms.values()):
        for arm, other in combinations(arms.values(), 2):
            if arm.base == other.base and arm.variant and other.variant and {"tuned"} & {arm.variant, other.variant}:
                assert frozenset((arm.name, other.name)) in within
            if arm.base == other.base and {arm.variant, other.variant} <= UNTUNED.keys():
                assert frozenset((arm.name, other.name)) in within


@pytest.fixture(scope="module")
def whole():
    """The report of eight arms and the vendor's."""
    arms = [arm for arm in STUDY if arm.name != "qwen-placebo"] + [Arm("qwen-few-shot", "qwen", "few-shot"), VENDOR]
    ratings = random_ratings(arms, 5, 2, items=3)
    return ratings, analyzed_report(ratings, draws=100)


def test_p_is_adjusted_in_each_family(whole):
    ratings, _ = whole
    plans = plan_contrasts(ratings.arms)
    contrasts = compare(ratings, plans, ratings.total, draws=0)
    families = dict.fromkeys(plan.family for plan in plans)
    assert list(families) == ["tuning", "placebo", "variants", "pooled", "tuned", "reference"]
    for family in families:
        members = [contrast for contrast in contrasts if contrast.family == family]
        expected = multipletests([contrast.p for contrast in members], method="holm")[1]
        assert np.allclose([contrast.p_adjusted for contrast in members], expected, rtol=1e-12)


def test_every_family_is_called_by_its_name(whole):
    _, made = whole
    report = report_of(made)
    page, table = render_html(report), render_latex(report)
    for family in dict.fromkeys(row.family for row in report.analysis.contrasts):
        assert FAMILIES[family] in page
        assert escape(FAMILIES[family]) in table
    assert "Arms: 3 bases (llama, mistral, qwen) × few-shot, placebo, untuned, tuned; each compared with gpt." in page
    assert [arm.name for arm in report.analysis.arms if arm.is_reference] == ["gpt"]
    # The domains have columns for the headline only: there are too many contrasts.
    assert page.count('<span class="head">llama: tuned − untuned</span></th>') == 1
    assert '<th scope="col" class="n">llama: tuned − placebo</th>' not in page
    for row in (*report.analysis.contrasts, *report.analysis.plan):
        row.family = "novel" if row.family == "placebo" else row.family
    assert ">novel</th>" in render_html(report)


def test_the_headline_calls_tuned_what_is_tuned(whole):
    """An arm of another variant with a declared reference is named, though it is in the same family."""
    _, made = whole
    assert claim_of(report_of(made)).sentence.startswith("Tuned models scored")
    arms = [
        {**arm, "variant": "DPO" if arm["name"] == "qwen-tuned" else arm["variant"]} for arm in made["analysis"]["arms"]
    ]
    told = claim_of(report_of({**made, "analysis": {**made["analysis"], "arms": arms}})).sentence
    assert "Tuned models" not in told
    assert "llama: tuned − untuned" in told
