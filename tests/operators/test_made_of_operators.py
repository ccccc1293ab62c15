"""Operators of one's own, written against `structmat.extend` alone, have every law, also with all other operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat.extend import Context, LinearOperator, add, compose, scale
from tests import backends


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(LinearOperator):
    """The Kronecker product of two operators."""

    _core_axes = {"left": None, "right": None}

    left: Any
    right: Any

    @property
    def shape(self) -> tuple[int, int]:
        return (self.left.shape[0] * self.right.shape[0], self.left.shape[1] * self.right.shape[1])

    def _matvec(self, x: Any, xp: Any) -> Any:
        matrix = xp.reshape(x, (*x.shape[:-1], self.left.shape[1], self.right.shape[1]))
        product = self.left._matmat(self.right._matvec(matrix, xp), xp)
        return xp.reshape(product, (*x.shape[:-1], self.shape[0]))

    def _transpose(self) -> LinearOperator:
        return Kronecker(self.left._transpose(), self.right._transpose())


@dataclass(frozen=True, eq=False, repr=False)
class ToeplitzPlusHankel(LinearOperator):
    """The sum of a Toeplitz matrix and a Hankel matrix, with closed forms and rules that no other sum has."""

    _core_axes = {"toeplitz": None, "hankel": None}

    toeplitz: Any
    hankel: Any

    @property
    def shape(self) -> tuple[int, int]:
        return self.toeplitz.shape

    def _matvec(self, x: Any, xp: Any) -> Any:
        return self.toeplitz._matvec(x, xp) + self.hankel._matvec(x, xp)

    def _transpose(self) -> LinearOperator:
        return ToeplitzPlusHankel(self.toeplitz._transpose(), self.hankel._transpose())

    def _to_dense(self, like: Context) -> Any:
        return self.toeplitz._to_dense(like) + self.hankel._to_dense(like)

    def _diagonal(self, xp: Any) -> Any:
        return self.toeplitz._diagonal(xp) + self.hankel._diagonal(xp)

    def _block(self, rows: range, cols: range, xp: Any) -> LinearOperator:
        return ToeplitzPlusHankel(self.toeplitz._block(rows, cols, xp), self.hankel._block(rows, cols, xp))


@add.rule(ToeplitzPlusHankel, ToeplitzPlusHankel)
def _add(left: ToeplitzPlusHankel, right: ToeplitzPlusHankel) -> LinearOperator:
    return ToeplitzPlusHankel(add(left.toeplitz, right.toeplitz), add(left.hankel, right.hankel))


@add.rule(ToeplitzPlusHankel, sm.Toeplitz)
def _add_toeplitz(left: ToeplitzPlusHankel, right: sm.Toeplitz) -> LinearOperator:
    return ToeplitzPlusHankel(add(left.toeplitz, right), left.hankel)


@scale.rule(ToeplitzPlusHankel, object)
def _scale(operator: ToeplitzPlusHankel, factor: Any) -> LinearOperator:
    return ToeplitzPlusHankel(scale(operator.toeplitz, factor), scale(operator.hankel, factor))


C = np.random.default_rng(0).standard_normal(4)
Z = C + 1j * np.random.default_rng(1).standard_normal(4)
PARTS = {
    "real": lambda a: sm.Circulant(a(C)),
    "complex": lambda a: sm.Diagonal(a(Z)),
    "real, held by a complex spectrum": lambda a: sm.Circulant(a(C)).to_spectral(),
    "complex without arrays": lambda _: sm.Fourier(4),
    "without arrays": lambda _: sm.Identity(3),
    "rectangular": lambda a: sm.Toeplitz(a(C), a(C[[0, 3]])),
    "complex multiple": lambda a: 1j * sm.Toeplitz(a(C)),
    "prepared": lambda a: sm.Circulant(a(Z)).prepare(),
    "product": lambda a: sm.Fourier(4) @ sm.Diagonal(a(C)),
    "sum": lambda a: sm.Circulant(a(C)) + sm.Diagonal(a(C)),
    "chosen rows": lambda a: sm.Toeplitz(a(Z))[[2, 0]],
}
"""Real and complex operators, whose arrays do not always say which they are."""


@backends.on("numpy", "torch", "array_api_strict")
@pytest.mark.parametrize("left", PARTS)
def test_a_kronecker_product_has_every_law_with_the_required_hooks_alone(backend: backends.Backend, left: str) -> None:
    for right in PARTS:
        parts = [PARTS[name](backend.asarray) for name in (left, right)]
        dense = np.kron(*(PARTS[name](np.asarray).to_dense() for name in (left, right)))
        sm.testing.check_operator(Kronecker(*parts), dense, rng=np.random.default_rng(2))


def toeplitz_plus_hankel(a: Any, v: np.ndarray = Z) -> ToeplitzPlusHankel:
    return ToeplitzPlusHankel(sm.Toeplitz(a(v)), sm.Hankel(a(v[::-1]), a(C)))


OWN = {
    "Toeplitz plus Hankel": toeplitz_plus_hankel,
    "real Toeplitz plus Hankel": lambda a: toeplitz_plus_hankel(a, C),
    "Kronecker": lambda a: Kronecker(sm.Circulant(a(C[:2])), sm.Diagonal(a(Z[:2]))),
}


@backends.on("numpy", "torch")
@pytest.mark.parametrize("other", [*PARTS, *OWN])
@pytest.mark.parametrize("name", OWN)
def test_operators_of_ones_own_have_every_law_with_all_others(backend: backends.Backend, name: str, other: str) -> None:
    make = {**PARTS, **OWN}[other]
    own, part = (each(backend.asarray) for each in (OWN[name], make))
    left, right = (each(np.asarray).to_dense() for each in (OWN[name], make))
    cases = [(own, left), (own.prepare(), left)]
    if own.shape[1] == part.shape[0]:
        cases.append((own @ part, left @ right))
    if part.shape[1] == own.shape[0]:
        cases.append((part @ own, right @ left))
    if own.shape == part.shape:
        cases += [(own + part, left + right), (part - own, right - left)]
    for operator, dense in cases:
        sm.testing.check_operator(operator, dense, rng=np.random.default_rng(2))


def test_hooks_and_rules_of_ones_own_are_used() -> None:
    op = toeplitz_plus_hankel(np.asarray)
    assert {type(found) for found in (op + op, 2 * op, op + sm.Toeplitz(C), op[1:, :2])} == {ToeplitzPlusHankel}
    np.testing.assert_allclose(op[1:, :2].to_dense(), op.to_dense()[1:, :2])
    np.testing.assert_allclose(op[2], op.to_dense()[2])
    assert type(compose(op, sm.Identity(4))) is ToeplitzPlusHankel
    with pytest.raises(NotImplementedError, match=r"ToeplitzPlusHankel\.inv: no closed form for ToeplitzPlusHankel"):
        op.inv()
