"""What differs between two evaluations' protocols is named, also where one of them does not know of it."""

from cbtrain.simulation import _difference


def test_the_first_difference_is_named():
    assert _difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == "b.c"
    assert _difference({"a": 1, "new": None}, {"a": 1}) == "new"
    assert _difference({"a": 1}, {"a": 1, "old": {"x": 1}}) == "old"
