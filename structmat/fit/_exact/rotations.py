"""A unitary matrix as layers of rotations of neighbours.

Rotations of neighbouring rows and columns, in turns from both sides, make one antidiagonal after the other zero. What
is left is a diagonal of phases. Rotations of different pairs commute, so that all of them are n layers, of the pairs
(0, 1), (2, 3), ... and (1, 2), (3, 4), ... in turns: the rectangular mesh of Clements et al., Optica 3 (2016) 1460.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Layers", "layers_of_rotations"]


class Layers(NamedTuple):
    """``diag(phases)`` times n layers, left to right; row k of the arrays holds the rotations of layer k.

    The rotation of the pair (m, m + 1) has the rows ``(c[k, m], b[k, m])`` and ``(-conj(b[k, m]), c[k, m])``.
    """

    phases: NDArray[Any]
    """(n,), of modulus one"""
    c: NDArray[np.float64]
    """(n, n - 1), not negative"""
    b: NDArray[Any]
    """(n, n - 1)"""
    first: int
    """0 or 1: where the pairs of layer 0 begin; those of layer k begin at ``(first + k) % 2``."""


def layers_of_rotations(Q: NDArray[Any]) -> Layers:
    """Return the layers of a unitary matrix, real ones of a real matrix; O(n**3), by n**2 / 2 calls of LAPACK."""
    from scipy.linalg import blas, lapack  # noqa: PLC0415  # heavy, and of use here alone

    n = len(Q)
    A = np.array(Q, dtype=np.complex128 if np.iscomplexobj(Q) else np.float64, order="C")
    flat = A.reshape(-1)
    rotate = lapack.zrot if np.iscomplexobj(A) else blas.drot
    in_place: dict[str, Any] = {"overwrite_x": 1, "overwrite_y": 1}
    left: list[tuple[int, float, Any]] = []
    right: list[tuple[int, float, Any]] = []
    for i in range(1, n):
        if i % 2:
            for k in range(i):  # columns m and m + 1, and a zero at the row that is k above the last one
                m, row = i - k - 1, n - 1 - k
                c, s = _rotation(flat[row * n + m + 1], flat[row * n + m])
                s = -np.conj(s)
                rotate(flat, flat, c, s, n=row + 1, offx=m, incx=n, offy=m + 1, incy=n, **in_place)
                right.append((m, c, s))
        else:
            for col in range(i):  # rows m and m + 1, and a zero in the lower one
                m = n + col - i - 1
                c, s = _rotation(flat[m * n + col], flat[(m + 1) * n + col])
                rotate(
                    flat, flat, c, s, n=n - col, offx=m * n + col, incx=1, offy=(m + 1) * n + col, incy=1, **in_place
                )
                left.append((m, c, s))
    diagonal = A.diagonal().copy()
    phases = diagonal / np.abs(diagonal)
    depth = [0] * n
    c_of, b_of = np.ones((n, max(n - 1, 1))), np.zeros((n, max(n - 1, 1)), dtype=A.dtype)
    first = 0
    ordered = [(m, c, -s * np.conj(phases[m]) * phases[m + 1]) for m, c, s in left]
    ordered += [(m, c, np.conj(s)) for m, c, s in reversed(right)]
    for m, c, b in ordered:
        k = max(depth[m], depth[m + 1])
        depth[m] = depth[m + 1] = k + 1
        c_of[k, m], b_of[k, m] = c, b
        if not k:
            first = m % 2
    return Layers(phases, c_of, b_of, first)


def _rotation(x: Any, y: Any) -> tuple[float, Any]:
    """Return c and s such that ``-conj(s) * x + c * y`` is zero."""
    sizes = abs(x), abs(y)
    if sizes[1] == 0.0:
        return 1.0, 0.0
    if sizes[0] == 0.0:
        return 0.0, 1.0
    length = float(np.hypot(*sizes))
    return float(sizes[0]) / length, x / sizes[0] * y.conjugate() / length
