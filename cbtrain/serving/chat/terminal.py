"""Where a person types and reads: line editing, wrapped text and panels on a terminal, plain text elsewhere."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Mapping
from io import TextIOWrapper
from types import FrameType, ModuleType
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cbtrain.stopping import restore_handlers, set_handlers

PERSON = "You: "
MORE = "...: "
"""Before a line that continues the one above it."""

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Terminal:
    """Reads from standard input and writes to standard output. Whatever is not part of the conversation goes to
    standard error if standard output is a file or a pipe."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a model can write what the terminal's encoding has not
        self.asks = sys.stdin.isatty() and sys.stdout.isatty()
        """Whether a person can answer questions."""
        self.console = Console(stderr=not sys.stdout.isatty(), highlight=False)
        self.dropped = ""
        """The line that Ctrl-C has ended. It is in the history."""
        self._readline = _line_editing() if self.asks else None

    def read(self) -> str:
        """Return what the person types next: a line, and those after it while the last one ends with a backslash.

        Raises EOFError at the end of the input, and KeyboardInterrupt on Ctrl-C.
        """
        if self.asks:
            self.end_line()  # an empty one before each turn
        lines = [self._line(PERSON)]
        with contextlib.suppress(EOFError):
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(self._line(MORE))
        return "\n".join(lines)

    def confirm(self, question: str) -> bool:
        """Return the answer to a question. Enter, Ctrl-C and Ctrl-D mean yes."""
        while True:
            try:
                answer = input(f"{question} [Y/n] ").strip().lower()
            except (EOFError, KeyboardInterrupt):
                print()
                return True
            if answer in ("", "y", "yes", "n", "no"):
                return not answer.startswith("n")

    def note(self, text: str, style: str = "dim") -> None:
        """Show lines that are not part of the conversation."""
        terminal = self.console.is_terminal
        self.console.print(visible(text), markup=False, style=style if terminal else None, soft_wrap=not terminal)

    def problem(self, text: str) -> None:
        """Show what could not be done."""
        self.note(text, "yellow")

    def table(self, rows: Mapping[str, str]) -> None:
        """Show ``rows`` in two columns."""
        if not self.console.is_terminal:
            self.note("\n".join(f"{name}: {value}" for name, value in rows.items()))
            return
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), style="dim")
        for name, value in rows.items():
            table.add_row(Text(name), Text(visible(value)))
        self.console.print(table)

    def panel(self, title: str, text: str) -> None:
        """Show ``text`` so that it is not overlooked."""
        if self.console.is_terminal:
            self.console.print(Panel(Text(text), title=title, title_align="left", border_style="yellow"))
        else:
            self.note(f"{title.upper()}\n{text}")

    def answer(self, speaker: str) -> AnswerLines:
        """Return what shows an answer of ``speaker`` while it comes."""
        label = f"{speaker}: "
        if not sys.stdout.isatty():
            _write(label)
            return AnswerLines(None)
        self.console.print(label, style="bold cyan", markup=False, end="")
        return AnswerLines(self.console.width, cell_len(label))

    def end_line(self) -> None:
        """Begin a new line of the conversation."""
        _write("\n")

    def _line(self, label: str) -> str:
        if self.asks:
            before = set_handlers(["SIGINT"], self._drop_line)
            try:
                return input(f"\x01\x1b[1m\x02{label}\x01\x1b[0m\x02" if self._styled else label)
            finally:
                restore_handlers(before)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\n")
        _write(f"{label}{visible(line)}\n")
        return line

    def _drop_line(self, number: int, frame: FrameType | None) -> NoReturn:
        # When input() has ended, readline has forgotten the line.
        self.dropped = self._readline.get_line_buffer() if self._readline else ""
        if self._readline and self.dropped:
            self._readline.add_history(self.dropped)
        raise KeyboardInterrupt

    @property
    def _styled(self) -> bool:
        return self._readline is not None and self.console.color_system is not None


class AnswerLines:
    """Prints text as it comes, with line breaks between words from ``width`` columns on (None: as it is).

    Nothing that was printed is printed again: a word is held back until it is whole, and so are spaces and line breaks
    until a word follows. ``column`` is where the first line begins.
    """

    def __init__(self, width: int | None, column: int = 0) -> None:
        self.width, self.column = width, column
        self._gap, self._word = "", ""
        self._begun = False

    def add(self, text: str) -> None:
        """Print what is whole of the words so far."""
        _write("".join(self._place(character) for character in visible(text)))

    def finish(self) -> None:
        """Print the last word."""
        _write(self._place_word())

    def _place(self, character: str) -> str:
        if character.isspace() and character != "\u00a0":
            placed = self._place_word()
            self._gap += "\n" if character == "\n" else " "
            return placed
        # Scripts with wide characters have no spaces: a line may break between any two.
        wide = cell_len(character) > 1
        placed = self._place_word() if wide else ""
        self._word += character
        if wide or self.width is None or cell_len(self._word) >= self.width:
            placed += self._place_word()
        return placed

    def _place_word(self) -> str:
        word, gap = self._word, self._gap if self._begun else ""
        if not word:
            return ""
        self._word, self._gap, self._begun = "", "", True
        breaks, spaces = min(gap.count("\n"), 2), len(gap) - gap.rfind("\n") - 1
        column = (0 if breaks else self.column) + spaces
        if self.width is not None and column and column + cell_len(word) > self.width:
            breaks, spaces, column = breaks or 1, 0, 0
        self.column = column + cell_len(word)
        return "\n" * breaks + " " * spaces + word


def visible(text: str) -> str:
    """Return ``text`` with U+FFFD in place of characters that could command a terminal or turn text around."""
    return "".join("\ufffd" if _commands(character) else character for character in text)


def _commands(character: str) -> bool:
    control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return control or character in BIDI_CONTROLS


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _line_editing() -> ModuleType | None:
    """Load the standard library's line editing, with a history in memory only. Return None where there is none."""
    try:
        import readline
    except ImportError:
        return None
    readline.parse_and_bind("set enable-bracketed-paste on")  # several pasted lines are one input
    return readline
