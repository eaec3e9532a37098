"""The system prompt of training: whose it is, what is saved of it, and that other programs write the same tokens."""

import json

import pytest
from family_tokenizers import FAMILIES, family_tokenizer
from lessons import builder_for, units_for
from transformers import AutoTokenizer

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.model.weights.card import system_section
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, format_files, saved_format, saved_prompt
from cbtrain.tokens.config import THERAPIST_SYSTEM, TokensConfig
from cbtrain.tokens.dialogue import Message, system_prompts
from cbtrain.tokens.document_builder import units_of
from cbtrain.tokens.system_prompts import OwnPrompts, trained_prompt
from cbtrain.tokens.tokenizer import train_tokenizer
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Course, Session, Turn

ODD = ' Be kind: "quote", it\'s {{ 1 }} {% raw %} %} \\n and\n\nlines, `ticks`, Zoë, 眠れない 😀 \t'
TURNS = [Turn("patient", "I feel low."), Turn("therapist", "Since when?"), Turn("patient", "Since May.")]
CHAT = [{"role": ("user", "assistant")[index % 2], "content": turn.text} for index, turn in enumerate(TURNS)]


def saved(folder, tokenizer, renderer, prompt):
    """Write ``tokenizer`` and the files of the layout; return the tokenizer as ``transformers`` opens it."""
    tokenizer.save_pretrained(folder)
    for name, text in format_files(renderer.format, renderer.stop_ids, prompt).items():
        (folder / name).write_text(text, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def opened_prompt(tokenizer, chat):
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


@pytest.mark.fault("H2")
@pytest.mark.parametrize("system", [THERAPIST_SYSTEM, ODD], ids=["ours", "odd"])
@pytest.mark.parametrize("family", [*FAMILIES, "plain"])
def test_transformers_writes_the_trained_prompt_where_a_chat_has_none(family, system, tmp_path):
    plain = family == "plain"
    tokenizer = (
        train_tokenizer([system, *(turn.text for turn in TURNS)], 400, 512) if plain else family_tokenizer(family)
    )
    builder = builder_for(tokenizer, format="plain" if plain else "auto", therapist_system=system)
    renderer = builder.renderer
    units = units_for(builder, [TURNS], system)
    prompt = trained_prompt(units, "therapist", builder.config, renderer)
    assert prompt == TrainedPrompt(system, in_template=True)
    opened = saved(tmp_path, tokenizer, renderer, prompt)
    (document,) = builder.build(units[0]).documents
    trained = renderer.prompt(builder.messages(units[0])).copy()
    assert document.ids.tolist() == trained[: len(document)]
    assert opened_prompt(opened, CHAT) == trained
    # A chat with a prompt of its own is laid out as before, also for cbtrain, which takes the block away.
    own = [{"role": "system", "content": "Be brief."}, *CHAT]
    messages = [Message(message["role"], message["content"]) for message in own]
    assert opened_prompt(opened, own) == renderer.prompt(messages)
    assert saved_format(tmp_path).template == renderer.format.template
    assert saved_prompt(tmp_path) == prompt
    again = ChatRenderer(opened)  # training from this folder
    assert again.prompt(messages) == renderer.prompt(messages)


@pytest.mark.fault("H2")
def test_a_template_that_refuses_a_system_message_is_left_as_it_is_and_the_card_says_what_to_send():
    text = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    text += "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    text += "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    tokenizer = train_tokenizer(["I feel low."], 300, 512)
    tokenizer.chat_template = text
    builder = builder_for(tokenizer)
    prompt = trained_prompt(units_for(builder, [TURNS], "Be kind."), "therapist", builder.config, builder.renderer)
    assert prompt == TrainedPrompt("Be kind.", in_template=False)
    assert format_files(builder.renderer.format, (), prompt)["chat_template.jinja"] == text
    (unit,) = units_for(builder, [TURNS], "Be kind.")
    sent = [{**CHAT[0], "content": f"Be kind.\n\n{CHAT[0]['content']}"}, *CHAT[1:]]  # as the card says
    assert opened_prompt(tokenizer, sent) == builder.renderer.prompt(builder.messages(unit))
    card = system_section(prompt.text, prompt.note, prompt.in_template)
    assert "before the first message of the user, with a blank line between them" in card
    assert "    Be kind.\n" in card


def test_only_one_prompt_of_the_data_is_saved():
    tokenizer = train_tokenizer(["I feel low."], 300, 512)
    builder = builder_for(tokenizer, system="data")
    config, renderer = builder.config, builder.renderer
    ours = config.therapist_system

    def choose(*systems, speaker="therapist"):
        sessions = [Session("c", number, tuple(TURNS)) for number, _ in enumerate(systems, 1)]
        units = units_of(Course("c", tuple(sessions)), config, systems)
        return trained_prompt(units, speaker, config, renderer)

    assert choose("A", "A", ours).text == "A"
    assert choose("A", ours, ours).text == ours
    assert choose("A", ours).text == "A"
    assert choose("A", "B", "A", ours) == TrainedPrompt(
        None, "the sessions were trained with 3 different system prompts: send one of them"
    )
    assert choose("").note == "no system message was trained: send none"
    profile = Profile(course="c", name="Ann", brief="You are Ann.", text="Ann.")
    (brief,) = system_prompts(Course("c", (Session("c", 1, tuple(TURNS)),), profile), "patient", config)
    assert brief == "You are Ann."
    assert choose(brief, speaker="patient").text is None  # also of a single patient: cards are published
    assert choose("You are a patient in therapy for depression.", speaker="patient").text


@pytest.mark.fault("A12")
def test_whose_prompt_a_session_is_trained_with():
    own = [Session("c", 1, tuple(TURNS), facts={"system": " Be kind. "}), Session("c", 2, tuple(TURNS))]
    course = Course("c", tuple(own))
    expected = {"ours": ["We.", "We."], "data": ["Be kind.", "We."], "none": ["", ""]}
    for setting, prompts in expected.items():
        config = TokensConfig(system=setting, therapist_system="We.")
        assert system_prompts(course, "therapist", config) == prompts
        assert system_prompts(course, "patient", config) == ["You are a patient in therapy for depression."] * 2
    config = TokensConfig(system="data", document="course")
    with pytest.raises(UserError, match=r"c: its sessions have 2 different system prompts, and a document has one"):
        units_of(course, config, system_prompts(course, "therapist", config))
    notices = {s: OwnPrompts(own).notice(TokensConfig(system=s)) for s in expected}
    start = "1 of 2 sessions have their own system prompt (the same). "
    assert notices == {
        "ours": f"{start}It is not used, tokens.therapist_system is; tokens.system=data uses it",
        "data": f"{start}The therapist is trained with it, in the other 1 with tokens.therapist_system (tokens.system=data)",
        "none": f"{start}It is not used: no system message is trained (tokens.system=none)",
    }
    assert OwnPrompts(own[1:]).notice(TokensConfig()) == ""
    assert "no session has its own" in OwnPrompts(own[1:]).notice(TokensConfig(system="data"))


@pytest.fixture
def records(tmp_path):
    """Three sessions, two with prompts of their own."""
    lines = []
    for number, system in enumerate(["Be kind.", "Be brief.", None]):
        talk = [
            {"role": "user", "content": f"I feel low, {number} of ten."},
            {"role": "assistant", "content": "Since?"},
        ]
        messages = [{"role": "system", "content": system}, *talk] if system else talk
        lines.append(json.dumps({"messages": messages, "course": f"p{number}"}) + "\n")
    (tmp_path / "records.jsonl").write_text("".join(lines))
    tokenizer = family_tokenizer("qwen2.5")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "records.jsonl", tmp_path / "model"


@pytest.mark.fault("A12")
def test_preview_and_tokens_see_the_setting_and_say_so(records, capsys):
    path, model = records
    settings = [f"model.path={model}", "tokens.cache=none"]

    def preview(session, *more):
        command = ["corpus", "preview", str(path), "--session", session, *settings, *more, "--json"]
        assert main(command) == 0
        out, err = capsys.readouterr()
        return "".join(token["text"] for token in json.loads(out)), err

    shown, said = preview("p0/1")
    assert shown.startswith(f"<|im_start|>system\n{THERAPIST_SYSTEM}<|im_end|>")
    assert "note: 2 of 3 sessions have their own system prompt (2 different). It is not used" in said
    assert preview("p0/1", "tokens.system=data")[0].startswith("<|im_start|>system\nBe kind.<|im_end|>")
    assert preview("p2/1", "tokens.system=data")[0].startswith(f"<|im_start|>system\n{THERAPIST_SYSTEM}<|im_end|>")
    assert preview("p0/1", "tokens.system=none")[0].startswith("<|im_start|>system\nYou are Qwen")  # the template's own
    counts = {}
    for setting in ("ours", "data", "none"):
        command = ["corpus", "tokens", str(path), *settings, f"tokens.system={setting}", "--json"]
        assert main(command) == 0
        out, err = capsys.readouterr()
        counts[setting] = json.loads(out)["tokens_per_epoch"]
        assert "2 of 3 sessions have their own system prompt" in err
    assert len(set(counts.values())) == 3
