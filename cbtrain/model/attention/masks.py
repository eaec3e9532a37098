"""Which keys a query sees, where no kernel knows it by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def bottom_right_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return bool ``[queries, keys]``: True where a query attends to a key (causal, aligned at the last of both)."""
    ahead = torch.arange(keys, device=device)[None] - (torch.arange(queries, device=device)[:, None] + keys - queries)
    allowed = ahead <= 0
    return allowed if window is None else allowed & (ahead > -window)
