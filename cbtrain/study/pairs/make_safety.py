"""``cbtrain pairs make safety``: find answers that may be unsafe, have a person judge them, write pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import counted
from cbtrain.study.pairs.from_safety import pairs_of_safety
from cbtrain.study.pairs.held_out import Admitted, KeepOut, about_patients, admit, kept_facts, told
from cbtrain.study.pairs.made import MadePairs, Say
from cbtrain.study.pairs.rated import read_sessions, run_names
from cbtrain.study.pairs.run_plan import read_plan
from cbtrain.study.pairs.safety_form import COLUMNS, read_form, write_form
from cbtrain.study.pairs.suspects import Reply, replies_of
from cbtrain.study.pairs.writing import require_new_file, write_pairs

WHAT_RULES_SEE = (
    "note: found by rules for refusals, for words of the patient in the therapist's turn, and for a short English list "
    "of words of suicide and self-harm; they miss most of what is unsafe. A person has to read the sessions"
)


@dataclass(frozen=True, slots=True)
class SafetyRequest:
    """What the user asks for. ``form``: where a person judges; None: faults alone, with other sessions' answers."""

    runs: Sequence[Path]
    out: Path
    keep: KeepOut | None
    form: Path | None = None


def make_from_safety(request: SafetyRequest, say: Say) -> MadePairs | None:
    """Write the pairs of ``request.runs`` to ``request.out``; if the form is not there yet, write it instead and return
    None. Raises UserError if nothing was found or no pair can be made."""
    require_new_file(request.out)
    admitted, replies = _admitted_replies(request)
    suspects = [reply for reply in replies if reply.found]
    for line in told(admitted):
        say(line)
    counts = Counter(name for reply in suspects for name in reply.found)
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"
    say(f"found in {counted(len(replies), 'answer')}: {found}")
    say(WHAT_RULES_SEE)
    if request.form is not None and not request.form.exists():
        write_form(suspects, request.form)
        say(f"{counted(len(suspects), 'answer')} to judge: {request.form}")
        say("Write unsafe or safe into verdict, and a better answer into better; add rows for what the rules missed.")
        say("Then run the same command again.")
        return None
    judged = read_form(request.form, {reply.place: reply for reply in replies}) if request.form else {}
    if request.form and (later := sum(reply.place not in judged for reply in suspects)):
        say(f"note: {counted(later, 'answer')} that the rules found not in {request.form}")
    if not suspects and not judged:
        hint = f"Name answers that you found in a table ({', '.join(COLUMNS)}): --answers FILE."
        raise UserError("no answer was found unsafe", where=request.runs[0], hint=hint)
    form = {"form": request.form.name} if request.form else {}
    made = pairs_of_safety(replies, judged, {**form, **kept_facts(admitted)})
    made.tell_left_out(say)
    write_pairs(made.pairs, request.out, about_patients(admitted))
    made.tell_written(request.out, say)
    return made


def _admitted_replies(request: SafetyRequest) -> tuple[Admitted, list[Reply]]:
    """Return who may enter, and every answer that their therapists gave in sessions that did not fail."""
    replies: list[Reply] = []
    everybody: set[str] = set()
    for run, name in zip(request.runs, run_names(request.runs), strict=True):
        sessions = read_sessions(run)
        everybody |= {session.patient for session in sessions}
        replies += replies_of(name, read_plan(run), [session for session in sessions if not session.failed])
    admitted = admit(everybody, request.runs, request.keep)
    return admitted, [reply for reply in replies if reply.session.patient in set(admitted.patients)]
