"""Faults that the public checks find without a dense matrix, in operators of structmat and of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import structmat as sm
from structmat.testing import Functions, check_operator, laws
from tests.cases import in_one_test

FLOAT = np.dtype("float64")
M = np.array([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]])
Z = M * (1 + 2j)


class Doubled(sm.Diagonal):
    """A diagonal whose blocks have twice its entries."""

    def _block(self, rows: range, cols: range, xp: Any) -> Any:
        return 2 * super()._block(rows, cols, xp) if len(rows) == len(cols) > 1 else None


class Detached(sm.Diagonal):
    """A diagonal of torch without the gradient of its entries."""

    def _matvec(self, x: Any, xp: Any) -> Any:
        return self.d.detach() * x


def test_a_block_that_doubles_entries_is_found() -> None:
    d = np.array([2.0, 3.0, 5.0])
    for dense in (None, np.diag(d)):
        with pytest.raises(
            AssertionError, match=r"Doubled: .*\(law: blocks; shape=\(3, 3\), dtype=float64; repeat with"
        ):
            check_operator(Doubled(d), dense, rng=0)


def test_a_parameter_that_is_detached_is_found() -> None:
    torch = pytest.importorskip("torch")
    d = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    check_operator(sm.Diagonal(d), rng=0)
    with pytest.raises(AssertionError, match=r"the gradient of matvec by parameter 0 .*\(law: gradients; "):
        check_operator(Detached(d), rng=0)


def writes(x: np.ndarray) -> np.ndarray:
    y = M @ x
    x[0] = 0
    return y


def fails(x: np.ndarray) -> np.ndarray:
    raise ZeroDivisionError("no\nproduct")


KEPT = np.zeros(2)


def reuses(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return M @ x
    KEPT[:] = M @ x
    return KEPT


FAULTS: dict[str, tuple[Any, Any, str]] = {
    "offset": (lambda x: M @ x + 1, lambda y: M.T @ y, "zero"),
    "modulus": (lambda x: M @ np.abs(x), lambda y: M.T @ y, "(additive|homogeneous)"),
    "sign of the adjoint": (lambda x: M @ x, lambda y: -M.T @ y, "adjoint"),
    "conjugate left out": (lambda x: Z @ x, lambda y: Z.T @ y, "adjoint"),
    "real part": (lambda x: M @ x.real, lambda y: M.T @ y, "complex numbers"),
    "single precision": (lambda x: (M @ x).astype("float32"), lambda y: M.T @ y, "zero"),
    "a shape that lies": (lambda x: (M @ x)[:1], lambda y: M.T @ y, "zero"),
    "not finite": (lambda x: M @ x + np.where(np.any(x), np.nan, 0), lambda y: M.T @ y, "zero"),
    "an exception": (fails, lambda y: M.T @ y, "zero"),
    "a written input": (writes, lambda y: M.T @ y, "untouched inputs"),
    "a result that comes back": (reuses, lambda y: M.T @ y, "complex numbers"),
    "random": (lambda x: M @ x * np.random.default_rng().normal(), lambda y: M.T @ y, ""),
}


@in_one_test("fault", FAULTS)
def test_a_fault_of_functions_is_found_in_one_line(fault: str) -> None:
    matvec, rmatvec, law = FAULTS[fault]
    dtype = np.dtype("complex128") if "conjugate" in fault else FLOAT
    with pytest.raises(
        AssertionError, match=rf"\(law: {law}.*; shape=\(2, 3\), dtype={dtype}; repeat with rng=7\)"
    ) as found:
        check_operator(Functions(matvec, rmatvec, (2, 3), dtype), rng=7)
    assert "\n" not in str(found.value)


def test_right_operators_of_scipy_obey_the_laws() -> None:
    rng = np.random.default_rng(0)
    for k in range(8):
        shape = tuple(rng.integers(1, 12, 2))
        dense = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if k % 2 else 0)
        sparse = scipy.sparse.random_array(shape, density=0.3, rng=rng)
        for A in (dense, aslinearoperator(dense), sparse, sparse.astype("float32")):
            check_operator(A, rng=k)


def test_an_operator_without_an_adjoint_obeys_the_others() -> None:
    A = LinearOperator((2, 3), matvec=lambda x: M @ x, dtype=FLOAT)
    check_operator(A, rng=0)
    check_operator(Functions(A.matvec, None, A.shape, A.dtype), rng=0)


def test_an_operator_of_linear_operator_without_tensors_is_checked() -> None:
    torch = pytest.importorskip("torch")
    operators = pytest.importorskip("linear_operator.operators")
    law = {law.name: law for law in laws()}["adjoint"]
    law(operators.ZeroLinearOperator(4, 5, dtype=torch.float32), rng=0)


def test_a_large_operator_is_checked_without_its_matrix() -> None:
    c = np.random.default_rng(0).standard_normal(4096)
    check_operator(sm.Circulant(c), rng=0)


@pytest.mark.parametrize("law", laws())
def test_each_law_has_a_test_of_its_name(law: Any, request: pytest.FixtureRequest) -> None:
    assert law.name in request.node.name
    law(sm.Circulant(np.array([3.0, 1.0, 0.5])), rng=0)
