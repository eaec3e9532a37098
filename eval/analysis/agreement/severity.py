"""The score of a session from the ratings of several judges, who differ in severity and may not have rated the same.

Where every judge rated every session, it is the mean over judges. Where not, each one's severity, its distance from the
plain mean over judges, is taken off first: otherwise a session's score would depend on who happened to rate it. Judges
without a link of common sessions cannot be put on one level, and then there are no such scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import ROUNDING
from cbtrain.eval.analysis.sessions import Key

LEAST_COMMON = 10
"""Sessions that two judges must both have rated for the severity of one to be told from the other's: with three, 95 %
intervals that take it for known cover 75 %, with ten 90 %, with thirty 98 % (100 made-up studies each)."""

Judged = dict[Key, dict[str, float]]
"""Of each session what each judge gave it, averaged over repeats."""


def judged_means(ratings: Ratings, values: np.ndarray) -> Judged:
    """``values``: float ``[rows]``, totals or an item; NaN is left out. In the order of arms, then of rows."""
    found: dict[Key, dict[str, list[float]]] = {}
    sessions, judges = ratings.sessions, ratings.judge
    for row in np.flatnonzero(np.isfinite(values)):
        found.setdefault(sessions[row], {}).setdefault(str(judges[row]), []).append(float(values[row]))
    order = {arm: place for place, arm in enumerate(ratings.arms)}
    return {
        session: {judge: sum(repeats) / len(repeats) for judge, repeats in found[session].items()}
        for session in sorted(found, key=lambda session: order[session[0]])
    }


def session_means(ratings: Ratings, values: np.ndarray) -> dict[Key, float]:
    """Return one score a session, in the order of :func:`judged_means`; empty if judges are not :func:`connected`."""
    judged = judged_means(ratings, values)
    if not _comparable(judged):
        return {}
    severity = dict.fromkeys(_judges(judged), 0.0) if _complete(judged) else _severities(judged)
    return {
        session: sum(value - severity[judge] for judge, value in own.items()) / len(own)
        for session, own in judged.items()
    }


def severities(ratings: Ratings, values: np.ndarray) -> dict[str, float]:
    """Return how far each judge's values lie above the judges' mean on the same sessions, by least squares with an
    effect for each session. NaN for a judge whom no common session links to another."""
    judged = judged_means(ratings, values)
    found = dict.fromkeys(ratings.judges, float("nan"))
    for group in _linked(judged, 1):
        if len(group) > 1:
            found |= _severities({session: own for session, own in judged.items() if own.keys() <= group})
    return found


def connected(ratings: Ratings) -> bool:
    """Return whether every judge rated every session, or sessions that two judges both rated, ``LEAST_COMMON`` at
    least, link all judges, so that severities can be told from sessions."""
    return _comparable(judged_means(ratings, ratings.total))


def _comparable(judged: Mapping[Key, Mapping[str, float]]) -> bool:
    return _complete(judged) or len(_linked(judged, LEAST_COMMON)) < 2


def _complete(judged: Mapping[Key, Mapping[str, float]]) -> bool:
    judges = len(_judges(judged))
    return all(len(own) == judges for own in judged.values())


def _judges(judged: Mapping[Key, Mapping[str, float]]) -> list[str]:
    """In the order in which they first appear."""
    return list(dict.fromkeys(judge for own in judged.values() for judge in own))


def _linked(judged: Mapping[Key, Mapping[str, float]], least: int) -> list[set[str]]:
    """Groups of judges that ``least`` common sessions or more link, pair by pair."""
    common = Counter(pair for own in judged.values() for pair in combinations(sorted(own), 2))
    groups = [{judge} for judge in _judges(judged)]
    for pair, sessions in common.items():
        if sessions >= least:
            met = [group for group in groups if group & set(pair)]
            groups = [group for group in groups if not group & set(pair)] + [set().union(*met)]
    return groups


def _severities(judged: Mapping[Key, Mapping[str, float]]) -> dict[str, float]:
    judges = _judges(judged)
    if len(judges) < 2:
        return dict.fromkeys(judges, 0.0)
    place = {judge: number for number, judge in enumerate(judges)}
    cells = [
        (number, place[judge], value) for number, own in enumerate(judged.values()) for judge, value in own.items()
    ]
    session = np.array([number for number, _, _ in cells])
    design = np.zeros((len(cells), len(judges)))
    design[np.arange(len(cells)), [column for _, column, _ in cells]] = 1.0
    both = np.column_stack([design, [value for _, _, value in cells]])
    sums = np.zeros((len(judged), both.shape[1]))
    np.add.at(sums, session, both)
    both -= (sums / np.bincount(session)[:, None])[session]
    # One direction, the same for all judges, is always without a length but for rounding.
    effects = np.linalg.lstsq(both[:, :-1], both[:, -1], rcond=ROUNDING)[0]
    return dict(zip(judges, (effects - effects.mean()).tolist(), strict=True))
