"""What a user sets about transcripts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CleaningPolicy(BaseModel):
    """Which faults are cleaned before training and evaluation. Changes are counted; each kind can be switched off."""

    model_config = ConfigDict(extra="forbid")

    split_inner_labels: bool = Field(True, description="a speaker's label inside a turn begins that speaker's turn")
    therapist_names: list[str] = Field(["Nova"], description="names that may stand for the therapist as a label")
    remove_residue: bool = Field(True, description="lines in which the generator talks about parts of a transcript")
    split_summaries: bool = Field(True, description="a closing summary under a patient's label becomes the therapist's")
    drop_earlier_summaries: bool = Field(False, description="of several closing summaries, keep the last one only")
    drop_empty_turns: bool = True
    merge_repeated_speaker: bool = Field(True, description="turns of one speaker in a row become one")
    drop_sessions_without_dialogue: bool = Field(True, description="sessions in which one speaker says nothing")
    drop_duplicate_sessions: bool = Field(True, description="sessions that repeat an earlier one word by word")


class TranscriptsConfig(BaseModel):
    """Which corpus, and how it is read and cleaned."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field("sample", description="folder or file; 'sample' is the embedded, fictional corpus")
    format: str = Field("auto", description="auto, author, simulations, cbtrain, messages, sharegpt or text")
    therapist_labels: list[str] = Field([], description="labels of the therapist in texts, in place of the common ones")
    patient_labels: list[str] = []
    skip_bad: bool = Field(False, description="leave out malformed sessions, counted, in place of refusing the corpus")
    cleaning: CleaningPolicy = Field(default_factory=CleaningPolicy)


class SplitConfig(BaseModel):
    """Shares of the patients, or the patients themselves by course id."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(1, description="with 1, two patients of the sample corpus are held out")
    validation: float | list[str] = Field(0.1, description="share of the patients, or a list of course ids")
    test: float | list[str] = Field(0.25, description="share of the patients held out, or a list of course ids")
    stratify: list[str] = Field([], description="characteristics to balance, e.g. severity and engagement")
    keep: str | None = Field(None, description="a split.json whose patients stay on their sides")
    near_duplicate: float = Field(
        0.5, gt=0, le=1, description="patients with sessions this similar (Jaccard, 5-word shingles) stay together"
    )
