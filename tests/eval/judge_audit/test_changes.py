"""Changed copies of sessions: by English wording, by a writer's marks, by structure in any language."""

from itertools import pairwise

import pytest
from scripted_judges import dialogue

from cbtrain.errors import UserError
from cbtrain.eval.judge_audit.changes import Material, replies
from cbtrain.eval.judge_audit.inserts import ENGLISH
from cbtrain.eval.judge_audit.probes import KINDS, PROBES, copies, matching_of, probes_of
from cbtrain.eval.judge_audit.sentences import is_question, joined, sentences
from cbtrain.eval.judge_audit.writer import materials
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.rate import records
from cbtrain.text.words import count_words
from cbtrain.transcripts.reading import read

RUBRIC = load_rubric()
CHANGE = {probe.id: probe.change for probe in PROBES}
TURNS = dialogue(
    "I feel low.",
    "Welcome back. Let us set an agenda. What would you like to talk about?",
    "Work, mostly.",
    "How did the homework go?",
    "I did not do it.",
    "Thank you for telling me. What went through your mind at work?",
    "That I am useless.",
    "What would you like to say to a friend who thinks so?",
    "That it was one bad day.",
    "For next week, write down two such thoughts.",
    "All right.",
)
JAPANESE = dialogue(
    "気分が沈んでいます。", "今日は何を話したいですか？一緒に予定を決めましょう。",
    "仕事のことです。", "それはつらいですね。職場で何がありましたか？",
    "失敗しました。", "そのとき何を考えましたか？",
    "自分はだめだと。", "そう考えると気分が沈みます。友だちには何と言いますか？",
    "一度の失敗だと。", "来週まで考えを書いてみてください。できそうですか？",
)  # fmt: skip


def texts(turns):
    return [turn.text for turn in turns]


def changed(probe, turns, language="en", **more):
    made = CHANGE[probe](Material(turns, RUBRIC, language, **more))
    return None if made is None else made.turns


def test_what_is_left_out_and_what_is_not():
    found = changed("no agenda", TURNS)
    # The late question with the same words is no agenda.
    assert texts(found) == ["I feel low.", "Welcome back.", *texts(TURNS)[2:]]
    found = changed("no homework", TURNS)
    gone = {
        "How did the homework go?",
        "I did not do it.",
        "For next week, write down two such thoughts.",
        "All right.",
    }
    assert texts(found) == [text for text in texts(TURNS) if text not in gone]


def test_questions_become_statements_and_the_patient_is_left_alone():
    found = changed("lectures", TURNS)
    assert not any("?" in turn.text for turn in found)
    assert [turn for turn in found if turn.role == "patient"] == [turn for turn in TURNS if turn.role == "patient"]
    assert found[5].text.startswith("Thank you for telling me. ")


def test_contradictions_stand_before_what_was_said():
    found = changed("contradicts", TURNS)
    for before, after in zip(TURNS, found, strict=True):
        assert after.text.endswith(before.text)
        assert (after.text != before.text) == (before.role == "therapist")


def test_answers_that_belong_elsewhere_keep_every_word():
    found = changed("misplaced", TURNS)
    assert sorted(texts(found)) == sorted(texts(TURNS))
    assert all(found[place] != TURNS[place] for place in replies(TURNS))
    assert all(found[place] == turn for place, turn in enumerate(TURNS) if turn.role == "patient")


def test_without_wording_the_parts_of_a_session_are_cut_and_its_own_statements_stand_for_questions():
    assert changed("no agenda", JAPANESE, "ja") == JAPANESE[2:]
    assert changed("no homework", JAPANESE, "ja") == JAPANESE[:-2]
    found = changed("lectures", JAPANESE, "ja")
    assert not any("？" in turn.text for turn in found)
    own = {part for turn in JAPANESE for part in sentences(turn.text)}
    assert all(part in own for turn in found for part in sentences(turn.text))
    assert found[3].text == "それはつらいですね。それはつらいですね。"
    assert changed("padded", JAPANESE, "ja") is changed("contradicts", JAPANESE, "ja") is None
    assert changed("no agenda", JAPANESE[:6], "ja") is None  # too short to be cut


def test_a_writers_marks_and_words_are_used_where_english_does_not_help():
    marked = {"agenda": frozenset({(1, 0), (1, 1)}), "homework": frozenset({(9, 0)})}
    inserts = ENGLISH.translated([f"文{number}です。" for number, _ in enumerate(ENGLISH.texts)])
    more = {"marked": marked, "inserts": inserts}
    assert changed("no agenda", JAPANESE, "ja", **more) == [JAPANESE[0], *JAPANESE[3:]]
    assert texts(changed("no homework", JAPANESE, "ja", **more))[9] == "できそうですか？"
    assert changed("contradicts", JAPANESE, "ja", **more)[3].text.startswith("文9です。それは")
    assert {"文14です。", "文15です。"} <= set(texts(changed("padded", JAPANESE, "ja", **more)))
    assert texts(changed("paraphrased", TURNS, paraphrase=["x"] * 11)) == ["x"] * 11


