"""``cbtrain chat`` with a model: piped input in this process, and a person at a terminal."""

import asyncio
import io
import json
import re
from types import SimpleNamespace

import pytest
from adapter_values import randomize
from at_terminal import AtTerminal
from random_model import random_model

from cbtrain.cli.main import main
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.serving.chat.terminal import visible
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, format_files
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.tokenizer import load_tokenizer

SYSTEM = "Ask from 0 to 100."
LENGTH = 24
"""Tokens of each answer, so that none is empty."""
EXACTLY = [f"evaluation.therapist.min_tokens={LENGTH}", "--max-tokens", str(LENGTH)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and two adapters; the first was trained with a system prompt."""
    folder = tmp_path_factory.mktemp("chat")
    base = random_model(folder / "base", "llama", positions=1024)
    chat_format = ChatRenderer(load_tokenizer(base)).format
    for seed, (name, prompt) in enumerate({"warm": SYSTEM, "cold": None}.items()):
        decoder = load_decoder(str(base))
        inject(decoder, LoraConfig(rank=2))
        randomize(decoder, seed)
        files = format_files(chat_format, prompt=TrainedPrompt(prompt, "trained without one"))
        save_adapter(decoder, folder / name, base=str(base), extra_files=files)
    return folder


@pytest.fixture
def chat(folders, tmp_path, monkeypatch, capsys):
    """Pipe lines to ``cbtrain chat`` in an empty folder; returns status, conversation and notes."""
    monkeypatch.chdir(tmp_path)
    both = ["--adapter", str(folders / "warm"), "--adapter", f"icy={folders / 'cold'}"]

    def run(*lines, options=(*both, *EXACTLY), seed=3):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = main(["chat", "--model", str(folders / "base"), "--seed", str(seed), *options])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


def saved(path):
    session = json.loads(path.read_text())
    facts = session["facts"]
    by_turn = {name: json.loads(facts[name]) for name in ("adapters", "seeds", "stopped")}
    return [turn["text"] for turn in session["turns"]], facts, SimpleNamespace(**by_turn)


def words_of(out):
    """The turns of a conversation as it was printed."""
    return [" ".join(turn.split()) for turn in re.split(r"(?:^|\n)(?:You|Therapist[^:\n]*): ", out)[1:]]


def test_a_conversation_from_a_pipe_is_what_the_model_says_and_is_saved(chat, folders, tmp_path):
    lines = [
        "I feel low.",
        "/regenerate",
        "/switch icy",
        "//Always\\",
        "tired.",
        "/switch base",
        "Yes.",
        "/save s.jsonl",
    ]
    done = chat(*lines, "Later.")
    assert done.status == 0
    again = chat(*lines, "Later.")
    assert again.out == done.out
    assert "s.jsonl: exists already and is not replaced" in again.err
    turns, facts, by_turn = saved(tmp_path / "s.jsonl")
    assert turns[::2] == ["I feel low.", "/Always\ntired.", "Yes."]
    assert (by_turn.adapters, by_turn.seeds, by_turn.stopped) == (["warm", "icy", "base"], [4, 5, 6], [False] * 3)
    assert (facts["model"], facts["system"]) == (str(folders / "base"), SYSTEM)  # the base is told what warm is
    printed = words_of(done.out)
    for text in turns[1::2]:
        assert " ".join(visible(text).split()) in printed
    assert printed[-2] == "Later."

    async def asked():
        adapters = {"warm": folders / "warm", "icy": folders / "cold"}
        async with LocalModel(str(folders / "base"), adapters, EngineConfig(slots=1, context_tokens=1024)) as model:
            model.give_base_a_voice()
            texts, messages = [], []
            for adapter, system, seed, words in zip(
                ("warm", "icy", None), (SYSTEM, None, SYSTEM), by_turn.seeds, turns[::2], strict=True
            ):
                messages.append(Message("user", words))
                start = [Message("system", system)] if system else []
                sampling = SamplingConfig(max_tokens=LENGTH, min_tokens=LENGTH)
                answer = await model.answer([*start, *messages], sampling, seed=seed, adapter=adapter)
                texts.append(answer.text.strip())
                messages.append(Message("assistant", answer.text))
        return texts

    assert turns[1::2] == asyncio.run(asked())
    assert (tmp_path / "s.jsonl").stat().st_mode & 0o777 == 0o600
    assert main(["corpus", "check", "s.jsonl"]) in (0, 1)  # random words may look like something
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_an_answer_is_read_once_by_the_adapter_that_gave_it(chat):
    done = chat("I feel low.", "/stats", "/undo", "I feel low.", "How sure?", "/stats", "/regenerate", "/stats")
    prompts = [int(count) for count in re.findall(r"last prompt: (\d+) tokens", done.err)]
    cached = [int(count) for count in re.findall(r"tokens, (\d+) of them cached", done.err)]
    assert cached[0] == 0
    assert cached[1] >= prompts[0] + LENGTH - 1  # the last token that was drawn has not been read yet
    assert prompts[2] == prompts[1]
    assert cached[2] == prompts[1] - 1
    assert "context: " in done.err


def test_files_are_not_replaced_and_problems_are_one_line(chat, tmp_path):
    (tmp_path / "there.jsonl").write_text("mine")
    done = chat(
        *("/save", "/regenerate", "/undo", "Hi.", "/save there.jsonl", "/save one/two.jsonl", "Ho."),
        *(
            "/save one/two.jsonl",
            "/save folder",
            "/switch hot",
            "/sav",
            "bad \udcff",
            "a <|end|> b",
            "/switch",
            "/system",
        ),
        *("/system  Be  brief. ", "/system", "/system none", "/system", "/new", "/save"),
    )
    assert done.status == 0
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert len(saved(tmp_path / "one" / "two.jsonl")[0]) == 4
    assert (tmp_path / "folder" / "sessions.jsonl").exists()
    expected = [
        "there is nothing to save yet",
        "there is nothing to answer yet",
        "there is nothing to take back",
        "there.jsonl: exists already and is not replaced. Name another file: /save FILE",
        "Saved to one/two.jsonl.",
        "Saved to one/two.jsonl, in place of what was saved before.",
        "Saved to folder.",
        "there is no adapter 'hot'. Known: base, icy, warm.",
        "unknown command '/sav'. Did you mean '/save'? Words that begin with / are typed with //.",
        "your words are not sent: they are not UTF-8 text",
        "your words are not sent: message 6 contains the special token '<|end|>'. Remove it",
        "Therapist: warm. All: warm, icy, base.",
        SYSTEM,
        "System prompt: Be brief.",
        "Be  brief.",
        "No system prompt.",
        "A new conversation.",
        "there is nothing to save yet",
    ]
    lines = iter(done.err.splitlines())
    for start in expected:
        assert any(line.startswith(start) for line in lines), start


def test_words_that_found_no_room_stay_and_can_be_taken_back(chat, tmp_path):
    small = ("--context", "64", *EXACTLY)
    done = chat(
        "Hi.", "I feel low. " * 20, "/save full.jsonl", "/undo", "/save shorter.jsonl", "/regenerate", options=small
    )
    assert done.status == 0
    assert re.search(r"The context is full: \d+ prompt tokens leave no room in 64\. /undo takes back", done.err)
    assert [len(saved(tmp_path / name)[0]) for name in ("full.jsonl", "shorter.jsonl")] == [3, 2]
    assert "Seed 5:" in done.err


def test_where_people_help_is_shown_at_the_start_and_after_plain_words(chat):
    done = chat("Hi.", "I want to die.", "I want to die.", "/new", "No reason to live.", "/crisis")
    assert done.status == 0
    assert "RESEARCH SOFTWARE, NOT CARE\n" in done.err
    assert done.err.count("988 (US, Canada), Samaritans 116 123") == 4
    assert done.err.count("/crisis shows how") == 1
    assert done.err.splitlines()[-1].startswith("This was research software, not care.")
    assert done.out.count("Therapist (warm): ") == 4


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--adapter", "a/t", "--adapter", "b/t"], "--adapter: two adapters are named 't'. Name them: NAME=DIR."),
        (["--adapter", "base=x"], "--adapter: 'base' is the name of the model without an adapter."),
        (["--adapter", "nowhere"], "nowhere"),
        (["--system", "no.txt"], "--system: 'no.txt' cannot be read (No such file or directory)."),
        (["--max-tokens", "0"], "--max-tokens: evaluation.therapist.max_tokens: must be at least 1. Got 0."),
        (["--temperature", "-1"], "--temperature: evaluation.therapist.temperature: must be at least 0. Got -1."),
        (["--context", "9"], "--context: evaluation.engine.context_tokens: must be at least 64. Got 9."),
    ],
)
def test_a_bad_option_is_one_line(chat, options, line):
    done = chat("Hi.", options=options)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert line in done.err


def test_ctrl_c_stops_an_answer_and_a_closed_window_loses_nothing(folders, tmp_path):
    endless = ["evaluation.therapist.min_tokens=900", "--max-tokens", "900"]
    command = ["chat", "--model", folders / "base", "--seed", "1", *endless, "--threads", "1"]
    with AtTerminal(*command, cwd=tmp_path) as chat:
        chat.wait_for("You: ")
        chat.type("I feel low.\n")
        chat.wait_for("Therapist: ")
        chat.wait_for("\n")  # in the middle of the answer
        chat.press_ctrl_c("Stopped: the answer ends here.")
        chat.wait_for("You: ")
        chat.type("half a line")
        chat.wait_for("half a line")
        chat.press_ctrl_c("Arrow up brings the line back.")
        chat.wait_for("You: ")
        chat.type("\x1b[A, and more\n")
        chat.wait_for("Therapist: ")
        chat.wait_for("\n")
        chat.press_ctrl_c("Stopped: the answer ends here.")
        chat.type("/save talk.jsonl\n/undo\n/new\n")
        chat.wait_for("[Y/n] ")
        chat.type("n\n")
        chat.wait_for("A new conversation.")
        chat.type("Hello again.\n")
        chat.wait_for("Therapist: ")
        chat.wait_for("\n")
        chat.close()
        chat.process.wait(30)
    turns, _, by_turn = saved(tmp_path / "talk.jsonl")
    assert turns[::2] == ["I feel low.", "half a line, and more"]
    assert by_turn.stopped == [True, True]
    (not_asked_about,) = tmp_path.glob("chat-*.jsonl")
    words, _, by_turn = saved(not_asked_about)
    assert (words[0], len(words), by_turn.stopped) == ("Hello again.", 2, [True])
    screen = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\s", "", chat.shown)
    whole_words = visible(turns[1]).rpartition(" ")[0]  # the terminal shows ^C before the last one
    assert re.sub(r"\s", "", whole_words) in screen
