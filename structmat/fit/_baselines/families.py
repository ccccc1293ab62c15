"""What a fit is compared with: the best errors that other families reach with as many parameters.

Every function has the signature `Rival`. It answers for the *best case* of a family: a fine-tuning method that trains a
member of it can come no nearer to the matrix, whatever the training. Only trained numbers count as parameters, of the
dtype of the matrix (one complex number is one parameter of a complex matrix); indices and permutations are free. The
error never rises with the number of parameters, and is zero for a member. Where a family has no member with so few
parameters, the answer is the zero matrix: no parameters, error one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, hypot
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy  # its `fft` is imported on first use

from structmat.operators import BlockCirculant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RIVALS", "Member", "Rival", "block_circulant", "monarch", "sparse_fourier", "truncated_svd"]


class Member(NamedTuple):
    """The best member of a family."""

    n_parameters: int
    error: float
    """Relative Frobenius error."""


Rival: TypeAlias = Callable[["NDArray[Any]", Sequence[int]], list[Member]]
"""``rival(matrix, budgets)``: the best member with at most so many parameters, one for each budget. The entries of the
matrix must be finite, floating-point numbers whose squares neither overflow nor underflow."""


def truncated_svd(matrix: NDArray[Any], budgets: Sequence[int], inputs: NDArray[Any] | None = None) -> list[Member]:
    """Rank ``r = floor(budget / (rows + cols))``, stored as two thin matrices: the best case of LoRA.

    With `inputs` ``M`` the error is ``norm((matrix - P) @ M)``. The best `P` of rank r then is the truncated SVD of
    ``matrix @ M``, times the pseudo-inverse of ``M``.
    """
    rows, cols = matrix.shape
    values = np.linalg.svd(matrix if inputs is None else matrix @ inputs, compute_uv=False)
    # The inputs may be fewer than the columns.
    errors = _tails(np.append(values, np.zeros(min(rows, cols) - len(values))))
    ranks = [min(budget // (rows + cols), rows, cols) for budget in budgets]
    return [Member(rank * (rows + cols), float(errors[rank])) for rank in ranks]


def block_circulant(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """Means of the cyclic diagonals of b x b blocks: the best case of C3A.

    The block sizes are the divisors of either side; blocks at the end of the other side are cropped. Of all sizes whose
    ``ceil(rows / b) * ceil(cols / b) * b`` parameters are in the budget the one with the smallest error is taken, which
    need not be the smallest size.
    """
    rows, cols = matrix.shape
    counts = {b: -(-rows // b) * -(-cols // b) * b for b in sorted({*_divisors(rows), *_divisors(cols)})}
    members = [
        Member(count, _relative(matrix - BlockCirculant.nearest(matrix, b).to_dense(), matrix))
        for b, count in counts.items()
        if count <= max(budgets, default=0)
    ]
    return _best(matrix, members, budgets)


def sparse_fourier(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """The largest coefficients in the two-dimensional Fourier basis: the best case of FourierFT.

    A complex matrix has one coefficient a frequency. The coefficients of a real matrix come in conjugate pairs; a pair
    counts once for its cosine and once for its sine, so that as many parameters as entries give the matrix itself.
    """
    rows, cols = matrix.shape
    transform = scipy.fft.fft2(matrix, norm="ortho")
    sizes = np.abs(transform)
    if not np.iscomplexobj(matrix):
        # Energy of the cosine and of the sine of each frequency, halved between the two of a pair: each pair appears
        # twice, so the halves of its cosine are put on one of them and those of its sine on the other.
        mirror = transform[np.ix_(-np.arange(rows), -np.arange(cols))]
        position = np.arange(rows * cols).reshape(rows, cols)
        opposite = position[np.ix_(-np.arange(rows), -np.arange(cols))]
        cosine, sine = np.abs(transform + mirror), np.abs(transform - mirror)
        sizes = np.where(position < opposite, cosine, sine) / np.sqrt(2.0)
        sizes = np.where(position == opposite, np.abs(transform), sizes)
    errors = _tails(np.sort(sizes, axis=None)[::-1])
    used = [min(budget, rows * cols) for budget in budgets]
    return [Member(count, float(errors[count])) for count in used]


def monarch(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """Products of two block-diagonal matrices with a fixed permutation between them, of any number of blocks.

    With g blocks the matrix falls into g x g parts, part (j, k) made of every g-th row from row j on and of the k-th
    run of ``cols / g`` columns. A Monarch matrix has rank one in every part, so the nearest is known in closed form: g²
    small SVDs. With rank r in every part it has ``g r (rows + cols)`` parameters. Of all g > 1 that divide both sides
    and all r in the budget the best is taken; g = 1 would be the truncated SVD.
    """
    rows, cols = matrix.shape
    most = max(budgets, default=0) // (rows + cols)
    members = []
    for g in _divisors(gcd(rows, cols)):
        if not 1 < g <= most:
            continue
        parts = matrix.reshape(rows // g, g, g, cols // g).transpose(1, 2, 0, 3)
        values = np.linalg.svd(parts, compute_uv=False)
        energies = np.square(values).sum(axis=(0, 1), dtype=np.float64)
        errors = _tails(np.sqrt(energies))
        ranks = range(1, min(most // g, len(errors) - 1) + 1)
        members += [Member(g * rank * (rows + cols), float(errors[rank])) for rank in ranks]
    return _best(matrix, members, budgets)


RIVALS: dict[str, Rival] = {
    "truncated-svd": truncated_svd,
    "block-circulant": block_circulant,
    "sparse-fourier": sparse_fourier,
    "monarch": monarch,
}
"""The families by name."""


def _best(matrix: NDArray[Any], members: list[Member], budgets: Sequence[int]) -> list[Member]:
    """Return the best of the members in each budget, the zero matrix among them; of equals the smallest."""
    every = [Member(0, 1.0 if matrix.any() else 0.0), *members]
    return [min((m for m in every if m.n_parameters <= b), key=lambda m: (m.error, m.n_parameters)) for b in budgets]


def _tails(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the relative error left by the first k terms of an orthogonal expansion, for k = 0 to all of them."""
    squares = np.square(sizes, dtype=np.float64)
    tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    errors: NDArray[np.float64] = np.sqrt(tails / (tails[0] or 1.0))
    return errors


def _relative(residual: NDArray[Any], matrix: NDArray[Any]) -> float:
    """Return the quotient of the Frobenius norms, zero for a zero matrix."""
    size, whole = (hypot(*np.linalg.norm(part, axis=1).tolist()) for part in (residual, matrix))
    return size / whole if whole else 0.0


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
