"""A table of ratings from its columns, for tests to which no status matters."""

import numpy as np

from cbtrain.eval.analysis.ratings import Ratings


def rating_table(item_names, arms, arm, patient, session, judge, repeat, items, scale=None, **course) -> Ratings:
    """``course``: number, simulator and moderators, if a test has them."""
    status = np.where(np.isfinite(items).all(axis=1), "ok", "unratable")
    return Ratings(
        item_names=item_names,
        arms=arms,
        arm=arm,
        patient=patient,
        session=session,
        number=course.get("number", np.zeros(len(arm), dtype=np.int64)),
        simulator=course.get("simulator", np.full(len(arm), "")),
        moderators=course.get("moderators", {}),
        judge=judge,
        repeat=repeat,
        status=status,
        items=items,
        scale=scale,
    )
