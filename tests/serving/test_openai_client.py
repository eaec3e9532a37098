"""The server as the official ``openai`` client sees it."""

import json
import math
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from cbtrain.generation.config import SamplingConfig
from cbtrain.tokens.dialogue import Message

MESSAGES = [{"role": "user", "content": "I feel low."}]


class Mood(BaseModel):
    low: bool
    word: Literal["sad", "tired"]


SCHEMA = {
    "type": "object",
    "properties": {"low": {"type": "boolean"}, "word": {"enum": ["sad", "tired"]}},
    "required": ["low", "word"],
    "additionalProperties": False,
}


async def test_chats_whole_streamed_parsed_and_refused(opened):
    async with opened() as (url, server):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        chats = client.chat.completions

        assert [model.id async for model in client.models.list()] == ["base", "kind", "brief"]
        assert (await client.models.retrieve("kind")).model_dump()["parent"] == "base"

        # Whole, two choices, log-probabilities: what the engine itself gives.
        asked = {"model": "kind", "messages": MESSAGES, "max_tokens": 9, "seed": 5}
        whole = await chats.create(**asked, n=2, logprobs=True, top_logprobs=3)
        sampling = SamplingConfig(temperature=1, top_p=1, max_tokens=9)
        alone = await server.model.answer([Message("user", "I feel low.")], sampling, seed=5, adapter="kind")
        first, second = whole.choices
        assert first.message.content == alone.text != second.message.content
        assert first.finish_reason == alone.finish_reason
        assert whole.usage.prompt_tokens == alone.prompt_tokens
        assert whole.usage.total_tokens == alone.prompt_tokens + sum(len(c.logprobs.content) for c in whole.choices)
        entries = first.logprobs.content
        assert len(entries) == len(alone.ids)
        assert b"".join(bytes(e.bytes) for e in entries).decode(errors="replace").strip() == alone.text.strip()
        for entry in entries:
            assert len(entry.top_logprobs) == 3
            assert all(entry.top_logprobs[0].logprob >= other.logprob for other in entry.top_logprobs)
            assert entry.logprob <= entry.top_logprobs[0].logprob <= 0
            assert sum(math.exp(other.logprob) for other in entry.top_logprobs) <= 1 + 1e-6

        # Streamed: the same words and log-probabilities, and usage at the end.
        stream = await chats.create(**asked, n=2, logprobs=True, stream=True, stream_options={"include_usage": True})
        texts, drawn, usage, reasons = {0: "", 1: ""}, {0: [], 1: []}, None, {}
        async for chunk in stream:
            assert chunk.model == "kind"
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                drawn[choice.index] += [e.logprob for e in choice.logprobs.content] if choice.logprobs else []
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
        assert texts == {choice.index: choice.message.content for choice in whole.choices}
        assert drawn == {
            c.index: pytest.approx([e.logprob for e in c.logprobs.content], abs=1e-5) for c in whole.choices
        }
        assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
        assert usage.completion_tokens == whole.usage.completion_tokens

        # Stop strings and stop tokens.
        text = first.message.content
        stopped = await chats.create(**asked, stop=[text[2:5]])
        assert stopped.choices[0].message.content == text[:2]
        assert stopped.choices[0].finish_reason == "stop"
        ended = await chats.create(**asked, extra_body={"stop_token_ids": [alone.ids[3]]})
        assert ended.usage.completion_tokens == 3

        # Biases and penalties reach the engine.
        biased = await chats.create(**asked, logit_bias={str(alone.ids[0]): 1000.0})
        assert biased.choices[0].logprobs is None
        assert biased.choices[0].message.content != text
        assert (await chats.create(**asked, frequency_penalty=2, presence_penalty=2)).choices[0].message.content != text

        # A schema, by itself, as a stream, and parsed into a class.
        structured = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True}}
        for seed in range(3):
            made = await chats.create(
                model="brief", messages=MESSAGES, seed=seed, max_tokens=80, response_format=structured
            )
            assert set(json.loads(made.choices[0].message.content)) == {"low", "word"}
        parsed = await chats.parse(
            model="brief", messages=MESSAGES, seed=1, max_tokens=80, temperature=0, response_format=Mood
        )
        assert isinstance(parsed.choices[0].message.parsed, Mood)
        free = await chats.create(**asked | {"max_tokens": 60}, response_format={"type": "json_object"})
        assert free.choices[0].message.content.startswith("{")

        # What came back can be sent back.
        history = [*MESSAGES, first.message.model_dump(), {"role": "user", "content": "Go on."}]
        assert (await chats.create(**asked | {"messages": history})).choices[0].message.content

        # Texts: several prompts, words or tokens.
        completion = await client.completions.create(
            model="base", prompt=["I am", "Hello"], max_tokens=4, seed=0, logprobs=2, extra_body={"min_tokens": 4}
        )
        assert [choice.index for choice in completion.choices] == [0, 1]
        for choice in completion.choices:
            marks = choice.logprobs
            assert len(marks.tokens) == len(marks.token_logprobs) == 4
            assert marks.text_offset == [sum(map(len, marks.tokens[:i])) for i in range(len(marks.tokens))]
            assert all(1 <= len(best) <= 2 for best in marks.top_logprobs)
        tokenizer = server.model.voice.renderer.tokenizer
        by_ids = await client.completions.create(
            model="base", prompt=tokenizer("Hello")["input_ids"], max_tokens=4, seed=0
        )
        by_words = await client.completions.create(model="base", prompt="Hello", max_tokens=4, seed=0)
        assert by_ids.choices[0].text == by_words.choices[0].text

        for error, asked_for in (
            (openai.NotFoundError, asked | {"model": "other"}),
            (openai.BadRequestError, asked | {"temperature": 3e38}),
            (openai.BadRequestError, asked | {"messages": [{"role": "user", "content": "word " * 400}]}),
        ):
            with pytest.raises(error) as caught:
                await chats.create(**asked_for)
            assert caught.value.body["message"]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")
