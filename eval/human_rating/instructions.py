"""What raters are told, on the page and in the text."""

from __future__ import annotations

from cbtrain.eval.human_rating.form import Form
from cbtrain.eval.rating.rubric import Rubric

CONTENT_NOTICE = (
    "What you read is transcripts of simulated or recorded sessions. They may touch on distressing subjects such as "
    "self-harm, loss or violence. You may stop at any time, and leave out a session."
)


def instructions(form: Form) -> list[str]:
    """Return the instructions for raters, one paragraph each."""
    told = [
        "Read a session whole before you rate it. Rate the therapist, on what was said, not on how long or polished "
        "it is, and each domain by its own anchors, not by your impression of the whole.",
        _points(form.rubric),
    ]
    if any(domain.reversed for domain in form.rubric.domains):
        told.append(
            "Rate every domain as it is written, also one in which more is worse: it is turned round later, when "
            "totals are computed."
        )
    if form.training:
        count = len(form.training)
        which = "The first session is" if count == 1 else f"The first {count} sessions are"
        told.append(
            f"{which} for training. When you have rated one, compare with the scores that were agreed on before, read "
            "the reasons, and go on. What you say in the training is kept apart and does not count as a result."
        )
    if form.settles:
        told.append(
            "On these sessions earlier raters differed by much in some domains. Rate only the domains that are shown, "
            "from the transcript; your score settles them. A group that rates together agrees on one score each."
        )
        return told
    told.append(
        "Sessions come in a random order, and you are not told who or what the therapist was. Please do not try to "
        "find out, and do not talk about sessions with other raters before all of you are done."
    )
    return told


def _points(rubric: Rubric) -> str:
    anchored = [len(domain.anchors) for domain in rubric.domains]
    if all(count == len(rubric.points) for count in anchored):
        choose = f"Choose the anchor that fits best, from {rubric.scale_words}."
    elif any(anchored):
        choose = (
            f"Choose the point that fits best, from {rubric.scale_words}. A point without a description lies between "
            "the described ones beside it: take it where neither fits better."
        )
    else:
        choose = f"Choose the point that fits best, from {rubric.scale_words}."
    return f"{choose} Where a domain cannot be rated from this session, say so: that is not the lowest score."
