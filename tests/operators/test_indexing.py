"""Entries, rows, columns and blocks by `op[...]`: what is refused, and what libraries that differentiate see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

import structmat as sm

rng = np.random.default_rng(17)
T = sm.Toeplitz(rng.standard_normal(4), rng.standard_normal(3))


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (4, IndexError, r"^Toeplitz\[i, j\]: 4 is none of the 4 rows or columns"),
        (-5, IndexError, "-5 is none of the 4"),
        ((0, 3), IndexError, "3 is none of the 3"),
        (slice(2, 2), IndexError, r"slice\(2, 2, None\) is none of the 4"),
        (
            slice(None, None, 2),
            IndexError,
            r"a step of one, got slice\(None, None, 2\); op\.to_dense\(\)\[\.\.\.\] takes",
        ),
        ((slice(None), slice(None, None, -1)), IndexError, "a step of one"),
        (..., TypeError, r"integers and slices of step one, got ellipsis; op\.to_dense\(\)\[\.\.\.\] takes any index"),
        (None, TypeError, "got NoneType"),
        ([0, 1], TypeError, "got list"),
        (np.array([1]), TypeError, "got ndarray"),
        (np.ones((4, 3), bool), TypeError, "got ndarray"),
        (True, TypeError, "got bool"),
        (1.0, TypeError, "got float"),
        (slice(1.0, 2), TypeError, r"got slice\(1\.0, 2, None\)"),
        ((), TypeError, "takes rows and columns, got 0 indices"),
        ((0, 1, 2), TypeError, "got 3 indices"),
    ],
    ids=str,
)
def test_other_indices_are_refused(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        T[index]


def test_integers_of_numpy_are_integers() -> None:
    dense = T.to_dense()
    assert T[np.int64(1), np.array(2)] == dense[1, 2]
    assert isinstance(T[0, 0], np.float64)
    np.testing.assert_array_equal(T[np.uint8(3)], dense[3])


def test_an_operator_is_no_sequence() -> None:
    assert not isinstance(T, Iterable | Sequence)
    for call in (lambda: iter(T), lambda: list(T), lambda: len(T), lambda: 1.0 in T, lambda: [*T], lambda: reversed(T)):  # type: ignore[arg-type,call-overload]
        with pytest.raises(TypeError):
            call()
    assert T in [sm.Identity(3), T]
    assert T not in [sm.Identity(3), sm.Identity(4)]
    assert T.ndim == len(T.shape) == np.ndim(T) == sm.Circulant(np.ones((5, 2, 3))).ndim == 2


def test_entries_beside_infinite_ones_are_numbers() -> None:
    D = sm.Diagonal([1.0, np.inf, np.nan])
    np.testing.assert_array_equal([D[i, j] for i in range(3) for j in range(3)], np.diag([1.0, np.inf, np.nan]).ravel())
    np.testing.assert_array_equal(D[0], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(D[:, 2], [0.0, 0.0, np.nan])


def test_blocks_cost_no_dense_matrix() -> None:
    n = 300_000
    for op in (sm.Toeplitz(np.ones(n)), sm.Hankel(np.ones(n)), sm.Circulant(np.ones(n)), sm.Diagonal(np.ones(n))):
        assert op[1 : n - 2, 1 : n - 2].shape == (n - 3, n - 3)
        assert op[n - 1, n - 1] == (0.0 if isinstance(op, sm.Hankel) else 1.0)
    S = sm.Circulant(np.ones(n)) + sm.Diagonal(np.ones(n))
    np.testing.assert_allclose([S[0, 0], S[0, 1], S[5][5]], [2.0, 1.0, 2.0], atol=1e-12)


OPERATORS = {
    "Toeplitz": sm.Toeplitz,
    "Hankel": sm.Hankel,
    "Circulant": lambda c, _: sm.Circulant(c),
    "Diagonal": lambda c, _: sm.Diagonal(c),
    "Sum": lambda c, r: sm.Circulant(c) + sm.Diagonal(r),
}
operators = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)


def number(op: Any, *, dense: bool = False) -> Any:
    """One number from an entry, a row, a column and a block, of an operator or its matrix; a `Sum` has no blocks."""
    A = op.to_dense() if dense else op
    total = A[2, 1] ** 2 + A[1].sum() + (A[:, 0] ** 3).sum()
    return total if isinstance(op, sm.Sum) else total + (A[1:3, 1:3] @ A[1, 1:]).sum()


@operators
def test_jax_traces_indices(make: Any) -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    pytest.importorskip("structmat.jax")
    c, r = jax.numpy.asarray(rng.standard_normal((2, 3)))

    def f(c: Any, r: Any) -> Any:
        return number(make(c, r))

    def of_dense(c: Any, r: Any) -> Any:
        return number(make(c, r), dense=True)

    np.testing.assert_allclose(jax.jit(f)(c, r), of_dense(c, r), atol=1e-12)
    np.testing.assert_allclose(jax.grad(f)(c, r), jax.grad(of_dense)(c, r), atol=1e-12)
    stack = jax.numpy.stack([c, 2 * c])
    np.testing.assert_allclose(jax.vmap(f, (0, None))(stack, r), [of_dense(v, r) for v in stack], atol=1e-12)
    with pytest.raises(TypeError, match="takes integers and slices"):
        jax.jit(lambda i: make(c, r)[i, 0])(1)


@operators
def test_torch_differentiates_through_indices(make: Any) -> None:
    torch = pytest.importorskip("torch")
    c, r = (torch.tensor(v, requires_grad=True) for v in rng.standard_normal((2, 3)))
    assert torch.autograd.gradcheck(lambda c, r: number(make(c, r)), (c, r))
    torch.testing.assert_close(number(make(c, r)), number(make(c, r), dense=True))
