"""The fields that chats and texts share: how tokens are drawn, where answers end, and how they are sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.request import Request
from cbtrain.serving.errors import Refused
from cbtrain.serving.requests.fields import NEUTRAL, served_fields
from cbtrain.serving.requests.response_format import ResponseFormat
from cbtrain.settings import SettingsConflict
from cbtrain.text.faults import first_fault

MOST_CHOICES = 128
MOST_ALTERNATIVES = 20
MOST_BIASES = 1_024
MOST_STOPS = 32
TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}")
LONGEST_STOP = 1_000
"""Characters of a stop string: each drawn character is compared with each of them."""

Body = TypeVar("Body", bound="SampledBody")


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    include_obfuscation: bool | None = False  # padding against readers of the line: there is none on this one

    @field_validator("continuous_usage_stats")
    @classmethod
    def _only_at_the_end(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("not served here; usage comes with the last chunk")
        return value


class SampledBody(BaseModel):
    """Types are strict: a number in quotes is refused, as OpenAI refuses it. Null is the same as leaving a field
    out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    NEUTRAL_TOO: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """What is neutral in this kind of body, besides what is neutral everywhere."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=MOST_BIASES)
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=1_000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias and not all(TOKEN_ID.fullmatch(key) for key in bias):
            raise ValueError("keys must be token ids")
        return bias

    @field_validator("stop")
    @classmethod
    def _stops_are_short(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > MOST_STOPS:
            raise ValueError(f"at most {MOST_STOPS} texts")
        for text in texts:
            if not text:
                raise ValueError("a stop string is empty")
            if len(text) > LONGEST_STOP:
                raise ValueError(f"a stop string is longer than {LONGEST_STOP:,} characters")
            whole_characters(text)
        return stop

    @classmethod
    def read(cls: type[Body], fields: Mapping[str, Any]) -> Body:
        """Return the body that ``fields`` are. Raises Refused (400), which names the field."""
        body = valid(
            lambda: cls.model_validate(served_fields(fields, cls.model_fields, {**NEUTRAL, **cls.NEUTRAL_TOO}))
        )
        if body.stream_options and not body.stream:
            raise Refused(400, "stream_options: only with stream=true", param="stream_options")
        return body

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to each token are wanted; None: no log-probabilities."""
        raise NotImplementedError

    @property
    def most_tokens(self) -> int | None:
        """The longest answer; None: as long as the context allows."""
        return self.max_tokens

    def sampling(self, context: int) -> SamplingConfig:
        """Return how tokens are drawn; what is not said is as in the OpenAI API: temperature and top-p 1. Raises
        Refused (400)."""
        names = "min_tokens min_p repetition_penalty presence_penalty frequency_penalty".split()
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return valid(
            lambda: SamplingConfig(
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=0 if self.top_k in (None, -1) else self.top_k,  # -1 is vLLM's word for all
                max_tokens=self.most_tokens or max(context, self.min_tokens or 0),
                **given,
            )
        )

    def applied_to(self, request: Request) -> Request:
        """Return ``request`` with stops, biases, log-probabilities and schema as they are asked for."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return replace(
            request,
            stop=(*stops, *request.stop),
            stop_ids=request.stop_ids | frozenset(self.stop_token_ids or ()),
            logit_bias={int(key): bias for key, bias in (self.logit_bias or {}).items()},
            logprobs=self.wanted_logprobs,
            schema=self.response_format.schema_of_answer if self.response_format else None,
        )


def whole_characters(text: str) -> str:
    """Return ``text``. Raises ValueError if it has half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return text


def choice_seed(seed: int, choice: int) -> int:
    """Return the seed of a request's ``choice``: the first has the request's own, and no other seed gives the draws of
    a later one."""
    if choice == 0:
        return seed
    return int.from_bytes(blake2b(f"{seed % 2**64}/{choice}".encode(), digest_size=8).digest(), "little")


Valid = TypeVar("Valid")


def valid(make: Callable[[], Valid]) -> Valid:
    """Return ``make()``. What pydantic finds wrong becomes Refused (400), with the field's name."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        conflict = first.get("ctx", {}).get("error")
        place = first["loc"] or (conflict.keys if isinstance(conflict, SettingsConflict) else ())
        raise Refused(400, first_fault(error), param=str(place[0]) if place else None) from None
