"""What differs between two evaluations' protocols is named, also where one of them does not know of it."""

from cbtrain.study.evaluation.protocol import PLAN, deviations, differing


def test_all_differences_are_named():
    assert differing({"a": 1, "b": {"c": 2, "d": 4}}, {"a": 1, "b": {"c": 3, "d": 4}}) == ["b.c"]
    assert differing({"a": 1, "new": None}, {"a": 1}) == ["new"]
    assert differing({"a": 1}, {"a": 2, "old": {"x": 1}}) == ["a", "old"]
    assert differing({"a": {"b": 1}}, {"a": {"b": 1}}) == []


def test_what_was_changed_after_the_plan_is_a_deviation():
    plan = {"judge": {"model": "one"}, "seed": 7, "patient": {"instructions": "x" * 100}}
    events = [{"kind": "turn"}, {"kind": PLAN, "time": "2026-11-23T03:10:00.123+00:00", "protocol": plan}]
    assert deviations(plan, events) == []
    later = {"judge": {"model": "two"}, "patient": {"instructions": "y" * 100}}
    assert deviations(later, events) == [
        "judge.model was one in the plan of 2026-11-23 03:10 UTC, and is two",
        "seed was 7 in the plan of 2026-11-23 03:10 UTC, and is nothing",
        f"patient.instructions was {'x' * 57}... in the plan of 2026-11-23 03:10 UTC, and is {'y' * 57}...",
    ]
    assert "no plan was journalled" in deviations(plan, [{"kind": "turn"}])[0]
