"""Inverses and determinants of Toeplitz matrices for arrays of any library, with gradients in torch and JAX.

NumPy computes the vectors, on the CPU and in double precision. torch gets them by a function of autograd made here from
its own namespace, JAX by a rule that `structmat.jax` sets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from structmat._arrays import broadcast_shapes, device_of, is_numpy, library_of
from structmat._arrays.derivatives import require_one_forward_level
from structmat._arrays.numpy_bridge import to_numpy
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_solver.gradients import cotangents, tangents
from structmat._toeplitz_solver.numpy_vectors import numpy_vectors

__all__ = ["InverseVectors", "inverse_vectors", "set_rule", "vectors_on_host"]


class InverseVectors(NamedTuple):
    """What determines inverse and determinant of a Toeplitz matrix T, or of each of a stack."""

    x: Array
    """``T x = e_0``, shape ``(..., n)``; NaN where T is singular."""
    y: Array
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s."""
    sign: Array
    """Of a real determinant the sign; one for a complex one; zero where T is singular. Not differentiable."""
    logdet: Array
    """The logarithm of the absolute value of the determinant, or of a complex determinant itself; zero for a sign of
    zero, since complex infinities do not divide."""


Rule: TypeAlias = Callable[[Array, Array, bool], "tuple[Array, Array, Array, Array]"]

_RULES: dict[str, Rule] = {}


def set_rule(library: str, rule: Rule) -> None:
    """Let `rule` find the vectors for the arrays of a library, with its gradients."""
    _RULES[library] = rule


def inverse_vectors(c: Array, r: Array, xp: Namespace, *, determinant: bool = False) -> InverseVectors:
    """Return what determines inverse and determinant of the square Toeplitz matrix of first column and row.

    Parameters
    ----------
    c, r : array, shape (..., n)
        First column and first row, of one dtype.
    xp : namespace
        Theirs.
    determinant : bool
        Whether the determinant is needed too.

    Returns
    -------
    InverseVectors
        Of the library, dtype and device of `c`.
    """
    shape = (*broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1])), c.shape[-1])
    c, r = (xp.broadcast_to(v, shape) for v in (c, r))
    if is_numpy(xp):
        return InverseVectors(*vectors_on_host(c, r, determinant=determinant))
    library = library_of(xp)
    if library == "torch":
        return InverseVectors(*_torch_function(xp).apply(c, r, determinant))
    if rule := _RULES.get(library):
        return InverseVectors(*rule(c, r, determinant))
    if library == "jax":
        raise NotImplementedError("Toeplitz: inverses and determinants of JAX arrays need `import structmat.jax`")
    return InverseVectors(*_moved(c, r, determinant, xp))


def vectors_on_host(c: Any, r: Any, *, determinant: bool) -> tuple[Any, Any, Any, Any]:
    """Return the fields of `InverseVectors` for NumPy arrays of one shape."""
    found = numpy_vectors(c, r, determinant=determinant)
    log = np.where(found.sign == 0, 0, found.logabsdet).astype(c.real.dtype)
    if not np.iscomplexobj(c):
        return found.x, found.y, found.sign, log
    logdet = (log + 1j * np.angle(found.sign)).astype(c.dtype)
    return found.x, found.y, (found.sign != 0).astype(c.real.dtype), logdet


def _moved(c: Array, r: Array, determinant: bool, xp: Namespace) -> tuple[Array, ...]:
    """Return the fields for arrays of another library, by way of NumPy."""
    found = vectors_on_host(to_numpy(c), to_numpy(r), determinant=determinant)
    return tuple(xp.asarray(v, device=device_of(c)) for v in found)


@cache
def _torch_function(torch: Namespace) -> Any:
    """Return the function of autograd. It also serves under ``torch.func``, whose batch axes are axes of the stack."""

    class Vectors(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(c: Any, r: Any, determinant: bool) -> tuple[Array, ...]:
            return _moved(c.detach(), r.detach(), determinant, torch)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
            ctx.mark_non_differentiable(output[2])
            ctx.save_for_backward(*output[:2])
            ctx.save_for_forward(*output[:2])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            dx, dy, _, dlog = gradients
            x, y = ctx.saved_tensors
            return (*cotangents(x, y, dx, dy, dlog, torch), None)

        @staticmethod
        def jvp(ctx: Any, dc: Any, dr: Any, _: Any) -> Any:
            require_one_forward_level("Toeplitz")
            x, y = ctx.saved_tensors
            dc, dr = (torch.zeros_like(x) if change is None else change for change in (dc, dr))
            dx, dy, dlog = tangents(x, y, dc, dr, torch)
            return dx, dy, None, dlog

        @staticmethod
        def vmap(info: Any, in_dims: Any, c: Any, r: Any, determinant: bool) -> Any:
            lead = [
                v.expand(info.batch_size, *v.shape) if axis is None else v.movedim(axis, 0)
                for v, axis in zip((c, r), in_dims, strict=False)
            ]
            return Vectors.apply(*lead, determinant), (0, 0, 0, 0)

    return Vectors
