"""A data card in Markdown: content, irregularities, provenance and limits of a corpus.

The shape follows "Datasheets for Datasets" (Gebru et al. 2021, arXiv 1803.09010) and the metadata block that the
Hugging Face Hub reads.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

import cbtrain
from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.text.language import UNKNOWN, language_name, language_of_all
from cbtrain.transcripts.checking import KINDS, Checker, Finding
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import SAMPLES, CorpusSource
from cbtrain.transcripts.stats import Statistics
from cbtrain.transcripts.types import Session
from cbtrain.transcripts.writing import record_of

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SAMPLED, SHOWN_TURNS, SHOWN = 200, 10, 300
"""Sessions, turns of each, and characters of each turn by which the language is found."""

LICENCES = (
    ("mit", "Permission is hereby granted, free of charge"),
    ("apache-2.0", "Apache License"),
    ("cc0-1.0", "CC0 1.0"),
    ("cc-by-nc-sa-4.0", "Attribution-NonCommercial-ShareAlike 4.0"),
    ("cc-by-nc-4.0", "Attribution-NonCommercial 4.0"),
    ("cc-by-sa-4.0", "Attribution-ShareAlike 4.0"),
    ("cc-by-4.0", "Attribution 4.0 International"),
    ("gpl-3.0", "GNU GENERAL PUBLIC LICENSE"),
)
"""The Hub's identifiers, by words that only their text has; the more special first."""


ORIGINS = {
    "author": "the training transcripts of Tahir 2024 (arXiv 2412.00251), synthetic",
    "simulations": "the simulated sessions of Tahir 2024 (arXiv 2412.00251)",
    "dialogues": "the simulated dialogues of Tahir 2025 (arXiv 2509.09712)",
}
"""Where a corpus comes from, by its format."""


@dataclass(frozen=True, slots=True)
class CardSettings:
    """``policy``: of the checks; ``licence``: the Hub's identifier (None: from the licence file beside the corpus);
    ``language``: ISO 639-1 code, or ``auto`` to find it from the text."""

    policy: CleaningPolicy
    licence: str | None = None
    language: str = "auto"


def write_card(
    source: CorpusSource,
    sessions: Iterable[Session],
    profiles: Mapping[str, Profile],
    bad: Sequence[UserError],
    settings: CardSettings,
    out: Path,
) -> Path:
    """Read ``sessions`` once, write ``out/README.md`` with its plots, and return its path.

    ``bad`` holds the faults of unreadable sessions; it is filled while ``sessions`` are read.
    """
    statistics, checker = Statistics(), Checker(profiles, settings.policy, labels=source.given_labels)
    kinds: dict[str, list[int]] = {}
    last: dict[str, str] = {}
    digest = blake2b(digest_size=16)
    beginnings: list[str] = []

    def note(findings: Iterable[Finding]) -> None:
        for finding in findings:
            row = kinds.setdefault(finding.kind, [0, 0])
            row[0] += 1
            row[1] += last.get(finding.kind) != finding.session
            last[finding.kind] = finding.session

    for session in sessions:
        statistics.add(session)
        if len(beginnings) < SAMPLED:
            beginnings.append("\n".join(turn.text[:SHOWN] for turn in session.turns[:SHOWN_TURNS]))
        note(checker.add(session))
        digest.update(json.dumps(record_of(session), sort_keys=True).encode())
    note(checker.finish())
    if bad:
        kinds["unreadable"] = [len(bad), len(bad)]
    licence = settings.licence or ("mit" if source.name in SAMPLES else find_licence(source.path))
    settings = replace(settings, licence=licence)
    languages = [settings.language]
    if settings.language == "auto":
        languages = language_of_all(beginnings) or [UNKNOWN]
    with atomic_folder(out) as folder:
        (folder / "phases.svg").write_bytes(_phase_plot(statistics))
        (folder / "irregularities.svg").write_bytes(_irregularity_plot(kinds))
        text = _text(source, statistics, kinds, profiles, digest.hexdigest(), settings, languages)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return out / "README.md"


def find_licence(path: Path) -> str:
    """Return the Hub's identifier of the licence file beside a corpus: ``other`` if the licence is not in
    ``LICENCES``, ``unknown`` if there is no file."""
    folder = path if path.is_dir() else path.parent
    # A corpus may be a folder inside the repository that has the licence.
    for candidate in (folder, folder.parent):
        for file in sorted(candidate.glob("LICEN[CS]E*")):
            text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
            if text:
                return next((name for name, words in LICENCES if words in text), "other")
    return "unknown"


