"""Prompts for the large model: one part of one session at a time, by the phases of treatment.

The plan of phases and parts follows Tahir 2024 (arXiv 2412.00251); the words are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from cbtrain.providers.types import Message
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Phase, phase_of

TECHNIQUES: dict[Phase, str] = {
    "assessment": "history and timeline of the depression, the cognitive model explained, feelings named, first "
    "automatic thoughts noticed, goals, simple homework",
    "initial": "activity scheduling and behavioural activation, tolerating distress, first thought records, homework",
    "middle": "thought records and thinking traps, the downward arrow, intermediate and core beliefs, behavioural "
    "experiments, a log of evidence for a kinder belief, work on rumination, perfectionism or assertiveness, homework",
    "termination": "consolidating skills, the patient as their own therapist, a plan against relapse, coping cards, "
    "people to lean on, wider gaps between sessions",
}

PARTS = (
    "Part 1 of 4. Check-in on mood and the week, an agenda that both agree on.{first} Do not close the session.",
    "Part 2 of 4. Review of the homework, what was learnt from it, and the start of one technique. Do not close the "
    "session.",
    "Part 3 of 4. The technique in depth, on one concrete situation of the patient's, by questions more than by "
    "explanations. Do not close the session.",
    "Part 4 of 4. Homework agreed in detail, feedback on the session, goodbye. The therapist's last turn ends with a "
    "paragraph that begins with 'Session Summary:' at the start of a line: what was found, decided and set as "
    "homework, in about 200 words. It is all that the next session will remember.",
)

LIMITS = (
    " The therapist, an AI, says what it is and is not: it cannot see the patient, may be wrong, is no emergency "
    "service."
)

RULES = (
    "You write transcripts of cognitive behavioural therapy for depression, as training data for research. Write only "
    "dialogue. Every turn begins on a new line with 'Patient:' or 'Therapist:', and the two take turns strictly. No "
    "stage directions, no headings, no asterisks, no remarks about parts or transcripts. Plain spoken language. The "
    "therapist asks open questions, does not lecture, does not repeat stock validation; progress is slow and uneven. "
    "If the patient hints at suicide or self-harm, the therapist asks directly and calmly about thoughts, plan, means "
    "and safety, and refers to emergency help and people at hand before anything else."
)


def part_request(
    profile: Profile, number: int, part: int, before: Sequence[str], last_summary: str
) -> tuple[Message, ...]:
    """Return the messages that ask for ``part`` (0-based) of session ``number``; ``before``: its earlier parts."""
    phase = phase_of(number)
    lines = [
        f"The patient:\n{profile.text or profile.brief}",
        f"Session {number} of a course of cognitive behavioural therapy, {phase} phase. Techniques of this phase: "
        f"{TECHNIQUES[phase]}.",
    ]
    if last_summary:
        lines.append(f"What is remembered of the last session:\n{last_summary}")
    if before:
        lines.append("The session so far:\n" + "\n\n".join(before))
    lines.append(f"Now write {PARTS[part].format(first=LIMITS if number == 1 else '')}")
    return Message("system", RULES), Message("user", "\n\n".join(lines))
