"""Operators of one's own, written against `structmat.extend` alone, have every law, also with all other operators."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat.extend import LinearOperator, compose
from tests import backends
from tests.cases import in_one_test
from tests.operators.outsiders import DirectSum, ToeplitzPlusHankel


@dataclass(frozen=True, eq=False, repr=False)
class BareKronecker(LinearOperator):
    """The Kronecker product of two operators, by the required hooks alone."""

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
        return BareKronecker(self.left._transpose(), self.right._transpose())


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
    rights = list(PARTS)
    if backend.name != "numpy":  # each part beside three others: which dtype a product has is found in one way
        first = rights.index(left)
        rights = [rights[(first + k) % len(rights)] for k in range(3)]
    for right in rights:
        parts = [PARTS[name](backend.asarray) for name in (left, right)]
        dense = np.kron(*(PARTS[name](np.asarray).to_dense() for name in (left, right)))
        sm.testing.check_operator(BareKronecker(*parts), dense, rng=np.random.default_rng(2))


def toeplitz_plus_hankel(a: Any, v: np.ndarray = Z) -> ToeplitzPlusHankel:
    return ToeplitzPlusHankel(a(np.concatenate([v[:0:-1].conj(), v])), a(np.concatenate([v[::-1], C[1:]])), 4)


OWN = {
    "Toeplitz plus Hankel": toeplitz_plus_hankel,
    "real Toeplitz plus Hankel": lambda a: toeplitz_plus_hankel(a, C),
    "direct sum": lambda a: DirectSum(sm.Circulant(a(C[:2])), sm.Diagonal(a(Z[:2]))),
}


PAIRS = [(name, other, "numpy") for name in OWN for other in [*PARTS, *OWN]]
PAIRS += [(name, other, "torch") for k, (name, other, _) in enumerate(PAIRS) if k % 3 == 0]


@pytest.mark.parametrize(("name", "other", "backend"), PAIRS, indirect=["backend"])
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


@in_one_test("order", list(permutations(range(3))))
def test_two_terms_that_a_third_one_holds_become_one_with_it_whatever_the_brackets(order: tuple[int, ...]) -> None:
    """A Toeplitz matrix and a Hankel matrix are two terms, until the sum of such matrices takes in both."""
    terms = (sm.Toeplitz(C), sm.Hankel(C), toeplitz_plus_hankel(np.asarray))
    A, B, M = (terms[k] for k in order)
    D = sm.Diagonal(C)
    dense = sum(term.to_dense() for term in terms)
    for found in ((A + B) + M, A + (B + M)):
        assert type(found) is ToeplitzPlusHankel
        np.testing.assert_allclose(found.to_dense(), dense, atol=1e-13)
    for found in (((A + D) + B) + M, (A + B) + (D + M), A + (B + (M + D))):
        assert sorted(type(term).__name__ for term in found.terms) == ["Diagonal", "ToeplitzPlusHankel"]
        np.testing.assert_allclose(found.to_dense(), dense + np.diag(C), atol=1e-13)


def test_hooks_and_rules_of_ones_own_are_used() -> None:
    op = toeplitz_plus_hankel(np.asarray)
    kinds = [op, sm.Toeplitz(C), sm.Hankel(C), sm.Circulant(Z), sm.Circulant(C).to_spectral()]
    kinds += [sm.BandedCirculant(C[:2], 4, 1), sm.Identity(4), 2j * sm.Identity(4)]
    for other in kinds:
        for found in (op + other, other + op, op - other, other - op):
            assert type(found) is ToeplitzPlusHankel
    assert type(sm.Toeplitz(C) + sm.Hankel(C)) is sm.Sum  # what others are is not changed
    assert {type(found) for found in (op + op, 2 * op, op + sm.Toeplitz(C), op[1:, :2])} == {ToeplitzPlusHankel}
    np.testing.assert_allclose(op[1:, :2].to_dense(), op.to_dense()[1:, :2])
    np.testing.assert_allclose(op[2], op.to_dense()[2])
    assert type(compose(op, sm.Identity(4))) is ToeplitzPlusHankel
    with pytest.raises(NotImplementedError, match=r"ToeplitzPlusHankel\.inv: no closed form for ToeplitzPlusHankel"):
        op.inv()
