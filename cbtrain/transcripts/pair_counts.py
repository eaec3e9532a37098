"""Count pairs of answers: how long both answers are, and which prompts are shared or lie in one another."""

from __future__ import annotations

from array import array
from hashlib import blake2b

from cbtrain.text.words import count_words
from cbtrain.transcripts.openings import SHORTEST
from cbtrain.transcripts.types import Session, Turn

PAIR_QUANTITIES = ("prompt_words", "chosen_words", "rejected_words")
PAIR_COUNTS = (
    "pairs",
    "prompts",
    "pairs_with_a_shared_prompt",
    "pairs_with_a_nested_prompt",
    "chosen_words",
    "rejected_words",
)


class PairCounts:
    """Takes pairs one by one and keeps the lengths of their parts, and a digest of each prompt."""

    def __init__(self) -> None:
        self.values = {name: array("q") for name in PAIR_QUANTITIES}
        self._pairs_of: dict[bytes, int] = {}
        """Pairs of each prompt."""
        self._inner: dict[bytes, frozenset[bytes]] = {}
        """Shorter beginnings of each prompt that may be prompts of other pairs."""

    def add(self, session: Session) -> None:
        preference = session.preference
        assert preference is not None
        parts = (session.turns[: preference.begin], session.turns[preference.begin :], preference.rejected)
        for name, turns in zip(PAIR_QUANTITIES, parts, strict=True):
            self.values[name].append(sum(count_words(turn.text) for turn in turns))
        *inner, prompt = prompt_digests(session)
        self._pairs_of[prompt] = self._pairs_of.get(prompt, 0) + 1
        self._inner.setdefault(prompt, frozenset(inner))

    def counts(self) -> dict[str, int]:
        """Return counts by name: pairs, different prompts, pairs whose prompt another pair has too, and pairs whose
        prompt continues another pair's. Nothing if there are no pairs."""
        if not self._pairs_of:
            return {}
        return {
            "pairs": sum(self._pairs_of.values()),
            "prompts": len(self._pairs_of),
            "pairs_with_a_shared_prompt": sum(count for count in self._pairs_of.values() if count > 1),
            "pairs_with_a_nested_prompt": sum(
                count
                for prompt, count in self._pairs_of.items()
                if any(inner in self._pairs_of for inner in self._inner[prompt])
            ),
            "chosen_words": sum(self.values["chosen_words"]),
            "rejected_words": sum(self.values["rejected_words"]),
        }


def prompt_digests(session: Session) -> list[bytes]:
    """Return a digest of each beginning of a pair's prompt after which the therapist speaks, the whole prompt last.
    Spaces and capitals do not count."""
    assert session.preference is not None
    digest = blake2b(digest_size=16)
    digests = []
    for turn in session.turns[: session.preference.begin]:
        digest.update(_bytes_of(turn))
        if turn.role == "patient":
            digests.append(digest.digest())
    return digests or [digest.digest()]


def beginning_digest(session: Session) -> bytes:
    """Return a digest of the turns of a pair's prompt up to the one with which the patient has said
    :data:`~cbtrain.transcripts.openings.SHORTEST` words: equal for pairs of one dialogue. A shorter prompt counts
    whole."""
    assert session.preference is not None
    digest, words = blake2b(digest_size=16), 0
    for turn in session.turns[: session.preference.begin]:
        digest.update(_bytes_of(turn))
        words += count_words(turn.text) if turn.role == "patient" else 0
        if words >= SHORTEST:
            break
    return digest.digest()


def _bytes_of(turn: Turn) -> bytes:
    return turn.role.encode() + b"\0" + " ".join(turn.text.lower().split()).encode() + b"\1"
