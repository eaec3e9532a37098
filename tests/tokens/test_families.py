"""The four named families: golden renderings, other people's tokenizers and templates as oracles, random texts."""

from functools import lru_cache

import numpy as np
import pytest
from family_tokenizers import FAMILIES, family_tokenizer, package_file, trl_template
from hypothesis import assume, given
from hypothesis import strategies as st
from lessons import builder_for, documents_for, stretches, units_for

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.mask_check import check_dialogue, check_renderer
from cbtrain.transcripts.types import Turn

TURNS = [
    Turn("patient", "I feel low."),
    Turn("therapist", "Since when?\n\nTake your time."),
    Turn("patient", "Since May. "),
    Turn("therapist", "What happened then?"),
    Turn("patient", "I lost my job."),
]
SYSTEM = "Be kind."

# Layouts written down by hand; [[ ]] holds what is supervised.
GOLDEN = {
    "llama3.1": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nI feel low.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[[Since when?\n\nTake your time.<|eot_id|>]]"
    "<|start_header_id|>user<|end_header_id|>\n\nSince May.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[[What happened then?<|eot_id|>]]",
    "qwen2.5": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nI feel low.<|im_end|>\n"
    "<|im_start|>assistant\n[[Since when?\n\nTake your time.<|im_end|>]]\n<|im_start|>user\nSince May.<|im_end|>\n"
    "<|im_start|>assistant\n[[What happened then?<|im_end|>]]",
    "qwen3": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nI feel low.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n[[Since when?\n\nTake your time.<|im_end|>]]\n"
    "<|im_start|>user\nSince May.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n[[What happened then?<|im_end|>]]",
    "mistral-v0.3": "<s>[INST] Be kind.\n\nI feel low.[/INST][[ Since when?\n\nTake your time.</s>]]"
    "[INST] Since May.[/INST][[ What happened then?</s>]]",
}
STOPS = {"llama3.1": "<|eot_id|>", "qwen2.5": "<|im_end|>", "qwen3": "<|im_end|>", "mistral-v0.3": "</s>"}


@lru_cache
def cached(family):
    return family_tokenizer(family)


def marked(document, decode):
    """The text with the supervised stretches in double brackets."""
    text, _before = "", False
    ids, kept = document.ids.tolist(), document.supervised.tolist()
    borders = [i for i in range(1, len(ids)) if kept[i] != kept[i - 1]]
    for start, stop in zip([0, *borders], [*borders, len(ids)], strict=True):
        part = decode(ids[start:stop])
        text += f"[[{part}]]" if kept[start] else part
    return text.replace("<s> [INST]", "<s>[INST]")


@pytest.mark.parametrize("family", FAMILIES)
def test_golden(family):
    tokenizer = cached(family)
    (document,) = documents_for(tokenizer, TURNS, system=SYSTEM)
    assert marked(document, builder_for(tokenizer).renderer.decode) == GOLDEN[family]
    stop = tokenizer.convert_tokens_to_ids(STOPS[family])
    runs = stretches(document)
    assert [run.count(stop) for run in runs] == [1, 1]
    assert all(run[-1] == stop for run in runs)
    bos = tokenizer.bos_token_id
    assert document.ids.tolist().count(bos) == (0 if family.startswith("qwen") else 1)
    assert document.trimmed > 0  # the patient's last turn


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stop_token_is_learnt_also_where_it_is_the_pad_token(family):
    tokenizer = family_tokenizer(family)
    expected = documents_for(tokenizer, TURNS)[0]
    tokenizer.pad_token = tokenizer.eos_token
    document = documents_for(tokenizer, TURNS)[0]
    assert np.array_equal(document.loss_weights, expected.loss_weights)
    assert document.loss_weights[-1] == 1


