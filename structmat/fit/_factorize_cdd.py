"""`factorize_cdd`: a product of circulant and diagonal factors that reproduces a square matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from structmat.fit._arguments import generator, integer, non_negative
from structmat.fit._exact.closed_forms import Form, short_forms
from structmat.fit._exact.search import Found, search
from structmat.fit._many_factors.chain import First
from structmat.fit._numpy_bridge import as_matrix, to_numpy
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._three_factors.vectors import scale_by_power_of_two
from structmat.operators import CDDProduct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike

__all__ = ["factorize_cdd"]


def factorize_cdd(
    W: ArrayLike,
    n_factors: int | None = None,
    *,
    tol: float = 1e-10,
    rng: np.random.Generator | int | None = None,
    time_limit: float | None = None,
    callback: Callable[[FitProgress], object] | None = None,
) -> FitResult:
    """Factorise a square matrix into diagonal and circulant matrices.

    Short exact forms are recognised first: zero, diagonal and circulant matrices (one factor), a diagonal times a
    circulant or a shift and the reverse (two), rank-one matrices and the products D C D and C D C (three), scaled
    permutations ``j -> (a * j + b) % n`` (five). Any other matrix goes to a search by Levenberg-Marquardt over all
    factors from random starting points: for ``2k + 1`` factors if it has a low rank k, for ``n + 1`` otherwise.

    Parameters
    ----------
    W : array_like, shape (n, n)
        The matrix, real or complex, of any library that follows the array API standard. It is only read, and the work
        is done in NumPy on the CPU.
    n_factors : int, optional
        Exactly this many factors, from several starts if need be, with a time limit from as many as it allows. By
        default as few as are found to reproduce `W`.
    tol : float, default: 1e-10
        The relative Frobenius error at which `W` counts as reproduced.
    rng : numpy.random.Generator or int, optional
        Source of the starting points. The same seed gives the same factors.
    time_limit : float, optional
        Seconds after which the best found so far is returned.
    callback : callable, optional
        Called with a `FitProgress` after every iteration.

    Returns
    -------
    FitResult
        The operator, with vectors of the library and device of `W` in double precision: complex ones, unless real ones
        are found for a real `W`. `start` names the form that was found, after a search ``"rank k"``, ``"Toeplitz"`` or
        ``"generic"``, and `converged` tells whether the error is at most `tol`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `W` is not a square matrix of finite numbers, or an argument is out of range.

    See Also
    --------
    fit_cdd : The best approximation by a few factors.

    Notes
    -----
    A product of F factors has ``F * n - (F - 1)`` degrees of freedom, so a generic matrix needs ``n + 1`` factors.
    ``2n - 1`` are known to suffice [1]_. The search finds ``n + 1`` complex ones for nearly every matrix with n up to
    32. For rank k, ``4k + 1`` are known to suffice [2]_, and ``2k + 1`` are mostly found. An iteration costs
    ``O((n * F)**3)``: n = 32 takes half a minute, n = 64 minutes. From n = 44 on the search begins ``0.3 * (n - 40)``
    factors higher, which saves most of the iterations; pass `n_factors` for fewer. A matrix whose smallest singular
    values are far below its norm takes many more iterations and a few more factors, and from a condition number of
    some ``1e16`` on the last digits may not be reached.

    A Toeplitz matrix has ``2n - 1`` degrees of freedom and is the sum of a circulant and a skew-circulant matrix,
    ``C + D^H C' D``, but no bound below that of any matrix is known for it as a product, and none is found: at n = 8
    and 10 hundreds of starts with five and seven factors end with errors of 0.06 to 0.25. So it takes ``n + 1``
    factors, or a few more, like a generic one, unless it is a circulant or of low rank.

    A planted product of few factors has many local minima around it. Complex factors meet fewer of them than real ones,
    also where the planted factors are real: with ``n_factors=5`` and a time limit, such products are mostly found
    within seconds up to n = 8, half of them at n = 12, and within minutes at n = 16.

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
    >>> W = np.random.default_rng(0).standard_normal((6, 6))
    >>> result = sm.factorize_cdd(W, rng=0)
    >>> result.operator.n_factors, np.allclose(result.operator.to_dense(), W)
    (7, True)
    >>> sm.factorize_cdd(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])).start
    'rank one'
    """
    begun, owner = time.monotonic(), "factorize_cdd"
    matrix = as_matrix(W, "factorize_cdd: W")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"factorize_cdd: W must be square, got shape {tuple(matrix.shape)}")
    if n_factors is not None:
        n_factors = integer(n_factors, "n_factors", owner=owner)
    tol = non_negative(tol, "tol", owner=owner)
    deadline = math.inf if time_limit is None else begun + non_negative(time_limit, "time_limit", owner=owner)
    if callback is not None and not callable(callback):
        raise TypeError(f"factorize_cdd: callback must be callable, got {callback!r}")
    random = generator(rng, owner=owner)
    values = to_numpy(matrix)
    if not np.isfinite(values).all():
        raise ValueError("factorize_cdd: W must be finite, got NaN or infinity")

    values = values.astype(np.result_type(values.dtype, np.float64))
    exponent = int(np.frexp(np.abs(values).max())[1])
    scaled = scale_by_power_of_two(values, -exponent)
    found = _short_form(scaled, n_factors, tol, random)
    if found is None:
        found = search(scaled, n_factors, tol, random, deadline=deadline, callback=callback)
        if np.isrealobj(scaled):
            found = found._replace(form=_real_form(scaled, found.form, tol))
    exponents = np.diff(np.arange(len(found.form.vectors) + 1) * exponent // len(found.form.vectors)).tolist()
    xp = array_namespace(matrix)
    product = CDDProduct.from_vectors(
        *(
            xp.asarray(scale_by_power_of_two(v, e), device=device(matrix))
            for v, e in zip(found.form.vectors, exponents, strict=True)
        ),
        first=found.form.first,
    )
    error = _error(scaled, found.form)
    return FitResult(
        operator=product,
        error=error,
        block_size=len(values),
        n_parameters=product.n_parameters,
        n_iter=len(found.history) - 1,
        converged=error <= tol,
        history=np.array(found.history),
        start=found.form.name,
        solver=found.solver,
        stopped=found.stopped,
        message=found.message,
        seconds=time.monotonic() - begun,
    )


def _error(W: NDArray[Any], form: Form) -> float:
    """The relative Frobenius error of a form, 0.0 for a zero matrix."""
    P = np.asarray(CDDProduct.from_vectors(*form.vectors, first=form.first).to_dense())
    return float(np.linalg.norm(W - P)) / (float(np.linalg.norm(W)) or 1.0)


def _short_form(W: NDArray[Any], n_factors: int | None, tol: float, rng: np.random.Generator) -> Found | None:
    """The first closed form that reproduces `W`, lengthened by identities to `n_factors`."""
    for form in short_forms(W, rng):
        if n_factors is not None and len(form.vectors) > n_factors:
            break
        error = _error(W, form)
        if error <= tol:
            message = f"W has the exact form {form.name!r} of {len(form.vectors)} factors"
            return Found(_lengthened(form, n_factors), [error], "closed form", message)
    return None


def _real_form(W: NDArray[Any], form: Form, tol: float) -> Form:
    """The form with real factors, if its factors are real ones turned by phases and modulations.

    With ``E`` the diagonal of ``exp(2 pi i j / n)``, ``E^m C E^-m`` is a circulant for every circulant `C`, with its
    first column modulated, so that modulations can pass from a diagonal to the next.
    """
    n = len(W)
    turned = list(form.vectors)
    for k in range(1, len(turned), 2):
        rate = int(np.abs(np.fft.fft(turned[k] ** 2)).argmax())
        modulation = np.exp(2j * np.pi * ((rate + n * (rate % 2)) // 2) * np.arange(n) / n)
        turned[k] = turned[k] / modulation
        turned[k - 1] = turned[k - 1] * modulation
        if k + 1 < len(turned):
            turned[k + 1] = turned[k + 1] / modulation
    vectors = [(x * np.exp(-0.5j * np.angle(np.sum(x**2)))).real for x in turned]
    P = np.asarray(CDDProduct.from_vectors(*vectors, first=form.first).to_dense())
    vectors[0] = vectors[0] * (np.vdot(P, W) / (np.vdot(P, P) or 1.0))
    real = form._replace(vectors=vectors)
    return real if _error(W, real) <= tol else form


def _lengthened(form: Form, n_factors: int | None) -> Form:
    vectors = list(form.vectors)
    n = len(vectors[0])
    identities = {"diagonal": np.ones(n), "circulant": (np.arange(n) == 0).astype(float)}
    other: dict[First, First] = {"diagonal": "circulant", "circulant": "diagonal"}
    kind = form.first if len(vectors) % 2 == 0 else other[form.first]
    for _ in range(len(vectors), n_factors or 0):
        vectors.append(identities[kind].astype(vectors[0].dtype))
        kind = other[kind]
    return form._replace(vectors=vectors)
