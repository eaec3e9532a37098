"""A run that asks an API many things, and may be killed. Arguments: settings in JSON."""

import asyncio
import json
import sys
from pathlib import Path

from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.providers import Providers
from cbtrain.providers.summary import costs
from cbtrain.providers.types import ChatRequest, Message


async def main(settings):
    with Journal(Path(settings["folder"]) / "events.jsonl") as journal:
        events = list(read(journal.path))
        run = ProvidersConfig(answers=settings["answers"], budget=settings.get("budget"))
        async with Providers(run, events=journal, earlier_events=events) as providers:
            made = await providers.open(ProviderConfig(**settings["provider"]), "judge")
            print(json.dumps(costs(providers)), flush=True)

            async def ask(number):
                request = ChatRequest((Message("user", f"question {number}"),), max_tokens=9)
                return (await made.chat(request)).text

            answers = await asyncio.gather(*(ask(number) for number in range(settings["count"])))
            print(json.dumps([answers, costs(providers)]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
