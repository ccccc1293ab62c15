"""Starting values of a change: zero, variance kept, from a given change, from a gradient of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from structmat.fit import FitResult, fit_cdd

__all__ = ["INITS", "Init", "fitted_vectors", "initialise"]

Init: TypeAlias = Literal["zero", "normal", "gradient"]
INITS = ("zero", "normal", "gradient")


def _random_signs(vector: Tensor, generator: torch.Generator | None) -> None:
    """Fill a diagonal with random signs: its product keeps every norm."""
    vector.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def initialise(
    factors: Sequence[Tensor],
    init: Init,
    cols: Sequence[int],
    *,
    gradient: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Fill the vectors of a change, in place; `cols` holds the columns of each factor.

    Circulants get normal entries of variance 1 / cols, diagonals random signs, which together keep the variance of a
    random input through any number of factors (arXiv:1901.10255). "zero" and "gradient" then make the first diagonal
    zero: exactly one factor, so that its gradient is not.
    """
    with torch.no_grad():
        if init == "gradient" and gradient is not None:
            # Of all products D C D with a zero first diagonal, the one whose first step follows the gradient best.
            fitted = fitted_vectors(gradient, factors)[1]
            for factor, vector in zip(factors, fitted, strict=True):
                factor.copy_(vector)
            _balance(factors, cols)
        else:
            for factor, size in zip(factors, cols, strict=True):
                if factor.ndim == 1:
                    _random_signs(factor, generator)
                else:
                    factor.normal_(0, size**-0.5, generator=generator)
        if init != "normal":
            factors[0].zero_()


def fitted_vectors(change: Tensor, factors: Sequence[Tensor]) -> tuple[FitResult, list[Tensor]]:
    """Fit a dense change by a product with vectors of these shapes; return the fit and the vectors."""
    dense = change.detach().to(torch.promote_types(change.dtype, torch.float32)).cpu()
    result = fit_cdd(dense, len(factors), block_size=factors[1].shape[-1], rng=0)
    vectors = [
        _vector(factor).reshape(like.shape) for factor, like in zip(result.operator.factors, factors, strict=True)
    ]
    return result, [vector.to(like) for vector, like in zip(vectors, factors, strict=True)]


def _vector(factor: Any) -> Tensor:
    return factor.d if hasattr(factor, "d") else factor.c


def _balance(factors: Sequence[Tensor], cols: Sequence[int]) -> None:
    """Scale every factor but the first to the size that a random start has; only directions are kept."""
    for factor, size in zip(factors[1:], cols[1:], strict=True):
        wanted = 1.0 if factor.ndim == 1 else size**-0.5
        factor.mul_(wanted / factor.square().mean().sqrt().clamp_min(torch.finfo(factor.dtype).tiny))
