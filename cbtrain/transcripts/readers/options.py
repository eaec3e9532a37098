"""What every reader is told, and what it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbtrain.transcripts.labelled_text import LabelledText, parse_text
from cbtrain.transcripts.labels import TEXT_LABELS
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.names import bare, stripped
from cbtrain.transcripts.mapping.turns import clean
from cbtrain.transcripts.source import OnBad, refuse, unix_lines
from cbtrain.transcripts.types import Role


class Notes:
    """What was left out on purpose: how often, and where first. ``third_speakers`` counts the turns of those who are
    neither patient nor therapist and whom no map ignores."""

    def __init__(self) -> None:
        self.third_speakers: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, what: str, count: int = 1, example: str = "") -> None:
        self._counts[what] += count
        self._examples.setdefault(what, example)

    def lines(self) -> list[str]:
        """Return a line for each kind, the most frequent first."""
        return [
            f"{count:,} {what}" + (f", the first: {self._examples[what]}" if self._examples[what] else "")
            for what, count in self._counts.most_common()
        ]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """``on_bad`` gets each fault; ``labels`` are speakers' labels in place of the common ones; ``map`` says where the
    parts of a session are. ``notes`` counts what was left out on purpose. ``metadata``: a table, perhaps in the corpus
    folder, that is no transcript."""

    on_bad: OnBad = refuse
    labels: Mapping[str, Role] = field(default_factory=dict)
    map: CorpusMap = field(default_factory=CorpusMap)
    notes: Notes = field(default_factory=Notes)
    metadata: Path | None = None

    @property
    def text_labels(self) -> Mapping[str, Role]:
        """Return the labels of speakers in texts: those given, else the common ones, and those of the map over them."""
        return {**(self.labels or TEXT_LABELS), **_labels_of(self.map)}

    @property
    def given_labels(self) -> Mapping[str, Role]:
        """Return the labels that options or the map give."""
        return {**self.labels, **_labels_of(self.map)}

    def labelled(self, text: str, where: str, speakers: Sequence[str] = ()) -> LabelledText:
        """Return the turns of a text whose turns begin with labels, as map and labels say; note what is left out.
        ``speakers``: who is known to speak in it."""
        parsed = parse_text(clean(unix_lines(text), self.map), self.text_labels, self.map.ignore, speakers)
        ignored = set(map(bare, self.map.ignore))
        for label, count in parsed.ignored.items():
            if bare(label) in ignored:
                self.note(f"turns of {label!r}, who is ignored", count)
                continue
            self.note(f"turns of {label!r}, who is neither patient nor therapist", count, where)
            self.notes.third_speakers[label] += count
        if parsed.empty:
            self.note("labels without words after them", parsed.empty, where)
        return parsed

    def note(self, what: str, count: int = 1, example: str = "") -> None:
        self.notes.add(what, count, example)


def _labels_of(corpus_map: CorpusMap) -> dict[str, Role]:
    """Return the names that a map gives the speakers; those of pairs are columns."""
    if corpus_map.each == "pair":
        return {}
    roles: dict[str, Role] = {stripped(name): "therapist" for name in corpus_map.therapist}
    roles |= {stripped(name): "patient" for name in corpus_map.patient}
    return {label: role for label, role in roles.items() if label}
