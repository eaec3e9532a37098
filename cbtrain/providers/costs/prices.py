"""Prices of models: a dated table, and the cost of an answer's tokens."""

from __future__ import annotations

import datetime
import importlib.resources
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cbtrain.errors import UserError
from cbtrain.providers.types import Usage
from cbtrain.settings import parse_yaml, refuse_booleans
from cbtrain.text.faults import first_fault

DATED = re.compile(r"[-@](20\d{2}-?\d{2}-?\d{2}|latest|preview(-\d{2}-\d{2,4})?|\d{3})$")
"""Endings of a model's name after the name of its family."""

MILLION = 1_000_000


class Price(BaseModel):
    """US dollars for a million tokens. ``cached`` and ``written`` default to ``input``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)
    written: float | None = Field(None, ge=0)

    def cost(self, usage: Usage) -> float:
        """Return US dollars."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written
        plain = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
        dollars = max(plain, 0) * self.input + usage.cached_tokens * cached + usage.cache_write_tokens * written
        return (dollars + usage.completion_tokens * self.output) / MILLION


class Prices(BaseModel):
    """Prices by model, as of ``date``."""

    model_config = ConfigDict(extra="forbid")

    date: datetime.date
    models: dict[str, Price]

    def of(self, model: str) -> Price | None:
        """Return the price of ``model`` or, for a dated version, of its family; None if it is not known.

        A prefix such as a router's ``anthropic/`` is left out. A longer name is never taken for a shorter one
        otherwise: a ``-pro`` is not its plain namesake.
        """
        name = model.rpartition("/")[2]
        return self.models.get(model) or self.models.get(name) or self.models.get(DATED.sub("", name))


def load_prices(path: Path | None = None) -> Prices:
    """Return the table in ``path``, else the shipped one. Raises UserError if it cannot be used."""
    shipped = importlib.resources.files("cbtrain.configs") / "prices" / "default.yaml"
    where = str(path or "prices/default.yaml")
    content = parse_yaml(lambda: (path or shipped).read_text(encoding="utf-8"), where)
    if isinstance(content, dict):
        refuse_booleans(content, Prices, where)
    try:
        return Prices.model_validate(content)
    except ValidationError as error:
        hint = "See configs/prices/default.yaml for the form."
        raise UserError(first_fault(error), where=where, hint=hint) from None
