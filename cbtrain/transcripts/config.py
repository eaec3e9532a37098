"""What a user sets about transcripts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CleaningPolicy(BaseModel):
    """What is mended before training and evaluation; each step is counted, and each can be switched off."""

    model_config = ConfigDict(extra="forbid")

    remove_residue: bool = Field(True, description="lines in which the generator talks about parts of a transcript")
    split_summaries: bool = Field(True, description="a closing summary under a patient's label becomes the therapist's")
    drop_empty_turns: bool = True
    merge_repeated_speaker: bool = True
    drop_sessions_without_dialogue: bool = Field(True, description="sessions in which one speaker says nothing")


class TranscriptsConfig(BaseModel):
    """Which corpus, and how it is cleaned."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field("sample", description="folder or file; 'sample' is the embedded, fictional corpus")
    format: str = Field("auto", description="auto, author or cbtrain")
    cleaning: CleaningPolicy = Field(default_factory=CleaningPolicy)


class SplitConfig(BaseModel):
    """Shares of the patients, or the patients themselves by course id."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    validation: float | list[str] = Field(0.1, description="share of the patients, or a list of course ids")
    test: float | list[str] = Field(0.25, description="share of the patients held out, or a list of course ids")
