"""Settings that name the patients of an evaluation (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Column = Literal["severity", "engagement", "style", "risk"]


class TableMap(BaseModel):
    """How a table of patients is read, where the names of its columns do not tell."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] = Field({}, description="column of each field, such as severity or `symptom_low mood`")
    encoding: str = Field("utf-8", description="of the table, such as cp1252")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="of the table (default: found among , ; tab |)"
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, given: str) -> str:
        try:
            "".encode(given)
        except LookupError:
            raise ValueError(f"unknown encoding {given!r}") from None
        return given


class PatientsConfig(BaseModel):
    """Who is treated: patients of a library that ships, or of a file of one's own."""

    model_config = ConfigDict(extra="forbid")

    library: str | None = Field(
        None, min_length=1, description="name of a shipped library; see `cbtrain patients list`"
    )
    file: str | None = Field(
        None, min_length=1, description="file or folder of one's own patients: YAML, JSONL, CSV, or the 2024 study's"
    )
    map: TableMap = Field(default_factory=TableMap, description="how a table of patients is read")
    only: list[str] = Field([], description="ids of the patients to treat, in this order; none: all")
    count: int | None = Field(None, ge=1, description="how many to treat; null: all")
    stratify: list[Column] = Field(
        [], description="columns over which `count` patients are spread as evenly as they can be"
    )
