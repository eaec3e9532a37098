"""Errors as the OpenAI protocol has them: JSON with a message, a type, the field concerned and a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Types by status; others are ``invalid_request_error`` below 500 and ``server_error`` from there."""


class Refused(Exception):
    """A request that gets an error: HTTP ``status``, ``message`` for a person, ``code`` for a program, the field
    (``param``) concerned."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def body(self) -> dict[str, Any]:
        """Return the protocol's JSON."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        return web.json_response(self.body(), status=self.status, headers=self.headers)
