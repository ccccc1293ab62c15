"""Dtypes and devices follow the inputs: nothing is cast to real, widened, truncated or moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend

rng = np.random.default_rng(11)


def test_single_precision_is_not_widened() -> None:
    c = rng.standard_normal(9).astype("float32")
    C = sm.Circulant(c)
    for value in (
        C.matvec(c), C.to_spectral().matvec(c), C.inv().c, (2.5 * C).c, C.to_dense(), C.norm(), C.svdvals(),
        sm.Diagonal(c).solve(c), (C + sm.Identity(9)).c, sm.Circulant.nearest(np.outer(c, c)).c,
        sm.preconditioners.chan(c).c, sm.preconditioners.strang(c).c,
    ):  # fmt: skip
        assert value.dtype == "float32"
    assert sm.Circulant(c).eigvals().dtype == "complex64"


def test_lists_take_the_dtype_of_the_operator() -> None:
    for dtype in ("float32", "float64", "complex64"):
        assert (sm.Circulant(np.ones(3, dtype)) @ [1, 2.5, 3]).dtype == dtype
        assert ([[1, 2.5, 3]] @ sm.Circulant(np.ones(3, dtype))).dtype == dtype
        assert ([1, 2.5, 3] @ sm.Circulant(np.ones(3, dtype))).dtype == dtype
    assert (sm.Identity(3) @ [1, 2.5, 3]).dtype == "float64"
    for dtype in ("float64", "complex128"):
        np.testing.assert_array_equal(sm.Diagonal(np.ones(3, dtype)) @ [1j, 2.5, 3], [1j, 2.5, 3])


def test_integers_keep_their_digits_on_both_sides(backend: Backend) -> None:
    """Whatever the default dtype of the library: a matrix of float64 multiplies in float64."""
    value = 2**24 + 1
    C = sm.Circulant(backend.asarray(np.eye(3)[0]))
    x = backend.asarray(np.array([value, 0, 0]))
    X = x[None, :]
    left = [op.__rmatmul__(v) for op in (C, C.prepare()) for v in (x, X)]  # as strict arrays do not ask for it
    for product in (C @ x, (C @ X.T)[:, 0], left[0], left[1][0, :], left[2], left[3][0, :]):
        assert float(product[0]) == value
    for rows in ([[value, 0, 0]] @ C, [[value, 0, 0]] @ C.prepare()):
        assert float(rows[0, 0]) == value


def test_numpy_takes_its_own_names_of_dtypes() -> None:
    C = sm.Circulant(np.ones(3, "float32"))
    for dtype in (float, "f8", "<f8", ">f8", "double", np.float64, np.dtype("float64")):
        assert C.astype(dtype).dtype == "float64"
    assert C.astype(complex).dtype == "complex128"


def test_the_order_of_bytes_does_not_matter() -> None:
    c, x = rng.standard_normal((2, 300))
    swapped = sm.Circulant(c.astype(">f8"))
    assert swapped.dtype == "float64"
    for op in (swapped, swapped.prepare(), sm.Circulant(c).prepare()):
        for v in (x, np.stack([x, x])):
            np.testing.assert_allclose(op.matvec(v.astype(">f8")), sm.Circulant(c).matvec(v))
    assert sm.Circulant(c.astype(">c16")).dtype == sm.Circulant([1, 2j]).dtype == "complex128"
    np.testing.assert_array_equal(sm.Circulant((1j * c).astype(">c16")).c, 1j * c)


def test_nothing_leaves_the_device() -> None:
    strict = pytest.importorskip("array_api_strict")

    def a(values: Any) -> Any:
        return strict.asarray(np.array(values), device=strict.Device("device1"))  # refuses to meet the default one

    x = a(rng.standard_normal(4))
    T, H = (kind(a(rng.standard_normal(4)), a(rng.standard_normal(4))) for kind in (sm.Toeplitz, sm.Hankel))
    for op in (
        T,
        H,
        sm.Circulant(x),
        sm.Diagonal(x),
        T + sm.Identity(4),
        T + sm.Circulant(x),
        type(T).nearest(H.to_dense()),
    ):
        results = [
            op.matvec(x),
            op.rmatvec(x),
            op.to_dense(),
            op.T.to_dense(),
            op.trace(),
            *map(op.norm, ("fro", 1, np.inf)),
        ]
        assert {str(result.device) for result in results} == {str(x.device)}
    for make in (sm.preconditioners.chan, sm.preconditioners.strang):
        assert make(T).device == x.device


def test_half_precision_does_not_overflow_on_the_way(backend: Backend) -> None:
    if backend.half is None:
        pytest.skip("the library has no half precision")
    if backend.compiles:
        pytest.skip("compiles too much")
    halves = [getattr(backend.xp, name) for name in {"float16", backend.half}]
    singles = [
        np.full((64, 64), 3e4),
        np.full((7, 64), 900.0),
        np.full(2000, 3e4),
        rng.standard_normal(12) + 9.0 * np.eye(12)[0],
    ]
    cast = (lambda a, d: a.to(d)) if backend.name == "torch" else (lambda a, d: a.astype(d))
    calls = [
        (0, sm.Circulant.nearest),
        (0, lambda A: sm.BlockCirculant.nearest(A, 32)),
        (1, lambda A: sm.BlockCirculant.nearest(A, 5)),
        (1, sm.Toeplitz.nearest),
        (0, sm.Hankel.nearest),
        (2, sm.preconditioners.chan),
        (2, sm.preconditioners.strang),
        (3, sm.preconditioners.chan),
        (3, sm.preconditioners.strang),
    ]
    for half in halves:
        for which, call in calls:
            narrow = cast(backend.asarray(singles[which]), half)
            got, expected = call(narrow), call(cast(narrow, backend.xp.float32))
            for a, b in zip(got._arrays(), expected._arrays(), strict=True):
                assert a.dtype == half
                assert bool((a == cast(b, half)).all())
                assert bool(backend.xp.isfinite(a).all())


@pytest.mark.parametrize("function", ["inv", "pinv", "sqrtm", "expm", "logm"])
def test_functions_of_operators_in_half_precision_keep_it(backend: Backend, function: str) -> None:
    if backend.half is None:
        pytest.skip("the library has no half precision")
    if backend.compiles:
        pytest.skip("compiles too much")
    half = getattr(backend.xp, backend.half)
    for op in (sm.Circulant(backend.asarray(np.array([4.0, 1.0, 0.0, 1.0]))), sm.Diagonal(backend.asarray(np.ones(2)))):
        assert getattr(op.astype(half), function)().dtype == half


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_autocast_does_not_lower_the_precision() -> None:
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(0)
    for n in (4, 64, 600):
        operators = [
            sm.Circulant(torch.randn(n)),
            sm.BlockCirculant(torch.randn(2, 2, n // 2)),
            sm.CDDProduct.from_vectors(*torch.randn(3, n)),
            sm.CDDProduct.from_vectors(*torch.randn(3, n), first="circulant"),
            sm.Toeplitz(torch.randn(n)),
            sm.Circulant(torch.randn(n)) @ sm.Toeplitz(torch.randn(n)),
        ]
        x, X = torch.randn(n), torch.randn(3, n)
        for op in operators:
            for P in (op, op.prepare(), op.prepare().T):
                calls = [lambda: P @ x, lambda: P.matvec(X), lambda: P @ X.T, lambda: P.rmatvec(X), P.to_dense]  # noqa: B023
                if isinstance(op, sm.CDDProduct):
                    calls.append(lambda: op.direct_matvec(X))  # noqa: B023
                for call in calls:
                    expected = call()
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        got = call()
                    torch.testing.assert_close(got, expected)


def test_combinations_with_a_fourier_matrix_are_complex() -> None:
    for op in (
        sm.Fourier(4) @ sm.Circulant(np.ones(4, "float32")),
        sm.Circulant(np.ones(4, "float32")) + sm.Fourier(4),
    ):
        assert op.dtype == (op @ np.ones(4, "float32")).dtype == op.to_dense().dtype == np.dtype("complex64")


def test_scalars_without_axes_count_for_what_they_do_in_their_library(backend: Backend) -> None:
    """In torch an array without axes widens others of its kind only; elsewhere it counts like any array."""
    vectors = {dtype: backend.asarray(np.ones(4, dtype)) for dtype in ("float32", "complex64")}
    scalars = [backend.asarray(np.asarray(2, dtype)) for dtype in ("float32", "float64", "complex64", "complex128")]
    for vector in vectors.values():
        makes = [
            sm.Circulant,
            sm.Diagonal,
            sm.Toeplitz,
            lambda c: sm.MultilevelCirculant(c, (2, 2)),
            lambda c: sm.BlockCirculant(c[None, None, :]),
            lambda c: sm.CDDProduct.from_vectors(c, c, c),
            lambda c: sm.Toeplitz(c) + sm.Diagonal(c),
        ]
        for make in makes:
            for scalar in scalars:
                if backend.name == "array_api_strict" and vector.dtype != scalar.dtype:
                    continue  # which it does not mix
                want = (vector * scalar).dtype
                for op in (make(vector) * scalar, make(vector) / scalar):
                    assert (op.dtype, op.matvec(vector).dtype) == (want, want), (make, scalar.dtype)
