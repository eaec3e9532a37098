"""The stages of a study as the planner takes them: scenario and workload, without weights."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.stages import StageName, StageSpec, StudyModel
from cbtrain.study.tiny_base import training_documents
from cbtrain.tokens.cache import TokenStore
from cbtrain.training.planning.plan import PlannedStage
from cbtrain.training.planning.workload import ASSUMED_SHARE, Workload


def planned_stages(
    config: StudyConfig, device: str, world: int, console: Console, only: Sequence[str] = ()
) -> list[PlannedStage]:
    """Return the stages of ``config`` (``only`` those named), trained on ``world`` ranks of the kind ``device``
    (``cpu``, ``cuda``).

    The corpus is read and tokenized; if the model has no tokenizer, one document a pack is assumed. Raises UserError on
    a corpus, a model's config or settings that cannot be used.
    """
    corpus = load_corpus(config, console)
    model = StudyModel.of(config, "none", console, corpus.split)
    first: list[StageName] = ["base"] if model.folder is None else []
    names: list[StageName] = [*first, *config.training.speakers]
    specs = [StageSpec.of(config, name, model, device) for name in names if not only or name in only]
    if not specs:
        raise UserError(f"there is no stage {only[0]!r}", where="--stage", hint=f"The stages are {', '.join(names)}.")
    return [planned_stage(spec, corpus, world, console) for spec in specs]


def planned_stage(spec: StageSpec, corpus: StudyCorpus, world: int, console: Console) -> PlannedStage:
    """Return one stage for the planner. Raises UserError on settings that cannot be used."""
    spec.check()
    settings, scenario = spec.settings, spec.scenario(world)
    if spec.model.tokenizer is None:
        note = f"The model has no tokenizer: one document a pack is assumed, {ASSUMED_SHARE:.0%} of it supervised."
        return PlannedStage(spec.name, settings, scenario, Workload(settings.pack_tokens), (note,))
    longest: int | None
    if spec.name == "base":
        windows, _ = training_documents(spec, corpus.split)
        documents = TokenStore.of(windows)
        longest = int(documents.lengths.max())  # the windows do not depend on the packs
    else:
        documents = spec.dataset(corpus, console).train.documents
        longest = spec.config.tokens.document_tokens
    return PlannedStage(spec.name, settings, scenario, Workload.of(documents, settings.pack_tokens, longest))
