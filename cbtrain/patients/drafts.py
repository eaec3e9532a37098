"""Drafts of new patients: asked from a large model, checked by the schema and against each other, for a person to read.

Columns are spread evenly over the drafts. Paid answers are kept on disk by the providers' cache: the same command,
interrupted, asks only for what is missing.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from random import Random

from cbtrain.errors import UserError
from cbtrain.patients.case import COLUMNS, Case
from cbtrain.patients.checking import check_cases
from cbtrain.patients.draft_prompts import Draft, again, draft_request, record_of_draft
from cbtrain.patients.faults import Faults
from cbtrain.patients.record import case_of
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.providers import Providers
from cbtrain.providers.structured import ask
from cbtrain.providers.summary import costs, status
from cbtrain.providers.types import ChatRequest
from cbtrain.stopping import StopRequest

ROLE = "writer"
TEMPERATURE = 1.0
ROUNDS = 3
"""How often a patient is asked for whose drafts contradict themselves, or repeat somebody."""
RISKS = {"risk": (*["none"] * 4, *COLUMNS["risk"][1:])}
"""As in a clinic, most have none."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted: ``count`` patients with ``brief`` in common, in ``language``; ``like`` are the examples."""

    count: int
    brief: str = ""
    language: str = "en"
    seed: int = 0
    max_tokens: int = 8192
    like: tuple[Case, ...] = ()


@dataclass(slots=True)
class Drafts:
    """``cases`` in the order of their numbers; ``failed``: why there is none of a number; ``cost`` in words."""

    cases: list[Case] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    cost: str = ""


async def write_drafts(
    config: ProviderConfig,
    settings: ProvidersConfig,
    order: Order,
    warn: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], None] = lambda text: None,
) -> Drafts:
    """Return drafts of new patients, each with the reason if it could not be written. ``progress`` takes the state of
    the API after each answer; ``warn`` a problem.

    Raises UserError if the API refuses the key; Stopped after a signal, once requests under way are answered and kept.
    """
    with StopRequest(settings.stop_wait_s, warn) as stop:
        async with Providers(settings, stop=stop, warn=warn) as providers:
            writer = _Writer(await providers.open(config, ROLE), order)

            async def draft(number: int, turn: int) -> Case | str:
                answer = await writer.draft(number, turn)
                progress(status(providers, ROLE, len(writer.done) / order.count))
                return answer

            for turn in range(ROUNDS):
                wanted = writer.wanted()
                answers = await stop.together([draft(number, turn) for number in wanted], writer.state)
                for number, answer in zip(wanted, answers, strict=True):  # in order: the first of two alike is kept
                    writer.take(number, answer)
            cost = _cost(providers)
    cases = [writer.done[number] for number in sorted(writer.done)]
    failed = {number: writer.problems[number] for number in writer.wanted()}
    return Drafts(cases, failed, check_cases(cases).warnings if cases else (), cost)


class _Writer:
    """Asks for drafts; ``done`` are those that are accepted, ``problems`` what was wrong with a number's last one."""

    def __init__(self, provider: Provider, order: Order) -> None:
        self.provider, self.order = provider, order
        self.columns = spread(order.count, order.seed)
        self.done: dict[int, Case] = {}
        self.problems: dict[int, str] = {}

    def wanted(self) -> list[int]:
        return [number for number in range(1, self.order.count + 1) if number not in self.done]

    def state(self) -> str:
        return f"{len(self.done)} of {self.order.count} drafts accepted"

    def take(self, number: int, answer: Case | str) -> None:
        """Accept an answer, or keep why not."""
        if isinstance(answer, str):
            self.problems[number] = answer
        elif problem := _trouble(answer, [*self.order.like, *self.done.values()]):
            self.problems[number] = problem
        else:
            self.done[number] = answer

    async def draft(self, number: int, turn: int) -> Case | str:
        """Return the draft of patient ``number``, or why there is none; ``turn`` counts the rounds."""
        order, columns, problem = self.order, self.columns[number - 1], self.problems.get(number)
        example = order.like[number % len(order.like)] if order.like else None
        messages = draft_request(columns, number, order.brief, order.language, example)
        sample = int.from_bytes(blake2s(f"{order.seed}|{number}|{turn}".encode(), digest_size=4).digest(), "big") >> 1
        request = ChatRequest(
            again(messages, problem) if problem else messages,
            max_tokens=order.max_tokens,
            temperature=TEMPERATURE,
            seed=sample,
        )
        try:
            answer = await ask(functools.partial(self.provider.chat, sample=sample), request, Draft)
        except ProviderError as error:
            if error.status in (401, 403) and error.kind == "permanent":
                raise UserError(str(error), hint="Check the API key and its rights.") from None
            return str(error)
        if answer.value is None:
            more = "; raise --max-tokens" if answer.status == "truncated" else ""
            return f"{answer.problem}{more}"
        faults = Faults()
        case = case_of(record_of_draft(answer.value, columns, order.language, number), f"patient {number}", faults)
        return case or "; ".join(error.what for error in faults.found)


def spread(count: int, seed: int) -> list[dict[str, str]]:
    """Return the columns of ``count`` patients: of each the values equally often, give or take one, in an order of its
    own by ``seed`` (half of the risks are none); a longer list begins with the shorter one."""
    cycles = {column: _cycle(values, f"{seed}|{column}") for column, values in (dict(COLUMNS) | RISKS).items()}
    return [_plausible({column: next(cycle) for column, cycle in cycles.items()}) for _ in range(count)]


def _plausible(columns: dict[str, str]) -> dict[str, str]:
    """Mild symptoms and active suicidal thoughts do not go together."""
    rare = columns["severity"] == "mild" and columns["risk"] == "active ideation"
    return columns | {"risk": "passive ideation"} if rare else columns


def _cycle(values: Sequence[str], salt: str) -> itertools.chain[str]:
    draw = Random(salt)
    return itertools.chain.from_iterable(draw.sample(values, len(values)) for _ in itertools.count())


def _trouble(case: Case, others: Sequence[Case]) -> str:
    """Return why a draft cannot be used beside ``others``, or an empty text."""
    for other in others:
        if case.id == other.id or case.name.casefold() == other.name.casefold():
            return f"the name {case.name} is taken"
    by_itself = check_cases([case]).errors
    near = [text for text in check_cases([*others, case]).warnings if "much the same" in text and case.id in text]
    return "; ".join([*by_itself, *near])


def _cost(providers: Providers) -> str:
    spent = costs(providers)
    if spent is None:
        return "No request was paid for."
    dollars = "an unknown price" if spent["dollars"] is None else f"${spent['dollars']:.4f}"
    asked, reused = (sum(row[key] for row in spent["roles"]) for key in ("requests", "reused"))
    return f"{asked} paid requests for {dollars}; {reused} answers were on disk."
