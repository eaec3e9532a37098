"""Sessions whose scores follow from what the therapist says, and others that have nothing to do with it."""

import numpy as np

from cbtrain.eval.rating.keying import AS_GIVEN
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.trained_rater.examples import Examples, Instrument
from cbtrain.eval.trained_rater.features import FEATURES, features_of
from cbtrain.transcripts.types import Turn

PATIENT = (
    "I have been low all week and it is hard to get up in the morning.",
    "My sister called, and I did not know what to say to her about the garden.",
    "It is always the same with the people at my work, they do not see me.",
    "I think that was good for me, but I am not sure that it will last.",
)
PLAIN = (
    "I see, and that is how it is with the people in your family.",
    "Tell me more about the garden?",
    "That is what you said about it, and I have heard you.",
)
HOMEWORK = "Let us plan the homework for the next week: what would you write down each day?"
EVIDENCE = "What is the evidence for the thought that nobody sees you?"


def session(arm, patient, seed, homework, evidence, plain=3):
    """A session with that many turns of each kind of the therapist."""
    said = [EVIDENCE] * evidence + [PLAIN[index % 3] for index in range(plain)] + [HOMEWORK] * homework
    turns = []
    for index, text in enumerate(said):
        turns += [Turn("patient", PATIENT[(index + seed) % 4]), Turn("therapist", text)]
    return SimulatedSession(f"{patient}.{arm}.{seed}", arm, patient, seed, turns)


def planted(patients=6, arms=3, each=4, seed=0):
    """Sessions and their scores on two items, 0 to 6: homework, and questions for evidence, with noise."""
    rng = np.random.default_rng(seed)
    sessions, scores = [], []
    for patient in range(patients):
        for arm in range(arms):
            for number in range(each):
                homework, evidence, plain = rng.integers(0, 4), rng.integers(0, 4), rng.integers(1, 6)
                sessions.append(session(f"a{arm}", f"p{patient}", number, homework, evidence, plain))
                given = np.array([2 * np.log1p(homework), 2 * np.log1p(evidence)]) + rng.normal(1, 0.3, 2)
                scores.append(np.clip(given, 0, 6).round(1))
    return sessions, np.array(scores)


def instrument(keying=AS_GIVEN):
    return Instrument(
        name="two", digest="", items=("homework", "evidence"), names=("Homework", "Evidence"), low=0, high=6,
        keying=keying,
    )  # fmt: skip


def examples(sessions, scores, names=tuple(FEATURES)):
    return Examples(
        features=np.array([features_of(session.turns, names) for session in sessions]),
        names=names,
        turns=np.array([len(session.turns) for session in sessions]),
        arm=np.array([session.arm for session in sessions]),
        patient=np.array([session.patient for session in sessions]),
        scores=np.asarray(scores, dtype=np.float64),
        cue=None,
        languages=("en",),
    )
