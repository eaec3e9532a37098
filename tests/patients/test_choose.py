"""Choosing patients: even, the same for a seed, growing without losing any."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.patients.case import COLUMNS, Case
from cbtrain.patients.choose import choose
from cbtrain.patients.config import PatientsConfig
from cbtrain.patients.library import library
from cbtrain.patients.patients import patients_of

SYMPTOMS = [{"name": "low mood", "severity": 2}]


def case(number, **columns):
    return Case(id=f"p{number}", name=f"P {number}", symptoms=SYMPTOMS, history="x", **columns)


pools = st.lists(st.tuples(*(st.sampled_from(COLUMNS[c]) for c in ("severity", "engagement"))), min_size=1, max_size=14)


@given(pools, st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_a_choice_grows_at_its_end_and_does_not_depend_on_order(pool, seed, random):
    cases = [case(number, severity=s, engagement=e) for number, (s, e) in enumerate(pool)]
    columns = ["severity", "engagement"]
    whole = choose(cases, len(cases), columns, seed)
    assert sorted(one.id for one in whole) == sorted(one.id for one in cases)
    for count in range(len(cases)):
        assert choose(cases, count, columns, seed) == whole[:count]
    assert choose(random.sample(cases, len(cases)), len(cases), columns, seed) == whole


@given(pools, st.integers(0, 9))
@settings(max_examples=12, deadline=None)
def test_one_column_is_as_even_as_it_can_be(pool, seed):
    cases = [case(number, severity=s) for number, (s, _) in enumerate(pool)]
    there = Counter(one.severity for one in cases)
    for count in range(1, len(cases) + 1):
        taken = Counter(one.severity for one in choose(cases, count, ["severity"], seed))
        # A value that is not used up was taken as often as any other, give or take one.
        assert all(taken[v] >= max(taken.values()) - 1 for v in there if taken[v] < there[v])


def test_three_columns_of_a_full_square_are_even_and_then_their_combinations():
    grid = [(s, e) for s in COLUMNS["severity"] for e in COLUMNS["engagement"]]
    cases = [case(n, severity=s, engagement=e) for n, (s, e) in enumerate(grid * 2)]
    chosen = choose(cases, 9, ["severity", "engagement"], 3)
    assert set(Counter(one.severity for one in chosen).values()) == {3}
    assert set(Counter(one.engagement for one in chosen).values()) == {3}
    assert len({(one.severity, one.engagement) for one in chosen}) >= 7


def test_the_library_is_spread_and_another_seed_chooses_others():
    config = PatientsConfig(library="depression", count=3, stratify=["severity"])
    chosen = {seed: [one.id for one in patients_of(config, seed)] for seed in range(3)}
    assert len({tuple(ids) for ids in chosen.values()}) > 1
    values = {one.severity for one in library("depression")}
    assert len({one.severity for one in patients_of(config, 0)}) == min(3, len(values))


def test_the_patients_that_a_config_names(tmp_path):
    ids = [one.id for one in library("depression")]
    assert ids == sorted(ids)
    assert [one.id for one in patients_of(PatientsConfig(library="depression"), 0)] == ids
    wanted = [ids[2], ids[0]]
    assert [one.id for one in patients_of(PatientsConfig(library="depression", only=wanted), 0)] == wanted
    for config, told in (
        ({}, "neither a library nor a file"),
        ({"library": "depression", "file": "x"}, "a library and a file"),
        ({"library": "depresion"}, "Did you mean 'depression'"),
        ({"library": "depression", "only": [ids[0][:-1]]}, f"Did you mean '{ids[0]}'"),
        ({"library": "depression", "only": [ids[0], ids[0]]}, "comes twice"),
        ({"library": "depression", "count": 1000}, "1000 patients wanted, and there are"),
        ({"library": "depression", "stratify": ["risk"]}, "stratify without count"),
    ):
        with pytest.raises(UserError, match=told):
            patients_of(PatientsConfig(**config), 0)


def test_a_patient_without_the_column_is_named():
    with pytest.raises(UserError, match="p1: no style. Give each patient one"):
        choose([case(0, style="plain"), case(1)], 1, ["style"], 0)


def test_patients_in_another_language_are_refused_all_at_once(tmp_path):
    german = "Ich bin nicht mehr so wie früher, und das ist für mich schwer. Was ich auch mache, es ist nicht gut. " * 3
    lines = [one.model_copy(update={"history": german}).model_dump_json() for one in (case(0), case(1, language="de"))]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as error:
        patients_of(PatientsConfig(file=str(path)), 0)
    assert "p0: language is English (en), and its texts are German (de)" in str(error.value)
    assert "patients of 2 languages (English (en): p0; German (de): p1)" in str(error.value)
