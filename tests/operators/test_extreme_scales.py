"""Matrices at the ends of the range: quotients and solutions overflow and underflow only where they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend, along_last_axis
from tests.operator_registry import REGISTRY, Entry, Sample, Vectors
from tests.operators.test_laws import check

SUBNORMAL, TINY, HUGE = 2.0**-1030, 2.0**-1010, 2.0**1015
SOLVED = [entry for entry in REGISTRY if "solve" in entry.closed_forms]


def skip_flushed(backend: Backend) -> None:
    if backend.name == "jax":
        pytest.skip("XLA flushes subnormal numbers to zero")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
def test_quotients_are_not_made_by_reciprocals(backend: Backend, entry: Entry, dtype: str) -> None:
    skip_flushed(backend)

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        for factor in (SUBNORMAL, 3.0):
            divisors = [factor, factor + 0j, np.float64(factor)]
            if op.dtype is not None:  # else the library divides a number by its array
                divisors.append(backend.asarray(np.asarray(factor)))
            for divisor in divisors:
                again = (op * factor / divisor).to_dense()
                actual = np.asarray(again) if op.dtype is None and isinstance(again, np.ndarray) else again
                actual = actual if isinstance(actual, np.ndarray) else backend.to_numpy(actual)
                np.testing.assert_allclose(actual, dense, rtol=0, atol=1e-11 * max(1, np.max(np.abs(dense))))

    check(backend, entry, law, dtype=dtype)


@pytest.mark.parametrize("kind", [sm.Circulant, sm.Diagonal, sm.Toeplitz], ids=lambda k: k.__name__)
@pytest.mark.parametrize("divisor", [3, 3.0, np.float32(0.1), 1e-310, 2 - 1j], ids=repr)
def test_quotients_are_those_of_the_entries(kind: Any, divisor: Any) -> None:
    entries = np.array([2e-310, 1.0, -0.7, 0.3])
    entries = entries * 1e-300 if divisor == 1e-310 else entries
    rounding = 1e-12 if isinstance(divisor, complex) else 0
    np.testing.assert_allclose((kind(entries) / divisor)._arrays()[0], entries / divisor, rtol=rounding)


@pytest.mark.parametrize("scale", [SUBNORMAL, TINY, HUGE])
@pytest.mark.parametrize("entry", SOLVED, ids=lambda e: e.name)
def test_solutions_do_not_depend_on_the_scale(backend: Backend, entry: Entry, scale: float) -> None:
    skip_flushed(backend)

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if op.dtype is None or np.max(np.linalg.cond(dense)) > 100:
            return
        x = v(*dense.shape[:-1])
        b = backend.asarray(scale * np.einsum("...ij,...j->...i", dense, x))
        scaled = op * scale
        found = along_last_axis(sm.solve, scaled, b)
        for solution in (scaled.inv_matvec(b), scaled.prepare().inv_matvec(b), found.x):
            np.testing.assert_allclose(backend.to_numpy(solution), x, atol=1e-9 * np.max(np.abs(x)))

    check(backend, entry, law, dtype="float64")


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("scale", [5e-310, 2.0**1022])
@pytest.mark.parametrize("n", [4, 200, 251])
def test_sums_beyond_the_range_do_not_spoil_solutions(n: int, scale: float, complex_: bool) -> None:
    rng = np.random.default_rng(n)
    c, b = rng.uniform(-1, 1, (2, n)) + (1j * rng.uniform(-0.5, 0.5, (2, n)) if complex_ else 0)
    c[0] = 1.5
    for make in (
        sm.Circulant,
        lambda c: sm.MultilevelCirculant(c, (1, n)),
        lambda c: sm.BlockCirculant(c[None, None]),
    ):
        expected = make(c).solve(b)
        np.testing.assert_allclose(make(c * scale).solve(b * scale), expected, atol=1e-9 * np.max(np.abs(expected)))


@pytest.mark.parametrize("p", [1, 2, np.inf, "fro", "nuc"])
@pytest.mark.parametrize("scale", [5e-310, 1e306])
def test_condition_numbers_do_not_depend_on_the_scale(p: Any, scale: float) -> None:
    c = np.array([3.0, 1.0, 0.5, -0.25])
    for make in (
        sm.Circulant,
        sm.Diagonal,
        lambda c: sm.MultilevelCirculant(c, (2, 2)),
        lambda c: sm.BlockCirculant(c[None, None]),
        lambda c: c[0] * sm.Identity(4),
    ):
        np.testing.assert_allclose(make(c * scale).cond(p), np.linalg.cond(make(c).to_dense(), p), rtol=1e-9)


@pytest.mark.parametrize("entry", [e for e in REGISTRY if "cond" in e.closed_forms], ids=lambda e: e.name)
def test_the_condition_number_of_nan_is_nan(backend: Backend, entry: Entry) -> None:
    if "Toeplitz" in entry.name or "Hankel" in entry.name or backend.compiles:
        pytest.skip("estimates, whose inverse is found in other ways")

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if op.dtype is None:
            return
        unknown = op * float("nan")
        for p in (2, 1, "nuc") if dense.shape[-2] == dense.shape[-1] else (2,):
            assert np.all(np.isnan(backend.to_numpy(unknown.cond(p))))

    with np.errstate(invalid="ignore"):
        check(backend, entry, law)
