"""A study's transcripts: read, counted, cleaned, split by patient."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.tokens.dialogue import own_prompt
from cbtrain.tokens.system_prompts import OwnPrompts
from cbtrain.transcripts.cleaning import CHANGES, clean, fingerprint_of
from cbtrain.transcripts.labels import NAME_THE_LABELS, labels_seen
from cbtrain.transcripts.openings import NAME_PATIENTS
from cbtrain.transcripts.pair_counts import PAIR_COUNTS
from cbtrain.transcripts.parts import read_parts
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.split import SIDES, Split, split
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.types import Corpus


@dataclass(frozen=True, slots=True)
class StudyCorpus:
    """The cleaned corpus, split by patient, and a summary of it (JSON) for the report."""

    split: Split
    summary: dict[str, Any]

    def profiles(self) -> dict[str, Profile | None]:
        courses = (*self.split.train, *self.split.validation, *self.split.test)
        return {course.id: course.profile for course in courses}

    def names(self) -> dict[str, str]:
        """Return the name of each course's patient."""
        return {course: profile.name if profile else course for course, profile in self.profiles().items()}


def load_corpus(config: StudyConfig, console: Console, *, all_treated: bool = False) -> StudyCorpus:
    """Read, count, clean and split the corpus; with ``all_treated``, nobody of it is trained on: all are the test part,
    or those of ``corpus.test`` if that is set. Raises UserError if one of these fails."""
    settings = config.corpus
    with console.status("Reading the corpus"):
        corpus, part_lines = read_parts(settings)
        counts = stats(corpus)
        cleaned, cleaning = clean(corpus, settings.cleaning)
    if not cleaned.courses:
        texts = [text for session in corpus.sessions() for text in (session.preamble, *(t.text for t in session.turns))]
        seen = labels_seen(*texts)
        unread = f"Labels in the texts that were not read: {seen}; " if seen else ""
        hint = f"{unread}{NAME_THE_LABELS}, or see `cbtrain corpus check`."
        raise UserError("no session in which both patient and therapist speak", where=settings.path, hint=hint)
    parts = _treated(cleaned) if all_treated else split(cleaned, config.split)
    summary = {
        "path": corpus.source,
        "format": corpus.format,
        **{key: counts[key] for key in ("courses", "sessions", "therapist_turns", "words")},
        "skipped": list(corpus.skipped),
        "left_out": list(corpus.notes),
        "cleaning": {CHANGES[kind]: count for kind, count in cleaning.as_dict().items()},
        "fingerprint": _fingerprint(cleaned, own_prompts=config.tokens.system == "data"),
        "split": parts.ids(),
        "together": list(parts.together),
        "leaks": list(parts.leaks),
        "alike": list(parts.alike),
        "namesakes": _namesakes(parts),
    }
    if "pairs" in counts:
        summary["pairs"] = {key: counts[key] for key in PAIR_COUNTS}
        say(
            console,
            f"{counts['pairs']} pairs of answers to {counts['prompts']} prompts, {counts['patients']} patients; "
            f"{counts['chosen_words']:,} words chosen, {counts['rejected_words']:,} rejected",
        )
    else:
        say(console, f"{counts['courses']} courses, {counts['sessions']} sessions, {counts['words']:,} words")
    for line in part_lines:
        say(console, line)
    if corpus.skipped:
        say(console, f"left out because malformed: {len(corpus.skipped)}, the first: {corpus.skipped[0]}")
    if notice := OwnPrompts(corpus.sessions()).notice(config.tokens):
        say(console, f"note: {notice}")
    for note in corpus.notes:
        say(console, f"note: left out: {note}")
    changed = [f"{count['times']} {CHANGES[kind]}" for kind, count in cleaning.as_dict().items() if count["times"]]
    say(console, f"cleaning: {'; '.join(changed) or 'nothing to fix'}")
    if parts.leaks:
        what = "patients or near-duplicate sessions stand on two sides"
        say(console, f"Warning: {len(parts.leaks)} {what}, which flatters every measurement, e.g. {parts.leaks[0]}")
    if parts.alike:
        count = f"{len(parts.alike)} sessions open" if len(parts.alike) > 1 else "1 session opens"
        many = f"{count} like one on another side, e.g. {parts.alike[0]}"
        say(console, f"note: {many}. If they are one patient's: {NAME_PATIENTS}")
    return StudyCorpus(parts, summary)


def _treated(corpus: Corpus) -> Split:
    own = tuple(course for course in corpus.courses if corpus.sides.get(course.id) == "test")
    return Split((), (), own or corpus.courses)


def _namesakes(parts: Split) -> list[str]:
    """Return patients of different sides who share a name: the same person twice, or chance; a reader must judge."""
    sides_by_name: dict[str, dict[str, list[str]]] = {}
    for side in SIDES:
        for course in getattr(parts, side):
            if course.profile and course.profile.name != course.id:
                sides_by_name.setdefault(course.profile.name, {}).setdefault(side, []).append(course.id)
    return [
        f"{name}: " + ", ".join(f"{', '.join(ids)} in {side}" for side, ids in sides.items())
        for name, sides in sorted(sides_by_name.items())
        if len(sides) > 1
    ]


def _fingerprint(corpus: Corpus, *, own_prompts: bool) -> str:
    """Return a hash of everything that training and evaluation use of the cleaned corpus, with the sessions'
    ``own_prompts`` or without."""
    digest = blake2b(digest_size=16)
    for course in corpus.courses:
        digest.update((course.profile.model_dump_json() if course.profile else course.id).encode())
        for session in course.sessions:
            digest.update(session.id.encode() + fingerprint_of(session))
            if own_prompts and (prompt := own_prompt(session)):
                digest.update(b"\0system" + prompt.encode())
            weights = [turn.weight for turn in session.turns]
            if any(weight != 1 for weight in weights):
                digest.update(repr(weights).encode())
            if session.preference is not None and session.preference.weight != 1:
                digest.update(b"\0pair" + repr(session.preference.weight).encode())
    return digest.hexdigest()
