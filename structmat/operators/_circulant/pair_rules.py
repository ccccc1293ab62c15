"""Products, sums and multiples of circulants, which are circulants again."""

from __future__ import annotations

from typing import Any

from structmat._arrays import Reciprocal, is_complex_scalar, namespace_of, scale_array
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.typing import Array, Scalar
from structmat.operators._base import LinearOperator
from structmat.operators._circulant.circulant import Circulant, SpectralCirculant
from structmat.operators._combinations import Scaled, identity_factor, plus_identity
from structmat.operators._identity import Identity

__all__: list[str] = []


def _spectral_pair(left: Any, right: Any) -> tuple[Array, Array, bool]:
    """Return the spectra of two circulants in a common form, and whether that is the half spectrum."""
    a, b = (op if isinstance(op, SpectralCirculant) else op.to_spectral() for op in (left, right))
    xp = namespace_of("circulants", a.spectrum, b.spectrum)
    if a.real and b.real:
        return a._eigenvalues(xp), b._eigenvalues(xp), True
    return a._as_full(xp), b._as_full(xp), False


@compose.rule(Circulant, Circulant)
def _multiply(left: Circulant, right: Circulant) -> Circulant:
    return Circulant(left.matvec(right.c))


@compose.rule(Circulant, SpectralCirculant)
@compose.rule(SpectralCirculant, Circulant)
@compose.rule(SpectralCirculant, SpectralCirculant)
def _multiply_spectra(left: LinearOperator, right: LinearOperator) -> SpectralCirculant:
    a, b, real = _spectral_pair(left, right)
    return SpectralCirculant(a * b, left.shape[0], real)


@add.rule(Circulant, Circulant)
def _add(left: Circulant, right: Circulant) -> Circulant:
    return Circulant(left.c + right.c)


@add.rule(SpectralCirculant, Circulant)
@add.rule(SpectralCirculant, SpectralCirculant)
def _add_spectra(left: LinearOperator, right: LinearOperator) -> SpectralCirculant:
    a, b, real = _spectral_pair(left, right)
    return SpectralCirculant(a + b, left.shape[0], real)


@add.rule(Circulant, Identity)
@add.rule(Circulant, Scaled)
def _add_identity(left: Circulant, right: LinearOperator) -> LinearOperator:
    c = plus_identity(left.c, right)
    return NotImplemented if c is None else Circulant(c)


@add.rule(SpectralCirculant, Identity)
@add.rule(SpectralCirculant, Scaled)
def _add_identity_spectrum(left: SpectralCirculant, right: LinearOperator) -> LinearOperator:
    if (factor := identity_factor(right)) is None:
        return NotImplemented
    xp = left._own_namespace()
    real = left.real and not is_complex_scalar(factor, xp)
    values = left.spectrum if real else left._as_full(xp)
    return SpectralCirculant(values + scale_array(xp.ones_like(values), factor, 1, xp), left.n, real)


@scale.rule(Circulant, object)
def _scale(operator: Circulant, factor: Scalar) -> Circulant:
    return Circulant(scale_array(operator.c, factor, 1, operator._own_namespace()))


@scale.rule(SpectralCirculant, object)
def _scale_spectrum(operator: SpectralCirculant, factor: Scalar | Reciprocal) -> LinearOperator:
    xp = operator._own_namespace()
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    real = operator.real and not is_complex_scalar(number, xp)
    values = operator.spectrum if real else operator._as_full(xp)
    return SpectralCirculant(scale_array(values, factor, 1, xp), operator.n, real)
