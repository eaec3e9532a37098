import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.transcripts.config import SplitConfig
from cbtrain.transcripts.split import split
from cbtrain.transcripts.types import Corpus, Course


def corpus(ids):
    return Corpus("x", "x", tuple(Course(i, ()) for i in ids))


def ids(side):
    return [course.id for course in side]


names = st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=3, max_size=40, unique=True)


@given(names, st.integers(0, 5), st.randoms())
def test_every_patient_stands_on_one_side_whatever_the_order_of_files(courses, seed, random):
    parts = split(corpus(courses), SplitConfig(seed=seed))
    sides = [set(ids(side)) for side in (parts.train, parts.validation, parts.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(courses) == len(set.union(*sides))
    shuffled = list(courses)
    random.shuffle(shuffled)
    again = split(corpus(shuffled), SplitConfig(seed=seed))
    assert [set(ids(side)) for side in (again.train, again.validation, again.test)] == sides


def test_shares_and_stability():
    before = split(corpus([f"p{i}" for i in range(40)]), SplitConfig())
    assert (len(before.test), len(before.validation)) == (10, 4)
    after = split(corpus([f"p{i}" for i in range(42)]), SplitConfig())
    assert len(set(ids(before.test)) & set(ids(after.test))) >= 8
    assert split(corpus([f"p{i}" for i in range(40)]), SplitConfig(seed=1)).test != before.test


def test_patients_can_be_named():
    parts = split(corpus("abcde"), SplitConfig(test=["b", "d"], validation=["a"]))
    assert (ids(parts.test), ids(parts.validation), ids(parts.train)) == (["b", "d"], ["a"], ["c", "e"])


@pytest.mark.parametrize(
    ("courses", "config", "message"),
    [
        ("a", {}, "1 patient cannot be split.*at least 3"),
        ("ab", {}, "2 patients cannot be split"),
        ("abc", {"test": ["z"]}, "split.test: no course 'z'"),
        ("abcd", {"test": ["a"], "validation": ["a"]}, "'a' is in test and in validation"),
        ("abcd", {"test": 0.9}, "no patient is left"),
        ("abcd", {"test": 1.5}, "1.5 is not a share"),
    ],
)
def test_impossible_splits_are_refused(courses, config, message):
    with pytest.raises(UserError, match=message):
        split(corpus(courses), SplitConfig(**config))
