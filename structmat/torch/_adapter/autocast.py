"""What `torch.autocast` does to the inputs of a product by matrices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocasts", "product_dtype", "without_autocast"]


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`; some, such as "meta", have none."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def product_dtype(given: Tensor) -> torch.dtype:
    """Return the dtype in which torch takes a factor of a product: that of autocast, if it casts this one."""
    casts = autocasts(given) and given.is_floating_point() and given.dtype != torch.float64
    return torch.get_autocast_dtype(given.device.type) if casts else given.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast would run the sums over rows in half precision."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()
