"""What is read out of answers: thinking, refusals, why they ended, the JSON in them, their counts.

Wordings of failures are those of public bug reports and of the vendors' documentation.
"""

import dataclasses
import json

import pytest
from aiohttp import web
from asked import PRICE, provider
from hypothesis import given
from hypothesis import strategies as st
from loopback import completion, status
from pydantic import BaseModel, ConfigDict, Field

from cbtrain.providers.answers.clearing import cleared, worth_keeping
from cbtrain.providers.answers.finish_reasons import REASONS, finish_of
from cbtrain.providers.answers.json_objects import objects_in
from cbtrain.providers.answers.refusals import is_refusal, leaves_role
from cbtrain.providers.answers.thinking import FORMS, without_thinking
from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.formats.failure_wordings import FILTERS, OVERFLOWS
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.structured import shaped
from cbtrain.providers.transport import Reply
from cbtrain.providers.types import ChatRequest, Message, Usage

REQUEST = ChatRequest((Message("user", "How was your week?"),), max_tokens=80)
OPENAI, ANTHROPIC, GEMINI = OpenAIFormat("http://x/v1", "m"), AnthropicFormat("m"), GeminiFormat("m")


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


def replied(body, kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(200, {"content-type": kind}, data)


class Said:
    """A transport that gives one reply."""

    def __init__(self, reply):
        self.reply = reply

    async def post(self, made, secret):
        return self.reply


async def read(api_format, reply):
    return await attempt(Said(reply), Endpoint(api_format), api_format.request(REQUEST), 5)


def openai(text, finish="stop", **message):
    return completion(text, finish, **message)


def anthropic(text, stop="end_turn", usage=None):
    blocks = [{"type": "text", "text": text}]
    return {"type": "message", "model": "m", "content": blocks, "stop_reason": stop, "usage": usage or {}}


def gemini(text, finish="STOP", usage=None):
    candidate = {"content": {"parts": [{"text": text}]}, "finishReason": finish}
    return {"candidates": [candidate], "usageMetadata": usage or {}}


def streamed(*pieces, finish="stop", done=True):
    events = [{"model": "m", "choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    events[-1]["choices"][0]["finish_reason"] = finish
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return replied("".join(lines).encode(), "text/event-stream")


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


def doubled(body):
    """``body`` as text, with each of its own keys twice."""
    text = json.dumps(body)
    return f"{text[:-1]}, {text[1:]}"


@pytest.mark.parametrize(
    ("api_format", "body"), [(OPENAI, openai("Low.")), (ANTHROPIC, anthropic("Low.")), (GEMINI, gemini("Low."))]
)
@pytest.mark.parametrize("form", ["{}", "data: {}\n\n", "data: {}", 'data: {{"model": "m"}}\n\ndata: {}'])
async def test_a_body_with_a_key_twice_is_no_answer(api_format, body, form):
    """Nobody knows which of the two is meant."""
    assert json.loads(doubled(body)) == body
    with pytest.raises(ProviderError, match="not an answer of this protocol \\(a key comes twice") as caught:
        await read(api_format, replied(form.format(doubled(body)).encode()))
    assert caught.value.sent


async def test_a_failure_inside_an_answer_is_waited_for_as_its_headers_say():
    reply = Reply(200, {"Retry-After": "7"}, json.dumps({"error": {"code": 429, "message": "slow down"}}).encode())
    for api_format in (OPENAI, ANTHROPIC, GEMINI):
        with pytest.raises(ProviderError) as caught:
            await read(api_format, reply)
        assert (caught.value.kind, caught.value.retry_after_s, caught.value.sent) == ("rate_limit", 7.0, True)


@pytest.mark.parametrize("code", [201, 203, 206])
async def test_a_whole_answer_is_taken_with_any_status_of_success(code):
    for api_format, reply in (
        (OPENAI, replied(openai("Low."))),
        (OPENAI, streamed("Lo", "w.")),
        (ANTHROPIC, replied(anthropic("Low."))),
        (GEMINI, replied(gemini("Low."))),
    ):
        assert (await read(api_format, dataclasses.replace(reply, status=code))).text == "Low."


@pytest.mark.parametrize("code", [202, 204, 206])
async def test_a_success_without_a_whole_answer_may_be_billed(code):
    async def half(request):
        return web.Response(status=code, text="" if code == 204 else '{"choices": [{"mess')

    budget = Budget()
    async with provider(lambda number, body: half, budget=budget, price=PRICE) as (asked, script):
        with pytest.raises(ProviderError, match=f"HTTP {code}, transient: not an answer of this protocol"):
            await asked.chat(REQUEST)
    assert len(script.bodies) == budget.roles["patient"].unknown == 3


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


def sse(events):
    return replied("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode(), "text/event-stream")


def openai_events(pieces):
    return [{"choices": [{"delta": {"content": text}, "finish_reason": end}]} for text, end in pieces]


def anthropic_events(pieces):
    yield {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 5, "output_tokens": 1}}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text, end in pieces:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        if end:
            yield {"type": "message_delta", "delta": {"stop_reason": end}, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


def gemini_events(pieces):
    return [
        {"candidates": [{"content": {"parts": [{"text": text}]}} | ({"finishReason": end} if end else {})]}
        for text, end in pieces
    ]


@pytest.mark.parametrize(
    ("api_format", "events", "ends"),
    [
        (OPENAI, openai_events, {"content_filter": "content_filter", "error": "error", "length": "length", "stop": "stop", "null": "stop"}),
        (ANTHROPIC, anthropic_events, {"refusal": "refusal", "pause_turn": "error", "max_tokens": "length", "end_turn": "stop"}),
        (GEMINI, gemini_events, {"SAFETY": "content_filter", "OTHER": "error", "MAX_TOKENS": "length", "STOP": "stop", "FINISH_REASON_UNSPECIFIED": "stop"}),
    ],
)  # fmt: skip
async def test_the_gravest_end_that_a_stream_names_is_its_end(api_format, events, ends):
    """A filter that is followed by an ordinary end is still one."""
    words = list(ends)
    for grave, light in ((a, b) for number, a in enumerate(words) for b in words[number + 1 :]):
        for order in ((grave, light), (light, grave), (grave, None, light), (light, grave, light)):
            answer = await read(api_format, sse(events([("Lo", None), *(("w", end) for end in order)])))
            assert (answer.finish_reason, answer.reason) == (ends[grave], grave)


async def test_a_prompt_that_was_filtered_is_no_answer_whatever_else_is_there():
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}}
    begun, ended = gemini_events([("Low", None), (".", "STOP")])
    for reply in (
        replied(gemini("Low.") | feedback),
        sse([begun, ended, feedback]),
        sse([feedback, begun, ended]),
        sse([feedback, {"promptFeedback": {}}]),
        sse([begun, feedback]),
    ):
        assert (await read(GEMINI, reply)).finish_reason == "content_filter"
    assert (await read(GEMINI, replied(gemini("Low.") | {"promptFeedback": {}}))).finish_reason == "stop"


@pytest.mark.fault("D7")
@pytest.mark.parametrize("content", [[{"type": "refusal", "refusal": "I can't."}],
                                     [{"type": "text", "text": ""}, {"type": "refusal", "refusal": "I can't."}]])  # fmt: skip
async def test_a_refusal_in_a_part_of_the_content_is_asked_for_once(content):
    for reply in (replied(openai(content)), sse(openai_events([(content[:1], None), (content[1:], "stop")]))):
        answer = await read(OPENAI, reply)
        assert (answer.text, answer.finish_reason) == ("I can't.", "refusal")
    async with provider(lambda number, body: completion(content)) as (asked, script):
        assert (await asked.chat(REQUEST)).finish_reason == "refusal"
    assert len(script.bodies) == 1


def choices(*pairs):
    message = lambda text: {"content": text}  # noqa: E731
    return [{"index": index, "message": message(text), "finish_reason": "stop"} for index, text in pairs]


def candidates(*pairs):
    return [{"index": index, "content": {"parts": [{"text": text}]}, "finishReason": "STOP"} for index, text in pairs]


def deltas(*pairs):
    return [{"index": index, "delta": {"content": text}, "finish_reason": "stop"} for index, text in pairs]


@pytest.mark.parametrize(
    "pairs", [((0, "Low."), (1, "High.")), ((1, "High."), (0, "Low.")), ((0, "Low."), (0, "High."))]
)
async def test_of_several_answers_none_is_picked(pairs):
    """It is said at once, and not asked for again: each is paid for."""
    replies = [
        (OPENAI, replied({"choices": choices(*pairs)})),
        (OPENAI, sse([{"choices": deltas(*pairs)}])),
        (GEMINI, replied({"candidates": candidates(*pairs)})),
        (GEMINI, sse([{"candidates": candidates(*pairs)}])),
    ]
    if len(dict(pairs)) == 2:
        replies += [(OPENAI, sse([{"choices": deltas(pair)} for pair in pairs]))]
        replies += [(GEMINI, sse([{"candidates": candidates(pair)} for pair in pairs]))]
    for api_format, reply in replies:
        with pytest.raises(ProviderError, match="permanent: the API gives 2 answers") as caught:
            await read(api_format, reply)
        assert caught.value.sent
    for api_format, body in (
        (OPENAI, {"choices": choices((1, "Low."))}),
        (GEMINI, {"candidates": candidates((1, "Low."))}),
    ):
        assert (await read(api_format, replied(body))).text == "Low."


START, TEXT, _, STOP = list(anthropic_events([("Low.", None)]))
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Low."}}
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}


@pytest.mark.parametrize(
    ("api_format", "events"),
    [
        (ANTHROPIC, [START, DELTA | {"index": 0}, ENDED, STOP]),
        (ANTHROPIC, [START, TEXT, DELTA | {"index": 0}, DELTA | {"index": 1}, ENDED, STOP]),
        (ANTHROPIC, [START, TEXT | {"content_block": {"type": "thinking"}}, DELTA | {"index": 0}, ENDED, STOP]),
        (ANTHROPIC, [START, TEXT, DELTA | {"index": 0}, TEXT, DELTA | {"index": 0}, ENDED, STOP]),
        (ANTHROPIC, [START, TEXT, DELTA | {"index": 0}, START, ENDED, STOP]),
        (ANTHROPIC, [{"type": "message_start", "message": anthropic("Low.")}, ENDED, STOP]),
        (ANTHROPIC, [TEXT, DELTA | {"index": 0}, ENDED, STOP]),
        (OPENAI, [{"choices": choices((0, "Low."))}]),
        (OPENAI, [{"choices": [{"text": "Low.", "finish_reason": "stop"}]}]),
        (GEMINI, [{"candidates": [{"content": "Low.", "finishReason": "STOP"}]}]),
    ],
)  # fmt: skip
async def test_no_text_of_a_stream_is_dropped_in_silence(api_format, events):
    with pytest.raises(ProviderError, match="not an answer of this protocol"):
        await read(api_format, sse(events))


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


@pytest.mark.fault("D8")
@pytest.mark.parametrize(
    ("counts", "expected"),
    [((100.0, 20), (100, 20)), (("100", "20"), (100, 20)), ((1e2, 2e1), (100, 20))],
)
async def test_counts_of_tokens_are_read_however_they_are_written(counts, expected):
    prompt, answered = counts
    bodies = (
        (OPENAI, openai("Low.") | {"usage": {"prompt_tokens": prompt, "completion_tokens": answered}}),
        (ANTHROPIC, anthropic("Low.", usage={"input_tokens": prompt, "output_tokens": answered})),
        (GEMINI, gemini("Low.", usage={"promptTokenCount": prompt, "candidatesTokenCount": answered})),
    )
    for api_format, body in bodies:
        answer = await read(api_format, replied(body))
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.unread) == (*expected, "")


