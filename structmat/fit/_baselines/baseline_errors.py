"""The public functions of the baselines: their arguments checked, and the matrix scaled."""

from __future__ import annotations

from math import hypot, inf
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from structmat._arguments import as_matrix, integer, one_of, to_numpy
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.fit._baselines import BASELINES, WEIGHTED_BASELINES
from structmat.fit._baselines.nearest import nearest_circulant, nearest_diagonal
from structmat.fit._baselines.truncated_svd import error_of_rank
from structmat.fit._second_moment import column_roots, second_moment, weighted_inputs
from structmat.fit._three_factors.vectors import largest_exponent, largest_part, scale_by_power_of_two
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from structmat._array_tools import ArrayLike

__all__ = ["baseline_errors", "baseline_names", "closed_form_errors", "truncated_svd_error", "weighted_norm"]


def baseline_names(*, weighted: bool = False) -> tuple[str, ...]:
    """Return the names of the families that fits are compared with.

    Parameters
    ----------
    weighted : bool, default False
        Only those whose best member is known in a weighted norm as well.

    Returns
    -------
    tuple of str
        As `baseline_errors` takes them.

    Examples
    --------
    >>> from structmat.fit import baseline_names
    >>> baseline_names()
    ('truncated-svd', 'block-circulant', 'sparse-fourier', 'monarch')
    >>> baseline_names(weighted=True)
    ('truncated-svd',)
    """
    return tuple(WEIGHTED_BASELINES if weighted else BASELINES)


