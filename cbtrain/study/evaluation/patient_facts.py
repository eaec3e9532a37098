"""Ask a judge which facts of the patients' cases their dialogues show. Answers are kept, so a second try pays once."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.patient_audit.facts import SessionFacts, read_session, summarized
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.patients.case import Case
from cbtrain.patients.reading import read_cases
from cbtrain.providers.providers import check
from cbtrain.providers.summary import costs
from cbtrain.study.consent import require_consent, stays_here
from cbtrain.study.evaluation.run_context import open_run
from cbtrain.study.run_files import PATIENTS
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import FAILED, Session

NO_CASES = f"The folder has no {PATIENTS} with the patients' cases, so no fact can be compared."


@dataclass(frozen=True, slots=True)
class FactsJudge:
    """The judge of ``config`` reads at most ``sessions`` dialogues; ``allow_upload``: they may leave this machine."""

    config: StudyConfig
    sessions: int = 20
    allow_upload: bool = False


async def facts_of(path: Path, folder: Path, judge: FactsJudge, console: Console, seed: int) -> dict[str, Any]:
    """Return what the judge reads in dialogues of the run at ``path``; why not, if the run does not name its patients'
    cases. What is paid is journalled in ``folder``. Raises UserError on damaged cases; :func:`check_facts` comes first.
    """
    cases, judging = cases_of_run(path), judge.config.evaluation.judging
    if not cases:
        return {"why_not": NO_CASES}
    chosen = pick([s for s in read(path, skip_bad=True).sessions() if _patient(s) in cases], judge.sessions, seed)
    if not chosen:
        return {"why_not": f"No session is of a patient that {PATIENTS} names, so no fact can be compared."}
    async with open_run(judge.config, folder, console) as run:
        provider, read_so_far = await run.providers.open(judging.provider, "judge"), 0

        async def one(session: Session) -> SessionFacts:
            nonlocal read_so_far
            case, name = cases[_patient(session)], session.facts.get("id", session.id)
            limits = (judging.judge.max_tokens, judging.judge.max_reasks)
            found = await read_session(provider.chat, name, session.turns, case, *limits)
            read_so_far += 1
            return found

        done = await run.stop.together(map(one, chosen), lambda: f"{read_so_far} of {len(chosen)} dialogues read")
        spent = costs(run.providers)
    return {"judge": judging.provider.model, **summarized(done, seed), "costs": spent}


def check_facts(path: Path, judge: FactsJudge) -> None:
    """Raise UserError on damaged cases; and if there are cases, on a judge without a key, and on dialogues that would
    be sent away without leave."""
    if not cases_of_run(path):
        return
    config, provider = judge.config, judge.config.evaluation.judging.provider
    check(config.providers, [("judge", provider)])
    allowed = judge.allow_upload or stays_here(config.providers)
    require_consent(str(path), "its dialogues and what is known of the patients", provider.base_url, allowed)


def cases_of_run(path: Path) -> dict[str, Case]:
    """Return the cases of the run at ``path`` (a folder, or a file in it) by id; none if it names none. Raises
    UserError on a damaged one."""
    file = (path if path.is_dir() else path.parent) / PATIENTS
    return {case.id: case for case in read_cases(file)} if file.is_file() else {}


def pick(sessions: list[Session], count: int, seed: int) -> list[Session]:
    """Return at most ``count`` sessions that did not fail and in which both speak, of as many patients as possible:
    they are drawn in rounds of one per patient."""
    rng = Random(seed)
    by_patient: dict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        if session.facts.get("ending") not in FAILED and not why_unratable(session.turns):
            by_patient[_patient(session)].append(session)
    drawn = [rng.sample(of_patient, len(of_patient)) for _, of_patient in sorted(by_patient.items())]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*drawn))
    return [session for session in rounds if session is not None][:count]


def _patient(session: Session) -> str:
    return session.patient or session.course
