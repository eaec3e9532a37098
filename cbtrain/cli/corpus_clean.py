"""``cbtrain corpus clean``: write the cleaned sessions, with tags in place of names, dates and numbers if asked."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.corpus_reading import config_of, is_new_file, whole
from cbtrain.cli.parser import Parser
from cbtrain.console import plain, table_of
from cbtrain.errors import UserError
from cbtrain.files import exists, expanded

if TYPE_CHECKING:
    from cbtrain.transcripts.pseudonyms.pseudonymise import Entry, Pseudonyms
    from cbtrain.transcripts.types import Corpus

NO_GUARANTEE = (
    "Not found are names that no list and no phrase shows, most nicknames and misspelt names, names in other languages "
    "than English, and whatever identifies a person without a name: a job, an event, a story. This is a help and no "
    "guarantee: the result is not anonymous, and a person must read it before it is passed on."
)
CLEAN = (
    "Cleaning follows corpus.cleaning, as a study does. --pseudonymise replaces names of people and places, "
    "organizations, dates, ages over 89, telephone and account numbers, addresses, e-mail and links by tags such as "
    f"[PERSON_1], the same for one patient in all sessions and the profile. {NO_GUARANTEE}"
)
SAMPLED = 200
"""Sessions whose language is looked at."""
COLUMNS = ("patient", "tag", "kind", "original", "how", "count", "context")


def add_clean(parser: Parser) -> None:
    """Add the options of ``corpus clean``."""
    text = "new .jsonl (.gz) file, or folder (profiles beside it)"
    parser.add_argument("--out", required=True, type=Path, help=text)
    parser.add_argument("--pseudonymise", action="store_true", help="replace personal data by tags (see above)")
    text = "with --pseudonymise: texts to replace, too, one a line, perhaps with a tab and a kind (PERSON, PLACE …)"
    parser.add_argument("--also", type=Path, metavar="FILE", help=text)
    text = "with --pseudonymise: texts to leave, one a line"
    parser.add_argument("--keep", type=Path, metavar="FILE", help=text)
    text = "with --pseudonymise: number patients and courses: their ids often hold names"
    parser.add_argument("--ids", action="store_true", help=text)
    text = "with --pseudonymise: where the list of what was replaced goes (default: OUT-review.csv)"
    parser.add_argument("--review", type=Path, metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")


def clean(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts import cleaning
    from cbtrain.transcripts.writing import write_sessions

    is_file = is_new_file(parsed.out)
    review = _review_path(parsed)
    policy = config_of(parsed).corpus.cleaning
    corpus, report = cleaning.clean(whole(parsed), policy)
    if not corpus.courses:
        raise UserError("nothing is left after cleaning", where=corpus.source, hint="`cbtrain corpus check` says why.")
    pseudonyms = None
    if review:
        corpus, pseudonyms = _pseudonymised(corpus, parsed)
    profiles = [course.profile for course in corpus.courses if course.profile]
    written = write_sessions(corpus.sessions(), profiles, parsed.out)
    if review and pseudonyms:
        write_review(pseudonyms.entries.values(), review)
    changes = {kind: count for kind, count in report.as_dict().items() if count["times"]}
    if parsed.json:
        content: dict[str, Any] = {"corpus": corpus.source, "out": str(parsed.out), "sessions": written}
        content |= {"profiles": 0 if is_file else len(profiles), "changes": changes}
        if pseudonyms:
            content["pseudonyms"] = pseudonyms.by_kind()
            content |= {"review": str(review), "ids_with_names": pseudonyms.ids}
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    _tell(parsed, corpus, written, {cleaning.CHANGES[kind]: count for kind, count in changes.items()})
    if is_file and profiles:
        print(f"{len(profiles)} profiles were not written: name a folder to keep them")
    if pseudonyms:
        _tell_pseudonyms(pseudonyms, review, _other_languages(corpus))


def write_review(entries: Iterable[Entry], path: Path) -> None:
    """Write what each tag stands for, undecided words last; the file is readable for its owner alone."""
    from cbtrain.eval.rating.csv_table import to_cell

    rows = sorted(entries, key=lambda entry: (not entry.tag, entry.patient, entry.kind, -entry.count))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([to_cell(str(getattr(entry, column))) for column in COLUMNS] for entry in rows)


def _review_path(parsed: argparse.Namespace) -> Path | None:
    """Return where the review goes: beside --out, never in it. None without --pseudonymise. Raises UserError."""
    given = [f"--{name}" for name in ("also", "keep", "ids", "review") if getattr(parsed, name)]
    if not parsed.pseudonymise:
        if given:
            raise UserError(f"{given[0]} is for --pseudonymise", where="command line", hint="Add --pseudonymise.")
        return None
    out = parsed.out.absolute()
    path: Path = expanded(parsed.review or out.with_name(f"{out.name}-review.csv"))
    if exists(path):
        raise UserError("already exists", where=path, hint="Name another file with --review.")
    if out in path.absolute().parents:
        problem = "the review is the key to the pseudonyms, and would be passed on with the corpus"
        raise UserError(problem, where=path, hint="Name a file outside --out.")
    if not path.absolute().parent.is_dir():
        raise UserError("no such folder", where=path.parent, hint="Make it first.")
    return path


def _pseudonymised(corpus: Corpus, parsed: argparse.Namespace) -> tuple[Corpus, Pseudonyms]:
    from cbtrain.transcripts.pseudonyms.lists import load_lists
    from cbtrain.transcripts.pseudonyms.pseudonymise import Settings, pseudonymise

    also = dict(_kind_of(line, parsed.also) for line in _lines(parsed.also))
    keep = frozenset(line.strip().lower() for line in _lines(parsed.keep))
    names = config_of(parsed).corpus.cleaning.therapist_names
    return pseudonymise(corpus, load_lists(), Settings(also, keep, names, parsed.ids))


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    from cbtrain.transcripts.source import read_text

    return [line for line in read_text(expanded(path)).splitlines() if line.strip()]


def _kind_of(line: str, path: Path) -> tuple[str, str]:
    """Return a text in lower case and its kind. Raises UserError on an unknown kind."""
    from cbtrain.transcripts.pseudonyms.shapes import KINDS

    text, _, kind = line.partition("\t")
    kind = kind.strip().upper() or "PERSON"
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}", where=path, hint=f"Known: {', '.join(KINDS)}.")
    return text.strip().lower(), kind


def _tell(parsed: argparse.Namespace, corpus: Corpus, written: int, changes: dict[str, dict[str, int]]) -> None:
    from rich.console import Console

    from cbtrain.eval.report.formatting import counted

    console = Console()
    table = table_of("cleaning", "times", "sessions", "words left out")
    for text, count in changes.items():
        table.add_row(text, *(f"{count[name]:,}" for name in ("times", "sessions", "words_left_out")))
    if changes:
        console.print(table)
    else:
        plain(console, "cleaning: nothing to fix")
    plain(console, f"{counted(written, 'session')} of {counted(len(corpus.courses), 'course')}: {parsed.out}")


def _other_languages(corpus: Corpus) -> str:
    """Return the languages other than English of the first sessions, as a message names them."""
    from cbtrain.text.language import language_name, language_of_all

    sessions = islice(corpus.sessions(), SAMPLED)
    languages = language_of_all("\n".join(turn.text for turn in session.turns) for session in sessions)
    return ", ".join(language_name(language) for language in languages if language != "en")


def _tell_pseudonyms(pseudonyms: Pseudonyms, review: Path | None, other_languages: str) -> None:
    from rich.console import Console

    from cbtrain.eval.report.formatting import counted

    console = Console()
    counts = pseudonyms.by_kind()
    undecided = counts.pop("undecided", None)
    table = table_of("replaced by tags", "tags", "times")
    for kind, count in counts.items():
        table.add_row(kind.lower(), f"{count['tags']:,}", f"{count['times']:,}")
    console.print()
    console.print(table)
    if undecided:
        plain(
            console,
            f"undecided, left as they are: {undecided['tags']:,} words, {undecided['times']:,} times. Look at them in "
            "the review, and give those that are names with --also.",
        )
    if pseudonyms.ids:
        some = ", ".join(pseudonyms.ids[:3])
        plain(console, f"warning: names in {counted(len(pseudonyms.ids), 'id')} ({some}): --ids numbers them", "yellow")
    if other_languages:
        text = f"warning: names are looked for in English, and transcripts here are in {other_languages}"
        plain(console, text, "yellow")
    plain(console, f"review: {review}, readable for you alone")
    plain(
        console,
        "warning: the review is the key to the pseudonyms. Keep it apart from the corpus, or delete it once read.",
        "yellow",
    )
    plain(console, NO_GUARANTEE, "dim")
