"""Random legal tables of scores, for whatever takes one: few patients, ties, constants, gaps, several judges."""

import csv
import io

from hypothesis import strategies as st

ARMS = (
    ("base", "tuned", "placebo", "a", "b", "c"),
    ("Llama: tuned", "Llama: untuned", "Qwen: tuned", "Qwen: untuned", "Yi: tuned", "Yi: untuned"),
    ("Llama_Finetune_1", "Llama_Instruct_2", "Qwen_Finetune_3", "Qwen_Instruct_4", "Yi_Finetune_5", "odd"),
)
SCORES = (
    st.just(3.0),  # constant
    st.sampled_from((1.0, 2.0)),  # tied
    st.integers(0, 6).map(float),
    st.integers(0, 66_000).map(lambda value: value / 1000),
    st.sampled_from((0.1, 0.2, 0.3, 0.7)),  # sums that binary numbers round
    st.integers(-(10**12), 10**12).map(float),  # huge
    st.integers(-9, 9).map(lambda value: value * 1e-12),  # tiny
)


@st.composite
def score_tables(draw):
    """A table as text: one arm to six, one patient to six, one judge to four; cells and rows may be missing."""
    arms = draw(st.sampled_from(ARMS))[: draw(st.integers(1, 6))]
    patients, seeds = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    judges, repeats = draw(st.sampled_from((1, 1, 1, 2, 3, 4))), draw(st.sampled_from((1, 1, 2)))
    items, score = draw(st.integers(1, 3)), draw(st.sampled_from(SCORES))
    steady = draw(st.sampled_from((None, None, None, *range(len(arms)))))  # an arm that gets the same in every session
    gaps = draw(st.sampled_from((0, 0, 10, 50)))
    missing = st.integers(0, 99).map(lambda value: value < gaps)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    names = [f"item {number}" for number in range(items)]
    table.writerow(["session_id", "arm", "patient", "seed", "judge", "repeat", "status", *names, "total"])
    for place, arm in enumerate(arms):
        same = [draw(score) for _ in names] if place == steady else None
        for patient in range(patients):
            for seed in range(seeds):
                if draw(missing):
                    continue
                for judge in range(judges):
                    for repeat in range(repeats):
                        values = [
                            "" if draw(missing) else repr(value) for value in same or [draw(score) for _ in names]
                        ]
                        status = "unratable" if "" in values else "ok"
                        who = [f"{patient}/{arm}/{seed}", arm, f"p{patient}", seed, f"j{judge}", repeat, status]
                        table.writerow([*who, *values, ""])
    return out.getvalue()


@st.composite
def course_tables(draw):
    """The same with columns of sessions and patients behind the total; what is not known is empty."""
    head, *rows = csv.reader(io.StringIO(draw(score_tables())))
    numbers = draw(st.permutations((1, 2, 4, 8, 18, "")))
    simulators = draw(st.sampled_from((("", ""), ("gpt", "gpt"), ("gpt", "qwen"), ("gpt", ""))))
    levels = st.lists(st.sampled_from(("mild", "moderate", "severe", "odd", "")), min_size=6, max_size=6)
    severity, style = draw(levels), draw(levels)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*head, "session", "simulator", "severity", "style"])
    for row in rows:
        patient, seed = int(row[2][1:]), int(row[3])
        table.writerow([*row, numbers[seed], simulators[seed % 2], severity[patient], style[patient]])
    return out.getvalue()
