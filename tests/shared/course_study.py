"""Made-up ratings of a study with phases, simulators and columns of patients, and known effects."""

from itertools import product

import numpy as np
from rating_table import rating_table

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.ratings import Ratings, Scale
from cbtrain.eval.simulation.slots import slot_of
from cbtrain.patients.case import COLUMNS

PAIR = [Arm("llama-instruct", "llama", "instruct"), Arm("llama-tuned", "llama", "tuned")]
NUMBERS = (1, 4, 8, 18)


def course_ratings(
    arms=PAIR, patients=12, numbers=NUMBERS, simulators=("gpt", "qwen"), judges=1, gain=None, noise=2.0, seed=0
) -> Ratings:
    """A row for each arm, patient, number, simulator and judge, of two items. ``gain(moderators, number, simulator)``:
    what tuning adds to the total (default: 5 points); ``moderators``: of the patient, by column."""
    random = np.random.default_rng(seed)
    names = [f"p{place:02}" for place in range(patients)]
    columns = {
        name: {patient: COLUMNS[name][place // every % 3] for place, patient in enumerate(names)}
        for name, every in (("severity", 1), ("engagement", 3))
    }
    level = dict(zip(names, random.normal(30, 4, patients), strict=True))
    rows = list(product([arm.name for arm in arms], names, numbers, simulators, range(judges)))
    tuned = {arm.name for arm in arms if arm.variant == "tuned"}
    totals = []
    for arm, patient, number, simulator, judge in rows:
        own = {name: values[patient] for name, values in columns.items()}
        added = (5.0 if gain is None else gain(own, number, simulator)) if arm in tuned else 0.0
        totals.append(level[patient] + added + 1.5 * judge + random.normal(0, noise))
    arm, patient, number, simulator, judge = (np.array(column) for column in zip(*rows, strict=True))
    first = np.array(totals) / 3
    return rating_table(
        ("agenda", "homework"),
        {arm.name: arm for arm in arms},
        arm,
        patient,
        np.array([slot_of(0, number, simulator) for _, _, number, simulator, _ in rows]),
        np.char.add("judge ", judge.astype(str)),
        np.zeros(len(rows), dtype=np.int64),
        np.column_stack([first, np.array(totals) - first]),
        Scale(-100, 100, 40),
        number=number,
        simulator=simulator,
        moderators=columns,
    )
