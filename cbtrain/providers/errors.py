"""Failures of an API, classified by how to react to them."""

from __future__ import annotations

from typing import Literal

ErrorKind = Literal["rate_limit", "transient", "permanent", "content_filter", "context_overflow", "budget"]


class ProviderError(Exception):
    """An API call that ended without an answer. ``message`` never holds the key; ``status`` is None without a reply.
    ``sent``: the request may have been answered, and billed, nevertheless. ``request`` names it as in
    :class:`cbtrain.providers.types.ChatResponse`, once a provider has it."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int | None = None,
        attempts: int = 1,
        retry_after_s: float | None = None,
        sent: bool = False,
    ) -> None:
        message = message.encode("utf-8", "replace").decode()  # half a letter cannot be written down
        self.kind: ErrorKind = kind
        self.sent, self.request = sent, ""
        self.message, self.status, self.attempts, self.retry_after_s = message, status, attempts, retry_after_s
        super().__init__(message)

    def __str__(self) -> str:
        status = f"HTTP {self.status}, " if self.status else ""
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        return f"{status}{self.kind.replace('_', ' ')}: {self.message}{tries}"

    @property
    def retryable(self) -> bool:
        return self.kind in ("rate_limit", "transient")
