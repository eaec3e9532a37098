"""The files of an adapter that PEFT has no layout for: ``method.json`` and ``adapter.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import read_json_object
from cbtrain.model.methods import LORA, method_named, method_of
from cbtrain.model.weights.saving import save_tensors
from cbtrain.text.faults import first_fault

CONFIG = "method.json"
WEIGHTS = "adapter.safetensors"
SCHEMA = "cbtrain.method/1"


def write_adapter(
    folder: Path, settings: BaseModel, tensors: Mapping[str, Tensor], *, base: str, metadata: Mapping[str, str]
) -> None:
    """Write the adapter of a method with these ``settings``; ``base`` names the base model, ``metadata`` goes into the
    header of the weights."""
    options = settings.model_dump(mode="json")
    written = {"schema": SCHEMA, "method": method_of(settings).name, "base_model": base, "options": options}
    (folder / CONFIG).write_text(json.dumps(written, indent=2) + "\n")
    save_tensors(tensors, folder / WEIGHTS, metadata)


def read_settings(folder: Path) -> BaseModel:
    """Return the settings in :data:`CONFIG`. Raises UserError if it cannot be read or used here."""
    file = folder / CONFIG
    written = read_json_object(file, "Restore it from a copy.")
    if written.get("schema") != SCHEMA:
        raise UserError(f"schema {written.get('schema')!r}, not {SCHEMA!r}", where=file, hint="Use a later cbtrain.")
    try:
        method = method_named(str(written.get("method")))
    except ValueError as error:
        raise UserError(str(error), where=file, hint="Install the package that brings this method.") from None
    if method.name == LORA.name or method.trains_base:
        problem = f"method {method.name} has no files of this kind"
        raise UserError(problem, where=file, hint="Restore it from a copy.")
    try:
        return method.settings.model_validate(written.get("options", {}))
    except ValidationError as error:
        raise UserError(f"options.{first_fault(error)}", where=file, hint="Restore it from a copy.") from None


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of an adapter by name, and the metadata of their file. Raises UserError if it is missing or
    damaged."""
    file = folder / WEIGHTS
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys()}, dict(weights.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise UserError("missing", where=file, hint="Copy the adapter again, completely.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot be read ({error})", where=file, hint="Copy the adapter again, completely.") from None
