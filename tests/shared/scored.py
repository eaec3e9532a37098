"""Scores for tests, of a session or of an arm and a patient alone."""

from cbtrain.eval.rating.scores import Score


def score(arm, patient, domains, *, session_id=None, seed=0, judge="j", repeat=0, status="ok"):
    """Return one score; ``domains``: points by domain. Without an id, patient, arm and seed are it."""
    return Score(
        session_id=session_id or f"{patient}.{arm}.{seed}",
        arm=arm,
        patient=patient,
        seed=seed,
        judge=judge,
        repeat=repeat,
        status=status,
        domains=domains,
    )


def score_of(session, domains, judge="j", repeat=0):
    """Return a score of ``session``."""
    return score(
        session.arm, session.patient, domains, session_id=session.id, seed=session.seed, judge=judge, repeat=repeat
    )
