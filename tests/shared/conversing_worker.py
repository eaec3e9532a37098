"""A run of many conversations with an API at once, each turn of which is asked for in turn. May be killed.

Arguments: settings in JSON. The last line of its output says how every turn ended, and what is left taken.
"""

import asyncio
import json
from pathlib import Path

from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.providers import Providers
from cbtrain.providers.summary import costs
from cbtrain.providers.types import ChatRequest, Message


async def hold(settings):
    ended = {}
    with Journal(Path(settings["folder"]) / "events.jsonl") as journal:
        run = ProvidersConfig(answers=settings["answers"], record=settings.get("record"))
        events = list(read(journal.path))
        async with Providers(run, events=journal, earlier_events=events) as providers:
            made = await providers.open(ProviderConfig(**settings["provider"]), "patient")
            print("begun", flush=True)

            async def converse(number):
                said = []
                for turn in range(settings["turns"]):
                    said.append(Message("user", f"{number}/{turn}"))
                    try:
                        response = await made.chat(ChatRequest(tuple(said), max_tokens=9))
                        ended[f"{number}/{turn}"] = [response.finish_reason, response.text]
                    except ProviderError as error:
                        ended[f"{number}/{turn}"] = ["failed", error.kind]

            await asyncio.gather(*(converse(number) for number in range(settings["conversations"])))
            account = made.account
            left = [account.limit.in_use, account.limit.waiting, providers.budget.reserved, len(made.under_way)]
            limits = [change.limit for change in account.limit.history]
        spent = costs(providers)
    print(json.dumps({"ended": ended, "left": left, "limits": limits, "costs": spent}), flush=True)


def main(arguments):
    asyncio.run(hold(json.loads(arguments[0])))
