"""Log-determinants and solutions of matrices whose values are not known yet: by NumPy, when they become known.

A transform of torch (`torch.vmap`, ``torch.func.grad``) hides values, and a trace of JAX has none. Ranks depend on
values, so that the factor is made where a library hands these out, on the host, and not kept: a gradient makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from structmat._arrays.conversion import on_host
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat._toeplitz_systems.superfast.bases import RankError
from structmat._toeplitz_systems.superfast.derivatives import TraceByDiagonals, without_second_derivatives
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.solver import SuperfastFactor

Results = Sequence[tuple[tuple[int, ...], Any]]
"""The shapes of results of one matrix, and their dtypes."""


@dataclass(frozen=True)
class LogDeterminantOnHost(TraceByDiagonals):
    """The log-determinant of a stack of matrices, and what its derivatives take."""

    tolerance: float | None
    rank: int | None
    strict: bool
    """Whether a matrix without a factor is an error; its results are NaN otherwise."""

    def value(self, K: NoisyToeplitz, xp: Namespace) -> tuple[Array, Array]:
        """Return the logarithms of the determinants, with derivatives, and how far off they may be."""
        precision = precision_of(K.c.dtype, xp)
        log, error = self._on_host(_value, K, [((), precision), ((), precision)], xp)
        return rules_of(xp).log_determinant(self, K, None, log), error

    def inverse(self, A: NoisyToeplitz, given: None, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of the inverse, and its diagonal, which have no derivatives in turn."""
        results = [((A.c.shape[-1],), A.c.dtype), ((A.rows,), precision_of(A.c.dtype, xp))]
        return without_second_derivatives(self._on_host(_sums, A, results, xp), A, xp)

    def _on_host(
        self, function: Callable[..., Any], K: NoisyToeplitz, results: Results, xp: Namespace
    ) -> tuple[Array, ...]:
        """Return what a function of one factor returns, for each matrix of a stack."""
        arrays = [K.c, K.noise, K.there]
        most = max(array.ndim for array in arrays)
        arrays = [xp.reshape(array, (*(1,) * (most - array.ndim), *array.shape)) for array in arrays]
        batch = broadcast_shapes("slogdet", *(tuple(array.shape[:-1]) for array in arrays))
        shapes = [((*batch, *core), dtype) for core, dtype in results]
        cores = [(core, is_complex(dtype, xp)) for core, dtype in results]
        return on_host(partial(self._of_each, function, cores), shapes, arrays, xp)

    def _of_each(self, function: Callable[..., Any], cores: Any, *arrays: Any) -> tuple[Any, ...]:
        """Return the results for matrices of NumPy, one after the other."""
        batch = np.broadcast_shapes(*(array.shape[:-1] for array in arrays))
        c, noise, there = (np.broadcast_to(array, (*batch, array.shape[-1])) for array in arrays)
        found = [np.empty((*batch, *core), c.dtype if complex_ else noise.dtype) for core, complex_ in cores]
        for index in np.ndindex(batch):
            try:
                factor = SuperfastFactor(
                    c[index],
                    noise[index],
                    there[index],
                    numpy_namespace,
                    tolerance=self.tolerance,
                    rank=self.rank,
                    with_derivatives=function is _sums,
                )
                values = function(factor)
            except (RankError, np.linalg.LinAlgError):
                if self.strict:
                    raise
                values = [np.nan] * len(found)
            for array, value in zip(found, values, strict=True):
                array[index] = value
        return tuple(found)


def _value(found: SuperfastFactor) -> tuple[Any, Any]:
    return found.logdet, found.error


def _sums(found: SuperfastFactor) -> tuple[Any, Any]:
    return found.factor.inverse_sums(found.matrix.there, numpy_namespace)


@dataclass(frozen=True)
class SolutionsOnHost(Solver):
    """Finds solutions by factors that are made on the host, for the implicit rule of a library; NaN for none."""

    tolerance: float | None
    rank: int | None
    rtol: float

    def __call__(self, A: NoisyToeplitz, M: None, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        """Return solutions along the last axis; `A` has batch axes that broadcast against those of `b`, or none."""
        arrays = [xp.reshape(array, (*(1,) * (b.ndim - array.ndim), *array.shape)) for array in A._arrays()]
        (x,) = on_host(self._of_each, [(tuple(b.shape), b.dtype)], [*arrays, b], xp)
        return x, ()

    def _of_each(self, c: Any, noise: Any, there: Any, b: Any) -> tuple[Any]:
        """Return the solutions of NumPy, of one matrix after the other."""
        lead = np.broadcast_shapes(c.shape[:-1], noise.shape[:-1], there.shape[:-1])
        c, noise, there = (np.broadcast_to(array, (*lead, array.shape[-1])) for array in (c, noise, there))
        b = np.broadcast_to(b, (*np.broadcast_shapes(lead, b.shape[:-1]), b.shape[-1]))
        x = np.full_like(b, np.nan)
        for index in np.ndindex(lead):
            his = tuple(slice(None) if count == 1 else k for k, count in zip(index, lead, strict=True))
            try:
                factor = SuperfastFactor(
                    c[index], noise[index], there[index], numpy_namespace, tolerance=self.tolerance, rank=self.rank
                )
            except (RankError, np.linalg.LinAlgError):
                continue
            x[his] = factor.solve(b[his], self.rtol)
        return (x,)


class FactorOnHost:
    """The factor of a matrix whose values are not known: a solution makes it on the host, and does not keep it."""

    def __init__(self, K: NoisyToeplitz, xp: Namespace, *, tolerance: float | None, rank: int | None) -> None:
        wide = xp.complex128 if is_complex(K.c.dtype, xp) else xp.float64
        self.matrix = NoisyToeplitz(xp.astype(K.c, wide), *(xp.astype(v, xp.float64) for v in (K.noise, K.there)))
        self._xp, self._tolerance, self._rank = xp, tolerance, rank

    def solve(self, b: Array, rtol: float) -> Array:
        """Return solutions along the last axis, in double precision; NaN for a matrix without a factor."""
        xp = self._xp
        is_real = not (is_complex(b.dtype, xp) or is_complex(self.matrix.c.dtype, xp))
        b = xp.astype(b, xp.float64 if is_real else xp.complex128)
        solver = SolutionsOnHost(self._tolerance, self._rank, rtol)
        x: Array = rules_of(xp).solution(solver, self.matrix, None, b)[0]
        return x
