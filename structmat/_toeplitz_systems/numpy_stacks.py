"""Solutions for stacks of small matrices of NumPy, by one call of its solver and few others.

Elimination with pivots is stable, so that the condition number alone tells whether a solution is accepted. Two bounds
make it cheap:

- T is the leading section of a circulant of size 2n - 1 with the eigenvalues v, which is normal, so that
  ``|T x| >= min(Re(u v)) |x|`` for each number u of modulus one: if all eigenvalues lie on one side of zero, as those
  of covariances and of dominant diagonals do, the sum of the other diagonals or the eigenvalues show it.
- Else the systems are solved for one more vector, without any pattern, and `SmallSystems.condition` decides where the
  solution grows much.

Arrays that are reduced have the axis of the stack last: along short axes at the end NumPy takes ten times as long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.libraries import rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.elimination import uneven_vector
from structmat._toeplitz_systems.scaling import is_ordinary
from structmat._toeplitz_systems.small import SmallSystems

if TYPE_CHECKING:
    from numpy.typing import NDArray


def solve_stack(c: NDArray[Any], r: NDArray[Any], b: NDArray[Any], eps: float) -> tuple[Any, Any]:
    """Return the solutions for columns b of shape ``(s, n, k)``, and lower bounds of the condition numbers.

    The first columns and first rows, of shape ``(s, n)``, are in double precision, as b is; `eps` is the machine
    epsilon of the numbers that they were given in. A bound is zero where the condition is known to be far below the
    inverse of epsilon, and NaN where the matrix is singular or not finite. Solutions are NaN where b is not finite.
    """
    n, k = b.shape[1:]
    constants = np.concatenate([r[:, :0:-1], c], axis=1)
    total = np.abs(constants) @ np.ones(2 * n - 1)
    sizes = _largest(b)
    nonzero = np.append(total, sizes[sizes != 0])
    if not (is_ordinary(nonzero.min()) and is_ordinary(nonzero.max())):
        with np.errstate(all="ignore"):
            systems = SmallSystems(c, r, numpy_namespace, eps)
            return systems.solve(b), systems.condition()
    i = np.arange(n)
    matrices = constants[:, i[:, None] - i + n - 1]
    allowed = total * (thresholds.NEAR * math.sqrt(n) * eps)
    is_safe = 2 * np.abs(c[:, 0]) - total > allowed  # as the other diagonals are a circle around the eigenvalues
    if not np.all(is_safe):
        is_safe = _least_real_parts(c, r) > allowed
    if np.all(is_safe):
        return np.linalg.solve(matrices, b), np.zeros(len(c))
    right = np.empty((len(b), n, k + 1), b.dtype)
    right[..., :k] = b
    right[..., k] = uneven_vector(n)
    with np.errstate(all="ignore"):
        x = rules_of(numpy_namespace).elimination(matrices).solve(right)
        growth = total * (_largest(x[..., k:])[0] / np.max(np.abs(right[0, :, k])))
        condition = np.where(is_safe, 0, growth)
        doubtful = np.flatnonzero(~(condition * thresholds.FAR <= 1 / eps))
        if len(doubtful):
            condition[doubtful] = SmallSystems(c[doubtful], r[doubtful], numpy_namespace, eps).condition()
    return x[..., :k], condition


def _largest(b: NDArray[Any]) -> Any:
    """Return the largest moduli of columns, in the shape ``(k, s)``."""
    return np.max(np.abs(np.ascontiguousarray(np.transpose(b, (1, 2, 0)))), axis=0)


def _least_real_parts(c: NDArray[Any], r: NDArray[Any]) -> Any:
    """Return the least real parts of the eigenvalues of the circulants, turned so that their mean c[0] is positive.

    They are the eigenvalues of Hermitian circulants, of which the diagonals beside the main one add up in pairs. One
    product with a Fourier matrix takes less time than short transforms.
    """
    n = c.shape[1]
    turned = np.sign(c[:, :1]).conj()
    diagonals = (turned * c + (turned * r).conj())[:, 1:].T
    angles = np.outer(np.arange(2 * n - 1) if np.iscomplexobj(c) else np.arange(n), np.arange(1, n)) * 2 * np.pi
    angles /= 2 * n - 1
    values = np.cos(angles) @ diagonals.real
    if np.iscomplexobj(c):
        values += np.sin(angles) @ diagonals.imag
    return np.abs(c[:, 0]) + np.min(values, axis=0)
