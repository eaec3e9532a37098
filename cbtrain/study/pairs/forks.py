"""The dialogue state that two sessions share: the turns before their therapists say something different."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from cbtrain.transcripts.types import Turn


def fork_of(first: Sequence[Turn], second: Sequence[Turn]) -> int | None:
    """Return the index of the first turn in which two sessions differ, if it is the therapist's in both: the turns
    before it are the same, word for word. None if a patient differs first, or one session is the other's beginning:
    then the two therapists were never answered by different words in the same place."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if same_words(one, other):
            continue
        return index if one.role == other.role == "therapist" else None
    return None


def same_words(one: Turn, other: Turn) -> bool:
    """Return whether two turns are the same, as far as white space at their ends does not matter."""
    return one.role == other.role and one.text.strip() == other.text.strip()


def answer_at(turns: Sequence[Turn], begin: int, most: int) -> list[Turn]:
    """Return the therapist's answer from index ``begin`` on: at most ``most`` turns of the therapist, with what the
    patient said between them. It ends with the therapist."""
    answer = list(turns[begin : begin + 2 * most - 1])
    after = len(list(takewhile(lambda turn: turn.role == "patient", reversed(answer))))
    return answer[: len(answer) - after]
