"""What is read out of answers: thinking, refusals, why they ended, the JSON in them, their counts.

Wordings of failures are those of public bug reports and of the vendors' documentation.
"""

import dataclasses
import json

import pytest
from asked import provider
from hypothesis import given
from hypothesis import strategies as st
from loopback import completion, status
from pydantic import BaseModel, ConfigDict, Field
from replies import ANTHROPIC, GEMINI, OPENAI, REQUEST, anthropic, gemini, openai, read, replied, streamed

from cbtrain.providers.answers.clearing import cleared, worth_keeping
from cbtrain.providers.answers.finish_reasons import REASONS, finish_of
from cbtrain.providers.answers.refusals import is_refusal, leaves_role
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.formats.failure_wordings import FILTERS, OVERFLOWS
from cbtrain.providers.structured import shaped
from cbtrain.providers.types import Usage
from cbtrain.text.json_objects import objects_in
from cbtrain.text.thinking import FORMS, without_thinking

QUOTING = '{"reason": "it says <think>, </think> and <|end|> aloud"}'


@pytest.mark.fault("D1")
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>I should sound low.</think>\n\nI feel low.", "I feel low."),
        ("I should sound low.\n</think>\n\nI feel low.", "I feel low."),  # the opening tag is in the prompt
        ("<think>I should sound low, and", ""),  # cut at the limit
        ("I feel low. <think>They ask", "I feel low."),
        ("I feel <THINK>no, worse</Think> terrible.", "I feel terrible."),
        ("<think>a <think> inside</think> more</think>I feel low.", "I feel low."),
        ("Patient: a\n<think>b</think>\nTherapist: c", "Patient: a\nTherapist: c"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Low.<|return|>", "Low."),
        ("I think </i> so.", "I think </i> so."),
        ('{"reason": "it says <think> aloud"}', '{"reason": "it says <think> aloud"}'),
        *[(before + QUOTING + after, before.rpartition("</think>")[2] + QUOTING + after.removesuffix("<|return|>"))
          for before, after in [("```json\n", "\n```"), ("Here: ", " done"), ("<think>hm</think>", "<|return|>"),
                                ('<think>{"a": x</think>```json\n', "\n```"), (f"<think>{QUOTING}</think>", ""),
                                ("hm {</think>", f" and {QUOTING}")]],
    ],
)  # fmt: skip
def test_thinking_is_taken_out(text, left):
    assert without_thinking(text)[0] == left


@pytest.mark.fault("D1")
@given(
    st.sampled_from(FORMS),
    st.text(st.characters(exclude_characters="<[|◁{"), min_size=1).map(str.strip),
    st.text(st.characters(exclude_characters="<[|◁{"), min_size=1).map(str.strip),
    st.sampled_from(("whole", "closing alone", "unclosed")),
)
def test_no_word_of_a_thought_is_left_and_none_of_the_answer_is_lost(form, thought, said, how):
    opening, closing = form
    text = {"whole": f"{opening}{thought}{closing}{said}", "closing alone": f"{thought}{closing}{said}"}.get(
        how, f"{said}{opening}{thought}"
    )
    left, characters = without_thinking(text)
    assert left == said
    assert characters == len(thought)
    assert without_thinking(left) == (left, 0)


@pytest.mark.fault("D1")
@pytest.mark.parametrize(
    ("api_format", "reply"),
    [
        (OPENAI, replied(openai("<think>hm</think>I feel low."))),
        (OPENAI, streamed("<thi", "nk>hm</th", "ink>I feel", " low.")),
        (OPENAI, replied(openai([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                                 {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "I feel low."}]))),
        (ANTHROPIC, replied(anthropic("<think>hm</think>I feel low."))),
        (GEMINI, replied(gemini("<think>hm</think>I feel low."))),
    ],
)  # fmt: skip
async def test_thinking_is_taken_out_of_every_protocol_whole_or_in_pieces(api_format, reply):
    assert (await read(api_format, reply)).text == "I feel low."


