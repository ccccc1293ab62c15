"""What a fit is compared with: the best errors that other families reach with as many parameters.

Every baseline answers for the *best case* of a family: a fine-tuning method that trains a member of it can come no
nearer to the matrix, whatever the training. Only trained numbers count as parameters, of the dtype of the matrix (one
complex number is one parameter of a complex matrix); indices and permutations are free. The error never rises with the
number of parameters, and is zero for a member. Where a family has no member with so few parameters, the answer is the
zero matrix: no parameters, error one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import gcd, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # Its `fft` is imported on first use.

from structmat._arguments import integer, one_of
from structmat._errors import ArgumentTypeError
from structmat.fit._matrices import (
    finite_matrix,
    largest_exponent,
    leading_triplets,
    scale_by_power_of_two,
    second_moment,
    weighted_inputs,
)
from structmat.operators import BlockCirculant, CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike

__all__ = ["BASELINES", "baseline_errors"]

BASELINES = ("truncated-svd", "cdd-in-blocks", "block-circulant", "sparse-fourier", "monarch")
"""The names of the families; with second moments of the inputs the best member of the first one alone is known."""

_DENSE_SVD_SIDE = 600
"""Up to this smaller side a full singular value decomposition costs less than iterations."""


class _Member(NamedTuple):
    """The best member of a family."""

    n_parameters: int
    error: float
    """Relative Frobenius error."""


def baseline_errors(
    W: ArrayLike,
    n_parameters: Iterable[int],
    *,
    names: Iterable[str] | None = None,
    input_second_moment: ArrayLike | None = None,
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the least errors that other families reach with at most as many parameters.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    n_parameters : iterable of int
        Upper limits of the number of parameters, one comparison for each.
    names : iterable of str, optional
        The families, of ``"truncated-svd"``, ``"cdd-in-blocks"``, ``"block-circulant"``, ``"sparse-fourier"`` and
        ``"monarch"``: all by default. With `input_second_moment` the truncated SVD alone is known.
    input_second_moment : array_like, optional
        Second moments that the errors are weighted with, as for `fit_cdd`.

    Returns
    -------
    dict of str to tuple
        For each family ``(n_parameters, error)``: number of parameters and relative error of the best member for each
        limit.

    Raises
    ------
    ArgumentTypeError
        If an argument is of the wrong kind.
    ArgumentValueError
        If `W` is not a matrix of finite numbers, a number is negative, or a name is unknown.

    See Also
    --------
    error_curve : Compares fits with these.

    Notes
    -----
    The truncated SVD is the best case of LoRA, the block-circulant matrix that of C3A, the sparse Fourier matrix that
    of FourierFT. ``"cdd-in-blocks"`` are CDD products too: five factors with k blocks to the smaller side, which hold
    the truncated SVD of rank k in closed form with about ``(2k + 3) n`` numbers, where the SVD itself has ``2 k n``;
    `fit_cdd` with that block size and five factors starts from there. If a family has no member with so few parameters,
    the zero matrix is used.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import baseline_errors
    >>> W = np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    >>> used, error = baseline_errors(W, [5, 6], names=["truncated-svd"])["truncated-svd"]
    >>> used.tolist(), error.round(12).tolist()
    ([0, 6], [1.0, 0.0])
    """
    owner = "baseline_errors"
    matrix = finite_matrix(W, owner)
    # Then no square over- or underflows.
    matrix = scale_by_power_of_two(matrix, -largest_exponent(matrix))
    known = BASELINES if input_second_moment is None else BASELINES[:1]
    chosen = known if names is None else [one_of(name, owner, "names", known) for name in names]
    try:
        budgets = [integer(number, owner, "n_parameters", least=0) for number in n_parameters]
    except TypeError as error:
        if isinstance(error, ArgumentTypeError):
            raise
        text = f"must be a sequence of integers, got {n_parameters!r}"
        raise ArgumentTypeError(owner, "n_parameters", text) from None
    if input_second_moment is None:
        members = {name: _OF_FAMILY[name](matrix, budgets) for name in chosen}
    else:
        moment = second_moment(input_second_moment, matrix.shape[1], owner)
        inputs = weighted_inputs(moment, owner, real=not np.iscomplexobj(matrix))
        members = {name: _truncated_svd(matrix, budgets, inputs) for name in chosen}
    return {
        name: (np.array([m.n_parameters for m in best], dtype=int), np.array([m.error for m in best], dtype=float))
        for name, best in members.items()
    }


# The families. Each function returns the best member with at most so many parameters, for each budget. It is given a
# matrix of which no square of an entry over- or underflows.


