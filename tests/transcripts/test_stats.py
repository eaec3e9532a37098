import statistics

import numpy as np
import pytest

from cbtrain.transcripts.stats import gather
from cbtrain.transcripts.types import PHASES, Session, Turn


def sessions():
    draw = np.random.default_rng(0)
    for number in range(1, 21):
        words = draw.integers(1, 30, draw.integers(1, 9))
        turns = (Turn(("patient", "therapist")[i % 2], "word " * n) for i, n in enumerate(words.tolist()))
        yield Session("c", number, tuple(turns))


def test_distributions_by_phase():
    gathered = gather(sessions(), lambda text: 2 * len(text.split()))
    found = gathered.distributions()
    assert list(found) == ["turns", "words", "tokens"]
    words = [s.words for s in sessions()]
    whole = found["words"]["all"]
    assert (whole.sessions, whole.minimum, whole.maximum, whole.total) == (20, min(words), max(words), sum(words))
    assert whole.mean == pytest.approx(statistics.mean(words))
    assert whole.sd == pytest.approx(statistics.stdev(words))
    assert whole.median == pytest.approx(statistics.median(words))
    assert {phase: d.sessions for phase, d in found["turns"].items()} == {
        "all": 20,
        "assessment": 3,
        "initial": 4,
        "middle": 10,
        "termination": 3,
    }
    assert sum(found["words"][phase].total for phase in PHASES) == whole.total
    assert found["tokens"]["all"].total == 2 * whole.total


def test_counts():
    counts = gather(sessions()).counts()
    assert counts["turns"] == counts["therapist_turns"] + counts["patient_turns"]
    assert (counts["courses"], counts["sessions"], counts["sessions_with_repeated_speaker"]) == (1, 20, 0)
    repeated = Session("d", 1, (Turn("patient", "a"), Turn("patient", "b")), source_words=9)
    counts = gather([repeated, Session("d", 2, ())]).counts()
    assert (counts["sessions_with_repeated_speaker"], counts["sessions_without_turns"], counts["words"]) == (1, 1, 9)
