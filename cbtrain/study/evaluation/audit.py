"""Test a rater: sessions that exist already and changed copies of them, rated as ``cbtrain rate`` would rate them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.console import Console

import cbtrain
from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.eval.judge_audit.audit import SCHEMA, audit, copies, pick
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.files import write_atomic
from cbtrain.study.evaluation.failures import refuse_many_failures
from cbtrain.study.evaluation.rate import check_rating, rate_records, read_records
from cbtrain.study.run_files import AUDIT


def audit_rater(
    config: StudyConfig, folder: Path, console: Console, *, sessions: int, seed: int = 0, allow_upload: bool = False
) -> dict[str, Any]:
    """Rate at most ``sessions`` sessions of ``config.corpus`` and their changed copies, write ``folder/audit.json``,
    and return what is in it.

    Paid ratings are journalled in ``folder``: an interrupted audit continues. Raises UserError if the corpus cannot be
    read, if it would have to be sent away without ``allow_upload``, or if no original can be rated.
    """
    jury = check_rating(config, allow_upload=allow_upload)
    rubric = jury.rubric
    records_read = read_records(config, console)
    if unread := sum(bool(why_unratable(session.turns)) for session in records_read):
        say(console, f"note: {unread} of {len(records_read)} sessions cannot be rated and are not used")
    originals = pick(records_read, sessions, seed)
    changed = copies(originals)
    by_instrument, spent, run = asyncio.run(rate_records([*originals, *changed], jury, config, folder, console))
    scores = by_instrument[jury.first.instrument]
    ids = {session.id for session in originals}
    original_scores = [score for score in scores if score.session_id in ids]
    if all(score.total is None for score in original_scores):
        why = ", ".join(sorted({score.status for score in original_scores})) or "there is none"
        hint = "Take transcripts of whole sessions, or another rater."
        raise UserError(f"no session could be rated ({why})", where=config.corpus.path, hint=hint)
    audit_results: dict[str, Any] = {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "rater": jury.rater,
        "rubric": {"name": rubric.name, "minimum": rubric.minimum, "maximum": rubric.maximum},
        "corpus": config.corpus.path,
        "seed": seed,
        "sessions": len(originals),
        "patients": len({session.patient for session in originals}),
        "unrated_originals": len(ids - {score.session_id for score in original_scores if score.total is not None}),
        "interval": "95 % bootstrap, patients and then their sessions",
        "probes": audit(originals, scores, rubric, seed),
        "costs": spent,
    }
    text = json.dumps(audit_results, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / AUDIT, text + "\n")
    refuse_many_failures([], scores, run)
    return audit_results
