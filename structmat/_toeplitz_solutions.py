"""Solutions, inverses and determinants of Toeplitz matrices for arrays of any library, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from structmat._arguments import to_numpy
from structmat._array_tools import (
    Array,
    Namespace,
    broadcast_shapes,
    concat_last,
    device_of,
    is_complex,
    is_numpy,
    library_of,
    reversed_cyclically,
)
from structmat._fourier import Settings, fast_length, from_spectrum, kernel_of_diagonals, spectrum
from structmat._plans import convolution
from structmat._toeplitz_systems import Bezoutian, ToeplitzSystem, bezoutian

__all__ = [
    "InverseVectors",
    "Rules",
    "cotangents",
    "inverse_vectors",
    "outer_gradients",
    "products",
    "set_rules",
    "solutions",
    "solutions_on_host",
    "tangents",
    "transposed",
    "vectors_on_host",
]


def tangents(x: Array, y: Array, dc: Array, dr: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return the changes of x, y and the logarithm of the determinant where first column and first row change.

    ``dx = -T^-1 dT x``, ``dy = T^-1 (d(0, t[1 - n], ..., t[-1]) - dT y)`` and ``d log det T = tr(T^-1 dT)``.
    """
    n, inverse = x.shape[-1], _inverse(x, y, xp)
    change = convolution(kernel_of_diagonals(dc, dr[..., 1:], xp), (n, n), Settings(), xp)
    moved = concat_last([xp.zeros_like(dr[..., :1]), xp.flip(dr[..., 1:], axis=-1)], xp)
    column, row = _diagonal_sums(x, y, xp)
    return (
        -inverse.apply(change.apply(x, xp), xp),
        inverse.apply(moved - change.apply(y, xp), xp),
        xp.sum(column * dc + row * dr, axis=-1),
    )


