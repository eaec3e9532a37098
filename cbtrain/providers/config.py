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
from cbtrain.settings import SettingsConflict

DECIDING = frozenset({"kind", "base_url", "model", "structure", "seed", "sampling", "output_limit", "extra_body"})
"""Fields that an answer depends on. The others only affect when it comes, and its cost."""


class ProviderConfig(BaseModel):
    """One model at one API. The name of a preset may stand in its place (``cbtrain providers list``)."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = Field(None, description="shipped settings to start from: `cbtrain providers list`")
    kind: Literal["openai", "anthropic", "gemini"] = Field(
        "openai",
        description="protocol; openai is also the protocol of DeepSeek, OpenRouter, vLLM, SGLang and `cbtrain serve`",
    )
    base_url: str = Field(description="address, up to and including the version, e.g. https://api.openai.com/v1")
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="NAME of the environment variable with the key, never the key itself; null: no key is needed",
    )
    structure: Structure = Field(
        "json_schema", description="how the API is made to answer in JSON; none: by the prompt alone"
    )
    seed: bool = Field(True, description="whether the API accepts a seed")
    sampling: bool = Field(True, description="whether the API accepts temperature and top-p (reasoning models do not)")
    output_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="field for the limit in the openai protocol; newer OpenAI models accept only the second",
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="provider-specific request fields")
    price: Price | None = Field(None, description="US dollars for a million tokens; null: as in the table of prices")
    reuse: bool | None = Field(
        None,
        description="save answers on disk and use them again; null: only paid ones (the provider has a key or a price)",
    )
    stream: bool = Field(
        False, description="receive answers in pieces, so that a long answer is not taken for a dead connection"
    )
    connect_timeout_s: float = Field(10, gt=0)
    idle_timeout_s: float = Field(60, gt=0, description="longest wait for the next part of a reply")
    attempt_timeout_s: float = Field(
        180, gt=0, description="limit of one attempt, from the request to the end of its answer"
    )
    overall_deadline_s: float = Field(
        900, gt=0, description="limit of all attempts together, with the waits between them"
    )
    max_retries: int = Field(8, ge=0)
    backoff_s: float = Field(
        1.0, gt=0, description="upper bound of the wait before the first retry; it doubles with each retry"
    )
    first_in_flight: int = Field(
        20, ge=1, description="parallel requests at the start; the number then adapts to what the API accepts"
    )
    max_in_flight: int = Field(100, ge=1, description="most parallel requests of the account")
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
            problem = (
                "base_url is not the host that the key is for (or is http, not https); name the variable with its key, "
                "or null for no key"
            )
            raise SettingsConflict(problem, "base_url", "kind", "preset", "api_key_env")
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
            raise ValueError("must have no key, password, query or fragment; put a key into an environment variable")
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
                raise ValueError(f"{name} asks for answers that would be paid for but not read; leave it out")
        return given

    @model_validator(mode="after")
    def _kind_of_its_address(self) -> ProviderConfig:
        """A key must not go to another company than its own."""
        host = urlsplit(self.base_url).hostname
        kinds = {urlsplit(base).hostname: kind for kind, base in BASES.items()} | {"api.openai.com": "openai"}
        # Others speak the openai protocol beside their own.
        if self.kind != "openai" and kinds.get(host, self.kind) != self.kind:
            problem = f"{host} speaks {kinds[host]}, not {self.kind}; set base_url with kind, or take a preset"
            raise SettingsConflict(problem, "base_url", "kind")
        if self.kind == "gemini" and not isinstance(self.extra_body.get("generationConfig", {}), dict):
            problem = "extra_body.generationConfig must be a section of keys and values"
            raise SettingsConflict(problem, "extra_body", "kind")
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

    budget: float | None = Field(
        None, ge=0, description="most US dollars to spend; a request that could exceed it is not sent"
    )
    prices: Path | None = Field(
        None, description="table of prices (YAML); null: the shipped one, with third-party figures"
    )
    answers: str = Field(
        "auto", description="file of saved answers, shared by runs; auto: in $CBTRAIN_CACHE or ~/.cache/cbtrain"
    )
    stop_wait_s: float = Field(
        120, ge=0, description="seconds in which requests in flight may finish after SIGTERM, Ctrl-C or SIGUSR1"
    )
    keep_requests: bool = Field(
        True,
        description="keep every request and reply of an evaluation, without keys, in requests.jsonl in its folder: "
        "`cbtrain show` reads it",
    )
    record: Path | None = Field(None, description="record all requests and answers in this file, without keys")
    replay: Path | None = Field(None, description="answer from this recording instead of the APIs: no key, no cost")

    @model_validator(mode="after")
    def _one_of_them(self) -> ProvidersConfig:
        if self.record and self.replay:
            raise SettingsConflict("record and replay are both set; leave one out", "record", "replay")
        return self