def test_llama_equals_the_template_that_trl_ships():
    tokenizer = cached("llama3.1")
    chat = [{"role": "system", "content": SYSTEM}]
    chat += [{"role": "assistant" if t.role == "therapist" else "user", "content": t.text} for t in TURNS]
    frozen = documents_for(tokenizer, TURNS, system=SYSTEM, format="llama3.1")[0]
    for name in ("llama3_1", "llama3_2"):
        ids = tokenizer.apply_chat_template(
            chat, chat_template=trl_template(name), return_dict=False, date_string="26 Jul 2024"
        )
        assert frozen.ids.tolist() == ids[: len(frozen)]
    # Llama 3 is laid out as 3.1 but for the system header, and trl marks its answers.
    masked = tokenizer.apply_chat_template(
        chat[1:], chat_template=trl_template("llama3_training"), return_dict=True, return_assistant_tokens_mask=True
    )
    assert masked["assistant_masks"][-20:] != [0] * 20
    learnt = [i for i, m in zip(masked["input_ids"], masked["assistant_masks"], strict=True) if m]
    assert learnt == frozen.ids[frozen.supervised].tolist()


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_qwen_equals_trls_training_template_but_for_what_is_no_word_of_the_answer(family):
    tokenizer = cached(family)
    chat = [{"role": "system", "content": SYSTEM}]
    chat += [{"role": "assistant" if t.role == "therapist" else "user", "content": t.text.strip()} for t in TURNS]
    template = trl_template(f"{family.replace('.', '_')}_training")
    theirs = tokenizer.apply_chat_template(
        chat, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    document = documents_for(tokenizer, TURNS, system=SYSTEM)[0]
    assert document.ids.tolist() == theirs["input_ids"][: len(document)]
    extra = {"qwen2.5": "\n", "qwen3": "<think>\n\n</think>\n\n"}[family]
    before = tokenizer(extra, add_special_tokens=False)["input_ids"]
    after = tokenizer("\n", add_special_tokens=False)["input_ids"]
    expected = list(theirs["assistant_masks"])
    starts = [i for i in range(1, len(expected)) if expected[i] > expected[i - 1]]
    ends = [i for i in range(1, len(expected)) if expected[i] < expected[i - 1]]
    for start, end in zip(starts, ends, strict=True):
        assert theirs["input_ids"][start : start + len(before)] == before
        assert theirs["input_ids"][end - len(after) : end] == after
        expected[start : start + len(before)] = [0] * len(before)
        expected[end - len(after) : end] = [0] * len(after)
    assert document.supervised.tolist() == [bool(m) for m in expected[: len(document)]]


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_mistral_equals_mistral_common(system):
    from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    file = package_file("mistral_common", "data", "mistral_instruct_tokenizer_240323.model.v3")
    oracle = MistralTokenizer.from_file(str(file), mode=ValidationMode.finetuning)
    texts = [
        "Hi,  two spaces. Café 眠れない 😀",
        "1. Sleep\n2. Walk\n\t- a bit",
        "- ok",
        "What went through\n\nyour mind?",
    ]
    turns = [Turn(("patient", "therapist")[i % 2], text) for i, text in enumerate(texts)]
    first = f"{system}\n\n{texts[0]}" if system else texts[0]
    messages = [UserMessage(content=first), AssistantMessage(content=texts[1])]
    messages += [UserMessage(content=texts[2]), AssistantMessage(content=texts[3])]
    ids = oracle.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens
    assert documents_for(cached("mistral-v0.3"), turns, system=system)[0].ids.tolist() == ids


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co", "Cc"]), max_size=30)
texts = st.builds(
    "".join, st.lists(words | st.sampled_from(["\n", "\n\n", "  ", "\t", "- ", "1.", "…", "’s"]), max_size=6)
)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_both_methods_agree_on_any_text_and_the_words_are_all_there(family, data):
    tokenizer = cached(family)
    said = data.draw(st.lists(texts.filter(lambda t: t.strip()), min_size=2, max_size=6))
    first = data.draw(st.integers(0, 1))
    turns = [Turn(("patient", "therapist")[(i + first) % 2], text) for i, text in enumerate(said)]
    assume(not any(special in text for text in said for special in cached(family).all_special_tokens))
    assume(not any(mark in text for text in said for mark in ("<|", "[INST", "[/INST")))
    system = data.draw(st.none() | st.just("Be kind."))
    builder = builder_for(tokenizer)
    (unit,) = units_for(builder, [turns], system)
    check_dialogue(builder.renderer, builder.messages(unit), "c/1")
    (document,) = builder.build(unit).documents
    whole = "".join(builder.renderer.decode(run) for run in stretches(document))
    stop = STOPS[family]
    spoken = [turn.text.strip() for turn in turns if turn.role == "therapist"]
    assert [part.strip() for part in whole.split(stop)[:-1]] == spoken


def test_unstable_stock_templates_of_known_families_are_replaced_and_stable_ones_are_kept():
    found = {family: choose_format(cached(family)) for family in FAMILIES}
    assert {family: own.name for family, own in found.items()} == {
        "llama3.1": "template",
        "qwen2.5": "template",
        "qwen3": "qwen3",
        "mistral-v0.3": "mistral-v0.3",
    }
    assert "renders earlier turns differently once later ones follow" in found["qwen3"].note
    assert "moves or drops the system text" in found["mistral-v0.3"].note
    dated = choose_format(family_tokenizer("llama3.1", trl_template("llama3_2")))
    assert (dated.name, dated.note) == ("llama3.1", "the tokenizer's own chat template writes today's date")
    for family, own in found.items():
        check_renderer(ChatRenderer(cached(family), own))
    with pytest.raises(UserError, match=r"its chat template writes today's date.*tokens\.format=llama3\.1"):
        choose_format(family_tokenizer("llama3.1", trl_template("llama3_2")), "template")


def test_a_named_format_needs_its_tokens():
    with pytest.raises(
        UserError, match=r"'llama3\.1' needs the token '<\|begin_of_text\|>', which the tokenizer does not have"
    ):
        choose_format(cached("qwen3"), "llama3.1")


@pytest.mark.parametrize("family", FAMILIES)
def test_serving_continues_what_training_shows(family):
    renderer = builder_for(cached(family)).renderer
    (document,) = documents_for(cached(family), TURNS, system=SYSTEM)
    roles = {"therapist": "assistant", "patient": "user"}
    messages = [Message("system", SYSTEM), *(Message(roles[t.role], t.text) for t in TURNS)]
    prompt = renderer.prompt(messages[:4])
    assert document.ids[: len(prompt)].tolist() == prompt
    assert not document.supervised[len(prompt) - 1]
    assert document.supervised[len(prompt)]
    assert renderer.stop_ids == {cached(family).convert_tokens_to_ids(STOPS[family])}