@pytest.mark.parametrize(
    ("text", "parts", "asked"),
    [
        ("Hello there. How are you?  Fine… ok", ["Hello there.", "How are you?", "Fine…", "ok"], [0, 1, 0, 0]),
        ('He said "no!" Then left.', ['He said "no!"', "Then left."], [0, 0]),
        ("元気ですか？はい。", ["元気ですか？", "はい。"], [1, 0]),
        ("كيف حالك؟ بخير.", ["كيف حالك؟", "بخير."], [1, 0]),
        ("", [], []),
    ],
)
def test_sentences_and_questions_in_several_scripts(text, parts, asked):
    assert sentences(text) == parts
    assert [is_question(part, "") for part in parts] == asked
    assert joined(parts).split() == text.split()


def test_a_semicolon_asks_in_greek_only():
    assert is_question("Πώς είσαι;", "el")
    assert not is_question("Work; mostly", "en")


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_every_probe_changes_the_sample_as_it_says(probe):
    originals = list(records(read("sample").sessions()))
    for name, material in materials(originals, RUBRIC).items():
        assert material.language == "en"
        made = probe.change(material)
        if probe.id == "paraphrased":
            assert made is None  # there is no writer
            continue
        found = made.turns
        assert found == probe.change(material).turns
        assert (found != material.turns) == (probe.id != "renamed")
        roles = [turn.role for turn in found]
        assert all(one != other for one, other in pairwise(roles)), name
        words = [count_words(" ".join(texts(turns))) for turns in (material.turns, found)]
        if probe.id == "padded":
            kept = iter(found)
            assert all(turn in kept for turn in material.turns)  # all there, in order
            assert 1.05 < words[1] / words[0] < 1.5
        if probe.id == "wordier":
            assert 1.2 < words[1] / words[0] < 2
            assert [turn.text.count("?") for turn in found] == [turn.text.count("?") for turn in material.turns]
        if probe.id.startswith("no "):
            assert 0.6 < words[1] / words[0] < 1
        if probe.kind == "injection":
            rest = [new.text.startswith(old.text) for old, new in zip(material.turns, found, strict=True)]
            assert all(rest)


def test_where_there_is_nothing_to_change_there_is_no_copy():
    bare = dialogue("I feel low.", "I see.", "Yes.", "Go on.")
    none = {"paraphrased", "no agenda", "no homework", "lectures", "misplaced", "ruined"}
    assert {probe.id for probe in PROBES if probe.change(Material(bare, RUBRIC)) is None} == none
    assert changed("padded", dialogue("I feel low.", "I see.")) is None
    assert changed("contradicts", bare[:1]) is None
    assert [probe.id for probe in PROBES if changed(probe.id, []) not in (None, [])] == []


def test_copies_have_names_of_their_own_and_say_how_they_were_made():
    originals = [SimulatedSession(f"s{n}", "base", f"p{n}", 0, list(TURNS)) for n in range(5)]
    made = copies(originals, {session.id: Material(session.turns, RUBRIC) for session in originals})
    assert len({copy.session.id for copy in made}) == len(made)
    renamed = [copy for copy in made if copy.probe == "renamed"]
    assert len(renamed) == 3  # no more are needed
    assert {copy.session.arm for copy in renamed}.isdisjoint({"base"})
    assert {copy.way for copy in made if copy.probe == "no agenda"} == {"wording"}
    assert {probe.id for probe in probes_of(["halo"])} == {"no agenda", "no homework"}
    assert {probe.kind for probe in probes_of(KINDS)} | {"repeat", "order", "halo", "generosity"} == set(KINDS)


def test_domains_of_ones_own_rubric_are_matched_and_all_mistakes_are_told():
    assert matching_of(RUBRIC) == {
        "agenda": ["agenda"],
        "homework": ["homework"],
        "questions": ["guided_discovery"],
        "understanding": ["understanding"],
    }
    assert matching_of(RUBRIC, ["agenda=pacing", "agenda=feedback"])["agenda"] == ["pacing", "feedback"]
    with pytest.raises(UserError, match=r"2 problems: .*no aspect 'agend'.*Did you mean 'agenda'.*no domain 'pace'"):
        matching_of(RUBRIC, ["agend=pacing", "homework=pace"])
