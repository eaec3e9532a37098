"""Turn exceptions of the program into errors of the protocol."""

from __future__ import annotations

from aiohttp import web

from cbtrain.errors import UserError
from cbtrain.generation.request import AdapterDropped, BadRequest, ContextOverflow, RequestFailed
from cbtrain.generation.thread import EngineFailed
from cbtrain.serving.errors import Refused

FIELDS = {"stop_ids": "stop_token_ids", "schema": "response_format", "adapter": "model"}
"""Fields of the protocol, by those of :class:`cbtrain.generation.request.Request` that have other names."""


def refusal_of(error: Exception) -> Refused:
    """Return ``error`` as a client sees it; of what is not known, nothing but that it failed."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, AdapterDropped):
        return Refused(503, str(error), code="adapter_dropped", param="model", headers={"Retry-After": "1"})
    if isinstance(error, ContextOverflow):
        return Refused(400, f"maximum context length exceeded: {error}", code="context_length_exceeded")
    if isinstance(error, BadRequest):
        return Refused(400, str(error), param=FIELDS.get(error.field or "", error.field))
    if isinstance(error, UserError):
        return Refused(400, str(error))
    if isinstance(error, RequestFailed):
        return Refused(500, str(error), code="request_failed")
    if isinstance(error, EngineFailed):
        return Refused(500, str(error), code="engine_failed")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Refused(405, f"{error.method} is not served here; use {allowed}", headers={"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return Refused(404, "there is nothing at this address", code="unknown_url")
    if isinstance(error, web.HTTPException):
        return Refused(error.status, error.reason)
    return Refused(500, "the server failed; its log says where", code="internal_error")
