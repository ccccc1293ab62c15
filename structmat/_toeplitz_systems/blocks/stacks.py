"""Stacks of block Toeplitz systems of any library, which are solved with NumPy, and what their derivatives need.

It is what `stacks` is for Toeplitz systems, with blocks in place of entries: values are computed on the host, and the
rules of torch and JAX have their derivatives.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from structmat._arrays.conversion import on_host
from structmat._arrays.dtypes import common_dtype, precision_of
from structmat._arrays.libraries import can_raise_for_values, is_numpy, rules_of
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat._toeplitz_systems.blocks.inverse import InverseBlocks, block_diagonal_sums
from structmat._toeplitz_systems.blocks.system import BlockToeplitzSystem
from structmat._toeplitz_systems.stacks import LogDeterminants, of_phases

# For arrays of any library


@dataclass(frozen=True)
class BlockSolverOnHost(Solver):
    """Solves systems with block Toeplitz operators by NumPy, for the implicit rule of a library.

    Where a matrix is singular, it raises an error if the library allows that, and else returns NaN.
    """

    owner: str | None
    """The method that warnings and errors name; None for no warnings."""

    def __call__(self, A: Any, M: None, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        solve = partial(_solve_on_host, p=A.c.shape[-1], owner=self.owner, strict=can_raise_for_values(xp))
        c, r = (_flat(blocks, xp, b.ndim - 1) for blocks in (A.c, A.r))
        (x,) = on_host(lambda c, r, b: (solve(c, r, b),), [(tuple(b.shape), b.dtype)], [c, r, b], xp)
        return x, ()


def block_solutions(T: Any, b: Array, xp: Namespace, owner: str | None) -> Array:
    """Return x with ``T x = b`` along the last axis for a block Toeplitz operator T, on behalf of a method.

    A singular matrix gives NaN in torch and JAX, and is an error in other libraries.
    """
    if is_numpy(xp):
        c, r = (_flat(blocks, xp) for blocks in (T.c, T.r))
        return _solve_on_host(c, r, b, p=T.c.shape[-1], owner=owner, strict=True)
    shape = broadcast_shapes("BlockToeplitz", T.batch_shape, tuple(b.shape[:-1]))
    dtype = common_dtype(xp, T.c, b)
    b = b if b.dtype == dtype else xp.astype(b, dtype)
    b = xp.broadcast_to(b, (*shape, b.shape[-1]))
    x, _ = rules_of(xp).solution(BlockSolverOnHost(owner), T, None, b)
    return x


def blocks_of_inverse(T: Any, xp: Namespace, owner: str | None) -> InverseBlocks:
    """Return what determines the inverse of T; a singular matrix is treated as by `block_solutions`."""
    batch, (n, p) = T.batch_shape, T.c.shape[-3:-1]
    if rules_of(xp).is_differentiated([T.c, T.r]):
        return _differentiable_blocks(T, xp, owner)
    c, r = _of_one_batch(T, xp)
    compute = partial(_inverse_on_host, p=p, owner=owner, strict=can_raise_for_values(xp))
    if is_numpy(xp):
        return InverseBlocks(*compute(c, r))
    flat = on_host(compute, [((*batch, n, p, p), T.c.dtype)] * 4, [c, r], xp)
    return InverseBlocks(*flat)


def _differentiable_blocks(T: Any, xp: Namespace, owner: str | None) -> InverseBlocks:
    """Return what determines the inverse as solutions of systems with T and with its transpose, with derivatives.

    The block s of the right-hand sides is free, and zero here.
    """
    p = T.c.shape[-1]
    row = xp.broadcast_to(T.r, (*T.batch_shape, *T.r.shape[-3:]))
    above = row[..., 1:, :, :]
    zero = xp.zeros_like(row[..., :1, :, :])
    zeros = xp.zeros_like(above)
    unit = zero + xp.eye(p, dtype=T.c.dtype, device=T.device)
    wanted = InverseBlocks(
        xp.concat([unit, zeros], axis=-3),
        xp.concat([zero, xp.flip(above, axis=-3)], axis=-3),
        xp.concat([zeros, unit], axis=-3),
        xp.concat([above, zero], axis=-3),
    )
    columns, rows = wanted.as_rows()
    columns = block_solutions(T._with_batch_axis(xp), columns, xp, owner)
    rows = block_solutions(T._transpose()._with_batch_axis(xp), rows, xp, None)
    return InverseBlocks.from_rows(columns, rows, p)


def block_log_determinants(T: Any, xp: Namespace, owner: str, *, with_error: bool = False) -> LogDeterminants:
    """Return determinants, without derivatives."""
    batch, strict = T.batch_shape, can_raise_for_values(xp)
    c, r = _of_one_batch(T, xp)
    compute = partial(_log_determinants_on_host, p=T.c.shape[-1], owner=owner, strict=strict, with_error=with_error)
    if is_numpy(xp):
        return compute(c, r)
    precision = precision_of(T.c.dtype, xp)
    return LogDeterminants(*on_host(compute, [(batch, precision), (batch, T.c.dtype), (batch, precision)], [c, r], xp))


@dataclass(frozen=True)
class BlockTraceOfInverse:
    """What the derivative of the determinant of a block Toeplitz operator needs: sums along its inverse's diagonals."""

    def inverse(self, A: Any, given: None, xp: Namespace) -> tuple[Array, Array]:
        """Return the factors of the inverse."""
        return blocks_of_inverse(A, xp, f"{type(A).__name__}.slogdet").factors(xp)

    def trace(self, A: Any, inverse: tuple[Array, Array], given: None, xp: Namespace) -> Array:
        """Return the trace of the inverse times A, by sums along the block diagonals of the inverse."""
        upward, downward = (xp.matrix_transpose(sums) for sums in block_diagonal_sums(*inverse, xp))
        return xp.sum(upward * A.c + downward * A.r, axis=(-3, -2, -1))


