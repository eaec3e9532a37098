"""What identifies settings over versions, and APIs over addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbtrain.providers.config import ProviderConfig

SIZES = {"slots", "memory_gb", "prefill_tokens"}
"""Settings of the engine that change no word."""

ADDED_LATER: Mapping[str, Any] = {
    "deterministic": False,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
}
"""Settings that journals and reports of older versions do not have, and their values then: they are left out where they
have these, so that older runs are continued and compared."""


def as_always(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` without those of :data:`ADDED_LATER` that change nothing, and without :data:`SIZES`."""
    return {
        key: as_always(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in SIZES and (key not in ADDED_LATER or value != ADDED_LATER[key])
    }


def wherever(provider: ProviderConfig) -> dict[str, Any]:
    """Return the identity of an API, without its address if nobody is paid for it: the same server may have moved."""
    identity = provider.identity()
    return identity if provider.paid else {key: value for key, value in identity.items() if key != "base_url"}
