"""The score of a session from the ratings of several judges, who differ in severity.

If every judge rated every session, it is the mean over judges. If not, each judge's severity (its level minus the mean
level of all judges) is subtracted first: otherwise a session's score would depend on who rated it. If judges share too
few sessions, their severities cannot be compared, and there are no such scores.
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
"""Sessions that two judges must both have rated for their severities to be compared. In 100 simulated studies each,
95 % intervals that treat the severity as known covered 75 % with three such sessions, 90 % with ten, 98 % with
thirty."""

Judged = dict[Key, dict[str, float]]
"""For each session, the value that each judge gave it, averaged over repeats."""


def judged_means(ratings: Ratings, values: np.ndarray) -> Judged:
    """Return the value of each session by each judge, sessions in the order of arms, then of rows. ``values``: float
    ``[rows]``, the totals or one item; NaN is left out."""
    repeats_of: dict[Key, dict[str, list[float]]] = {}
    sessions, judges = ratings.sessions, ratings.judge
    for row in np.flatnonzero(np.isfinite(values)):
        repeats_of.setdefault(sessions[row], {}).setdefault(str(judges[row]), []).append(float(values[row]))
    arm_order = {arm: index for index, arm in enumerate(ratings.arms)}
    return {
        session: {judge: sum(repeats) / len(repeats) for judge, repeats in repeats_of[session].items()}
        for session in sorted(repeats_of, key=lambda session: arm_order[session[0]])
    }


def session_means(ratings: Ratings, values: np.ndarray) -> dict[Key, float]:
    """Return one score for each session, in the order of :func:`judged_means`; empty if judges are not
    :func:`connected`. ``values`` as there."""
    judged = judged_means(ratings, values)
    if not _comparable(judged):
        return {}
    severity = dict.fromkeys(_judges(judged), 0.0) if _complete(judged) else _severities(judged)
    return {
        session: sum(value - severity[judge] for judge, value in by_judge.items()) / len(by_judge)
        for session, by_judge in judged.items()
    }


def severities(ratings: Ratings, values: np.ndarray) -> dict[str, float]:
    """Return each judge's severity: how far its values lie above the mean over judges on the same sessions, by least
    squares with an effect for each session. NaN for a judge who shares no session with another. ``values`` as in
    :func:`judged_means`."""
    judged = judged_means(ratings, values)
    result = dict.fromkeys(ratings.judges, float("nan"))
    for group in _linked_groups(judged, 1):
        if len(group) > 1:
            by_group = {session: by_judge for session, by_judge in judged.items() if by_judge.keys() <= group}
            result |= _severities(by_group)
    return result


def connected(ratings: Ratings) -> bool:
    """Return whether severities can be estimated: every judge rated every session, or all judges are linked by pairs
    that share at least ``LEAST_COMMON`` sessions."""
    return _comparable(judged_means(ratings, ratings.total))


def _comparable(judged: Mapping[Key, Mapping[str, float]]) -> bool:
    return _complete(judged) or len(_linked_groups(judged, LEAST_COMMON)) < 2


def _complete(judged: Mapping[Key, Mapping[str, float]]) -> bool:
    """Return whether every judge has a value for every session."""
    judges = len(_judges(judged))
    return all(len(by_judge) == judges for by_judge in judged.values())


def _judges(judged: Mapping[Key, Mapping[str, float]]) -> list[str]:
    """Return the judges in the order in which they first appear."""
    return list(dict.fromkeys(judge for by_judge in judged.values() for judge in by_judge))


def _linked_groups(judged: Mapping[Key, Mapping[str, float]], least: int) -> list[set[str]]:
    """Return the connected components of the graph that joins two judges if both rated at least ``least`` sessions."""
    common = Counter(pair for by_judge in judged.values() for pair in combinations(sorted(by_judge), 2))
    groups = [{judge} for judge in _judges(judged)]
    for pair, sessions in common.items():
        if sessions >= least:
            joined = [group for group in groups if group & set(pair)]
            groups = [group for group in groups if not group & set(pair)] + [set().union(*joined)]
    return groups


def _severities(judged: Mapping[Key, Mapping[str, float]]) -> dict[str, float]:
    """Return the judges' effects, with mean 0, in the least-squares fit ``value ~ session + judge``."""
    judges = _judges(judged)
    if len(judges) < 2:
        return dict.fromkeys(judges, 0.0)
    column_of = {judge: column for column, judge in enumerate(judges)}
    cells = [
        (session, column_of[judge], value)
        for session, by_judge in enumerate(judged.values())
        for judge, value in by_judge.items()
    ]
    session = np.array([session for session, _, _ in cells])
    design = np.zeros((len(cells), len(judges)))
    design[np.arange(len(cells)), [column for _, column, _ in cells]] = 1.0
    # Subtracting session means from design and values leaves the judges' effects to estimate (Frisch-Waugh-Lovell).
    columns = np.column_stack([design, [value for _, _, value in cells]])
    sums = np.zeros((len(judged), columns.shape[1]))
    np.add.at(sums, session, columns)
    columns -= (sums / np.bincount(session)[:, None])[session]
    # The judges' columns now sum to 0: one singular value is 0 but for rounding.
    effects = np.linalg.lstsq(columns[:, :-1], columns[:, -1], rcond=ROUNDING)[0]
    return dict(zip(judges, (effects - effects.mean()).tolist(), strict=True))
