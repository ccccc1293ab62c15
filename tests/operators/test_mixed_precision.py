"""Operators made of parts of several precisions: computed in the widest, whatever the vector and the library."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend, get

MAKERS: dict[str, tuple[int, Callable[..., sm.LinearOperator]]] = {
    "CDDProduct": (3, sm.CDDProduct.from_vectors),
    "Product": (2, lambda c, d: sm.Product((sm.Circulant(c), sm.Toeplitz(d)))),
    "Product of prepared ones": (2, lambda c, d: sm.Product((sm.Circulant(c).prepare(), sm.Toeplitz(d).prepare()))),
    "Sum": (2, lambda c, d: sm.Sum((sm.Circulant(c), sm.Hankel(d)))),
    "Scaled": (2, lambda c, d: sm.Scaled(sm.BlockCirculant(c[None, None, None, :]), d[:1])),  # without axes it is light
    "Toeplitz": (2, sm.Toeplitz),
    "ToeplitzInverse": (2, sm.ToeplitzInverse),
}
VECTORS = np.array([[9.0, 1.0, -2.0, 4.0, 3.0], [11.0, 2.0, 5.0, -1.0, 2.0], [8.0, -3.0, 1.0, 1.0, 2.0]])
"""Small integers, which every precision holds, so that only computations tell precisions."""


def as_double(value: Any, backend: Backend) -> np.ndarray:
    xp = backend.xp
    value = value if isinstance(value, np.generic) else xp.asarray(value)
    return np.asarray(value) if backend.name == "numpy" else np.asarray(backend.to_numpy(value.to(xp.complex128)))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("library", "half"), [("numpy", "float16"), ("torch", "bfloat16")])
def test_results_are_as_good_as_the_widest_part(library: str, half: str, name: str) -> None:
    backend, (count, make) = get(library), MAKERS[name]
    reference, x = make(*VECTORS[:count]), np.arange(5.0)
    exact = {"matvec": reference.matvec(x), "rmatvec": reference.rmatvec(x), "to_dense": reference.to_dense()}
    with suppress(NotImplementedError):
        exact |= {"solve": reference.solve(x), "det": reference.det()}
    for pair in ((half, "float32"), ("float32", half), ("float64", "float32"), ("complex64", "float64")):
        parts = [backend.xp.asarray(v, dtype=backend.dtype(pair[i % 2])) for i, v in enumerate(VECTORS[:count])]
        op, tolerance = make(*parts), 1e-12 if "float64" in pair else 1e-4
        b = backend.xp.asarray(x, dtype=op.dtype)
        for operator in (op, op.prepare()):
            for method, wanted in exact.items():
                got = as_double(getattr(operator, method)(*[b] * (method not in {"to_dense", "det"})), backend)
                assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max(), (pair, method)


def test_prepared_parts_are_as_accurate_as_wide_vectors_ask_for() -> None:
    rng = np.random.default_rng(0)
    c, t, x = rng.standard_normal((3, 40)).astype(np.float32)
    parts = sm.Circulant(c), sm.Toeplitz(t)
    first, second = (part.to_dense().astype(float) for part in parts)
    wide = x.astype(float)
    for op, exact in (
        (sm.Product(tuple(part.prepare() for part in parts)), first @ (second @ wide)),
        (sm.Sum(tuple(part.prepare() for part in parts)), first @ wide + second @ wide),
    ):
        for lifted in (op, op.prepare(), op.astype("float64"), op.astype("complex128")):
            np.testing.assert_allclose(lifted.matvec(wide), exact, rtol=0, atol=1e-13 * np.abs(exact).max())


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_quotients_are_computed_in_the_precision_of_the_operator(library: str) -> None:
    backend = get(library)
    c = np.array([1.0, 2.0, 3.0])
    C = sm.Circulant(backend.xp.asarray(c))
    for factor in (np.float32(3), np.complex64(1 - 2j), np.float64(3), np.int8(7), np.float16(3)):
        quotients = [C / factor, (C @ sm.Toeplitz(C.c)) / factor @ sm.Toeplitz(C.c).inv()]
        if library == "torch":
            quotients.append(C / backend.xp.asarray(np.asarray(factor)))
        for quotient in quotients:
            got, wanted = as_double(quotient.to_dense(), backend), sm.Circulant(c).to_dense() / complex(factor)
            np.testing.assert_allclose(got, wanted, rtol=1e-14, atol=1e-14)
    stack = sm.Circulant(backend.xp.asarray(np.ones((2, 3)))) / backend.xp.asarray(np.float32([3.0, 7.0]))
    np.testing.assert_allclose(as_double(stack.to_dense(), backend)[:, 0, 0], [1 / 3, 1 / 7], rtol=1e-15)


def test_quotients_have_the_dtypes_of_numpy() -> None:
    for dtype, kind in product(("float16", "float32", "float64", "complex64"), ("float32", "float64", "int64", "int8")):
        factor, values = np.dtype(kind).type(2), np.ones(3, dtype)
        assert (sm.Circulant(values) / factor).dtype == (values / factor).dtype, (dtype, kind)
    assert (sm.Identity(3) / np.float32(3)).dtype is None
    np.testing.assert_array_equal((sm.Identity(1) / np.float32(3)).to_dense(), 1 / 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("library", ["numpy", "torch", "array_api_strict"])
def test_a_multiple_of_the_identity_takes_the_precision_of_its_neighbours(library: str, dtype: str) -> None:
    backend = get(library)
    c = np.array([2.0, 0.1, 0.3])
    T, third = sm.Toeplitz(backend.xp.asarray(c, dtype=backend.dtype(dtype))), sm.Identity(3) / 3
    dense = sm.Toeplitz(c).to_dense()
    total, multiple = sm.Sum((T, third)), sm.Product((T, third))
    for got, wanted in (
        (total.diagonal(), 2.0 + np.ones(3) / 3),
        (total.trace(), 7.0),
        (multiple.det(), np.linalg.det(dense) / 27),
        (multiple.slogdet()[1], np.log(np.linalg.det(dense) / 27)),
    ):
        rtol = 1e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(np.asarray(backend.to_numpy(got)), wanted, rtol=rtol)
        assert dtype != "float32" or got.dtype == T.dtype
