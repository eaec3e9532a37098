"""Measures of patients on dialogues whose values can be counted by hand, and the comparison of sets."""

import numpy as np
import pytest
from scipy import stats

from cbtrain.eval.patient_audit.agreement import curve_of, half_life
from cbtrain.eval.patient_audit.comparison import differences, energy_test
from cbtrain.eval.patient_audit.measures import MEASURES, Measured, by_patient, echo, mattr, measured
from cbtrain.eval.patient_audit.resemblance import resemblance
from cbtrain.eval.patient_audit.wordings import agrees
from cbtrain.transcripts.types import Session, Turn


def session(*texts, patient="Jo", number=1, **facts):
    """A session of turns in their order, the patient first."""
    turns = tuple(Turn("therapist" if index % 2 else "patient", text) for index, text in enumerate(texts))
    return Session(patient, number, turns, patient=patient, facts=facts)


def saying(words, patient, agreement=(), reserve=()):
    """A measured session of which only the words and answers matter."""
    return Measured(patient, "", "", dict.fromkeys(MEASURES, 1.0), {}, agreement, reserve, words)


def test_measures_of_a_session_can_be_counted_by_hand():
    found = measured(
        session(
            "My sleep is bad.",
            "Could you keep a sleep diary this week?",
            "Okay. A sleep diary, every night?",
            "Every night, yes.",
            "Yeah, but maybe I won't.",
            ending="max_turns",
        )
    )
    assert found.ending == "max_turns"
    assert {name: found.values[name] for name in ("turns", "words_per_turn", "questions", "agreement", "drift")} == {
        "turns": 3,
        "words_per_turn": 5,
        "questions": pytest.approx(1 / 3),
        "agreement": 0.5,  # "Yeah, but" is none
        "drift": 0,
    }
    assert found.values["words_sd"] == pytest.approx(1.0)
    assert found.values["first_person"] == pytest.approx(2 / 15)
    assert found.values["hedges"] == pytest.approx(100 / 15)
    assert found.values["diversity"] is None  # fewer words than the window
    assert (found.agreement, found.reserve) == ([True, False], [False, True])
    assert measured(session("", "How are you?")) is None


def test_a_summary_that_opens_a_session_is_not_counted():
    text = "Hi, I'm back. Last time we talked about: sleep, a diary, and thoughts that come at night, and many more."
    cut, plain = measured(session(text, "Hello.", "I slept.")), measured(session("Hi, I'm back.", "Hello.", "I slept."))
    assert (cut.summary_cut, plain.summary_cut) == (True, False)
    assert cut.values["words_per_turn"] < 5


def test_wordings_in_another_language_are_left_out():
    german = (
        "Ich weiß nicht, was das mit mir zu tun hat, aber ich kann nicht mehr und die Nacht ist lang und es ist so."
    )
    found = measured(session(german, "Und dann?", german))
    assert [found.values[name] for name in ("agreement", "hedges", "first_person")] == [None] * 3
    assert found.values["words_per_turn"] > 20
    assert found.agreement == []


def test_mattr_does_not_depend_on_length():
    assert mattr(["a"] * 49) is None
    assert mattr(["a"] * 50) == pytest.approx(1 / 50)
    assert mattr([str(n) for n in range(50)]) == 1
    words = list(np.random.default_rng(0).choice([str(n) for n in range(90)], 2000))
    slow = np.mean([len(set(words[start : start + 50])) / 50 for start in range(len(words) - 49)])
    assert mattr(words) == pytest.approx(slow)
    assert mattr(words) == pytest.approx(mattr(words[:1000]), abs=0.02)


def test_echo_counts_content_pairs_of_the_turn_before():
    # Pairs with a content word: "keep a", "a diary" ("and I" has none); the patient repeats one of the two.
    turns = session("Hm.", "Keep a diary", "A diary?").turns
    assert echo(turns) == pytest.approx(1 / 2)
    assert echo(session("Hm.", "and I", "and I").turns) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Okay, I'll try.", True),
        ("That makes sense.", True),
        ("You’re right. But it is hard.", True),
        ("Yes, but I can't.", False),
        ("No.", False),
        ("I don't know.", False),
    ],
)
def test_agreement_opens_an_answer_without_reserve(text, expected):
    assert agrees(text) is expected


def test_half_life_of_reserve():
    assert half_life([1, 1, 1, 0.5, 0.5, 0.5, 0, 0]) == 4
    assert half_life([1] * 10) is None
    assert half_life([0] * 10) is None
    assert half_life([1, 0, 0, 0]) is None
    sessions = [saying([], "Jo", [False, True], [True, False])] * 5 + [saying([], "Jo", [True] * 9, [False] * 9)]
    curve = curve_of(sessions)
    assert curve.sessions == [6, 6]  # one session alone reaches further
    assert curve.agreement == pytest.approx([1 / 6, 1])


def test_patients_of_one_voice_are_not_told_apart():
    rng = np.random.default_rng(1)
    vocabulary = np.array([f"w{n}" for n in range(400)])
    own = {patient: vocabulary[40 * n : 40 * n + 60] for n, patient in enumerate("ABCDE")}

    def sessions(words_of):
        return [saying(list(rng.choice(words_of(patient), 200)), patient) for patient in own for _ in range(4)]

    different, alike = resemblance(sessions(own.get)), resemblance(sessions(lambda _: vocabulary))
    assert different.recognised == 1
    assert different.within > different.between + 0.2
    assert alike.recognised < 0.6
    assert alike.chance == pytest.approx(3 / 19)
    assert resemblance([saying(["a"] * 60, "A")]).within is None


def table(values):
    return {str(row): dict.fromkeys(MEASURES, None) | {"turns": x, "echo": y} for row, (x, y) in enumerate(values)}


def test_a_shift_is_found_and_none_is_not_made_up():
    rng = np.random.default_rng(2)
    one, same = (table(rng.normal(size=(20, 2))) for _ in range(2))
    shifted = table(rng.normal((2, 0), size=(20, 2)))
    assert energy_test(one, same).p > 0.05
    found = energy_test(shifted, one)
    assert found.p < 0.001
    assert found == energy_test(shifted, one)
    assert found.measures == ["turns", "echo"]
    turns, *_ = differences(shifted, one)
    assert turns.ci_low < 2 < turns.ci_high
    assert turns.ci_low > 0
    columns = [[row["turns"] for row in rows.values()] for rows in (shifted, one)]
    welch = stats.ttest_ind(*columns, equal_var=False).confidence_interval()
    assert (turns.ci_low, turns.ci_high) == pytest.approx((welch.low, welch.high))
    assert differences(shifted, one)[1].difference is None  # a measure that nobody has


def test_the_energy_distance_is_that_of_its_definition():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(4, 2)) + 1
    both = np.concatenate([x, y])
    a, b = ((part - both.mean(0)) / both.std(0) for part in (x, y))

    def mean_distance(u, v):
        return np.mean([np.linalg.norm(p - q) for p in u for q in v])

    expected = 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)
    assert energy_test(table(x), table(y), permutations=9).distance == pytest.approx(expected)


def test_the_test_keeps_its_level():
    rng = np.random.default_rng(4)
    ps = [
        energy_test(table(rng.normal(size=(8, 2))), table(rng.normal(size=(8, 2))), permutations=199).p
        for _ in range(200)
    ]
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.10


def test_too_few_patients_have_no_interval():
    one, other = table([(1, 2), (2, 3)]), table([(1, 2), (2, 3), (3, 4)])
    assert energy_test(one, other).p is None
    assert differences(one, other)[0].ci_low is None
    assert by_patient([]) == {}
