"""The parts that speakers have: a patient is somebody, and neither speaks for the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cbtrain.eval.simulation.in_character import DriftPolicy
from cbtrain.tokens.dialogue import patient_system
from cbtrain.transcripts.labels import inner_labels, names_of
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Role

if TYPE_CHECKING:
    pass

SHOWN = 120
"""Characters of a refusal that its session's error shows."""

SPECIALS_ONLY = "said nothing but labels and special tokens"
THINK_LESS = (
    "raise evaluation.patient.max_tokens, or have the model think less (evaluation.patient_provider.extra_body), and "
    "evaluate again"
)


@dataclass(frozen=True, slots=True)
class PatientRole:
    """Whom a patient's model plays. ``instructions`` come with the full ``profile`` for a general model; an adapter
    trained here gets, with none, exactly the prompt of its training; ``prompt`` stands for both, if it is given. The
    model sees the ``last`` turns (None: all). ``forbidden`` are special tokens of the therapist, which in a patient's
    mouth would end or open turns: they are taken out and counted. So are thinking, the patient's own label, and all
    that follows the therapist's label. ``drift``: what is done about turns that fall out of the part. ``opening`` are
    the first words, if they are written and not asked for."""

    profile: Profile | None = None
    instructions: str | None = None
    forbidden: Sequence[str] = ()
    last: int | None = None
    prompt: str | None = None
    drift: DriftPolicy = "ignore"
    opening: str = ""

    @property
    def system(self) -> str:
        """Return the system prompt."""
        if self.prompt is not None:
            return self.prompt
        brief, profile = patient_system(self.profile), self.profile.text if self.profile else ""
        return "\n\n".join(filter(None, [brief, profile, self.instructions])) if self.instructions else brief

    @property
    def names(self) -> dict[str, Role]:
        """Return the patient's own labels."""
        return names_of(self.profile, ())

    def words(self, text: str) -> tuple[str, dict[str, int]]:
        """Return :func:`patient_words` of ``text``."""
        return patient_words(text, self.names, self.forbidden)


def in_a_therapists_words(text: str) -> dict[str, Any]:
    """Return facts of what was found in a therapist's turn. Told, not cut: what it writes is what is measured."""
    speaks_for_patient = any(label.role == "patient" for label in inner_labels(text, {}))
    return {"speaks_for_patient": 1} if speaks_for_patient else {}


def quoted(text: str) -> str:
    words = " ".join(text.split())[:SHOWN]
    return f": {words!r}" if words else ""


def patient_words(text: str, names: Mapping[str, Role], forbidden: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Return what a patient says themselves in ``text``, without ``forbidden`` special tokens, and counts of what was
    taken out."""
    counts: dict[str, int] = {}
    for special in forbidden:
        if special in text:
            counts["special_tokens_removed"] = counts.get("special_tokens_removed", 0) + text.count(special)
            text = text.replace(special, " ")
    text, labels, cut = own_words(text, "patient", names)
    return text, counts | {
        name: count for name, count in (("labels_removed", labels), ("other_speaker_cut", cut)) if count
    }


def nothing_said(found: Mapping[str, int]) -> str:
    """Return why nothing is left of what a patient's model has said."""
    words = "spoke for the therapist only" if found.get("other_speaker_cut") else SPECIALS_ONLY
    return f"the patient's model {words}"


def own_words(text: str, role: Role, names: Mapping[str, Role]) -> tuple[str, int, int]:
    """Return what the speaker of ``role`` says themselves in ``text``: without their own labels, and nothing from the
    other speaker's label on; how many labels were taken out; how many characters were cut. ``names`` are labels beside
    the common ones."""
    kept: list[str] = []
    end = labels = 0
    for label in inner_labels(text, names):
        kept.append(text[end : label.start])
        end = label.end
        if label.role != role:
            return "".join(kept).strip(), labels, len(text) - label.start
        labels += 1
    return "".join([*kept, text[end:]]).strip() if labels else text, labels, 0
