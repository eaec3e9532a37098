"""Rendering and mask: layouts of unnamed models, the formats for base models, and what must be refused."""

import json
import random
import re

import numpy as np
import pytest
from lessons import builder_for, documents_for, stretches, units_for
from pattern_cost import steps_from_one_place

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, any_of
from cbtrain.tokens.chat_files import format_files, saved_format
from cbtrain.tokens.config import LEFT_OUT, OPENING
from cbtrain.tokens.dialogue import Message, dialogue
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.mask_check import check_dialogue, check_renderer
from cbtrain.tokens.plain_text import plain_document, plain_documents
from cbtrain.tokens.tokenizer import load_tokenizer, train_tokenizer
from cbtrain.transcripts.types import Session, Turn

TEXTS = [
    "I did not sleep and I feel like I fail at everything.",
    "What went through your mind when you woke up?\n\nTake your time.",
    "That I am not good enough. Café, naïve, 眠れない.",
    "How sure are you of that, from 0 to 100?",
]
TURNS = tuple(Turn("patient" if i % 2 == 0 else "therapist", text) for i, text in enumerate(TEXTS))
SESSION = Session("c", 1, TURNS)

# A layout without a system role, with a space that belongs to the answer.
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[U] ' + m.content + '[/U]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
NO_BOS = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def tokenizer(template=None, specials=(), words=TEXTS):
    made = train_tokenizer(list(words) * 3, 400, 1000)
    if template:
        made.chat_template = template
        made.add_special_tokens({"additional_special_tokens": list(specials)})
    return made


CASES = {"tiny": (None, ()), "no system": (NO_SYSTEM, ("[U]", "[/U]")), "no bos": (NO_BOS, ("[user]", "[assistant]"))}


@pytest.fixture(params=CASES)
def made(request):
    return tokenizer(*CASES[request.param])


def test_supervised_tokens_are_exactly_the_therapists_words_and_one_stop_token(made):
    check_renderer(ChatRenderer(made))
    (document,) = documents_for(made, TURNS, system="Be kind.")
    assert [made.decode(run).strip() for run in stretches(document)] == [TEXTS[1] + "<|end|>", TEXTS[3] + "<|end|>"]
    everything = made.decode(document.ids)
    assert everything.count("Be kind.") == 1
    assert everything.count("<|bos|>") == ("bos_token" in made.chat_template)
    assert document.supervised[-1]


def test_the_patients_side_is_the_same_code_with_the_roles_turned(made):
    (document,) = documents_for(made, TURNS, speaker="patient")
    assert [made.decode(run).strip() for run in stretches(document)] == [TEXTS[0] + "<|end|>", TEXTS[2] + "<|end|>"]
    assert OPENING in made.decode(document.ids)


def test_the_whole_text_is_tokenized_once_and_nothing_is_lost(made):
    chat = [{"role": m.role, "content": m.content} for m in dialogue(TURNS, "therapist", None)]
    whole = made.apply_chat_template(chat, tokenize=True, return_dict=False)
    (document,) = documents_for(made, TURNS)
    assert document.ids.tolist() == whole[: len(document)]
    assert document.trimmed == len(whole) - len(document)


@pytest.mark.parametrize("supervise", ["patient", "both"])
def test_the_other_side_can_be_supervised_too_and_the_system_text_never_is(made, supervise):
    (document,) = documents_for(made, TURNS, system="Be kind.", supervise=supervise)
    learnt = "|".join(made.decode(run) for run in stretches(document))
    said = [TEXTS[0], TEXTS[2]] if supervise == "patient" else TEXTS
    for text in TEXTS:
        assert (text in learnt) == (text in said)
    assert "Be kind." not in learnt
    assert "[The" not in learnt
    # Every turn's stop token is learnt with it: whatever special token the layout puts there.
    stops = set(made.all_special_ids)
    assert sum(token in stops for run in stretches(document) for token in run) == len(said)


def test_opening_by_the_therapist():
    made = tokenizer()
    (document,) = documents_for(made, TURNS[1:], system="Be kind.")
    text = made.decode(document.ids)
    assert text.index("Be kind.") < text.index(OPENING) < text.index(TEXTS[1])
    assert OPENING not in made.decode(document.ids[document.supervised])
    assert LEFT_OUT not in text


