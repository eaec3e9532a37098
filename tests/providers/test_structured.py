"""Shaped answers: what is wrong is said, at most twice, and nothing is guessed."""

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from cbtrain.providers.structured import ask
from cbtrain.providers.types import ChatRequest, ChatResponse, Message, Usage


class Rating(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    score: int = Field(ge=0, le=6)
    reason: str


REQUEST = ChatRequest((Message("user", "Rate this."),), max_tokens=99)
GOOD = {"score": 4, "reason": "clear"}


class Answers:
    """Gives its texts one after the other, and keeps what it was asked."""

    def __init__(self, *texts, finish="stop"):
        self.texts, self.finish, self.asked = list(texts), finish, []

    async def __call__(self, request):
        self.asked.append(request)
        return ChatResponse(self.texts[len(self.asked) - 1], self.finish, Usage(5, 2), "m", 0.1, 1)


@pytest.mark.parametrize("text", [json.dumps(GOOD), f"```json\n{json.dumps(GOOD)}\n```", f"Here: {json.dumps(GOOD)}."])
async def test_a_good_answer_is_taken_once(text):
    chat = Answers(text)
    found = await ask(chat, REQUEST, Rating)
    assert (found.status, found.value, found.problem) == ("ok", Rating(**GOOD), "")
    assert len(found.responses) == len(chat.asked) == 1
    assert chat.asked[0].json_schema == Rating.model_json_schema()


async def test_a_bad_answer_is_asked_for_again_with_what_is_wrong():
    chat = Answers('{"score": 9, "reason": "x"}', "no json", json.dumps(GOOD))
    found = await ask(chat, REQUEST, Rating)
    assert (found.status, len(found.responses)) == ("ok", 3)
    assert "score: Input should be less than or equal to 6" in chat.asked[1].messages[-1].content
    assert chat.asked[1].messages[-2] == Message("assistant", '{"score": 9, "reason": "x"}')
    assert [len(request.messages) for request in chat.asked] == [1, 3, 5]


@pytest.mark.parametrize(
    "bad", ['{"score": "4", "reason": "x"}', '{"score": 4}', '{"score": 4, "reason": "", "z": 1}', ""]
)
async def test_what_stays_bad_stays_without_a_value(bad):
    found = await ask(Answers(bad, bad, bad), REQUEST, Rating)
    assert (found.status, found.value, len(found.responses)) == ("invalid", None, 3)
    assert found.problem


@pytest.mark.parametrize(
    ("finish", "status"), [("length", "truncated"), ("refusal", "refused"), ("content_filter", "refused")]
)
async def test_what_is_cut_or_refused_is_not_asked_for_again(finish, status):
    found = await ask(Answers(json.dumps(GOOD), finish=finish), REQUEST, Rating)
    assert (found.status, found.value, len(found.responses)) == (status, None, 1)


async def test_an_empty_answer_is_no_turn_of_its_own_when_it_is_asked_for_again():
    chat = Answers(" ", json.dumps(GOOD))
    assert (await ask(chat, REQUEST, Rating)).status == "ok"
    (message,) = chat.asked[1].messages
    assert message.role == "user"
    assert message.content.startswith("Rate this.\n\nThis is not a valid answer")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (json.dumps(GOOD), GOOD),
        (f"```json\n{json.dumps(GOOD)}\n```", GOOD),
        ('{"score": 9}', {"score": 9}),
        ("Low, I think.", None),
        ("[1]", None),
        ('{"a": ', None),
        ("{" * 100_000 + "}" * 100_000, None),
    ],
)
def test_an_answer_is_parsed_whatever_its_shape(text, parsed):
    assert ChatResponse(text, "stop", Usage(), "m", 0.1, 1).parsed == parsed