@pytest.mark.fault("D3")
@pytest.mark.parametrize("reason", [None, "", "eos", "STOP", "end_turn", "stop_sequence", "max_tokens", "tool_calls"])
async def test_a_whole_answer_is_taken_whatever_its_end_is_called(reason):
    expected = "length" if reason == "max_tokens" else "stop"
    for reply in (replied(openai("I feel low.", reason)), streamed("I feel ", "low.", finish=reason)):
        answer = await read(OPENAI, reply)
        assert (answer.text, answer.finish_reason) == ("I feel low.", expected)
    without = openai("I feel low.")
    del without["choices"][0]["finish_reason"]
    assert (await read(OPENAI, replied(without))).finish_reason == "stop"
    for api_format, body in ((ANTHROPIC, anthropic("I feel low.", reason)), (GEMINI, gemini("I feel low.", reason))):
        assert (await read(api_format, replied(body))).finish_reason == expected


async def test_an_answer_that_broke_off_is_not_whole():
    assert finish_of(None, text="") == finish_of("", text=" ") == "error"
    assert finish_of("tool_calls", text="x", calls=True) == finish_of("tool_calls", text="") == "unknown"
    with pytest.raises(ProviderError, match="ended before the answer"):
        await read(OPENAI, streamed("I feel ", "lo", finish=None, done=False))
    assert set(REASONS) == {reason.lower() for reason in REASONS}


@pytest.mark.fault("D3")
async def test_an_unknown_reason_is_named_and_the_request_is_not_repeated():
    async with provider(lambda number, body: completion("I feel low.", "weary")) as (asked, script):
        with pytest.raises(ProviderError, match="finish reason 'weary'"):
            await asked.chat(REQUEST)
    assert len(script.bodies) == 1
    async with provider(lambda number, body: completion("I feel", "abort")) as (asked, script):
        with pytest.raises(ProviderError, match="ended its answer early \\(finish reason 'abort'\\)"):
            await asked.chat(REQUEST)
    assert len(script.bodies) == 3


