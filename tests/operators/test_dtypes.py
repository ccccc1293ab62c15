"""Dtypes and devices follow the inputs: nothing is cast to real, widened, truncated or moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm

rng = np.random.default_rng(11)


def test_complex_is_not_cast_to_real() -> None:
    c, x = rng.standard_normal(5), rng.standard_normal(5) + 1j * rng.standard_normal(5)
    for op, v in ((sm.Circulant(c), x), (sm.Circulant(x), c), (sm.Circulant(c).to_spectral(), x)):
        assert np.linalg.norm(np.imag(op.matvec(v))) > 0.1


def test_single_precision_is_not_widened() -> None:
    c = rng.standard_normal(9).astype("float32")
    C = sm.Circulant(c)
    for value in (
        C.matvec(c), C.to_spectral().matvec(c), C.inv().c, (2.5 * C).c, C.to_dense(), C.norm(), C.svdvals(),
        sm.Diagonal(c).solve(c), (C + sm.Identity(9)).c, sm.Circulant.nearest(np.outer(c, c)).c,
        sm.preconditioners.tyrtyshnikov(c).c,
    ):  # fmt: skip
        assert value.dtype == "float32"
    assert sm.Circulant(c).eigvals().dtype == "complex64"


def test_the_order_of_bytes_does_not_matter() -> None:
    c, x = rng.standard_normal((2, 300))
    swapped = sm.Circulant(c.astype(">f8"))
    assert swapped.dtype == "float64"
    for op in (swapped, swapped.prepare(), sm.Circulant(c).prepare()):
        for v in (x, np.stack([x, x])):
            np.testing.assert_allclose(op.matvec(v.astype(">f8")), sm.Circulant(c).matvec(v))


def test_integers_are_not_truncated() -> None:
    C = sm.Circulant([0.5, 0.25, 0.0])
    np.testing.assert_allclose(C @ np.array([1, 1, 1]), 0.75)
    assert sm.Circulant(np.array([1, 2, 3])).inv().c.dtype == "float64"
    np.testing.assert_allclose(C @ [1, 0, 0], [0.5, 0.25, 0.0], atol=1e-15)
    assert (sm.Circulant(np.ones(2, "float32")) @ [1, 2]).dtype == "float32"


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
    for make in (sm.preconditioners.chan, sm.preconditioners.strang, sm.preconditioners.tyrtyshnikov):
        assert make(T).device == x.device
