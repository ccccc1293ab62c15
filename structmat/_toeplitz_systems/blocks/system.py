"""One block Toeplitz matrix: which way its systems are solved, and what is accepted, as for entries in place of blocks.

The algorithms are Whittle's recursion, iteration with a block circulant, and elimination of the dense matrix. Solutions
are accepted by their backward errors, as those of `ToeplitzSystem`. Components of different units are brought to one
size first: the rows and columns of each component are multiplied by powers of two, after which the matrix is block
Toeplitz still.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._arrays.arithmetic import times_power_of_two
from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier.blocks import BlockToeplitzConvolution
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.acceptance import AcceptedSystem, Determinant, too_large_to_be_written_out
from structmat._toeplitz_systems.accuracy_warnings import warn_of_lost_digits
from structmat._toeplitz_systems.blocks.chan_preconditioner import (
    block_circulant_inverse,
    solve_by_conjugate_gradients,
    solve_by_gmres,
)
from structmat._toeplitz_systems.blocks.inverse import InverseBlocks
from structmat._toeplitz_systems.blocks.recursion import BlockRecursion, whittle
from structmat._toeplitz_systems.elimination import TriangularFactors, dense_factors, uneven_vector
from structmat._toeplitz_systems.refinement import corrected_by_itself, refined_to_the_last_digit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision, in which everything is computed."""


class _Corrected(NamedTuple):
    """What a recursion found, after corrections of the inverse by itself."""

    recursion: BlockRecursion
    inverse: InverseBlocks
    first: float
    """The first relative correction: what the recursion is off by."""
    last: float
    """The last one."""


