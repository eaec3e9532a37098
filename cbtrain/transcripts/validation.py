"""Parsed content against a schema, the first thing wrong named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cbtrain.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], content: Mapping[str, Any], where: object, hint: str) -> Model:
    """Return ``content`` as ``model``. Raises UserError with the key, what is wrong with it, and ``hint``."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        raise UserError(problem, where=where, hint=hint) from None
