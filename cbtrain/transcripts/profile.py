"""Who the patient is: the profile that simulation and rendering are given."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Profile(BaseModel):
    """A patient's profile, schema ``cbtrain.profile/1``.

    ``brief`` is one short paragraph in the second person ("You are …"), used as the system prompt of a simulated
    patient; ``text`` is the full prose; ``characteristics`` are labelled facts (age, severity, engagement, …).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    course: str
    name: str
    brief: str
    text: str = ""
    characteristics: dict[str, str | list[str]] = Field(default_factory=dict)
