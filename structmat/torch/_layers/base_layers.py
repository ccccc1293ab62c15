"""What may be a base layer: how many features it maps, and how it stores its weight."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["features", "is_linear", "is_transposed"]


def is_transposed(base: Any) -> bool:
    """Whether the weight is stored (in, out): transformers' ``Conv1D``, known without importing it."""
    return type(base).__name__ == "Conv1D" and hasattr(base, "nx") and hasattr(base, "nf")


def is_linear(module: nn.Module) -> bool:
    """Whether a module maps features on the last axis linearly, as far as its name and sizes tell."""
    sized = hasattr(module, "in_features") and hasattr(module, "out_features")
    return is_transposed(module) or (sized and "Linear" in type(module).__name__)


def features(base: nn.Module) -> tuple[int, int]:
    """Return the input and output features of a linear base.

    Raises
    ------
    TypeError
        If it has none.
    """
    if is_transposed(base):
        return int(base.nx), int(base.nf)
    if hasattr(base, "in_features") and hasattr(base, "out_features"):
        return int(base.in_features), int(base.out_features)
    raise TypeError(
        f"CDDLinear: the base must have in_features and out_features, as torch.nn.Linear has, got {type(base).__name__}"
    )
