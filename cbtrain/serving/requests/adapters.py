"""``POST /v1/load_lora_adapter`` and ``unload_lora_adapter``, with vLLM's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.serving.requests.fields import served_fields
from cbtrain.serving.requests.sampled import valid

Body = TypeVar("Body", bound="AdapterBody")


class AdapterBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    lora_name: str = Field(min_length=1, max_length=200)

    @classmethod
    def read(cls: type[Body], fields: Mapping[str, Any]) -> Body:
        """Return the body that ``fields`` are. Raises Refused (400), which names the field."""
        return valid(lambda: cls.model_validate(served_fields(fields, cls.model_fields, {})))


class LoadBody(AdapterBody):
    lora_path: str = Field(min_length=1)
    load_inplace: bool | None = None


class UnloadBody(AdapterBody):
    pass
