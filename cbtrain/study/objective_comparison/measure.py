"""What a model says of pairs of answers that were not trained, whatever it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.model.adapters.methods import load_adapter
from cbtrain.model.decoder import Decoder
from cbtrain.study.corpus import load_corpus
from cbtrain.study.datasets import course_units
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.tokenize import tokenize
from cbtrain.training.objectives.reference import answers_of_all

PARTS = ("validation", "test")

Row = list[float]
"""Log-probability of the chosen answer and of the rejected one (nats), then their numbers of tokens."""


def measure_pairs(config: StudyConfig, adapter: Path | None, console: Console) -> dict[str, Any]:
    """Return by part the rows of all pairs, in the order of their names: of the base that ``config`` names with
    ``adapter``, or alone. Raises UserError on files that cannot be used."""
    corpus = load_corpus(config, Console(quiet=True))
    spec = StageSpec.of(config, "therapist", StudyModel.of(config, "real", console))
    builder = spec.builder()
    decoder = spec.base_decoder(console)
    if adapter is not None:
        load_adapter(decoder, adapter)
    found: dict[str, Any] = {}
    for part in PARTS:
        units = course_units(getattr(corpus.split, part), "therapist", config)
        if units:
            made = tokenize(units, builder, skip_bad=config.corpus.skip_bad)
            found[part] = _rows(decoder, made.documents, config.therapist.pack_tokens)
    return found


def _rows(decoder: Decoder, documents: TokenStore, pack_tokens: int) -> dict[str, Row]:
    rows = dict[str, Row]()
    for document, (chosen, rejected) in zip(
        documents, answers_of_all(decoder, documents, pack_tokens).tolist(), strict=True
    ):
        branches, weights = document.branches, document.loss_weights
        assert branches is not None
        # The first token of a branch predicts the answer's first, and is none of it.
        parts = weights[branches.chosen + 1 : branches.rejected], weights[branches.rejected + 1 :]
        rows[document.name] = [chosen, rejected, *(float(part.sum()) for part in parts)]
    return dict(sorted(rows.items()))


@dataclass(frozen=True, slots=True)
class Preferences:
    """What rows come to. ``ranked``: share of pairs whose chosen answer has the higher log-probability a token;
    ``moved``: share of those in which the log-ratio to the base is higher for the chosen answer, None of the base;
    ``chosen`` and ``rejected``: mean log-probability of a token (nats)."""

    pairs: int
    ranked: float
    moved: float | None
    chosen: float
    rejected: float

    @classmethod
    def of(cls, rows: dict[str, Row], base: dict[str, Row] | None) -> Preferences:
        """Return what the ``rows`` of a model come to, beside those of its ``base``."""
        ranked = [chosen / n > rejected / m for chosen, rejected, n, m in rows.values()]
        moved = None
        if base is not None:
            gains = [(row[0] - base[name][0], row[1] - base[name][1]) for name, row in rows.items()]
            moved = sum(chosen > rejected for chosen, rejected in gains) / len(gains)
        sums = [sum(column) for column in zip(*rows.values(), strict=True)]
        return cls(len(rows), sum(ranked) / len(ranked), moved, sums[0] / sums[2], sums[1] / sums[3])
