"""A starting point of many factors near a truncated SVD: two halves of the product, each fitted to k vectors alone.

Up to rank two, or a rank of as many as the smaller side has blocks, five factors are a closed form (see
`_low_rank_product`). Beyond it there is none, but few numbers to fit. Let the factor in the middle be a projector of
rank k, ``E E^H`` with k columns: ones on k places of a diagonal, or k frequencies of a circulant, in conjugate pairs if
it is real. All other factors are a left half L and a right half R, and the product is ``(L E) (R conj(E))^T``. With the
truncated SVD ``U S V^H`` and any unitary Q of side k it is that matrix where

    L E = U sqrt(S) Q    and    R conj(E) = conj(V) sqrt(S) conj(Q).

So the halves are independent of one another: each of them has to carry the k columns of E to k given vectors, and an
evaluation costs k products with vectors in place of one for every row of the matrix. An error of L counts by what it
is multiplied with, hence ``norm((L E - U sqrt(S) Q) Q^H sqrt(S))`` is what is to be small, and likewise on the right.
Q is drawn at random: then all k vectors are alike. The halves begin as random isometries; from Gaussian vectors they
end in bad minima.

Of n x n matrices a half of c factors has c n numbers for k n equations. With k + 1 factors to a half, ``2k + 3`` in
all, its error falls as long as it is fitted: of ranks 3, 4 and 8 (n = 384) to 7e-4, 6e-6 and 1.4e-2 in 3,000
iterations of real factors, of rank 8 to 1.5e-8 of complex ones. With k factors, ``2k + 1`` in all, it stays above 0.04
if real, above 0.01 if complex. Which of the two is better for a matrix depends on what the next singular value is
worth. Of a half with the smaller side in blocks the numbers and equations are counted in the same way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._lbfgs import lbfgs
from structmat.fit._low_rank_product import low_rank_product
from structmat.fit._matrices import transposed_vectors, truncated_svd
from structmat.fit._objective import Objective
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem

__all__ = ["low_rank_start"]

_LEFT_OVER = 0.08
"""The error, relative to the truncated SVD, of a product whose halves have as many numbers as equations."""

_OF_ANY_MATRIX = 3.0
"""Fits from random products explain at least ``1 - exp(-3 s)`` of the square norm of a Gaussian matrix, where s is the
number of parameters over that of entries: of nine factors 0.97 (n = 12, s = 0.75), 0.38 (n = 64, s = 0.14) and 0.078 (n
= 384, s = 0.023). A truncated SVD that explains less is no start beside them. Without its two halves such fits of 16 to
64 rows take 0.71 to 0.84 of the time, and end at the same errors."""

_ENOUGH = 0.05
"""Each half is fitted until its error is this share of that of the truncated SVD: together they add a quarter of a per
cent to it."""

_EXACT = 1e-12
"""A half of a matrix that has the rank itself is fitted up to this error."""

_MOST = 6000
"""The most iterations for a half. Rank eight by 19 real factors (n = 384) is at an error below 0.01 then."""

_STALL = 500
"""A fit of a half ends early if so many iterations lower its error by less than the share below."""

_LEAST_GAIN = 0.1
"""See above. Halves that can be solved gain at least 12 per cent in 500 iterations, others 8 per cent after 1,000."""


def low_rank_start(problem: Problem, rng: np.random.Generator, control: Control) -> Iterator[list[NDArray[Any]]]:
    """Yield products near a truncated SVD: of a rank that five factors hold, then of a higher one that all hold."""
    layout = problem.layout
    blocks = -(-min(layout.shape) // layout.block_size)
    if layout.n_factors < 5 or layout.block_size == blocks == 1:
        return
    in_closed_form = max(2, blocks)
    solvable, most = _middle(layout, spare=1), _middle(layout, spare=0)
    highest = max(in_closed_form, most.rank)
    A, B = truncated_svd(problem.target, highest, rng, problem.inputs)
    yield low_rank_product(A[:, :in_closed_form], B[:, :in_closed_form], layout.block_size)

    roots = np.linalg.norm(A, axis=0)
    norm2 = float(np.vdot(problem.target, problem.target).real)
    tails = np.sqrt(np.maximum(norm2 - np.append(0.0, np.cumsum(roots**4)), 0.0) / norm2)
    left_over = _LEFT_OVER * math.sqrt(1.0 - tails[most.rank] ** 2)
    middle = most if math.hypot(tails[most.rank], left_over) < tails[solvable.rank] else solvable
    if middle.rank <= in_closed_form or not _has_places(layout, middle):
        return
    of_any = 1.0 - math.exp(-_OF_ANY_MATRIX * layout.n_parameters / math.prod(layout.shape))
    if 1.0 - tails[middle.rank] ** 2 < of_any and control.restarts != 0:
        return
    k = int(np.count_nonzero(roots[: middle.rank]))
    if k <= in_closed_form:
        return
    aim = max(_EXACT, _ENOUGH * float(tails[k]))
    yield _product(A[:, :k], B[:, :k], layout, middle.place, aim, rng, control)


class _Middle(NamedTuple):
    """Where a product is divided, and the rank that its halves can hold."""

    rank: int
    place: int


def _middle(layout: CDDLayout, spare: int) -> _Middle:
    """Return the factor that divides a product best, with so many times more numbers to a half than equations."""
    if layout.shape[0] < layout.shape[1]:
        layout = CDDLayout(layout.shape[::-1], layout.n_factors, layout.block_size)
    sizes = [math.prod(shape) for shape in layout.vector_shapes]
    n_factors = layout.n_factors - (layout.n_factors + 1) % 2
    rows, cols = layout.shape
    found = [_Middle(0, 0)]
    for place in range(2, n_factors - 2):
        left, right = sum(sizes[:place]) // rows, sum(sizes[place + 1 : n_factors]) // cols
        found.append(_Middle(min(left, right) - spare, place))
    return max(found, key=lambda middle: (middle.rank, -abs(2 * middle.place - n_factors + 1)))


def _has_places(layout: CDDLayout, middle: _Middle) -> bool:
    """Whether the factor in the middle has room for a projector of that rank, which is not all of it."""
    side = min(layout.shape)
    blocks = -(-side // layout.block_size)
    return middle.rank < side and -(-middle.rank // blocks) <= 2 * ((min(layout.block_size, side) - 1) // 2)


def _product(
    A: NDArray[Any],
    B: NDArray[Any],
    layout: CDDLayout,
    place: int,
    aim: float,
    rng: np.random.Generator,
    control: Control,
) -> list[NDArray[Any]]:
    """Return vectors of a product near ``A @ B.T``, columns of singular vectors times the roots of singular values."""
    if len(A) < len(B):
        wide = CDDLayout(layout.shape[::-1], layout.n_factors, layout.block_size)
        return transposed_vectors(_product(B, A, wide, place, aim, rng, control))
    rows, cols = layout.shape
    n_factors = layout.n_factors - (layout.n_factors + 1) % 2
    A, B = (X.astype(np.result_type(X.dtype, np.float64)) for X in (A, B))
    k = A.shape[1]
    roots = np.linalg.norm(A, axis=0)
    # Without a least weight both halves might do anything with vectors of small singular values, at the same time.
    weights = np.maximum(roots, math.sqrt(aim) * np.linalg.norm(roots**2) ** 0.5)
    drawn = rng.standard_normal((2, k, k))
    Q = np.linalg.qr(drawn[0] + 1j * drawn[1] if np.iscomplexobj(A) else drawn[0])[0]
    diagonal = place % 2 == 0
    columns = _columns_of_projector(k, -(-cols // layout.block_size), layout.block_size, A.dtype, diagonal=diagonal)
    E = columns.reshape(-1, k)[:cols]
    # A diagonal in the middle counts to both halves: these then begin and end with diagonals, too.
    left = _Half((rows, cols), place + diagonal, layout.block_size, A * weights, E @ (Q.conj().T * weights))
    right = _Half(
        (cols, cols), n_factors - place - 1 + diagonal, layout.block_size, B * weights, E.conj() @ (Q.T * weights)
    )
    x, y = (half.vectors(aim, rng, control) for half in (left, right))
    middle = x.pop() * y.pop() * E.any(axis=1) if diagonal else _projector_circulants(columns)
    return [*x, middle, *transposed_vectors(y)]


def _columns_of_projector(k: int, blocks: int, m: int, dtype: np.dtype[Any], *, diagonal: bool) -> NDArray[Any]:
    """Return orthonormal columns (blocks, m, k), of which each is zero but in one block.

    Their projector is a diagonal or has circulant blocks. Real circulants have frequencies other than zero in pairs.
    """
    E = np.zeros((blocks, m, k), dtype=dtype)
    i = np.arange(m)
    for block in range(blocks):
        own = np.arange(block, k, blocks)
        number = np.arange(len(own))
        if diagonal:
            E[block, number, own] = 1.0
        elif dtype.kind == "c":
            E[block][:, own] = np.exp(2j * np.pi / m * np.outer(i, number)) / np.sqrt(m)
        else:
            # The numbers are 0 for the constant, and 2 j and 2 j + 1 for the pair of frequency j.
            number = np.where((number == 0) & (len(own) % 2 == 1), 0, number + 2 - len(own) % 2)
            waves = np.cos(2 * np.pi / m * np.outer(i, number // 2) - np.pi / 2 * (number % 2))
            E[block][:, own] = waves / np.linalg.norm(waves, axis=0)
    return E


def _projector_circulants(E: NDArray[Any]) -> NDArray[Any]:
    """Return the first columns (blocks, blocks, m) of the circulant blocks of ``E @ E^H``."""
    blocks, m, _ = E.shape
    middle = np.zeros((blocks, blocks, m), dtype=E.dtype)
    for block, own in enumerate(E):
        middle[block, block] = own @ own[0].conj()
    return middle


class _Half:
    """One half of a product, which is to carry given columns to others.

    Parameters
    ----------
    shape : (int, int)
    n_factors : int
        An odd number.
    block_size : int
    target : (rows, k) ndarray
    inputs : (cols, k) ndarray
    """

    def __init__(
        self, shape: tuple[int, int], n_factors: int, block_size: int, target: NDArray[Any], inputs: NDArray[Any]
    ) -> None:
        # An isometry, which the fit begins with, keeps the norm of the inputs.
        self._scale = float(np.linalg.norm(target) / np.linalg.norm(inputs))
        self._objective = Objective(CDDLayout(shape, n_factors, block_size), target / self._scale, inputs)

    def vectors(self, aim: float, rng: np.random.Generator, control: Control) -> list[NDArray[Any]]:
        """Return the vectors of the half, fitted until its relative error is what is aimed at, or gains too little."""
        last = self._objective.random(1, rng)[0]
        errors: deque[float] = deque(maxlen=_STALL)

        def after_iteration(parameters: NDArray[Any], error: float) -> None:
            nonlocal last
            control.check()
            last = parameters
            stalled = len(errors) == _STALL and error > (1.0 - _LEAST_GAIN) * errors[0]
            errors.append(error)
            if stalled or error <= aim:
                raise StopIteration

        lbfgs(self._objective, last, min(_MOST, control.max_iter), after_iteration)
        first, *others = self._objective.vectors(last)
        return [first * self._scale, *others]
