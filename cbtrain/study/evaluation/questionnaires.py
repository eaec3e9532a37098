"""What simulated patients answered after their sessions: taken from the journal, told, and written as a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cbtrain.eval.rating.csv_table import to_cell
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.report.schema.questionnaire import ReportAnswers
from cbtrain.eval.simulation.after_session import Answers
from cbtrain.eval.simulation.questionnaire import COLUMNS
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import write_atomic
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.run_context import RunContext

NOT_ASKED = "not asked"
"""The status of a session whose patient was not asked: nothing was said, the session failed, or the run was stopped."""


def answers_of(protocol: EvaluationProtocol, sessions: Sequence[SimulatedSession], run: RunContext) -> Answers | None:
    """Return the answers that earlier processes of ``run`` had after ``sessions``; None if nothing is asked."""
    if protocol.questionnaire is None:
        return None
    answers = Answers(protocol.questionnaire, protocol.config.evaluation.patient.max_tokens)
    answers.restore(sessions, run.events)
    return answers


def tell_missing(answers: Answers, sessions: Sequence[SimulatedSession], run: RunContext) -> None:
    """Say how many patients of sessions that did not fail have not answered, and why most of them did not."""
    held = [session for session in sessions if session.ending is not None and not session.failed]
    why = [problem for session in held if (problem := problem_of(answers, session))]
    if why:
        (cause, _), *others = Counter(why).most_common()
        more = f", and {counted(len(others), 'other reason')}" if others else ""
        run.say(f"note: {len(why)} of {counted(len(held), 'questionnaire')} are not filled in ({cause}{more})")


def status_of(answers: Answers, session: SimulatedSession) -> str:
    """Return the status of the questionnaire of ``session``."""
    filled = answers.filled.get(session.id)
    return filled.status if filled else NOT_ASKED


def problem_of(answers: Answers, session: SimulatedSession) -> str:
    """Return why the questionnaire of ``session`` is not filled in; empty if it is."""
    filled = answers.filled.get(session.id)
    if filled is not None:
        return "" if filled.status == "ok" else f"{filled.status}: {filled.problem}"
    if session.failed:
        return "the session failed"
    return "nothing was said" if not session.turns else NOT_ASKED


def answers_in_report(answers: Answers, sessions: Sequence[SimulatedSession]) -> dict[str, ReportAnswers]:
    """Return the answers after each of ``sessions``, by session; why there are none if that is so."""
    questionnaire, described = answers.questionnaire, {}
    for session in sessions:
        filled = answers.filled.get(session.id)
        given = dict(filled.answers) if filled and filled.answers else {}
        words = given.pop(questionnaire.own_words.id, "")
        described[session.id] = ReportAnswers(
            status=status_of(answers, session),
            problem=problem_of(answers, session),
            answers=given,
            means=questionnaire.means(given) if given else {},
            own_words=words,
        )
    return described


def write_questionnaires_csv(answers: Answers, sessions: Sequence[SimulatedSession], path: Path) -> None:
    """Write one row for each of ``sessions``: what it is, its status, the answers as they were given, and the means of
    the sub-scales, for which reversed items are turned round. A missing answer is an empty cell."""
    questionnaire = answers.questionnaire
    items, words = [item.id for item in questionnaire.items], questionnaire.own_words.id
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*COLUMNS, *items, words, *questionnaire.subscales])
    for session in sessions:
        filled = answers.filled.get(session.id)
        given = filled.answers if filled and filled.answers else {}
        means = questionnaire.means(given) if given else {}
        which = (session.id, session.arm, session.patient, str(session.seed), status_of(answers, session))
        numbers = [given.get(item, "") for item in items]
        means_shown = [f"{means[name]:g}" if means else "" for name in questionnaire.subscales]
        table.writerow([*map(to_cell, which), *numbers, to_cell(str(given.get(words, ""))), *means_shown])
    write_atomic(path, out.getvalue())