def usages(prompt, answered, cached=0, thinking=0):
    """The same counts in the words of each API; None leaves one out."""
    given = lambda **counts: {name: count for name, count in counts.items() if count is not None}  # noqa: E731
    visible = answered - thinking if isinstance(answered, int) and thinking else answered
    fresh = prompt - cached if isinstance(prompt, int) and cached else prompt
    return (
        (OPENAI, given(prompt_tokens=prompt, completion_tokens=answered, total_tokens=1,
                       prompt_tokens_details={"cached_tokens": cached},
                       completion_tokens_details={"reasoning_tokens": thinking})),
        (ANTHROPIC, given(input_tokens=fresh, output_tokens=answered, cache_read_input_tokens=cached,
                          output_tokens_details={"thinking_tokens": thinking})),
        (GEMINI, given(promptTokenCount=prompt, candidatesTokenCount=visible, cachedContentTokenCount=cached,
                       thoughtsTokenCount=thinking)),
    )  # fmt: skip


def with_usage(api_format, usage, text="Low.", finish="stop"):
    """The answer in one piece, and in several with the usage at the end."""
    if api_format is OPENAI:
        end = {"choices": [], "usage": usage}
        return replied(openai(text, finish) | {"usage": usage}), sse([*openai_events([(text, finish)]), end])
    if api_format is ANTHROPIC:
        events = [*anthropic_events([(text, finish)])]
        begun = {name: count for name, count in usage.items() if name != "output_tokens"} | {"output_tokens": 1}
        events[0] = {"type": "message_start", "message": {"type": "message", "usage": begun}}
        events[-2] = events[-2] | {"usage": {"output_tokens": usage.get("output_tokens")}}
        return replied(anthropic(text, finish, usage)), sse(events)
    events = gemini_events([(text, None), ("", finish)])
    events[0] |= {"usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 1}}
    events[1] |= {"usageMetadata": usage}
    return replied(gemini(text, finish, usage)), sse(events)


@pytest.mark.fault("D8")
@pytest.mark.parametrize(
    ("counts", "text", "finish", "believed"),
    [
        ((40, 12), "Low.", "stop", True),
        ((40, 12, 40, 11), "Low.", "stop", True),
        ((40, 1, 16), "Low.", "stop", True),
        ((15_000, 12), "Low.", "stop", True),  # a hidden system prompt
        ((40, 3_000), "Low. " * 1_000, "length", True),  # the limit is ignored
        ((40, 80, 0, 80), "", "length", True),  # nothing but thinking
        ((40, 0), "", "content_filter", True),
        ((40, None), "", "content_filter", True),  # Gemini leaves out what is 0
        ((None, 12), "Low.", "stop", False),
        ((None, 12, 16), "Low.", "stop", False),
        ((40, None), "Low.", "stop", False),
        ((None, None), "Low.", "stop", False),
        ((0, 12), "Low.", "stop", False),
        ((40, 0), "Low.", "stop", False),
        ((40, 12, 0, 12), "Low.", "stop", False),
        ((40, None), "", "length", False),
        ((10**9, 12), "Low.", "stop", False),
        ((40, 10**9), "Low.", "stop", False),
        ((40, 12, 10**9), "Low.", "stop", False),
        ((40, 12, 41), "Low.", "stop", False),
        ((40.5, 12), "Low.", "stop", False),
        ((40, -1), "Low.", "stop", False),
        ((40, 12, True), "Low.", "stop", False),
    ],
)
async def test_usage_is_believed_only_where_it_can_be_that_of_the_answer(counts, text, finish, believed):
    for api_format, usage in usages(*counts):
        for reply in with_usage(api_format, usage, text, finish):
            answer = await read(api_format, reply)
            assert (answer.unread == "") == believed, answer
            prompt, answered = counts[:2]
            expected = Usage(prompt, answered or 0, *counts[2:3], 0, *counts[3:]) if believed else Usage()
            assert answer.usage == expected


@pytest.mark.fault("D8")
@pytest.mark.parametrize("usage", ["none", None, {"prompt_tokens": 7}, {"completion_tokens": 1}, {"total_tokens": 9},
                                   {"prompt_tokens": 10**9, "completion_tokens": 10**9},
                                   {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10**9}},
                                   {"prompt_tokens": -7}, {"prompt_tokens": "many"}, {"prompt_tokens": 1.5},
                                   {"prompt_tokens_details": 3}, {"completion_tokens": True}])  # fmt: skip
async def test_no_answer_is_lost_for_its_counts(usage):
    """All that was set aside for it is booked, and a person hears of it once."""
    heard, budget = [], Budget()
    reply = completion("I feel low.") | {"usage": usage}
    async with provider(lambda n, body: reply, budget=budget, price=PRICE) as (asked, script):
        asked.warn = heard.append
        for _ in range(2):
            assert (await asked.chat(REQUEST)).text == "I feel low."
        reserve = PRICE.cost(Usage(prompt_tokens(asked.endpoint.api_format.request(REQUEST)), REQUEST.max_tokens))
    assert budget.spent == pytest.approx(2 * reserve)
    assert len(script.bodies) == 2
    assert len(heard) == 1
    assert "usage that cannot be read" in heard[0]
