"""Three factors, Diagonal @ BlockCirculant @ Diagonal on any grid of blocks: alternating least squares in closed form.

With ``P[p, i, q, j] = a[p, i] * c[p, q, (i - j) % m] * b[q, j]`` each of the three vectors has an elementwise closed
form given the two others: a ratio of weighted sums over rows, cyclic diagonals or columns of the matrix, in O(rows *
cols). Where entries have weights the denominators are the same sums over the weights; otherwise they are convolutions.

**Rounding.** A product ``P @ x`` goes through transforms, whose rounding errors spread evenly over the m entries of a
block. For the unit vectors together they add up to ``eps * S``, up to a factor of order ``log(m)``, with the *spread*
``S**2 = sum_pq norm(a_p)**2 * norm(c_pq)**2 * norm(b_q)**2 / m``. It is the norm that the product would have if its
entries in every block had the same energy on all cyclic diagonals, and ``norm(P)`` itself for a block circulant or a
matrix of rank one. Where small entries of one factor meet large ones of another it exceeds ``norm(P)``, without bound.
The spread is, as the product is, of degree one in each factor. So the best factor under a bound on it has a closed form
up to one multiplier, and at a point where none of the three can be improved under the bound, all three together are
stationary: their multipliers agree.

**Starts.** The nearest block circulant, the nearest diagonal and the nearest matrix of rank one are such products, and
the fit is never worse than any of them. Synchronisation over shifts finds planted products, also with noise: if W is
``a_i c_(i-j) b_j`` then ``W_(i+s, j+s) conj(W_ij)`` (indices cyclic inside each block) is a phase pattern ``g_i h_j``
on non-negative weights, where ``g_i`` has the phase of ``a_(i+s) conj(a_i)`` and ``h_j`` that of ``b_(j+s) conj(b_j)``.
So its leading singular pair has exactly these phases (Perron-Frobenius), up to one free phase per shift. The shifts
used are the rounded halvings of the block side m: each is the sum of two smaller ones, which fixes its free phase, and
m itself is a whole turn, which fixes the one phase left. Long shifts beside short ones keep the phases from drifting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy  # Its `fft` is imported on first use.

from structmat.fit._control import StoppableSearch
from structmat.fit._matrices import (
    absolute_square,
    by_cyclic_diagonals,
    largest_exponent,
    most_spread,
    rounding_error,
    scale_by_power_of_two,
    transposed_circulants,
    truncated_svd,
)
from structmat.fit._problem import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem

__all__ = [
    "BlockGrid",
    "Factors",
    "Run",
    "ThreeFactorSearch",
    "alternate",
    "circulant_start",
    "residual_norm2",
    "shift_synchronisation_start",
    "spread2",
    "unit",
]

Links: TypeAlias = "dict[int, NDArray[Any]]"

_CHUNK_BYTES = 1 << 19
"""The bytes of a chunk of the matrix. It stays in the second-level cache, together with its product with a vector."""

_MOMENTUM = 0.5
"""An iteration begins a step beyond the last iterate, along the last change. This is the first step in units of that
change. An iteration that raises the error is dropped."""

_GROWTH = 1.2
"""The step grows by this factor after an iteration that lowers the error."""

_CUT = 0.5
"""The step is cut by this factor after an iteration that is dropped."""

_CEILING = 8.0
"""The step grows no further than this."""

_FFT_DYNAMIC_RANGE = 1e-6
"""A convolution by FFT is right up to rounding of its largest entry. If there are entries below this share of the
largest one, the sums are computed directly."""

_UNIT_WEIGHTS = 1 << 14
"""For matrices of no more entries than this, sums with weights of one take less time than transforms."""

_EXCESS = 1e-10
"""Newton's method for the multiplier of the spread ends at this relative excess over the bound."""

_STEPS = 100
"""Newton's method makes no more steps than this, whatever rounding does."""

_RANDOM_ENTRIES = 1 << 20
"""There are as many random starts as copies of the matrix fill this number of entries. They pay off on small matrices
without much structure, where many local minima lie close together."""

_MOST_RANDOM = 16
"""There are never more random starts than this."""

_SCREENING_ITERATIONS = 15
"""Every start gets this many iterations, and then the best one goes on. The next three would win 0.08 % of the error at
most, in up to two and a half times the time."""

_FIRST_PASSES = 24
"""Power iterations of synchronisation for the first shift, which begin with noise."""

_NEXT_PASSES = 8
"""Power iterations for every other shift, which begin with a prediction."""

_RING_PASSES = 60
"""Power iterations for the phases on the ring: first with links of modulus one, then with weighted links."""