class BlockToeplitzSystem(AcceptedSystem):
    """Systems with a block Toeplitz matrix T of first block column `c` and first block row `r`, of p x p blocks."""

    def __init__(self, c: NDArray[Any], r: NDArray[Any], owner: str | None = None, *, ready: bool = False) -> None:
        self.blocks, self.p = c.shape[:2]
        super().__init__(self.blocks * self.p, c.dtype, owner, ready=ready)
        wide = np.complex128 if np.iscomplexobj(c) else np.float64
        offsets = np.concatenate([r[:0:-1], c]).astype(wide)
        moduli = np.max(np.abs(offsets), axis=0)
        self.is_finite = bool(np.all(np.isfinite(moduli)))
        self.hermitian = bool(np.array_equal(offsets, offsets[::-1].conj().swapaxes(-2, -1)))
        self.row_shifts, self.column_shifts = (
            _shifts(moduli, hermitian=self.hermitian) if self.is_finite else np.zeros((2, self.p), int)
        )
        """The exponents of two by which the rows and the columns of each component are multiplied."""
        self.constants = _times_powers_of_two(offsets, self.row_shifts[:, None] + self.column_shifts)
        """The blocks at all offsets, from the upper right corner to the lower left one, shape ``(2 n - 1, p, p)``."""
        self.c = self.constants[self.blocks - 1 :]
        self.r = self.constants[: self.blocks][::-1]

    # Properties of the matrix

    @cached_property
    def dense(self) -> NDArray[Any]:
        """The matrix itself."""
        i = np.arange(self.blocks)
        entries = self.constants[i[:, None] - i + self.blocks - 1]
        return np.ascontiguousarray(entries.swapaxes(1, 2)).reshape(self.n, self.n)

    @cached_property
    def plan(self) -> BlockToeplitzConvolution:
        """The products with T."""
        return BlockToeplitzConvolution.of(self.c, self.r, numpy_namespace)

    def _product(self, x: NDArray[Any]) -> Any:
        return self.plan.apply(x, numpy_namespace)

    @cached_property
    def row_sums(self) -> NDArray[Any]:
        """The sums of the moduli in each row."""
        each = np.sum(np.abs(self.constants), axis=-1)
        sums = np.concatenate([np.zeros((1, self.p)), np.cumsum(each, axis=0)])
        return (sums[self.blocks :] - sums[: self.blocks])[: self.blocks].ravel()

    @cached_property
    def is_uneven(self) -> bool:
        """Whether the entries of some rows are so small that rounding errors of transforms would hide them."""
        return bool(np.min(self.row_sums) < thresholds.UNEVEN * np.sum(np.abs(self.constants)) / self.p)

    def _eliminated(self) -> TriangularFactors | None:
        return dense_factors(self.dense)

    @cached_property
    def can_recur(self) -> bool:
        """Whether a recursion takes no longer than a minute or so."""
        return self.n**2 * self.p <= thresholds.BLOCK_RECURSION

    @cached_property
    def recursion(self) -> _Corrected | None:
        """What the recursion found, with the inverse corrected; None if a leading section is singular."""
        with np.errstate(all="ignore"):
            found = whittle(self.constants, hermitian=self.hermitian)
            if found is None:
                return None
            inverse, first, last = corrected_by_itself(self._corrected_blocks, found.inverse)
        return _Corrected(found, inverse, first, last)

    @cached_property
    def inverse(self) -> Any:
        """The products of rows with the inverse; None where the recursion finds none that is at all accurate."""
        found = self.recursion if self.can_recur else None
        return _product_with(*found.inverse.factors(numpy_namespace)) if found is not None and found.last < 1 else None

    def _right_hand_sides(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return those of the systems of x and y, and those of v and w for the transpose, as rows.

        The block s, which is free, is zero.
        """
        n, p = self.blocks, self.p
        zero = np.zeros((1, p, p), self.constants.dtype)
        zeros = np.zeros((n - 1, p, p), self.constants.dtype)
        unit = zero + np.eye(p)
        columns = np.concatenate([unit, zeros]), np.concatenate([zero, self.r[:0:-1]])
        rows = np.concatenate([zeros, unit]), np.concatenate([self.r[1:], zero])
        return _as_rows(np.concatenate(columns, axis=-1)), _as_rows(_transposes(np.concatenate(rows, axis=-2)))

    def _corrected_blocks(self, inverse: InverseBlocks) -> tuple[InverseBlocks, float]:
        """Return what determines the inverse after one correction by itself, and the relative correction."""
        p, xp = self.p, numpy_namespace
        if not all(np.all(np.isfinite(blocks)) for blocks in inverse):
            return inverse, math.inf
        columns, rows = inverse.as_rows()
        wanted_columns, wanted_rows = self._right_hand_sides()
        of_columns: Any = self.plan.apply(columns, xp)
        of_rows: Any = BlockToeplitzConvolution.of(_transposes(self.r), _transposes(self.c), xp).apply(rows, xp)
        s = of_columns[p:, :p].T  # which y leaves; it is to be that of w as well
        wanted_columns[p:, :p] = s.T
        wanted_rows[p:, -p:] = s
        lower, upper = inverse.factors(xp)
        corrections = (
            _product_with(lower, upper)(wanted_columns - of_columns),
            _product_with(_transposes(upper), _transposes(lower))(wanted_rows - of_rows),
        )
        relative = [_relative(part, of) for part, of in zip(corrections, (columns, rows), strict=True)]
        return InverseBlocks.from_rows(columns + corrections[0], rows + corrections[1], p), max(relative)

    # Solutions

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return x with ``T x = b`` along the last axis, in double precision; NaN where b or T is not finite.

        A matrix that is singular to working precision is an error, and one for which no way is accurate.
        """
        if np.iscomplexobj(b) and not np.iscomplexobj(self.constants):
            return super().solve(b)  # which calls this method for both parts
        rows, columns = (np.tile(shifts, self.blocks) for shifts in (self.row_shifts, self.column_shifts))
        return _times_powers_of_two(super().solve(_times_powers_of_two(b, rows)), columns)

    def _ways(self, count: int) -> list[tuple[str, float | None, Callable[[NDArray[Any]], Any]]]:
        """Return ways to solve `count` systems; iteration is first for few ones, and where a recursion takes long."""
        n, is_eliminated = self.n, self.n <= thresholds.LARGEST
        is_few = count * thresholds.BLOCK_ROWS <= n and not self.ready
        iteration = thresholds.BLOCK_STEPS if is_few or not self.can_recur else None if is_eliminated else n**2
        return [
            ("iteration", iteration, self._solve_by_iteration),
            ("inverse", n * self.p if self.can_recur else None, self._solve_by_inverse),
            ("elimination", n**2 if is_eliminated else None, self._solve_by_elimination),
        ]

    def _solve_by_inverse(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by the inverse that the recursion finds; NaN where that is not at all accurate."""
        x: NDArray[Any] = np.full_like(b, np.nan) if self.inverse is None else self.inverse(b)
        return x

    def _solve_by_iteration(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by iteration, or NaN."""
        preconditioned = self._preconditioned
        if preconditioned is None:
            return np.full_like(b, np.nan)
        if self.hermitian:
            x = solve_by_conjugate_gradients(self._product, preconditioned, b)
            if np.all(np.isfinite(x)):
                return x
        return solve_by_gmres(self._product, preconditioned, b)

    @cached_property
    def _preconditioned(self) -> Any:
        return block_circulant_inverse(self.constants)

    # The inverse

    def inverse_blocks(self, dtype: Any) -> InverseBlocks:
        """Return what determines the inverse, in a dtype, of the matrix before it was scaled; NaN if it is not finite.

        There is a warning if products with the inverse in that dtype are far less accurate than solutions.
        """
        n, p = self.blocks, self.p
        if not self.is_finite:
            return InverseBlocks(*np.full((4, n, p, p), np.nan, dtype))
        if not np.all(self.row_sums):
            raise self._singular()
        found = self.recursion if self.n > thresholds.DENSE and self.can_recur else None
        if found is not None and found.last <= thresholds.TRUSTED:
            inverse = found.inverse
        elif self.is_eliminated_at_last:
            inverse = self._blocks_by_elimination()
        else:
            raise self._refusal()
        if not all(np.all(np.isfinite(blocks)) for blocks in inverse):
            raise self._singular()
        self._warn_of_lost_blocks(InverseBlocks(*(blocks.astype(dtype) for blocks in inverse)))
        return InverseBlocks(*(blocks.astype(dtype) for blocks in self._unscaled(inverse)))

    def _unscaled(self, inverse: InverseBlocks) -> InverseBlocks:
        """Return what determines the inverse of the matrix before its rows and columns were scaled."""
        rows, columns = self.row_shifts, self.column_shifts
        of_columns = columns[:, None]
        return InverseBlocks(
            _times_powers_of_two(inverse.x, of_columns + rows),
            _times_powers_of_two(inverse.y, of_columns - columns),
            _times_powers_of_two(inverse.v, of_columns + rows),
            _times_powers_of_two(inverse.w, rows - rows[:, None]),
        )

    def _blocks_by_elimination(self) -> InverseBlocks:
        """Return what determines the inverse by triangular factors, refined where the matrix is small."""
        columns, rows = self._right_hand_sides()
        solved = self._refined(self.factors.solve, self.dense, columns)
        of_transpose = self._refined(self._by_factors_of_transpose, self.dense.T, rows)
        return InverseBlocks.from_rows(solved, of_transpose, self.p)

    def _refined(
        self, solve: Callable[[NDArray[Any]], NDArray[Any]], matrix: NDArray[Any], b: NDArray[Any]
    ) -> NDArray[Any]:
        """Return solutions for the rows of b, those of small matrices with residuals in extended precision."""
        x = solve(b)
        if self.n > thresholds.DENSE:
            return x
        extended = matrix.T.astype(np.clongdouble if np.iscomplexobj(matrix) else np.longdouble)

        def residuals(x: NDArray[Any]) -> NDArray[Any]:
            return (b - x @ extended).astype(b.dtype)

        x = x.astype(extended.dtype)
        return refined_to_the_last_digit(solve, residuals, x, numpy_namespace).astype(b.dtype)

    def _by_factors_of_transpose(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the solutions of systems with the transpose of T for the rows of b."""
        return np.transpose(self.factors.systems(b=b.T, trans=1)[0])

    def _refusal(self) -> np.linalg.LinAlgError:
        """Return the error for a large matrix for which no direct way is accurate, or none is short enough."""
        if self.can_recur:
            reason = "is too ill-conditioned, or its leading sections are, for a recursion, and"
            text = f"{reason} {too_large_to_be_written_out()}"
        else:
            text = f"has {self.blocks} x {self.blocks} blocks, too many for a recursion"
            text += "; `solve` iterates, and structmat.slogdet estimates that of a sum with a Diagonal"
        return np.linalg.LinAlgError(f"{self.owner}: the matrix {text}")

    def _warn_of_lost_blocks(self, inverse: InverseBlocks) -> None:
        """Warn if the product of the inverse with one vector is far less accurate than the solution for it."""
        lower, upper = inverse.factors(numpy_namespace)
        norm_lower, norm_upper = (float(np.max(np.sum(np.abs(blocks), axis=(0, 2)))) for blocks in (lower, upper))
        if not self.owner or norm_lower * norm_upper * float(self.norm) <= thresholds.LOSSLESS:
            return
        v = uneven_vector(self.n)
        b: Any = self._product(v[None].astype(self.constants.dtype))
        by_inverse = _product_with(lower, upper)
        results = by_inverse(b.astype(lower.dtype))[0], self._solve_rows(b)[0]
        lost, best = (float(np.linalg.norm(z - v)) / float(np.linalg.norm(v)) for z in results)
        condition = float(self.norm) * float(np.max(np.abs(by_inverse(v[None].astype(lower.dtype)))))
        if not lost <= thresholds.LOSSY * max(best, self.eps * condition):
            warn_of_lost_digits(lost, self.owner)

    # The determinant

    def slogdet(self, *, with_error: bool = False) -> tuple[Any, float, float]:
        """Return the phase of the determinant, zero where T is singular, and the logarithm of its absolute value.

        The third number is, if it is asked for, how far off the logarithm may be beside the rounding of its last sum.
        """
        if not self.is_finite:
            return math.nan, math.nan, math.nan
        found = self._determinant_of_factors() if self.n <= thresholds.DENSE else self._determinant_by_recursion()
        sign, log = found.sign, found.log
        if self.hermitian or not np.iscomplexobj(self.constants):
            sign = float(np.sign(np.real(sign)))
        shift = self.blocks * int(np.sum(self.row_shifts + self.column_shifts))
        log = log - shift * math.log(2) if sign else -math.inf
        largest = float(np.max(np.abs(self.constants)))
        return sign, log, self._error_of(found, largest) if with_error else 0.0

    def _determinant_by_recursion(self) -> Determinant:
        """Return the determinant by the recursion, or of the factors where these are more accurate."""
        found = self.recursion if self.can_recur else None
        is_trusted = False
        if found is not None:
            trusted = thresholds.TRUSTED if found.recursion.is_definite else thresholds.TRUSTED_LOGARITHM
            is_trusted = found.first <= trusted
        is_rough = found is not None and found.first <= thresholds.TRUSTED
        if not is_trusted and (self.n <= thresholds.LARGEST or (self.is_eliminated_at_last and not is_rough)):
            return self._determinant_of_factors()
        if found is None or not is_rough:
            raise self._refusal()
        if not is_trusted:
            self._warn_of_logarithm(found.first)
        lost = self._lost_by_recursion(found.first, is_definite=found.recursion.is_definite)
        return Determinant(found.recursion.sign, found.recursion.log, self.inverse, lost)


def _product_with(lower: NDArray[Any], upper: NDArray[Any]) -> Callable[[NDArray[Any]], Any]:
    """Return the product of rows with ``L(lower) U(upper)``."""
    xp = numpy_namespace
    first_column = np.concatenate([upper[:1], np.zeros_like(upper[1:])])
    L = BlockToeplitzConvolution.of(lower, np.zeros_like(lower), xp)
    U = BlockToeplitzConvolution.of(first_column, upper, xp)
    return lambda b: L.apply(U.apply(b, xp), xp)


def _transposes(blocks: NDArray[Any]) -> NDArray[Any]:
    return blocks.swapaxes(-2, -1)


def _as_rows(column: NDArray[Any]) -> NDArray[Any]:
    """Return the columns of a block column, shape ``(n, p, k)``, as k rows."""
    return np.ascontiguousarray(column.transpose(2, 0, 1)).reshape(column.shape[2], -1)


def _relative(correction: NDArray[Any], of: NDArray[Any]) -> float:
    """Return the norm of a correction relative to that of what is corrected."""
    norm = float(np.linalg.norm(of))
    return float(np.linalg.norm(correction)) / (norm or 1.0)


def _shifts(moduli: NDArray[Any], *, hermitian: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return exponents of two for rows and columns, after which the largest entries of all are near one.

    `moduli` holds the largest modulus of each entry of the blocks. Those of a Hermitian matrix make the diagonal one.
    """
    if hermitian:
        diagonal = np.diagonal(moduli)
        own = -(_exponents(np.where(diagonal > 0, diagonal, np.max(moduli, axis=1))) // 2)
        return own, own
    rows = -_exponents(np.max(moduli, axis=1))
    columns = -_exponents(np.max(_times_powers_of_two(moduli, rows[:, None]), axis=0))
    return rows, columns


def _exponents(moduli: NDArray[Any]) -> NDArray[Any]:
    """Return the exponents of the powers of two near positive numbers, and zero for zero."""
    return np.where(moduli > 0, np.frexp(moduli)[1], 0)


def _times_powers_of_two(v: NDArray[Any], exponents: NDArray[Any]) -> Any:
    return times_power_of_two(v, exponents, numpy_namespace) if np.any(exponents) else v
