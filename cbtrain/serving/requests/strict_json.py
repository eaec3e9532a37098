"""JSON of strangers, read strictly: UTF-8, no key twice, no NaN, no numbers of thousands of digits."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from cbtrain.serving.errors import Refused


def read_json(data: bytes) -> dict[str, Any]:
    """Return the object that ``data`` holds. Raises Refused (400) on anything else."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 (byte {error.start + 1:,})") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # Python's limit of digits
        raise Refused(400, "the body is not usable JSON: a number has too many digits") from None
    except RecursionError:
        raise Refused(400, "the body is not usable JSON: it is nested too deeply") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise Refused(400, f"the key {twice[:100]!r} is there twice", param=twice[:100])
    return fields


def _no_constant(name: str) -> NoReturn:
    raise Refused(400, f"the body is not JSON: {name} is no JSON number")
