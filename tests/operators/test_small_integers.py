"""Integers of NumPy as arguments: what is computed of them does not overflow in their own dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import structmat as sm

pytest.importorskip("structmat.torch")

M = np.random.default_rng(0).standard_normal((12, 12))
SMALL = sm.Circulant(np.array([0.5, 0.3, 0.2]))
LARGE = sm.Toeplitz(0.5 ** np.arange(200.0)) + sm.Diagonal(np.linspace(1.0, 2.0, 200))
LARGER = sm.Toeplitz(0.5 ** np.arange(3000.0)) + sm.Diagonal(np.linspace(1.0, 2.0, 3000))


def kind_and_shape(op: Any) -> Any:
    return type(op), op.shape


CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "BandedCirculant": (lambda n, start: sm.BandedCirculant(np.ones(3), n, start).to_dense(), (100, 120)),
    "Identity": (lambda n: sm.Identity(n).to_dense(), (120,)),
    "Fourier": (lambda n, blocks: sm.Fourier(n, blocks).matvec(np.ones(300)), (100, 3)),
    "Fourier on a grid": (lambda sizes: sm.Fourier(sizes).matvec(np.ones(300)), ((100, 3),)),
    "BlockCirculant": (lambda shape: sm.BlockCirculant(np.ones((3, 3, 40)), shape).to_dense(), ((110, 115),)),
    "BlockCirculant.nearest": (lambda b: sm.BlockCirculant.nearest(np.ones((200, 200)), b).to_dense(), (100,)),
    "MultilevelCirculant": (lambda sizes: sm.MultilevelCirculant(np.arange(200.0), sizes).to_dense(), ((100, 2),)),
    "MultilevelToeplitz": (
        lambda rows, cols: kind_and_shape(sm.MultilevelToeplitz(np.ones(219 * 2), rows, cols)),
        ((120, 2), (100, 1)),
    ),
    "from_kernel": (lambda levels: sm.MultilevelCirculant.from_kernel(np.ones((10, 20)), levels).sizes, (2,)),
    "power": (lambda k: (SMALL**k).to_dense(), (100,)),
    "fractional_matrix_power": (lambda k: SMALL.fractional_matrix_power(k).to_dense(), (100,)),
    "solve": (lambda k: sm.solve(LARGE, np.ones(200), max_iter=k).x, (120,)),
    "lstsq": (lambda k: sm.lstsq(LARGE, np.ones(200), max_iter=k).x, (120,)),
    "slogdet": (lambda probes, k: sm.slogdet(LARGER, n_probes=probes, max_iter=k, rng=0).logabsdet, (30, 100)),
    "sample_stationary": (
        lambda n, count: sm.sampling.sample_stationary(lambda k: 0.5**k, n, count, rng=0),
        (100, 120),
    ),
    "sample_stationary, on a grid": (
        lambda shape, seed: sm.sampling.sample_stationary(lambda k, m: 0.5 ** (k + m), shape, rng=seed),
        ((100, 30), 100),
    ),
    "fit_cdd": (
        lambda n, b, restarts, k: sm.fit_cdd(M, n_factors=n, block_size=b, restarts=restarts, max_iter=k, rng=0).error,
        (3, 4, 2, 100),
    ),
    "fit_cdd, five factors": (lambda n, k: sm.fit_cdd(M, n_factors=n, max_iter=k, rng=0).error, (5, 100)),
    "error_curve": (lambda *n: [result.error for result in sm.error_curve(M, n, rng=0).results], (3, 5)),
    "CDDAdapter": (
        lambda *sizes: [
            v.shape for v in sm.torch.CDDAdapter(*sizes[:2], n_factors=sizes[2], block_size=sizes[3]).parameters()
        ],
        (100, 120, 3, 60),
    ),
}


def in_dtype(value: Any, kind: str) -> Any:
    return tuple(np.dtype(kind).type(v) for v in value) if isinstance(value, tuple) else np.dtype(kind).type(value)


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint64"])
@pytest.mark.parametrize("call", CALLS)
def test_small_integers_of_numpy_are_integers(call: str, kind: str) -> None:
    function, arguments = CALLS[call]
    found = function(*(in_dtype(value, kind) for value in arguments))
    expected = function(*arguments)
    assert found == expected if isinstance(expected, (tuple, list)) else np.array_equal(found, expected)