class Rating(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    score: int = Field(ge=0, le=6)
    reason: str


GOOD = '{"score": 4, "reason": "clear {sic}"}'
OTHER = '{"score": 2, "reason": "clear"}'


@pytest.mark.fault("D4")
@pytest.mark.parametrize(
    ("text", "score"),
    [
        (f"Note: {{see turn 2}}.\n{GOOD}", 4),
        (f'The shape is {{"score": 0-6, "reason": text}}: {GOOD} {{done}}', 4),
        (f'{{"type": "object", "properties": {{"score": {{}}}}}}\n```json\n{GOOD}\n```', 4),
        (f"{{hm {{}} {GOOD}", 4),
        (f"{GOOD}\n\nAgain: {GOOD}", 4),
        (f"{GOOD}\nor rather {OTHER}", None),  # which one?
        ('{"score": 4, "score": 2, "reason": "x"}', None),
        ('{"score": 4, "reason": "x", "confidence": 1}', 4),
        ("{" * 5000 + GOOD, None),
        (f"{{{GOOD}}}", 4),  # braces of a template
        (f'{{"score": 4,}} No, valid: {GOOD}', 4),
        # A draft inside an object that is no answer.
        (f'{{"note": 1, "note": 2, "draft": {GOOD}}}', None),
        (f'{{\n{" " * 60}"note": 1,, "draft": {GOOD}}}', None),
        (f'{{"a": {{"b": 1, "b": 1}}, "draft": {GOOD}}}', None),
        (f'{{"draft": {GOOD}, "final": {{"score": 2, "rea', None),
        (f'{{"draft": {GOOD}, "final": "two', None),
        (f'{{"draft": {GOOD},}}', None),
        (f"{{'draft': {GOOD}}}", None),
        (f"{{draft: {GOOD}}}", None),
        (f'{{"note": "they said "no" }}, twice", "draft": {GOOD}}}', None),
        ("no object", None),
    ],
)
def test_the_one_object_of_the_shape_is_taken(text, score):
    value, problem = shaped(text, Rating)
    assert (value and value.score) == score
    assert bool(problem) == (score is None)


@pytest.mark.fault("D4")
@given(st.data())
def test_no_object_inside_a_broken_one_is_taken(data):
    """Cut anywhere, or with a comma too many."""
    outer = json.dumps({"note": {"turn": 2}, "draft": json.loads(GOOD), "say": 'a "brace" } {', "list": [{}]})
    cut = data.draw(st.integers(1, len(outer) - 1))
    assert objects_in(f"Here: {outer[:cut]}") == objects_in(f"{outer[:-1]},}}") == []


@given(st.lists(st.sampled_from(["{", "}", "{}", '{"a": 1}', "\\", " x ", "[", "]", ":", "null"]), max_size=40))
def test_objects_are_found_in_any_text(pieces):
    text = "".join(pieces)
    found = objects_in(text)
    assert all(json.loads(part) == value for part, value in found)
    assert [part for part, _ in objects_in(f"{text} \n{GOOD}")][-1:] == [GOOD]


# Each is what an API has sent, with the numbers of another day.
OVERFLOW = [
    (ANTHROPIC, 400, {"error": {"type": "invalid_request_error", "message": "input length and `max_tokens` exceed context limit: 189136 + 20000 > 204648, decrease input length or `max_tokens` and try again"}}),
    (OPENAI, 500, {"error": {"code": 500, "message": "the request exceeds the available context size. try increasing the context size or enable context shift", "type": "exceed_context_size_error", "n_prompt_tokens": 1407, "n_ctx": 256}}),
    (OPENAI, 400, {"error": {"code": 400, "message": "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"}}),
    (OPENAI, 400, {"message": "Input is too long for requested model."}),
    (OPENAI, 400, {"error": {"message": "This model's maximum prompt length is 131072 but the request contains 537812 tokens"}}),
    (OPENAI, 400, {"error": {"message": "Please reduce the length of the messages or completion."}}),
    (OPENAI, 400, {"error": {"message": "The number of tokens to keep from the initial prompt is greater than the context length."}}),
    (OPENAI, 400, {"error": {"message": "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"}}),
    (OPENAI, 400, {"error": {"message": "Input tokens exceed the configured limit of 272000 tokens."}}),
]  # fmt: skip
FILTER = [
    (OPENAI, 400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error", "code": "invalid_request_error"}}),
    (OPENAI, 400, {"detail": "Content Exists Risk"}),
    (ANTHROPIC, 400, {"error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}),
    (OPENAI, 400, {"error": {"message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "code": "invalid_prompt"}}),
    (OPENAI, 403, {"error": {"code": 403, "message": "This request was declined", "metadata": {"reasons": ["self-harm"], "flagged_input": "I want to", "provider_name": "x"}}}),
    (OPENAI, 403, {"error": {"code": 403, "message": "m requires moderation on OpenRouter. Your input was flagged for \"self-harm\"."}}),
    (OPENAI, 400, {"error": {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}}),
    (OPENAI, 400, {"error": {"message": "The request was rejected because it was considered high risk"}}),
    (OPENAI, 400, {"error": {"message": "The response was filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
]  # fmt: skip


@pytest.mark.fault("D5")
@pytest.mark.parametrize(
    ("api_format", "code", "body", "kind"),
    [(*row, "context_overflow") for row in OVERFLOW] + [(*row, "content_filter") for row in FILTER],
)
def test_failures_in_the_words_of_the_vendors(api_format, code, body, kind):
    assert api_format.failure(code, {}, json.dumps(body)).kind == kind
    if "error" in body:  # OpenRouter hands them on with status 200
        with pytest.raises(ProviderError) as caught:
            OPENAI.answer(body)
        assert caught.value.kind == kind


@pytest.mark.fault("D5")
def test_words_of_a_speaker_are_no_words_of_the_api():
    metadata = {"flagged_input": "I read about the maximum context length"}
    assert (
        OPENAI.failure(403, {}, json.dumps({"error": {"message": "no", "metadata": metadata}})).kind == "content_filter"
    )
    for words in (*OVERFLOWS, *FILTERS):
        assert words == words.lower()
        assert OPENAI.failure(401, {}, words).kind == "permanent"
        assert OPENAI.failure(429, {}, words).kind == "rate_limit"


@pytest.mark.fault("D5")
async def test_an_overflow_with_status_500_is_asked_once():
    async with provider(lambda n, body: status(500, "the request exceeds the available context size")) as (
        asked,
        script,
    ):
        with pytest.raises(ProviderError) as caught:
            await asked.chat(REQUEST)
    assert (caught.value.kind, len(script.bodies)) == ("context_overflow", 1)


REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "Sorry, but I can't help with this.",
    "I cannot fulfill this request. It goes against my guidelines.",
    "I'm really sorry that you're feeling this way, but I'm unable to provide the help that you need. It's really "
    "important to talk things over with someone who can, though, such as a mental health professional.",
    "I apologize, but I cannot roleplay a person with suicidal thoughts.",
    "I'm sorry. I must decline to continue with this role-play.",
    "I am unable to assist with that.",
    "**I'm sorry, but I can't create content that depicts self-harm.**",
    "很抱歉，我无法提供这方面的帮助。",
]
SPOKEN = [
    "I'm sorry, I can't do that.",
    "I can't talk about it.",
    "I can't help it.",
    "I'm sorry, but I can't go on like this.",
    "I can't help with the kids any more, I'm too tired.",
    "I'm unable to get out of bed.",
    "I can't provide for my family.",
    "I'm sorry, but I can't help with this homework, I tried.",
    "I can't write this letter to my mother.",
    "I won't discuss that again.",
    "I'm sorry, I can't continue with this conversation.",
    "I'm sorry you're feeling this way, but I can help you look at it.",
    "Sorry, I couldn't sleep. " * 40,
]


@pytest.mark.fault("D7")
def test_refusals_are_told_from_what_patients_say():
    assert [text for text in REFUSED if not is_refusal(text)] == []
    assert [text for text in SPOKEN if leaves_role(text)] == []
    for machine in ("As an AI language model, I don't have feelings.", "I'm an AI and cannot be a patient."):
        assert leaves_role(machine)
        assert not is_refusal(machine)  # a therapist may say so
    refused = cleared(WireAnswer(REFUSED[0], "stop", Usage(), "m"))
    assert refused.finish_reason == "refusal"
    assert cleared(refused) == refused


@pytest.mark.fault("D7")
async def test_a_refusal_is_not_kept_nor_taken_from_what_older_versions_kept(tmp_path):
    """Nor is an answer of nothing but thinking; thinking that was kept is taken out."""
    made = WireRequest("http://x", {}, {})
    texts = {"a": REFUSED[0], "b": "<think>hm", "c": "<think>hm</think>I feel low.", "d": "I feel low."}

    async def found(cache):
        answers = {}
        for key in texts:
            async with cache.ask(key) as answer:
                if answer is not None:
                    answers[key] = answer
        return answers

    async with AnswerCache(tmp_path / "answers") as cache:
        for key, text in texts.items():
            await cache.keep(key, made.body, cleared(WireAnswer(text, "stop", Usage(1, 2), "m")))
        assert list(await found(cache)) == ["c", "d"]
        for key, text in texts.items():  # as an older version wrote them
            answer = {"text": text, "finish_reason": "stop", "usage": dataclasses.asdict(Usage(1, 2)), "model": "m"}
            await cache._do(
                lambda key=key, answer=answer: cache._database.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, "{}", json.dumps(answer), 0.0)
                )
            )
        kept = await found(cache)
    assert {key: (answer.text, answer.thinking) for key, answer in kept.items()} == {
        "c": ("I feel low.", 2),
        "d": ("I feel low.", 0),
    }
    assert all(map(worth_keeping, kept.values()))