def _text(
    source: CorpusSource,
    statistics: Statistics,
    kinds: Mapping[str, Sequence[int]],
    profiles: Mapping[str, Profile],
    digest: str,
    settings: CardSettings,
    languages: Sequence[str],
) -> str:
    counts, licence = statistics.counts(), settings.licence
    found = ", found from the text" if settings.language == "auto" else ""
    codes = "".join(f"- {language}\n" for language in languages)
    size = next((name for limit, name in SIZES if counts["sessions"] < limit), "n>1M")
    name = source.path.resolve().name if source.name not in SAMPLES else f"cbtrain {source.name} corpus"
    parts = [
        f"---\nlicense: {licence}\nlanguage:\n{codes}size_categories:\n- {size}\n"
        f"task_categories:\n- text-generation\npretty_name: {json.dumps(name)}\n---\n",
        f"# {_inline(name)}\n",
        "Transcripts of therapy sessions for research on language models. **No medical device, no clinical guidance, "
        "and nothing that a person in distress should be given.**\n",
        "## Content\n",
        _table(("", "count"), [(key.replace("_", " "), f"{value:,}") for key, value in counts.items()]),
        "As labelled in the files, before any cleaning. In scripts without blanks between words a rule stands in for "
        "words: a Han or Hiragana character, a run of Katakana, three letters of Thai, Lao, Khmer or Burmese.\n",
        "### Sessions by phase of treatment\n",
        _distribution_table(statistics),
        "![Turns and words of each session by phase of treatment](phases.svg)\n",
    ]
    if profiles:
        parts += [f"### Patients\n\n{len(profiles)} profiles.\n", _characteristics(profiles)]
    listed = [
        (f"`{kind}`", *KINDS[kind], f"{kinds.get(kind, (0, 0))[0]:,}", f"{kinds.get(kind, (0, 0))[1]:,}")
        for kind in KINDS
    ]
    parts += [
        "## Irregularities\n",
        _table(("kind", "severity", "what it means", "findings", "sessions"), listed),
        "![Findings by kind](irregularities.svg)\n",
        "Patterns find personal data that has a shape (addresses, numbers), never names or stories.\n",
        "## Provenance\n",
        _table(
            ("", ""),
            [
                ("origin", _origin(source)),
                ("read as", source.format),
                ("language", ", ".join(map(language_name, languages)) + found),
                ("licence", licence or "unknown"),
                (
                    "fingerprint of the sessions",
                    f"`{digest}` (blake2b of their canonical form, in the order of reading)",
                ),
                ("card written", f"{date.today().isoformat()} by cbtrain {cbtrain.__version__}"),
            ],
        ),
        "To be filled in by a person: who made the transcripts, how, from whom, with which consent, and for what.\n",
        "## Limits\n",
        "Simulated or de-identified dialogue is not clinical practice. Models trained on it can sound competent and be "
        "wrong: they have no duty of care and cannot act in an emergency. Distributions above are of this corpus, of "
        "no population.\n",
    ]
    return "\n".join(parts)


def _origin(source: CorpusSource) -> str:
    if source.name in SAMPLES:
        return "written for cbtrain, fictional"
    return ORIGINS.get(source.format, "not known to this program")


def _distribution_table(statistics: Statistics) -> str:
    rows = []
    for quantity, groups in statistics.distributions().items():
        for phase, d in groups.items():
            numbers = (d.mean, d.sd, d.minimum, d.median, d.maximum)
            rows.append(
                (quantity.replace("_", " "), phase, f"{d.sessions:,}", *(f"{number:,.0f}" for number in numbers))
            )
    return _table(("of each session", "phase", "sessions", "mean", "SD", "min", "median", "max"), rows)


def _characteristics(profiles: Mapping[str, Profile]) -> str:
    """Return a table of the characteristics that have at most 8 values, with the number of patients of each value."""
    values: dict[str, dict[str, int]] = {}
    for profile in profiles.values():
        for key, value in profile.characteristics.items():
            for item in [value] if isinstance(value, str) else value:
                values.setdefault(key, {}).setdefault(item, 0)
                values[key][item] += 1
    rows = [
        (key.replace("_", " "), ", ".join(f"{v} {n}" for v, n in sorted(counts.items(), key=lambda pair: -pair[1])))
        for key, counts in values.items()
        if len(counts) <= 8
    ]
    return _table(("characteristic", "patients"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
    )


def _inline(text: str) -> str:
    """Return ``text`` on one line, without HTML: names and characteristics are what somebody else wrote."""
    return html.escape(" ".join(text.split()), quote=False)


def _phase_plot(statistics: Statistics) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("turns", "words"), strict=True):
        groups: list[tuple[str, Any]] = [(phase, statistics.values(quantity, phase)) for phase in statistics.phases]
        groups = [(phase, values) for phase, values in groups if len(values)] or [("all", statistics.values(quantity))]
        axes.boxplot([values for _, values in groups], showfliers=True, flierprops={"markersize": 3})
        axes.set_xticks(np.arange(1, len(groups) + 1), [f"{phase}\n(n {len(values)})" for phase, values in groups])
        axes.set_ylabel(f"{quantity} of each session")
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
    return _svg(figure)


def _irregularity_plot(kinds: Mapping[str, Sequence[int]]) -> bytes:
    from matplotlib.figure import Figure

    names = sorted(KINDS, key=lambda kind: kinds.get(kind, (0, 0))[1])
    colours = {"error": "#b3261e", "warning": "#b7791f", "note": "#3a7ca5"}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    values = [kinds.get(kind, (0, 0))[1] for kind in names]
    bars = axes.barh(
        [name.replace("_", " ") for name in names], values, color=[colours[KINDS[name][0]] for name in names]
    )
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_xlabel("sessions (red: error, ochre: warning, blue: note)")
    axes.margins(x=0.1)
    axes.tick_params(labelsize=8)
    return _svg(figure)


def _svg(figure: object) -> bytes:
    import matplotlib

    buffer = BytesIO()
    # Text stays text, and the same corpus gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cbtrain", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})  # type: ignore[attr-defined]
    return buffer.getvalue()
