"""Figures of the patients' audit: each measure by patient and set, and agreement by the number of the answer."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cbtrain.eval.report.arm_looks import HUES, SHAPES, TONES, ArmLook
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    DASHES,
    INK,
    WIDTH,
    arm_colour,
    arm_mark,
    drawing,
    label,
    scatter_heights,
    short_labels,
)
from cbtrain.eval.report.formatting import fixed, whole
from cbtrain.eval.report.schema.patients import PatientSet, ReportPatients

NAMES = {
    "turns": "turns",
    "words_per_turn": "words in a turn",
    "words_sd": "words, SD",
    "questions": "questions",
    "diversity": "diversity",
    "echo": "echo",
    "agreement": "agreement",
    "hedges": "hedges",
    "first_person": "first person",
    "drift": "drift",
}
ROW, HEAD, FOOT = 0.26, 0.3, 0.34  # inches of a panel
LETTERS = 22


def measures_figure(audit: ReportPatients) -> Drawn | None:
    """Draw each patient's value of each measure, a panel a measure and a row a set; a bar at the mean."""
    panels = [name for name in NAMES if any(_values(one, name) for one in audit.sets)]
    if not panels:
        return None
    labels = short_labels([one.name for one in audit.sets], LETTERS)
    with drawing():
        depth = HEAD + FOOT + ROW * len(audit.sets)
        figure = Figure(figsize=(WIDTH, depth * len(panels)), layout="constrained")
        for axes, name in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
            axes.set_title(NAMES[name], loc="left", fontsize="medium", color=INK)
            for row, one in enumerate(audit.sets):
                values, look = _values(one, name), look_of(row)
                offsets = [row + 0.5 * height for height in scatter_heights(len(values))]
                axes.plot(values, offsets, **arm_mark(look) | {"ms": 4, "alpha": 0.7})
                if values:
                    mean = sum(values) / len(values)
                    axes.plot([mean, mean], [row - 0.4, row + 0.4], color=INK, lw=1.8)
            axes.set_ylim(len(audit.sets) - 0.4, -0.6)
            axes.set_yticks(range(len(audit.sets)), labels)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
            axes.xaxis.set_major_locator(MaxNLocator(3))
    alts = [
        f"{NAMES[name]}: " + ", ".join(f"{one.name} {fixed(one.measures[name].mean)}" for one in audit.sets)
        for name in panels
    ]
    return Drawn("patients-measures", figure, "Means over patients. " + "; ".join(alts) + ".")


def agreement_figure(audit: ReportPatients) -> Drawn | None:
    """Draw the share of answers that open with agreement by the number of the answer, a line for each set and arm."""
    lines = [
        (" · ".join(filter(None, (one.name, curve.arm))), [float(v) for v in curve.agreement if v is not None], curve)
        for one in audit.sets
        for curve in one.agreement
    ]
    lines = [(name, values, curve) for name, values, curve in lines if values]
    if not lines:
        return None
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.4 + 0.22 * len(lines)), layout="constrained")
        axes = figure.subplots()
        for index, (name, values, _) in enumerate(lines):
            look = look_of(index)
            text = label(name, 40, 1)
            answers, dashes = range(1, len(values) + 1), DASHES[-1 - index % len(DASHES)]
            axes.plot(answers, values, color=arm_colour(look), ls=dashes, lw=1.6, label=text)
        axes.set_xlabel("answer of the patient")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
        figure.legend(loc="outside lower left", handlelength=2.6)
    alts = [f"{name}: from {fixed(values[0])} to {fixed(values[-1])}" for name, values, _ in lines]
    lives = [f"{name} {whole(curve.half_life)}" for name, _, curve in lines if curve.half_life is not None]
    more = f" Half-life of reserve in answers: {', '.join(lives)}." if lives else ""
    return Drawn("patients-agreement", figure, "Share of answers that agree. " + "; ".join(alts) + "." + more)


def look_of(index: int) -> ArmLook:
    """Return the look of the set or line number ``index``, from 0."""
    return ArmLook(index % HUES, index % SHAPES, TONES - 1 - (index // HUES) % TONES)


def _values(one: PatientSet, name: str) -> list[float]:
    measure = one.measures.get(name)
    return [float(value) for value in measure.values if value is not None] if measure else []
