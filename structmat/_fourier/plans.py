"""Plans of products: a plan computes the products with one matrix, or with each of a stack of them, by transforms.

A plan that serves one family of operators only stands in the file of that family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from structmat._arrays.dtypes import complex_partner, dtype_name, is_complex
from structmat._arrays.libraries import rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.chunks import in_chunks, rows_in_chunk
from structmat._fourier.convolutions import circular_convolution, ducc_convolution
from structmat._fourier.engines import ANY, DUCC_CONVOLUTION, FOUR_STEP, PLAIN, engine_of, method_for, method_for_one
from structmat._fourier.spectra import spectrum
from structmat._parametrised import Parametrised


def reversal(xp: Namespace) -> Callable[[Any], Any]:
    """Return the function that reverses vectors; NumPy's gives a view."""
    return (lambda x: x[..., ::-1]) if xp is numpy_namespace else (lambda x: xp.flip(x, axis=-1))


class Plan(Parametrised, ABC):
    """What computes the products of one matrix, or of a stack of them, with real vectors or with complex ones.

    A plan is a frozen dataclass as an operator is, with its parameters in ``_core_axes``. It has properties `shape` and
    `is_real` (whether it takes real vectors, or complex ones; None where it takes both), and the method `step`.
    """

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, int]:
            """Rows and columns."""

        @property
        def is_real(self) -> bool | None:
            """Whether it takes real vectors (True) or complex ones (False); None where it takes both."""

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        for name, axes in self._core_axes.items():  # noqa: SIM110  # faster
            if getattr(self, name).ndim > axes:
                return True
        return False

    @property
    def width(self) -> int:
        """How many numbers the product with one vector reads and writes at a time."""
        return self.shape[1]

    @property
    def cost(self) -> float:
        """The sum of the lengths of the convolutions of one product; 1 for a plan without convolutions."""
        return 1.0

    @abstractmethod
    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        """Return the products of single vectors, or of batches, of that dtype, prepared for many of them.

        Parameters
        ----------
        xp : namespace
            Of the arrays.
        dtype : str
            The bare name of the dtype of the vectors, such as ``float64``.
        batched : bool
            Whether they come several at a time.

        Returns
        -------
        callable
            Returns the products of its argument along the last axis, as an array of its own. It is given NumPy arrays
            of two axes at most, and as many vectors as fit into the cache, unless the plan is of a stack.
        """

    def product(self, x: Array, xp: Namespace) -> Array:
        """Return a single product of vectors, which are real or complex as `is_real` says.

        Parameters
        ----------
        x : array, shape (..., cols)
            The vectors; of NumPy one vector, unless the plan is of a stack.
        xp : namespace
            Of the arrays.

        Returns
        -------
        array, shape (..., rows)
            The products. Nothing is prepared that only many of them would pay for.
        """
        return self.step(xp, dtype_name(x.dtype), batched=x.ndim > 1)(x)

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, of any vectors.

        Parameters
        ----------
        x : array, shape (..., cols)
            The vectors.
        xp : namespace
            Of the arrays.

        Returns
        -------
        array, shape (..., rows)
            The products.
        """
        if is_complex(x.dtype, xp) == self.is_real:
            if self.is_real:
                return self.apply(xp.real(x), xp) + 1j * self.apply(xp.imag(x), xp)
            x = xp.astype(x, complex_partner(x.dtype, xp))
        if x.ndim == 1 or xp is not numpy_namespace or self.is_stack:
            return self.product(x, xp)
        return in_chunks(self.step(xp, x.dtype.name, batched=True), x, self.shape[0], self.chunk_rows(x.dtype))

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors to give to a step at a time.

        Parameters
        ----------
        dtype : numpy.dtype
            That of the vectors.

        Returns
        -------
        int or None
            None for all.
        """
        return rows_in_chunk(self.width, dtype.itemsize)

    def _method(self, xp: Namespace, dtype: str, length: int, *, batched: bool) -> str:
        """Return the method of transforms of that length for many products."""
        if self.is_stack:
            return ANY
        rules = rules_of(xp)
        if not rules.engine:
            return ANY
        method = method_for(rules.engine, dtype, length, batched=batched)
        if method in FOUR_STEP and not rules.is_eager_on_cpu(self._arrays()[0]):
            return PLAIN[method]
        return method


