"""Strategies of Hypothesis that draw operators, each with its dense matrix. Needs Hypothesis.

An operator is drawn with its matrix, which is written from the definition and not by the operator. So a property test
holds code for operators to the same code for matrices:

>>> import numpy as np
>>> from hypothesis import given
>>> from structmat.testing import strategies as sms
>>> @given(sms.circulants(dtype="float64"))
... def test_the_trace_is_that_of_the_matrix(drawn):
...     A, dense = drawn
...     np.testing.assert_allclose(A.trace(), np.trace(dense, axis1=-2, axis2=-1), atol=1e-12)
>>> test_the_trace_is_that_of_the_matrix()

Failing examples shrink to small ones: few rows, no batch, and numbers from 1 to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np

try:
    from hypothesis import reject
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ImportError(
        'structmat.testing.strategies needs the extra "testing": pip install "structmat[testing]"'
    ) from error

from structmat._arguments import integer, positive
from structmat._arrays.dtypes import dtype_name
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import (
    BandedCirculant,
    BlockCirculant,
    BlockToeplitz,
    CDDProduct,
    Circulant,
    Diagonal,
    Hankel,
    Kronecker,
    LinearOperator,
    MultilevelCirculant,
    MultilevelToeplitz,
    SpectralCirculant,
    Toeplitz,
    ToeplitzInverse,
)
from structmat.testing._drawing import AsArray, Sample, Vectors
from structmat.testing._kinds import KINDS, Kind
from structmat.testing._references import Values, kronecker_product

__all__ = [
    "DrawnOperator",
    "arrays_for",
    "cdd_products",
    "circulants",
    "compositions",
    "diagonals",
    "operators",
    "toeplitz",
]

_Value = TypeVar("_Value")

Option: TypeAlias = _Value | st.SearchStrategy[_Value]
"""A value, or a strategy that draws it."""

DTYPES = ("float64", "float32", "complex128", "complex64")
BATCHES: tuple[tuple[int, ...], ...] = ((), (), (), (2,), (1,), (2, 3))
_MOST_ATTEMPTS = 50
"""How often values are drawn anew, for one shape, until the matrix is conditioned as well as was asked for."""

_CIRCULANTS = (Circulant, SpectralCirculant, BandedCirculant, MultilevelCirculant, BlockCirculant)
_TOEPLITZ = (Toeplitz, Hankel, MultilevelToeplitz, BlockToeplitz, ToeplitzInverse)


class SampleOptions(TypedDict, total=False):
    """The options of a strategy beside the library; None stands for any value."""

    dtype: Option[str] | None
    shape: Option[tuple[int, int]] | None
    batch: Option[tuple[int, ...]] | None
    conditioning: float | None


class Options(SampleOptions, total=False):
    """The options of every strategy of operators, which `operators` tells about."""

    library: Option[str | AsArray]


class DrawnOperator(NamedTuple):
    """An operator and its dense matrix, as the strategies draw them.

    Parameters
    ----------
    operator : LinearOperator
        Of the library that was asked for.
    dense : numpy.ndarray, shape (..., rows, cols)
        Its matrix in double precision, by NumPy, written from the definition.

    See Also
    --------
    operators : Draws it.
    """

    operator: LinearOperator
    dense: Values


def operators(
    *kinds: type[LinearOperator],
    library: Option[str | AsArray] = "numpy",
    dtype: Option[str] | None = None,
    shape: Option[tuple[int, int]] | None = None,
    batch: Option[tuple[int, ...]] | None = None,
    conditioning: float | None = None,
) -> st.SearchStrategy[DrawnOperator]:
    """Draw an operator of any class of the package, with its dense matrix.

    Parameters
    ----------
    *kinds : type
        Classes of operators, such as `structmat.Toeplitz`; only these are drawn. Default: all.
    library : str or callable or strategy of them, default: "numpy"
        The array library, as ``"torch"`` or ``"jax"``, or a function that makes an array of it of one of NumPy. JAX has
        double precision where it is told to, by ``jax.config.update("jax_enable_x64", True)``.
    dtype : str or strategy of str, optional
        Of the parameters: ``"float32"``, ``"float64"``, ``"complex64"`` or ``"complex128"``. Default: any of them.
    shape : tuple of two integers or strategy of them, optional
        Rows and columns. Of the kinds those are drawn that have such matrices. Default: few rows and columns, for any
        kind.
    batch : tuple of int or strategy of them, optional
        The batch shape; where it is given, kinds without parameters are drawn for ``()`` alone. Default: mostly none.
    conditioning : float, optional
        The largest condition number of the matrix. Default: no limit, so that matrices may be singular.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    Raises
    ------
    TypeError
        If one of `kinds` is no class of operators that can be drawn.
    ValueError
        If an option has a value that it cannot have.

    See Also
    --------
    compositions : Sums, products and other operators made of several.
    arrays_for : Draws what it multiplies.

    Notes
    -----
    Shapes and choices are drawn one by one, so that failing examples shrink to small ones. The numbers are standard
    normal, from a seed; where it is zero, they are whole, from 1 to 9. Where `conditioning` is given, they are drawn
    anew up to 50 times; a tight limit for large matrices makes Hypothesis give up.

    Examples
    --------
    >>> import structmat as sm
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.operators(sm.Toeplitz, sm.Circulant, shape=(4, 4), conditioning=100.0))
    ... def test_solutions(drawn):
    ...     A, dense = drawn
    ...     assert A.shape == dense.shape[-2:] == (4, 4)
    >>> test_solutions()
    """
    for kind in kinds:
        if not any(issubclass(known.operator, kind) for known in KINDS.values()):
            raise ArgumentTypeError("operators", "kinds", f"must be classes of operators of structmat, got {kind!r}")
    chosen = [known for known in KINDS.values() if issubclass(known.operator, kinds or LinearOperator)]
    return _drawn(chosen, library=library, dtype=dtype, shape=shape, batch=batch, conditioning=conditioning)


def circulants(**options: Unpack[Options]) -> st.SearchStrategy[DrawnOperator]:
    """Draw a circulant: by its first column, spectrum or band, on a grid, or of blocks.

    Parameters
    ----------
    **options
        `library`, `dtype`, `shape`, `batch` and `conditioning`, as for `operators`.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    See Also
    --------
    operators : Draws all kinds, and tells what the options mean.

    Examples
    --------
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.circulants(batch=()))
    ... def test_products(drawn):
    ...     assert drawn.operator.batch_shape == ()
    >>> test_products()
    """
    return operators(*_CIRCULANTS, **options)


def diagonals(**options: Unpack[Options]) -> st.SearchStrategy[DrawnOperator]:
    """Draw a diagonal matrix.

    Parameters
    ----------
    **options
        `library`, `dtype`, `shape`, `batch` and `conditioning`, as for `operators`.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    See Also
    --------
    operators : Draws all kinds, and tells what the options mean.

    Examples
    --------
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.diagonals(dtype="float64"))
    ... def test_the_diagonal(drawn):
    ...     assert (drawn.operator.diagonal() == drawn.operator.d).all()
    >>> test_the_diagonal()
    """
    return operators(Diagonal, **options)


def toeplitz(**options: Unpack[Options]) -> st.SearchStrategy[DrawnOperator]:
    """Draw a Toeplitz or Hankel matrix, one on a grid or of blocks, or the inverse of one.

    Parameters
    ----------
    **options
        `library`, `dtype`, `shape`, `batch` and `conditioning`, as for `operators`.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    See Also
    --------
    operators : Draws all kinds, and tells what the options mean.

    Examples
    --------
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.toeplitz(shape=(4, 6)))
    ... def test_shapes(drawn):
    ...     assert drawn.operator.T.shape == (6, 4)
    >>> test_shapes()
    """
    return operators(*_TOEPLITZ, **options)


def cdd_products(**options: Unpack[Options]) -> st.SearchStrategy[DrawnOperator]:
    """Draw a product of circulant and diagonal matrices in turn, of 3 to 6 factors.

    Parameters
    ----------
    **options
        `library`, `dtype`, `shape`, `batch` and `conditioning`, as for `operators`.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    See Also
    --------
    operators : Draws all kinds, and tells what the options mean.

    Examples
    --------
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.cdd_products())
    ... def test_factors(drawn):
    ...     assert 3 <= drawn.operator.n_factors <= 6
    >>> test_factors()
    """
    return operators(CDDProduct, **options)


def compositions(*, most_steps: int = 3, **options: Unpack[Options]) -> st.SearchStrategy[DrawnOperator]:
    """Draw what is made of operators: sums, products, multiples, transposes, Kronecker products, and parts of them.

    Parameters
    ----------
    most_steps : int, default: 3
        The most sums, products and so on by which it is made of what `operators` draws.
    **options
        `library`, `dtype`, `shape`, `batch` and `conditioning`, as for `operators`. The parts have one dtype, and one
        batch shape or none.

    Returns
    -------
    strategy of DrawnOperator
        The operator and its matrix.

    Raises
    ------
    ValueError
        If `most_steps` is negative.

    See Also
    --------
    operators : Draws the parts, and tells what the options mean.

    Examples
    --------
    >>> from hypothesis import given
    >>> from structmat.testing import strategies as sms
    >>> @given(sms.compositions(dtype="float64"))
    ... def test_transposes(drawn):
    ...     A, dense = drawn
    ...     assert A.T.shape == dense.shape[:-3:-1]
    >>> test_transposes()
    """
    steps = integer(most_steps, "compositions", "most_steps", least=0)

    def draw(v: Vectors) -> Sample:
        return _composed(v, v.shape or (v.size(), v.size()), steps)

    return _drawn([Kind(draw, LinearOperator, is_square=False)], **options)


@st.composite
def arrays_for(
    draw: st.DrawFn,
    operator: LinearOperator,
    *,
    adjoint: bool = False,
    columns: Option[int] | None = None,
    batch: Option[tuple[int, ...]] | None = None,
) -> Any:
    """Draw an array that an operator multiplies, of its library, dtype and device.

    Parameters
    ----------
    operator : LinearOperator
        What is to be multiplied by it.
    adjoint : bool, default: False
        Draw for `rmatvec`, with as many entries as the operator has rows.
    columns : int or strategy of int, optional
        Draw columns for `matmat`, this many. Default: a vector for `matvec`.
    batch : tuple of int or strategy of them, optional
        The batch axes in front, which go together with those of the operator. Default: none, or those of the operator.

    Returns
    -------
    strategy of array
        Of shape ``(*batch, length)``, or ``(*batch, length, columns)``.

    See Also
    --------
    operators : Draws operators.

    Examples
    --------
    >>> import numpy as np
    >>> from hypothesis import given, strategies as st
    >>> from structmat.testing import strategies as sms
    >>> @given(st.data(), sms.operators(dtype="float64"))
    ... def test_products(data, drawn):
    ...     x = data.draw(sms.arrays_for(drawn.operator))
    ...     expected = np.einsum("...ij,...j->...i", drawn.dense, x)
    ...     np.testing.assert_allclose(drawn.operator.matvec(x), expected, atol=1e-6, rtol=1e-6)
    >>> test_products()
    """
    xp = operator._own_namespace()
    own = ((), operator.batch_shape) if operator.batch_shape else ((),)
    lead = draw(st.sampled_from(own) if batch is None else _as_strategy(batch))
    width = () if columns is None else (draw(_as_strategy(columns)),)
    name = "float64" if operator.dtype is None else dtype_name(operator.dtype)
    is_half = name not in DTYPES
    seed = draw(st.integers(0, 2**32 - 1))
    v = Vectors(seed, "float32" if is_half else name, is_simple=seed == 0)
    values = v(*lead, operator.shape[0 if adjoint else 1], *width)
    array = xp.asarray(values, device=operator.device)
    return xp.astype(array, operator.dtype) if is_half else array


# How they are drawn


def samples(kinds: Sequence[Kind], **options: Unpack[SampleOptions]) -> st.SearchStrategy[Sample]:
    """Draw a function that makes operators of some kinds on any library, with their matrix."""
    conditioning = options.get("conditioning")
    limit = None if conditioning is None else positive(conditioning, "operators", "conditioning")
    if limit is not None and limit < 1:
        raise ArgumentValueError("operators", "conditioning", f"must be at least 1, got {limit}")
    dtype, shape, batch = options.get("dtype"), options.get("shape"), options.get("batch")
    return _samples(
        kinds,
        st.sampled_from(DTYPES) if dtype is None else _as_strategy(dtype),
        st.none() if shape is None else _as_strategy(shape),
        st.sampled_from(BATCHES) if batch is None else _as_strategy(batch),
        limit,
        needs_batch=batch is not None,
    )


def _as_strategy(option: Option[_Value]) -> st.SearchStrategy[_Value]:
    return option if isinstance(option, st.SearchStrategy) else st.just(option)


def _as_array(library: str | AsArray) -> AsArray:
    """Return what makes arrays of a library."""
    if callable(library):
        return library
    try:
        module = import_module({"jax": "jax.numpy"}.get(library, library))
    except ModuleNotFoundError as error:
        raise ArgumentValueError("operators", "library", f"must be installed, got {library!r}") from error
    return lambda values: module.asarray(np.array(values))


def _drawn(
    kinds: Sequence[Kind], library: Option[str | AsArray] = "numpy", **options: Unpack[SampleOptions]
) -> st.SearchStrategy[DrawnOperator]:
    def made(sample: Sample, library: str | AsArray) -> DrawnOperator:
        return DrawnOperator(sample.make(_as_array(library)), sample.dense)

    return st.builds(made, samples(kinds, **options), _as_strategy(library))


@st.composite
def _samples(
    draw: st.DrawFn,
    kinds: Sequence[Kind],
    dtype: st.SearchStrategy[str],
    shape: st.SearchStrategy[tuple[int, int] | None],
    batch: st.SearchStrategy[tuple[int, ...]],
    limit: float | None,
    *,
    needs_batch: bool,
) -> Sample:
    name, sides, lead = draw(dtype), draw(shape), draw(batch)
    if name not in DTYPES:
        raise ArgumentValueError("operators", "dtype", f"must be one of {', '.join(DTYPES)}, got {name!r}")
    suitable = [
        kind
        for kind in kinds
        if (kind.has_parameters or not (needs_batch and lead))
        and (sides is None or sides[0] == sides[1] or not kind.is_square)
    ]
    if not suitable:
        text = f"must be one that these kinds have, got {sides} for a batch of shape {lead}"
        raise ArgumentValueError("operators", "shape", text)
    kind = draw(st.sampled_from(suitable))
    seed = draw(st.integers(0, 2**32 - 1))
    choices = _Choices(lambda low, high: draw(st.integers(low, high - 1)))
    for attempt in range(_MOST_ATTEMPTS):
        is_simple = seed == attempt == 0
        v = Vectors(seed + attempt, name, lead, integers=choices.again(), shape=sides, is_simple=is_simple)
        sample = kind.draw(v)
        if limit is None or np.all(np.linalg.cond(sample.dense) <= limit):
            return sample
    return reject()


class _Choices:
    """Whole numbers that are drawn once, and given again as often as is asked for."""

    def __init__(self, integers: Callable[[int, int], int]) -> None:
        self.integers = integers
        self.known: list[int] = []

    def again(self) -> Callable[[int, int], int]:
        """Return a function that gives them from the first one on, and draws those that are not known yet."""
        known: Iterable[int] = iter(self.known.copy())

        def integer(low: int, high: int) -> int:
            for number in known:
                return number
            self.known.append(self.integers(low, high))
            return self.known[-1]

        return integer


# Compositions


def _composed(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    """Draw an operator of a shape that is made by at most so many steps."""
    way = v.choice((_part, _transposed, _multiple, _sum, _product, _kronecker, _block)) if steps else _part
    return way(v, shape, steps - 1)


def _part(v: Vectors, shape: tuple[int, int], _: int) -> Sample:
    """Draw one operator of any kind that has the shape."""
    suitable = [
        kind
        for kind in KINDS.values()
        if (shape[0] == shape[1] or not kind.is_square) and (kind.has_parameters or not v.batch)
    ]
    return v.choice(suitable).draw(v.of_shape(shape))


def _two(v: Vectors, first: tuple[int, int], second: tuple[int, int], steps: int) -> tuple[Sample, Sample]:
    """Draw two operators that share the steps."""
    own = v.integer(0, steps + 1)
    return _composed(v, first, own), _composed(v, second, steps - own)


def _product(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    n = v.choice((*shape, 1, 2, 3, 5))
    left, right = _two(v, (shape[0], n), (n, shape[1]), steps)
    return Sample(lambda a: left.make(a) @ right.make(a), left.dense @ right.dense, v.dtype)


def _sum(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    left, right = _two(v, shape, shape, steps)
    if v.chance(0.3):
        return Sample(lambda a: left.make(a) - right.make(a), left.dense - right.dense, v.dtype)
    return Sample(lambda a: left.make(a) + right.make(a), left.dense + right.dense, v.dtype)


def _kronecker(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    (m, p), (n, q) = (v.factors(side, 2) for side in shape)
    left, right = _two(v, (m, n), (p, q), steps)
    return Sample(lambda a: Kronecker(left.make(a), right.make(a)), kronecker_product(left.dense, right.dense), v.dtype)


def _multiple(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    part, factor = _composed(v, shape, steps), v.choice((2.0, -1.0, 0.5))
    return Sample(lambda a: factor * part.make(a), factor * part.dense, v.dtype)


def _transposed(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    part = _composed(v, shape[::-1], steps)
    dense = np.swapaxes(part.dense, -1, -2)
    if v.chance(0.5):
        return Sample(lambda a: part.make(a).H, dense.conj(), v.dtype)
    return Sample(lambda a: part.make(a).T, dense, v.dtype)


def _block(v: Vectors, shape: tuple[int, int], steps: int) -> Sample:
    """Draw the last rows and columns of a larger one."""
    rows, cols = (v.integer(0, 4) for _ in shape)
    whole = _composed(v, (shape[0] + rows, shape[1] + cols), steps)
    return Sample(lambda a: whole.make(a)[rows:, cols:], whole.dense[..., rows:, cols:], v.dtype)
