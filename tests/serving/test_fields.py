"""Every field of a request is served, changes nothing, or is refused by name; no body makes the server fail."""

import asyncio
import inspect
import json

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParams
from places import ROOT

from cbtrain.serving.errors import Refused
from cbtrain.serving.requests.chat import ChatBody, ChatMessage
from cbtrain.serving.requests.fields import IGNORED, NEUTRAL, NEUTRAL_IN_CHATS, NEUTRAL_IN_MESSAGES, NEUTRAL_IN_TEXTS
from cbtrain.serving.requests.strict_json import read_json
from cbtrain.serving.requests.text import TextBody

CHAT = {"model": "base", "messages": [{"role": "user", "content": "I feel low."}], "max_tokens": 3, "seed": 1}
TEXT = {"model": "base", "prompt": "I feel", "max_tokens": 3, "seed": 1}


def refused(read, body):
    """Return the message and the field of the error that ``body`` gets; None if it gets none."""
    try:
        read(body)
    except Refused as error:
        return error.message if error.status == 400 else f"status {error.status}", error.param
    return None


@pytest.mark.fault("C2")
def test_each_field_of_the_protocol_is_served_neutral_or_refused_by_name():
    for params, cls, valid, neutral in (
        (ChatParams, ChatBody, CHAT, NEUTRAL | NEUTRAL_IN_CHATS),
        (TextParams, TextBody, TEXT, NEUTRAL | NEUTRAL_IN_TEXTS),
    ):
        fields = set(inspect.get_annotations(params)) - {"stream"}
        assert len(fields) >= 15
        unknown = fields - set(cls.model_fields) - IGNORED - set(neutral)
        assert not unknown, "openai's client can send fields that this server has not heard of"
        for name in (set(neutral) | fields) - set(cls.model_fields) - IGNORED:
            assert refused(cls.read, valid | {name: None}) is None
            for value in neutral[name]:
                assert refused(cls.read, valid | {name: value}) is None, (name, value)
            message, param = refused(cls.read, valid | {name: {"x": 1}})
            assert param == name in message
        for name in IGNORED:
            assert refused(cls.read, valid | {name: "anything"}) is None
    for name, values in NEUTRAL_IN_MESSAGES.items():
        for value in (None, *values):
            assert refused(ChatBody.read, CHAT | {"messages": [CHAT["messages"][0] | {name: value}]}) is None
        message, param = refused(ChatBody.read, CHAT | {"messages": [CHAT["messages"][0] | {name: "x"}]})
        assert param == f"messages.0.{name}" in message


def test_the_page_names_each_field():
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    fields = {*ChatBody.model_fields, *TextBody.model_fields, *IGNORED, *NEUTRAL, *NEUTRAL_IN_MESSAGES}
    fields |= {*NEUTRAL_IN_CHATS, *NEUTRAL_IN_TEXTS, *ChatMessage.model_fields}
    assert not {field for field in fields if f"`{field}`" not in page}