class PlanByMethod(Plan):
    """A plan whose transforms are all of one length, so that products differ in the method of these alone."""

    if TYPE_CHECKING:
        length: int

    @property
    def width(self) -> int:
        return self.length

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        return self._by(self._method(xp, dtype, self.length, batched=batched), xp)

    def product(self, x: Array, xp: Namespace) -> Array:
        is_one = xp is numpy_namespace and not self.is_stack
        return self._by(method_for_one(self.length) if is_one else ANY, xp)(x)

    @abstractmethod
    def _by(self, method: str, xp: Namespace) -> Callable[[Any], Any]:
        """Return the product by a method of `_fourier.engines`."""


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(PlanByMethod):
    """The leading corner of a circulant matrix whose size is fast to transform."""

    _core_axes = {"kernel": 1, "spectrum": 1}

    kernel: Any
    """The first column of the circulant, or None where the plan was made from its spectrum."""
    spectrum: Any
    """Its half spectrum (`is_real`) or full spectrum, or None until a product needs it."""
    length: int
    """The size of the circulant."""
    is_real: bool
    shape: Any
    """Rows and columns of the corner."""
    flips: tuple[bool, bool] = (False, False)
    """Whether the rows and the columns of the corner are in reverse order, as in a Hankel matrix."""

    @classmethod
    def of(
        cls, kernel: Array, shape: tuple[int, int], xp: Namespace, *, flips: tuple[bool, bool] = (False, False)
    ) -> Convolution:
        """Return the plan of the leading corner, `shape`, of the circulant with first column `kernel`."""
        real = not is_complex(kernel.dtype, xp)
        length = kernel.shape[-1]
        if engine_of(rules_of(xp).engine) == "ducc0":  # ducc0 convolves by the first column itself
            return cls(kernel, None, length, real, shape, flips)
        return cls(None, spectrum(kernel, xp, real=real), length, real, shape, flips)

    @property
    def is_stack(self) -> bool:
        return bool((self.spectrum if self.kernel is None else self.kernel).ndim > 1)

    @property
    def cost(self) -> float:
        return self.length

    def chunk_rows(self, dtype: Any) -> int | None:
        method = method_for("numpy", dtype.name, self.length, batched=True)
        if method == DUCC_CONVOLUTION and self.kernel is not None and self.shape[1] == self.length:
            return None  # chunks gain nothing where neither a copy nor a spectrum of the batch is made
        return rows_in_chunk(self.length, dtype.itemsize)

    def _by(self, method: str, xp: Namespace) -> Callable[[Any], Any]:
        rows = self.shape[0]
        flipped_rows, flipped_cols = self.flips
        if method == DUCC_CONVOLUTION and self.kernel is not None:
            convolve: Callable[[Any], Any] = partial(ducc_convolution, self.kernel)
        else:
            convolve = circular_convolution(method, self._transformed(xp), self.length, xp, real=self.is_real)
        has_all_rows = rows == self.length
        if has_all_rows and not flipped_rows and not flipped_cols:
            return convolve
        reverse = reversal(xp)
        is_view = xp is numpy_namespace and not has_all_rows

        def corner(x: Any) -> Any:
            y = convolve(reverse(x) if flipped_cols else x)[..., :rows]
            y = reverse(y) if flipped_rows else y
            return y.copy() if is_view else y  # the entries that a view leaves out would stay in memory

        return corner

    def _transformed(self, xp: Namespace) -> Array:
        """Return the spectrum; it is computed at the first call and stored."""
        if self.spectrum is None:
            object.__setattr__(self, "spectrum", spectrum(self.kernel, xp, real=self.is_real))
        return self.spectrum
