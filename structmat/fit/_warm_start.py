"""The product that the user gives to start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from structmat._arguments import to_numpy
from structmat._array_tools import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat.fit._result import FitResult
from structmat.fit._start_product import KnownProduct
from structmat.operators import CDDLayout, CDDProduct

__all__ = ["WARM_START", "known_product", "warm_start"]

WARM_START = "warm start"
"""The name of such a start."""


def warm_start(start: Any, layout: CDDLayout, *, real: bool) -> KnownProduct | None:
    """Return the product of the argument `start` of `fit_cdd`, None for "auto".

    `real` tells whether the matrix is real.
    """
    if isinstance(start, str) and start == "auto":
        return None
    product = start.operator if isinstance(start, FitResult) else start
    if not isinstance(product, CDDProduct):
        raise ArgumentTypeError("fit_cdd", "start", f'must be "auto", a CDDProduct or a FitResult, got {start!r}')

    _check_layout(product, layout)
    known = known_product(WARM_START, product)
    if real and any(map(np.iscomplexobj, known.vectors)):
        raise _refusal("must be real where W is, got complex factors")
    if not all(np.isfinite(vector).all() for vector in known.vectors):
        raise _refusal("must be finite, got NaN or infinity")
    return known


def _check_layout(product: CDDProduct, layout: CDDLayout) -> None:
    """Refuse a product that does not become one of the layout with identities appended."""
    if product.shape != layout.shape:
        raise _refusal(f"must have shape {layout.shape}, got {tuple(product.shape)}")
    if product.batch_shape:
        raise _refusal(f"must be one product, got a stack of shape {product.batch_shape}")
    try:
        own = CDDLayout.of(product)
    except ArgumentError as error:
        raise _refusal(f"must have the factors that such a fit has: its product {error.text}") from error
    if own.block_size != layout.block_size and own.n_factors > 1:
        raise _refusal(f"must have blocks of {layout.block_size}, got blocks of {own.block_size}")
    count, first = own.n_factors, own.first
    if count + (first != layout.first) > layout.n_factors or count < layout.fewest_factors:
        raise _refusal(
            f"must become a product of {layout.n_factors} factors, the first {layout.first}, with identities "
            f"appended, got {count} factors, the first {first}"
        )


def _refusal(text: str) -> ArgumentValueError:
    return ArgumentValueError("fit_cdd", "start", text)


def known_product(name: str, product: CDDProduct) -> KnownProduct:
    """Return a product by its vectors in double precision."""
    layout = CDDLayout.of(product)
    vectors = [to_numpy(vector) for vector in layout.vectors_of(product)]
    return KnownProduct(name, layout.first, [v.astype(np.result_type(v.dtype, np.float64)) for v in vectors])
