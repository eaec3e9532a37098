"""``cbtrain pairs make evaluation``: read runs, keep held-out patients away, write pairs, say what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cbtrain.eval.report.formatting import counted
from cbtrain.study.pairs.from_evaluation import Wanted, margin_of, pairs_of_evaluation
from cbtrain.study.pairs.held_out import KeepOut, about_patients, admit, kept_facts, told
from cbtrain.study.pairs.made import MadePairs, Say
from cbtrain.study.pairs.rated import read_rated
from cbtrain.study.pairs.writing import SYSTEM, require_new_file, write_pairs

CREDIT = (
    "note: each score is of a whole session and is credited to the one answer in which two sessions part; that this "
    "answer is why is a guess"
)


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What the user asks for. ``margin`` None: a tenth of the instrument's range; ``keep`` None: not said."""

    runs: Sequence[Path]
    out: Path
    wanted: Wanted
    keep: KeepOut | None
    margin: float | None = None
    judge: str | None = None
    people: bool = False


def make_from_evaluation(request: EvaluationRequest, say: Say) -> MadePairs:
    """Write the pairs of scored runs to ``request.out``; ``say`` is told who entered and what was left out. Raises
    UserError if no pair can be made, and before anything is written."""
    require_new_file(request.out)
    rated = read_rated(request.runs, judge=request.judge, people=request.people)
    margin = margin_of(request.margin, rated)
    admitted = admit((one.session.patient for one in rated.sessions), request.runs, request.keep)
    wanted = replace(request.wanted, margin=margin)
    facts = {
        "instrument": rated.instrument,
        "judges": ", ".join(rated.judges),
        "least_margin": f"{margin:g}",
        "by": wanted.by,
        **kept_facts(admitted),
    }
    made = pairs_of_evaluation(rated, admitted.patients, wanted, facts)
    given = "" if request.margin is not None else " (a tenth of the range)"
    say(f"{counted(len(rated.sessions), 'session')}, rated by {', '.join(rated.judges)} with {rated.instrument}")
    say(f"pairs by {wanted.by}, at least {margin:g} points of the total apart{given}")
    for line in [*(f"note: {note}" for note in rated.notes), *told(admitted)]:
        say(line)
    made.tell_left_out(say)
    write_pairs(made.pairs, request.out, about_patients(admitted))
    made.tell_written(request.out, say)
    say(CREDIT)
    if told_so := sum(SYSTEM in pair.facts for pair in made.pairs):
        say(f"note: {counted(told_so, 'pair')} with a system prompt of their own: train with tokens.system=data")
    return made
