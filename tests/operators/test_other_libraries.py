"""Operators on libraries that need help with the standard: Dask and MLX, by the laws that all operators obey."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat._arrays.libraries import namespace
from structmat.testing._matrix_laws import MATRIX_LAWS
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, every_class
from tests.operators.test_laws import Deferred


def _dask() -> Backend:
    dask = importlib.import_module("dask.array")
    return Backend("dask", dask, lambda a: dask.from_array(np.array(a)), np.asarray, examples=1)


def _mlx() -> Backend:
    mlx = importlib.import_module("mlx.core")
    return Backend("mlx", mlx, lambda a: mlx.array(np.array(a)), np.asarray, examples=1)


FACTORIES = {"dask": _dask, "mlx": _mlx}


@pytest.fixture(params=FACTORIES)
def library(request: pytest.FixtureRequest) -> Backend:
    """The library, or a skip where it is not installed."""
    try:
        return FACTORIES[request.param]()
    except ImportError as error:
        pytest.skip(f"{request.param}: {error}")


@every_class
def test_every_law_holds(library: Backend, entry: Entry) -> None:
    """Of real and of complex numbers in turns, since what the libraries lack is lacking for all operators."""
    dtype = ("float32", "complex64")[REGISTRY.index(entry) % 2]
    sample = entry.fixed_sample(3, dtype == "complex64", dtype=dtype)
    op = sample.make(library.asarray)
    if op.dtype is None:
        pytest.skip("holds no arrays")
    xp = namespace(library.asarray(np.ones(1, np.float32)))
    pair = Deferred(op, sample.dense, np.random.default_rng(0), None, xp)
    results = pair.of_laws(MATRIX_LAWS)
    if library.name == "dask":  # one graph, of which Dask computes what several results share once
        results = importlib.import_module("dask").compute(*results)
    pair.compare(results)


N = 12
COVARIANCE = (0.5 ** np.arange(N)).astype("float32")
NOISE = np.linspace(0.5, 1.5, N).astype("float32")
SIDE = np.cos(np.arange(N)).astype("float32")
SYMMETRIC = np.asarray(sm.Toeplitz(COVARIANCE).to_dense()) + np.diag(NOISE)
TALL = sm.Toeplitz(COVARIANCE + np.eye(1, N, 0, "float32")[0], COVARIANCE[:5])


def _symmetric(a: Any) -> sm.LinearOperator:
    return sm.Toeplitz(a(COVARIANCE)) + sm.Diagonal(a(NOISE))


CALLS: dict[str, tuple[Any, Any]] = {
    "solve": (lambda a: sm.solve(_symmetric(a), a(SIDE)).x, lambda: np.linalg.solve(SYMMETRIC, SIDE)),
    "conjugate gradients": (
        lambda a: sm.solve(_symmetric(a), a(SIDE), assume="positive definite").x,
        lambda: np.linalg.solve(SYMMETRIC, SIDE),
    ),
    "lstsq": (
        lambda a: sm.lstsq(sm.Toeplitz(a(TALL.c), a(TALL.r)), a(SIDE)).x,
        lambda: np.linalg.lstsq(TALL.to_dense(), SIDE)[0],
    ),
    "slogdet": (lambda a: sm.slogdet(_symmetric(a)).logabsdet, lambda: np.linalg.slogdet(SYMMETRIC)[1]),
    "cholesky": (
        lambda a: sm.Toeplitz(a(COVARIANCE)).cholesky(),
        lambda: np.linalg.cholesky(sm.Toeplitz(COVARIANCE).to_dense()),
    ),
    "chan": (
        lambda a: sm.preconditioners.chan(sm.Toeplitz(a(COVARIANCE))).c,
        lambda: sm.preconditioners.chan(sm.Toeplitz(COVARIANCE)).c,
    ),
    "fit_cdd": (
        lambda a: sm.fit_cdd(a(SYMMETRIC), n_factors=3, rng=0).operator.to_dense(),
        lambda: np.asarray(sm.fit_cdd(SYMMETRIC, n_factors=3, rng=0).operator.to_dense()),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_systems_and_fits_are_those_of_numpy(library: Backend, name: str) -> None:
    computed, reference = CALLS[name]
    found = computed(library.asarray)
    assert type(found) is type(library.asarray(SIDE))
    np.testing.assert_allclose(library.to_numpy(found), reference(), rtol=2e-4, atol=2e-4)
