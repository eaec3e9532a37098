"""Settings of APIs: one model at one API, and settings for all APIs of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.providers.costs.prices import Price
from cbtrain.providers.formats.api_format import Structure
from cbtrain.providers.overrides import BASES, UNSAID, resolved

DECIDING = frozenset({"kind", "base_url", "model", "structure", "seed", "sampling", "output_limit", "extra_body"})
"""Fields that an answer depends on. The others only affect when it comes, and its cost."""


class ProviderConfig(BaseModel):
    """One model at one API. The name of a preset may stand in its place (``cbtrain providers list``)."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = Field(None, description="shipped settings to start from: `cbtrain providers list`")
    kind: Literal["openai", "anthropic", "gemini"] = Field(
        "openai", description="protocol; openai is also that of DeepSeek, OpenRouter, vLLM, SGLang and `cbtrain serve`"
    )
    base_url: str = Field(description="up to and including the version, e.g. https://api.openai.com/v1")
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="NAME of the environment variable that holds the key, never the key itself; null: a free server",
    )
    structure: Structure = Field(
        "json_schema", description="how the API can be held to JSON; none: the prompt asks for it"
    )
    seed: bool = Field(True, description="the API takes a seed")
    sampling: bool = Field(True, description="the API takes temperature and top-p (reasoning models do not)")
    output_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the openai protocol calls it; newer OpenAI models know the second only"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="provider-specific request fields")
    price: Price | None = Field(None, description="dollars for a million tokens; null: as in the table of prices")
    reuse: bool | None = Field(
        None, description="keep answers on disk and use them again; null: if they are paid for (with a key, or a price)"
    )
    stream: bool = Field(
        False, description="have answers sent in pieces: a long one can then be told from a dead connection"
    )
    connect_timeout_s: float = Field(10, gt=0)
    idle_timeout_s: float = Field(60, gt=0, description="longest silence of a reply that has begun")
    attempt_timeout_s: float = Field(180, gt=0, description="one attempt, from the request to the end of its answer")
    overall_deadline_s: float = Field(
        900, gt=0, description="all attempts and the waits between them, from the first one on"
    )
    max_retries: int = Field(8, ge=0)
    backoff_s: float = Field(1.0, gt=0, description="upper bound of the first wait; it doubles with each retry")
    first_in_flight: int = Field(
        20, ge=1, description="requests at once to begin with; what the API takes is found out"
    )
    max_in_flight: int = Field(100, ge=1, description="most requests of the account at once")
    tokens_per_minute: int | None = Field(None, ge=1, description="limit of the account, if it has one")

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"preset": given}
        return resolved(given) if isinstance(given, dict) else given

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if given == UNSAID:
            other = "base_url is another host than the key's, or http in place of https"
            raise ValueError(f"{other}; say whose key goes there, or null for none")
        return given

    @field_validator("base_url")
    @classmethod
    def _address(cls, given: str) -> str:
        """An address without key or password, which would go into files; without a slash at its end."""
        try:
            parts = urlsplit(given)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
            (parts.hostname or "").encode("idna")
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("not an address like https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("no key, password, query or fragment may stand here; a key goes into the environment")
        return given.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _plain(cls, given: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(given, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise ValueError(f"not plain JSON ({error}); quote dates and the like") from None
        inner = given.get("generationConfig")
        for name, section in (*((name, given) for name in ("n", "best_of")), ("candidateCount", inner)):
            if isinstance(section, dict) and section.get(name, 1) != 1:
                raise ValueError(f"{name} asks for answers that would be paid for and not read; leave it out")
        return given

    @model_validator(mode="after")
    def _kind_of_its_address(self) -> ProviderConfig:
        """A key must not go to another company than its own."""
        host = urlsplit(self.base_url).hostname
        kinds = {urlsplit(base).hostname: kind for kind, base in BASES.items()} | {"api.openai.com": "openai"}
        # Others speak the openai protocol beside their own.
        if self.kind != "openai" and kinds.get(host, self.kind) != self.kind:
            raise ValueError(f"{host} speaks {kinds[host]}, not {self.kind}; set base_url with kind, or take a preset")
        if self.kind == "gemini" and not isinstance(self.extra_body.get("generationConfig", {}), dict):
            raise ValueError("extra_body.generationConfig should be a section of keys and values")
        return self

    @property
    def paid(self) -> bool:
        """Whether requests are billed: then they are booked, and answers are kept."""
        return self.api_key_env is not None or self.price is not None

    def identity(self) -> dict[str, Any]:
        """Return the settings that an answer depends on."""
        return self.model_dump(mode="json", include=set(DECIDING))


class ProvidersConfig(BaseModel):
    """Settings for all APIs of a run."""

    model_config = ConfigDict(extra="forbid")

    budget: float | None = Field(None, ge=0, description="US dollars; no request goes out that could exceed them")
    prices: Path | None = Field(
        None, description="table of prices (YAML); null: the shipped one, of third-party figures"
    )
    answers: str = Field(
        "auto", description="file of kept answers, shared by runs; auto: in $CBTRAIN_CACHE or ~/.cache/cbtrain"
    )
    stop_wait_s: float = Field(
        120, ge=0, description="seconds that what is under way has to end after SIGTERM, Ctrl-C or SIGUSR1"
    )
    record: Path | None = Field(None, description="file to which all traffic is written, without keys")
    replay: Path | None = Field(None, description="recording that answers in place of the APIs: no key, no cost")

    @model_validator(mode="after")
    def _one_of_them(self) -> ProvidersConfig:
        if self.record and self.replay:
            raise ValueError("record and replay exclude each other; leave one out")
        return self
