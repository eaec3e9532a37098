"""The panel: the primary judges, whose scores determine the result.

Judges differ in severity, so an arm's mean must not depend on who happened to rate what. The panel are the judges that
rated nearly all sessions; a session counts if all of them rated it, and its score is the mean over them. Other judges
(people who rated a sample, say) are secondary: their agreement and their own conclusions are reported for comparison
and change no number. If no judge rated nearly all sessions, all are *pooled*: contrasts pair sessions within judges,
and each judge's severity is taken off the scores of sessions; if severity is unknown, such scores are gaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.agreement.severity import LEAST_COMMON, connected, judged_means, session_means
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key

NEARLY_ALL = 0.9
"""Least share of all rated sessions that a judge of the panel has rated."""


@dataclass(frozen=True, slots=True)
class Panel:
    """``judges`` determine the result, ``secondary`` ones are reported for comparison. ``linked``: whether common
    sessions tell the severity of pooled judges."""

    judges: list[str]
    secondary: list[str]
    pooled: bool
    linked: bool

    @property
    def note(self) -> str:
        """Return what a reader has to know of the panel; empty if it rated everything and there are no others."""
        secondary = f"; for comparison: {', '.join(self.secondary)}" if self.secondary else ""
        if not self.pooled:
            return f"by {', '.join(self.judges)}{secondary}" if secondary else ""
        elsewhere = (
            "elsewhere each one's severity is taken off as common sessions tell it, and intervals take it for known"
            if self.linked
            else f"for want of common sessions ({LEAST_COMMON} at least) their severity cannot be told, so that there "
            "are no scores by session, means or levels"
        )
        pooled = f"{', '.join(self.judges)} are pooled, since none rated nearly all sessions: contrasts pair sessions "
        return f"{pooled}within a judge, and {elsewhere}{secondary}"


def panel_of(ratings: Ratings, primary_judges: Sequence[str] = ()) -> Panel:
    """Return the panel of ``ratings``. ``primary_judges``: the judges it may have, if that is known (those that a run
    was rated by, not people who rated a sample of it)."""
    candidates = [judge for judge in primary_judges if judge in ratings.judges] or ratings.judges
    sessions = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in candidates}
    candidates = [judge for judge in candidates if sessions[judge]] or candidates
    everything = set().union(*sessions.values())
    judges = candidates
    if len(candidates) > 1:
        judges = [judge for judge in candidates if len(sessions[judge]) >= NEARLY_ALL * len(everything)]
    pooled = bool(candidates) and not judges
    judges = judges or candidates
    linked = not pooled or connected(ratings.only(np.isin(ratings.judge, judges)))
    return Panel(judges, [judge for judge in ratings.judges if judge not in judges], pooled, linked)


def left_out(ratings: Ratings, panel: Panel) -> str:
    """Return how many sessions are left out because not all of the panel rated them; empty if there are none."""
    if panel.pooled or len(panel.judges) < 2:
        return ""
    rated = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in panel.judges}
    by_any, by_all = set().union(*rated.values()), set.intersection(*rated.values())
    lacking = [
        f"{judge}: {count} of {arm}"
        for judge, sessions in rated.items()
        for arm, count in sorted(Counter(arm for arm, _, _ in by_any - sessions).items())
    ]
    what = f"sessions left out that not all of the panel rated: {len(by_any - by_all)}"
    return f"{what} (no total by {', '.join(lacking)})" if lacking else ""


def by_panel(ratings: Ratings, panel: Panel) -> Ratings:
    """Return all ratings by the panel's judges."""
    return ratings.only(np.isin(ratings.judge, panel.judges))


def panel_ratings(ratings: Ratings, panel: Panel) -> Ratings:
    """Return the panel's ratings; sessions that not all of it rated have no scores."""
    own = by_panel(ratings, panel)
    complete = _complete(own, panel, own.total)
    return own if complete.all() else replace(own, items=np.where(complete[:, None], own.items, np.nan))


def panel_scores(ratings: Ratings, panel: Panel, values: np.ndarray) -> dict[Key, float]:
    """Return the score of each session in ``values`` (float ``[rows]``: totals, or an item): see
    :func:`cbtrain.eval.analysis.agreement.severity.session_means`. A session has none if not all of the panel scored
    it."""
    rows = np.isin(ratings.judge, panel.judges)
    own, values = ratings.only(rows), values[rows]
    return session_means(own, np.where(_complete(own, panel, values), values, np.nan))


def _complete(own: Ratings, panel: Panel, values: np.ndarray) -> np.ndarray:
    """Return whether each row's session has a value by every judge of the panel; always true for one judge and for
    pooled ones. Bool ``[rows]``."""
    if panel.pooled or len(panel.judges) < 2:
        return np.ones(len(own), dtype=bool)
    judged = judged_means(own, values)
    return np.array([len(judged.get(session, {})) == len(panel.judges) for session in own.sessions], dtype=bool)
