"""What a user sets about transcripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.dataset_info import read_map


class CleaningPolicy(BaseModel):
    """Which faults are cleaned before training and evaluation. Changes are counted; each kind can be switched off."""

    model_config = ConfigDict(extra="forbid")

    remove_thinking: bool = Field(
        True, description="remove what a model thought before it answered (<think> … </think> and other tags)"
    )
    strip_markup: bool = Field(False, description="remove HTML tags, and write entities as characters")
    strip_notes: bool = Field(False, description="remove a transcriber's notes, e.g. [crosstalk] and (laughs)")
    strip_end_markers: bool = Field(
        False, description="remove lines that end a conversation, e.g. [END] and 'End of session'"
    )
    split_inner_labels: bool = Field(True, description="split a turn where another speaker's label is inside it")
    therapist_names: list[str] = Field(["Nova"], description="names that may be the therapist's label")
    remove_residue: bool = Field(
        True, description="remove lines in which the generator talks about parts of a transcript"
    )
    split_summaries: bool = Field(True, description="move a closing summary from the patient's label to the therapist")
    drop_earlier_summaries: bool = Field(False, description="keep only the last of several closing summaries")
    drop_empty_turns: bool = True
    merge_repeated_speaker: bool = Field(True, description="merge turns of one speaker in a row")
    drop_sessions_without_dialogue: bool = Field(True, description="drop sessions in which one speaker says nothing")
    drop_duplicate_sessions: bool = Field(True, description="drop sessions that repeat an earlier one word by word")


class TranscriptsConfig(BaseModel):
    """Which corpus, and how it is read and cleaned."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        "sample", description="folder or file; 'sample' is the embedded, fictional corpus, 'sample-pairs' its pairs"
    )
    format: str = Field(
        "auto",
        description="auto, author, simulations, dialogues, cbtrain, pairs, messages, sharegpt, records, table or text",
    )
    therapist_labels: list[str] = Field([], description="what the therapist is called, instead of the common names")
    patient_labels: list[str] = Field([], description="what the patient is called, instead of the common names")
    map: CorpusMap = Field(
        default_factory=CorpusMap, description="where the parts of a session are: a YAML file, or the keys of one"
    )
    metadata: str | None = Field(
        None,
        description="a table (CSV, TSV, Parquet) with a column file, and patient, course, session, arm or other facts",
    )
    validation: str | None = Field(
        None,
        min_length=1,
        description="file or folder that is the validation part, instead of a share of the patients of path",
    )
    test: str | None = Field(
        None,
        min_length=1,
        description="file or folder that is the test part, instead of a share of the patients of path",
    )
    generator: str | None = Field(
        None,
        description="model that wrote the transcripts, if one did: judges of its family are named in a report",
    )
    language: str = Field("auto", description="ISO 639-1 code for the data card; auto finds it from the text")
    skip_bad: bool = Field(
        False, description="skip and count sessions that cannot be read or tokenized, instead of refusing the corpus"
    )
    cleaning: CleaningPolicy = Field(default_factory=CleaningPolicy)

    @field_validator("language")
    @classmethod
    def _is_code(cls, language: str) -> str:
        if language != "auto" and not re.fullmatch(r"[a-z]{2,3}|unknown", language):
            raise ValueError("give a code of two or three letters such as en, 'unknown' or 'auto'")
        return language

    @model_validator(mode="before")
    @classmethod
    def _read_map(cls, values: Any) -> Any:
        """Replace the name of a map's file by its keys. Raises ValueError if it cannot be read."""
        if not isinstance(values, dict) or not isinstance(values.get("map"), str):
            return values
        try:
            corpus_map = read_map(Path(values["map"]), Path(str(values.get("path", ""))))
        except (UserError, UnicodeError) as error:  # half a character in a name
            raise ValueError(str(error).encode("utf-8", "backslashreplace").decode()) from None
        return values | {"map": corpus_map.given}


class SplitConfig(BaseModel):
    """Shares of the patients, or the patients themselves by course id. A part of 0 is empty; one that has a file of its
    own (``corpus.validation``, ``corpus.test``) is that file."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(1, description="with 1, two patients of the sample corpus are held out")
    validation: float | list[str] = Field(0.1, description="share of the patients (0: none), or a list of course ids")
    test: float | list[str] = Field(0.25, description="share of the patients held out (0: none), or their course ids")
    stratify: list[str] = Field(
        [], description="characteristics to balance between the parts, e.g. severity and engagement"
    )
    keep: str | None = Field(None, description="an earlier split.json, whose patients keep their part")
    openings: Literal["tell", "join"] = Field(
        "tell", description="patients who open alike: tell of those on two sides, or join them as one patient"
    )
    near_duplicate: float = Field(
        0.5, gt=0, le=1, description="patients with sessions this similar (Jaccard, 5-word shingles) stay together"
    )
