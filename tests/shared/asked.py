"""A provider of its parts, asked against a real server: for tests of the way of a request."""

from contextlib import asynccontextmanager

from loopback import completion, serve

from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Ledger
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.transport import HttpTransport, open_session
from cbtrain.providers.types import ChatRequest, Message

REQUEST = ChatRequest((Message("system", "s"), Message("user", "u")), max_tokens=9)
PRICE = Price(input=1000.0, output=1000.0)
SET_ASIDE = (prompt_tokens(OpenAIFormat("http://x/v1", "m").request(REQUEST)) + 9) / 1000
"""Dollars, for the prompt as estimated and the longest answer; an answer costs a cent."""

QUICK = Patience(attempt_s=5, overall_s=20, backoff_s=0.01)


@asynccontextmanager
async def provider(plan, *, account=None, budget=None, price=None, patience=QUICK, key="", idle_s=60.0):
    async with serve(plan) as script, open_session() as session:
        endpoint = Endpoint(OpenAIFormat(script.url, "m"), key)
        made = Provider(
            HttpTransport(session, idle_s=idle_s),
            endpoint,
            account or Account(),
            Billing("patient", price, Ledger(budget or Budget())),
            patience=patience,
        )
        yield made, script


def then_ok(*faults):
    return lambda number, body: faults[number - 1] if number <= len(faults) else completion("fine")


class Listed:
    """A journal that is a list of kinds and fields; ``failing`` says of an event what its writing raises, ``unsynced``
    what every sync does."""

    def __init__(self, events, failing=lambda kind, fields: None, unsynced=None):
        self.events, self.failing, self.unsynced = events, failing, unsynced

    def append(self, kind, *, sync=True, **fields):
        if error := self.failing(kind, fields):
            raise error
        self.events.append((kind, fields))

    def sync(self):
        if self.unsynced:
            raise self.unsynced
