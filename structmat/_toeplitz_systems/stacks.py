"""Stacks of Toeplitz systems of any library, which NumPy solves, with derivatives in torch and JAX."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.libraries import device_of, is_numpy, library_of
from structmat._arrays.shapes import broadcast_shapes, concat_last
from structmat._arrays.tracing import untraced
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._toeplitz_systems.inverse import bezoutian, diagonal_sums
from structmat._toeplitz_systems.system import ToeplitzSystem

if TYPE_CHECKING:
    from collections.abc import Callable


def tangents(x: Array, y: Array, dc: Array, dr: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return the changes of x, y and the logarithm of the determinant where first column and first row change.

    ``dx = -T^-1 dT x``, ``dy = T^-1 (d(0, t[1 - n], ..., t[-1]) - dT y)`` and ``d log det T = tr(T^-1 dT)``.
    """
    n, inverse = x.shape[-1], bezoutian(x, y, xp)
    change = Convolution.of(kernel_of_diagonals(dc, dr[..., 1:], xp), (n, n), xp)
    right_hand_side = concat_last([xp.zeros_like(dr[..., :1]), xp.flip(dr[..., 1:], axis=-1)], xp)
    column, row = diagonal_sums(x, y, xp)
    return (
        -inverse.apply(change.apply(x, xp), xp),
        inverse.apply(right_hand_side - change.apply(y, xp), xp),
        xp.sum(column * dc + row * dr, axis=-1),
    )


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


def solutions(c: Array, r: Array, b: Array, xp: Namespace, owner: str | None) -> Array:
    """Return x with ``T x = b`` along the last axis, on behalf of a method, without which there are no warnings.

    Where a matrix is singular NaN in torch and JAX, an error in other libraries.
    """
    if is_numpy(xp):
        return solutions_on_host(c, r, b, owner, strict=True)
    library = library_of(xp)
    if library == "torch":
        return untraced(_solutions_in_torch, xp)(c, r, b, xp, owner)
    if library == "jax":
        return sys.modules["structmat.jax"].toeplitz_solutions(c, r, b)  # imported with the first array of JAX
    found = solutions_on_host(to_numpy(c), to_numpy(r), to_numpy(b), owner, strict=True)
    return xp.asarray(found, device=device_of(b))


def inverse_vectors(
    c: Array, r: Array, xp: Namespace, owner: str | None, *, determinant: bool = False
) -> InverseVectors:
    """Return what determines inverse and, if asked for, the determinant; errors are as for `solutions`."""
    shape = (*broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1])), c.shape[-1])
    c, r = (xp.broadcast_to(v, shape) for v in (c, r))
    library = library_of(xp)
    if library == "torch":
        return InverseVectors(*untraced(_vectors_in_torch, xp)(c, r, determinant, xp, owner))
    if library == "jax":
        return InverseVectors(*sys.modules["structmat.jax"].inverse_vectors(c, r, determinant))
    found = vectors_on_host(to_numpy(c), to_numpy(r), owner, determinant=determinant, strict=True)
    return InverseVectors(*(xp.asarray(v, device=device_of(c)) for v in found))


def transposed(function: Callable[[Array], Array], xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with the transpose of a Toeplitz matrix or its inverse: rows and columns in reverse order."""
    return lambda v: xp.flip(function(xp.flip(v, axis=-1)), axis=-1)


def products(c: Array, r: Array, xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with a Toeplitz matrix."""
    n = c.shape[-1]
    plan = Convolution.of(kernel_of_diagonals(c, r[..., 1:], xp), (n, n), xp)
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
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            if determinant:
                sign[index] = np.nan
                sign[index], log[index] = system.slogdet()
            if not (determinant and strict):
                x[index], y[index] = system.inverse_vectors(c.dtype)
    log = np.where(sign == 0, 0, log)
    if not np.iscomplexobj(c):
        return x, y, sign, log.astype(c.dtype)
    regular = np.where(np.isnan(sign), np.nan, sign != 0).astype(c.real.dtype)
    return x, y, regular, (log + 1j * np.angle(sign)).astype(c.dtype)


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
            (dx, dy, _, dlog), (x, y) = gradients, ctx.saved_tensors
            zeros = torch.zeros_like(x)
            _, pull = torch.func.vjp(lambda dc, dr: tangents(x, y, dc, dr, torch), zeros, zeros)
            return (*pull((dx, dy, dlog)), None, None)

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
            adjoint = transposed(lambda v: solutions(c.conj(), r.conj(), v, torch, ctx.owner), torch)
            _, pull = torch.func.vjp(lambda c, r, b: b - products(c, r, torch)(x), c, r, b)
            return (*pull(adjoint(gradient)), None)

        @staticmethod
        def vmap(_: Any, in_dims: Any, c: Any, r: Any, b: Any, owner: str | None) -> Any:
            return Solutions.apply(*_aligned(in_dims[:3], (c, r, b)), owner), 0

    return Vectors, Solutions


def _vectors_in_torch(c: Array, r: Array, determinant: bool, torch: Namespace, owner: str | None) -> tuple[Array, ...]:
    found: tuple[Array, ...] = _torch_functions(torch)[0].apply(c, r, determinant, owner)
    return found


def _solutions_in_torch(c: Array, r: Array, b: Array, torch: Namespace, owner: str | None) -> Array:
    return _torch_functions(torch)[1].apply(c, r, b, owner)