PLAIN = "<|bos|>Be kind.\n\nPatient: {}<|end|>\nTherapist: {}<|end|>\nPatient: {}<|end|>\nTherapist: {}<|end|>"


def test_plain_format_for_a_base_model_and_its_patient():
    made = tokenizer()
    made.chat_template = None
    (document,) = documents_for(made, TURNS, system="Be kind.", format="plain")
    assert made.decode(document.ids) == PLAIN.format(*TEXTS)
    assert [made.decode(run) for run in stretches(document)] == [f" {TEXTS[1]}<|end|>", f" {TEXTS[3]}<|end|>"]
    own = choose_format(made, "plain")
    check_renderer(ChatRenderer(made, own))
    assert made.decode(ChatRenderer(made, own).prompt(dialogue(TURNS[:1], "therapist", None))).endswith("\nTherapist:")
    assert own.stop_strings == ("\nTherapist:", "\nPatient:")
    (other,) = documents_for(made, TURNS, format="plain", speaker="patient")
    assert made.decode(other.ids).startswith(f"<|bos|>Therapist: {OPENING}<|end|>\nPatient: {TEXTS[0]}<|end|>")


def test_alpaca_records_as_in_2024():
    made = tokenizer()
    settings = {"format": "alpaca", "recipe": "paper"}
    first, second = documents_for(made, TURNS, system="Reply as a therapist.", **settings)
    head = (
        "<|bos|>Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\nReply as a therapist.\n\n"
        "### Input:\n"
    )
    assert made.decode(first.ids) == f"{head}Patient: {TEXTS[0]}\n\n### Response:\n{TEXTS[1]}<|end|>"
    history = f"Patient: {TEXTS[0]}\nTherapist: {TEXTS[1]}\nPatient: {TEXTS[2]}\n"
    assert made.decode(second.ids) == f"{head}{history}\n### Response:\n{TEXTS[3]}<|end|>"
    assert [made.decode(run) for run in stretches(second)] == [TEXTS[3] + "<|end|>"]
    renderer = ChatRenderer(made, choose_format(made, "alpaca"))
    prompt = renderer.prompt(dialogue(TURNS[:3], "therapist", "Reply as a therapist."))
    assert second.ids[: len(prompt)].tolist() == prompt
    everything = documents_for(made, TURNS, supervise="everything", **settings)
    assert all(document.supervised.all() for document in everything)
    with pytest.raises(UserError, match="supervise 'everything' is the loss of recipe 'paper'"):
        documents_for(made, TURNS, format="plain", supervise="everything")
    with pytest.raises(UserError, match="format 'alpaca' answers as therapist alone"):
        documents_for(made, TURNS, supervise="both", **settings)