def _of_one_batch(T: Any, xp: Namespace) -> list[Array]:
    """Return the blocks of first column and first row with the same batch axes, as `_flat` does."""
    return [_flat(xp.broadcast_to(blocks, (*T.batch_shape, *blocks.shape[-3:])), xp) for blocks in (T.c, T.r)]


def _flat(blocks: Array, xp: Namespace, batch_axes: int | None = None) -> Array:
    """Return blocks along one axis, since a library may map those before it, with as many batch axes as are asked for.

    Axes of length one are put in front.
    """
    batch = tuple(blocks.shape[:-3])
    lead = 0 if batch_axes is None else batch_axes - len(batch)
    return xp.reshape(blocks, ((1,) * lead + batch + (prod(blocks.shape[-3:]),)))


# For NumPy arrays. If `strict`, a singular matrix is an error; if not, its results are NaN.


def _blocks(flat: Any, p: int) -> Any:
    return flat.reshape(*flat.shape[:-1], -1, p, p)


def _solve_on_host(c: Any, r: Any, b: Any, *, p: int, owner: str | None, strict: bool) -> Any:
    """Return solutions along the last axis; all systems with the same matrix are solved together."""
    matrices = np.broadcast_shapes(c.shape[:-1], r.shape[:-1])
    shape = np.broadcast_shapes(matrices, b.shape[:-1])
    c, r = (np.broadcast_to(v, (*matrices, v.shape[-1])) for v in (c, r))
    b = np.broadcast_to(b, (*shape, b.shape[-1]))
    x = np.full(b.shape, np.nan, np.result_type(c, b))
    lead = (1,) * (len(shape) - len(matrices)) + matrices
    for index in np.ndindex(lead):
        vectors = tuple(i if size > 1 else slice(None) for i, size in zip(index, lead, strict=True))
        matrix = index[len(lead) - len(matrices) :]
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            system = BlockToeplitzSystem(_blocks(c[matrix], p), _blocks(r[matrix], p), owner)
            x[vectors] = system.solve(b[vectors])
    return x


def _inverse_on_host(c: Any, r: Any, *, p: int, owner: str | None, strict: bool) -> tuple[Any, ...]:
    """Return what determines the inverse of each matrix."""
    c, r = np.broadcast_arrays(c, r)
    found = tuple(np.full((*c.shape[:-1], c.shape[-1] // p**2, p, p), np.nan, c.dtype) for _ in range(4))
    for index in np.ndindex(c.shape[:-1]):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            system = BlockToeplitzSystem(_blocks(c[index], p), _blocks(r[index], p), owner)
            for array, blocks in zip(found, system.inverse_blocks(c.dtype), strict=True):
                array[index] = blocks
    return found


def _log_determinants_on_host(
    c: Any, r: Any, *, p: int, owner: str | None, strict: bool, with_error: bool
) -> LogDeterminants:
    """Return the determinant of each matrix; a singular one has a sign of zero."""
    c, r = np.broadcast_arrays(c, r)
    sign = np.full(c.shape[:-1], np.nan, c.dtype)
    log, error = np.zeros(c.shape[:-1]), np.zeros(c.shape[:-1])
    for index in np.ndindex(c.shape[:-1]):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            system = BlockToeplitzSystem(_blocks(c[index], p), _blocks(r[index], p), owner)
            sign[index], log[index], error[index] = system.slogdet(with_error=with_error)
    return of_phases(sign, log, error)
