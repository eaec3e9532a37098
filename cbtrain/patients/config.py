"""Settings that name the patients of an evaluation (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Column = Literal["severity", "engagement", "style", "risk"]


class PatientsConfig(BaseModel):
    """Who is treated: patients of a library that ships, or of a file of one's own."""

    model_config = ConfigDict(extra="forbid")

    library: str | None = Field(
        None, min_length=1, description="name of a shipped library; see `cbtrain patients list`"
    )
    file: str | None = Field(
        None, min_length=1, description="file or folder of one's own patients: YAML, JSONL, CSV, or the 2024 study's"
    )
    only: list[str] = Field([], description="ids of the patients to treat, in this order; none: all")
    count: int | None = Field(None, ge=1, description="how many to treat; null: all")
    stratify: list[Column] = Field(
        [], description="columns over which `count` patients are spread as evenly as they can be"
    )