class Factors(NamedTuple):
    """The three vectors of a product, padded to whole blocks.

    They are in double precision whatever that of the matrix is, since rounding hurts sums over them first.
    """

    a: NDArray[Any]
    """Left diagonal, (p, m)."""
    c: NDArray[Any]
    """First columns of the circulant blocks, (p, q, m)."""
    b: NDArray[Any]
    """Right diagonal, (q, m)."""

    def scaled(self, exponent: int) -> Factors:
        """Multiply the product by ``2**exponent`` and share its scale evenly between the three vectors.

        Only powers of two are moved, so nothing is rounded.
        """
        own = [_exponent(x) for x in self]
        shares = np.diff(np.arange(4) * (sum(own) + exponent) // 3).tolist()
        return Factors(*(scale_by_power_of_two(x, share - e) for x, share, e in zip(self, shares, own, strict=True)))


class BlockGrid:
    """A matrix as a p x q grid of m x m blocks, scaled by a power of two to a largest entry near one.

    The padding is zero. With zeros in `a` and `b` on padded rows and columns every weighted sum is that of the cropped
    matrix, so nothing else needs to know about the padding.

    Parameters
    ----------
    matrix : (rows, cols) ndarray
        Finite float32, float64, complex64 or complex128 entries; only read.
    block_size : int
        Side `m` of the blocks.
    entry_weights : (rows, cols) ndarray, optional
        Finite real weights of squared residuals, not negative and not all zero; the matrix is zero where they are.
    products : dtype, optional
        That of the products that the fit is made for, by default of the matrix.
    """

    def __init__(
        self,
        matrix: NDArray[Any],
        block_size: int,
        entry_weights: NDArray[Any] | None = None,
        products: np.dtype[Any] | None = None,
    ) -> None:
        self.shape: tuple[int, int] = matrix.shape
        rows, cols = matrix.shape
        self.m, self.p, self.q = block_size, -(-rows // block_size), -(-cols // block_size)
        self.dtype: np.dtype[Any] = matrix.dtype
        self.products: np.dtype[Any] = products or matrix.dtype
        self.double: np.dtype[Any] = np.result_type(matrix.dtype, np.float64)
        """The dtype of factors and of sums over the matrix."""
        self.exponent = largest_exponent(matrix)
        """The matrix is ``2**exponent`` times the blocks."""
        self.blocks = self._in_blocks(scale_by_power_of_two(matrix, -self.exponent))
        """``blocks[p, i, q, j]`` is entry (i, j) of block (p, q)."""
        if entry_weights is None and matrix.size <= _UNIT_WEIGHTS:
            entry_weights = np.ones(matrix.shape)
        self.weights = (
            None
            if entry_weights is None
            else self._in_blocks((entry_weights / entry_weights.max()).astype(matrix.real.dtype))
        )
        """The weights, scaled to a largest one of one and laid out as the blocks, or None if all are one.

        They are zero on the padding.
        """
        self.weighted = self.blocks if self.weights is None else self.weights * self.blocks
        self.rows_present = (np.arange(self.p * self.m) < rows).reshape(self.p, -1).astype(self.double)
        """An array (p, m) with ones for the rows of the matrix and zeros for the padding."""
        self.cols_present = (np.arange(self.q * self.m) < cols).reshape(self.q, -1).astype(self.double)
        """An array (q, m) with ones for the columns of the matrix and zeros for the padding."""
        self.norm2 = sum(float(np.sum(self._energy(chunk), dtype=np.float64)) for chunk in self.chunks())
        """The squared Frobenius norm of the blocks, with the weights."""
        counted = rows * cols if self.weights is None else float(np.sum(self.weights, dtype=np.float64))
        self.mean_norm2 = self.norm2 * rows * cols / counted
        """The squared norm of a matrix whose entries are all of the mean energy of those that count."""

    def _in_blocks(self, matrix: NDArray[Any]) -> NDArray[Any]:
        rows, cols = matrix.shape
        whole = self.p * self.m, self.q * self.m
        padded = np.ascontiguousarray(matrix)
        if whole != matrix.shape:
            padded = np.zeros(whole, dtype=matrix.dtype)
            padded[:rows, :cols] = matrix
        return padded.reshape(self.p, self.m, self.q, self.m)

    def _energy(self, chunk: tuple[slice, slice]) -> NDArray[Any]:
        squares = absolute_square(self.blocks[chunk])
        return squares if self.weights is None else squares * self.weights[chunk]

    @cached_property
    def weighted_diagonals(self) -> NDArray[Any]:
        """``[p, i, q, k]`` is ``weighted[p, i, q, (i - k) % m]``: cyclic diagonal `k` of a block is column `k`."""
        return by_cyclic_diagonals(self.weighted)

    @cached_property
    def weight_diagonals(self) -> NDArray[Any] | None:
        """The weights, laid out like `weighted_diagonals`; None if all are one."""
        return None if self.weights is None else by_cyclic_diagonals(self.weights)

    def factors(self, vectors: Sequence[NDArray[Any]]) -> Factors:
        """Return the factors, for the scaled matrix and padded, of the product with these vectors."""
        a, c, b = (vector.astype(self.double) for vector in vectors)  # Real ones may start a complex fit.
        return Factors(self._padded(a, self.p), c, self._padded(b, self.q)).scaled(-self.exponent)

    def vectors(self, factors: Factors) -> list[NDArray[Any]]:
        """Return the vectors, for the matrix itself and without the padding, of the product of these factors."""
        rows, cols = self.shape
        a, c, b = factors.scaled(self.exponent)
        return [a.reshape(-1)[:rows], c, b.reshape(-1)[:cols]]

    def _padded(self, diagonal: NDArray[Any], blocks: int) -> NDArray[Any]:
        whole = np.zeros(blocks * self.m, dtype=diagonal.dtype)
        whole[: len(diagonal)] = diagonal
        return whole.reshape(blocks, self.m)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Yield slices (block rows, rows inside of a block) that cover the rows `start` to `stop` of every block once.

        A chunk is part of one block row, or several whole block rows if these are small.
        """
        stop = self.m if stop is None else stop
        if stop <= start:
            return
        rows = max(1, _CHUNK_BYTES // (self.q * self.m * self.dtype.itemsize))
        block_rows = max(1, rows // (stop - start))
        for p in range(0, self.p, block_rows):
            for i in range(start, stop, rows):
                yield slice(p, min(p + block_rows, self.p)), slice(i, min(i + rows, stop))


# From a starting point to a minimum


class Run(NamedTuple):
    """A starting point and what alternating steps have made of it so far."""

    factors: Factors
    history: list[float]
    """Relative error of the starting point and after every iteration; never rises."""
    converged: bool
    start: str = ""
    """The name of the starting point."""

    @classmethod
    def begin(cls, grid: BlockGrid, start: Factors, name: str = "") -> Run:
        """Return the run of no iterations."""
        error = _relative_error(grid, residual_norm2(grid, start))
        return cls(start.scaled(0), [error], error <= float(np.finfo(grid.dtype).eps), name)

    @property
    def error(self) -> float:
        """The relative error reached."""
        return self.history[-1]


def alternate(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Run:
    """Return the run after all of its iterations."""
    *_, last = (run, *alternations(grid, run, max_iter, tol))
    return last


def alternations(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Iterator[Run]:
    """Yield the run after every iteration of alternating least squares with momentum, until it has converged.

    Every iteration starts a step beyond the last iterate, along the last change. If the error then rises, the iteration
    is dropped, and the next one starts from the last iterate itself, which cannot raise it.
    """
    current, history, converged = run.factors, list(run.history), run.converged
    previous: Factors | None = None
    momentum = _MOMENTUM
    # A start that exceeds the bound on the spread may keep what it has.
    limit = max(most_spread(grid.products) ** 2 * grid.mean_norm2, spread2(current))
    while not converged and len(history) <= max_iter:
        c, b = current.c, current.b
        if previous is not None:
            c, b = c + momentum * (c - previous.c), b + momentum * (b - previous.b)
        candidate, residual = iteration(grid, c, b, limit)
        error = _relative_error(grid, residual)
        if error <= history[-1]:
            momentum = min(momentum * _GROWTH, _CEILING) if previous is not None else momentum
            converged = history[-1] - error <= tol * error or error <= float(np.finfo(grid.dtype).eps)
            current, previous = candidate, current
        else:
            # After an iteration without momentum only rounding can have raised the error.
            converged = previous is None
            momentum, previous, error = momentum * _CUT, None, history[-1]
        history.append(error)
        yield run._replace(factors=current, history=history, converged=converged)


def iteration(grid: BlockGrid, c: NDArray[Any], b: NDArray[Any], limit: float = np.inf) -> tuple[Factors, float]:
    """Find `a`, then `c`, then `b`, each the best for the two others; return them and their squared residual norm.

    Their squared spread is kept to `limit`. The residual is the norm of the matrix less what the last step explains.
    Where this difference would lose more than a few digits it is computed entry by entry.
    """
    low, weights = grid.dtype, grid.weight_diagonals
    b2 = absolute_square(b)
    above = _left_sums(grid, grid.weighted_diagonals, c.astype(low), b.astype(low))
    c2 = absolute_square(c)
    below = _left_convolution(c2, b2) if weights is None else _left_sums(grid, weights, c2, b2)
    a = _bounded_ratio(grid.dtype, above, below, _spread_weights("pq,q->p", c, b), limit)
    c = _circulant_step(
        grid, a.astype(low), b.astype(low), absolute_square(a), b2, _spread_weights("p,q->pq", a, b), limit
    )
    above = _right_sums(grid, grid.weighted, a.astype(low), c.astype(low))
    a2, c2 = absolute_square(a), absolute_square(c)
    below = _right_convolution(a2, c2) if grid.weights is None else _right_sums(grid, grid.weights, a2, c2)
    b = _bounded_ratio(grid.dtype, above, below, _spread_weights("p,pq->q", a, c), limit)
    factors = Factors(a, c, b)
    explained = 2.0 * float(np.vdot(above, b).real) - float(np.vdot(below, absolute_square(b)))
    residual = grid.norm2 - explained
    if residual < float(np.finfo(grid.dtype).eps) ** 0.2 * grid.norm2:
        residual = residual_norm2(grid, factors)
    return factors, residual


def residual_norm2(grid: BlockGrid, factors: Factors) -> float:
    """Return the squared norm of the blocks minus the product, with the weights, entry by entry in double precision."""
    c = _cyclic_windows(factors.c)
    total = 0.0
    for ps, rows in grid.chunks():
        part = c[ps, rows] * factors.b
        part *= factors.a[ps, rows, None, None]
        part -= grid.blocks[ps, rows]
        if grid.weights is None:
            total += float(np.vecdot(part, part).real.sum())
        else:
            total += float(np.sum(absolute_square(part) * grid.weights[ps, rows]))
    return total


def _circulant_step(
    grid: BlockGrid,
    a: NDArray[Any],
    b: NDArray[Any],
    a2: NDArray[Any],
    b2: NDArray[Any],
    spread: NDArray[np.float64] | None = None,
    limit: float = np.inf,
) -> NDArray[Any]:
    """Return the best `c` for given diagonals and their squares; in the precision of the diagonals."""
    above = _circulant_sums(grid, grid.weighted_diagonals, a, b)
    weights = grid.weight_diagonals
    below = _circulant_convolution(a2, b2) if weights is None else _circulant_sums(grid, weights, a2, b2)
    return (
        _ratio(grid.dtype, above, below) if spread is None else _bounded_ratio(grid.dtype, above, below, spread, limit)
    )


def _left_sums(grid: BlockGrid, diagonals: NDArray[Any], c: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) diagonals[p, i, q, k] * conj(c[p, q, k] * b[q, i - k])``."""
    windows = _cyclic_windows(b.conj())
    sums = np.zeros((grid.p, grid.m), dtype=np.result_type(diagonals, np.float64))
    for ps, rows in grid.chunks():
        sums[ps, rows] = _conjugate_row_sums(diagonals[ps, rows] * windows[rows], c[ps])
    return sums


def _circulant_sums(grid: BlockGrid, diagonals: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i diagonals[p, i, q, k] * conj(a[p, i] * b[q, i - k])``."""
    windows = _cyclic_windows(b.conj())
    sums = np.zeros((grid.p, grid.q, grid.m), dtype=np.result_type(diagonals, np.float64))
    for ps, rows in grid.chunks():
        sums[ps] += _conjugate_column_sums(diagonals[ps, rows] * windows[rows], a[ps, rows])
    return sums


def _right_sums(grid: BlockGrid, blocks: NDArray[Any], a: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(p,i) blocks[p, i, q, j] * conj(a[p, i] * c[p, q, i - j])``."""
    windows = _cyclic_windows(c.conj())
    sums = np.zeros((grid.q, grid.m), dtype=np.result_type(blocks, np.float64))
    for ps, rows in grid.chunks():
        sums += _conjugate_column_sums(blocks[ps, rows] * windows[ps, rows], a[ps, rows]).sum(axis=0)
    return sums


def _left_convolution(c2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) c2[p, q, k] * b2[q, i - k]``."""
    fast = scipy.fft.irfft(np.einsum("pqf,qf->pf", scipy.fft.rfft(c2), scipy.fft.rfft(b2)), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("iqk,pqk->pi", _cyclic_windows(b2), c2)


def _circulant_convolution(a2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i a2[p, i] * b2[q, i - k]``."""
    fast = scipy.fft.irfft(scipy.fft.rfft(a2)[:, None, :] * scipy.fft.rfft(b2).conj(), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,iqk->pqk", a2, _cyclic_windows(b2))


def _right_convolution(a2: NDArray[Any], c2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(p,i) a2[p, i] * c2[p, q, i - j]``."""
    fast = scipy.fft.irfft(np.einsum("pf,pqf->qf", scipy.fft.rfft(a2), scipy.fft.rfft(c2).conj()), n=a2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,piqj->qj", a2, _cyclic_windows(c2))


def _trusted(sums: NDArray[Any]) -> bool:
    """Whether all sums are large enough for the accuracy of a convolution by FFT."""
    return bool(sums.min() > _FFT_DYNAMIC_RANGE * sums.max())


# The spread of the factors


def spread2(factors: Factors) -> float:
    """Return the squared spread of a product."""
    a, c, b = factors
    with np.errstate(over="ignore"):
        return float(_norms2(a) @ _spread_weights("pq,q->p", c, b))


def _spread_weights(subscripts: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the energies of the blocks of a factor count in the squared spread, given the two others."""
    weights: NDArray[np.float64] = np.einsum(subscripts, _norms2(x), _norms2(y)) / x.shape[-1]
    return weights


def _norms2(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the squared norm of every block."""
    sums: NDArray[np.float64] = absolute_square(x).sum(axis=-1)
    return sums


def _ratio(dtype: np.dtype[Any], numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    """Return the quotient of sums over a matrix of `dtype`.

    Zero where the denominator vanishes, and with it the numerator, or is near underflow.
    """
    floor = float(np.finfo(dtype).tiny) ** 0.8
    quotient: NDArray[Any] = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > floor)
    return quotient


def _bounded_ratio(
    dtype: np.dtype[Any], numerator: NDArray[Any], denominator: NDArray[Any], weights: NDArray[np.float64], limit: float
) -> NDArray[Any]:
    """Minimise ``sum(denominator * abs(x)**2 - 2 * real(conj(numerator) * x))`` under a bound on the squared spread.

    Parameters
    ----------
    dtype : dtype
        That of the matrix, as for `_ratio`.
    numerator, denominator : (..., m) ndarray
    weights : (...) ndarray
        The squared spread of `x` is ``sum(weights * abs(x)**2)``.
    limit : float
        What it must not exceed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = _ratio(dtype, numerator, denominator)
        if np.sum(weights * _norms2(x)) <= limit:
            return x
    # The multiplier t solves 1 / sqrt(spread(t)) = 1 / sqrt(limit), whose left side is concave and nearly linear:
    # Newton's method goes up to it from below without overshooting. It begins where no entry exceeds the limit alone.
    w = np.broadcast_to(weights[..., None], denominator.shape)
    excess = np.abs(numerator) * np.sqrt(w / limit) - denominator
    multiplier = max(0.0, float(np.max(np.divide(excess, w, out=np.zeros_like(excess), where=w > 0.0))))
    for _ in range(_STEPS):
        damped = denominator + multiplier * w
        x = _ratio(dtype, numerator, damped)
        spread = float(np.sum(w * absolute_square(x)))
        if spread <= limit * (1.0 + _EXCESS):
            break
        slope = float(np.sum(np.square(w) * _ratio(dtype, absolute_square(x), damped)))
        multiplier += (np.sqrt(spread / limit) - 1.0) * spread / slope
    return x if spread <= limit else x * np.sqrt(limit / spread)


# Starts


def circulant_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """Return the nearest block-circulant matrix: the mean of every cyclic diagonal of every block, inside the matrix.

    The sums are in double precision, so that a circulant matrix gives itself exactly.
    """
    return _with_best_circulant(grid, grid.rows_present, grid.cols_present)


def _diagonal_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """Return the strongest cyclic diagonal of every block column, or of every block row if these explain more.

    Every block column that meets the main diagonal of the matrix has its part of that among its choices. So this is
    never worse than the nearest diagonal matrix.
    """
    diagonals = grid.weighted_diagonals if grid.weights is None else by_cyclic_diagonals(grid.blocks)
    energy = np.zeros((grid.p, grid.q, grid.m))
    for chunk in grid.chunks():
        squares = absolute_square(diagonals[chunk])
        weights = grid.weight_diagonals
        energy[chunk[0]] += (squares if weights is None else squares * weights[chunk]).sum(axis=1, dtype=np.float64)
    a, b = grid.rows_present.copy(), grid.cols_present.copy()
    c = np.zeros(energy.shape, dtype=grid.double)
    i = np.arange(grid.m)
    by_column, by_row = energy.swapaxes(0, 1).reshape(grid.q, -1), energy.reshape(grid.p, -1)
    if by_column.max(axis=1).sum() >= by_row.max(axis=1).sum():
        for q, (p, k) in enumerate(np.transpose(np.divmod(by_column.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            b[q, i - k] = diagonals[p, :, q, k]
    else:
        for p, (q, k) in enumerate(np.transpose(np.divmod(by_row.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            a[p] = diagonals[p, :, q, k]
    return Factors(a, c, b)


def _rank_one_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return the truncated SVD of rank one, ``u v^H = diag(u) circ(1) diag(conj(v))``."""
    u, v = truncated_svd(grid.weighted.reshape(grid.p * grid.m, grid.q * grid.m), 1, rng)
    c = np.ones((grid.p, grid.q, grid.m), dtype=grid.double)
    return Factors(u.reshape(grid.p, grid.m).astype(grid.double), c, v.reshape(grid.q, grid.m).astype(grid.double))


def _random_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return diagonals of random phases, or of random signs for a real matrix, and the best `c` for them."""

    def phases(present: NDArray[Any]) -> NDArray[Any]:
        turn = rng.random(present.shape)
        drawn = np.exp(2j * np.pi * turn) if np.iscomplexobj(present) else np.where(turn < 0.5, -1.0, 1.0)
        kept: NDArray[Any] = drawn * present
        return kept

    return _with_best_circulant(grid, phases(grid.rows_present), phases(grid.cols_present))


def shift_synchronisation_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return diagonals of phases by synchronisation over shifts times geometric means, and the best `c` for them."""
    g, h = _links(grid, rng)
    a, b = _geometric_means(grid)
    a = a * _ring_phases(g, grid.rows_present, rng)
    b = b * _ring_phases(h, grid.cols_present, rng)
    return _with_best_circulant(grid, a, b)


def _with_best_circulant(grid: BlockGrid, a: NDArray[Any], b: NDArray[Any]) -> Factors:
    """Return two diagonals with the best block circulant for them."""
    return Factors(a, _circulant_step(grid, a, b, absolute_square(a), absolute_square(b)), b)


def _links(grid: BlockGrid, rng: np.random.Generator) -> tuple[Links, Links]:
    """Return for every shift s estimates ``g[s]`` of ``a_(i+s) conj(a_i)`` and ``h[s]`` of ``b_(j+s) conj(b_j)``."""
    m = grid.m
    g: Links = {}
    h: Links = {}
    if m == 1:
        return g, h
    # It will be made again. So there are never more than two copies of the matrix.
    grid.__dict__.pop("weighted_diagonals", None)
    damped = _damped(grid)
    g[1], h[1] = _leading_pair(grid, damped, 1, _noise(grid.cols_present, rng), _FIRST_PASSES)
    for s in _shift_chain(m):
        g_guess, h_guess = _predicted(g, s), _predicted(h, s)
        g_new, h_new = _leading_pair(grid, damped, s, h_guess, _NEXT_PASSES)
        phase = unit(np.vdot(g_new, g_guess) + np.vdot(h_guess, h_new))
        g[s], h[s] = g_new * phase, h_new * np.conj(phase)
    turn = np.sum(_predicted(g, m)) + np.conj(np.sum(_predicted(h, m)))
    for s in g:
        if np.iscomplexobj(turn):
            correction = np.exp(-1j * np.angle(turn) * s / m)
        else:
            # For even m the sign of shift 1 is free: the product does not depend on it. For odd m it closes the turn.
            correction = -1.0 if turn < 0 and m % 2 and s % 2 else 1.0
        g[s], h[s] = g[s] * correction, h[s] * np.conj(correction)
    return g, h


def _shift_chain(m: int) -> list[int]:
    """Return the halvings of `m` between 1 and m, rounded both ways, in rising order.

    Each of them is the sum of two numbers that come before it, or are one.
    """
    chain: set[int] = set()
    half = m // 2
    while half >= 1:
        chain |= {half, half + 1}
        half //= 2
    return sorted(s for s in chain if 1 < s < m)


def _predicted(links: Links, s: int) -> NDArray[Any]:
    """Return the phases of shift `s` as those of shift t after shift s - t, from two shifts that are known."""
    t = max(t for t in links if s - t in links)
    phases: NDArray[Any] = unit(np.roll(links[s - t], -t, axis=-1) * links[t])
    return phases


def _damped(grid: BlockGrid) -> NDArray[Any]:
    """Return the blocks over the square roots of their moduli, which tames heavy tails in products of two entries."""
    out = np.zeros_like(grid.blocks)
    for chunk in grid.chunks():
        root = np.sqrt(np.abs(grid.blocks[chunk]))
        np.divide(grid.blocks[chunk], root, out=out[chunk], where=root > 0)
    return out


def _leading_pair(
    grid: BlockGrid, damped: NDArray[Any], s: int, h: NDArray[Any], passes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the leading singular pair ``g_i h_j`` of ``Q_ij = damped_(i+s, j+s) conj(damped_ij)``.

    It comes from power iterations that begin with `h`.
    """
    m = grid.m
    g = np.zeros((grid.p, m), dtype=grid.double)
    spans = ((slice(0, m - s), slice(s, m)), (slice(m - s, m), slice(0, s)))
    for _ in range(passes):
        h_low = h.astype(grid.dtype)
        h_new = np.zeros((grid.q, m), dtype=grid.double)
        for span, shifted in spans:
            for ps, rows in grid.chunks(span.start, span.stop):
                ahead = slice(rows.start - span.start + shifted.start, rows.stop - span.start + shifted.start)
                there, here = damped[ps, ahead], damped[ps, rows].conj()
                product = np.empty_like(there)
                for columns, shifted_columns in spans:
                    np.multiply(there[..., shifted_columns], here[..., columns], out=product[..., columns])
                g_low = _conjugate_row_sums(product, h_low)
                g[ps, rows] = g_low
                h_new += _conjugate_column_sums(product, g_low).sum(axis=0)
        h = h_new / (np.linalg.norm(h_new) or 1.0)
    return g / (np.linalg.norm(g) or 1.0), h


def _ring_phases(links: Links, present: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the phases whose ratios over every shift agree best with the links; zero on padding.

    Each block has a free phase of its own. The leading eigenvector of the matrix of unit links is the global optimum of
    a simpler problem. Its phases are then refined with links that are weighted by the roots of their moduli.
    """
    phase_links = {s: unit(x) for s, x in links.items()}
    weighted = {s: x * np.sqrt(np.abs(links[s])) for s, x in phase_links.items()}
    x = _noise(present, rng)
    for _ in range(_RING_PASSES):
        # Adding the number of links to all eigenvalues keeps a large negative one from leading.
        x = len(links) * x + _coupled(phase_links, x)
        x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    for _ in range(_RING_PASSES):
        x = unit(_coupled(weighted, x))
    phases: NDArray[Any] = np.where(x == 0, 1, x) * present
    return phases


def _coupled(links: Links, x: NDArray[Any]) -> NDArray[Any]:
    """Return the product of `x` with the Hermitian matrix that has ``links[s]`` on its s-th cyclic off-diagonals."""
    out = np.zeros_like(x)
    for s, link in links.items():
        out += np.roll(link * x, s, axis=-1) + link.conj() * np.roll(x, -s, axis=-1)
    return out


def _geometric_means(grid: BlockGrid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the geometric means of the nonzero moduli of every row and of every column.

    Every row meets every column and every cyclic diagonal once. So, without padding, these are the moduli of the
    diagonals of a product exactly.
    """
    rows, cols = np.zeros((2, grid.p, grid.m)), np.zeros((2, grid.q, grid.m))
    for ps, i in grid.chunks():
        size = np.abs(grid.blocks[ps, i])
        present = size > 0
        logs = np.log(size, out=np.zeros_like(size), where=present)
        for k, terms in enumerate((logs, present)):
            rows[k, ps, i] = terms.sum(axis=(2, 3), dtype=np.float64)
            cols[k] += terms.sum(axis=(0, 1), dtype=np.float64)
    return np.exp(rows[0] / np.maximum(rows[1], 1.0)), np.exp(cols[0] / np.maximum(cols[1], 1.0))


# From every start


class ThreeFactorSearch(StoppableSearch):
    """Steps in closed form from every start: a few from each, then on from the best.

    Parameters
    ----------
    problem : Problem
        Of three factors, without inputs.
    control : Control
    rng : numpy.random.Generator
    known : sequence of Found
        Products of three factors to start from besides.
    max_iter : int
        The most iterations from one starting point.

    Attributes
    ----------
    runs : list of Run
        What became of the starts, also when a search was stopped.
    """

    def __init__(
        self,
        problem: Problem,
        control: Control,
        rng: np.random.Generator,
        known: Sequence[Found] = (),
        max_iter: int | None = None,
    ) -> None:
        super().__init__(control)
        self.grid = BlockGrid(problem.matrix, problem.layout.block_size, problem.entry_weights, problem.dtype)
        self.rng, self.known, self.max_iter = rng, known, max_iter or control.max_iter
        self.runs: list[Run] = []

    def run(self) -> None:
        """Search to the end."""
        grid, rng, screening = self.grid, self.rng, min(_SCREENING_ITERATIONS, self.max_iter)
        n_random = self.control.restarts
        if n_random is None:
            n_random = min(_RANDOM_ENTRIES // grid.blocks.size, _MOST_RANDOM)
        self.runs += [Run.begin(grid, start(grid, rng), name) for name, start in CLOSED_FORMS.items()]
        self.runs += [Run.begin(grid, grid.factors(known.vectors), known.start) for known in self.known]
        for place in range(len(self.runs)):
            self._go_on(place, "screening", screening)
        for name, start in (*STARTS.items(), *[("random", _random_start)] * n_random):
            self.control.check()
            if min(run.error for run in self.runs) <= rounding_error(grid.dtype):
                break
            self.runs.append(Run.begin(grid, start(grid, rng), name))
            self._go_on(-1, "screening", screening)
        self.runs = [self._best_run()]
        self._go_on(0, "alternation", self.max_iter)

    @property
    def best(self) -> Found:
        """The product of the best run."""
        run = self._best_run()
        return Found(run.start, self.grid.vectors(run.factors), run.history, run.converged)

    @property
    def has_product(self) -> bool:
        """Whether the closed forms are there."""
        return bool(self.runs)

    def _best_run(self) -> Run:
        return min(self.runs, key=self._error_of_products)

    def _go_on(self, place: int, phase: str, most: int) -> None:
        begun = self.runs[place]
        for run in alternations(self.grid, begun, most, self.control.tol):
            self.runs[place] = run
            self.control.report(run.start, len(run.history) - 1, run.error, phase=phase, n_factors=3, most=most)

    def _error_of_products(self, run: Run) -> float:
        """Return the error that products will have: that of the factors, and what rounding is expected to add."""
        rounding = float(np.finfo(self.grid.products).eps) ** 2 * spread2(run.factors)
        return float(np.sqrt(run.error**2 + rounding / self.grid.norm2)) if self.grid.norm2 else run.error


CLOSED_FORMS: dict[str, Callable[[BlockGrid, np.random.Generator], Factors]] = {
    "circulant": circulant_start,
    "diagonal": _diagonal_start,
    "rank-one": _rank_one_start,
}
"""All of these run on every matrix, and the fit must never be worse than any of them."""

STARTS: dict[str, Callable[[BlockGrid, np.random.Generator], Factors]] = {
    "shift-synchronisation": shift_synchronisation_start
}
"""These come next, as long as the best one is not exact."""


# Sums and layouts


def _cyclic_windows(x: NDArray[Any]) -> NDArray[Any]:
    """Return a view ``y[..., i, q, k] = x[..., q, (i - k) % m]`` of an array (..., q, m), on twice its numbers."""
    m = x.shape[-1]
    once = transposed_circulants(x)
    twice = np.concatenate((once, once), axis=-1)
    *lead, q_stride, step = twice.strides
    # `as_strided` does the same, but takes longer than small sums do.
    shape, strides = (*x.shape[:-2], m, x.shape[-2], m), (*lead, -step, q_stride, step)
    return np.ndarray(shape, x.dtype, buffer=twice, offset=m * step, strides=strides)


# The two sums below do without the matrix-vector products of BLAS. At this size its threads save little, and on a busy
# machine every call may wait for them for milliseconds.


def _conjugate_row_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) rows[p, i, q, k] * conj(weights[..., q, k])``, with or without a leading p on the weights."""
    flat = weights.reshape(*weights.shape[:-2], 1, -1)
    sums: NDArray[Any] = np.vecdot(flat, rows.reshape(*rows.shape[:2], -1))
    return sums


def _conjugate_column_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i rows[p, i, q, k] * conj(weights[p, i])``; complex sums are made of real ones, which vectorise."""
    flat = rows.reshape(*rows.shape[:2], -1)
    if np.iscomplexobj(flat):
        parts = flat.view(flat.real.dtype)
        real, imaginary = (np.einsum("pi,pik->pk", w, parts).view(flat.dtype) for w in (weights.real, weights.imag))
        sums: NDArray[Any] = real - 1j * imaginary
    else:
        sums = np.einsum("pi,pik->pk", weights, flat)
    return sums.reshape(rows.shape[0], *rows.shape[2:])


def _relative_error(grid: BlockGrid, residual: float) -> float:
    """Return the relative error of a squared residual norm; zero for a zero matrix, which every start fits exactly."""
    return float(np.sqrt(max(residual, 0.0) / grid.norm2)) if grid.norm2 else 0.0


def _exponent(x: NDArray[Any]) -> int:
    """Return the binary exponent of the root mean square of `x`, or zero if `x` is zero."""
    largest = np.abs(x).max(initial=0.0)
    if largest == 0.0:
        return 0
    return int(np.frexp(largest * np.sqrt(np.mean(np.square(np.abs(x / largest)))))[1])


def _noise(like: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return standard normal numbers of the shape of an array, complex if it is."""
    x = rng.standard_normal((2, *like.shape))
    noise: NDArray[Any] = x[0] + 1j * x[1] if np.iscomplexobj(like) else x[0]
    return noise


def unit(x: Any) -> Any:
    """Return ``x / |x|``, zero where `x` is zero."""
    size = np.abs(x)
    return x / np.where(size > 0, size, 1.0)
