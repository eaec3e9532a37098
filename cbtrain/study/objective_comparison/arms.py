"""The arms of a comparison of objectives: what each is trained for, and with which it is compared (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

UNTUNED, PROMPTED, PLACEBO = "untuned", "prompted", "placebo"
SFT, WHOLE_TEXT, ORPO, DPO = "sft", "sft-whole-text", "orpo", "dpo"


@dataclass(frozen=True, slots=True)
class ArmKind:
    """``settings`` are those of a study in which a tuned arm differs from others; None for an arm that is not tuned.
    ``prefers``: whether its loss compares answers; ``about``: what it is, for people."""

    about: str
    settings: dict[str, Any] | None = None
    prefers: bool = False

    @property
    def tuned(self) -> bool:
        return self.settings is not None


def _settings(objective: str, supervise: str | None = None, recipe: str = "whole") -> dict[str, Any]:
    return {"therapist": {"objective": objective, "supervise": supervise}, "tokens": {"recipe": recipe}}


KINDS = {
    UNTUNED: ArmKind("the base"),
    PROMPTED: ArmKind("the base with another system prompt"),
    PLACEBO: ArmKind("SFT on the rejected answers", _settings("sft", "therapist")),
    SFT: ArmKind("SFT on the chosen answers", _settings("sft", "therapist")),
    WHOLE_TEXT: ArmKind("SFT, the loss over the whole text (no mask)", _settings("sft", "everything", "paper")),
    ORPO: ArmKind("ORPO", _settings("orpo"), prefers=True),
    DPO: ArmKind("DPO", _settings("dpo"), prefers=True),
}
"""Every arm that there is."""

CONTRASTS = (
    *((name, UNTUNED) for name in (SFT, WHOLE_TEXT, ORPO, DPO, PLACEBO)),
    (ORPO, SFT),
    (DPO, SFT),
    (SFT, WHOLE_TEXT),
)
"""The planned contrasts (a, b), for a − b, before any session is held. All are one family for Holm's adjustment."""
