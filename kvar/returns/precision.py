"""Half precision taken to float32."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_float32"]


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 where it is float16 or bfloat16, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
