"""The panel: the primary judges, whose scores determine the result.

Judges differ in severity, so an arm's mean must not depend on which judge rated which session. The panel are the judges
that rated nearly all sessions. A session counts if all of them rated it, and its score is the mean over them. Other
judges (people who rated a sample, say) are secondary: their agreement and their own conclusions are reported for
comparison and change no number.

If people's large differences were settled (the judge ``human: adjudicated``), that judge stands for the people whose
scores it settles, since it follows from theirs; for comparison only, if it has rated fewer of their sessions.

If no judge rated nearly all sessions, all judges are *pooled*: contrasts pair sessions within judges, and each judge's
severity is subtracted from the scores of sessions. If severities cannot be estimated, sessions have no scores.

Judges that *take turns* (``evaluation.allocation: cyclic``) are one rater to the analysis: the sessions that are
compared have the same judge, and every judge rated as many sessions of every arm, so severities cancel in contrasts and
weigh the same in each arm's mean. That is so by the plan and cannot be seen in a table, so it has to be said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.agreement.severity import LEAST_COMMON, connected, judged_means, session_means
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.people import ADJUDICATED, people_of

NEARLY_ALL = 0.9
"""Smallest share of all rated sessions that a judge of the panel has rated."""


@dataclass(frozen=True, slots=True)
class Panel:
    """``judges`` determine the result; ``secondary`` judges are reported for comparison. ``linked``: whether pooled
    judges share enough sessions to estimate their severity (always true if not ``pooled``). ``rotating``: they take
    turns. ``short``: planned judges that are not in the panel, each with how many sessions it rated."""

    judges: list[str]
    secondary: list[str]
    pooled: bool
    linked: bool
    rotating: bool = False
    short: tuple[str, ...] = ()

    @property
    def short_note(self) -> str:
        """Return a note on planned judges that rated too few sessions; empty if there are none."""
        if not self.short:
            return ""
        needed = f"{NEARLY_ALL:.0%} of the rated sessions are needed"
        return f"not in the panel, though planned: {', '.join(self.short)} sessions ({needed})"

    @property
    def rater(self) -> str:
        """Return what judges that take turns are called as one."""
        return f"{' / '.join(self.judges)} (in rotation)"

    @property
    def note(self) -> str:
        """Return a note for the reader; empty if there are no other judges and the panel is not pooled."""
        judges = ", ".join(self.judges)
        comparison = f"; for comparison: {', '.join(self.secondary)}" if self.secondary else ""
        if self.rotating:
            return (
                f"{judges} take turns: each session was rated by one of them, the sessions that are compared by the "
                f"same one, so that severities cancel; their agreement is not known{comparison}"
            )
        if not self.pooled:
            return f"rated by {judges}{comparison}" if comparison else ""
        severity = (
            "each judge's severity, estimated from sessions that several judges rated, is subtracted from the scores "
            "of sessions, and intervals treat it as known"
            if self.linked
            else f"the judges have too few sessions in common (at least {LEAST_COMMON} are needed) to estimate their "
            "severity, so there are no scores of sessions, means or levels"
        )
        return (
            f"{judges} are pooled, since none of them rated nearly all sessions: contrasts pair sessions rated by the "
            f"same judge; {severity}{comparison}"
        )


def panel_of(ratings: Ratings, primary_judges: Sequence[str] = (), *, rotating: bool = False) -> Panel:
    """Return the panel of ``ratings``. ``primary_judges``: the only candidates, if they are known (the judges that a
    run planned, not people who rated a sample of it later). ``rotating``: these take turns."""
    if rotating and (turns := [judge for judge in primary_judges if judge in ratings.judges]):
        others = [judge for judge in ratings.judges if judge not in turns]
        return Panel(turns, others, pooled=False, linked=True, rotating=True)
    candidates = [judge for judge in primary_judges if judge in ratings.judges] or ratings.judges
    rated_by = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in candidates}
    candidates = [judge for judge in candidates if rated_by[judge]] or candidates
    candidates = _settled(candidates, rated_by)
    rated_by_any = set().union(*(rated_by[judge] for judge in candidates))
    judges = candidates
    if len(candidates) > 1:
        judges = [judge for judge in candidates if len(rated_by[judge]) >= NEARLY_ALL * len(rated_by_any)]
    pooled = bool(candidates) and not judges
    judges = judges or candidates
    linked = not pooled or connected(ratings.only(np.isin(ratings.judge, judges)))
    all_rated = len(rated_by_any)
    short = tuple(
        f"{judge} rated {len(rated_by[judge])} of {all_rated}"
        for judge in primary_judges
        if judge in rated_by and judge not in judges
    )
    others = [judge for judge in ratings.judges if judge not in judges]
    return Panel(judges, others, pooled, linked, short=short)


def _settled(candidates: list[str], rated_by: Mapping[str, set[Key]]) -> list[str]:
    """Return ``candidates`` with either the people or what was settled between them."""
    people = people_of(candidates)
    if ADJUDICATED not in candidates or not people:
        return candidates
    by_people = set().union(*(rated_by[judge] for judge in people))
    stands = len(rated_by[ADJUDICATED]) >= NEARLY_ALL * len(by_people)
    return [judge for judge in candidates if judge not in (people if stands else (ADJUDICATED,))]


def left_out(ratings: Ratings, panel: Panel) -> str:
    """Return a note on the sessions that are left out because not all of the panel rated them; empty if there are
    none."""
    if panel.pooled or panel.rotating or len(panel.judges) < 2:
        return ""
    rated_by = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in panel.judges}
    rated_by_any, rated_by_all = set().union(*rated_by.values()), set.intersection(*rated_by.values())
    missing = [
        f"{judge}: {count} of {arm}"
        for judge, sessions in rated_by.items()
        for arm, count in sorted(Counter(arm for arm, _, _ in rated_by_any - sessions).items())
    ]
    if not missing:
        return ""
    sessions = len(rated_by_any - rated_by_all)
    return f"sessions left out because not all of the panel rated them: {sessions} (no total by {', '.join(missing)})"


def by_panel(ratings: Ratings, panel: Panel) -> Ratings:
    """Return all ratings by the panel's judges; those who take turns as one."""
    rows = ratings.only(np.isin(ratings.judge, panel.judges))
    return replace(rows, judge=np.full(len(rows), panel.rater)) if panel.rotating else rows


