"""``cbtrain corpus …``: describe, check, clean, split and convert a corpus, and write its data card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbtrain.cli.corpus_check import check
from cbtrain.cli.corpus_clean import CLEAN, add_clean, clean
from cbtrain.cli.corpus_guess import guess
from cbtrain.cli.corpus_preview import preview
from cbtrain.cli.corpus_reading import (
    add_reading,
    config_of,
    is_new_file,
    new,
    on_bad_of,
    reading,
    source_of,
    tell_skipped,
    whole,
)
from cbtrain.cli.corpus_tokens import tokens
from cbtrain.cli.parser import ALIASES, Commands, Parser, add_command, add_optional_word, add_settings
from cbtrain.console import table_of
from cbtrain.errors import UserError

EXAMPLES = {
    "check": "corpus.cleaning.remove_residue=false",
    "preview": "model.path=DIR tokens.format=plain",
    "tokens": "model.path=DIR therapist.pack_tokens=4096",
    "split": "split.seed=3 split.test=0.2",
}
"""Settings in the help of a command."""


def add(commands: Commands) -> None:
    """Add ``corpus`` and its sub-commands."""
    text = "describe, check, clean, preview, split and convert transcripts"
    corpus = commands.add_parser(
        "corpus",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. PATH is a file or folder in any known layout (the 2024 study's "
        "repository or simulations, the 2025 study's dialogues, our JSONL, OpenAI messages, ShareGPT, tables, labelled "
        "text, Word documents, subtitles), or "
        "'sample'. Nothing is ever sent anywhere.",
    )
    corpus.summary = text
    corpora = corpus.add_commands(dest="corpus_command", required=True, metavar="COMMAND")

    stats = _add(corpora, "stats", _stats, "count courses, sessions, turns and words as labelled in the files")
    stats.add_alias(
        "--tokenizer",
        "model.path",
        metavar="DIR",
        help="count tokens too, with this tokenizer: a model folder or hub id",
    )
    stats.add_argument("--json", action="store_true", help="print JSON")

    _add(
        corpora,
        "guess",
        guess,
        "print a map for files of another layout, with what is not sure about it",
        "The output is a file for --map: correct it where it is not sure. Who the therapist is, you decide.",
    )

    checks = _add(
        corpora,
        "check",
        check,
        "find irregularities: counts by kind, with examples and their places",
        "Exit status 0: no error (there may be warnings); 1: an error; 2: the corpus cannot be read at all.",
    )
    checks.add_argument("--json", action="store_true", help="print JSON")
    checks.add_argument("--kind", action="append", default=[], help="show this kind only (repeatable)")
    checks.add_argument("--examples", type=int, default=3, metavar="N", help="examples of each kind (default: 3)")
    checks.add_argument("--all", action="store_true", help="list every finding, one a line")
    checks.add_argument(
        "--explain", metavar="SESSION", help="show one session (COURSE/NUMBER) before and after cleaning"
    )
    checks.add_argument("--full", action="store_true", help="with --explain: show whole turns, also unchanged ones")

    shown = _add(corpora, "preview", preview, "show in colour from which tokens of a session a model learns")
    text = "model folder or hub id: its tokenizer and chat template are used"
    shown.add_alias("--model", "model.path", help=text)
    shown.add_alias("--corpus", "corpus.path", metavar="PATH", help="the same as PATH")
    shown.add_argument("--session", metavar="ID", help="COURSE/NUMBER (default: the first one)")
    shown.add_argument("--speaker", choices=["therapist", "patient"], default="therapist", help="whom the model plays")
    shown.add_argument(
        "--supervise",
        choices=["therapist", "patient", "both", "everything"],
        help="role whose words the model learns (default: the --speaker)",
    )
    shown.add_argument("--json", action="store_true", help="print every token: id, text, supervised, weight")
    shown.add_argument("--lines", type=int, help="show the first lines only")
    shown.add_argument("--svg", type=Path, metavar="FILE", help="also save the output as a picture")

    counted = _add(corpora, "tokens", tokens, "count the tokens of an epoch, and show how full packs are")
    counted.add_alias("--model", "model.path", help=text)
    counted.add_argument(
        "--speaker", choices=["therapist", "patient"], default="therapist", help="whom the model plays"
    )
    counted.add_argument("--ranks", type=int, default=1, help="ranks that share each step (default: 1)")
    counted.add_argument("--json", action="store_true", help="print JSON")

    split = _add(corpora, "split", _split, "divide the patients into train, validation and test")
    split.add_argument("--out", type=Path, help="new folder for the three parts and split.json (default: print only)")
    split.add_argument("--json", action="store_true", help="print JSON")
    text = "balance this characteristic, e.g. severity (repeatable)"
    split.add_alias("--stratify", "split.stratify", action="extend", type=_words, metavar="NAME", help=text)
    split.add_alias("--seed", "split.seed", type=int, help="another seed gives another division")
    text = "share of the patients (default: 0.1; 0: none)"
    split.add_alias("--validation", "split.validation", type=float, metavar="SHARE", help=text)
    text = "share of the patients (default: 0.25; 0: none)"
    split.add_alias("--test", "split.test", type=float, metavar="SHARE", help=text)
    for side in ("validation", "test"):
        text = f"a file or folder that is the {side} part"
        split.add_alias(f"--{side}-file", f"corpus.{side}", metavar="PATH", help=text)
    text = "an earlier split, whose patients keep their part"
    split.add_alias("--keep", "split.keep", metavar="SPLIT.JSON", help=text)

    convert = _add(corpora, "convert", _convert, "write the sessions in another layout")
    convert.add_argument("--to", required=True, choices=["cbtrain", "messages", "sharegpt"])
    convert.add_argument(
        "--out", required=True, type=Path, help="new .jsonl (.gz) file, or folder (profiles beside it)"
    )
    convert.add_argument("--clean", action="store_true", help="clean first, by the policy of --config")

    text = "clean, and write the sessions in cbtrain's own layout, with tags for names on request"
    add_clean(_add(corpora, "clean", clean, text, CLEAN))

    card = _add(corpora, "card", _card, "write a data card: counts, distributions, plots, irregularities, licence")
    card.add_argument("--out", required=True, type=Path, help="new folder for README.md and its plots")
    card.add_argument("--license", help="name of the licence (default: that of the LICENSE file beside the corpus)")
    text = "language code of the transcripts (default: found from the text)"
    card.add_alias("--language", "corpus.language", metavar="CODE", help=text)

    add_command(corpora, "schema", _schema, "print the JSON schema of a session, of a pair of answers and of a profile")


def _add(
    corpora: Commands,
    name: str,
    function: Callable[[argparse.Namespace], int | None],
    text: str,
    more: str = "",
) -> Parser:
    """Return the parser of a command on PATH, which takes settings."""
    example = EXAMPLES.get(name, "corpus.skip_bad=true")
    more = f"{more} E.g. `cbtrain corpus {name} PATH {example}`. {ALIASES}"
    parser = add_command(corpora, name, function, text, more.strip())
    add_optional_word(parser, "path", "file or folder; 'sample' (default) is the embedded corpus", "corpus.path")
    parser.add_argument("--config", help="study config: its corpus, cleaning, split and tokens are used")
    add_settings(parser, example=example)
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)  # as settings once were given
    add_reading(
        parser,
        "author, simulations, dialogues, cbtrain, pairs, messages, sharegpt, records, table or text",
    )
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _stats(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts.stats import gather

    model = config_of(parsed).model.path
    count_tokens = _token_counter(model) if model else None
    source = source_of(parsed)
    with reading(source, parsed) as sessions:
        statistics = gather(sessions, count_tokens)
    counts, distributions = statistics.counts(), statistics.distributions()
    if parsed.json:
        shown = {quantity: {k: asdict(v) for k, v in groups.items()} for quantity, groups in distributions.items()}
        print(json.dumps({**counts, "distributions": shown}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(f"{source.name} ({source.format}), as labelled, before cleaning", highlight=False, markup=False)
    table = table_of("", "count")
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    console.print(table)
    for quantity, groups in distributions.items():
        table = table_of(
            f"{quantity.replace('_', ' ')} a session", "sessions", "mean", "SD", "min", "10 %", "median", "90 %", "max"
        )
        for phase, d in groups.items():
            numbers = (d.sessions, d.mean, d.sd, d.minimum, d.p10, d.median, d.p90, d.maximum)
            table.add_row(phase, *(f"{number:,.0f}" for number in numbers))
        console.print()
        console.print(table)


def _split(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts.openings import NAME_PATIENTS
    from cbtrain.transcripts.split import SIDES, dump_split, split
    from cbtrain.transcripts.writing import write_sessions

    config = config_of(parsed).split
    strata = config.stratify
    corpus = whole(parsed, parts=True)
    if parsed.out:
        new(parsed.out)
    parts = split(corpus, config)
    manifest = dump_split(parts, corpus.source, config)
    if parsed.out:
        from cbtrain.files import atomic_folder

        with atomic_folder(parsed.out) as folder:
            (folder / "split.json").write_text(manifest, encoding="utf-8")
            for side in SIDES:
                courses = getattr(parts, side)
                sessions = (session for course in courses for session in course.sessions)
                if courses:
                    write_sessions(sessions, [c.profile for c in courses if c.profile], folder / side)
    if parsed.json:
        print(manifest, end="")
        return
    from rich.markup import escape

    table = table_of("side", "courses", "sessions", "words", *strata, numbers=3, words=len(strata))
    for side in SIDES:
        courses = getattr(parts, side)
        words = sum(session.words for course in courses for session in course.sessions)
        counts = (len(courses), sum(len(course.sessions) for course in courses), words)
        table.add_row(side, *(f"{count:,}" for count in counts), *(escape(_shares(courses, name)) for name in strata))
    from rich.console import Console

    console = Console()
    console.print(table)
    for side in SIDES:
        ids = ", ".join(course.id for course in getattr(parts, side)) or "nobody"
        console.print(f"\n{side}: {ids}", highlight=False, markup=False)
    for reason in parts.together:
        console.print(f"together: {reason}", highlight=False, markup=False)
    for leak in parts.leaks:
        console.print(f"on two sides: {leak}", highlight=False, markup=False)
    for pair in parts.alike:
        console.print(f"perhaps one patient: {pair}", highlight=False, markup=False)
    if parts.alike:
        console.print(f"If they are one patient's: {NAME_PATIENTS}", highlight=False, markup=False)
    if parsed.out:
        console.print(f"written: {parsed.out}", highlight=False, markup=False, soft_wrap=True)


def _convert(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts.writing import write_sessions

    is_file = is_new_file(parsed.out)
    from rich.console import Console

    console = Console()
    if parsed.clean:
        from cbtrain.transcripts import cleaning

        corpus, report = cleaning.clean(whole(parsed), config_of(parsed).corpus.cleaning)
        profiles = [course.profile for course in corpus.courses if course.profile]
        written = write_sessions(corpus.sessions(), profiles, parsed.out, parsed.to)
        for kind, count in report.as_dict().items():
            if count["times"]:
                console.print(f"{cleaning.CHANGES[kind]}: {count['times']:,}", highlight=False)
    else:
        source = source_of(parsed)
        with reading(source, parsed) as sessions:
            profiles = list(source.profiles(on_bad_of(parsed)).values())
            written = write_sessions(sessions, profiles, parsed.out, parsed.to)
    if is_file and profiles:
        console.print(
            f"{len(profiles)} profiles were not written, and without the patients' names cleaning finds fewer labels: "
            "name a folder to keep them",
            highlight=False,
        )
    console.print(f"{written:,} sessions: {parsed.out}", highlight=False, markup=False, soft_wrap=True)


def _card(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts.card import CardSettings, write_card

    new(parsed.out)
    source = source_of(parsed)
    bad: list[UserError] = []
    on_bad = bad.append if config_of(parsed).corpus.skip_bad else on_bad_of(parsed)
    with reading(source, parsed, on_bad) as sessions:
        profiles = source.profiles(on_bad)
        corpus = config_of(parsed).corpus
        settings = CardSettings(corpus.cleaning, parsed.license, corpus.language)
        path = write_card(source, sessions, profiles, bad, settings, parsed.out)
    tell_skipped([str(error) for error in bad])
    from rich.console import Console

    Console().print(f"data card: {path}", highlight=False, markup=False, soft_wrap=True)


def _schema(parsed: argparse.Namespace) -> None:
    from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile
    from cbtrain.transcripts.readers.canonical import PAIR_SCHEMA, SESSION_SCHEMA, SessionRecord
    from cbtrain.transcripts.readers.pairs import PairRecord

    schemas = {}
    own = {
        SESSION_SCHEMA: SessionRecord.model_json_schema(),
        PAIR_SCHEMA: PairRecord.model_json_schema(),
        PROFILE_SCHEMA: Profile.model_json_schema(),
    }
    for name, schema in own.items():
        schema["properties"] = {"schema": {"const": name}, **schema["properties"]}
        schema["required"] = ["schema", *schema["required"]]
        schemas[name] = schema
    print(json.dumps(schemas, indent=2))


def _token_counter(name: str) -> Callable[[str], int]:
    from cbtrain.model.weights.hub import resolve_model
    from cbtrain.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(name))
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _shares(courses: Iterable[Any], name: str) -> str:
    from collections import Counter

    from cbtrain.transcripts.split import characteristic

    values = Counter(characteristic(course, name) for course in courses)
    return ", ".join(f"{value} {count}" for value, count in sorted(values.items()))
