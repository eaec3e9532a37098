"""The text of an answer while its tokens come: whole characters, up to the first stop string.

``tokenizers.decoders.DecodeStream`` does not serve here. It raises an error where a later byte token changes how
earlier ones of a SentencePiece vocabulary read, and it decodes a growing list for as long as the text ends in U+FFFD.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no character, or not yet a whole one."""

CONTEXT = 8
"""Tokens that are decoded again before a new one. A character has at most four bytes, so an unfinished one begins at
most three tokens back; a decoder that starts within a character reads correctly after three bytes at the latest."""

BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")

UNCLEAN = (" ", " '", " n", " n'", " 'v", " 'r")
"""Ends of text that may still lose their space when ``transformers`` cleans up spaces: beginnings of `` 've``, say."""


class AnswerText:
    """Text of an answer, token by token. What was returned is never revoked.

    All returned pieces together are ``tokenizer.decode(ids, skip_special_tokens=True)``, cut where the stop string
    begins that is complete first (of several that end at the same character, the longest). The cost of a token does not
    depend on how many came before. An object may move between threads, but only one may use it at a time.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        """``tokenizer`` is a fast one of transformers. ``after`` are the tokens that the answer continues, of which the
        last few count: the text is what they gain by it. Raises ValueError on an empty stop string."""
        self.stopped = False
        self.stop_string: str | None = None
        self._decoder = _IncrementalDecoder(tokenizer, after[-CONTEXT:])
        self._stops = _StopStrings(stop)
        self._ahead: _StopStrings | None = None
        self._held = ""
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All text returned so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def add(self, token: int) -> str:
        """Return the text that is settled by ``token``: no half character, nothing that may begin a stop string.

        ``stopped`` is True as soon as a stop string, ``stop_string``, is complete. It is not part of the text, and
        later tokens add none.
        """
        if self.stopped:
            return ""
        settled, unsettled = self._decoder.add(token)
        piece = self._cut(settled)
        if unsettled and self._stops_ahead(unsettled):
            piece = self._cut(self._decoder.rest())
        if not self._decoder.in_run:
            self._ahead = None
        self._pieces.append(piece)
        return piece

    def finish(self) -> str:
        """Return what was held back, at the end of the answer."""
        if self.stopped:
            return ""
        piece = self._cut(self._decoder.rest())
        if not self.stopped:
            piece += self._held
        self.stopped, self._held = True, ""
        self._pieces.append(piece)
        return piece

    def _cut(self, settled: str) -> str:
        """Return the text, after what was held and with ``settled``, in which no stop string lies or may begin."""
        text = self._held + settled
        for end, character in enumerate(settled, len(self._held) + 1):
            length = self._stops.add(character)
            if length:
                self.stopped, self._held = True, ""
                self.stop_string = text[end - length : end]
                return text[: end - length]
        free = len(text) - self._stops.longest_beginning
        self._held = text[free:]
        return text[:free]

    def _stops_ahead(self, unsettled: str) -> bool:
        """Return whether a stop string ends in ``unsettled``, the next characters of byte tokens."""
        if self._ahead is None:
            self._ahead = self._stops.copy()
        if not any(self._ahead.add(character) for character in unsettled):
            return False
        # The decoder may drop a space at the beginning of the answer: its own text decides.
        return self._stops.within(self._decoder.rest())


class _IncrementalDecoder:
    """Decodes a few tokens before the new one together with it, and returns what comes to their text."""

    def __init__(self, tokenizer: Any, after: Sequence[int] = ()) -> None:
        self.tokenizer, self.backend = tokenizer, tokenizer.backend_tokenizer
        decoder = self.backend.decoder
        self.has_byte_tokens = decoder is not None and b'"ByteFallback"' in decoder.__getstate__()
        self.cleans_spaces = _cleans_spaces(tokenizer)
        # The decoded tokens, their text, and how much of it is settled.
        self._tokens = list(after)
        self._text = self._decode(self._tokens) if after else ""
        self._settled = len(self._text)
        # Byte tokens after them. Only the token after a run of them tells how all of it reads: as UTF-8 if the whole
        # run is valid, else as one replacement character a byte.
        self._run: list[int] = []
        self._utf8: codecs.IncrementalDecoder | None = None

    def add(self, token: int) -> tuple[str, str]:
        """Return the newly settled text, and characters that a run of byte tokens has newly completed: they are not
        settled while a later byte may make the run invalid."""
        spelling = self.backend.id_to_token(token)
        if spelling is None:  # an embedding without a token, which decodes to nothing
            return "", ""
        if self.has_byte_tokens and BYTE_TOKEN.fullmatch(spelling):
            return "", self._extend_run(token, bytes.fromhex(spelling[3:5]))
        if self._run and self._is_skipped(token):
            return "", ""
        tokens = [*self._tokens, *self._run, token]
        text = self._decode(tokens)
        if text == self._text and self._is_skipped(token):
            return "", ""
        end = max(self._settled, len(text) - self._open(text))
        settled = text[self._settled : end]
        if len(tokens) > 2 * CONTEXT:
            tokens, after = tokens[-CONTEXT:], len(text) - end
            text = self._decode(tokens)
            end = max(0, len(text) - after)
        self._tokens, self._text, self._settled = tokens, text, end
        self._run = []
        return settled, ""

    @property
    def in_run(self) -> bool:
        """Whether byte tokens wait for what follows them."""
        return bool(self._run)

    def rest(self) -> str:
        """Return the text that is not settled, as it reads if no token follows."""
        return self._decode([*self._tokens, *self._run])[self._settled :]

    def _extend_run(self, token: int, byte: bytes) -> str:
        if not self._run:
            self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._run.append(token)
        if self._utf8 is None:
            return ""
        try:
            return self._utf8.decode(byte)
        except UnicodeDecodeError:
            self._utf8 = None
            return ""

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _is_skipped(self, token: int) -> bool:
        return bool(self._decode([token]) != self.tokenizer.decode([token], skip_special_tokens=False))

    def _open(self, text: str) -> int:
        """Return how many characters at the end of ``text`` the next token may change."""
        unclean = max((len(end) for end in UNCLEAN if text.endswith(end)), default=0) if self.cleans_spaces else 0
        return max(unclean, int(text.endswith(REPLACEMENT)))


def _cleans_spaces(tokenizer: Any) -> bool:
    """Return whether ``tokenizer.decode`` removes spaces before punctuation, as transformers decides it."""
    if not tokenizer.clean_up_tokenization_spaces:
        return False
    name = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    return type(tokenizer.backend_tokenizer.model).__name__ != "BPE" or bool(getattr(tokenizer, name, False))


class _StopStrings:
    """Finds several strings in text that comes character by character (Knuth, Morris and Pratt 1977)."""

    def __init__(self, strings: Sequence[str]) -> None:
        if not all(strings):
            raise ValueError("a stop string is empty")
        self.strings = strings
        self._borders = [_borders(string) for string in strings]
        self._matched = [0] * len(strings)

    def copy(self) -> _StopStrings:
        twin = _StopStrings(self.strings)
        twin._matched = self._matched.copy()
        return twin

    def add(self, character: str) -> int:
        """Return the length of the longest string that ends with ``character``, or 0."""
        longest = 0
        for index, (string, borders) in enumerate(zip(self.strings, self._borders, strict=True)):
            matched = self._matched[index]
            while matched and string[matched] != character:
                matched = borders[matched - 1]
            matched += string[matched] == character
            if matched == len(string):
                longest, matched = max(longest, matched), borders[-1]
            self._matched[index] = matched
        return longest

    def within(self, text: str) -> bool:
        """Return whether a string would end in ``text`` if it came next."""
        ahead = self.copy()
        return any(ahead.add(character) for character in text)

    @property
    def longest_beginning(self) -> int:
        """How many of the last characters may begin a string."""
        return max(self._matched, default=0)


@lru_cache(maxsize=256)
def _borders(string: str) -> tuple[int, ...]:
    """Return for each prefix of ``string`` the length of its longest proper prefix that is also its suffix."""
    borders = [0]
    for character in string[1:]:
        length = borders[-1]
        while length and string[length] != character:
            length = borders[length - 1]
        borders.append(length + (string[length] == character))
    return tuple(borders)
