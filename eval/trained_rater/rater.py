"""A trained rater in its file: what it was fitted to, by which it rates sessions without any model or API.

Its scores lie on the scale but not on its points (two decimals): rounding would make ties that the fit does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cbtrain
from cbtrain.errors import UserError, first_of
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric, id_of
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.trained_rater.examples import Examples, Instrument
from cbtrain.eval.trained_rater.features import VERSION, features_of
from cbtrain.eval.trained_rater.rater_file import SCHEMA, FittedTo, Item, RaterFile, label_of, read_content
from cbtrain.eval.trained_rater.ridge import Ridge, fit_with_choice
from cbtrain.files import expanded
from cbtrain.text.language import UNKNOWN, language_name, language_of

DECIMALS = 2
MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class TrainedRater:
    """Rates as whoever gave the scores would rate, as far as counted features tell."""

    content: RaterFile

    @property
    def label(self) -> str:
        """What it is, for reports."""
        return label_of(self.content.fitted_to)

    @property
    def judge(self) -> str:
        """Its name in tables of scores."""
        return f"imitation of {self.content.fitted_to.who}"

    def check(self, rubric: Rubric) -> list[str]:
        """Return notes on ``rubric``, with which it is to be used. Raises UserError if its items or scale are not those
        that were fitted."""
        scale, domains = self.content.instrument, {id_of(domain.id): domain for domain in rubric.domains}
        items = {id_of(item.id): item.id for item in self.content.items}
        problems = []
        if lacking := [domain.id for key, domain in domains.items() if key not in items]:
            problems.append(f"it does not rate {', '.join(first_of(lacking, 4))}")
        if more := [name for key, name in items.items() if key not in domains]:
            problems.append(f"the rubric lacks {', '.join(first_of(more, 4))}, which it rates")
        if (rubric.minimum, rubric.maximum) != (scale.minimum, scale.maximum):
            own = f"{scale.minimum:g} to {scale.maximum:g}"
            problems.append(f"its scores go from {own}, those of the rubric from {rubric.scale_words}")
        if problems:
            hint = f"Name the rubric of its scores ({scale.name}), or fit a rater to scores of this one."
            raise UserError("; ".join(problems), where=f"trained rater and rubric {rubric.name!r}", hint=hint)
        if scale.digest and rubric.digest != scale.digest:
            return [f"the rubric has changed since the trained rater was fitted ({scale.name})"]
        return []

    def rate(self, session: SimulatedSession, rubric: Rubric) -> Score:
        """Return the score of one session; ``unratable`` if a speaker says nothing, or in another language than those
        of the fit. There is no evidence; the reason of a score names the features that moved it most. ``rubric`` has
        passed :meth:`check`."""
        score = Score.empty(session, self.judge, 0, rubric)
        if why := self.why_not(session):
            score.reason["error"] = why
            return score
        score.status = "ok"
        content = self.content
        ridge = _ridge_of(content)
        values = np.array([features_of(session.turns, content.features.names)])
        (standardized,), (predicted,) = ridge.standardized(values), ridge.predict(values)
        places = {id_of(item.id): place for place, item in enumerate(content.items)}
        for domain in rubric.domains:
            place = places[id_of(domain.id)]
            given = min(max(float(predicted[place]), content.instrument.minimum), content.instrument.maximum)
            score.domains[domain.id] = round(given, DECIMALS)
            score.reason[domain.id] = self._reason(content.items[place], standardized)
        return score

    def why_not(self, session: SimulatedSession) -> str:
        """Return why ``session`` cannot be rated; an empty text if it can."""
        if why := why_unratable(session.turns, session.labels_seen):
            return why
        languages = self.content.fitted_to.languages
        language = language_of("\n".join(turn.text for turn in session.turns)) if languages else UNKNOWN
        if language in (UNKNOWN, *languages):
            return ""
        known = " and ".join(map(language_name, languages))
        return f"it is in {language_name(language)}, and the trained rater was fitted to sessions in {known}"

    def _reason(self, item: Item, standardized: np.ndarray) -> str:
        points = standardized * np.array(item.coefficients)
        largest = np.argsort(-np.abs(points), kind="stable")[:MOST_REASONS]
        moved = ", ".join(f"{self.content.features.names[place]} {points[place]:+.2f}" for place in largest)
        rest = points.sum() - points[largest].sum()
        return f"{self.label}: mean {item.intercept:.2f}, {moved}, other features {rest:+.2f}"


def fit_rater(
    examples: Examples, instrument: Instrument, fitted_to: FittedTo, validation: Sequence[Mapping[str, Any]]
) -> TrainedRater:
    """Return the rater that is fitted to all ``examples``, with the rows of its ``validation``."""
    ridge = fit_with_choice(examples.features, examples.scores, examples.patient)
    items = [
        {
            "id": item,
            "name": name,
            "penalty": float(ridge.penalty[place]),
            "intercept": float(ridge.intercept[place]),
            "coefficients": ridge.coefficients[place].tolist(),
        }
        for place, (item, name) in enumerate(zip(instrument.items, instrument.names, strict=True))
    ]
    columns = {key: getattr(ridge, key).tolist() for key in ("mean", "spread", "low", "high")}
    scale = {"name": instrument.name, "digest": instrument.digest}
    content = {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "label": label_of(fitted_to),
        "notice": cbtrain.NOTICE,
        "fitted_to": fitted_to,
        "instrument": {**scale, "minimum": instrument.low, "maximum": instrument.high},
        "features": {"version": VERSION, "names": list(examples.names), **columns},
        "items": items,
        "validation": [dict(row) for row in validation],
    }
    return TrainedRater(RaterFile.model_validate(content))


def load_rater(path: str | Path) -> TrainedRater:
    """Return the rater in the file at ``path``. Raises UserError with all that is wrong with it, in one line."""
    return TrainedRater(read_content(expanded(path)))


def _ridge_of(content: RaterFile) -> Ridge:
    counted, items = content.features, content.items
    return Ridge(
        mean=np.array(counted.mean),
        spread=np.array(counted.spread),
        low=np.array(counted.low),
        high=np.array(counted.high),
        penalty=np.array([item.penalty for item in items]),
        intercept=np.array([item.intercept for item in items]),
        coefficients=np.array([item.coefficients for item in items]),
    )
