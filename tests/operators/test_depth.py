"""Operators made of operators made of operators: flattened, quick to make, and refused where they are too many."""

from __future__ import annotations

import copy
import pickle
import time
from functools import reduce
from operator import matmul
from pathlib import Path

import numpy as np
import pytest

import structmat as sm
from structmat.operators import _prepared as parts

rng = np.random.default_rng(0)


def horner(steps: int) -> sm.LinearOperator:
    T, D = sm.Toeplitz(0.1 * rng.standard_normal(4)), sm.Diagonal(rng.standard_normal(4))
    p: sm.LinearOperator = D
    for _ in range(steps):
        p = p @ T + D
    return p


def test_nested_products_and_sums_are_flat() -> None:
    C, T = sm.Circulant(rng.standard_normal(3)), sm.Toeplitz(rng.standard_normal(3))
    product, total = sm.Product((sm.Product((T, C)), sm.Product((T,)))), sm.Sum((sm.Sum((T, C)), sm.Sum((C,))))
    assert [type(f) for f in product.factors] == [sm.Toeplitz, sm.Circulant, sm.Toeplitz]
    assert [type(t) for t in total.terms] == [sm.Toeplitz, sm.Circulant, sm.Circulant]
    np.testing.assert_allclose(product.to_dense(), T.to_dense() @ C.to_dense() @ T.to_dense())
    p: sm.LinearOperator = T
    for _ in range(500):
        p = sm.Product((p,))
    assert p.shape == (3, 3)
    assert len(p.factors) == 1


def test_a_loop_makes_an_operator_in_no_time(tmp_path: Path) -> None:
    start = time.process_time()
    p = horner(32)
    assert time.process_time() - start < 2.0
    x = rng.standard_normal(4)
    dense = p.to_dense()
    sm.io.save(p, tmp_path / "p.safetensors")
    for other in (p, p.T.T, p.prepare(), 2 * p / 2, copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        np.testing.assert_allclose(other.matvec(x), dense @ x)
    np.testing.assert_allclose(sm.io.load(tmp_path / "p.safetensors").matvec(x), dense @ x)


def test_long_sums_and_products_take_no_time() -> None:
    """A step costs as little as joining two lists, not a check of everything there is: 400 took 1.3 seconds."""
    toeplitz = [sm.Toeplitz(rng.standard_normal(4)) for _ in range(400)]
    products = [T @ sm.Diagonal(rng.standard_normal(4)) for T in toeplitz]
    start = time.process_time()
    total, rows, cols = sum(products), reduce(matmul, products), reduce(lambda p, f: f @ p, reversed(products))
    assert time.process_time() - start < 1.0  # before, 3.5 seconds
    assert len(total.terms) == 400
    assert len(rows.factors) == len(cols.factors) == 800
    x = rng.standard_normal(4)
    np.testing.assert_allclose(total @ x, sm.Sum(products) @ x)
    np.testing.assert_allclose(rows @ x, sm.Product(products) @ x)
    for whole, checked in ((total, sm.Sum(products)), (rows, sm.Product(products)), (cols, sm.Product(products))):
        assert repr(whole) == repr(checked)
        assert [id(array) for array in whole._arrays()] == [id(array) for array in checked._arrays()]


def test_operators_that_hold_each_other_too_often_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of the recurrence of Chebyshev takes two terms, so that the operators within grow as powers do."""
    monkeypatch.setattr(parts, "_MOST", 500)
    T = sm.Toeplitz(0.1 * rng.standard_normal(4))

    def chebyshev(steps: int) -> None:
        old, p = sm.Diagonal(rng.standard_normal(4)), T @ sm.Diagonal(rng.standard_normal(4))
        for _ in range(steps):
            old, p = p, 2 * (p @ T) - old

    chebyshev(7)
    with pytest.raises(ValueError, match="must not hold more than 500 arrays, each counted as often as it occurs"):
        chebyshev(20)


def test_mixed_chains_are_prepared_in_no_time() -> None:
    """Each plan is made once, also where real and complex parts meet."""
    p: sm.LinearOperator = sm.Diagonal(rng.standard_normal(4) + 1j)
    for _ in range(20):
        p = p @ sm.Toeplitz(0.5 * rng.standard_normal(4)) + sm.Diagonal(rng.standard_normal(4) + 1j)
    start = time.process_time()
    P = p.prepare()
    assert time.process_time() - start < 1.0
    np.testing.assert_allclose(P @ np.ones(4), p.to_dense() @ np.ones(4))
    np.testing.assert_allclose(P.rmatvec(np.ones(4)), p.to_dense().conj().T @ np.ones(4))
