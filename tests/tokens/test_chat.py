"""Rendering and mask: golden cases per layout, and what must be refused."""

import pytest

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, Message, check_template, dialogue
from cbtrain.tokens.config import OPENING
from cbtrain.tokens.tokenizer import load_tokenizer, plain_document, train_tokenizer
from cbtrain.transcripts.types import Session, Turn

TEXTS = [
    "I did not sleep and I feel like I fail at everything.",
    "What went through your mind when you woke up?\n\nTake your time.",
    "That I am not good enough. Café, naïve, 眠れない.",
    "How sure are you of that, from 0 to 100?",
]
TURNS = tuple(Turn("patient" if i % 2 == 0 else "therapist", text) for i, text in enumerate(TEXTS))
SESSION = Session("c", 1, TURNS)

# The layouts of the named families, written down here from their documentation.
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
        "<|im_end|>",
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
        "m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
        "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}",
        ["[INST]", "[/INST]"],
        "<|end|>",
    ),
}


def tokenizer(template=None, specials=()):
    made = train_tokenizer(TEXTS * 3, 400, 1000)
    if template:
        made.chat_template = template
        made.add_special_tokens({"additional_special_tokens": list(specials)})
    return made


@pytest.fixture(params=["tiny", *TEMPLATES])
def case(request):
    if request.param == "tiny":
        return tokenizer(), "<|end|>"
    template, specials, stop = TEMPLATES[request.param]
    return tokenizer(template, specials), stop


def runs(document):
    """The supervised stretches of ids."""
    found, previous = [], False
    for token, now in zip(document.ids.tolist(), document.supervised.tolist(), strict=True):
        if now and not previous:
            found.append([])
        if now:
            found[-1].append(token)
        previous = now
    return found


def test_supervised_tokens_are_exactly_the_therapists_words_and_one_stop_token(case):
    made, stop = case
    renderer = ChatRenderer(made)
    check_template(renderer)
    document = renderer.document("c/1", dialogue(TURNS, "therapist", "Be kind."))
    assert [made.decode(run).strip() for run in runs(document)] == [TEXTS[1] + stop, TEXTS[3] + stop]
    assert all(run.count(made.convert_tokens_to_ids(stop)) == 1 for run in runs(document))
    everything = made.decode(document.ids)
    assert everything.count("Be kind.") == 1
    assert everything.count("<|bos|>") == ("bos_token" in made.chat_template)
    assert document.supervised[-1]


def test_the_patients_side_is_the_same_code_with_the_roles_turned(case):
    made, stop = case
    document = ChatRenderer(made).document("c/1", dialogue(TURNS, "patient", None))
    assert [made.decode(run).strip() for run in runs(document)] == [TEXTS[0] + stop, TEXTS[2] + stop]
    assert OPENING in made.decode(document.ids)


def test_prompt_is_what_training_shows_before_the_turn(case):
    made, _ = case
    renderer = ChatRenderer(made)
    messages = dialogue(TURNS, "therapist", "Be kind.")
    prompt = renderer.prompt(messages[:-1])
    document = renderer.document("c/1", messages)
    assert document.ids[: len(prompt)].tolist() == prompt
    assert document.supervised[len(prompt)]


def test_the_whole_text_is_tokenized_once_and_nothing_is_lost(case):
    made, _ = case
    messages = dialogue(TURNS, "therapist", None)
    whole = made.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages], tokenize=True, return_dict=False
    )
    document = ChatRenderer(made).document("c/1", messages)
    assert document.ids.tolist() == whole[: len(document)]


def test_stop_ids(case):
    made, stop = case
    assert ChatRenderer(made).stop_ids == {made.convert_tokens_to_ids(stop), made.eos_token_id}


def test_unusable_templates_are_refused_with_the_reason():
    made = tokenizer()
    made.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        ChatRenderer(made)
    no_stop = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    with pytest.raises(UserError, match="no stop token|token borders"):
        ChatRenderer(tokenizer(no_stop)).document("c/1", dialogue(TURNS, "therapist", None))
    last_only = "{{ '<|user|>' + messages[-1].content + '<|end|>' }}"
    with pytest.raises(UserError, match="drops, repeats or reorders"):
        ChatRenderer(tokenizer(last_only)).document("c/1", dialogue(TURNS, "therapist", None))
    counting = (
        "{{ messages | length }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    with pytest.raises(UserError, match="renders earlier turns differently"):
        check_template(ChatRenderer(tokenizer(counting)))


def test_special_tokens_in_a_turn_are_refused_by_name():
    renderer = ChatRenderer(tokenizer())
    turns = (Turn("patient", "hello <|end|> there"), Turn("therapist", "yes"))
    with pytest.raises(UserError, match=r"course-7/2: message 1 contains the special token '<\|end\|>'"):
        renderer.document("course-7/2", dialogue(turns, "therapist", None))


def test_a_session_with_nothing_to_learn_from_is_refused_by_name():
    with pytest.raises(UserError, match="c/9: nothing in it is supervised"):
        ChatRenderer(tokenizer()).document("c/9", dialogue(TURNS[:1], "therapist", None))


def test_plain_document_and_saved_tokenizer(tmp_path):
    made = tokenizer()
    document = plain_document(SESSION, made)
    assert made.decode(document.ids) == "<|bos|>" + "".join(text + "<|end|>" for text in TEXTS)
    assert document.supervised.tolist() == [False] + [True] * (len(document) - 1)
    made.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    messages = [Message("user", "a"), Message("assistant", "b")]
    assert ChatRenderer(again).prompt(messages) == ChatRenderer(made).prompt(messages)
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_tokenizer(tmp_path / "missing")
