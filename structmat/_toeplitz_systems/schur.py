"""Schur's algorithm for Hermitian Toeplitz matrices: reflection coefficients and Cholesky factors in O(n^2).

With the shift Z down by one, ``T - Z T Z^H = u u^H - v v^H`` for u the first column over the root of the corner entry,
and v the same with a zero in front. Each step shifts u down and turns u and v by the hyperbolic rotation after which v
has one more zero in front; then u is the next column of the factor.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.arithmetic import conjugate, quotient, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, namespace_of, rules_of
from structmat._arrays.linear_algebra import equals_adjoint
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.elimination import toeplitz_view

if TYPE_CHECKING:
    from collections.abc import Iterator


def toeplitz_cholesky(c: Array, r: Array, xp: Namespace, owner: str) -> Array:
    """Return the Cholesky factor of a matrix of that first column and row.

    A matrix that is not Hermitian, or not positive definite, is an error where values may be read. Elsewhere the
    Hermitian part is taken, and the factor is NaN where it is not positive definite.
    """
    first = _first_column_of_hermitian(c, r, xp, owner)
    if is_numpy(xp) and first.shape[-1] <= thresholds.DENSE_CHOLESKY and bool(np.all(np.isfinite(first))):
        with suppress(np.linalg.LinAlgError):  # by Schur's algorithm, which finds the leading section that is not
            return np.linalg.cholesky(toeplitz_view(np.concatenate([np.conj(first[..., :0:-1]), first], axis=-1)))
    _, factor = _schur(first, xp, owner, with_factor=True)
    return factor


def reflection_coefficients(c: Array, r: Array, xp: Namespace, owner: str) -> Array:
    """Return the reflection coefficients of a matrix, of which the same is asked as by `toeplitz_cholesky`."""
    coefficients, _ = _schur(_first_column_of_hermitian(c, r, xp, owner), xp, owner, with_factor=False)
    return coefficients


def _first_column_of_hermitian(c: Array, r: Array, xp: Namespace, owner: str) -> Array:
    """Return the first column of the Hermitian part, after the check that it is all, where values may be read."""
    adjoint = conjugate(concat_last([c[..., :1], r[..., 1:]], xp), xp)  # the first column of the adjoint
    if can_raise_for_values(xp):
        _require_hermitian(c, adjoint, xp, owner)
    return c / 2 + adjoint / 2


def _schur(first: Array, xp: Namespace, owner: str, *, with_factor: bool) -> tuple[Array, Any]:
    """Return reflection coefficients and, if asked for, the Cholesky factor of Hermitian matrices."""
    corner = real_part(first[..., :1], xp)
    positive = (corner > 0) & (corner < xp.inf)
    root = xp.sqrt(xp.where(positive, corner, xp.full_like(corner, xp.nan)))
    u = concat_last([xp.astype(root, first.dtype), quotient(first[..., 1:], root, xp)], xp)
    rules = rules_of(xp)
    if rules.compiles:
        coefficients, factor = rules.compiled(_in_steps_of_one_size)(u)
    else:
        with np.errstate(all="ignore"):
            coefficients, factor = (_in_numpy if is_numpy(xp) else _in_any_library)(u, xp, with_factor=with_factor)
    if can_raise_for_values(xp):
        _require_positive_definite(first, positive, coefficients, xp, owner)
    return coefficients, factor


def _require_hermitian(c: Array, adjoint: Array, xp: Namespace, owner: str) -> None:
    """Raise an error if the first column is not that of the adjoint, up to rounding."""
    if not bool(xp.all(equals_adjoint(c, adjoint, xp, core=1))):
        text = "the matrix must be Hermitian: c[0] is not real, or r[1:] not the conjugate of c[1:]"
        raise ArgumentValueError(owner, None, text)


def _require_positive_definite(first: Array, positive: Array, coefficients: Array, xp: Namespace, owner: str) -> None:
    """Raise an error if a corner entry is not `positive`, or the modulus of a coefficient is not below one."""
    is_definite = np.concatenate([np.asarray(positive), np.asarray(one_less_square(coefficients, xp)) > 0], axis=-1)
    orders = np.nonzero(~is_definite)[-1] + 1
    if not orders.size:
        return
    text = f"the matrix is not positive definite: its leading section of order {orders.min()} is not"
    if not bool(xp.all(xp.isfinite(first))):
        text += ", as it holds NaN or infinity"
    raise np.linalg.LinAlgError(f"{owner}: {text}")


def one_less_square(k: Array, xp: Namespace) -> Array:
    """Return ``1 - |k|^2`` without cancellation of a real k near one."""
    if is_complex(k.dtype, xp):
        a, b = xp.real(k), xp.imag(k)
        return (1 - a) * (1 + a) - b * b
    return (1 - k) * (1 + k)


def _steps(u: Array, xp: Namespace) -> Iterator[tuple[Array, Array]]:
    """Yield for each step the reflection coefficients, and the next columns of the factors from the diagonal on.

    `_in_steps_of_one_size` has the same steps.
    """
    v = u
    for _ in range(1, u.shape[-1]):
        u, v = u[..., :-1], v[..., 1:]
        k = v[..., :1] / u[..., :1]
        square = one_less_square(k, xp)
        root = xp.sqrt(square)
        corner = square * u[..., :1]  # it stays real, and gives 0 / 0 where the matrix is singular
        u = concat_last([corner, (u - conjugate(k, xp) * v)[..., 1:]], xp) / root
        v = root * v - k * u  # with the new u: the rotation of both old vectors would not be stable
        yield k, u


def _in_numpy(u: Any, xp: Namespace, *, with_factor: bool) -> tuple[Any, Any]:
    """Return coefficients and factor for NumPy. The factor is the transpose of a matrix whose rows are written."""
    coefficients = np.empty_like(u[..., 1:])
    columns = np.zeros((*u.shape, u.shape[-1]), u.dtype) if with_factor else None
    if columns is not None:
        columns[..., 0, :] = u
    for m, (k, column) in enumerate(_steps(u, xp)):
        coefficients[..., m : m + 1] = k
        if columns is not None:
            columns[..., m + 1, m + 1 :] = column
    return coefficients, None if columns is None else columns.swapaxes(-2, -1)


def _in_any_library(u: Array, xp: Namespace, *, with_factor: bool) -> tuple[Array, Array | None]:
    """Return coefficients and factor without writing to arrays, so that torch can differentiate them."""
    zeros = xp.zeros(u.shape[-1], dtype=u.dtype, device=device_of(u))
    coefficients = [u[..., :0]]
    columns = [u]
    for m, (k, column) in enumerate(_steps(u, xp)):
        coefficients.append(k)
        if with_factor:
            columns.append(concat_last([zeros[: m + 1], column], xp))
    return concat_last(coefficients, xp), xp.stack(columns, axis=-1) if with_factor else None


def _in_steps_of_one_size(u: Array) -> tuple[Array, Array]:
    """Return coefficients and factor for libraries that compile: with vectors of one size, one step is compiled."""
    xp = namespace_of("Toeplitz.cholesky", u)
    index = xp.arange(u.shape[-1], device=device_of(u))

    def step(pair: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        u, v = pair
        u = xp.roll(u, 1, axis=-1)
        corner, below = (xp.take(w, m[None], axis=-1) for w in (u, v))
        k = below / corner
        square = one_less_square(k, xp)
        root = xp.sqrt(square)
        u = xp.where(index == m, square * corner, xp.where(index > m, u - conjugate(k, xp) * v, 0)) / root
        v = xp.where(index <= m, 0, root * v - k * u)
        return (u, v), (k[..., 0], u)

    _, (coefficients, columns) = rules_of(xp).scan(step, (u, u), index[1:])
    return xp.moveaxis(coefficients, 0, -1), xp.moveaxis(xp.concat([u[None], columns]), 0, -1)
