"""The file of all requests and replies: what is stored as a difference comes back whole, and it stays small."""

import json
import os
import random

import pytest

from cbtrain.providers.exchanges.log import ExchangeLog
from cbtrain.providers.exchanges.reading import read_exchanges
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.transport import Reply
from cbtrain.providers.types import Usage

SECRET = {"Authorization": "Bearer planted-secret-123"}


class Api:
    def __init__(self, reply=b"{}"):
        self.reply = reply

    async def post(self, wire_request, secret, arriving=None):
        return Reply(200, {"Retry-After": "1", "Set-Cookie": "a"}, self.reply)


async def ask(log, name, body, reply=b"{}"):
    with log.attempt(Api(reply), name, "patient", 1) as transport:
        await transport.post(WireRequest("http://host/v1", {}, body), SECRET)


def name_of(number):
    return f"{number:064x}/0123abcd"


def words(draw, count):
    return " ".join(f"w{draw.randrange(9999)}" for _ in range(count))


def dialogue(draw, turns, *, last=None, field="messages"):
    """The bodies of the requests of one dialogue, which sees its ``last`` turns."""
    system, schema = words(draw, 80), {"schema": words(draw, 80)}
    said = [{"role": "user", "content": words(draw, 100)} for _ in range(turns)]
    for count in range(turns):
        seen = said[:count][-last:] if last else said[:count]
        yield {"model": "m", "system": system, field: seen, "response_format": schema, "seed": draw.randrange(2**48)}


async def test_every_body_comes_back_and_a_dialogue_grows_with_its_words_alone(tmp_path):
    path, draw = tmp_path / "requests.jsonl", random.Random(1)
    dialogues = [[*dialogue(draw, 50)], [*dialogue(draw, 30, last=6)], [*dialogue(draw, 20, field="contents")]]
    bodies = [body for bodies in dialogues for body in bodies]
    draw.shuffle(bodies)  # a repeated attempt, a re-ask: a longer request may come before a shorter one
    bodies += [{"messages": "no list", "model": None}, {"messages": []}]
    with ExchangeLog(path) as log:
        for number, body in enumerate(bodies):
            await ask(log, name_of(number), body)
    with path.open("ab") as file:
        file.write(path.read_bytes()[:300])  # torn by a kill
    with ExchangeLog(path) as log:  # what the next process writes does not refer to what it does not know
        log.reused(name_of(0), "judge", WireRequest("u", {}, bodies[0]), WireAnswer("hi", "stop", Usage(), "m"))
    exchanges, damaged = read_exchanges(path, [*map(name_of, range(len(bodies))), "unknown"])
    assert damaged == 0
    assert exchanges.pop("unknown") == []
    found = [exchanges[name_of(number)] for number in range(len(bodies))]
    assert [first.body for first, *_ in found] == bodies
    assert [list(first.body) for first, *_ in found] == [list(body) for body in bodies]
    assert [exchange.answer and exchange.answer["text"] for exchange in found[0]] == [None, "hi"]
    assert found[1][0].headers == {"Retry-After": "1"}
    one = tmp_path / "one.jsonl"
    with ExchangeLog(one) as log:
        for number, body in enumerate(dialogues[0]):
            await ask(log, name_of(number), body)
    spoken = sum(len(turn["content"]) for turn in dialogues[0][-1]["messages"])
    assert one.stat().st_size < 2 * spoken < len(json.dumps(dialogues[0])) / 10


@pytest.mark.parametrize("reply", [b"planted-secret-123", b'{"a": "\\u0070lanted-secret-123"}'])
async def test_keys_are_taken_out_of_bodies_and_replies(reply, tmp_path):
    path = tmp_path / "requests.jsonl"
    with ExchangeLog(path) as log:
        await ask(log, name_of(1), {"messages": [{"content": "is planted-secret-123 yours?"}]}, reply)
    ((exchange,),) = read_exchanges(path, [name_of(1)])[0].values()
    assert b"secret" not in path.read_bytes()
    assert exchange.body == {"messages": [{"content": "is [key] yours?"}]}
    assert "[key]" in exchange.reply


async def test_a_full_disk_is_told_of_once_and_ends_nothing(tmp_path):
    path, told = tmp_path / "requests.jsonl", []
    with ExchangeLog(path, told.append) as log:
        file = os.dup(log._file)
        os.dup2(os.open("/dev/full", os.O_WRONLY), log._file)
        for number in range(2):
            await ask(log, name_of(number), {"messages": ["one"]})
        log._thread.submit(os.dup2, file, log._file).result()
        await ask(log, name_of(2), {"messages": ["one", "two"]})
    assert told == [f"{path} is incomplete: it cannot be written (No space left on device). The run continues"]
    exchanges, damaged = read_exchanges(path, [name_of(0), name_of(2)])
    assert damaged == 0
    assert [len(found) for found in exchanges.values()] == [0, 1]
    assert exchanges[name_of(2)][0].body == {"messages": ["one", "two"]}
