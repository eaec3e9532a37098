"""Two processes behind one port: conversations stay with one, and one that is killed is not missed."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from command import start_cbtrain
from forked import PIPE
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.serving.balancer import worker as worker_module
from cbtrain.serving.balancer.choice import conversation_key, preferred
from cbtrain.serving.balancer.worker import Worker
from cbtrain.tokens.dialogue import Message


def test_conversations_stay_and_only_those_of_a_dead_process_move():
    workers = [Worker(f"cpu ({index})", [], {}, print) for index in range(4)]
    chats = [
        {"model": "m", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": f"Hello {i}"}]}
        for i in range(400)
    ]
    first = [preferred(conversation_key(chat), workers)[0] for chat in chats]
    assert all(70 < count < 130 for count in Counter(worker.name for worker in first).values())
    for chat, before in zip(chats, first, strict=True):
        longer = chat | {"messages": [*chat["messages"], {"role": "assistant", "content": "a"}], "seed": 5}
        assert preferred(conversation_key(longer), workers)[0] is before
        after = preferred(conversation_key(chat), workers[1:])[0]
        assert after is before or before is workers[0]
    texts = [{"model": "m", "prompt": "x" * 300}, {"model": "m", "prompt": "x" * 400}]
    assert conversation_key(texts[0]) == conversation_key(texts[1]) != conversation_key(texts[0] | {"model": "n"})
    for odd in ({}, {"messages": 5}, {"messages": [None]}, {"prompt": []}, {"prompt": [[]]}, {"prompt": 3}):
        assert conversation_key(odd)
    # One that has more than its share comes last.
    key = conversation_key(chats[0])
    favourite = preferred(key, workers)[0]
    favourite.under_way = 20
    assert preferred(key, workers)[-1] is favourite
    for worker in workers:
        worker.under_way = 20
    assert preferred(key, workers)[0] is favourite


async def test_a_process_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(worker_module, "PROBE_S", 0.01)
    worker = Worker("cpu", [], {}, lambda line: None)
    worker.process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    worker.url, asked = "http://x", []

    async def is_well(url):
        asked.append(url)
        return len(asked) in (1, 3)

    watching = asyncio.ensure_future(worker.watch(is_well))
    assert await worker.process.wait() == -signal.SIGKILL
    watching.cancel()
    assert len(asked) == 3 + worker_module.PATIENCE
    assert worker.url is None


def children(pid):
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
async def test_a_killed_process_is_not_missed(served_folder):
    arguments = ["--model", served_folder, "--adapter", f"kind={served_folder / 'kind'}", "--devices", "cpu,cpu"]
    arguments += ["--port", "0", "--context", "256", "--slots", "8", "--load-adapters", "--quiet", "--with-parent"]
    server = start_cbtrain("serve", *arguments, stdin=PIPE)
    url = (await asyncio.to_thread(server.stdout.readline)).split()[-1]
    workers = children(server.pid)
    assert len(workers) == 2
    sampling = SamplingConfig(temperature=1, top_p=1, max_tokens=6)

    async with aiohttp.ClientSession() as session:

        async def post(path="chat/completions", **body):
            async with session.post(f"{url}/{path}", json=body) as reply:
                return reply.status, await reply.json()

        async def numbers(name):
            async with session.get(f"{url.removesuffix('/v1')}/metrics") as reply:
                families = text_string_to_metric_families(await reply.text())
            return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]

        async def talk(index):
            """Hold a conversation of three turns; return its messages."""
            messages = [{"role": "user", "content": f"I feel low. {index} of the people whom I know do too."}]
            for turn in range(3):
                body = {"model": "kind", "messages": messages, "seed": turn, "max_tokens": 6}
                status, answer = await post(**body)
                assert status == 200, answer
                messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"] or "…"})
                messages.append({"role": "user", "content": "Tell me more."})
            return messages

        # Each conversation stays with one process, and all get what one model in one process gives.
        talks = await asyncio.gather(*(talk(index) for index in range(10)))
        async with LocalModel(
            str(served_folder), {"kind": served_folder / "kind"}, EngineConfig(context_tokens=256)
        ) as model:
            for messages in talks:
                asked = [Message("user", messages[0]["content"])]
                answer = await model.answer(asked, sampling, seed=0, adapter="kind")
                assert (answer.text or "…") == messages[1]["content"]
        by_device = {labels["device"]: value for labels, value in await numbers("cbtrain_generated_tokens_total")}
        assert len(by_device) == 2
        assert all(by_device.values())
        read = sum(value for _, value in await numbers("cbtrain_prompt_tokens_total"))
        cached = sum(value for _, value in await numbers("cbtrain_cached_prompt_tokens_total"))
        assert cached > read / 3, "later turns find the earlier ones"

        # An adapter in both, or in none.
        folder = str(served_folder / "brief")
        assert (await post("load_lora_adapter", lora_name="late", lora_path=folder))[0] == 200
        assert (await post("load_lora_adapter", lora_name="none", lora_path=str(served_folder.parent)))[0] == 400
        late = [await post(model="late", messages=talks[i][:1], seed=1, max_tokens=6) for i in range(10)]
        assert [status for status, _ in late] == [200] * 10

        # One is killed while it answers: whole answers come from the other one, streams that have begun say it.
        async def stream(index):
            body = {"model": "base", "messages": [{"role": "user", "content": f"{index}"}], "max_tokens": 200}
            body |= {"min_tokens": 200, "seed": index, "stream": True}
            async with session.post(f"{url}/chat/completions", json=body | {"model": "cbtrain"}) as reply:
                begun.append(index)
                events = [line async for line in reply.content if line.startswith(b"data: ")]
            return events[-1] == b"data: [DONE]\n", json.loads(events[-2][6:])

        async def whole(index):
            messages = [{"role": "user", "content": f"{index}!"}]
            return await post(model="cbtrain", messages=messages, max_tokens=150, min_tokens=150, seed=index)

        begun = []
        streams = [asyncio.ensure_future(stream(index)) for index in range(6)]
        wholes = [asyncio.ensure_future(whole(index)) for index in range(6)]
        await until(lambda: len(begun) == 6, 60)
        os.kill(workers[0], signal.SIGKILL)
        answers = await asyncio.gather(*wholes)
        assert [status for status, _ in answers] == [200] * 6
        assert all(answer["usage"]["completion_tokens"] == 150 for _, answer in answers)
        ends = await asyncio.gather(*streams, return_exceptions=True)
        broken = [last for done, last in ends if not done]
        assert 0 < len(broken) < 6
        async with session.get(f"{url.removesuffix('/v1')}/health") as reply:
            assert (reply.status, (await reply.json())["status"]) == (200, "degraded")

        # It is started again, with the adapter that was loaded meanwhile.
        end = time.monotonic() + 120
        while True:
            async with session.get(f"{url.removesuffix('/v1')}/health") as reply:
                if (await reply.json())["status"] == "ok":
                    break
            assert time.monotonic() < end
            await asyncio.sleep(0.2)
        again = [await post(model="late", messages=talks[i][:1], seed=1, max_tokens=6) for i in range(10)]
        assert [answer["choices"] for _, answer in again] == [answer["choices"] for _, answer in late]
        assert len([value for _, value in await numbers("cbtrain_generated_tokens_total") if value]) >= 2

    workers = children(server.pid)
    server.stdin.close()
    assert await asyncio.to_thread(server.wait, 60) == 0
    await until(lambda: not any(map(is_running, workers)))
