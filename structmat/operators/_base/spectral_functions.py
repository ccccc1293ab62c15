"""What the closed forms of all operators share: functions of eigenvalues, determinants, cut-offs, on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from structmat._arrays import precision_of
from structmat._arrays.typing import Array, DType, Namespace

__all__ = ["ALTERNATIVES", "NormOrder", "SpectralFunction", "cutoff", "ratio", "sign_and_log"]

NormOrder: TypeAlias = Literal["fro", "nuc", 1, 2] | float
"""A matrix norm: Frobenius, nuclear, largest column sum, largest singular value; infinity is the largest row sum."""

_ITERATIVE = "scipy.sparse.linalg.{} on structmat.scipy.as_linear_operator(op), or {}(op.to_dense())"
ALTERNATIVES = {
    "inv": _ITERATIVE.format("gmres", "numpy.linalg.inv"),
    "solve": _ITERATIVE.format("gmres", "numpy.linalg.inv"),
    "pinv": _ITERATIVE.format("lsqr", "numpy.linalg.pinv"),
    "lstsq": _ITERATIVE.format("lsqr", "numpy.linalg.pinv"),
    "eigvals": _ITERATIVE.format("eigs", "numpy.linalg.eigvals"),
    "eig": _ITERATIVE.format("eigs", "numpy.linalg.eig"),
    "svdvals": _ITERATIVE.format("svds", "numpy.linalg.svdvals"),
    "det": "numpy.linalg.det(op.to_dense())",
    "slogdet": "numpy.linalg.slogdet(op.to_dense())",
    "trace": "numpy.trace(op.to_dense())",
    "diagonal": "numpy.diagonal(op.to_dense())",
    "norm": "numpy.linalg.norm(op.to_dense())",
    "sqrtm": "scipy.linalg.sqrtm(op.to_dense())",
    "expm": "scipy.linalg.expm(op.to_dense())",
    "logm": "scipy.linalg.logm(op.to_dense())",
    "fractional_matrix_power": "scipy.linalg.fractional_matrix_power(op.to_dense(), p)",
}
"""What to call instead of a method that has no closed form."""


class SpectralFunction(NamedTuple):
    """A scalar function to be applied to eigenvalues."""

    name: str
    """The public method that asks for it."""
    evaluate: Callable[[Array], Array]
    """The function, on an array of eigenvalues."""
    needs_nonnegative: bool = False
    """Whether a real eigenvalue must not be negative for the value to be real."""
    needs_nonzero: bool = False
    """Whether the function has a pole or a logarithmic singularity at zero."""


def sign_and_log(factors: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return sign and logarithm of the absolute value of products along the last axis."""
    size = xp.abs(factors)
    # log(0) = -inf and a sign of 0 are the right answers; NumPy would also warn.
    log = xp.where(size > 0, xp.log(xp.where(size > 0, size, xp.ones_like(size))), -xp.inf * xp.ones_like(size))
    sign = xp.where(size > 0, xp.sign(xp.where(size > 0, factors, xp.ones_like(factors))), xp.zeros_like(factors))
    return xp.prod(sign, axis=-1), xp.sum(log, axis=-1)


def ratio(values: Array, xp: Namespace) -> Array:
    """Return the largest of sorted singular values over the smallest, infinity where that is zero."""
    smallest = values[..., -1]
    safe = xp.where(smallest > 0, smallest, xp.ones_like(smallest))
    return xp.where(smallest > 0, values[..., 0] / safe, xp.inf * xp.ones_like(smallest))


def cutoff(rtol: float | None, shape: tuple[int, int], dtype: DType, xp: Namespace) -> float:
    """Return the relative cut-off of singular values: `rtol`, by default the larger side times the machine epsilon."""
    if rtol is not None:
        return rtol
    return max(shape) * float(xp.finfo(xp.float64 if dtype is None else precision_of(dtype, xp)).eps)