def panel_ratings(ratings: Ratings, panel: Panel) -> Ratings:
    """Return the ratings by the panel's judges; sessions that not all of them rated have NaN as scores."""
    panel_rows = by_panel(ratings, panel)
    complete = _complete(panel_rows, panel, panel_rows.total)
    if complete.all():
        return panel_rows
    return replace(panel_rows, items=np.where(complete[:, None], panel_rows.items, np.nan))


def panel_scores(ratings: Ratings, panel: Panel, values: np.ndarray) -> dict[Key, float]:
    """Return the score of each session that all of the panel scored. ``values``: float ``[rows]``, the totals or one
    item; see :func:`cbtrain.eval.analysis.agreement.severity.session_means`."""
    rows = np.isin(ratings.judge, panel.judges)
    panel_rows, panel_values = by_panel(ratings, panel), values[rows]
    complete = _complete(panel_rows, panel, panel_values)
    return session_means(panel_rows, np.where(complete, panel_values, np.nan))


def _complete(ratings: Ratings, panel: Panel, values: np.ndarray) -> np.ndarray:
    """Return, bool ``[rows]``, whether each row's session has a value by every judge of the panel. Always true for one
    judge and for pooled ones."""
    if panel.pooled or panel.rotating or len(panel.judges) < 2:
        return np.ones(len(ratings), dtype=bool)
    judged = judged_means(ratings, values)
    return np.array([len(judged.get(session, {})) == len(panel.judges) for session in ratings.sessions], dtype=bool)
