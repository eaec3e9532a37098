"""What a chat holds, its commands, and how its answers are printed: nothing here loads a model."""

import io
import re
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from rich.cells import cell_len

from cbtrain.errors import UserError
from cbtrain.serving.chat.commands import COMMANDS, Call, parse
from cbtrain.serving.chat.conversation import Answer, Conversation
from cbtrain.serving.chat.crisis_words import mentions_crisis
from cbtrain.serving.chat.terminal import AnswerLines
from cbtrain.tokens.config import OPENING
from cbtrain.tokens.dialogue import Message


def test_only_an_adapters_own_answers_keep_their_tokens():
    talk = Conversation(7)
    talk.say("Hello.")
    talk.set_answer(Answer("Hi.", "warm", talk.next_seed(), ids=(1, 2)))
    talk.say("I feel low.")
    talk.set_answer(Answer("Why?", None, talk.next_seed(), ids=(3,)))
    talk.say("No idea.")
    own, others = Message("assistant", "Hi.", ids=(1, 2)), Message("assistant", "Why?")
    words = [Message("user", text) for text in ("Hello.", "I feel low.", "No idea.")]
    assert talk.messages(None, "warm") == [words[0], own, words[1], others, words[2]]
    assert talk.messages("Be kind.", None)[0] == Message("system", "Be kind.")
    assert talk.messages(None, None)[3] == Message("assistant", "Why?", ids=(3,))
    assert (talk.first_seed, talk.seed) == (7, 9)
    assert Conversation(0).messages(None, None) == [Message("user", OPENING)]


def test_an_answer_is_given_again_and_an_exchange_taken_back():
    talk = Conversation(0)
    assert not talk.unsaved
    talk.say("One.")
    talk.set_answer(Answer("First.", None, 0))
    before = talk.messages(None, None)
    talk.set_answer(Answer("Second.", None, 1))
    assert talk.messages(None, None) == before == [Message("user", "One.")]  # what is answered again is not shown
    talk.mark_saved()
    assert not talk.unsaved
    talk.say("Two.")
    talk.say("And three.")  # nothing came in between
    assert [message.content for message in talk.messages(None, None)] == ["One.", "Second.", "Two.\n\nAnd three."]
    assert [turn.text for turn in talk.session({}).turns] == ["One.", "Second.", "Two.\n\nAnd three."]
    assert talk.unsaved
    assert talk.undo().words == "Two.\n\nAnd three."
    assert not talk.unsaved


def test_commands_and_words_that_look_like_commands():
    assert parse("/save my talk.jsonl ") == Call("save", "my talk.jsonl")
    assert parse(" /quit") == Call("quit")
    assert parse("//etc is a folder") == "/etc is a folder"
    assert parse("and/or") == "and/or"
    assert parse("  ") == ""
    for line, problem in {
        "/sav": "unknown command '/sav'. Did you mean '/save'?",
        "/": "unknown command '/'",
        "/undo 2": "/undo takes no argument",
    }.items():
        with pytest.raises(UserError, match=re.escape(problem)):
            parse(line)


def test_the_documentation_lists_every_command():
    page = (ROOT / "docs" / "chat.md").read_text("utf-8")
    assert re.findall(r"^\| `/(\w+)", page, re.M) == list(COMMANDS)


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        ("I want to die.", True),
        ("sometimes I just  don’t want to be here\nanymore", True),
        ("I have been cutting myself", True),
        ("My brother's SUICIDE", True),
        ("They would be better off without me", True),
        ("I am dying to see them, and the deadline kills me.", False),
        ("I want a diet", False),
        ("I cut my sleeves myself", False),
        ("What is the reason to go on Monday?", False),
    ],
)
def test_plain_words_of_suicide_and_self_harm(words, mentioned):
    assert mentions_crisis(words) is mentioned


def printed(parts, width, column=0):
    lines = AnswerLines(width, column)
    with redirect_stdout(io.StringIO()) as out:
        for part in parts:
            lines.add(part)
        lines.finish()
    return out.getvalue()


CHARACTERS = st.sampled_from("ab é…漢字\n\t\u00a0👍")


@given(st.lists(st.text(CHARACTERS, max_size=9), max_size=12), st.integers(4, 20), st.integers(0, 3))
def test_pieces_are_printed_as_the_whole_would_be_in_lines_that_fit(parts, width, column):
    text = "".join(parts)
    out = printed(parts, width, column)
    assert out == printed([text], width, column)
    first, *others = (" " * column + out).split("\n")
    assert all(cell_len(line) <= width for line in (first, *others))
    assert "".join(out.split()) == "".join(text.split())
    plain = printed(parts, None)
    assert plain == printed([text], None)
    assert plain.split() == text.split()


def test_an_answer_cannot_command_the_terminal():
    text = "a\x1b]0;title\x07b \x9b31m \u202ec\ud800 \r\x1f"
    assert printed([text], None) == "a\ufffd]0;title\ufffdb \ufffd31m \ufffdc\ufffd \ufffd\ufffd"
