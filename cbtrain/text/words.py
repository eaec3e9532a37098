"""Count words in any script: the one count of limits, statistics and scores.

A word is what blanks separate, as ``str.split`` has it. Some scripts write no blanks between words; there a rule stands
in for a dictionary:

- a Han or Hiragana character is a word, a run of Katakana is one, as in the default word boundaries of Unicode
  (UAX #29) and in the counts of word processors;
- in Thai, Lao, Khmer and Burmese three letters are a word, the last one begun counts; marks above, below and beside a
  letter do not count.

So a count of Chinese or Japanese is one of characters: about half as much again as the words that a reader would mark.
"""

from __future__ import annotations

import re

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA = "\u3041-\u3096\u309d-\u309f"
KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
THAI, LAO = "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46", "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"
KHMER, BURMESE = "\u1780-\u17b3", "\u1000-\u102a\u103f\u1050-\u1055\uaa60-\uaa76"
MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u17b4-\u17d3\u17dd\u102b-\u103e\u1056-\u1059"
LETTERS = f"{THAI}{LAO}{KHMER}{BURMESE}"
LETTERS_A_WORD = 3
"""Letters of Thai, Lao, Khmer or Burmese that count as a word."""

UNSPACED = re.compile(f"[{HAN}{HIRAGANA}{KATAKANA}{LETTERS}]")
PIECE = re.compile(f"[{HAN}{HIRAGANA}]|[{KATAKANA}]+|[{LETTERS}{MARKS}]+")
LETTER = re.compile(f"[{LETTERS}]")
WORD = re.compile(r"\w")
RUN = re.compile(r"[\w'’.,-]+")


def count_words(text: str) -> int:
    """Return the number of words in ``text``; 0 without any."""
    if text.isascii() or not UNSPACED.search(text):
        return len(text.split())
    return sum(_words_of(part) if UNSPACED.search(part) else 1 for part in text.split())


def _words_of(part: str) -> int:
    """Return the number of words in a part without blanks: those of unspaced scripts, and of others between them."""
    unspaced = sum(-(-len(LETTER.findall(piece)) // LETTERS_A_WORD) or 1 for piece in PIECE.findall(part))
    return unspaced + sum(bool(WORD.search(run)) for run in RUN.findall(PIECE.sub(" ", part)))
