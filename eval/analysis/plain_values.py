"""An analysis as JSON can hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SCHEMA = "cbtrain.analysis/1"


def plain(value: Any) -> Any:
    """Return ``value`` with None for NaN and infinities, which JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
