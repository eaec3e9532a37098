"""Names that public datasets give to speakers, to lists of turns, and to the parts of a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cbtrain.transcripts.types import Role

PATIENT = (
    "patient client user human prompter seeker help-seeker help_seeker helpseeker caller visitor usr p c "
    "来访者 求助者 患者 病人 咨询者 用户 相談者 クライエント クライアント 내담자 환자 "
    "klient klientin patientin paciente"
)
THERAPIST = (
    "therapist counselor counsellor psychotherapist psychologist psychiatrist clinician doctor supporter helper "
    "assistant gpt chatgpt model bot ai agent provider t "
    "治疗师 咨询师 心理咨询师 支持者 医生 助手 カウンセラー セラピスト "
    "상담사 상담자 치료사 therapeut therapeutin terapeuta"
)
SPEAKERS: Mapping[str, Role | None] = {
    **dict.fromkeys(PATIENT.split(), "patient"),
    **dict.fromkeys(THERAPIST.split(), "therapist"),
    "system": None,
    "developer": None,
}
"""Who is meant by the speaker of a turn, in lower case. None: a system prompt, which nobody says."""

TURNS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "utterances", "chat", "segments")
"""Keys of a list of turns."""

PAIRS = (("prompt", "completion"), ("instruction", "output"), ("instruction", "response"))
"""Keys of what is asked and what is learnt, as TRL, Axolotl, LLaMA-Factory and Unsloth have them."""

SPEAKER = ("role", "from", "speaker", "interlocutor", "speaker_role", "author", "type")
TEXT = ("content", "text", "utterance", "message", "utterance_text", "sentence", "value")
"""Keys of the speaker and of the words of a turn."""

SESSION = (
    "session_id transcript_id conversation_id dialogue_id dialog_id conv_id dial_id chat_id session conversation "
    "dialogue dialog"
).split()
PATIENT_ID = ("patient_id", "patientid", "patient id", "client_id", "patient")
ORDER = "turn_id utterance_id turn_number turn_idx turn_index utterance_idx turn order sequence line_number".split()
"""Columns that say to which session and patient a row of a table belongs, and where in it."""

TIMES = ("start", "start_time", "timestamp", "time", "begin")
"""Keys of a turn that say when it begins."""

IDS = ("course", "id", "conversation_id", "conversation_hash", "dialogue_id", "dialog_id", "session_id", "uuid")
"""Keys that name a record."""

WEIGHTS = ("weight", "train", "training", "masked")
"""Keys of a message that say whether it is learnt: OpenAI's and Axolotl's."""

WEIGHTS_OF_PARTS = ("train_detail", "training_detail")
"""Keys of a message that say of stretches of its words whether they are learnt: Axolotl's."""


def stripped(name: str) -> str:
    """Return a speaker's name without blanks and colons around it."""
    return name.strip().rstrip(":：").strip()


def bare(name: str) -> str:
    """Return a speaker's name as names are compared: stripped, in lower case."""
    return stripped(name).casefold()


def role_of(name: str, extra: Mapping[str, Role | None]) -> Role | Literal["?"] | None:
    """Return who ``name`` is: a role, None for a system prompt, or ``"?"`` if nobody knows. ``extra`` (in lower case)
    counts before the common names."""
    key = bare(name)
    return extra[key] if key in extra else SPEAKERS.get(key, "?")


def texts_of(speaker: str) -> tuple[str, ...]:
    """Return the keys of a turn's words, the likeliest one beside the key ``speaker`` first."""
    first = {"role": "content", "from": "value", "speaker": "text"}.get(speaker.casefold())
    return (first, *(key for key in TEXT if key != first)) if first else TEXT
