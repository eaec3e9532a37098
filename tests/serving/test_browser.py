"""A page of another origin, in a real browser on the same machine, can neither read the server nor use it nor stop it."""

from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from chromium import ABSENT, ARGUMENTS, CHROMIUM

from cbtrain.serving.guards.access import LOCAL_NAMES, Access

pytestmark = pytest.mark.slow

BODY = {"model": "base", "messages": [{"role": "user", "content": "I feel low."}], "max_tokens": 3, "seed": 1}
PAGE = "<!doctype html><title>other</title><body></body>"

ATTACK = """
async ([server, folder]) => {
  const read = [], statuses = [];
  const body = JSON.stringify({model: "base", max_tokens: 200, min_tokens: 200, stream: true,
                               messages: [{role: "user", content: "I feel low."}]});
  const load = JSON.stringify({lora_name: "evil", lora_path: folder});
  const timed = (promise) => Promise.race([promise, new Promise((_, no) => setTimeout(no, 3000))]);
  const ask = async (path, options) => {
    try {
      const reply = await timed(fetch(server + path, options));
      statuses.push(reply.status);
      const text = await timed(reply.text());
      if (text) read.push(path + ": " + text);
    } catch (error) {}
  };
  const json = {"Content-Type": "application/json"};
  for (const mode of ["cors", "no-cors"]) {
    for (const path of ["/v1/models", "/health", "/metrics", "/v1/models/base"]) await ask(path, {mode});
    for (const path of ["/v1/chat/completions", "/v1/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]) {
      const data = path.includes("load") ? load : body;
      await ask(path, {mode, method: "POST", body: data});
      await ask(path, {mode, method: "POST", body: data, headers: {"Content-Type": "text/plain"}});
      await ask(path, {mode, method: "POST", body: data, headers: json});
      await ask(path, {mode, method: "POST", body: data, headers: {...json, Authorization: "Bearer x"}});
    }
  }
  navigator.sendBeacon(server + "/v1/chat/completions", new Blob([body], {type: "application/json"}));
  navigator.sendBeacon(server + "/v1/chat/completions", body);
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: server + "/v1/chat/completions", target: "frame", enctype: "text/plain"});
  const input = document.createElement("input");
  Object.assign(input, {name: body.slice(0, -1) + ', "user": "', value: '"}'});
  form.append(input);
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame, form);
  form.submit();
  const shown = (tag, path) => timed(new Promise((yes) => {
    const element = document.createElement(tag);
    element.onload = () => { read.push(tag + " loaded " + path); yes(); };
    element.onerror = yes;
    element.src = server + path;
    document.body.append(element);
  })).catch(() => {});
  await shown("img", "/v1/models");
  await shown("script", "/v1/models");
  const events = new EventSource(server + "/v1/models");
  events.onmessage = (event) => read.push("event " + event.data);
  const socket = new WebSocket(server.replace("http", "ws") + "/v1/chat/completions");
  socket.onopen = () => read.push("websocket open");
  await Promise.all(Array.from({length: 100}, () => ask("/v1/chat/completions", {mode: "no-cors", method: "POST", body})));
  await new Promise((yes) => setTimeout(yes, 300));
  try { if (frame.contentDocument && frame.contentDocument.body.innerText) read.push("frame"); } catch (error) {}
  events.close();
  socket.close();
  return {read, statuses};
}
"""

TALK = """
async ([server, body]) => {
  const options = {method: "POST", body: JSON.stringify(body), headers: {
    "Content-Type": "application/json", Authorization: "Bearer secret", "X-Stainless-Lang": "js"}};
  const reply = await fetch(server + "/v1/chat/completions", options);
  return [reply.status, await reply.text()];
}
"""


@asynccontextmanager
async def page_server():
    """Serves an empty page, on an origin of its own."""

    async def page(_):
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def chromium():
    if CHROMIUM is None:
        pytest.skip(ABSENT)
    playwright = pytest.importorskip("playwright.async_api")
    arguments = [*ARGUMENTS, "--host-resolver-rules=MAP rebound.example 127.0.0.1"]
    arguments += ["--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"]
    async with playwright.async_playwright() as running:
        browser = await running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


async def is_untouched(url, server):
    """Return whether nothing was drawn, nothing is under way, no adapter came or went, and a program is answered."""
    untouched = b"cbtrain_generated_tokens_total{" not in server.metrics.text() and not server.queue.now
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
        return untouched and reply.status == 200 and server.models.names == ["base", "kind", "brief"]


@pytest.mark.fault("F3")
async def test_a_page_of_another_origin_reads_nothing_and_starts_nothing(opened, served_folder):
    folder = str(served_folder / "kind")
    async with chromium() as browser, page_server() as origin:
        async with opened(load_adapters=True) as (url, server):
            page = await browser.new_page()
            await page.goto(origin)
            result = await page.evaluate(ATTACK, [url, folder])
            assert result["read"] == []
            assert set(result["statuses"]) <= {0}, "every answer is opaque"
            assert len(result["statuses"]) > 50, "requests without preflight have come through"
            assert await is_untouched(url, server)

        # DNS rebinding: the name of the page's own server leads to this one, so the page may read what it gets.
        async with opened(load_adapters=True) as (url, server):
            rebound = url.replace("127.0.0.1", "rebound.example")
            page = await browser.new_page()
            await page.route(f"{rebound}/page", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
            await page.goto(f"{rebound}/page")
            result = await page.evaluate(ATTACK, [rebound, folder])
            assert set(result["statuses"]) <= {403}
            assert len(result["statuses"]) > 100
            assert all('"unknown_host"' in text for text in result["read"] if text != "frame")
            assert await is_untouched(url, server)

        # A front-end that was let in: chats, whole and streamed, with headers of its own and the key.
        access = Access(LOCAL_NAMES, frozenset({origin}), "secret")
        async with opened(access) as (url, _):
            page = await browser.new_page()
            await page.goto(origin)
            status, text = await page.evaluate(TALK, [url, BODY])
            assert (status, '"chat.completion"' in text) == (200, True)
            status, text = await page.evaluate(TALK, [url, BODY | {"stream": True}])
            assert (status, text.strip().endswith("[DONE]")) == (200, True)
