"""The system prompt of training is served where a chat has none, from an adapter's folder and from a merged one."""

import json
import urllib.request

import pytest
from adapter_values import randomize
from command import cbtrain, start_cbtrain
from forked import PIPE
from random_model import random_model
from transformers import AutoTokenizer

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.model.adapters.merge import merge
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.adapter_tokenizer import tokenizer_files
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, format_files, saved_format, saved_prompt
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.fault("H2")

SYSTEM = "Ask from 0 to 100.\nVery kind, I think."
ASK = [Message("user", "I feel low.")]
OWN = [Message("system", "Be brief."), *ASK]
TRAINED = [Message("system", SYSTEM), *ASK]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, and an adapter of it as training saves one."""
    folder = tmp_path_factory.mktemp("served")
    base = random_model(folder / "base", "llama")
    decoder, tokenizer = load_decoder(str(base)), load_tokenizer(base)
    inject(decoder, LoraConfig(rank=2, targets=["q_proj"]))
    randomize(decoder)
    renderer = ChatRenderer(tokenizer)
    files = format_files(renderer.format, renderer.stop_ids, TrainedPrompt(SYSTEM, in_template=True))
    files |= tokenizer_files(base, tokenizer)
    save_adapter(decoder, folder / "adapter", base=str(base), extra_files=files)
    return base, folder / "adapter", renderer


class Served:
    """A server of the adapter as long as the block runs: its lines at the start, and how it lays chats out."""

    def __init__(self, base, *arguments):
        command = ["serve", "--model", base, *arguments, "--port", "0", "--threads", "1", "--context", "256"]
        self.process = start_cbtrain(*command, "--with-parent", stdin=PIPE, stderr=PIPE)

    def __enter__(self):
        self.url = self.process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)
        self.lines = self.process.stderr.read()

    def prompt_tokens(self, messages):
        chat = [{"role": message.role, "content": message.content} for message in messages]
        body = json.dumps({"model": "cbtrain", "messages": chat, "max_tokens": 1}).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["usage"]["prompt_tokens"]

    def system_prompt(self):
        with urllib.request.urlopen(f"{self.url}/models") as reply:
            prompts = {model["id"]: model["system_prompt"] for model in json.load(reply)["data"]}
        return prompts["cbtrain"]


def test_a_chat_without_a_system_message_gets_the_prompt_of_training_unless_told_otherwise(folders, tmp_path):
    base, adapter, renderer = folders
    (tmp_path / "mine.txt").write_text("Very brief.\n")
    other = [Message("system", "Very brief."), *ASK]
    started = "system prompt of chats without one: "
    cases = [
        ([], SYSTEM, TRAINED, f"{started}Ask from 0 to 100. Very kind, I think. (as trained; --system none leaves it"),
        (["--system", "none"], None, ASK, "chats without a system prompt get none (--system none)"),
        (["--system", tmp_path / "mine.txt"], "Very brief.", other, f"{started}Very brief. ("),
    ]
    for options, system, expected, line in cases:
        with Served(base, "--adapter", adapter, *options) as served:
            assert served.prompt_tokens(ASK) == len(renderer.prompt(expected))
            assert served.prompt_tokens(OWN) == len(renderer.prompt(OWN))
            assert served.system_prompt() == system
        assert line in served.lines
    for option, problem in (("no.txt", "'no.txt' cannot be read (No such file"), ("empty.txt", "'empty.txt' is empty")):
        (tmp_path / "empty.txt").write_text(" \n")
        done = cbtrain("serve", "--model", base, "--system", option, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"--system: {problem}" in done.stderr


def test_a_merged_folder_writes_it_for_other_programs_and_is_served_without_it_too(folders, tmp_path):
    base, adapter, renderer = folders
    merge(base, adapter, tmp_path / "merged", base="org/base")
    opened = AutoTokenizer.from_pretrained(tmp_path / "merged")
    for messages, expected in ((ASK, TRAINED), (OWN, OWN)):
        chat = [{"role": message.role, "content": message.content} for message in messages]
        ids = opened.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert ids == renderer.prompt(expected)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "writes it into a chat without a system message" in card
    assert "    Ask from 0 to 100.\n    Very kind, I think.\n" in card
    for arguments in ((str(tmp_path / "merged"), {}), (str(base), {"adapter": str(adapter)})):
        for chat_format in ("auto", "template"):
            model = LocalModel(*arguments, EngineConfig(slots=1, context_tokens=128), chat_format=chat_format)
            assert model.voice.trained_prompt == TrainedPrompt(SYSTEM, in_template=True)
            assert model.voice.renderer.prompt(ASK) == renderer.prompt(ASK)  # who asks adds the prompt, or does not


def test_older_files_are_read_and_newer_and_damaged_ones_refused(folders, tmp_path):
    _, _, renderer = folders
    for name, text in format_files(renderer.format).items():
        (tmp_path / name).write_text(text)
    file = tmp_path / "chat_format.json"
    settings = json.loads(file.read_text())
    del settings["version"]
    file.write_text(json.dumps(settings))
    assert saved_format(tmp_path).template == renderer.format.template
    assert saved_prompt(tmp_path).note == "an older cbtrain saved none: send the one of training"
    assert saved_prompt(tmp_path / "none") is None
    for wrong, problem in (
        ({"version": 3}, "version 3, and this cbtrain reads up to 2"),
        ({"version": "2"}, "version '2'"),
        ({"system_prompt": 3}, "damaged (system_prompt, system_note or system_in_template is of a wrong kind)"),
        ({"system_prompt": None, "system_in_template": "no"}, "damaged (system_prompt"),
    ):
        file.write_text(json.dumps({**settings, **wrong}))
        with pytest.raises(UserError) as caught:
            saved_format(tmp_path)
        assert problem in str(caught.value)
