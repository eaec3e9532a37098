"""Tables of scores: one for each instrument, with the instrument beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cbtrain.eval.rating.rubric_files import write_rubric
from cbtrain.eval.rating.scores import Score, write_scores_csv
from cbtrain.study.evaluation.judges import Jury
from cbtrain.study.run_files import SCORES, of_instrument, rubric_beside


def table_name(jury: Jury, instrument: str) -> str:
    """Return the file with the scores by ``instrument``: ``scores.csv`` for the primary one."""
    return SCORES if instrument == jury.first.instrument else of_instrument(SCORES, instrument)


def write_tables(jury: Jury, by_instrument: Mapping[str, Sequence[Score]], folder: Path) -> None:
    """Write the scores by each instrument, and the instrument beside them."""
    for instrument, scores in by_instrument.items():
        name = table_name(jury, instrument)
        write_scores_csv(scores, folder / name)
        write_rubric(jury.instruments[instrument][0].rubric, rubric_beside(folder / name))
