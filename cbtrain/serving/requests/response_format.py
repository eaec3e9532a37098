"""``response_format``: free text, any JSON object, or JSON of a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None  # it always is


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema must be there with type 'json_schema', and only then")
        return self

    @property
    def schema_of_answer(self) -> Mapping[str, Any] | Literal[True] | None:
        """As :class:`cbtrain.generation.request.Request` takes it."""
        if self.json_schema:
            return self.json_schema.schema_
        return True if self.type == "json_object" else None
