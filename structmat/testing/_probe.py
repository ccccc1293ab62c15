"""What every law gets: an operator as a view, vectors from a seed, and comparisons that know what rounding may do."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from structmat.operators import LinearOperator
from structmat.testing._matrix_laws import Pair, norm_of
from structmat.testing._views import View, values_of

Values: TypeAlias = np.ndarray[Any, Any]
"""Values of an array of any library, as NumPy has them."""

MOST_ROWS = 128
"""The most rows and columns of an operator whose matrix is written out, by one product for each column."""
_MOST_ENTRIES = 2**18
"""The most entries of a stack of matrices that is written out."""

_SHARED = 2
"""How many vectors of each side all laws multiply, and so how many products are kept."""
_LEAST_NUMBERS = 32
"""Of how many random numbers at least the norm is estimated: of a few all may be small."""

ROUNDING = {True: 1e-5, False: 1e-13}
"""How far results may be off in single precision and in double, before the number of terms counts."""


def inner(u: Values, v: Values) -> Any:
    """Return inner products along the last axis, in double precision; u is the vector that is conjugated."""
    double = np.result_type(u, v, np.float64)
    return np.sum(np.conj(u.astype(double)) * v.astype(double), axis=-1)


class LawError(AssertionError):
    """A law that does not hold, in one line."""


class Probe:
    """An operator and vectors from one seed, on which laws ask for products and compare them.

    The tolerance is that of sums: one of k rounded products has an error of about sqrt(k) times the machine epsilon
    times the sum of the moduli, and that is at most ``|A| |x|`` in Frobenius and Euclidean norms. The Frobenius norm
    is what ``|A x|`` is in the mean over vectors of random numbers of mean square one; the largest of those that were
    multiplied stands for it.
    """

    def __init__(self, view: View, dense: Values | None, seed: int, rtol: float | None) -> None:
        self.view, self.given, self.seed = view, dense, seed
        self.single = view.dtype in {"float32", "complex64"}
        self.complex = view.forces_complex or (view.dtype or "").startswith("complex")
        self.rtol = ROUNDING[self.single] if rtol is None else rtol
        self.given_rtol = rtol
        self.rng = np.random.default_rng(seed)
        self._vectors: dict[tuple[str, int], Values] = {}
        self._products: dict[int, Values] = {}
        self._count = {"right": 0, "left": 0}
        self.size = max(*view.shape, 1)
        self.growth = float(np.sqrt(self.size))

    def start(self, law: str) -> None:
        """Draw from now on what this law draws, whichever laws came before."""
        self._count = {"right": 0, "left": 0}
        self.rng = np.random.default_rng((self.seed, zlib.crc32(law.encode())))

    @property
    def operator(self) -> LinearOperator:
        """The operator of structmat."""
        assert self.view.operator is not None  # noqa: S101  # laws of the package's own operators alone ask
        return self.view.operator

    # Vectors

    def drawn(self, *shape: int, imaginary: bool = False) -> Values:
        """Return random numbers of the precision of the operator, complex where it or the law is.

        They are uniform, of mean square one, since normal ones of large vectors take as long as products.
        """
        imaginary = imaginary or (self.complex and not self.view.forces_complex)
        values = self.rng.uniform(-(3**0.5), 3**0.5, shape)
        if imaginary:
            values = values + 1j * self.rng.uniform(-(3**0.5), 3**0.5, shape)
        single = "complex64" if imaginary else "float32"
        return values.astype(single) if self.single else values

    def right(self, *columns: int, imaginary: bool = False) -> Values:
        """Return a vector for A from the right, one for each matrix of a stack, or columns.

        The first vectors are the same for all laws, so that their products are computed once.
        """
        return self._vector("right", self.view.shape[1], columns, imaginary=imaginary)

    def left(self, *columns: int, imaginary: bool = False) -> Values:
        """Return the same for A from the left."""
        return self._vector("left", self.view.shape[0], columns, imaginary=imaginary)

    def _vector(self, side: str, length: int, columns: tuple[int, ...], *, imaginary: bool) -> Values:
        if not columns and not imaginary and self._count[side] < _SHARED:
            self._count[side] += 1
            return self._shared(side, length, self._count[side] - 1)
        return self.drawn(*self.view.batch_shape, length, *columns, imaginary=imaginary)

    def _shared(self, side: str, length: int, index: int) -> Values:
        """Return one of the vectors that all laws multiply."""
        if (side, index) not in self._vectors:
            state, self.rng = self.rng, np.random.default_rng((self.seed, index, zlib.crc32(side.encode())))
            vector = self.drawn(*self.view.batch_shape, length)
            self.rng = state
            vector.flags.writeable = False
            self._vectors[side, index] = vector
        return self._vectors[side, index]

    def conj(self, x: Values) -> Values:
        """Return the conjugate, of real numbers themselves."""
        return np.conj(x) if np.iscomplexobj(x) else x

    # Products, whose shapes, dtypes and values are checked

    def times(self, x: Values, function: Callable[[Any], Any] | None = None, what: str = "A x") -> Values:
        """Return A x, or what another function returns that maps vectors as A does."""
        shape = self._shape(x, self.view.shape[0])
        if function is not None:
            return self.result(what, function, x, shape)
        return self._once("right", x, lambda: self.result(what, self.view.matvec, x, shape))

    def adjoint_times(self, y: Values, function: Callable[[Any], Any] | None = None, what: str = "A^H y") -> Values:
        """Return A^H y, or what another function returns that maps vectors as A^H does."""
        given = function or self.view.rmatvec
        assert given is not None  # noqa: S101  # the laws that ask for it need it
        shape = self._shape(y, self.view.shape[1])
        if function is not None:
            return self.result(what, given, y, shape)
        return self._once("left", y, lambda: self.result(what, given, y, shape))

    def _once(self, side: str, x: Values, product: Callable[[], Values]) -> Values:
        """Return a product, which is kept if all laws multiply this vector."""
        if not any(x is self._vectors.get((side, index)) for index in range(_SHARED)):
            return product()
        if id(x) not in self._products:
            kept = np.array(product())
            kept.flags.writeable = False
            self._products[id(x)] = kept
        return self._products[id(x)]

    def _shape(self, x: Values, length: int) -> tuple[int, ...]:
        batch = len(self.view.batch_shape)
        return (*x.shape[:batch], length, *x.shape[batch + 1 :])

    def result(self, what: str, function: Callable[[Any], Any], x: Values, shape: tuple[int, ...] | None) -> Values:
        """Return what a linear function makes of a vector, as NumPy has it, after the checks that need no values."""
        result = function(self.view.array(x))
        values = values_of(result)
        if shape is not None and tuple(np.shape(result)) != shape:
            raise self.fail(f"{what} of {x.dtype} {x.shape} has shape {tuple(np.shape(result))}, not {shape}")
        expected = self._dtype_of_product(x)
        if expected is not None and values.dtype.name != expected:
            raise self.fail(f"{what} of {x.dtype} {x.shape} has dtype {values.dtype}, not {expected}")
        if not np.all(np.isfinite(values)):
            raise self.fail(f"{what} of finite {x.dtype} {x.shape} is not finite")
        return values

    def _dtype_of_product(self, x: Values) -> str | None:
        """Return the name of the dtype of a product; None where nothing is said of it."""
        name = self.view.dtype or "float64"
        if name not in {"float32", "float64", "complex64", "complex128"}:
            return None  # integers and others, which libraries promote by rules of their own
        if not self.view.is_complex_linear:
            return None
        common = np.result_type(np.dtype(name), x.dtype)
        return np.result_type(common, np.complex64).name if self.view.forces_complex else common.name

    # Comparisons

    @cached_property
    def norm(self) -> float:
        """An estimate of the Frobenius norm, by products with random vectors. It is never zero."""
        cols, rows = self.view.shape[1], self.view.shape[0]
        found = [norm_of(self.times(self._shared("right", cols, k))) for k in range(_SHARED)]
        if self.view.rmatvec is not None:
            found += [norm_of(self.adjoint_times(self._shared("left", rows, k))) for k in range(_SHARED)]
        state, self.rng = self.rng, np.random.default_rng((self.seed, 0))
        entries = max(int(np.prod((*self.view.batch_shape, cols))), 1)
        for _ in range(_LEAST_NUMBERS // entries):
            found.append(norm_of(self.times(self.drawn(*self.view.batch_shape, cols))))
        self.rng = state
        scale = float(np.sqrt(2)) if self.complex and not self.view.forces_complex else 1.0
        return float(max(max(found, default=0.0) / scale, np.finfo(float).tiny))

    @property
    def is_in_range(self) -> bool:
        """Whether there are entries, and squares of them are well within the range of numbers."""
        if 0 in (*self.view.batch_shape, *self.view.shape):
            return False
        least = 1e-9 if self.single else 1e-60
        return least < self.norm < 1 / least or self.norm == float(np.finfo(float).tiny)

    def near(self, text: str, actual: Any, expected: Any, *sizes: Any, of: float = 1.0) -> None:
        """Raise an error unless two results agree up to rounding, relative to the operator and to what it multiplied.

        `of` is the norm of a further factor.
        """
        actual, expected = values_of(actual), values_of(expected)
        if actual.shape != expected.shape:
            raise self.fail(f"{text} has shape {actual.shape}, not {expected.shape}")
        off = float(np.max(np.abs(actual - expected), initial=0.0))
        largest = float(np.max(np.abs(expected), initial=0.0))
        allowed = self.rtol * self.growth * (self.norm * of * float(np.prod([norm_of(x) for x in sizes])) + largest)
        if not off <= allowed:
            raise self.fail(f"{text}: off by {off:.2g}")

    def fail(self, text: str) -> LawError:
        """Return the error of a law that does not hold."""
        return LawError(text)

    # Small operators, whose matrix is written out

    @property
    def is_small(self) -> bool:
        """Whether there is a matrix, given or to be written out."""
        entries = int(np.prod((*self.view.batch_shape, *self.view.shape)))
        return self.given is not None or (self.size <= MOST_ROWS and entries <= _MOST_ENTRIES)

    @cached_property
    def dense(self) -> Values:
        """The matrix: the one that was given, or the products with the unit vectors."""
        if self.given is not None:
            return self.given
        unit = np.eye(self.view.shape[1], dtype="float32" if self.single else "float64")
        unit = (
            unit.astype(np.result_type(unit, np.complex64)) if self.complex and not self.view.forces_complex else unit
        )
        batch = self.view.batch_shape
        columns = [self.times(np.broadcast_to(e, (*batch, len(e)))) for e in unit]
        dense = np.stack(columns, axis=-1)
        return dense.astype(np.result_type(dense, np.float64))

    @cached_property
    def pair(self) -> Pair:
        """The operator of structmat beside its matrix."""
        return Pair(self.operator, self.dense, self.rng, self.given_rtol, is_made=self.given is None)
