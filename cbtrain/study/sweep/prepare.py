"""What the runs of a sweep are trained on, read before any weights: each corpus and each set of documents once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError, first_of
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.datasets import (
    SpeakerDataset,
    check_held_out_patients,
    training_part,
    untrained_part,
    validation_part,
)
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.study.sweep.checks import speaker_of
from cbtrain.study.sweep.problems import Problems
from cbtrain.tokens.chat import ChatRenderer

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """One run of a sweep before its weights: ``spec`` is its stage of training, ``folder`` that of the run."""

    name: str
    config: StudyConfig
    folder: Path
    corpus: StudyCorpus
    spec: StageSpec
    dataset: SpeakerDataset

    @property
    def speaker(self) -> Any:
        return self.spec.name

    @property
    def group(self) -> str:
        """The runs that it is compared with: those of its speaker and objective."""
        objective = self.spec.settings.objective
        return str(self.speaker) if objective == "sft" else f"{self.speaker} {objective}"

    @property
    def stage_folder(self) -> Path:
        return self.folder / "training" / str(self.speaker)

    @property
    def planned_tokens(self) -> int:
        """Tokens after which it ends, if validation does not end it before."""
        return self.spec.settings.tokens_in_all(self.dataset.train.documents.tokens)

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Inside, a UserError names this run before the place that it is about."""
        try:
            yield
        except UserError as error:
            raise UserError(error.what, where=f"run {self.name}, {error.where}", hint=error.hint) from None

    def with_base(self, folder: Path) -> PreparedRun:
        """Return the run over the base in ``folder``, which the sweep has made."""
        return replace(self, spec=replace(self.spec, model=replace(self.spec.model, folder=folder)))


class Shared:
    """Makes what runs are trained on, and makes each thing once for all runs that need the same."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._made: dict[str, Any] = {}

    def corpus(self, config: StudyConfig) -> StudyCorpus:
        """Return :func:`load_corpus`."""
        return self._once("corpus", _corpus_key(config), lambda: load_corpus(config, self.console))

    def model(self, config: StudyConfig) -> StudyModel:
        """Return the base without its weights; its tokenizer is trained on the corpus if the sweep makes it."""
        key = [config.model.path, *([] if config.model.path else [_corpus_key(config), config.tiny.model_dump()])]
        return self._once("model", key, lambda: StudyModel.of(config, "real", self.console, self.corpus(config).split))

    def dataset(self, spec: StageSpec) -> SpeakerDataset:
        """Return the documents of ``spec``, trained and validated on. Raises UserError as
        :func:`cbtrain.study.datasets.build_dataset`."""
        config, settings, speaker = spec.config, spec.settings, speaker_of(spec.config)
        corpus, tokens = self.corpus(config), config.tokens.model_dump(mode="json")
        renderer: ChatRenderer = self._once("renderer", [speaker, tokens["format"]], spec.renderer)
        key = [_corpus_key(config), tokens, speaker, settings.pack_tokens]
        if settings.objective != "sft":
            key += ["pairs", settings.preference.likelihood]
        drawn = [settings.token_budget, settings.seed] if settings.token_budget else None
        common = (speaker, corpus, renderer, spec.model.positions, config, self.console)
        train = self._once("train", [*key, settings.supervise or speaker, drawn], lambda: training_part(*common))
        measured = [*key, settings.validation_tokens, settings.seed]
        validation = self._once("validation", measured, lambda: validation_part(*common))
        kept = [*key, settings.supervise, config.training.forgetting.model_dump(), config.seed]
        untrained = self._once(
            "untrained", kept, lambda: untrained_part(speaker, corpus, renderer, spec.model.positions, config)
        )
        dataset = SpeakerDataset(renderer, train, validation, untrained)
        held_out = [*key, config.therapist.pack_tokens, config.evaluation.perplexity_tokens, config.seed]
        self._once(
            "held out",
            held_out,
            lambda: check_held_out_patients(corpus, {speaker: dataset}, spec.model.positions, config, self.console),
        )
        return dataset

    def _once(self, kind: str, key: Any, make: Callable[[], Thing]) -> Thing:
        whole = json.dumps([kind, key], sort_keys=True, default=str)
        if whole not in self._made:
            self._made[whole] = make()
        made: Thing = self._made[whole]
        return made


def _corpus_key(config: StudyConfig) -> list[Any]:
    """Return what decides :func:`load_corpus`."""
    return [config.corpus.model_dump(mode="json"), config.split.model_dump(mode="json"), config.tokens.system]


def prepare_runs(configs: Mapping[str, StudyConfig], folder: Path, where: str, console: Console) -> list[PreparedRun]:
    """Return the runs of the sweep ``where`` with their documents. Raises UserError with the problems of all: corpora
    that cannot be read, targets that the model does not have, sessions that cannot be rendered."""
    shared, runs = Shared(console), []
    found: dict[str, tuple[UserError, list[str]]] = {}
    for name, config in configs.items():
        try:
            corpus = shared.corpus(config)
            spec = StageSpec.of(config, speaker_of(config), shared.model(config))
            spec.check()
            runs.append(PreparedRun(name, config, folder / name, corpus, spec, shared.dataset(spec)))
        except UserError as error:
            found.setdefault(str(error), (error, []))[1].append(name)
    _refuse(found, len(configs), where)
    return runs


def _refuse(found: Mapping[str, tuple[UserError, list[str]]], count: int, where: str) -> None:
    """Raise UserError if anything was ``found``: each error, with the names of the runs that have it."""
    problems = Problems()
    for error, names in found.values():
        of_runs = f"{where}, run {', '.join(first_of(names, 3))}"
        with problems.collected(None if len(names) == count else of_runs):
            raise error
    problems.refuse()
