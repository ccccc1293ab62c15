"""Posterior variances of a series for their users: by NumPy on the host, and how far off they are, as is measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.linear_algebra import error_of_variances, rows_for_error
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems.superfast.batches import entries
from structmat._toeplitz_systems.superfast.solver import SuperfastFactor


def series_variances(c: Any, own: Any, noise: Any, there: Any) -> tuple[Any, Any]:
    """Return the posterior variances of all rows of a series, and how far off they are, measured at a few of them.

    Parameters
    ----------
    c : array, shape (n * p,)
        The first block column of T, as `SuperfastFactor` takes it, on the host.
    own : array, shape (n,)
        What the diagonal of the prior covariance has beside that of T.
    noise : array, shape (n,)
        The noise of each row that is there; the others are not looked at.
    there : numpy.ndarray of bool, shape (n,)
        Which rows were measured.

    Raises
    ------
    RankError, numpy.linalg.LinAlgError
        As `SuperfastFactor` does.
    """
    xp = numpy_namespace
    c, own, noise = (to_numpy(each) for each in (c, own, noise))
    own = own.astype(np.float64)
    noise = np.where(there, noise, 0.0)
    factor = SuperfastFactor(c, own + noise, there, xp, with_variances=True)
    variances = factor.variances(noise)
    K = factor.matrix
    rows = rows_for_error(there)
    i, j = np.arange(K.rows), rows[:, None]
    columns: Any = entries(K.c, np.maximum(i, j), np.minimum(i, j), K.channels, xp)  # of T
    columns = np.where(i < j, np.conj(columns), columns)
    every = np.arange(len(rows))
    columns[every, rows] += own[rows]
    diagonal = columns[every, rows].real
    by_noise = there[rows] & (noise[rows] < diagonal)
    columns[by_noise] = 0.0
    columns[every[by_noise], rows[by_noise]] = noise[rows[by_noise]]
    columns *= there
    whole = np.where(by_noise, noise[rows], diagonal)
    x = factor.solve(columns)
    error = error_of_variances(variances[rows], whole, columns, x, columns - K._matvec(x, xp), xp)
    return variances, np.asarray(error)
