"""Digests of what a form is made of: another scale or other sessions give forms with other ids and codes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession


def rubric_digest(rubric: Rubric) -> str:
    """Return a digest of all parts of the rubric that raters read."""
    read = rubric.identity()
    for domain in read["domains"]:
        del domain["cues"]
    return digest_of(read)


def sessions_digest(sessions: Sequence[SimulatedSession], rubric: Rubric) -> str:
    """Return a digest of the sessions, in order, and the rubric."""
    read = [[session.id, session.arm, [[turn.role, turn.text] for turn in session.turns]] for session in sessions]
    return digest_of([read, rubric_digest(rubric)])


def digest_of(content: object) -> str:
    """Return a digest of plain data."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:16]