def baseline_errors(
    W: ArrayLike,
    n_parameters: Iterable[int],
    *,
    names: Iterable[str] | None = None,
    input_second_moment: ArrayLike | None = None,
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the least errors that other families reach with at most as many parameters.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    n_parameters : iterable of int
        Upper limits of the number of parameters, one comparison for each.
    names : iterable of str, optional
        The families: by default all whose best member is known, `baseline_names`.
    input_second_moment : array_like, optional
        Second moments that the errors are weighted with, as for `fit_cdd`.

    Returns
    -------
    dict of str to tuple
        For each family ``(n_parameters, error)``: number of parameters and relative error of the best member for each
        limit.

    Raises
    ------
    ArgumentTypeError
        If an argument is of the wrong kind.
    ArgumentValueError
        If `W` is not a matrix of finite numbers, a number is negative, or a name is unknown.

    See Also
    --------
    error_curve : Compares fits with these.

    Notes
    -----
    The truncated SVD is the best case of LoRA, the block-circulant matrix that of C3A, the sparse Fourier matrix that
    of FourierFT. If a family has no member with so few parameters, the zero matrix is used.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import baseline_errors
    >>> W = np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    >>> used, error = baseline_errors(W, [5, 6], names=["truncated-svd"])["truncated-svd"]
    >>> used.tolist(), error.round(12).tolist()
    ([0, 6], [1.0, 0.0])
    """
    owner = "baseline_errors"
    matrix = _scaled(W, owner)
    known = baseline_names(weighted=input_second_moment is not None)
    chosen = known if names is None else [one_of(name, owner, "names", known) for name in names]
    try:
        budgets = [integer(number, owner, "n_parameters", least=0) for number in n_parameters]
    except TypeError as error:
        if isinstance(error, ArgumentTypeError):
            raise
        text = f"must be a sequence of integers, got {n_parameters!r}"
        raise ArgumentTypeError(owner, "n_parameters", text) from None
    if input_second_moment is None:
        members = {name: BASELINES[name](matrix, budgets) for name in chosen}
    else:
        moment = second_moment(input_second_moment, matrix.shape[1], owner)
        inputs = weighted_inputs(moment, owner, real=not np.iscomplexobj(matrix))
        members = {name: WEIGHTED_BASELINES[name](matrix, budgets, inputs) for name in chosen}
    return {
        name: (np.array([m.n_parameters for m in best], dtype=int), np.array([m.error for m in best], dtype=float))
        for name, best in members.items()
    }


def truncated_svd_error(W: ArrayLike, rank: int, *, input_second_moment: ArrayLike | None = None) -> float:
    """Return the relative error of the best approximation of a given rank.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    rank : int
        The rank, at least 0; the error is zero from the smaller side on.
    input_second_moment : array_like, optional
        Second moments that the error is weighted with, as for `fit_cdd`.

    Returns
    -------
    float
        ``norm(W - P) / norm(W)`` in the Frobenius norm, or the weighted one.

    Raises
    ------
    ArgumentTypeError
        If an argument is of the wrong kind.
    ArgumentValueError
        If `W` is not a matrix of finite numbers, or `rank` is negative.

    See Also
    --------
    baseline_errors : The errors for numbers of parameters.

    Notes
    -----
    For a smaller side of up to 600, or a large rank, all singular values are computed, otherwise the leading singular
    vectors, by iterations that cost ``O(rows * cols)`` each.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import truncated_svd_error
    >>> truncated_svd_error(np.diag([4.0, 3.0]), 1)
    0.6
    """
    owner = "truncated_svd_error"
    matrix = _scaled(W, owner)
    rank = integer(rank, owner, "rank", least=0)
    if input_second_moment is not None:
        moment = second_moment(input_second_moment, matrix.shape[1], owner)
        if moment.ndim == 1:
            matrix = matrix * column_roots(moment, owner)
        else:
            matrix = matrix @ weighted_inputs(moment, owner, real=not np.iscomplexobj(matrix))
    return error_of_rank(matrix, rank)


def closed_form_errors(
    W: ArrayLike, *, block_size: int | Literal["min", "toeplitz"] = "min"
) -> dict[str, tuple[int, float]]:
    """Return the errors of the nearest block-circulant and the nearest diagonal matrix.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulant blocks, as for `fit_cdd`.

    Returns
    -------
    dict of str to tuple
        ``(n_parameters, error)`` of ``"circulant"`` and ``"diagonal"``.

    Raises
    ------
    ArgumentTypeError
        If an argument is of the wrong kind.
    ArgumentValueError
        If `W` is not a matrix of finite numbers, or `block_size` is out of range.

    See Also
    --------
    structmat.BlockCirculant.nearest : The nearest block-circulant matrix itself.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import closed_form_errors
    >>> closed_form_errors(np.diag([1.0, 1.0, 1.0]))
    {'circulant': (3, 0.0), 'diagonal': (3, 0.0)}
    """
    owner = "closed_form_errors"
    matrix = _scaled(W, owner)
    rows, cols = matrix.shape
    size = CDDLayout((rows, cols), 3, block_size, owner=owner).block_size
    circulant, diagonal = nearest_circulant(matrix, size), nearest_diagonal(matrix)
    return {"circulant": (circulant.n_parameters, circulant.error), "diagonal": (diagonal.n_parameters, diagonal.error)}


def weighted_norm(W: ArrayLike, *, input_second_moment: ArrayLike | None = None) -> float:
    """Return the norm that errors are relative to.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    input_second_moment : array_like, optional
        Second moments `S`, as for `fit_cdd`.

    Returns
    -------
    float
        The Frobenius norm of ``W S^(1/2)``, of `W` itself by default.

    Raises
    ------
    ArgumentTypeError
        If an argument is of the wrong kind.
    ArgumentValueError
        If `W` is not a matrix of finite numbers, its norm is beyond all floats, or `S` not positive semi-definite.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import weighted_norm
    >>> weighted_norm(np.array([[3.0, 1.0]]), input_second_moment=np.array([1.0, 16.0]))
    5.0
    """
    owner = "weighted_norm"
    values = _finite(W, owner)
    exponent = largest_exponent(values)
    if input_second_moment is None:  # row by row: of a layer there is room for two matrices
        norm = hypot(*(float(np.linalg.norm(scale_by_power_of_two(row, -exponent))) for row in values))
    else:
        values = scale_by_power_of_two(values, -exponent)
        moment = second_moment(input_second_moment, values.shape[1], owner)
        inputs = weighted_inputs(moment, owner, real=not np.iscomplexobj(values))
        norm = float(np.sqrt(np.abs(moment).max())) * float(np.linalg.norm(values @ inputs))
    with np.errstate(over="ignore"):
        norm = float(np.ldexp(norm, exponent))
    if norm == inf:
        raise ArgumentValueError(owner, "W", "must have a norm below the largest float, got one beyond")
    return norm


def _scaled(W: ArrayLike, owner: str) -> NDArray[Any]:
    """Return the matrix with entries of a size of one, so that no square over- or underflows."""
    values = _finite(W, owner)
    return scale_by_power_of_two(values, -largest_exponent(values))


def _finite(W: ArrayLike, owner: str) -> NDArray[Any]:
    values = to_numpy(as_matrix(W, owner, "W"))
    if not np.isfinite(largest_part(values)):
        raise ArgumentValueError(owner, "W", "must be finite, got NaN or infinity")
    return values
