"""`factorize_cdd`: a product of circulant and diagonal factors that reproduces a square matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat._arguments import as_matrix, integer, names_arguments, non_negative, random_generator
from structmat._arrays.libraries import device_of, is_numpy, namespace
from structmat._errors import ArgumentValueError
from structmat.fit._exact_products import Mixing, cyclic_band, factor_cyclic_band, factor_real_cyclic_band
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._linear_factors import factor_matrix, factor_real_matrix
from structmat.fit._low_rank_product import low_rank_product
from structmat.fit._matrices import finite_matrix, largest_exponent, product_error, scale_by_power_of_two
from structmat.fit._result import FitResult
from structmat.operators import BandedCirculant, CDDLayout, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike

__all__ = ["factorize_cdd"]

_OWNER = "factorize_cdd"

_LOW_RANK = 4
"""A rank is low up to the side over this number: then five factors in blocks have fewer numbers than the matrix."""

_STRUCTURE_ERROR = 1e-14
"""A matrix has a rank, or a number of cyclic diagonals, if these leave no more than this error."""

_MIXINGS = 3
"""Random phases are drawn so many times before the most accurate product is taken."""

_RANDOM_PHASES = ", random phases"
"""The names of constructions with random phases end with this."""

_EXTENDED_SIDE = 256
"""Up to this side long double precision costs about a second, and is used whatever the tolerance."""

_PROBES = 16
"""The error of a product is estimated with so many random vectors, up to a tenth or two."""

_SHIFTED = 3
"""Circulants of up to so many diagonals are applied by shifts."""

_FIT_ITERATIONS = 100
"""The most iterations of the fit of three factors. If the matrix is a product of three it needs fewer than twenty."""

_EPS = float(np.finfo(np.float64).eps)

_Vectors: TypeAlias = "list[NDArray[Any]]"


class _Form(NamedTuple):
    """A product by its vectors, with its name and what is said of it."""

    name: str
    vectors: _Vectors
    message: str
    layout: CDDLayout | None = None
    """None for a construction, whose circulants of few diagonals are applied by shifts."""

    def product(self) -> CDDProduct:
        """Return the operator."""
        if self.name == "circulant":
            return CDDProduct((Circulant(self.vectors[0]),))
        return self.layout.product(self.vectors) if self.layout else _by_shifts(self.vectors)


@names_arguments
def factorize_cdd(
    W: ArrayLike,
    n_factors: int | None = None,
    *,
    real: bool = False,
    target_error: float = 1e-10,
    rng: np.random.Generator | int | None = None,
) -> FitResult:
    """Factorise a square matrix into diagonal and circulant matrices.

    Diagonal and circulant matrices are recognised first (one factor), what three factors hold, such as a circulant
    between diagonals or a matrix of rank one, and a rank k of up to n / 4, which five factors in blocks of n / k hold
    with about ``(2k + 3) n`` numbers. Any other matrix takes ``2n + 1`` factors, by one eigenvalue problem; one with
    ``d + 1`` neighbouring nonzero cyclic diagonals, such as a tridiagonal matrix with or without corners, ``2d + 1``.
    This is a theorem at work and no compression: the product of a 256 x 256 matrix has 513 factors, twice the bytes of
    the dense matrix, and takes a thousand times as long.

    Parameters
    ----------
    W : array_like, shape (n, n)
        The matrix, real or complex, of any library that follows the array API standard. It is only read, and the work
        is done in NumPy on the CPU.
    n_factors : int, optional
        The most factors that the product may have. Where the forms above have more, `fit_cdd` searches for a product of
        so many; it may not find one, and `converged` is False then. By default any number that the forms above take.
    real : bool, default False
        Whether all factors are to be real; `W` must be. There are at most ``3n + 1`` of them then, ``3d + 1`` for ``d +
        1`` cyclic diagonals, and they are less accurate: errors are near 1e-11 at n = 64 and 1e-9 at n = 256.
    target_error : float, default 1e-10
        The relative Frobenius error at which `W` counts as reproduced. Products are always as accurate as rounding
        allows; above n = 256 long double precision, which takes several times as long, is used only if double
        precision does not reach this error.
    rng : numpy.random.Generator or int, optional
        Source of the random phases. The same seed gives the same factors.

    Returns
    -------
    FitResult
        The operator, with vectors of the library and device of `W` in double precision: complex ones, unless real ones
        are requested. `start` names the short form, or the structure that was assumed for `W`: ``"rank k"``, ``"k
        cyclic diagonals"`` or ``"generic"``, with ``"random phases"`` if these were needed to remove the structure of
        `W`, at the cost of four factors. `message` says more. `converged` says whether the error is at most
        `target_error`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `W` is not a square matrix of finite numbers, or is complex where `real` factors are asked for, an argument
        is out of range, or products with the factors overflow.

    See Also
    --------
    fit_cdd : The best approximation by a few factors.

    Notes
    -----
    A product of F factors has ``F * n - (F - 1)`` degrees of freedom, so a generic matrix needs ``n + 1`` factors.
    ``2n - 1`` are known to suffice [1]_; the construction here takes two more, which keep it stable. The search finds
    products of ``n + 1`` to ``n + 4`` factors up to about n = 32, in seconds to a minute. It costs
    ``O(n**3)``, and its relative errors grow with n: at most 1e-12 up to n = 256, 1e-11 up to 512, 5e-11 at 1,024.
    Circulants have two diagonals (`BandedCirculant`) and are applied by shifts. Without blocks, ``4k + 1`` factors
    are known to suffice for rank k [2]_.

    References
    ----------
    .. [1] Huhtanen, M., Perämäki, A., Factoring matrices into the product of circulant and diagonal matrices,
       J. Fourier Anal. Appl. 21, 2015.
    .. [2] Araujo, A., Negrevergne, B., Chevaleyre, Y., Atif, J., Understanding and training deep diagonal circulant
       neural networks, arXiv:1901.10255.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> W = np.random.default_rng(0).standard_normal((50, 50))
    >>> result = sm.factorize_cdd(W, rng=0)
    >>> result.operator.n_factors, result.start, result.error < 1e-12
    (101, 'generic', True)
    >>> sm.factorize_cdd(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])).message
    'W is a product of three factors: rank-one'
    >>> short = sm.factorize_cdd(np.random.default_rng(0).standard_normal((6, 6)), n_factors=8, rng=0)
    >>> short.operator.n_factors, short.start, short.error < 1e-12
    (8, 'search', True)
    """
    begun = time.monotonic()
    matrix = as_matrix(W, _OWNER, "W")
    if matrix.shape[0] != matrix.shape[1]:
        raise ArgumentValueError(_OWNER, "W", f"must be square, got shape {tuple(matrix.shape)}")
    target_error = non_negative(target_error, _OWNER, "target_error")
    random = random_generator(rng, _OWNER)
    values = finite_matrix(matrix, _OWNER)
    if real and np.iscomplexobj(values):
        raise ArgumentValueError(_OWNER, "real", "must be False for a complex W")

    values = values.astype(np.result_type(values.dtype, np.float64))
    exponent = largest_exponent(values)
    scaled = scale_by_power_of_two(values, -exponent)
    most = None if n_factors is None else integer(n_factors, _OWNER, "n_factors")
    form = _few_factors(scaled, target_error) or _constructed(scaled, target_error, random, real=real)
    if most is not None and len(form.vectors) > most:
        form = _found_by_search(scaled, most, random, real=real)
    product = form._replace(vectors=_scaled_at_its_ends(form.vectors, exponent)).product()
    xp = namespace(matrix)
    if not is_numpy(xp):
        product = product._map(lambda array, _: xp.asarray(array, device=device_of(matrix)))
    error = product_error(product, matrix, scaled, exponent=exponent)
    if error == math.inf:
        text = "has a factorisation whose products overflow double precision: divide it by a number"
        raise ArgumentValueError(_OWNER, "W", text)
    return FitResult(
        operator=product,
        error=error,
        block_size=form.layout.block_size if form.layout else len(values),
        n_parameters=product.n_parameters,
        n_iter=0,
        converged=error <= target_error,
        history=np.array([error]),
        start=form.name,
        message=form.message,
        seconds=time.monotonic() - begun,
    )


def _by_shifts(vectors: _Vectors) -> CDDProduct:
    """Return the product of diagonals and first columns."""
    factors: list[Diagonal | Circulant | BandedCirculant] = []
    for place, vector in enumerate(vectors):
        if place % 2 == 0:
            factors.append(Diagonal(vector))
        elif (span := _span(vector)) is not None:
            start, entries = span
            factors.append(BandedCirculant(entries, len(vector), start))
        else:
            factors.append(Circulant(vector))
    return CDDProduct(tuple(factors))


def _span(vector: NDArray[Any]) -> tuple[int, NDArray[Any]] | None:
    """Return where the nonzero entries of a first column begin and what they are, if few beside the first one."""
    n = len(vector)
    used = np.flatnonzero(vector[1:]) + 1
    used = np.sort(np.append(np.where(used > n // 2, used - n, used), 0))
    start, last = int(used[0]), int(used[-1])
    few = last - start < min(n, _SHIFTED)
    return (start, vector[np.arange(start, last + 1)]) if few else None


def _scaled_at_its_ends(vectors: _Vectors, exponent: int) -> _Vectors:
    """Multiply a product by ``2**exponent``, half of it at each end.

    Partial products are then as far from overflow as they can be in products from both sides: they may be larger than
    the matrix by many orders of magnitude.
    """
    scaled = list(vectors)
    scaled[0] = scale_by_power_of_two(scaled[0], exponent // 2)
    scaled[-1] = scale_by_power_of_two(scaled[-1], exponent - exponent // 2)
    return scaled


# Few factors


def _few_factors(W: NDArray[Any], target_error: float) -> _Form | None:
    """Return the product of one, three or five factors that reproduces a matrix, if there is one."""
    n, circulant = len(W), np.asarray(Circulant.nearest(W).c)
    forms = [_Form("diagonal", [W.diagonal().copy()], "", CDDLayout((n, n), 1)), _Form("circulant", [circulant], "")]
    for form in forms:
        if np.linalg.norm(W - np.asarray(form.product().to_dense())) <= target_error * np.linalg.norm(W):
            return form._replace(message=f"W is a {form.name} matrix")
    fit = fit_cdd(W, restarts=0, max_iter=_FIT_ITERATIONS, rng=0)
    if fit.error <= target_error:
        layout = CDDLayout.of(fit.operator)
        vectors = [np.asarray(vector) for vector in layout.vectors_of(fit.operator)]
        return _Form("three factors", vectors, f"W is a product of three factors: {fit.start}", layout)
    u, s, vh = np.linalg.svd(W)
    tail = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
    rank = int(np.count_nonzero(tail > _STRUCTURE_ERROR * tail[0]))
    if rank > n // _LOW_RANK:
        return None
    layout = CDDLayout((n, n), 5, n // rank)  # There are as many blocks to a side as the rank, or more.
    vectors = low_rank_product(u[:, :rank] * np.sqrt(s[:rank]), (np.sqrt(s[:rank, None]) * vh[:rank]).T, n // rank)
    return _Form(f"rank {rank}", vectors, f"five factors in blocks of {n // rank} hold the rank {rank}", layout)


def _found_by_search(W: NDArray[Any], n_factors: int, rng: np.random.Generator, *, real: bool) -> _Form:
    """Return the best product of so many factors that a search finds, complex ones unless they are to be real."""
    fit = fit_cdd(W if real else W.astype(np.complex128), n_factors, rng=rng)
    layout = CDDLayout.of(fit.operator)
    vectors = [np.asarray(vector) for vector in layout.vectors_of(fit.operator)]
    return _Form("search", vectors, f"{n_factors} factors by a search: {fit.message}", layout)


# Constructions


class _Construction(NamedTuple):
    """One way to construct a product."""

    name: str
    n_factors: int
    """The most factors that it takes."""
    make: Callable[[NDArray[Any], bool], _Vectors | None]
    """Returns the vectors, computed in long double precision if the second argument says so. Returns None where
    structure of W would spoil their digits."""
    mixed: bool = False
    """Whether random phases remove structure of W beforehand. They cost four factors."""


def _constructions(W: NDArray[Any], *, real: bool) -> list[_Construction]:
    """Return the constructions for a matrix, those of fewest factors first."""
    n, each = len(W), 3 if real else 2
    whole: Any = factor_real_matrix if real else factor_matrix
    mixed = _Construction(f"generic{_RANDOM_PHASES}", each * n + 5, whole, mixed=True)
    choices = [_Construction("generic", each * n + 1, whole), *[mixed] * _MIXINGS]
    if (band := cyclic_band(W, _STRUCTURE_ERROR)) is not None:
        degree = len(band.coefficients) - 1
        of_band: Any = factor_real_cyclic_band if real else factor_cyclic_band
        name, count = f"{degree + 1} cyclic diagonals", each * degree + 1
        choices.append(_Construction(name, count, lambda _, extended: of_band(band, extended)))
    return sorted(choices, key=lambda choice: choice.n_factors)


def _constructed(W: NDArray[Any], target_error: float, rng: np.random.Generator, *, real: bool) -> _Form:
    """Return the first product that is as accurate as rounding lets it be, or else the most accurate.

    Up to n factors need be no more accurate than what is aimed at: few factors are worth more than digits beyond.
    """
    n = len(W)
    more_precise = bool(np.finfo(np.longdouble).eps < _EPS)
    extended = more_precise and (n <= _EXTENDED_SIDE or target_error < _usual_error(n, extended=False, real=real))
    usual = _usual_error(n, extended=extended, real=real)
    probes = rng.standard_normal((n, _PROBES))
    target = W @ probes
    found: list[tuple[float, _Form]] = []
    notes = []
    for construction in _constructions(W, real=real):
        mixing = Mixing.draw(n, rng, real=real) if construction.mixed else None
        vectors = construction.make(W if mixing is None else mixing.mixed(W), extended)
        if vectors is None:
            notes.append(f"{construction.name} not used: structure of W would spoil its digits")
            continue
        vectors = vectors if mixing is None else mixing.around(vectors)
        with np.errstate(all="ignore"):
            form = _Form(construction.name, vectors, "")
            left = form.product() @ probes - target
            error = float(np.linalg.norm(left) / np.linalg.norm(target))
        found.append((error if np.isfinite(error) else np.inf, form))
        if error <= max(usual, target_error if construction.n_factors <= n else 0.0):
            break
        notes.append(f"{construction.name} left an error of {error:.1e}")
    if not found:
        raise ArgumentValueError(_OWNER, "W", f"has no such product that is known: {'; '.join(notes)}")
    _, form = min(found, key=lambda one: one[0])
    precision, field = "long double" if extended else "double", "real" if real else "complex"
    made = f"{len(form.vectors)} {field} factors by construction, in {precision} precision"
    return form._replace(message="; ".join([made, *notes]))


def _usual_error(n: int, *, extended: bool, real: bool) -> float:
    """Return an error that matrices without structure stay below, with a margin of about two.

    Products of that many factors lose n digits of the last place by themselves; the division by null sequences loses
    a tenth of n**2, unless it is done in long double. Real factors have entries of a size of 1 / n beside those of one.
    """
    if real:
        return _EPS * (2000 + 2.0 * n**3)
    return _EPS * (100 + 15 * n + (0.0 if extended else 0.13 * n**2))