@pytest.mark.fault("C2")
def test_misspelt_fields_get_a_hint_and_types_are_strict():
    message, param = refused(ChatBody.read, CHAT | {"tempratrue": 0.5})
    assert param == "tempratrue"
    assert "did you mean temperature?" in message
    for wrong, field in (
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 1e-46}, "temperature"),
        ({"top_p": 1e-46}, None),  # as small as a share can be: served
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"seed": "1"}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 1_000}, "n"),
        ({"logit_bias": {"word": 1}}, "logit_bias"),
        ({"logit_bias": {"5": "1"}}, "logit_bias"),
        ({"stop": ["x"] * 40}, "stop"),
        ({"stop": ["x", ""]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "stream_options"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_completion_tokens": 4}, "max_tokens"),
        ({"min_tokens": 4}, "min_tokens"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ):

        def read(body):
            ChatBody.read(body).sampling(256)

        answer = refused(read, CHAT | wrong)
        assert (answer and answer[1]) == field, (wrong, answer)


@pytest.mark.fault("C3")
def test_stops_and_contents_are_what_they_say():
    for wrong in (
        {"stop": ""},
        {"messages": []},
        {"messages": [{"role": "doctor", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": ["Hello"]},
        {"messages": "Hello"},
    ):
        assert refused(ChatBody.read, CHAT | wrong)[1].split(".")[0] == next(iter(wrong))
    parts = [{"type": "text", "text": "I feel"}, {"type": "text", "text": "low."}]
    assert ChatBody.read(CHAT | {"messages": [{"role": "user", "content": parts}]}).messages == [
        ChatMessage(role="user", content="I feel\nlow.")
    ]
    for prompt in ("", "x", ["a", "b"], [1, 2], [[1], [2, 3]]):
        assert len(TextBody.read(TEXT | {"prompt": prompt}).prompts) == (
            2 if prompt and type(prompt[0]) is not int and prompt != "x" else 1
        )
    for prompt in ([], [[]], None, 5, [1, "a"], [[1], "a"], [True], [1.5], {"a": 1}, ["\ud800"]):
        assert refused(TextBody.read, TEXT | {"prompt": prompt})[1] == "prompt"


@pytest.mark.fault("C5")
def test_json_is_read_strictly():
    for data, reason in (
        (b"{oops", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"{" + b"".join(b'"%d": 1, ' % number for number in range(60_000)) + b'"9": 2}', "twice"),  # in no long time
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "digits"),
        (b'{"a": ' + b"[" * 100_000, "deeply"),
        (b'{"a": "\xff"}', "UTF-8"),
        ('{"a": "x"}'.encode("utf-16"), "UTF-8"),
    ):
        message, _ = refused(read_json, data)
        assert reason in message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
numbers = st.sampled_from([0, 1, -1, 2, 5, 0.5, 1e-46, 1e-3, 1e308, -1e308, 2**63, 2**80, 10**100, 1000, 128])
names = st.sampled_from(sorted({*ChatBody.model_fields, *TextBody.model_fields, *NEUTRAL, "stop_token_id", ""}))
schemas = st.sampled_from(
    [
        {},
        {"type": "object"},
        {"type": "string", "maxLength": 3},
        {"type": "string", "pattern": "[a-"},
        {"enum": []},
        {"enum": ["a", 1]},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        {"$ref": "#/definitions/x"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"type": "nothing"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"not": {}},
        {"x-guidance": {"lenient": True}, "type": "string", "format": "color"},
    ]
)
special = st.fixed_dictionaries(
    {},
    optional={
        "response_format": st.builds(
            lambda schema, kind: {"type": kind, "json_schema": {"name": "x", "schema": schema}},
            schemas,
            st.sampled_from(["json_schema", "json_object"]),
        ),
        "logit_bias": st.dictionaries(
            st.sampled_from(["0", "5", "320", "321", "99999999", "-1", "x"]), numbers, max_size=4
        ),
        "stop": st.lists(st.text(max_size=3), max_size=3),
        "stop_token_ids": st.lists(st.sampled_from([0, 1, 5, 320, 321, -1, 2**70]), max_size=3),
        "stream": st.booleans(),
        "logprobs": st.booleans() | st.sampled_from([0, 1, 5, 21]),
        "top_logprobs": st.sampled_from([0, 3, 20]),
        "n": st.sampled_from([1, 2]),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=20)}
            ),
            max_size=4,
        ),
        "prompt": st.text(max_size=9) | st.lists(st.sampled_from([0, 5, 320, 321, -1, 2**70]), max_size=4),
    },
)
bodies = st.builds(
    lambda text, odd, number, some: (TEXT if text else CHAT) | odd | number | some,
    st.booleans(),
    st.dictionaries(names | st.text(max_size=10), values, max_size=2),
    st.dictionaries(names, numbers, max_size=2),
    special,
)


async def fuzz(opened, examples):
    async with opened(adapters=()) as (url, server), aiohttp.ClientSession() as session:
        statuses = {}

        async def one(body):
            for path in ("chat/completions", "completions"):
                mine = {k: v for k, v in body.items() if k != ("prompt" if path.startswith("chat") else "messages")}
                mine = (CHAT if path.startswith("chat") else TEXT) | mine
                # Never longer than some steps, whatever is drawn.
                if type(mine.get("max_tokens")) is int and mine["max_tokens"] > 5:
                    mine["max_tokens"] = 5
                mine.pop("max_completion_tokens", None)
                async with session.post(f"{url}/v1/{path}", json=mine) as reply:
                    text = await reply.text()
                    statuses[reply.status] = statuses.get(reply.status, 0) + 1
                    assert reply.status in (200, 400, 404), (reply.status, text, mine)
                    if reply.content_type == "application/json":
                        error = json.loads(text).get("error")
                        assert (error is None) == (reply.status == 200)
                    else:
                        assert '"server_error"' not in text, (text, mine)

        loop = asyncio.get_running_loop()

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(bodies)
        def run(body):
            asyncio.run_coroutine_threadsafe(one(body), loop).result(60)

        await asyncio.to_thread(run)
        assert statuses[200] > examples / 20
        assert statuses[400] > examples / 20
        async with session.get(f"{url}/health") as reply:
            assert reply.status == 200
        assert not any(slot.busy for slot in server.model.engine.cache.slots)


@pytest.mark.fault("C5")
async def test_no_body_makes_the_server_fail(opened):
    await fuzz(opened, 60)


@pytest.mark.deep
async def test_none_of_thousands_of_bodies_makes_the_server_fail(opened):
    await fuzz(opened, 5_000)