def cotangents(x: Array, y: Array, dx: Array, dy: Array, dlog: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the gradient for first column and first row from those for x, y and the logarithm of the determinant.

    The adjoint of `tangents`, so that the gradient of a real function f by z is ``df = Re(sum(conj(grad) dz))``.
    """
    adjoint = bezoutian(_conj(x, xp), _conj(y, xp), Settings(), xp, flips=(True, True))
    wx, wy = adjoint.apply(dx, xp), adjoint.apply(dy, xp)
    (column, row), (column_y, row_y) = (outer_gradients(w, v, xp) for w, v in ((wx, x), (wy, y)))
    column, row = column + column_y, row + row_y + reversed_cyclically(wy, xp)
    by_column, by_row = (_conj(sums, xp) * dlog[..., None] for sums in _diagonal_sums(x, y, xp))
    return column + by_column, _without_first(row + by_row, xp)


def outer_gradients(w: Array, x: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the gradient for first column and first row from that for a solution, times the inverse of the adjoint."""
    below, above = _lags(w, _conj(x, xp), xp)
    return -below, -_without_first(above, xp)


def _inverse(x: Array, y: Array, xp: Namespace) -> Bezoutian:
    return bezoutian(x, y, Settings(), xp, flips=(False, False))


def _diagonal_sums(x: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of T^-1 along its diagonals, from the main one upward and downward.

    Row and column sums of L(x) U(p): the sum along diagonal s is that of ``(n - max(m, m - s)) x[m] p[m - s]``.
    """
    n = x.shape[-1]
    weights = xp.astype(n - xp.arange(n, device=device_of(x)), x.dtype)
    one, zero = xp.ones_like(x[..., :1]), xp.zeros_like(x[..., :1])
    upward = downward = xp.zeros_like(x)
    for v, first, tail in ((x, one, -y), (y, zero, x)):
        p = concat_last([first, xp.flip(tail[..., 1:], axis=-1)], xp)
        upward = upward + _lags(v, weights * p, xp)[1]
        downward = downward + _lags(weights * v, p, xp)[0]
    return upward, _without_first(downward, xp)


def _lags(u: Array, v: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of ``u[i] v[j]`` over ``i - j = s`` and over ``j - i = s``, for s = 0, ..., n - 1."""
    n, real = u.shape[-1], not is_complex(u.dtype, xp)
    length = fast_length(2 * n - 1)
    gap = xp.zeros(length - n, dtype=v.dtype, device=device_of(v))
    backwards = concat_last([v[..., :1], gap, xp.flip(v[..., 1:], axis=-1)], xp)
    U, V = (spectrum(a, xp, real=real, n=length) for a in (u, backwards))
    sums = from_spectrum(U * V, length, xp, real=real)
    return sums[..., :n], reversed_cyclically(sums, xp)[..., :n]


def _without_first(v: Array, xp: Namespace) -> Array:
    """Return the vector with zero in place of the first entry."""
    return concat_last([xp.zeros_like(v[..., :1]), v[..., 1:]], xp)


def _conj(v: Array, xp: Namespace) -> Array:
    return xp.conj(v) if is_complex(v.dtype, xp) else v


class InverseVectors(NamedTuple):
    """What determines inverse and determinant of a Toeplitz matrix T, or of each of a stack."""

    x: Array
    """``T x = e_0``, shape ``(..., n)``; NaN where T is singular, in torch and JAX."""
    y: Array
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s."""
    sign: Array
    """Of a real determinant the sign; one for a complex one; zero where T is singular. Not differentiable."""
    logdet: Array
    """The logarithm of the absolute value of the determinant, or of a complex determinant itself; zero for a sign of
    zero, since complex infinities do not divide."""


class Rules(NamedTuple):
    """The functions of a library that has rules of its own for derivatives, with the arguments of those on the host."""

    vectors: Callable[[Array, Array, bool], tuple[Array, Array, Array, Array]]
    solutions: Callable[[Array, Array, Array], Array]


_RULES: dict[str, Rules] = {}


def set_rules(library: str, rules: Rules) -> None:
    """Let a library compute by `rules`."""
    _RULES[library] = rules


def _rules(library: str) -> Rules:
    if library not in _RULES:
        raise NotImplementedError("Toeplitz: inverses and determinants of JAX arrays need `import structmat.jax`")
    return _RULES[library]


def solutions(c: Array, r: Array, b: Array, xp: Namespace, owner: str | None) -> Array:
    """Return x with ``T x = b`` along the last axis.

    Parameters
    ----------
    c, r, b : array, shape (..., n)
        First columns and first rows of square Toeplitz matrices, and right-hand sides, of one dtype.
    xp : namespace
        Theirs.
    owner : str or None
        The method on whose behalf there are warnings, but for JAX; without it there are none.

    Returns
    -------
    array, shape (..., n)
        NaN where a matrix is singular, in torch and JAX.

    Raises
    ------
    numpy.linalg.LinAlgError
        In other libraries, if a matrix is singular to working precision.
    """
    if is_numpy(xp):
        return solutions_on_host(c, r, b, owner, strict=True)
    library = library_of(xp)
    if library == "torch":
        return _torch_functions(xp)[1].apply(c, r, b, owner)
    if library == "jax":
        return _rules(library).solutions(c, r, b)
    found = solutions_on_host(to_numpy(c), to_numpy(r), to_numpy(b), owner, strict=True)
    return xp.asarray(found, device=device_of(b))


def inverse_vectors(
    c: Array, r: Array, xp: Namespace, owner: str | None, *, determinant: bool = False
) -> InverseVectors:
    """Return what determines inverse and determinant.

    Parameters
    ----------
    c, r, xp, owner
        As for `solutions`.
    determinant : bool
        Whether the determinant is needed too.

    Returns
    -------
    InverseVectors
        Of the library, dtype and device of `c`.

    Raises
    ------
    numpy.linalg.LinAlgError
        In other libraries, if a matrix is singular to working precision and its inverse is asked for.
    """
    shape = (*broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1])), c.shape[-1])
    c, r = (xp.broadcast_to(v, shape) for v in (c, r))
    if is_numpy(xp):
        return InverseVectors(*vectors_on_host(c, r, owner, determinant=determinant, strict=True))
    library = library_of(xp)
    if library == "torch":
        return InverseVectors(*_torch_functions(xp)[0].apply(c, r, determinant, owner))
    if library == "jax":
        return InverseVectors(*_rules(library).vectors(c, r, determinant))
    found = vectors_on_host(to_numpy(c), to_numpy(r), owner, determinant=determinant, strict=True)
    return InverseVectors(*(xp.asarray(v, device=device_of(c)) for v in found))


def transposed(function: Callable[[Array], Array], xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with the transpose of a Toeplitz matrix or its inverse: rows and columns in reverse order."""
    return lambda v: xp.flip(function(xp.flip(v, axis=-1)), axis=-1)


def products(c: Array, r: Array, xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with a Toeplitz matrix."""
    n = c.shape[-1]
    plan = convolution(kernel_of_diagonals(c, r[..., 1:], xp), (n, n), Settings(), xp)
    return lambda v: plan.apply(v, xp)


def solutions_on_host(c: Any, r: Any, b: Any, owner: str | None = None, *, strict: bool = False) -> Any:
    """Return `solutions` of NumPy arrays, NaN where a matrix is singular unless that is an error (`strict`)."""
    matrices = np.broadcast_shapes(c.shape[:-1], r.shape[:-1])
    shape, n = np.broadcast_shapes(matrices, b.shape[:-1]), c.shape[-1]
    c, r = (np.broadcast_to(v, (*matrices, n)) for v in (c, r))
    b = np.broadcast_to(b, (*shape, n))
    x = np.full(b.shape, np.nan, np.result_type(c, b))
    lead = (1,) * (len(shape) - len(matrices)) + matrices
    for index in np.ndindex(lead):
        # all right-hand sides of one matrix together
        place = tuple(i if size > 1 else slice(None) for i, size in zip(index, lead, strict=True))
        mine = index[len(lead) - len(matrices) :]
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[place] = ToeplitzSystem(c[mine], r[mine], owner).solve(b[place])
    return x


def vectors_on_host(
    c: Any, r: Any, owner: str | None = None, *, determinant: bool, strict: bool = False
) -> tuple[Any, Any, Any, Any]:
    """Return the fields of `InverseVectors` for NumPy arrays of one shape, NaN as for `solutions_on_host`.

    Where the determinant is asked for and singular matrices are errors, x and y are left out.
    """
    x, y = np.full((2, *c.shape), np.nan, c.dtype)
    sign, log = np.ones(c.shape[:-1], c.dtype), np.zeros(c.shape[:-1])
    for index in np.ndindex(c.shape[:-1]):
        system = ToeplitzSystem(c[index], r[index], owner)
        if determinant:
            sign[index], log[index] = system.slogdet()
        if not (determinant and strict):
            with nullcontext() if strict else suppress(np.linalg.LinAlgError):
                x[index], y[index] = system.inverse_vectors(c.dtype)
    log = np.where(sign == 0, 0, log)
    if not np.iscomplexobj(c):
        return x, y, sign, log.astype(c.dtype)
    regular = np.where(np.isnan(sign), np.nan, sign != 0).astype(c.real.dtype)
    return x, y, regular, (log + 1j * np.angle(sign)).astype(c.dtype)


def _sum_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of an array that was broadcast."""
    tensor: Any = gradient
    return tensor.sum_to_size(shape)


def _aligned(in_dims: Any, arrays: Any) -> list[Any]:
    """Return tensors with the axis of `vmap` in front, those without it as they are, and aligned for broadcasting."""
    moved = [v if axis is None else v.movedim(axis, 0) for v, axis in zip(arrays, in_dims, strict=True)]
    mapped = [axis is not None for axis in in_dims]
    rank = max(v.ndim + (not each) for v, each in zip(moved, mapped, strict=True))
    return [v[(slice(None), *[None] * (rank - v.ndim))] if each else v for v, each in zip(moved, mapped, strict=True)]


@cache
def _torch_functions(torch: Namespace) -> tuple[Any, Any]:  # two classes
    """Return the functions of autograd. They serve under ``torch.func`` too, whose batch axes are those of a stack."""

    def moved(found: Any, device: Any) -> Any:
        return torch.asarray(found, device=device)

    class Vectors(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(c: Any, r: Any, determinant: bool, owner: str | None) -> tuple[Array, ...]:
            found = vectors_on_host(to_numpy(c.detach()), to_numpy(r.detach()), owner, determinant=determinant)
            return tuple(moved(v, c.device) for v in found)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
            ctx.mark_non_differentiable(output[2])
            ctx.save_for_backward(*output[:2])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            dx, dy, _, dlog = gradients
            x, y = ctx.saved_tensors
            return (*cotangents(x, y, dx, dy, dlog, torch), None, None)

        @staticmethod
        def vmap(info: Any, in_dims: Any, c: Any, r: Any, determinant: bool, owner: str | None) -> Any:
            lead = [
                v.expand(info.batch_size, *v.shape) if axis is None else v.movedim(axis, 0)
                for v, axis in zip((c, r), in_dims, strict=False)
            ]
            return Vectors.apply(*lead, determinant, owner), (0, 0, 0, 0)

    class Solutions(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(c: Any, r: Any, b: Any, owner: str | None) -> Array:
            device = c.device
            c, r, b = (to_numpy(v.detach()) for v in (c, r, b))
            return moved(solutions_on_host(c, r, b, owner), device)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            *tensors, ctx.owner = inputs
            ctx.save_for_backward(*tensors, output)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            c, r, b, x = ctx.saved_tensors
            adjoint = transposed(lambda v: Solutions.apply(c.conj(), r.conj(), v, ctx.owner), torch)
            w = adjoint(gradient)
            dc, dr = outer_gradients(w, x, torch)
            return _sum_to(dc, c.shape), _sum_to(dr, r.shape), _sum_to(w, b.shape), None

        @staticmethod
        def vmap(_: Any, in_dims: Any, c: Any, r: Any, b: Any, owner: str | None) -> Any:
            return Solutions.apply(*_aligned(in_dims[:3], (c, r, b)), owner), 0

    return Vectors, Solutions
