"""What results in half precision say of themselves holds for the rounded numbers that are returned."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend, on

N = 24
DECAY = np.append(4.0, 0.7 ** np.arange(1, N))
BAND = np.where(np.arange(N) < 2, DECAY, 0.0)
NOISE = np.linspace(1.0, 3.0, N)

MATRICES: dict[str, Any] = {
    "closed form, diagonal": lambda a: sm.Diagonal(a(NOISE)),
    "closed form, circulant": lambda a: sm.Circulant(a(BAND)),
    "closed form, Toeplitz": lambda a: sm.Toeplitz(a(DECAY)),
    "band": lambda a: sm.Toeplitz(a(BAND)) + sm.Diagonal(a(NOISE)),
    "dense": lambda a: sm.Toeplitz(a(DECAY)) + sm.Diagonal(a(NOISE)),
}


def in_half(backend: Backend) -> Any:
    """A function that gives an array of the library in half precision."""
    return lambda values: backend.xp.asarray(values, dtype=backend.dtype(backend.half))


def widened(backend: Backend, values: Any) -> Any:
    """Return the numbers in double precision."""
    return np.asarray([float(value) for value in values])


def dense_of(backend: Backend, build: Any) -> Any:
    """Return a matrix, of parts that are rounded to half precision, without any further rounding."""
    return build(lambda values: widened(backend, in_half(backend)(values))).to_dense()


@on("numpy", "torch")
@pytest.mark.parametrize("name", MATRICES)
def test_errors_are_those_of_what_is_returned(name: str, backend: Backend) -> None:
    half, dense = in_half(backend), dense_of(backend, MATRICES[name])
    A = MATRICES[name](half)
    b = half(np.sin(np.arange(N)))
    right = widened(backend, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the matrix is ill-conditioned
        for function in (sm.solve, sm.lstsq):
            x, residual, _ = function(A, b)
            left = np.linalg.norm(right - dense @ widened(backend, x)) / np.linalg.norm(right)
            assert float(residual) == pytest.approx(left, rel=1e-2)
    found = sm.slogdet(A)
    assert found.standard_error.dtype == found.logabsdet.dtype == A.dtype
    error = abs(float(found.logabsdet) - np.linalg.slogdet(dense)[1])
    assert error <= float(found.standard_error) <= 1e-2 * abs(float(found.logabsdet))


@on("numpy", "torch")
def test_errors_of_variances_are_those_of_what_is_returned(backend: Backend) -> None:
    half = in_half(backend)
    seen = np.arange(N) % 3 > 0
    noise = float(half(0.1))
    variances, error = sm.posterior_variances(sm.Toeplitz(half(DECAY)), noise, seen)
    wide = sm.posterior_variances(sm.Toeplitz(widened(backend, half(DECAY))), noise, seen)
    difference = np.max(np.abs(widened(backend, variances) - wide.variances))
    assert difference <= float(error) <= 0.1
