"""Faults in the hooks of an operator of one's own, each with the law that catches it: the table of hooks and laws.

Every hook of `structmat.extend` is broken in at least one way. What is broken has more rows than a matrix that is
written out, so that no law has one, unless the fault says that it needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat.operators._base.hooks import HOOKS
from structmat.testing import check_operator, laws
from structmat.testing._probe import MOST_ROWS
from tests.cases import in_one_test

N = MOST_ROWS + 2
PROPERTIES = ("shape", "dtype", "_forces_complex")
"""What the docstring of `structmat.extend` names beside the hooks."""


def symmetric(n: int, seed: int) -> np.ndarray:
    """Return the first column of a circulant whose eigenvalues are between 1 and 3."""
    return np.fft.irfft(np.random.default_rng(seed).uniform(1, 3, n // 2 + 1), n)


def asymmetric(n: int) -> np.ndarray:
    """Return a complex one without symmetry, with eigenvalues of moduli between 1 and 3."""
    rng = np.random.default_rng(0)
    return np.fft.ifft(rng.uniform(1, 3, n) * np.exp(2j * np.pi * rng.random(n)))


def entries(n: int) -> np.ndarray:
    """Return numbers of both signs with moduli between 1 and 3."""
    return np.random.default_rng(0).uniform(1, 3, n) * (-1) ** np.arange(n)


OPERATORS: dict[str, Callable[[int], sm.LinearOperator]] = {
    "circulant": lambda n: sm.Circulant(symmetric(n, 0) + np.roll(symmetric(n, 1), 1) / 4),
    "complex circulant": lambda n: sm.Circulant(asymmetric(n)),
    "stack": lambda n: sm.Circulant(np.stack([symmetric(n, 0), np.roll(symmetric(n, 1), 1)])),
    "diagonal": lambda n: sm.Diagonal(entries(n)),
    "ones": lambda n: sm.Diagonal(np.ones(n)),
    "toeplitz": lambda n: sm.Toeplitz(0.5 ** np.arange(n), 0.3 ** np.arange(n)),
    "torch": lambda n: sm.Diagonal(pytest.importorskip("torch").asarray(entries(n))),
}


@dataclass(frozen=True)
class Fault:
    """A hook that is called by a function which gets the right hook, and its arguments."""

    name: str
    hook: str
    law: str
    """The law that is the first to catch it."""
    broken: Callable[..., Any]
    of: str = "circulant"
    needs_matrix: bool = False


KEPT = np.zeros(N)
CALLS = [0]


def into_buffer(right: Any, x: Any, xp: Any) -> Any:
    buffer = KEPT[: x.shape[-1]]
    if x.ndim > 1 or np.iscomplexobj(x):
        return right(x, xp)
    buffer[:] = right(x, xp)
    return buffer


def writes(right: Any, x: Any, xp: Any) -> Any:
    result = right(x, xp)
    x[..., 0] = 0
    return result


def drifts(right: Any, x: Any, xp: Any) -> Any:
    CALLS[0] += 1
    return right(x, xp) * (1 + 1e-6 * CALLS[0])


def fails(right: Any, *_: Any) -> Any:
    raise ZeroDivisionError("no\nproduct")


def doubled(right: Any, *arguments: Any) -> Any:
    return 2 * right(*arguments)


def negative(right: Any, *arguments: Any) -> Any:
    return -right(*arguments)


def conjugate(right: Any, *arguments: Any) -> Any:
    found = right(*arguments)
    return found._conj() if isinstance(found, sm.LinearOperator) else np.conj(found)


def itself(right: Any, *_: Any) -> Any:
    return right.args[0]


def transposed(right: Any, *arguments: Any) -> Any:
    return right(*arguments)._transpose()


FAULTS = [
    # Products
    Fault("an offset", "_matvec", "zero", lambda right, x, xp: right(x, xp) + 1),
    Fault("a modulus", "_matvec", "additive", lambda right, x, xp: right(xp.abs(x), xp)),
    Fault("the real part alone", "_matvec", "complex numbers", lambda right, x, xp: right(xp.real(x) + 0 * x, xp)),
    Fault("the sign of a product", "_matvec", "blocks", negative),
    Fault("a last entry left out", "_matvec", "adjoint", lambda right, x, xp: right(x * (xp.arange(len(x.T)) < 9), xp)),
    Fault(
        "single precision", "_matvec", "additive", lambda right, x, xp: right(x, xp).astype("float32").astype(x.dtype)
    ),
    Fault("a shape that lies", "_matvec", "zero", lambda right, x, xp: right(x, xp)[..., :-1]),
    Fault("not finite", "_matvec", "zero", lambda right, x, xp: right(x, xp) + np.where(x > 1, np.nan, 0)),
    Fault("an exception", "_matvec", "zero", fails),
    Fault("a written input", "_matvec", "untouched inputs", writes, "diagonal"),
    Fault("a view of the input", "_matvec", "own results", lambda right, x, xp: x, "ones"),
    Fault("a result that comes back", "_matvec", "complex numbers", into_buffer),
    Fault("a product that drifts", "_matvec", "additive", drifts),
    Fault("a batch mixed up", "_matvec", "adjoint", lambda right, x, xp: right(x, xp)[::-1], "stack"),
    Fault("the first matrix for all", "_matvec", "adjoint", lambda right, x, xp: right(x, xp)[:1] + 0 * x, "stack"),
    Fault("the sign of the adjoint", "_rmatvec", "adjoint", negative),
    Fault(
        "the conjugate left out",
        "_rmatvec",
        "adjoint",
        lambda right, y, xp: np.conj(right(np.conj(y), xp)),
        "complex circulant",
    ),
    Fault("the matrix for its adjoint", "_rmatvec", "adjoint", lambda right, y, xp: right.args[0]._matvec(y, xp)),
    Fault("columns in another order", "_matmat", "single columns", lambda right, X, xp: right(X, xp)[..., ::-1]),
    Fault("the first column for all", "_matmat", "single columns", lambda right, X, xp: right(X[..., :1], xp) + 0 * X),
    Fault("no transpose", "_transpose", "adjoint", itself),
    Fault("no conjugate", "_conj", "adjoint", itself, "complex circulant"),
    Fault("a matrix transposed", "_to_dense", "prepared", lambda right, like: np.swapaxes(right(like), -1, -2)),
    Fault("sums of columns", "_row_sums", "other hooks", lambda right, xp: right(xp)[..., ::-1], "toeplitz"),
    Fault("moduli for their squares", "_squared_moduli_times", "other hooks", doubled, needs_matrix=True),
    # Parts
    Fault("a block doubled", "_block", "blocks", doubled),
    Fault("a block transposed", "_block", "blocks", transposed),
    Fault(
        "a block of other rows",
        "_block",
        "blocks",
        lambda right, r, c, xp: right(c, c, xp) if len(r) == len(c) else None,
    ),
    Fault("the next diagonal", "_diagonal", "diagonals", lambda right, xp: np.roll(right(xp), 1, axis=-1), "diagonal"),
    Fault("a diagonal doubled", "_diagonal", "diagonals", doubled),
    # Prepared operators
    Fault(
        "a plan of another matrix",
        "_plan",
        "single columns",
        lambda right, xp: sm.Circulant(2 * right.args[0].c)._plan(xp),
    ),
    Fault(
        "a solver of the transpose", "_solver", "solutions", lambda right, xp: right.args[0]._transpose()._solver(xp)
    ),
    # What is said of it
    Fault("two lines in the repr", "_details", "other hooks", lambda right: "one\ntwo"),
    Fault("no description", "_described", "other hooks", lambda right: ""),
    Fault("no hint", "_hint_for_shape", "other hooks", lambda right, *_: None),
    # Solutions and determinants
    Fault("an inverse doubled", "_inv", "solutions", doubled),
    Fault("an inverse conjugated", "_inv", "solutions", conjugate, "complex circulant"),
    Fault(
        "solutions of the transpose",
        "_solve",
        "solutions",
        lambda right, b, xp: right.args[0]._transpose()._solve(b, xp),
    ),
    Fault("factors doubled", "_determinant_factors", "determinants", doubled),
    Fault("a determinant conjugated", "_det", "determinants", conjugate, "complex circulant"),
    Fault("the sign of a determinant", "_slogdet", "determinants", lambda right, xp: (-right(xp)[0], right(xp)[1])),
    Fault(
        "an error below zero",
        "_slogdet_and_error",
        "determinants",
        lambda right, xp: (*right(xp)[:2], -1 - right(xp)[2]),
    ),
    Fault(
        "another logarithm beside its error",
        "_slogdet_and_error",
        "determinants",
        lambda right, xp: (right(xp)[0], 2 * right(xp)[1], right(xp)[2]),
    ),
    Fault("a logarithm doubled", "_slogdet", "determinants", lambda right, xp: (right(xp)[0], 2 * right(xp)[1])),
    Fault("a pseudo-inverse transposed", "_pinv", "solutions", transposed),
    Fault("no damping", "_damped_pinv", "solutions", lambda right, damp, xp: right(0 * damp, xp)),
    Fault("damping not squared", "_damped_pinv", "solutions", lambda right, damp, xp: right(damp**0.5, xp)),
    Fault("all singular values cut off", "_rounding", "solutions", lambda right, xp: 0.9),
    # Eigenvalues and norms
    Fault(
        "eigenvalues in another order",
        "_eig",
        "eigenvectors",
        lambda right, xp: (right(xp)[0][..., ::-1], right(xp)[1]),
    ),
    Fault("the trace of another matrix", "_eigvals", "diagonals", lambda right, xp: right(xp) + 1),
    Fault("conjugated eigenvalues", "_eigvals", "eigenvectors", conjugate),
    Fault(
        "eigenvectors of length two",
        "_orthonormal_eig",
        "other hooks",
        lambda right, xp: (right(xp)[0], 2 * right(xp)[1], True),
    ),
    Fault(
        "complex said to be real",
        "_orthonormal_eig",
        "other hooks",
        lambda right, xp: (*right(xp)[:2], True),
        "complex circulant",
    ),
    Fault("squared singular values", "_svdvals", "norms", lambda right, xp: right(xp) ** 2),
    Fault("singular values of a sign", "_svdvals", "norms", lambda right, xp: -right(xp)),
    Fault("a norm without its root", "_frobenius", "norms", lambda right, xp: right(xp) ** 2),
    Fault("entries for their moduli", "_modulus", "norms", itself),
    Fault("a norm that is too small", "_norm", "norms", lambda right, order, xp: right(order, xp) / 100),
    Fault("a function of conjugates", "_spectral_function", "matrix functions", conjugate, "complex circulant"),
    # Systems
    Fault("another matrix near", "_near", "other hooks", lambda right, like, xp: (2 * right.args[0])._near(like, xp)),
    # Descriptions
    Fault("a dtype that lies", "dtype", "zero", lambda right: np.dtype("float32")),
    Fault("a shape of its own", "shape", "zero", lambda right: (right()[0] + 1, right()[1])),
    Fault("complex unasked", "_forces_complex", "zero", lambda right: True),
    # Derivatives and traces
    Fault(
        "a number read from a tensor",
        "_matvec",
        "vmap",
        lambda right, x, xp: right(x, xp) + 0 * float(x.real.sum()),
        "torch",
    ),
    Fault(
        "a detached parameter",
        "_matvec",
        "gradients",
        lambda right, x, xp: right.args[0].d.detach() * x,
        "torch",
        needs_matrix=True,
    ),
]


def broken(fault: Fault, n: int) -> sm.LinearOperator:
    """Return an operator that is right but for one hook."""
    A = OPERATORS[fault.of](n)
    right: Any = getattr(type(A), fault.hook)
    if isinstance(right, property):
        hook: Any = property(lambda self: fault.broken(partial(right.fget, self)))
    elif callable(right):

        def hook(self: Any, *arguments: Any) -> Any:
            return fault.broken(partial(right, self), *arguments)

    else:
        hook = property(lambda self: fault.broken(lambda: right))
    made = object.__new__(type("Broken", (type(A),), {fault.hook: hook}))
    vars(made).update(vars(A))
    return made


def test_every_hook_is_broken_in_some_way() -> None:
    assert {fault.hook for fault in FAULTS} == {*HOOKS, *PROPERTIES}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert sum(not fault.needs_matrix for fault in FAULTS) >= 30


@pytest.mark.parametrize("kind", OPERATORS)
@in_one_test("n", [5, N])
def test_what_is_broken_is_right_before(kind: str, n: int) -> None:
    check_operator(OPERATORS[kind](n), rng=0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.hook}, {fault.name}")
def test_a_law_catches_the_fault(fault: Fault) -> None:
    A = broken(fault, 5 if fault.needs_matrix else N)
    with pytest.raises(
        AssertionError, match=rf"^Broken: .*\(law: {fault.law}; shape=.*; repeat with rng=3\)$"
    ) as found:
        check_operator(A, rng=3)
    assert "\n" not in str(found.value)


class Forgetful(sm.Diagonal):
    """A diagonal whose pickles lose the signs of its entries."""

    def __reduce__(self) -> Any:
        return type(self), (abs(self.d),)


def test_a_pickle_that_loses_something_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"Forgetful: .* multiplies wrongly: .*\(law: pickled; "):
        check_operator(Forgetful(entries(N)), rng=0)


def test_a_number_read_from_an_array_of_jax_is_caught() -> None:
    jnp = pytest.importorskip("jax.numpy")
    register = pytest.importorskip("structmat.jax").register_operator

    class Reads(sm.Diagonal):
        def _matvec(self, x: Any, xp: Any) -> Any:
            return self.d * x + 0 * float(x.sum())

    A = register(Reads)(jnp.asarray(entries(5).astype("float32")))
    law = {law.name: law for law in laws()}["jit"]
    with pytest.raises(AssertionError, match=r"Reads: raises ConcretizationTypeError.*\(law: jit; "):
        law(A, rng=0)
