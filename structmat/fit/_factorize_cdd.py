"""`factorize_cdd`: a product of circulant and diagonal factors that reproduces a square matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from array_api_compat import array_namespace, device

from structmat._arguments import as_matrix, integer, non_negative, one_of, optional_function, random_generator, to_numpy
from structmat._array_tools import ArgumentValueError, is_numpy
from structmat.fit._exact.constructions import construct, constructions
from structmat.fit._exact.exact_search import search
from structmat.fit._exact.forms import Factorisation, Form, to_product
from structmat.fit._exact.recognisers import closed_forms
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._product_error import product_error
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._three_factors.vectors import largest_exponent, scale_by_power_of_two
from structmat.operators import CDDLayout, CDDProduct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import ArrayLike

__all__ = ["factorize_cdd"]

# The largest product of the side and the number of factors for which "auto" searches for few factors, a second or two,
# and the largest condition number of a matrix of full rank: beyond, it takes minutes and may fail.
_SEARCHED, _CONDITION = 320, 1e10


def factorize_cdd(
    W: ArrayLike,
    n_factors: int | None = None,
    *,
    method: Literal["auto", "search", "constructive"] = "auto",
    real: bool = False,
    target_error: float = 1e-10,
    rng: np.random.Generator | int | None = None,
    time_limit: float | None = None,
    callback: Callable[[FitProgress], object] | None = None,
) -> FitResult:
    """Factorise a square matrix into diagonal and circulant matrices.

    Closed forms are recognised first: zero, diagonal and circulant matrices (one factor), a diagonal times a circulant
    or a shift and the reverse (two), rank-one matrices and the products D C D and C D C (three), scaled permutations
    ``j -> (a * j + b) % n`` (five). For any other matrix there are two ways. A search by Levenberg-Marquardt over all
    factors from random starting points finds few factors of small matrices: mostly ``2k + 1`` for a rank k, ``n + 1``
    otherwise. A construction by one eigenvalue problem needs more of them, ``4k + 3`` and ``2n + 1`` (``2n - 1`` up to
    n = 64), and takes seconds where the search takes hours. For a matrix with ``d + 1`` neighbouring nonzero cyclic
    diagonals, such as a tridiagonal matrix with or without corners, it needs ``2d + 1``, and for a unitary matrix of
    even side ``2n + 5``, which are unitary.

    Parameters
    ----------
    W : array_like, shape (n, n)
        The matrix, real or complex, of any library that follows the array API standard. It is only read, and the work
        is done in NumPy on the CPU.
    n_factors : int, optional
        Exactly this many factors: identities are appended to a shorter product. A search then makes several starts if
        necessary, with a time limit as many as it allows. By default the method determines the number.
    method : {"auto", "search", "constructive"}, default "auto"
        How to treat a matrix without a short form. By default the search, if `n_factors` is below what constructions
        need, or if it is not given, the side times the number of factors is at most 320 (n = 17, or n = 64 for rank
        two) and the condition number at most 1e10, unless the rank is low; a construction otherwise, and also if that
        search does not reach `target_error`.
    real : bool, default False
        Whether all factors are to be real; `W` must be. Constructions then need at most ``3n + 1`` of them where these
        leave no more than 1e-12, up to n = 20 or so, and ``4n + 3`` to ``8n + 5`` otherwise, half as many for a
        multiple of an orthogonal matrix. With `n_factors` below that the shorter product is returned, whose errors are
        near 1e-11 at n = 64 and 1e-9 at n = 256. Rank k needs ``6k + 3`` at most, ``d + 1`` neighbouring cyclic
        diagonals ``3d + 1``, without corners ``2d + 1``. The search needs two more than for complex factors.
    target_error : float, default 1e-10
        The relative Frobenius error at which `W` counts as reproduced. Constructions are always as accurate as rounding
        allows; above n = 256 they use long double precision, which takes several times as long, only if double
        precision does not reach this error. If that does not either, n being even, the product has ``4n + 9`` factors.
    rng : numpy.random.Generator or int, optional
        Source of the starting points and random phases. The same seed gives the same factors.
    time_limit : float, optional
        Seconds after which the best found so far is returned; where an iteration of the search takes longer, the best
        approximation by `fit_cdd`. A construction that has begun is finished.
    callback : callable, optional
        Called with a `FitProgress` after every iteration of a search, and after every construction that was tried.

    Returns
    -------
    FitResult
        The operator, with vectors of the library and device of `W` in double precision: complex ones, unless real ones
        are requested, or found for a real `W`. `solver` says how it was found, `start` names the short form, or the
        structure that was assumed for `W`: ``"rank k"``, ``"k cyclic diagonals"``, ``"unitary"``, ``"Toeplitz"`` or
        ``"generic"``, or ``"rotations"`` of singular vectors, with ``"random phases"`` if these were needed to remove
        the structure of `W`, at the cost of four factors.
        `message` says why. `converged` says whether the error is at most `target_error`.

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
    ``2n - 1`` are known to suffice [1]_; from n = 65 on the construction takes two more, which keep it stable. It costs
    ``O(n**3)``, and its relative errors grow with n: at most 1e-12 up to n = 256, 1e-11 up to 512, 5e-11 at 1,024.
    Circulants have two diagonals (`BandedCirculant`) and are applied by shifts; by rotations, real ones have three, and
    unitary ones four. Those take ``O(n**3)`` as well, by ``n**2`` rotations of rows.

    The search finds ``n + 1`` complex ones for nearly every matrix with n up to
    32. For rank k, ``4k + 1`` are known to suffice [2]_, and ``2k + 1`` are mostly found. An iteration costs
    ``O((n * F)**3)``: n = 32 takes half a minute, n = 64 minutes. From n = 44 on the search begins ``0.3 * (n - 40)``
    factors higher, which saves most of the iterations; pass `n_factors` for fewer. A matrix whose smallest singular
    values are far below its norm takes many more iterations and a few more factors, and from a condition number of
    some ``1e16`` on the last digits may not be reached.

    A Toeplitz matrix has ``2n - 1`` degrees of freedom and is the sum of a circulant and a skew-circulant matrix,
    ``C + D^H C' D``, but no bound below that of any matrix is known for it as a product, and none is found: at n = 8
    and 10 hundreds of starts with five and seven factors end with errors of 0.06 to 0.25. So it takes ``n + 1``
    factors, or a few more, like a generic one, unless it is a circulant or of low rank.

    Around a planted product of few factors there are many local minima. Searches with complex factors end in fewer of
    them than those with real ones, even if the planted factors are real: with ``n_factors=5`` and a time limit, such
    products are mostly found within seconds up to n = 8, half of them at n = 12, and within minutes at n = 16.

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
    >>> W = np.random.default_rng(0).standard_normal((50, 50))
    >>> result = sm.factorize_cdd(W, rng=0)
    >>> result.operator.n_factors, result.solver, result.error < 1e-12
    (99, 'construction', True)
    >>> sm.factorize_cdd(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])).start
    'rank one'
    """
    begun, owner = time.monotonic(), "factorize_cdd"
    matrix = as_matrix(W, owner, "W")
    if matrix.shape[0] != matrix.shape[1]:
        raise ArgumentValueError(owner, "W", f"must be square, got shape {tuple(matrix.shape)}")
    one_of(method, owner, "method", ("auto", "search", "constructive"))
    if n_factors is not None:
        n_factors = integer(n_factors, owner, "n_factors")
    target_error = non_negative(target_error, owner, "target_error")
    deadline = math.inf if time_limit is None else begun + non_negative(time_limit, owner, "time_limit")
    optional_function(callback, owner, "callback")
    random = random_generator(rng, owner)
    values = to_numpy(matrix)
    real = bool(real)
    if real and np.iscomplexobj(values):
        raise ArgumentValueError(owner, "real", "must be False for a complex W")
    if not np.isfinite(values).all():
        raise ArgumentValueError(owner, "W", "must be finite, got NaN or infinity")

    values = values.astype(np.result_type(values.dtype, np.float64))
    exponent = largest_exponent(values)
    scaled = scale_by_power_of_two(values, -exponent)
    found = _closed_form(scaled, n_factors, target_error, random, real=real)
    if found is None:
        found = _long_form(scaled, n_factors, method, target_error, random, deadline, callback, real=real)
    product = to_product(found.form._replace(vectors=_scaled_at_its_ends(found.form.vectors, exponent)))
    xp = array_namespace(matrix)
    if not is_numpy(xp):
        product = product._map(lambda array, _: xp.asarray(array, device=device(matrix)))
    error = product_error(product, matrix, scaled, exponent=exponent)
    if error == math.inf:
        text = "has a factorisation whose products overflow double precision: divide it by a number"
        raise ArgumentValueError(owner, "W", text)
    return FitResult(
        operator=product,
        error=error,
        block_size=len(values),
        n_parameters=product.n_parameters,
        n_iter=len(found.history) - 1,
        converged=error <= target_error,
        history=np.array(found.history if len(found.history) > 1 else [error]),
        start=found.form.name,
        solver=found.solver,
        stopped=found.stopped,
        message=found.message,
        seconds=time.monotonic() - begun,
    )


def _scaled_at_its_ends(vectors: list[NDArray[Any]], exponent: int) -> list[NDArray[Any]]:
    """Multiply a product by ``2**exponent``, half of it at each end.

    Partial products are then as far from overflow as they can be in products from both sides: they may be larger than
    the matrix by many orders of magnitude, on the way through rotations by 1e27.
    """
    scaled = list(vectors)
    scaled[0] = scale_by_power_of_two(scaled[0], exponent // 2)
    scaled[-1] = scale_by_power_of_two(scaled[-1], exponent - exponent // 2)
    return scaled


def _error(W: NDArray[Any], form: Form) -> float:
    """The relative Frobenius error of the products of a form, 0.0 for a zero matrix."""
    product = to_product(form)
    with np.errstate(over="ignore", invalid="ignore"):
        P = np.asarray(product.matvec(np.eye(len(W)))).T
    return float(np.linalg.norm(W - P)) / (float(np.linalg.norm(W)) or 1.0)


def _closed_form(
    W: NDArray[Any], n_factors: int | None, target_error: float, rng: np.random.Generator, *, real: bool
) -> Factorisation | None:
    """The first closed form that reproduces `W`, lengthened by identities to `n_factors`."""
    for found in closed_forms(W, rng):
        if n_factors is not None and len(found.vectors) > n_factors:
            break
        form = _real_form(W, found, math.inf) if real and any(map(np.iscomplexobj, found.vectors)) else found
        error = _error(W, form)
        if error <= target_error:
            message = f"W has the exact form {form.name!r} of {len(form.vectors)} factors"
            return _lengthened(Factorisation(form, [error], "closed form", message), n_factors)
    return None


def _long_form(
    W: NDArray[Any],
    n_factors: int | None,
    method: str,
    target_error: float,
    rng: np.random.Generator,
    deadline: float,
    callback: Callable[[FitProgress], object] | None,
    *,
    real: bool,
) -> Factorisation:
    """A product for a matrix without a short form, by search or construction."""
    choices = constructions(W, real=real)
    shortest = min(choices, key=lambda choice: choice.n_factors)
    needed, fewest = shortest.n_factors, shortest.fewest
    if n_factors is not None:
        few = n_factors < needed
    else:
        few = fewest < needed and len(W) * fewest <= _SEARCHED
        few = few and ("generic" not in shortest.name or bool(np.linalg.cond(W) <= _CONDITION))
    if method == "constructive" and n_factors is not None and n_factors < needed:
        raise ArgumentValueError(
            "factorize_cdd", "n_factors", f"must be at least {needed} to construct W, got {n_factors}"
        )
    searched = None
    if method == "search" or (method == "auto" and few):
        searched = search(W, n_factors, target_error, rng, real=real, deadline=deadline, callback=callback)
        if np.isrealobj(W) and not real:
            searched = searched._replace(form=_real_form(W, searched.form, target_error))
        if searched.stopped == "time limit" and not searched.history[-1] < 1.0:
            searched = _fitted(W, len(searched.form.vectors), searched, deadline, rng)
        if method == "search" or n_factors is not None or searched.stopped != "completed":
            return searched
        if searched.history[-1] <= target_error:
            return searched
    constructed = construct(W, choices, n_factors, target_error, rng, real=real, deadline=deadline, callback=callback)
    if constructed is None:
        return searched or search(W, n_factors, target_error, rng, real=real, deadline=deadline, callback=callback)
    return _lengthened(constructed, n_factors)


def _fitted(
    W: NDArray[Any], n_factors: int, searched: Factorisation, deadline: float, rng: np.random.Generator
) -> Factorisation:
    """The best approximation of so many factors, in the time that is left, where no iteration of the search is done."""
    result = fit_cdd(W, n_factors, time_limit=max(deadline - time.monotonic(), 0.0), rng=rng)
    vectors = CDDLayout.of(result.operator).vectors_of(result.operator)
    form = Form(searched.form.name, "diagonal", [to_numpy(v).reshape(-1) for v in vectors])
    message = f"{searched.message}; the best approximation by fit_cdd, since an iteration takes longer"
    return Factorisation(form, [result.error], result.solver, message, searched.stopped)


def _real_form(W: NDArray[Any], form: Form, target_error: float) -> Form:
    """The form with real factors, if its factors are real ones turned by phases and modulations.

    With ``E`` the diagonal of ``exp(2 pi i j / n)``, ``E^m C E^-m`` is a circulant for every circulant `C`, with its
    first column modulated, so that modulations can pass from a diagonal to the next.
    """
    n = len(W)
    turned = list(form.vectors)
    for k in range(1, len(turned), 2) if form.first == "diagonal" else ():
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
    return real if _error(W, real) <= target_error else form


def _lengthened(found: Factorisation, n_factors: int | None) -> Factorisation:
    """The product with identities appended."""
    form = found.form
    if n_factors is None or n_factors == len(form.vectors):
        return found
    n, count = len(form.vectors[0]), len(form.vectors)
    shapes = CDDLayout((n, n), count, first=form.first).vector_shapes
    shaped = [v.reshape(shape) for v, shape in zip(form.vectors, shapes, strict=True)]
    layout = CDDLayout((n, n), n_factors, first=form.first)
    longer = form._replace(vectors=[np.asarray(v).reshape(n) for v in layout.extended(shaped, form.first)])
    return found._replace(form=longer, message=f"{found.message}; identities make it {n_factors} factors")
