"""See all of a parameter that DeepSpeed has cut up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def whole(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, ``parameters`` hold all of their values on every rank, whether they are cut up or not."""
    cut = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    gathered: Any = deepspeed.zero.GatheredParameters(cut)
    with gathered:
        yield
