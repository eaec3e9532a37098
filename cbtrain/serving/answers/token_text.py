"""The text and the bytes of single tokens, for log-probabilities."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenText:
    """Spells the tokens of ``tokenizer``, a fast ``transformers`` one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self._backend = tokenizer, tokenizer.backend_tokenizer
        decoder = self._backend.decoder
        state = decoder.__getstate__() if decoder is not None else b""
        self._byte_level, self._byte_tokens = b'"ByteLevel"' in state, b'"ByteFallback"' in state
        self._bytes: dict[int, bytes] = {}
        self._added = {token.content for token in tokenizer.added_tokens_decoder.values()}

    @cached_property
    def longest(self) -> int:
        """No token stands for more characters than these."""
        return max(map(len, self._backend.get_vocab()), default=1)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that ``token`` stands for: part of a character, perhaps. b"" for an id without a token."""
        if token not in self._bytes:
            self._bytes[token] = self._spell(token)
        return self._bytes[token]

    def _spell(self, token: int) -> bytes:
        spelling: str | None = self._backend.id_to_token(token)
        if spelling is None:
            return b""
        if spelling in self._added:
            return spelling.encode()
        if self._byte_level:
            table = _bytes_of_letters()
            if all(letter in table for letter in spelling):
                return bytes(table[letter] for letter in spelling)
            return spelling.encode()
        if self._byte_tokens and (named := BYTE_TOKEN.fullmatch(spelling)):
            return bytes.fromhex(named[1])
        return spelling.replace("▁", " ").encode()

    def text_of(self, token: int) -> str:
        """Return the token's text; half a character reads as U+FFFD."""
        return self.bytes_of(token).decode(errors="replace")


@lru_cache(maxsize=1)
def _bytes_of_letters() -> dict[str, int]:
    """Return which byte each letter of byte-level tokens is: printable bytes are themselves, the others are the letters
    from U+0100 on, in order (GPT-2's encoding, Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
