import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.transcripts.duplicates import SHINGLE, SKETCH, WORD, DuplicateFinder, sketch_of, sketches_of
from cbtrain.transcripts.personal_data import personal_data
from cbtrain.transcripts.types import Session, Turn


def session(number, words, role="patient"):
    return Session("c", number, (Turn(role, " ".join(words)),))


def exact_jaccard(one, other):
    def shingles(words):
        words = WORD.findall(" ".join(words).lower())
        return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}

    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def found(sessions, threshold=0.5):
    finder = DuplicateFinder()
    for one in sessions:
        finder.add(one)
    return list(finder.find(threshold))


def text(seed, length=800):
    draw = random.Random(seed)
    return [f"w{draw.randrange(5000)}" for _ in range(length)]


@pytest.mark.parametrize("changed", [0.02, 0.05, 0.08])
def test_the_estimate_is_near_the_exact_index(changed):
    errors = []
    for seed in range(12):
        draw, one = random.Random(seed), text(seed)
        other = [word if draw.random() > changed else "new" + word for word in one]
        exact = exact_jaccard(one, other)
        (double,) = found([session(1, one), session(2, other)], 0.3)
        assert (double.index, double.other, double.exact) == (1, 0, False)
        errors.append(double.similarity - exact)
    standard_error = 0.5 / SKETCH**0.5
    assert max(map(abs, errors)) < 4 * standard_error
    assert abs(sum(errors) / len(errors)) < 4 * standard_error / len(errors) ** 0.5


def test_small_texts_are_compared_exactly():
    one, other = text(1, 30), text(1, 30)[:25] + text(2, 5)
    (double,) = found([session(1, one), session(2, other)])
    assert double.similarity == pytest.approx(exact_jaccard(one, other))


@given(st.lists(st.lists(st.integers(0, 40), min_size=SHINGLE, max_size=200), min_size=1, max_size=9))
def test_sketches_made_together_are_those_made_one_by_one(texts):
    hashes = [[number * 0x9E3779B97F4A7C15 % 2**64 for number in text] for text in texts]
    for together, words in zip(sketches_of(hashes), hashes, strict=True):
        assert together.tolist() == sketch_of(words).tolist()


def test_different_sessions_are_no_duplicates():
    boilerplate = text(99, 60)
    assert found([session(i, boilerplate + text(i)) for i in range(100)]) == []


def test_a_large_family_of_copies_hangs_together():
    draw = random.Random(0)
    base = text(0)
    family = [[w if draw.random() > 0.01 else f"x{i}" for w in base] for i in range(200)]
    doubles = found([session(i, words) for i, words in enumerate(family)])
    assert {double.index for double in doubles} == set(range(1, 200))
    assert all(double.other < double.index for double in doubles)


def test_copies_are_exact_whatever_the_spaces_and_not_with_other_speakers():
    words = text(3)
    doubles = found([session(1, words), session(2, [w.upper() for w in words]), session(3, words, "therapist")])
    assert [(d.index, d.other, d.exact) for d in doubles] == [(1, 0, True), (2, 0, False)]
    assert found([Session("c", 1, ()), Session("c", 2, ())]) == []


@pytest.mark.fault("A7")
@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ("mail ann.lee+x@mail.example.org", ["e-mail"]),
        ("call +44 20 7946 0958 or (415) 232-9981", ["telephone", "telephone"]),
        ("call +4915112345679, 4152329981 or 01719876543; 请打13812345678。", ["telephone"] * 4),
        ("0049 170 1234567, +33 6 12 34 56 78, 06 12 34 56 78, 030/12345678", ["telephone"] * 4),
        ("+91 98765 43210, +7 (912) 345-67-89, +55 11 91234-5678, +86 138 0013 8000", ["telephone"] * 4),
        ("100 000 000 people, PHQ-9 15, user_3105551234, 1609459200, at 10.30 11.45 12.15, 2021-05-03, 20192020", []),
        ("order 123456 of 20240131, 5555550123 in the film, 0.5123456789 and 1000000000", []),
        ("call 988 or 1-800-273-8255, or 212-555-0123 in the film", []),
        ("my number is 123-45-6789", ["social security"]),
        ("pay with 4111 1111 1111 1111", ["card"]),
        ("not 4111 1111 1111 1112 though", []),
        ("to GB82 WEST 1234 5698 7654 32", ["IBAN"]),
        ("at 12 Baker Street", ["street"]),
        ("born on March 3, 1990", ["date of birth"]),
        ("see https://clinic.example.org/me", ["link"]),
        ("from 0 to 100, say 70, in 2019 2020 2021, 10:30 and 5-7 times", []),
        ("1. walk 2. call 3. sleep 8 hours", []),
    ],
)
def test_personal_data_by_its_shape(said, kinds):
    assert [kind for kind, _, _ in personal_data(said)] == kinds
