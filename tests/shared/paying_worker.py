"""A process that asks an API many things through a cache, and may be killed. Arguments: settings in JSON."""

import asyncio
import json
import sys
from pathlib import Path

from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.carrier import HttpCarrier, open_session
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.providers.wires.openai import OpenAIWire


async def main(settings):
    async with AnswerCache(Path(settings["cache"])) as cache, open_session() as session:
        print(json.dumps([lost.key for lost in await cache.lost("the run")]), flush=True)
        endpoint = Endpoint(OpenAIWire(settings["url"], "m"))
        patience = Patience(backoff_s=0.01)
        made = Provider(
            HttpCarrier(session), endpoint, Account(), role="judge", patience=patience, cache=cache, run="the run"
        )

        async def ask(number):
            request = ChatRequest((Message("user", f"question {number}"),), max_tokens=9)
            return (await made.chat(request)).text

        answers = await asyncio.gather(*(ask(number) for number in range(settings["count"])))
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
