"""What a reply is worth, in all three formats, whole and in pieces: its status, its end, its choices, its usage."""

import dataclasses
import json

import pytest
from aiohttp import web
from asked import PRICE, provider
from loopback import completion
from replies import (
    ANTHROPIC,
    GEMINI,
    OPENAI,
    REQUEST,
    anthropic,
    anthropic_events,
    gemini,
    gemini_events,
    openai,
    openai_events,
    read,
    replied,
    sse,
    streamed,
    usages,
    with_usage,
)

from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.transport import Reply
from cbtrain.providers.types import Usage


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
    assert "usage that cannot be used" in heard[0]
