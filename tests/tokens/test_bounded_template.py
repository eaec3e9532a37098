"""Templates are rendered as transformers renders them, and those that would not end are refused in one line."""

import pytest
from family_tokenizers import package_file
from transformers.utils.chat_template_utils import render_jinja_template

from cbtrain.errors import UserError
from cbtrain.tokens import bounded_template
from cbtrain.tokens.bounded_template import TooMuchWork, render
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.tokenizer import train_tokenizer

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<p>", "unk_token": "<u>"}


def chat(turns, *, system):
    start = [{"role": "system", "content": "S"}] if system else []
    return start + [{"role": ("user", "assistant")[i % 2], "content": f"{i} <b>&\n y"} for i in range(turns)]


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error).__name__


def test_templates_that_trl_ships_are_rendered_as_transformers_does():
    files = sorted(package_file("trl", "chat_templates").glob("*.jinja"))
    assert len(files) > 20
    for file in files[::9]:
        template = file.read_text()
        for messages in (chat(2, system=False), chat(5, system=True)):
            for generate in (True, False):
                ours = outcome(lambda: render(template, messages, generate=generate, tokens=TOKENS))  # noqa: B023
                theirs = outcome(
                    lambda: render_jinja_template(
                        conversations=[messages],  # noqa: B023
                        chat_template=template,  # noqa: B023
                        add_generation_prompt=generate,  # noqa: B023
                        **TOKENS,
                    )[0][0]
                )
                assert ours == theirs, file.name


FOR, END = "{% for i in range(100000) %}", "{% endfor %}"
GROW = "{% set ns = namespace(s=START) %}" + FOR + "{% set ns.s = STEP %}" + END + "{{ ns.s }}"
HOSTILE = {
    "loops": FOR * 3 + "x" + END * 3,
    "loops over nothing": FOR * 2 + "{% for j in range(100000) if j < 0 %}{% endfor %}" + END * 2,
    "repeated text": "{{ 'x' * 10 ** 10 }}",
    "repeated list": "{{ (10 ** 10 * [1])|length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "product": GROW.replace("START", "9").replace("STEP", "ns.s * ns.s"),
    "joined": GROW.replace("START", "'x'").replace("STEP", "ns.s ~ ns.s"),
    "added": GROW.replace("START", "'x'").replace("STEP", "ns.s + ns.s"),
    "tuple joined": GROW.replace("START", "'x'").replace("STEP", "(ns.s, ns.s)|join"),
    "lists in lists": GROW.replace("START", "[1]").replace("STEP", "[ns.s, ns.s]"),
    "dictionaries": GROW.replace("START", "1").replace("STEP", "{'a': ns.s, 'b': ns.s}"),
    "dict()": GROW.replace("START", "1").replace("STEP", "dict(a=ns.s, b=ns.s)"),
    "namespaces": "{% set a = namespace(x=1) %}{{ [a] }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (9999999999, 1) }}",
    "format": "{{ '{:>9999999999}'.format(1) }}",
    "format by argument": "{{ '{:>{}}'.format(1, 9999999999) }}",
    "format filter": "{{ '%9999999999d'|format(1) }}",
    "center": "{{ 'a'|center(9999999999) }}",
    "ljust": "{{ 'a'.ljust(9999999999) }}",
    "map": "{{ range(100000)|map('center', 99999)|list|length }}",
    "indent": "{% set s = '\n' * 90000 %}{{ s|indent(99999) }}",
    "replace": "{% set s = 'a' * 900000 %}{{ s|replace('a', s) }}",
    "str.replace": "{% set s = 'a' * 900000 %}{{ s.replace('a', s) }}",
    "join": "{% set s = 'a' * 900000 %}{{ range(100000)|join(s) }}",
    "str.join": "{% set s = 'a' * 900000 %}{{ s.join(s) }}",
    "expandtabs": "{{ ('\t' * 90000).expandtabs(99999) }}",
    "translate": "{{ ('a' * 90000).translate({97: 'x' * 90000}) }}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "text of a macro": "{% macro f() %}" + "x" * 10**5 + "{% endmacro %}" + FOR + "{% set x = f() %}" + END,
    "block set": "{% set b = 'x' * 100000 %}{% set y %}" + FOR + "{{ b }}" + END + "{% endset %}",
    "text in a loop": FOR + "y" * 5000 + END,
    "batch": "{{ [1]|batch(9999999999, 'x')|list }}",
    "search": "{% set s = 'a' * 4000000 %}" + FOR + "{% if s[1:] in s %}{% endif %}" + END,
    "recursive loop": "{% for m in [[1]] recursive %}{{ loop([m, m]) }}{% endfor %}",
    "sorting": FOR + "{% set x = range(100000)|sort %}" + END,
    "generation": "{% generation %}" + FOR * 3 + "x" + END * 3 + "{% endgeneration %}",
}


@pytest.mark.fault("F12")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_would_not_end_is_refused(name, monkeypatch):
    monkeypatch.setattr(bounded_template, "WORK", 300_000)  # sooner
    with pytest.raises(TooMuchWork) as caught:
        render(HOSTILE[name], [{"role": "user", "content": "x"}], generate=True, tokens={})
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 200


@pytest.mark.fault("F12")
def test_training_and_serving_say_which_folder_or_session_it_was(monkeypatch):
    monkeypatch.setattr(bounded_template, "WORK", 300_000)
    tokenizer = train_tokenizer(["I feel low."] * 4, 300, 512)
    stock, tokenizer.name_or_path = tokenizer.chat_template, "models/mine"
    later = "{% if messages|length > 60 %}" + HOSTILE["loops"] + "{% endif %}"
    tokenizer.chat_template = HOSTILE["loops"] + stock
    with pytest.raises(UserError, match="models/mine: the chat template takes far more steps"):
        choose_format(tokenizer)
    tokenizer.chat_template = later + stock
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer))
    talk = [Message(("user", "assistant")[i % 2], "a") for i in range(61)]
    with pytest.raises(UserError, match="session-61: the chat template takes far more steps"):
        renderer.render(talk, "session-61")
    with pytest.raises(UserError, match="prompt: the chat template takes far more steps"):
        renderer.prompt(talk)


@pytest.mark.fault("F12")
def test_a_long_chat_has_work_enough():
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i} " * 20} for i in range(1000)]
    for name in ("llama3_1", "qwen3", "gemma3"):
        template = package_file("trl", "chat_templates", f"{name}.jinja").read_text()
        assert ("turn 999 " * 20).strip() in render(template, messages, generate=True, tokens=TOKENS)
