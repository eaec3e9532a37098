"""The texts on which it is measured what a training has made the model forget: none of their tokens are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import Supervise
from cbtrain.tokens.document import Document
from cbtrain.tokens.document_builder import DocumentBuilder, Unit
from cbtrain.tokens.general_text import first_tokens, passage_documents, read_passages
from cbtrain.training.config import ForgettingConfig, StageConfig
from cbtrain.transcripts.types import Role

GENERAL = "general text"
ANSWERS = "chosen answers"
SHIPPED = "that ship with cbtrain"

_OTHER: dict[Role, Role] = {"therapist": "patient", "patient": "therapist"}


@dataclass(frozen=True, slots=True)
class UntrainedText:
    """``documents`` whose supervised tokens are measured; ``about`` says how much of what they are. Without documents
    ``why_not`` says why there are none."""

    name: str
    documents: list[Document]
    about: str = ""
    why_not: str = ""


def check_general_text(config: StudyConfig) -> None:
    """Raise UserError if the general text of ``config`` cannot be read."""
    if config.training.forgetting.enabled:
        read_passages(config.training.forgetting.text)


def untrained_texts(
    speaker: Role, units: Sequence[Unit], renderer: ChatRenderer, positions: int, config: StudyConfig
) -> tuple[UntrainedText, ...]:
    """Return the general text, the turns on which ``speaker`` is not trained in ``units``, the validation part's, and
    of pairs the chosen answers there; nothing if nothing is to be measured. Raises UserError if the general text cannot
    be read."""
    if not config.training.forgetting.enabled:
        return ()
    general = general_text(renderer, positions, config.training.forgetting)
    texts = (general, _turns(speaker, units, renderer, positions, config))
    settings: StageConfig = getattr(config, speaker)
    if settings.objective == "sft":
        return texts
    tokens = config.tokens.model_copy(update={"weights": []})
    builder = DocumentBuilder(renderer, speaker, "therapist", tokens, settings.pack_tokens, positions)
    return *texts, _beginning(ANSWERS, units, builder, config)


def general_text(renderer: ChatRenderer, positions: int, settings: ForgettingConfig) -> UntrainedText:
    """Return the general text that ``settings`` name, for a model with so many ``positions``. Raises UserError if it
    cannot be read."""
    passages = read_passages(settings.text)
    try:
        whole = passage_documents(passages, renderer.tokenizer, positions, renderer.vocabulary)
    except UserError as error:  # no reason not to train
        return UntrainedText(GENERAL, [], why_not=str(error))
    documents = first_tokens(whole, settings.tokens)
    read = len({document.name for document in documents})
    whence = SHIPPED if settings.text is None else f"of {Path(settings.text).name}"  # a card is no place for a path
    about = f"{read} of {len(passages)} passages {whence}"
    return UntrainedText(GENERAL, documents, about, "" if documents else "it has no token to predict")


def _turns(
    speaker: Role, units: Sequence[Unit], renderer: ChatRenderer, positions: int, config: StudyConfig
) -> UntrainedText:
    """Return the turns of ``units`` that the loss of ``speaker`` does not count."""
    settings: StageConfig = getattr(config, speaker)
    supervise = settings.supervise or speaker
    others = _not_supervised(supervise)
    name = f"{others or _OTHER[speaker]}s' turns"
    if others is None:
        why = f"{speaker}.supervise is {supervise}, so the loss counts the turns of both"
        return UntrainedText(name, [], why_not=why)
    # Each turn once with what was said before: a record for every turn would cost as many passes as there are turns.
    tokens = config.tokens.model_copy(update={"weights": [], "recipe": "whole"})
    try:
        builder = DocumentBuilder(renderer, speaker, others, tokens, settings.pack_tokens, positions)
    except UserError as error:
        return UntrainedText(name, [], why_not=error.what)
    return _beginning(name, units, builder, config)


def _beginning(name: str, units: Sequence[Unit], builder: DocumentBuilder, config: StudyConfig) -> UntrainedText:
    """Return as many tokens of turns as the setting asks for, of units in an order drawn by the study's seed: the same
    ones for all settings of training. Those that cannot be used are left out and counted."""
    wanted, documents, used, bad = config.training.forgetting.tokens, list[Document](), 0, list[UserError]()
    for index in np.random.default_rng(config.seed).permutation(len(units)).tolist():
        if (left := wanted - sum(map(_counted, documents))) <= 0:
            break
        try:
            documents += first_tokens(builder.build(units[index]).documents, left)
            used += 1
        except UserError as error:
            bad.append(error)
    if not units:
        return UntrainedText(name, [], why_not="there is no validation part")
    if not documents:
        return UntrainedText(name, [], why_not=bad[0].what if bad else "they have no token to predict")
    about = f"{used} of {len(units)} {config.tokens.document}s of the validation part"
    return UntrainedText(name, documents, f"{about}; {len(bad)} cannot be used" if bad else about)


def _counted(document: Document) -> int:
    return int(document.supervised[1:].sum())


def _not_supervised(supervise: Supervise) -> Role | None:
    """Return whose turns the loss does not count; None if it counts those of both."""
    return _OTHER[supervise] if supervise in ("therapist", "patient") else None
