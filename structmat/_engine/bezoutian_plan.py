"""Products with inverses of Toeplitz matrices: a correlation and a convolution of two pairs of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays import concat_last, device_of, is_complex, reversed_cyclically
from structmat._arrays.typing import Array, Namespace
from structmat._engine.engines import Settings, method_for
from structmat._engine.lengths import fast_length
from structmat._engine.measured_choices import PLAIN
from structmat._engine.numpy_convolutions import transforms
from structmat._engine.plan import ChunkedPlan, Step
from structmat._engine.transforms import from_spectrum, spectrum

__all__ = ["Bezoutian", "bezoutian"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Bezoutian(ChunkedPlan):
    """The sum of two products, each of a lower and an upper triangular Toeplitz matrix, by their spectra."""

    _core_axes = {"lower_x": 1, "upper_x": 1, "lower_y": 1, "upper_y": 1}

    lower_x: Any
    upper_x: Any
    """Half spectra (`real`) or full spectra of the first product."""
    lower_y: Any
    upper_y: Any
    """Those of the second one."""
    n: int
    length: int
    """The length of transforms, at least 2 n - 1."""
    is_real: bool
    settings: Settings
    flips: tuple[bool, bool]
    """Whether the rows and the columns are in reverse order."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.lower_x.ndim > 1 or self.lower_y.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.length

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: six transforms, where a convolution has two."""
        return 3.0 * self.length

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        method = method_for(self.settings.engine, dtype, self.length, batched=batched)
        forward, backward = transforms(PLAIN.get(method, method), self.length, real=self.is_real)
        flipped_rows, flipped_cols = self.flips

        def step(x: Any, out: Any) -> Any:
            X = forward(x[..., ::-1] if flipped_cols else x)
            total = forward(backward(X * self.upper_x)[..., : self.n])
            total *= self.lower_x
            X *= self.upper_y
            X = forward(backward(X)[..., : self.n])
            X *= self.lower_y
            total += X
            y = backward(total)[..., : self.n]
            y = y[..., ::-1] if flipped_rows else y
            if out is None:
                return y.copy()  # which keeps no memory of the entries cut off
            out[...] = y
            return out

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        rows, cols = self.flips
        X = spectrum(xp.flip(x, axis=-1) if cols else x, xp, real=self.is_real, n=self.length)
        y = from_spectrum(
            self.lower_x * self._cut(self.upper_x * X, xp) + self.lower_y * self._cut(self.upper_y * X, xp),
            self.length,
            xp,
            real=self.is_real,
        )[..., : self.n]
        return xp.flip(y, axis=-1) if rows else y

    def _cut(self, product: Array, xp: Namespace) -> Array:
        """Return the spectrum of the first n entries."""
        head = from_spectrum(product, self.length, xp, real=self.is_real)[..., : self.n]
        return spectrum(head, xp, real=self.is_real, n=self.length)

    def transpose(self) -> Bezoutian:
        """Return the plan of the transpose: the matrix itself with rows and columns in reverse order."""
        rows, cols = self.flips
        return self._with(self._spectra(), (not cols, not rows))

    def conj(self) -> Bezoutian:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        return self._with([reversed_cyclically(xp.conj(s), xp) for s in self._spectra()], self.flips)

    def _spectra(self) -> list[Any]:
        return [self.lower_x, self.upper_x, self.lower_y, self.upper_y]

    def _with(self, spectra: list[Any], flips: tuple[bool, bool]) -> Bezoutian:
        a, b, c, d = spectra
        return Bezoutian(a, b, c, d, self.n, self.length, self.is_real, self.settings, flips)


def bezoutian(x: Array, y: Array, settings: Settings, xp: Namespace, *, flips: tuple[bool, bool]) -> Bezoutian:
    """Return the plan of the matrix ``L(x) U(1, -y[n-1], ..., -y[1]) + L(y) U(0, x[n-1], ..., x[1])``.

    L and U are the lower and upper triangular Toeplitz matrices with that first column and first row.
    """
    n, real = x.shape[-1], not is_complex(x.dtype, xp)
    length = fast_length(2 * n - 1)

    def upper(first: float, tail: Array) -> Array:
        """Return the first column of the circulant that has U in its corner."""
        one = xp.full(1, first, dtype=tail.dtype, device=device_of(tail))
        gap = xp.zeros(length - n, dtype=tail.dtype, device=device_of(tail))
        return concat_last([one, gap, tail], xp)

    vectors = (x, upper(1.0, -y[..., 1:]), y, upper(0.0, x[..., 1:]))
    a, b, c, d = (spectrum(v, xp, real=real, n=length) for v in vectors)
    return Bezoutian(a, b, c, d, n, length, real, settings, flips)
