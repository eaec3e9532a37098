"""Whose ratings decide. Judges differ in severity, so an arm's mean must not depend on who happened to rate what.

The *panel* are the judges that rated nearly all sessions; a session counts where all of them rated it, and its score
is the mean over them. Other judges (people who rated a sample, say) stand beside: their agreement and their own
conclusions are reported and change no figure. Where no judge rated nearly all, all are *pooled*: contrasts pair within
judges, means take each one's severity off, and what that cannot give is a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key

NEARLY_ALL = 0.9
"""Share of all rated sessions that a judge of the panel has rated."""


@dataclass(frozen=True, slots=True)
class Panel:
    """``judges`` decide, the others stand ``beside``."""

    judges: list[str]
    beside: list[str]
    pooled: bool

    @property
    def note(self) -> str:
        """What a reader has to know of it; empty where one judge or a whole panel rated everything."""
        if self.pooled:
            return (
                "no judge rated nearly all sessions: contrasts pair sessions within a judge, and elsewhere each "
                "judge's severity is taken off"
            )
        return f"by {', '.join(self.judges)}; beside: {', '.join(self.beside)}" if self.beside else ""


def panel_of(ratings: Ratings, planned: Sequence[str] = ()) -> Panel:
    """The panel of ``ratings``: judges that were ``planned`` to rate everything, whatever they came to, else those that
    did."""
    sessions = {judge: _sessions(ratings.only(ratings.judge == judge)) for judge in ratings.judges}
    everything = set().union(*sessions.values()) if sessions else set()
    judges = [judge for judge in planned if judge in sessions] or [
        judge for judge, own in sessions.items() if own and len(own) >= NEARLY_ALL * len(everything)
    ]
    if not judges:
        return Panel(ratings.judges, [], pooled=len(ratings.judges) > 1)
    return Panel(judges, [judge for judge in ratings.judges if judge not in judges], pooled=False)


def panel_ratings(ratings: Ratings, panel: Panel) -> Ratings:
    """The panel's ratings; sessions that not all of it rated have no scores."""
    own = ratings.only(np.isin(ratings.judge, panel.judges))
    if panel.pooled or len(panel.judges) < 2:
        return own
    whole = set.intersection(*(_sessions(own.only(own.judge == judge)) for judge in panel.judges))
    kept = np.array([session in whole for session in own.sessions], dtype=bool)
    return replace(own, items=np.where(kept[:, None], own.items, np.nan))


def connected(ratings: Ratings) -> bool:
    """Whether sessions that several judges rated link all of them, so that severities can be told from sessions."""
    groups = [{judge} for judge in ratings.judges]
    rated = ratings.only(np.isfinite(ratings.total))
    by_session: dict[Key, set[str]] = {}
    for session, judge in zip(rated.sessions, rated.judge, strict=True):
        by_session.setdefault(session, set()).add(str(judge))
    for judges in by_session.values():
        met = [group for group in groups if group & judges]
        groups = [group for group in groups if not group & judges] + [set().union(*met)]
    return len(groups) <= 1


def _sessions(own: Ratings) -> set[Key]:
    return set(own.only(np.isfinite(own.total)).sessions)
