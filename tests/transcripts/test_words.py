"""Words in scripts with and without blanks between them; the language of a text."""

import pytest
from command import cbtrain
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.eval.rating.cue_rater import rate
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.dialogue import Limits, _ended
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.text.language import language_of, language_of_all
from cbtrain.text.words import count_words
from cbtrain.transcripts.types import Turn

ZH = "我这周感觉很难过，大多数日子都起不了床，所以又没去上班。"
TEXTS = {
    "en": "I have been low this week and I could not get out of bed, so my boss was angry with me and that is what hurts.",
    "de": "Ich habe mich diese Woche schlecht gefühlt und konnte nicht aufstehen, also war ich wieder nicht bei der Arbeit und es tut mir weh.",
    "fr": "Je me suis senti très mal cette semaine et je ne suis pas sorti du lit, alors le patron est en colère et il ne me parle pas.",
    "es": "Me he sentido muy mal esta semana y no pude levantarme de la cama, así que el jefe está enojado y no sé qué es lo que pasa.",
    "ru": "Я чувствовал себя очень плохо на этой неделе и не мог встать, и поэтому я снова не был на работе. Что мне делать?",
    "uk": "Я почувався дуже погано цього тижня і не міг встати, тому я знову не був на роботі, і це мене засмучує. Що мені робити?",
    "ko": "이번 주에 정말 기분이 안 좋았고 아침에 일어날 수가 없었어요. 그래서 또 회사에 못 갔어요.",
    "ja": "今週はとても気分が落ち込んでいて、ほとんど起きられませんでした。",
    "th": "สัปดาห์นี้ฉันรู้สึกเศร้ามากและลุกจากเตียงไม่ได้",
    "zh": ZH,
}


@pytest.mark.fault("A6")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I feel “sad” — très", 5),  # as str.split has it
        (" … ", 1),
        ("", 0),
        ("나는 슬프다", 2),
        ("我觉得很难过。", 6),
        ("我用App，24小时。", 6),
        ("CBT疗法 hello", 4),
        ("私はとても悲しい", 8),
        ("カウンセラーに話した", 5),  # a run of Katakana is one
        ("ฉันรู้สึกเศร้ามาก", 4),
        ("ຂ້ອຍຮູ້ສຶກເສົ້າ", 3),
        ("ខ្ញុំមានអារម្មណ៍សោកសៅ", 4),
        ("ကျွန်တော်ဝမ်းနည်းတယ်", 3),
    ],
)
def test_words_are_counted_by_script(text, words):
    assert count_words(text) == words
    assert count_words(f"{text} {text}") == 2 * words


@given(st.text(st.characters(max_codepoint=0x24F)))
def test_where_blanks_separate_words_they_are_counted_as_ever(text):
    assert count_words(text) == len(text.split())


@pytest.mark.fault("A6")
def test_a_limit_of_words_ends_a_session_in_chinese():
    turns = [Turn("patient", ZH), Turn("therapist", ZH)]
    assert _ended(turns, Limits(100, 51)) is None
    assert _ended(turns, Limits(100, 50)) == "max_words"


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_of_a_text_is_found(language):
    assert language_of(TEXTS[language]) == language


@pytest.mark.parametrize(
    "text", ["", "Yes, I know.", "xq vv zzt kkp qwe rty uio pas dfg hjk " * 3, f"{ZH[:9]}{TEXTS['en']}"]
)
def test_a_language_is_unknown_where_that_is_not_sure(text):
    assert language_of(text) in ("unknown", "en" if ZH[:9] in text else "unknown")


def test_languages_of_a_corpus_are_the_frequent_ones():
    assert language_of_all([TEXTS["zh"]] * 6 + [TEXTS["en"]] * 4 + ["Yes."] * 50) == ["zh", "en"]
    assert language_of_all(["Yes.", ""]) == []


def session(*texts):
    turns = [Turn("therapist" if index % 2 else "patient", text) for index, text in enumerate(texts)]
    return SimulatedSession("s", "a", "p", 0, turns)


@pytest.mark.fault("A6")
@pytest.mark.parametrize("language", ["zh", "ja", "de", "ru", "th"])
def test_cues_rate_the_language_that_they_are_written_in(language):
    foreign = session(*[TEXTS[language]] * 6)
    score = rate(foreign, load_rubric())
    assert (score.status, score.total) == ("unratable", None)
    assert f"({language}), and the cues of this rubric are in English (en)" in score.reason["error"]
    own = load_rubric().model_copy(update={"cue_language": language})
    assert rate(foreign, own).status == "ok"
    assert rate(session(*[TEXTS["en"]] * 6), load_rubric()).status == "ok"


@pytest.mark.fault("A6")
def test_a_run_that_can_rate_nothing_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"来访者：{ZH}\n咨询师：{ZH}" for _ in range(4)), encoding="utf-8")
    done = cbtrain("rate", "corpus.path=a.txt", "evaluation.judging.rater=cue", "--out", "rated", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "none of 1 session can be rated: it is in Chinese (zh)" in done.stderr
    done = cbtrain("corpus", "card", "a.txt", "--out", "card", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "language:\n- zh\n" in (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
