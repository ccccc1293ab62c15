"""An operator of one's own that is made of operators has the laws without any hook but the required ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat.extend import LinearOperator
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
