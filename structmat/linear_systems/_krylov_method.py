"""What all Krylov methods for operators share: their signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from structmat._arrays.libraries import namespace_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count, Product
from structmat.operators import LinearOperator


class KrylovMethod(ABC):
    """A method that finds solutions of ``A x = b`` by products with A alone.

    A subclass is a frozen dataclass, whose fields say what belongs to the method. Its one text serves every array
    library and batches of right-hand sides, as it loops by the rules of a library.
    """

    _needs_positive_definite: ClassVar[bool] = False
    """Whether matrix and preconditioner have to be Hermitian and positive definite."""

    def run(
        self,
        A: LinearOperator,
        b: Array,
        M: LinearOperator | None = None,
        *,
        rtol: float,
        max_iter: int,
        norm: Array | None = None,
    ) -> tuple[Array, Count]:
        """Return solutions, without derivatives, and the number of iterations.

        Parameters
        ----------
        A : LinearOperator
            The matrix, or a stack of them.
        b : array, shape (..., rows)
            Right-hand sides along the last axis, with all batch axes of A and M, of the dtype of the solutions, and of
            moderate size: their squares must not overflow. One that is zero, or has converged, stays as it is.
        M : LinearOperator, optional
            The preconditioner, an operator near the inverse of A.
        rtol : float
            Iteration ends where the residual r has ``norm(r) <= rtol * norm(b)``, as far as the method knows it.
        max_iter : int
            The most iterations.
        norm : array, shape (...), optional
            The norm of A, with which least squares also end where ``norm(A^H r) <= rtol * norm * norm(r)``.

        Returns
        -------
        x : array, shape (..., cols)
            The solutions.
        iterations : int
            How many iterations were made, the most for any right-hand side; in a trace of JAX an array.

        See Also
        --------
        structmat.solve, structmat.lstsq : Check arguments and results, scale, precondition, and have derivatives.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> A = sm.Diagonal(np.array([1.0, 2.0, 2.0]))
        >>> x, iterations = sm.CG().run(A, np.ones(3), rtol=1e-10, max_iter=10)
        >>> x.round(6), iterations
        (array([1. , 0.5, 0.5]), 2)
        """
        xp = namespace_of(f"{type(self).__name__}.run", b)
        with quiet(xp):
            return self._run(A, b, M, rtol, max_iter, norm, xp)

    @abstractmethod
    def _run(
        self,
        A: LinearOperator,
        b: Array,
        M: LinearOperator | None,
        rtol: float,
        max_iter: Count,
        norm: Array | None,
        xp: Namespace,
    ) -> tuple[Array, Count]:
        """Return what `run` does, with arrays of one namespace `xp`."""


@contextmanager
def quiet(xp: Namespace) -> Iterator[None]:
    """Record nothing for derivatives, and let NumPy not warn of NaN and infinities, as results are checked."""
    with np.errstate(all="ignore"), rules_of(xp).unrecorded():
        yield


def product_with(operator: LinearOperator, xp: Namespace) -> Product:
    """Return the function that multiplies vectors along the last axis by an operator."""
    return lambda v: operator._matvec(v, xp)
