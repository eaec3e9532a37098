"""Who may use the server, and what those who misuse it cannot do to others."""

import asyncio
import json
import re
import socket

import aiohttp
import pytest
from waiting import until

from cbtrain.serving.answers import sending
from cbtrain.serving.guards import connections
from cbtrain.serving.guards.access import Access
from cbtrain.serving.request_log import RequestLog
from cbtrain.stopping import timeout

BODY = {"model": "base", "messages": [{"role": "user", "content": "I feel low."}], "max_tokens": 3, "seed": 1}
ENDLESS = BODY | {"max_tokens": 240, "temperature": 5, "min_tokens": 240}


async def error_of(reply):
    """Return the status and the code of an error, which is the protocol's JSON."""
    assert reply.content_type == "application/json"
    error = (await reply.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return reply.status, error["code"]


async def raw(url, data):
    """Return all that the server sends to ``data`` until it closes the connection."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def slow_reader(url):
    """Return a connection of a client that takes next to nothing unless it reads."""
    host, port = url.removeprefix("http://").split(":")
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    one.connect((host, int(port)))
    return one


@pytest.mark.fault("F3")
async def test_hosts_pages_types_and_keys_are_checked(opened):
    access = Access(origins=frozenset({"http://allowed.example"}), key="secret-key")
    good = {"Authorization": "Bearer secret-key"}
    async with opened(access) as (url, _), aiohttp.ClientSession() as session:
        address = f"{url}/v1/chat/completions"
        for headers, expected in (
            (good, 200),
            (good | {"Authorization": "bearer secret-key"}, 200),
            (good | {"Host": "localhost:1"}, 200),
            ({}, (401, "invalid_api_key")),
            ({"Authorization": "Bearer secret-kez"}, (401, "invalid_api_key")),
            ({"Authorization": "Basic secret-key"}, (401, "invalid_api_key")),
            ({"Authorization": "Bearer sécret"}, (401, "invalid_api_key")),
            (good | {"Host": "rebound.example"}, (403, "unknown_host")),
            (good | {"Host": "127.0.0.1.rebound.example"}, (403, "unknown_host")),
            (good | {"Host": "localhost:x.rebound.example"}, (403, "unknown_host")),
            (good | {"Host": "[::1]rebound.example"}, (403, "unknown_host")),
            (good | {"Host": "[::1]:80"}, 200),
            (good | {"Origin": "http://evil.example"}, (403, "unknown_origin")),
            (good | {"Origin": "null"}, (403, "unknown_origin")),
            (good | {"Origin": url}, (403, "unknown_origin")),
            (good | {"Sec-Fetch-Site": "cross-site"}, (403, "unknown_origin")),
            (good | {"Origin": "http://allowed.example", "Sec-Fetch-Site": "cross-site"}, 200),
            (good | {"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
            (good | {"Content-Type": "application/json; charset=klingon"}, 200),
            (good | {"Content-Encoding": "gzip"}, (415, None)),
        ):
            sent = {"Content-Type": "application/json"} | headers
            async with session.post(address, data=json.dumps(BODY), headers=sent) as reply:
                assert reply.headers["X-Content-Type-Options"] == "nosniff"
                if expected == 200:
                    assert reply.status == 200, headers
                    assert reply.headers.get("Access-Control-Allow-Origin") == headers.get("Origin")
                else:
                    assert await error_of(reply) == expected, headers
                    assert "Access-Control-Allow-Origin" not in reply.headers
        for path, status in (("/health", 200), ("/v1/models", 401), ("/metrics", 401)):
            async with session.get(url + path) as reply:
                assert reply.status == status
        # A page asks first whether it may.
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        async with session.options(address, headers=ask | {"Origin": "http://allowed.example"}) as reply:
            assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (204, "http://allowed.example")
            assert reply.headers["Access-Control-Allow-Headers"] == ask["Access-Control-Request-Headers"]
        async with session.options(address, headers=ask | {"Origin": "http://evil.example"}) as reply:
            assert await error_of(reply) == (403, "unknown_origin")


@pytest.mark.fault("C5")
async def test_every_error_is_json(opened):
    async with opened() as (url, _), aiohttp.ClientSession() as session:
        for method, path, expected in (
            ("GET", "/", (404, "unknown_url")),
            ("POST", "/v1/embeddings", (404, "unknown_url")),
            ("GET", "/v1/chat/completions", (405, None)),
            ("DELETE", "/v1/models", (405, None)),
            ("GET", "/v1/models/other", (404, "model_not_found")),
            ("GET", "/v1/models/%2e%2e%2fetc", (404, "model_not_found")),
            ("POST", "/v1/load_lora_adapter", (404, "not_enabled")),
        ):
            async with session.request(method, url + path, json={} if method == "POST" else None) as reply:
                assert await error_of(reply) == expected, path
        long = BODY | {"messages": [{"role": "user", "content": "word " * 300}]}
        async with session.post(f"{url}/v1/chat/completions", json=long) as reply:
            assert await error_of(reply) == (400, "context_length_exceeded")
        for field, value, status in (
            ("logit_bias", {"999999": 1}, 400),
            ("messages", [{"role": "user", "content": "<|end|>"}], 400),
            ("n", 128, 400),  # 128 answers of 240 tokens with 20 alternatives each
            ("response_format", {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}, 400),
        ):
            many = {"logprobs": True, "top_logprobs": 20, "max_tokens": 240}
            async with session.post(f"{url}/v1/chat/completions", json=BODY | many | {field: value}) as reply:
                assert (await error_of(reply))[0] == status
        # Not even HTTP, or more of it than anybody needs.
        for data in (
            b"hello\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 200-maybe\r\nContent-Length: 0\r\n\r\n",
        ):
            head, _, body = (await raw(url, data)).partition(b"\r\n\r\n")
            assert re.match(rb"HTTP/1\.\d 4\d\d ", head), head
            assert json.loads(body)["error"]["message"], data


@pytest.mark.fault("C4")
async def test_what_cannot_fit_is_refused_by_its_length(opened, monkeypatch):
    async with opened() as (url, server), aiohttp.ClientSession() as session:
        monkeypatch.setattr(server.model.voice.renderer, "prompt", lambda *_: pytest.fail("it was tokenized"))
        words = "word " * (server.context * server.models.tokens(None).longest // 5 + 1)
        async with session.post(
            f"{url}/v1/chat/completions",
            json=BODY | {"model": "kind", "messages": [{"role": "user", "content": words}]},
        ) as reply:
            assert await error_of(reply) == (400, "context_length_exceeded")
        async with session.post(f"{url}/v1/completions", json={"model": "base", "prompt": words}) as reply:
            assert await error_of(reply) == (400, "context_length_exceeded")

        many = [{"role": "user", "content": ""}] * server.context
        async with session.post(f"{url}/v1/chat/completions", json=BODY | {"messages": many}) as reply:
            assert await error_of(reply) == (400, "context_length_exceeded")

        # More than a body may have: refused by its header, or where it exceeds it if it has none.
        async def chunks():
            for _ in range(40):
                yield b" " * 2**16

        for data in (b" " * (50 * 2**20), chunks()):
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/v1/chat/completions", data=data, headers=headers) as reply:
                assert await error_of(reply) == (413, "too_large")
        assert server.bodies._reserved == 0


@pytest.mark.fault("F3")
async def test_who_sends_slowly_or_nothing_is_shut_out_alone(opened, monkeypatch):
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    async with opened(header_seconds=0.5) as (url, server), aiohttp.ClientSession() as session:
        server.bodies.seconds = 0.3
        host, port = url.removeprefix("http://").split(":")
        # Headers that never end: time-out, in the protocol's words.
        answer = await raw(url, b"POST /v1/chat/completions HTTP/1.1\r\nHost: ")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"
        # The same after a first request, whose connection is kept.
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read(2_000)).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET /health HTTP/1.1\r\nHo")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")
        writer.close()
        # A body that never ends.
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answer = await raw(url, head + b"Content-Length: 50\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        # Many that open connections and do not ask: the oldest go, others are served.
        sockets = [socket.create_connection((host, int(port))) for _ in range(60)]
        for _ in range(3):
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
                assert reply.status == 200
        for one in sockets:
            one.close()
        # All bodies together.
        monkeypatch.setattr(server.bodies, "at_once", 40)
        async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
            assert await error_of(reply) == (429, "busy")


async def test_of_many_that_come_at_once_the_first_may_be_the_last_to_ask(opened, monkeypatch):
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 1.0)
    async with opened() as (url, _):
        host, port = url.removeprefix("http://").split(":")
        opening = [await asyncio.open_connection(host, int(port)) for _ in range(60)]
        reader, writer = opening[0]
        await asyncio.sleep(0.1)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        # Those that still have not asked make room, the oldest first.
        async with timeout(5):
            assert set(await asyncio.gather(*(reader.read() for reader, _ in opening[1:40]))) == {b""}
        assert not any(reader.at_eof() for reader, _ in opening[40:])
        for _, writer in opening:
            writer.close()


async def test_who_takes_no_answers_is_cut_off(opened, monkeypatch):
    monkeypatch.setattr(connections, "SEND_SECONDS", 0.3)
    async with opened() as (url, _):
        one = slow_reader(url)
        one.setblocking(False)
        ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000
        await asyncio.get_running_loop().sock_sendall(one, ask)

        def ended():
            try:
                one.send(b" ")  # it fails on a connection that the other side has reset
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        await until(ended)
        one.close()


async def test_the_queue_is_finite_and_who_leaves_makes_room(opened):
    async with opened(most_answers=6) as (url, server):
        address = f"{url}/v1/chat/completions"
        slots = server.model.engine.cache.slots
        async with aiohttp.ClientSession() as session:
            async with session.post(address, json=BODY | {"n": 7}) as reply:
                assert (await error_of(reply))[0] == 400
            busy = [
                asyncio.ensure_future(session.post(address, json=ENDLESS | {"n": 3, "stream": i == 0}))
                for i in range(2)
            ]
            await until(lambda: server.queue.now == 6)
            async with session.post(address, json=BODY) as reply:
                assert await error_of(reply) == (429, "queue_full")
                assert reply.headers["Retry-After"] == "1"
            async with session.get(f"{url}/health") as reply:
                assert reply.status == 200
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
        # The streamed one may have begun: closing the session closes its connection.
        await until(lambda: server.queue.now == 0 and not any(slot.busy for slot in slots))


async def test_slow_readers_cost_bounded_memory_and_are_cut_off(opened, monkeypatch):
    monkeypatch.setattr(sending, "SEND_SECONDS", 0.5)
    async with opened() as (url, server):
        one = slow_reader(url)
        # Log-probabilities make a stream that no buffer on the way can hold.
        body = json.dumps(ENDLESS | {"stream": True, "n": 16, "logprobs": True, "top_logprobs": 20}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        one.sendall(head.encode() + body)
        await until(lambda: server.queue.now == 16)
        await until(lambda: server.queue.now == 0, 30)
        await until(lambda: not any(slot.busy for slot in server.model.engine.cache.slots))
        one.close()


async def test_a_server_that_ends_lets_answers_end(opened):
    async with aiohttp.ClientSession() as session:
        async with opened() as (url, server):
            first = asyncio.ensure_future(
                session.post(f"{url}/v1/chat/completions", json=ENDLESS | {"max_tokens": 60, "min_tokens": 60})
            )
            await until(lambda: server.queue.now == 1)
            server.close()
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
                assert await error_of(reply) == (503, "ending")
            async with session.get(f"{url}/health") as reply:
                assert reply.status == 503
        async with await first as reply:
            assert (await reply.json())["usage"]["completion_tokens"] == 60
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{url}/health")


async def test_log_and_numbers_hold_no_words(opened, tmp_path):
    path = tmp_path / "log"
    with path.open("w") as file:
        log = RequestLog(file)
        async with opened(log=log) as (url, server), aiohttp.ClientSession() as session:
            ask = BODY | {"messages": [{"role": "user", "content": "Marigold"}], "model": "kind", "stream": True}
            async with session.post(f"{url}/v1/chat/completions", json=ask) as reply:
                await reply.read()
            async with session.post(
                f"{url}/v1/chat/completions?q=Marigold", json=BODY | {"model": "Marigold"}
            ) as reply:
                assert reply.status == 404
            async with session.get(f"{url}/Marigold%0a%1b") as reply:
                assert reply.status == 404
            step = server.model.engine.step

            def fail(*_):
                raise RuntimeError("Marigold")

            server.model.engine.step = fail
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
                assert await error_of(reply) == (500, "request_failed")
            server.model.engine.step = step
            async with session.get(f"{url}/metrics") as reply:
                numbers = await reply.text()
        log.close()
    lines = path.read_text()
    assert "Marigold" not in lines + numbers
    assert re.search(r"200  POST /v1/chat/completions  kind  \d+ tokens \(0 cached\) \+ \d drawn", lines)
    assert re.search(r"defect: RequestFailed .*\n.*defect: RuntimeError in fail \(.*test_trust.py:\d+\)", lines)
    counted = 'cbtrain_requests_total{model="kind",path="/v1/chat/completions",status="200"} 1.0'
    assert counted in numbers
    for name in ("cbtrain_generated_tokens_total", "cbtrain_first_token_seconds_count", "cbtrain_cache_slots 4.0"):
        assert name in numbers


async def test_adapters_are_loaded_and_unloaded_if_that_was_allowed(opened, served_folder):
    async with opened(adapters=(), load_adapters=True) as (url, _), aiohttp.ClientSession() as session:

        async def post(path, **body):
            async with session.post(f"{url}/v1/{path}", json=body) as reply:
                return reply.status, await reply.json()

        _, plain = await post("chat/completions", **BODY)
        folder = str(served_folder / "kind")
        assert (await post("load_lora_adapter", lora_name="new", lora_path=folder))[0] == 200
        _, tuned = await post("chat/completions", **BODY | {"model": "new"})
        assert tuned["choices"] != plain["choices"]
        assert (await post("chat/completions", **BODY))[1]["choices"] == plain["choices"]
        for wrong, status in (
            ({"lora_name": "new", "lora_path": folder}, 400),
            ({"lora_name": "base", "lora_path": folder, "load_inplace": True}, 400),
            ({"lora_name": "x", "lora_path": folder + "/nowhere"}, 404),
            ({"lora_name": "x", "lora_path": str(served_folder.parent)}, 400),
            ({"lora_name": "x", "lora_path": folder, "rank": 3}, 400),
            ({"lora_name": "x", "lora_path": "a\0b"}, 404),
            ({"lora_name": "new", "lora_path": str(served_folder.parent), "load_inplace": True}, 400),
        ):
            got, answer = await post("load_lora_adapter", **wrong)
            assert (got, set(answer)) == (status, {"error"}), wrong
        assert (await post("chat/completions", **BODY | {"model": "new"}))[1]["choices"] == tuned["choices"]
        # In its place another: nothing of the old one's cache is used.
        other = str(served_folder / "brief")
        assert (await post("load_lora_adapter", lora_name="new", lora_path=other, load_inplace=True))[0] == 200
        _, replaced = await post("chat/completions", **BODY | {"model": "new"})
        assert replaced["choices"] not in (tuned["choices"], plain["choices"])
        assert (await post("unload_lora_adapter", lora_name="new"))[0] == 200
        assert (await post("chat/completions", **BODY | {"model": "new"}))[0] == 404
        assert (await post("unload_lora_adapter", lora_name="new"))[0] == 404
        assert (await post("unload_lora_adapter", lora_name="base"))[0] == 400


async def test_adapters_that_go_are_their_requests_failure_and_nothing_is_left_half_done(opened, served_folder):
    async with opened(adapters=("kind",), load_adapters=True) as (url, server), aiohttp.ClientSession() as session:
        folder = str(served_folder / "brief")

        async def post(path, **body):
            async with session.post(f"{url}/v1/{path}", json=body) as reply:
                return reply.status, await reply.json()

        # A request under way is told to ask again: it has done nothing wrong.
        running = asyncio.ensure_future(post("chat/completions", **ENDLESS | {"model": "kind"}))
        await until(lambda: server.model.engine.running)
        load = {"lora_name": "kind", "lora_path": folder, "load_inplace": True}
        assert (await post("load_lora_adapter", **load))[0] == 200
        status, answer = await running
        assert (status, answer["error"]["code"]) == (503, "adapter_dropped")
        # Whoever leaves while an adapter is loaded: it is there with its layout, or it is not.
        for pause in (0, 0.01, 0.03, 0.1):
            task = asyncio.ensure_future(post("load_lora_adapter", lora_name=f"a{pause}", lora_path=folder))
            await asyncio.sleep(pause)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await post("load_lora_adapter", lora_name="last", lora_path=folder)
        assert {*server.model.adapters.names} == {*server.model.voices} - {None}
        # The base is served when no adapter is left, also if it was talked to in the layout of one.
        server.model.voices.pop(None, None)
        for name in server.model.adapters.names:
            assert (await post("unload_lora_adapter", lora_name=name))[0] == 200
        assert (await post("chat/completions", **BODY))[0] == 200


async def test_clients_that_leave_print_nothing_and_large_schemas_stop_nobody(opened, capfd):
    async with opened() as (url, server):
        for pause in (0.0, 0.02, 0.05, 0.1, 0.2):
            async with aiohttp.ClientSession() as session:
                stream = BODY | {"stream": True, "max_tokens": 200, "min_tokens": 200}
                task = asyncio.ensure_future(session.post(f"{url}/v1/chat/completions", json=stream))
                await asyncio.sleep(pause)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await until(lambda: server.queue.now == 0)
        schema = {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(5_000)}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/v1/chat/completions", json=BODY | {"response_format": form}) as reply:
                assert (await error_of(reply))[0] == 400
                assert "at most 32,768" in (await reply.json())["error"]["message"]
            # All that is wrong is found before a stream begins, whichever prompt it is in.
            body = {"model": "base", "prompt": [[5], [999_999_999]], "stream": True}
            async with session.post(f"{url}/v1/completions", json=body) as reply:
                assert (await error_of(reply))[0] == 400
                assert (await reply.json())["error"]["param"] == "prompt"
    assert "Traceback" not in capfd.readouterr().err