def test_formats_travel_with_the_adapter(tmp_path):
    made = tokenizer()
    for name in ("auto", "plain"):
        own = choose_format(made, name)
        for file, text in format_files(own).items():
            (tmp_path / file).write_text(text)
        again = saved_format(tmp_path)
        assert (again.name, again.template, again.stop_strings) == (own.name, own.template, own.stop_strings)
    (tmp_path / "chat_format.json").write_text("[")
    with pytest.raises(UserError, match=r"chat_format\.json: malformed JSON"):
        saved_format(tmp_path)
    for wrong in ({"single_answer": "false"}, {"stop_strings": "\nPatient:"}, {"stop_strings": [1]}, {"name": None}):
        (tmp_path / "chat_format.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"chat_format\.json: damaged \(name, stop_strings or single_answer"):
            saved_format(tmp_path)
    assert saved_format(tmp_path / "none") is None


def template(text, specials=()):
    return ChatRenderer(tokenizer(text, specials))


def test_unusable_templates_are_refused_with_the_reason():
    made = tokenizer()
    made.chat_template = None
    with pytest.raises(UserError, match=r"no chat template.*tokens\.format=plain"):
        ChatRenderer(made)
    no_stop = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    with pytest.raises(UserError, match="no stop token after turn 2|does not begin|does not end"):
        documents_for(tokenizer(no_stop), TURNS)
    last_only = "{{ '<|user|>' + messages[-1].content + '<|end|>' }}"
    with pytest.raises(UserError, match="drops, repeats or reorders|moves or drops"):
        template(last_only)
    counting = (
        "{{ messages | length }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    with pytest.raises(UserError, match="shows the model another prompt in training than in serving"):
        template(counting)
    for broken in ("{% for %}", "{{ messages[0].content.nothing() }}"):
        with pytest.raises(UserError, match="fails on a plain dialogue"):
            template(broken)
    dated = "{{ strftime_now('%d %b %Y') }}" + made_template()
    with pytest.raises(UserError, match="writes today's date"):
        template(dated)
    template("{% if false %}{{ strftime_now('%d %b %Y') }}{% endif %}" + made_template())  # asks, but writes it nowhere
    ignoring_system = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    with pytest.raises(UserError, match=r"moves or drops the system text\. Use a template"):
        template(ignoring_system)


ODD_TALK = ['It\'s "fine".\nPlease </think> help & <wait>? ', "{{ x }} 100%\t\\n", "not", "Long. " * 300, "Please!"]
CHANGES = {
    "| upper": True,
    "| replace('not', 'never')": True,
    "| trim | replace('\\n', ' ')": True,
    "| trim | replace('\"', '')": True,
    "[:200] | trim": True,
    "| trim if message['content'] | length < 400 else 'LONG'": True,
    "| trim if '?' not in message['content'] else 'Q'": True,
    "| trim + ('<|end|>' if 'lease' in message['content'] and loop.last else '')": False,
    "| trim | replace('</think>', '')": False,
    "| trim if message['content'] | length < 1500 else 'LONG'": False,
}
"""What templates make of a message, and whether the invented dialogue shows it; the dialogue that is rendered does."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_template_that_changes_words_is_refused(change):
    made = tokenizer(made_template().replace("message['content'] | trim", f"(message['content'] {change})"))
    renderer = ChatRenderer(made)
    if CHANGES[change]:
        with pytest.raises(UserError, match="changes the words of"):
            check_renderer(renderer)
    else:
        check_renderer(renderer)
    talk = [Message(("user", "assistant")[index % 2], text) for index, text in enumerate(ODD_TALK)]
    with pytest.raises(
        UserError, match=r"^prompt: the chat format 'template' changes the words of message \d"
    ) as caught:
        renderer.prompt(talk)
    assert "\n" not in str(caught.value)
    stock = tokenizer()
    chat = [{"role": message.role, "content": message.content} for message in talk]
    theirs = stock.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ChatRenderer(stock).prompt(talk) == theirs


@pytest.mark.parametrize(
    "counting",
    [
        "{% if messages|length > 12 %}<|system|>Be brief.<|end|>{% endif %}STOCK",
        "STOCK{% if messages|length > 12 %}So: {% endif %}",
        "{% set messages = messages[-11:] %}STOCK",
    ],
)
def test_a_template_that_counts_messages_is_refused(counting):
    with pytest.raises(UserError, match="shows the model another prompt|of a dialogue of 41"):
        template(counting.replace("STOCK", made_template()))


def test_a_template_that_does_not_say_where_an_answer_begins_is_refused():
    deaf = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    with pytest.raises(UserError, match="does not say where an answer begins"):
        template(deaf)


def test_a_template_without_the_tokenizers_beginning_is_noted():
    from tokenizers.processors import TemplateProcessing

    made = tokenizer(NO_BOS, CASES["no bos"][1])
    assert choose_format(made).note == ""  # this tokenizer adds none by itself
    bos = (made.bos_token, made.bos_token_id)
    made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    assert choose_format(made).note == "the tokenizer begins texts with <|bos|>, its chat template does not"


def test_ids_beyond_the_vocabulary_decode_to_nothing():
    assert ChatRenderer(tokenizer()).decode([9999]) == ""
    assert ChatRenderer(tokenizer()).decode([]) == ""


def made_template():
    return tokenizer().chat_template


def test_a_second_beginning_is_found():
    twice = made_template().replace("{{ bos_token }}", "{{ bos_token + bos_token }}")
    with pytest.raises(UserError, match="writes a beginning-of-text token after the beginning"):
        check_renderer(template(twice))


def test_the_second_method_finds_a_wrong_mask(monkeypatch):
    """A defect planted in the first method is seen by the second."""
    renderer = ChatRenderer(tokenizer())
    messages = dialogue(TURNS, "therapist", None)
    check_dialogue(renderer, messages, "c/1")
    right = ChatRenderer.render

    def shifted(self, messages, name):
        rendering = right(self, messages, name)
        rendering.loss_weights[:] = np.roll(rendering.loss_weights, -1)
        return rendering

    monkeypatch.setattr(ChatRenderer, "render", shifted)
    with pytest.raises(UserError, match="two methods disagree on whether token"):
        check_dialogue(renderer, messages, "c/1")


def test_errors_name_session_and_turn():
    made = tokenizer()
    turns = [Turn("patient", "hello <|end|> there"), Turn("therapist", "yes")]
    with pytest.raises(UserError, match=r"course-7/2: turn 1 of course-7/2 contains the special token '<\|end\|>'"):
        documents_for(made, Session("course-7", 2, tuple(turns)))
    with pytest.raises(UserError, match="c/1: no token in it is supervised"):
        documents_for(made, TURNS[:1])
    empty = Session("c", 3, (*TURNS, Turn("therapist", " \n")), where="some.json")
    with pytest.raises(UserError, match=r"some\.json \(c/3\): turn 5 of c/3 has no text"):
        documents_for(made, empty)
    strict = NO_SYSTEM.replace(
        "{% if m.role == 'user' %}",
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}"
        "{% if m.role == 'user' %}",
        1,
    )
    with pytest.raises(
        UserError, match=r"c/1: the chat format 'template' refuses turn 3 of c/1 as assistant \(alternate!\)"
    ):
        documents_for(tokenizer(strict, ("[U]", "[/U]")), [*TURNS[:2], TURNS[1]])


def test_plain_document_and_saved_tokenizer(tmp_path):
    made = tokenizer()
    document = plain_document(SESSION, made)
    assert made.decode(document.ids) == "<|bos|>" + "".join(text + "<|end|>" for text in TEXTS)
    assert document.supervised.tolist() == [False] + [True] * (len(document) - 1)
    sessions = [SESSION, Session("c", 2, TURNS[:2])]
    some, share = plain_documents(sessions, made, 1, seed=0)
    assert len(some) == 1
    assert share == pytest.approx(
        next(s for s in sessions if s.id == some[0].name).words / sum(s.words for s in sessions)
    )
    made.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    messages = [Message("user", "a"), Message("assistant", "b")]
    assert ChatRenderer(again).prompt(messages) == ChatRenderer(made).prompt(messages)
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_tokenizer(tmp_path / "missing")


def test_units_of_a_course_know_the_summary_before():
    builder = builder_for(tokenizer())
    closing = Turn("therapist", "Session Summary:\nWe talked about sleep.")
    units = units_for(builder, [[*TURNS, closing], TURNS])
    assert [unit.last_summaries for unit in units] == [("",), ("Session Summary:\nWe talked about sleep.",)]


def test_special_tokens_are_found_as_by_an_alternation_at_less_cost():
    drawn = random.Random(1)
    for _ in range(300):
        texts = {"".join(drawn.choices("ab<|", k=drawn.randint(1, 5))) for _ in range(drawn.randint(1, 8))}
        text = "".join(drawn.choices("ab<|", k=40))
        plain = "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))
        assert re.findall(any_of(texts), text) == re.findall(plain, text), (texts, text)
    tokens = [f"<SPECIAL_{number}>" for number in range(1_000)]
    assert steps_from_one_place(re.compile(any_of(tokens))) < 100
    assert steps_from_one_place(re.compile("|".join(map(re.escape, tokens)))) > 1_000


def test_a_long_dialogue_that_a_template_refuses_is_laid_out_few_times(monkeypatch):
    check = "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}"
    made = tokenizer(NO_BOS.replace("{{ '['", check + "{{ '['", 1))
    renderer = ChatRenderer(made, choose_format(made))
    layout, sizes = renderer._layout, []
    monkeypatch.setattr(renderer, "_layout", lambda pairs, *rest: sizes.append(len(pairs)) or layout(pairs, *rest))
    messages = [Message("assistant" if number % 2 else "user", f"{number}") for number in range(500)]
    with pytest.raises(UserError, match="refuses message 501 as assistant"):
        renderer.prompt([*messages, Message("assistant", "x")])
    assert len(sizes) < 20
