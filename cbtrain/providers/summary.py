"""State and costs of a run's APIs, for the terminal and for the report."""

from __future__ import annotations

from typing import Any

from cbtrain.providers.limits.account import Account
from cbtrain.providers.providers import Providers

SLOW_S = 30.0
"""Seconds after which the age of the oldest request is shown."""


def status(providers: Providers, role: str, share: float) -> str:
    """Return one line on the requests of ``role``, of whose work ``share`` (0 to 1) is done: money spent and projected,
    requests in flight, and reasons for waiting."""
    parts = []
    cost, budget = providers.budget.roles.get(role), providers.budget
    if cost and cost.requests:
        text = f"${cost.dollars:.2f}" if not cost.unpriced else f"{cost.unpriced} answers of unknown price"
        if 0 < share < 1 and cost.dollars:
            text += f" of about ${projected(cost.dollars, share):.2f}"
        parts.append(text)
    if budget.cap is not None:
        others = budget.spent - (cost.dollars if cost else 0.0)
        parts.append(f"budget ${budget.cap:.2f}" + (f", ${budget.spent:.2f} of it spent" if others > 0.005 else ""))
    for provider in providers.opened:
        if provider.role != role:
            continue
        limit = provider.account.limit
        parts += [f"{limit.in_use} of {limit.limit} requests in flight", *waits(provider.account)]
        oldest = min(provider.under_way.values(), default=None)
        if oldest is not None and (age := provider.account.clock.now() - oldest) > SLOW_S:
            parts.append(f"the oldest for {age:.0f} s")
    return ", ".join(parts)


def waits(account: Account) -> list[str]:
    """Return why requests of ``account`` wait, other than for each other."""
    parts = []
    if account.gate.left > 1:
        parts.append(f"the API asks to wait {account.gate.left:.0f} s")
    if held_back := account.retries.waiting:
        parts.append(f"{held_back} retries wait: too many requests fail")
    return parts


def projected(dollars: float, share: float) -> float:
    """Return the dollars for the whole work if ``share`` of it (above 0) has cost ``dollars``."""
    return dollars / share


def costs(providers: Providers) -> dict[str, Any] | None:
    """Return the costs of the run's paid requests by role, or None if there were none."""
    budget = providers.budget
    rows = [
        {
            "role": role,
            "models": dict(cost.models),
            "requests": cost.requests,
            "unknown": cost.unknown,
            "reused": cost.reused,
            "prompt_tokens": cost.prompt_tokens,
            "cached_tokens": cost.cached_tokens,
            "completion_tokens": cost.completion_tokens,
            "dollars": None if cost.unpriced else round(cost.dollars, 6),
        }
        for role, cost in budget.roles.items()
        if cost.requests or cost.reused
    ]
    if not rows:
        return None
    unpriced = any(row["dollars"] is None for row in rows)
    return {
        "budget": budget.cap,
        "dollars": None if unpriced else round(budget.spent, 6),
        "prices": str(providers.prices.date),
        "roles": rows,
    }
