"""The check of an operator by all laws, and the laws one by one for pytest."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgWarning

from structmat._arguments import non_negative, random_generator
from structmat._errors import ArgumentValueError
from structmat.testing._derivative_laws import DERIVATIVE_LAWS, SMALL_DERIVATIVE_LAWS
from structmat.testing._matrix_laws import MATRIX_LAWS
from structmat.testing._probe import Probe
from structmat.testing._product_laws import PRODUCT_LAWS, SMALL_LAWS
from structmat.testing._structure_laws import STRUCTURE_LAWS
from structmat.testing._views import View, view_of


@dataclass(frozen=True)
class Law:
    """One law of linear operators, which is called with an operator.

    Parameters
    ----------
    name : str
        What errors and reports of pytest call it.
    function : callable
        Compares results, of a probe.
    is_own : bool
        Whether it is about operators of structmat alone.
    needs_matrix : bool
        Whether it needs the matrix, given or small enough to be written out.
    is_beside_matrix : bool
        Whether it compares with the matrix alone, so that entries may be as large or small as numbers are.

    See Also
    --------
    laws : Returns all.
    """

    name: str
    function: Callable[[Probe], None]
    is_own: bool
    needs_matrix: bool
    is_beside_matrix: bool = False

    @property
    def __name__(self) -> str:  # which pytest shows
        return self.name

    def __call__(
        self,
        operator: Any,
        dense: np.ndarray[Any, Any] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        rtol: float | None = None,
    ) -> None:
        """Check one law, with the arguments and the errors of `check_operator`; nothing where it does not apply."""
        self.hold(_probe(operator, dense, rng, rtol))

    def applies_to(self, probe: Probe) -> bool:
        """Tell whether the law is about such an operator.

        Parameters
        ----------
        probe : Probe
            The operator, with what is known of it.

        Returns
        -------
        bool
            False for a law of structmat's own operators where it is none, or of the dense matrix of a large one.
        """
        if self.is_own and probe.view.operator is None:
            return False
        return probe.is_small or not self.needs_matrix

    def hold(self, probe: Probe) -> None:
        """Raise an error in one line unless the law holds for the operator of the probe.

        Parameters
        ----------
        probe : Probe
            The operator, with what is known of it.
        """
        if not self.applies_to(probe):
            return
        probe.start(self.name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LinAlgWarning)  # of ill-conditioned matrices, whose rounding is known
                if self.is_beside_matrix or probe.is_in_range:
                    self.function(probe)
        except AssertionError as error:
            raise _failure(self.name, probe, str(error)) from error
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise _failure(self.name, probe, f"raises {text}") from error


def _failure(name: str, probe: Probe, text: str) -> AssertionError:
    view = probe.view
    text = text.removeprefix(f"{view.name}: ")
    batch = f", batch={view.batch_shape}" if view.batch_shape else ""
    where = f"law: {name}; shape={view.shape}, dtype={view.dtype}{batch}; repeat with rng={probe.seed}"
    return AssertionError(f"{view.name}: {text} ({where})")


def _of_pair(function: Callable[[Any], None]) -> Callable[[Probe], None]:
    """Return a law of an operator beside its matrix as one of a probe."""

    def law(probe: Probe) -> None:
        pair = probe.pair
        pair.rng = probe.rng
        function(pair)

    return law


def laws() -> list[Law]:
    """Return all laws of linear operators, for one parametrised test of pytest each.

    Returns
    -------
    list of Law
        Each is called with the arguments of `check_operator`, and has a name, which pytest shows. It does nothing for
        operators that it is not about.

    See Also
    --------
    check_operator : All laws in one call.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> law = {law.name: law for law in sm.testing.laws()}["adjoint"]
    >>> law(sm.Circulant(np.array([1.0, 2.0, 3.0])), rng=0)
    """
    matrix_laws = {name: _of_pair(function) for name, function in MATRIX_LAWS.items()}
    return [
        Law(name, function, is_own, needs_matrix, group is matrix_laws)
        for group, is_own, needs_matrix in (
            (matrix_laws, True, True),
            (PRODUCT_LAWS, False, False),
            (SMALL_LAWS, False, True),
            (STRUCTURE_LAWS, True, False),
            (DERIVATIVE_LAWS, True, False),
            (SMALL_DERIVATIVE_LAWS, True, True),
        )
        for name, function in group.items()
    ]


def check_operator(
    operator: Any,
    dense: np.ndarray[Any, Any] | None = None,
    *,
    rng: np.random.Generator | int | None = None,
    rtol: float | None = None,
) -> None:
    """Check an operator of any library by every law of linear operators.

    Parameters
    ----------
    operator : operator
        One of structmat, of any array library, in single or double precision, a stack as well; a ``LinearOperator`` of
        SciPy, PyLops or linear_operator; one of lineax whose vectors are arrays; a matrix of NumPy or SciPy; or
        functions, as `Functions`.
    dense : numpy.ndarray, shape (..., rows, cols), optional
        Its matrix, written from the definition and not by the operator, in double precision. Without it the matrix of
        an operator of at most 128 rows and columns is made of products with unit vectors; of a larger one the laws that
        need a matrix are left out, and no memory beyond some vectors is taken.
    rng : numpy.random.Generator or int, optional
        Source of vectors. Errors tell the integer that repeats them.
    rtol : float, optional
        How far results may be off, relative to the norms of what is multiplied, before the number of terms counts.
        Default: 1e-13 in double precision, 1e-5 in single.

    Raises
    ------
    AssertionError
        If a law does not hold; its one line names the law, the sizes and the seed. So do errors within the operator.
    TypeError
        If `operator` is of no such kind, or an argument is of the wrong kind.
    ValueError
        If `dense` is not a matrix, or `rtol` is negative or not finite.

    See Also
    --------
    laws : The laws one by one, for pytest.
    Functions : An operator given by functions.

    Notes
    -----
    The laws of any operator: it is additive and homogeneous, by complex numbers too; ``<A x, y> = <x, A^H y>``;
    products with columns are those with single vectors; transposes of transposes are the operator; inputs are not
    written to, results are no views; shapes and dtypes follow the vectors, finite vectors have finite products, and the
    same ones the same products. For operators of structmat also blocks and entries, the diagonal, sums and multiples,
    solutions, determinants, eigenvectors, norms, functions, prepared operators and pickles, and in torch and JAX
    gradients by every parameter against differences, ``jit`` and ``vmap``. What an operator has no closed form for is
    left out.

    The tolerance follows from the rounding of sums: that of k products has an error of about ``sqrt(k)`` machine
    epsilons times the sum of the moduli. The norms of the vectors and the Frobenius norm of the matrix bound this sum.
    That norm is estimated from products with vectors of random numbers of mean square one, whose mean square it is. So
    a result may be off by ``rtol * sqrt(max(shape))`` times these norms.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from scipy.linalg import circulant
    >>> c = np.array([1.0, 2.0, 3.0])
    >>> sm.testing.check_operator(sm.Circulant(c), circulant(c), rng=0)
    >>> sm.testing.check_operator(sm.Circulant(c).T, circulant(c), rng=0)
    Traceback (most recent call last):
        ...
    AssertionError: Circulant: to_dense is not the dense matrix: off by 1 (law: description; shape=(3, 3), ...

    Somebody else's operator, without its matrix:

    >>> from scipy.sparse.linalg import LinearOperator
    >>> A = LinearOperator((2, 3), matvec=lambda x: x[:2], rmatvec=lambda y: np.append(y, 1.0), dtype="float64")
    >>> sm.testing.check_operator(A, rng=0)
    Traceback (most recent call last):
        ...
    AssertionError: _CustomLinearOperator: ... (law: adjoint; shape=(2, 3), dtype=float64; repeat with rng=0)
    """
    probe = _probe(operator, dense, rng, rtol)
    for law in laws():
        law.hold(probe)


def _probe(operator: Any, dense: Any, rng: Any, rtol: float | None) -> Probe:
    owner = "check_operator"
    view: View = view_of(operator, owner)
    matrix = None if dense is None else np.asarray(dense)
    if matrix is not None and (matrix.ndim < 2 or matrix.dtype.kind not in "fc"):
        raise ArgumentValueError(owner, "dense", f"must be a matrix, got {matrix.dtype} {matrix.shape}")
    if matrix is not None and view.operator is None and matrix.shape != (*view.batch_shape, *view.shape):
        text = f"has shape {matrix.shape}, the operator {(*view.batch_shape, *view.shape)}"
        raise AssertionError(f"{view.name}: dense {text}")
    rtol = None if rtol is None else non_negative(rtol, owner, "rtol")
    is_seed = isinstance(rng, (int, np.integer)) and not isinstance(rng, bool)
    generator = random_generator(rng, owner)
    return Probe(view, matrix, int(rng) if is_seed else int(generator.integers(2**32)), rtol)
