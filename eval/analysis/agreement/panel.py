"""Whose ratings decide. Judges differ in severity, so an arm's mean must not depend on who happened to rate what.

The *panel* are the judges that rated nearly all sessions; a session counts where all of them rated it, and its score
is the mean over them. Other judges (people who rated a sample, say) stand beside: their agreement and their own
conclusions are reported and change no figure. Where no judge rated nearly all, all are *pooled*: contrasts pair within
judges, scores of sessions and what is made of them have each one's severity taken off, and what that cannot give is a
gap.
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
"""Share of all rated sessions that a judge of the panel has rated."""


@dataclass(frozen=True, slots=True)
class Panel:
    """``judges`` decide, the others stand ``beside``. ``linked``: where judges are pooled, whether common sessions
    tell their severity."""

    judges: list[str]
    beside: list[str]
    pooled: bool
    linked: bool

    @property
    def note(self) -> str:
        """What a reader has to know of it; empty where one judge or a whole panel rated everything."""
        beside = f"beside: {', '.join(self.beside)}" if self.beside else ""
        if not self.pooled:
            return f"by {', '.join(self.judges)}; {beside}" if beside else ""
        elsewhere = (
            "elsewhere each one's severity is taken off as common sessions tell it, and intervals take it for known"
            if self.linked
            else f"for want of common sessions ({LEAST_COMMON} at least) their severity cannot be told, so that there "
            "are no scores by session, means or levels"
        )
        pooled = f"{', '.join(self.judges)} are pooled, since none rated nearly all sessions: contrasts pair sessions "
        return f"{pooled}within a judge, and {elsewhere}" + (f"; {beside}" if beside else "")


def panel_of(ratings: Ratings, deciding: Sequence[str] = ()) -> Panel:
    """The panel of ``ratings``. ``deciding``: the judges of whom it is made up, where that is known (those that a run
    was rated by, not people who rated a sample of it)."""
    known = [judge for judge in deciding if judge in ratings.judges] or ratings.judges
    sessions = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in known}
    known = [judge for judge in known if sessions[judge]] or known
    everything = set().union(*sessions.values())
    judges = known
    if len(known) > 1:
        judges = [judge for judge in known if len(sessions[judge]) >= NEARLY_ALL * len(everything)]
    pooled = bool(known) and not judges
    judges = judges or known
    linked = not pooled or connected(ratings.only(np.isin(ratings.judge, judges)))
    return Panel(judges, [judge for judge in ratings.judges if judge not in judges], pooled, linked)


def left_out(ratings: Ratings, panel: Panel) -> str:
    """How many sessions count for nothing since not all of the panel rated them; empty where there are none."""
    if panel.pooled or len(panel.judges) < 2:
        return ""
    own = {judge: ratings.only(ratings.judge == judge).rated_sessions for judge in panel.judges}
    everything, whole = set().union(*own.values()), set.intersection(*own.values())
    lacking = [
        f"{judge}: {count} of {arm}"
        for judge, sessions in own.items()
        for arm, count in sorted(Counter(arm for arm, _, _ in everything - sessions).items())
    ]
    what = f"sessions left out that not all of the panel rated: {len(everything - whole)}"
    return f"{what} (no total by {', '.join(lacking)})" if lacking else ""


def by_panel(ratings: Ratings, panel: Panel) -> Ratings:
    """All that the panel's judges gave."""
    return ratings.only(np.isin(ratings.judge, panel.judges))


def panel_ratings(ratings: Ratings, panel: Panel) -> Ratings:
    """The panel's ratings; sessions that not all of it rated have no scores."""
    own = by_panel(ratings, panel)
    whole = _whole(own, panel, own.total)
    return own if whole.all() else replace(own, items=np.where(whole[:, None], own.items, np.nan))


def decided(ratings: Ratings, panel: Panel, values: np.ndarray) -> dict[Key, float]:
    """The score of each session in ``values`` (float ``[rows]``: totals, or an item): see
    :func:`cbtrain.eval.analysis.agreement.severity.session_means`. A session has none that not all of the panel
    scored."""
    rows = np.isin(ratings.judge, panel.judges)
    own, values = ratings.only(rows), values[rows]
    return session_means(own, np.where(_whole(own, panel, values), values, np.nan))


def _whole(own: Ratings, panel: Panel, values: np.ndarray) -> np.ndarray:
    """Whether each row's session has a value by every judge of the panel; with one judge, and pooled ones, it always
    counts. Bool ``[rows]``."""
    if panel.pooled or len(panel.judges) < 2:
        return np.ones(len(own), dtype=bool)
    judged = judged_means(own, values)
    return np.array([len(judged.get(session, {})) == len(panel.judges) for session in own.sessions], dtype=bool)
