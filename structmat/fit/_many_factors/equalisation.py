"""A way into the narrow valley that a matrix of widely spread singular values makes of the error.

Once a chain has the large singular values, every step that brings the small ones must keep the large ones to more
digits than a step along a straight line does, so that steps become short whatever solves for them. Measured as ``(S +
t)^(-1/2) U^H (W - P) V (S + t)^(-1/2)``, with ``W = U S V^H``, an error in the small singular values counts as much as
one in the large ones. A chain far off cannot begin with a small t, so t goes down as the error follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.descent import State
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._many_factors.levenberg_marquardt import steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["equalise"]

# Relative to the largest singular value, the last t, and by how much it goes down once the equalised error is no larger
# than this. Below the last one the error of the matrix itself has few digits to go.
_LAST, _RATIO, _FOLLOWED, _ARRIVED = 1e-8, 0.3, 0.1, 1e-4

# The damping of a first step after t has gone down.
_DAMPING = 1e-3


@dataclass(frozen=True, eq=False)
class _Equalised(DiagonalForms):
    """A chain between two fixed matrices."""

    left: NDArray[Any]
    right: NDArray[Any]

    def _opening(self) -> NDArray[np.complex128]:
        return self.left @ super()._opening()

    def _closing(self, M: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return super()._closing(M) @ self.right


def equalise(W: NDArray[Any], chain: DiagonalForms) -> Iterator[State]:
    """Iterate until the chain has singular values of all sizes roughly; the error, that of `W` itself, may rise."""
    U, s, Vh = np.linalg.svd(W)
    size, t = float(np.linalg.norm(W)), float(s[0])
    while True:
        roots = np.sqrt(s + t)
        left, right = U.conj().T / roots[:, None], Vh.conj().T / roots
        target = left @ W @ right
        scale = float(np.linalg.norm(target)) / np.sqrt(len(W))
        last = t <= _LAST * s[0]
        equalised = _Equalised(chain.x, chain.first, chain.real, left, right)
        for state in steps(target, equalised, damping=_DAMPING):
            chain = DiagonalForms(state.chain.x, chain.first, chain.real)
            yield State(chain, float(np.linalg.norm(W - chain.dense())) / size, state.stationary)
            if state.stationary:
                return
            if state.error * scale <= (_ARRIVED if last else _FOLLOWED):
                break
        if last:
            return
        t *= _RATIO
