"""Starting values of a change: zero, variance kept, from a given change, from a gradient of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from structmat.fit import FitResult, fit_cdd
from structmat.operators import CDDLayout

__all__ = ["Init", "fitted_vectors", "initialise"]

Init: TypeAlias = Literal["zero", "normal", "gradient"]


def initialise(
    factors: Sequence[Tensor],
    layout: CDDLayout,
    init: Init,
    *,
    gradient: Tensor | None = None,
    rng: torch.Generator | None = None,
) -> None:
    """Fill the vectors of a change, in place.

    Circulants get normal entries of variance 1 / columns, diagonals random signs, which together keep the variance of a
    random input through any number of factors (arXiv:1901.10255). "zero" and "gradient" then make the first diagonal
    zero: exactly one factor, so that its gradient is not.
    """
    with torch.no_grad():
        if init == "gradient" and gradient is not None:
            # Of all products D C D with a zero first diagonal, the one whose first step follows the gradient best.
            fitted = fitted_vectors(gradient, factors, layout)[1]
            for factor, vector in zip(factors, fitted, strict=True):
                factor.copy_(vector)
            _balance(factors, layout)
        else:
            for factor, (_, cols) in zip(factors, layout.factor_shapes, strict=True):
                if factor.ndim == 1:
                    factor.bernoulli_(0.5, generator=rng).mul_(2).sub_(1)  # random signs keep every norm
                else:
                    factor.normal_(0, cols**-0.5, generator=rng)
        if init != "normal":
            factors[0].zero_()


def fitted_vectors(delta: Tensor, factors: Sequence[Tensor], layout: CDDLayout) -> tuple[FitResult, list[Tensor]]:
    """Fit a dense change by a product of a layout; return the fit, and its vectors in the kinds of `factors`."""
    dense = delta.detach().to(torch.promote_types(delta.dtype, torch.float32)).cpu()
    result = fit_cdd(dense, layout.n_factors, block_size=layout.block_size, rng=0)
    vectors: Any = layout.vectors_of(result.operator)
    return result, [vector.to(like) for vector, like in zip(vectors, factors, strict=True)]


def _balance(factors: Sequence[Tensor], layout: CDDLayout) -> None:
    """Scale every factor but the first to the size that a random start has; only directions are kept."""
    for factor, (_, cols) in zip(factors[1:], layout.factor_shapes[1:], strict=True):
        wanted = 1.0 if factor.ndim == 1 else cols**-0.5
        factor.mul_(wanted / factor.square().mean().sqrt().clamp_min(torch.finfo(factor.dtype).tiny))
