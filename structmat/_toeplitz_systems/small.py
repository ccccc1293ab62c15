"""Stacks of small Toeplitz matrices, which are written out and eliminated all at once by the library of their arrays.

Everything is computed in double precision. Solutions are refined where their backward errors are not at the level of
rounding, unless a compiler traces, which can read no values; elimination with pivots leaves few such ones. The
condition of a matrix is bounded from below by the solution for a vector without any pattern, and where that bound may
be far from the condition, by one more step of Hager's method. The two vectors of an inverse are refined with residuals
that are nearly exact, since its formula needs more digits of them than a solution has.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from structmat._arrays.arithmetic import binary_exponents, conjugate, euclidean_norm, times_power_of_two
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy, is_torch, rules_of
from structmat._arrays.linear_algebra import VECTORS
from structmat._arrays.shapes import concat_last, windows
from structmat._arrays.typing import Array, DType, Namespace
from structmat._rules import Elimination
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.elimination import uneven_vector
from structmat._toeplitz_systems.inverse import bezoutian
from structmat._toeplitz_systems.refinement import refined_to_the_last_digit, refined_while_it_helps

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision."""

_SLICE = 20
"""Numbers are cut into slices of at most 21 bits, so that sums of 512 products of two slices are exact."""


class SmallSystems:
    """Systems with a stack of s matrices of n rows, first columns `c` and first rows `r` of shape ``(s, n)``.

    Both are in double precision, and `eps` is the machine epsilon of the numbers that they were given in. The matrices
    are scaled by powers of two, each by its own; one that is not finite is replaced by the identity.
    """

    def __init__(self, c: Array, r: Array, xp: Namespace, eps: float) -> None:
        self.xp = xp
        self.eps = eps
        self.n = c.shape[-1]
        constants = concat_last([xp.flip(r[..., 1:], axis=-1), c], xp)
        largest = xp.max(xp.abs(constants), axis=-1)
        self.is_finite = xp.isfinite(largest)
        self.exponents = binary_exponents(largest, xp)
        identity = xp.astype(xp.arange(2 * self.n - 1, device=device_of(c)) == self.n - 1, constants.dtype)
        scaled = constants / 2.0 ** self.exponents[:, None]
        self.constants = xp.where(self.is_finite[:, None], scaled, identity)
        """The diagonals, from the upper right corner to the lower left one."""
        self.matrices = self._written_out(self.constants)
        """The matrices, written out."""
        self.elimination: Elimination = rules_of(xp).elimination(self.matrices)
        """What elimination makes of them."""
        self.row_sums = xp.sum(xp.abs(self.matrices), axis=-1)
        """The sums of the moduli in each row."""
        self.norm = xp.max(self.row_sums, axis=-1)
        """The largest of these sums for each matrix: its infinity norm, which is its 1-norm too."""

    # Properties of the matrices

    def _written_out(self, constants: Array) -> Array:
        """Return matrices with these diagonals.

        In torch views of windows are copied in a tenth of the time that a gather takes.
        """
        xp = self.xp
        backwards = xp.flip(constants, axis=-1)
        views = backwards.unfold(-1, self.n, 1) if is_torch(constants) else windows(backwards, self.n, xp)
        matrices = xp.flip(views, axis=-2)
        return np.ascontiguousarray(matrices) if is_numpy(xp) else matrices

    def _probe(self) -> Array:
        """Return a right-hand side without any pattern, for each matrix."""
        xp = self.xp
        v = xp.asarray(uneven_vector(self.n), dtype=self.constants.dtype, device=device_of(self.constants))
        return xp.broadcast_to(v[:, None], (self.constants.shape[0], self.n, 1))

    def condition(self) -> Array:
        """Return lower bounds of the condition numbers: how much the solution grows for a vector without any pattern.

        Their values are read. Where that may be far off, it is replaced by a step of Hager's method. It takes a
        solution for the adjoint, which is the matrix with rows and columns in reverse order, and conjugate. They are
        NaN where the matrix is singular or not finite, and zeros where the diagonals of all matrices show that they
        are far from it.
        """
        xp = self.xp
        total = xp.sum(xp.abs(self.constants), axis=-1)
        dominance = 2 * xp.abs(self.constants[:, self.n - 1]) - total  # at most the least singular value
        safe = self.is_finite & (dominance > thresholds.NEAR * math.sqrt(self.n) * self.eps * total)
        if bool(xp.all(safe)):
            return xp.zeros_like(total)
        probe = self._probe()
        x = self.elimination.solve(probe)
        growth = self.norm * _largest(x, xp) / _largest(probe, xp)
        growth = xp.where(self.is_finite & xp.isfinite(growth), growth, xp.full_like(growth, xp.nan))
        if bool(xp.all(growth * thresholds.FAR <= 1 / self.eps)):
            return growth
        moduli = xp.abs(x)
        signs = xp.where(moduli > 0, x / xp.where(moduli > 0, moduli, xp.ones_like(moduli)), xp.ones_like(x))
        z = self.elimination.solve(xp.flip(conjugate(signs, xp), axis=1))
        return xp.maximum(growth, self.norm * _largest(z, xp))

    # Solutions

    def solve(self, b: Array) -> Array:
        """Return solutions for right-hand sides of shape ``(s, n, k)``.

        They are NaN where a matrix is singular or not finite, and where the right-hand side is not finite.
        """
        xp = self.xp
        sizes = xp.max(xp.abs(b), axis=1, keepdims=True)
        is_finite = xp.isfinite(sizes)
        exponents = binary_exponents(sizes, xp)
        b = xp.where(is_finite, b / 2.0**exponents, xp.zeros_like(b))
        x = self.elimination.solve(b)
        if rules_of(xp).has_values(x):  # elimination is stable: to refine in every trace would be in vain
            wanted = thresholds.ROUNDING * _EPS * math.sqrt(self.n)
            measured = partial(self._residuals_and_errors, b)
            x, _, _ = refined_while_it_helps(self.elimination.solve, measured, x, wanted, xp)
        is_good = xp.all(xp.isfinite(x), axis=1, keepdims=True) & is_finite & self.is_finite[:, None, None]
        x = times_power_of_two(x, exponents - self.exponents[:, None, None], xp)
        return xp.where(is_good, x, xp.full_like(x, xp.nan))

    def _residuals_and_errors(self, b: Array, x: Array) -> tuple[Array, Array]:
        """Return the residuals, and for each solution the smallest change of the matrix that makes it exact.

        That is measured relative to each of its rows, so that large rows do not hide the errors of small ones.
        """
        xp = self.xp
        residuals = b - xp.matmul(self.matrices, x)
        sums = xp.where(self.row_sums > 0, self.row_sums, xp.ones_like(self.row_sums))[:, :, None]
        largest = xp.max(xp.abs(residuals) / sums, axis=1, keepdims=True)
        norms = xp.max(xp.abs(x), axis=1, keepdims=True)
        return residuals, xp.where(largest > 0, largest / norms, xp.zeros_like(largest))

    # The determinant

    def slogdet(self) -> tuple[Array, Array]:
        """Return the phases of the determinants and the logarithms of their absolute values.

        The phase is zero where the matrix is singular, and both are NaN where it is not finite. `error_of_slogdet` says
        how accurate they are.
        """
        xp, n = self.xp, self.n
        sign, log = self.elimination.slogdet()
        corner = self.constants[:, n - 1]
        modulus = xp.abs(corner)
        below, above = self.constants[:, n:], self.constants[:, : n - 1]
        is_triangular = xp.all(below == 0, axis=-1) | xp.all(above == 0, axis=-1)
        positive = xp.where(modulus > 0, modulus, xp.ones_like(modulus))
        sign = xp.where(is_triangular, (corner / positive) ** n, sign)
        log = xp.where(is_triangular, n * xp.log(positive), log) + n * math.log(2) * self.exponents
        if is_complex(sign.dtype, xp):
            difference = self.constants - conjugate(xp.flip(self.constants, axis=-1), xp)
            is_hermitian = xp.all(difference == 0, axis=-1)
            sign = xp.where(is_hermitian, xp.astype(xp.sign(xp.real(sign)), sign.dtype), sign)
        nan = xp.full_like(log, xp.nan)
        return xp.where(self.is_finite, sign, xp.full_like(sign, xp.nan)), xp.where(self.is_finite, log, nan)

    def error_of_slogdet(self) -> Array:
        """Return how far off the logarithms may be beside the rounding of their sums, as `AcceptedSystem` has it."""
        xp, n, count = self.xp, self.n, VECTORS
        vectors = np.random.default_rng(0).standard_normal((n, count))
        z = xp.asarray(vectors, dtype=self.constants.dtype, device=device_of(self.constants))
        x = self.elimination.solve(xp.broadcast_to(z, (self.constants.shape[0], n, count)))
        norm = xp.sqrt(xp.sum(xp.abs(x) ** 2, axis=(-2, -1)) / count)
        largest = xp.max(xp.abs(self.constants), axis=-1)
        return thresholds.LOGARITHM_PER_DEVIATION * math.sqrt(n) * _EPS * largest * norm

    # The inverse

    def vectors(self) -> tuple[Array, Array]:
        """Return x and y that determine the inverses.

        ``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])``, see `inverse`, with the s for which the norm of y is
        least. They are NaN where a matrix is singular or not finite.
        """
        xp, n = self.xp, self.n
        first_row = self.constants[:, : n - 1]
        zero = xp.zeros_like(self.constants[:, :1])
        unit = concat_last([xp.ones_like(zero), xp.zeros_like(first_row)], xp)
        b = xp.stack([unit, concat_last([zero, first_row], xp)], axis=-1)
        is_fixed = xp.reshape(xp.arange(2 * n, device=device_of(b)) != 1, (n, 2))  # all entries but s, which is free

        def residuals(v: Array) -> Array:
            return xp.where(is_fixed, self._exact_residuals(v, b), xp.zeros_like(b))

        def with_shortest_y(v: Array) -> Array:
            return _with_shortest_y(v, xp)

        solve = self.elimination.solve
        v = refined_to_the_last_digit(solve, residuals, solve(b), xp, axis=1, adjusted=with_shortest_y)
        is_good = (xp.all(xp.isfinite(v), axis=(1, 2)) & self.is_finite)[:, None]
        x, y = (xp.where(is_good, v[..., k], xp.full_like(v[..., k], xp.nan)) for k in (0, 1))
        return times_power_of_two(x, -self.exponents[:, None], xp), y

    def _exact_residuals(self, v: Array, b: Array) -> Array:
        """Return residuals of columns with an error far below that of rounding of the product.

        Matrices and columns are the sums of three slices each, and sums of the products of the largest slices are
        exact.
        """
        xp = self.xp
        slices = self._slices(self.constants[:, :, None])
        columns = xp.concat(self._slices(v), axis=-1)
        products = [xp.matmul(self._written_out(part[..., 0]), columns) for part in slices]
        k = v.shape[-1]
        residuals = b
        for i, j in sorted(np.ndindex(3, 3), key=sum):
            residuals = residuals - products[i][..., j * k : (j + 1) * k]
        return residuals

    def _slices(self, v: Array) -> list[Array]:
        """Return three arrays whose sum is v: the first and the next bits of the largest numbers, and the rest."""
        xp = self.xp
        exponents = binary_exponents(xp.max(xp.abs(v), axis=1, keepdims=True), xp)
        slices = []
        for k in (1, 2):
            shift = float(k * _SLICE + k - 1) - exponents
            slices.append(times_power_of_two(_rounded(times_power_of_two(v, shift, xp), xp), -shift, xp))
            v = v - slices[-1]
        return [*slices, v]

    def lost_digits(self, x: Array, y: Array, dtype: DType) -> Array:
        """Return the errors of products with the inverses of given vectors where they are far above those of solutions.

        The products are in that dtype, with a vector without any pattern; zeros stand for errors that are small.
        """
        xp = self.xp
        x = times_power_of_two(x, self.exponents[:, None], xp)  # of the scaled matrices
        norm_x, norm_y = (xp.sum(xp.abs(v), axis=-1) for v in (x, y))
        most_lost = norm_x * (1 + 2 * norm_y) * self.norm
        may_be_lossy = xp.isfinite(norm_x) & ~(most_lost <= thresholds.LOSSLESS)
        if not bool(xp.any(may_be_lossy)):
            return xp.zeros_like(norm_x)
        v = xp.astype(xp.astype(self._probe(), dtype), self.constants.dtype)
        b = xp.astype(xp.matmul(self.matrices, v), dtype)
        inverse = bezoutian(xp.astype(x, dtype), xp.astype(y, dtype), xp)
        by_inverse = xp.astype(inverse.apply(b[..., 0], xp), self.constants.dtype)
        of_scaled = times_power_of_two(xp.astype(b, self.constants.dtype), self.exponents[:, None, None], xp)
        by_solving = self.solve(of_scaled)
        norm = euclidean_norm(v[..., 0], xp)
        lost, best = (euclidean_norm(z - v[..., 0], xp) / norm for z in (by_inverse, by_solving[..., 0]))
        is_lossy = may_be_lossy & ~(lost <= thresholds.LOSSY * xp.maximum(best, xp.full_like(best, self.eps / 2)))
        return xp.where(is_lossy, lost, xp.zeros_like(lost))


def _largest(x: Array, xp: Namespace) -> Array:
    """Return the largest modulus for each matrix."""
    return xp.max(xp.abs(x), axis=(1, 2))


def _with_shortest_y(v: Array, xp: Namespace) -> Array:
    """Return columns x, and y less the multiple of x for which its norm is least; that changes only the free entry."""
    x, y = v[..., 0], v[..., 1]
    factor = xp.sum(conjugate(x, xp) * y, axis=-1) / xp.sum(conjugate(x, xp) * x, axis=-1)
    return xp.stack([x, y - factor[:, None] * x], axis=-1)


def _rounded(x: Array, xp: Namespace) -> Array:
    """Return the nearest whole numbers, of real and imaginary parts alone in torch, which rounds no complex numbers."""
    return xp.round(xp.real(x)) + 1j * xp.round(xp.imag(x)) if is_complex(x.dtype, xp) else xp.round(x)
