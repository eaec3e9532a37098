"""What a trained rater counts."""

import math
import re

import pytest
from pattern_cost import steps_from_one_place
from places import ROOT

from cbtrain.eval.trained_rater import wordings
from cbtrain.eval.trained_rater.features import FEATURES, features_of, names_for
from cbtrain.transcripts.types import Turn


def turns(*texts):
    return [Turn("patient" if index % 2 == 0 else "therapist", text) for index, text in enumerate(texts)]


def counted(*texts):
    return dict(zip(FEATURES, features_of(turns(*texts)), strict=True))


SESSION = (
    "I feel low.",
    "What would you like to put on the agenda today? Anything else?",
    "The quarrel with my brother, I suppose.",
    "It sounds like the quarrel hurts. What went through your mind?",
    "That he hates me.",
    "What is the evidence for that thought?",
    "He did not call.",
    "For homework, write down each day what he does. Take care.",
)


def test_numbers_by_hand():
    found = counted(*SESSION)
    assert found["turns"] == pytest.approx(math.log(9))
    assert found["therapist_words"] == pytest.approx(math.log1p(12 + 11 + 7 + 11))
    assert found["talk_share"] == pytest.approx(41 / (41 + 3 + 7 + 4 + 4))
    assert (found["question_share"], found["ends_with_question"]) == (0.75, 0.75)
    assert found["questions_per_turn"] == 1.0
    assert found["opening_questions"] == 1.0
    assert found["closing_questions"] == 0.5
    assert (found["lecture_share"], found["list_share"], found["number_share"], found["repetition"]) == (0, 0, 0, 0)
    assert found["pickup_share"] == 0.25  # the quarrel
    once = math.log(2)
    assert {found[name] for name in ("agenda_opening", "homework_closing", "farewell", "reflection")} == {once}
    assert (found["review_opening"], found["argument"], found["advice"]) == (0, 0, 0)
    assert found["discovery"] == once
    repeated = counted(*SESSION[:6], SESSION[4], SESSION[5])
    assert repeated["repetition"] == pytest.approx(4 / (9 + 8 + 4 + 4))


def test_curly_apostrophes_residue_and_the_summary_of_the_session_before_change_nothing():
    plain = counted("I am low, and it's hard.", "Let's look at it together.", "Yes.", "You're wrong, that's not true.")
    curly = counted(
        "I am low, and it’s hard.", "Let’s look at it together.[END]", "Yes.", "You’re wrong, that’s not true."
    )
    assert curly == plain
    assert plain["argument"] == plain["collaboration"] == pytest.approx(math.log(2))
    summary = "I am low, and it's hard. In the last session we talked about this summary: work, sleep, many things."
    opened = counted(summary, "Let's look at it together.", "Yes.", "You're wrong, that's not true.")
    assert opened["patient_words_per_turn"] < math.log1p(10)


def test_other_languages_have_the_features_that_need_no_language():
    names = names_for(["de"])
    assert set(names) == {name for name, feature in FEATURES.items() if not feature.language}
    assert names_for([]) == names_for(["de", "en"]) == names
    assert names_for(["en"]) == tuple(FEATURES)
    texts = (
        "最近ずっと眠れません。",
        "眠れない夜に、何を考えていますか？",
        "仕事のことです。",
        "仕事のどんなことですか？",
    )
    found = dict(zip(names, features_of(turns(*texts), names), strict=True))
    assert found["question_share"] == 1.0
    assert found["pickup_share"] == 1.0
    assert all(map(math.isfinite, found.values()))


def test_a_session_of_one_word_each_has_finite_features():
    assert all(map(math.isfinite, features_of(turns("Hello.", "Yes."))))
    assert all(map(math.isfinite, features_of(turns("Last time we discussed: all of this", "Yes."))))


def test_every_feature_is_documented():
    text = (ROOT / "docs/judge-train.md").read_text(encoding="utf-8")
    assert [name for name in FEATURES if f"`{name}`" not in text] == []


def test_wordings_cost_little():
    patterns = [value for value in vars(wordings).values() if isinstance(value, re.Pattern)]
    patterns += wordings.TECHNIQUES.values()
    assert len(patterns) > 25
    assert [pattern.pattern for pattern in patterns if steps_from_one_place(pattern) > 3_000] == []