def _truncated_svd(matrix: NDArray[Any], budgets: Sequence[int], inputs: NDArray[Any] | None = None) -> list[_Member]:
    """Return the nearest matrices of rank ``r = floor(budget / (rows + cols))``, as two thin ones, the best of LoRA.

    With `inputs` ``M`` the error is ``norm((matrix - P) @ M)``. The best `P` of rank r then is the truncated SVD of
    ``matrix @ M``, times the pseudo-inverse of ``M``.
    """
    sides, most = sum(matrix.shape), min(matrix.shape)
    ranks = [min(budget // sides, most) for budget in budgets]
    errors = _svd_errors(matrix if inputs is None else matrix @ inputs, max(ranks, default=0))
    # The inputs may be fewer than the columns.
    return [_Member(rank * sides, float(errors[min(rank, len(errors) - 1)])) for rank in ranks]


def _svd_errors(matrix: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Return the relative errors of the truncated SVDs of rank zero up to `most` at least."""
    side = min(matrix.shape)
    if side > _DENSE_SVD_SIDE and 0 < most < side // 8 and matrix.any():
        triplets = leading_triplets(matrix, most, np.random.default_rng(0))
        if triplets is not None:
            u, s, vh = triplets
            rest = (u * s) @ vh
            rest -= matrix  # In place, so that there is no third copy.
            return _tails(np.append(np.sort(s)[::-1], _norm(rest)))[:-1]
    return _tails(np.linalg.svd(matrix, compute_uv=False))


def _cdd_in_blocks(matrix: NDArray[Any], budgets: Sequence[int]) -> list[_Member]:
    """Return five factors with k blocks to the smaller side; they hold the SVD of rank k (see `_low_rank_product`)."""
    side, most = min(matrix.shape), max(budgets, default=0)
    sizes = sorted({-(-side // k) for k in range(2, side + 1)})
    counts = {size: CDDLayout((matrix.shape[0], matrix.shape[1]), 5, size).n_parameters for size in sizes}
    ranks = {-(-side // size): count for size, count in counts.items() if count <= most}
    errors = _svd_errors(matrix, max(ranks, default=0))
    members = [_Member(count, float(errors[rank])) for rank, count in ranks.items()]
    return _best_members(matrix, members, budgets)


def _block_circulant(matrix: NDArray[Any], budgets: Sequence[int]) -> list[_Member]:
    """Return the means of the cyclic diagonals of b x b blocks, the best case of C3A.

    The block sizes are the divisors of either side; blocks at the end of the other side are cropped. Of all sizes whose
    ``ceil(rows / b) * ceil(cols / b) * b`` parameters are in the budget the one with the smallest error is taken, which
    need not be the smallest size.
    """
    rows, cols = matrix.shape
    sizes = sorted({*_divisors(rows), *_divisors(cols)})
    most = max(budgets, default=0)
    members = [_nearest_block_circulant(matrix, b) for b in sizes if -(-rows // b) * -(-cols // b) * b <= most]
    return _best_members(matrix, members, budgets)


def _sparse_fourier(matrix: NDArray[Any], budgets: Sequence[int]) -> list[_Member]:
    """Return the largest coefficients in the two-dimensional Fourier basis, the best case of FourierFT.

    A complex matrix has one coefficient a frequency. The coefficients of a real matrix come in conjugate pairs; a pair
    counts once for its cosine and once for its sine, so that as many parameters as entries give the matrix itself.
    """
    rows, cols = matrix.shape
    transform = scipy.fft.fft2(matrix, norm="ortho")
    sizes = np.abs(transform)
    if not np.iscomplexobj(matrix):
        # Energy of the cosine and of the sine of each frequency, halved between the two of a pair: each pair appears
        # twice, so the halves of its cosine are put on one of them and those of its sine on the other.
        mirrored = np.ix_(-np.arange(rows), -np.arange(cols))
        position = np.arange(rows * cols).reshape(rows, cols)
        cosine, sine = np.abs(transform + transform[mirrored]), np.abs(transform - transform[mirrored])
        opposite = position[mirrored]
        halves = np.where(position < opposite, cosine, sine) / np.sqrt(2.0)
        sizes = np.where(position == opposite, sizes, halves)
    errors = _tails(np.sort(sizes, axis=None)[::-1])
    used = [min(budget, rows * cols) for budget in budgets]
    return [_Member(count, float(errors[count])) for count in used]


def _monarch(matrix: NDArray[Any], budgets: Sequence[int]) -> list[_Member]:
    """Return the nearest products of two block-diagonal matrices with a permutation between them.

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
        energies = np.square(np.linalg.svd(parts, compute_uv=False)).sum(axis=(0, 1), dtype=np.float64)
        errors = _tails(np.sqrt(energies))
        ranks = range(1, min(most // g, len(errors) - 1) + 1)
        members += [_Member(g * rank * (rows + cols), float(errors[rank])) for rank in ranks]
    return _best_members(matrix, members, budgets)


_OF_FAMILY: dict[str, Callable[[NDArray[Any], Sequence[int]], list[_Member]]] = dict(
    zip(BASELINES, (_truncated_svd, _cdd_in_blocks, _block_circulant, _sparse_fourier, _monarch), strict=True)
)


def _nearest_block_circulant(matrix: NDArray[Any], block_size: int) -> _Member:
    """Return the block-circulant matrix with the mean of every cyclic diagonal of every block."""
    nearest = BlockCirculant.nearest(matrix, block_size)
    return _Member(prod(nearest.c.shape), _norm(matrix - nearest.to_dense()) / (_norm(matrix) or 1.0))


def _best_members(matrix: NDArray[Any], members: list[_Member], budgets: Sequence[int]) -> list[_Member]:
    """Return the best of the members in each budget, the zero matrix among them; of equals the smallest."""
    every = [_Member(0, 1.0 if matrix.any() else 0.0), *members]
    return [min((m for m in every if m.n_parameters <= b), key=lambda m: (m.error, m.n_parameters)) for b in budgets]


def _tails(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the relative error left by the first k terms of an orthogonal expansion, for k = 0 to all of them."""
    squares = np.square(sizes, dtype=np.float64)
    left = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    errors: NDArray[np.float64] = np.sqrt(left / (left[0] or 1.0))
    return errors


def _norm(matrix: NDArray[Any]) -> float:
    """Return the Frobenius norm; of many numbers in single precision, too, to nearly all of their digits."""
    return float(np.sqrt(np.vecdot(matrix, matrix).real.sum(dtype=np.float64)))


def _divisors(n: int) -> list[int]:
    """Return all divisors of a number, in rising order."""
    return [d for d in range(1, n + 1) if n % d == 0]
