"""Ranks that train together must train the same study: nothing in their sums tells that one has other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch

from cbtrain.config.schema import StudyConfig
from cbtrain.environment import pick_device, version_of
from cbtrain.errors import UserError
from cbtrain.settings import MISSING, differences
from cbtrain.training import distributed

OWN = ("tokens.cache", "providers.answers", "threads", "model.device")
"""Settings that each rank may have for its node: where it keeps files, and on which of its devices it computes (which
kind of device that is must be the same)."""

SECRET = ("base_url", "api_key_env")
"""Ends of keys whose values may hold a key of an API: they are not printed."""

PACKAGES = (
    "cbtrain",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "deepspeed",
    "bitsandbytes",
    "numpy",
    "triton",
)
"""Whose versions decide what is computed."""


def require_same_start(config: StudyConfig, options: Mapping[str, Any]) -> None:
    """Raise UserError, on every rank, if one has other settings, other ``options`` of the command line, another kind of
    device or other versions than the leading one."""
    settings = config.model_dump(mode="json")
    for key in OWN:
        *sections, name = key.split(".")
        section = settings
        for part in sections:
            section = section[part]
        del section[name]
    device = torch.device(pick_device(config.model.device)).type
    versions = {f"version of {name}": version_of(name) for name in PACKAGES}
    require_same({**settings, **options, "kind of device": device, **versions}, "Start every rank with the same.")


def require_same(compared: Mapping[str, Any], hint: str) -> None:
    """Raise UserError, on every rank, if values (JSON-able) in ``compared`` of one differ from the leading one's: the
    first that differs, with both values. All ranks must call it; values are exchanged only if their digests differ."""
    if distributed.world() == 1:
        return
    digest = blake2b(json.dumps(compared, sort_keys=True).encode(), digest_size=16).hexdigest()
    if len(set(distributed.gathered(digest))) == 1:
        return
    every = distributed.gathered(json.loads(json.dumps(compared)))
    for rank, theirs in enumerate(every):
        for key, *both in differences(every[0], theirs):
            leading, other = ("not given" if value is MISSING else value for value in both)
            values = f"{leading} on rank 0, {other} on rank {rank}"
            what = f"{key} differs between rank 0 and rank {rank}" if key.endswith(SECRET) else f"{key} is {values}"
            raise UserError(what, where="ranks that train together", hint=hint)
