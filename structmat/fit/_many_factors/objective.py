"""The error of a chain of any number of factors and its gradient, by transforms: what first-order solvers need.

A chain is laid out by a `Layout`; its parameters are its vectors, left to right, in one array. A circulant is held as
``sqrt(n)`` times its first column, which has the norm of its spectrum: diagonals of signs and circulants of
unit-modulus spectrum then have entries of one size, and one step size suits all parameters. A leading axis of the
parameters holds independent chains.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import scipy  # its `fft` is imported on first use

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["First", "Layout", "Objective", "balanced", "norms2"]

First: TypeAlias = Literal["diagonal", "circulant"]

# Rows that are carried along the chain together, with all that the backward pass needs of them, take this much memory:
# few enough calls, and still in the cache.
_CHUNK_BYTES = 1 << 21
# Up to this side one dense product costs little, and loses no small entries.
_DIRECT_SIDE = 512


@dataclass(frozen=True)
class Layout:
    """The kinds of the factors of a square chain, left to right."""

    n: int
    n_factors: int
    first: First = "diagonal"

    @property
    def diagonal(self) -> list[bool]:
        """Whether each factor is diagonal, left to right."""
        return [(k % 2 == 0) == (self.first == "diagonal") for k in range(self.n_factors)]

    def from_vectors(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the parameters of chains given by diagonals and first columns, (..., F, n)."""
        return vectors * self._scales(vectors)

    def to_vectors(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return diagonals and first columns, (..., F, n)."""
        return parameters / self._scales(parameters)

    @property
    def vector_shapes(self) -> list[tuple[int, ...]]:
        """Shape of the vector of each factor."""
        return [(self.n,)] * self.n_factors

    @property
    def least(self) -> int:
        """The fewest factors of such a chain."""
        return 1

    def balanced(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return parameters of the same product with factors of one size; zeros if a factor is zero."""
        return balanced(parameters)

    def dense(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return the product of one chain, (F, n), as a dense matrix."""
        chains = parameters[None]
        rows = np.eye(self.n, dtype=parameters.dtype)
        return _apply(self, chains, _acting(self, chains), rows, lambda _: None)[0].T

    def _scales(self, like: NDArray[Any]) -> NDArray[Any]:
        return np.where(self.diagonal, 1.0, np.sqrt(self.n))[:, None].astype(like.real.dtype)


def balanced(parameters: NDArray[Any]) -> NDArray[Any]:
    """Return parameters (F, n) of the same product with factors of equal norm; zeros if a factor is zero."""
    norms = np.linalg.norm(parameters, axis=-1, keepdims=True).astype(np.float64)
    if not norms.all():
        return np.zeros_like(parameters)
    shares = np.exp(np.mean(np.log(norms)) - np.log(norms))
    return parameters * shares.astype(parameters.real.dtype)


class Objective:
    """``norm(target - P @ inputs)**2 / norm(target)**2`` of the product `P` of a chain, and its gradient.

    Everything is held transposed, as rows that the factors act on from the right to the left of the chain. A factor
    is then a scaling of, or a convolution along, the contiguous axis, and rows are independent of one another: they
    are handled in chunks, so that memory is that of the matrices themselves and a few chunks.

    Parameters
    ----------
    layout : Layout
    target : (n, k) ndarray
        Not zero. Its dtype is that of the computation.
    inputs : (n, k) ndarray, optional
        The identity by default.
    """

    def __init__(self, layout: Layout, target: NDArray[Any], inputs: NDArray[Any] | None = None) -> None:
        self.layout = layout
        self._target = np.ascontiguousarray(target.T)
        self._inputs = None if inputs is None else np.ascontiguousarray(inputs.T)
        self._norm2 = float(np.sum(norms2(self._target)))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of target, parameters and gradients."""
        return self._target.dtype

    @property
    def target(self) -> NDArray[Any]:
        """The matrix that is fitted."""
        return self._target.T

    @property
    def inputs(self) -> NDArray[Any] | None:
        """What its columns are combined with, None for the identity."""
        return None if self._inputs is None else self._inputs.T

    @property
    def weighted(self) -> bool:
        """Whether the inputs are other than the identity."""
        return self._inputs is not None

    def astype(self, dtype: np.dtype[Any]) -> Objective:
        """Return the same problem in another precision."""
        if dtype == self.dtype:
            return self
        inputs = None if self._inputs is None else self._inputs.astype(dtype).T
        return type(self)(self.layout, self._target.astype(dtype).T, inputs)

    def of(self, layout: Layout) -> Objective:
        """Return the same problem for another chain; shares the matrices."""
        other = object.__new__(type(self))
        other.layout, other._target, other._inputs, other._norm2 = layout, self._target, self._inputs, self._norm2
        return other

    def error(self, parameters: NDArray[Any]) -> float:
        """Return the relative error of one chain, (F, n).

        Up to a side of 512 by dense products: transforms lose the small entries of a circulant beside large ones, which
        large entries of the next factor may bring back.
        """
        if self.layout.n <= _DIRECT_SIDE:
            return float(np.sqrt(float(np.sum(norms2(self._direct(parameters) - self._target))) / self._norm2))
        chains = parameters[None]
        acting = _acting(self.layout, chains)

        def part(rows: slice) -> float:
            out = _apply(self.layout, chains, acting, self._rows_of_inputs(rows), lambda _: None)
            return float(np.sum(norms2(out[0] - self._target[rows])))

        return float(np.sqrt(sum(self._over_chunks(part, chains)) / self._norm2))

    def _direct(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return the transposed product of one chain with the inputs, its circulants written out."""
        n, vectors = self.layout.n, self.layout.to_vectors(parameters)
        x = np.eye(n, dtype=self.dtype) if self._inputs is None else self._inputs
        lags = (np.arange(n) - np.arange(n)[:, None]) % n
        for vector, diagonal in zip(vectors[::-1], self.layout.diagonal[::-1], strict=True):
            x = x * vector if diagonal else x @ vector[lags]
        return x

    def value_and_gradient(self, parameters: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return squared relative errors (B,) of chains (B, F, n) and their gradients.

        A gradient of complex parameters holds the derivatives for their real and imaginary parts.
        """
        layout = self.layout
        circulant = np.logical_not(layout.diagonal)
        root = parameters.real.dtype.type(np.sqrt(layout.n))
        acting = _acting(layout, parameters)

        def part(rows: slice) -> tuple[NDArray[np.float64], list[NDArray[Any]]]:
            with np.errstate(over="ignore", invalid="ignore"):  # a chain may be lost on the way; its error tells
                return self._part(parameters, acting, rows)

        values, sums = zip(*self._over_chunks(part, parameters), strict=True)
        total = [sum(of_factor[1:], start=of_factor[0]) for of_factor in zip(*sums, strict=True)]
        gradient = np.empty_like(parameters)
        for k in np.flatnonzero(layout.diagonal):
            gradient[:, k] = total[k]
        if circulant.any():
            spectra = np.stack([total[k] for k in np.flatnonzero(circulant)], axis=1)
            gradient[:, circulant] = _backward(spectra, parameters) / root
        gradient *= parameters.real.dtype.type(2.0 / self._norm2)
        return sum(values[1:], start=values[0]) / self._norm2, gradient

    def _part(
        self, parameters: NDArray[Any], acting: list[NDArray[Any]], rows: slice
    ) -> tuple[NDArray[np.float64], list[NDArray[Any]]]:
        """Squared norms of the residual of some rows, and half its gradients, circulants' transformed."""
        layout = self.layout
        kept: list[NDArray[Any]] = []
        residual = _apply(layout, parameters, acting, self._rows_of_inputs(rows), kept.append)
        residual -= self._target[rows]
        values = norms2(residual.reshape(len(parameters), -1))
        gradients = []
        for k, diagonal in enumerate(layout.diagonal):
            x = kept.pop()
            conj = np.conj(x, out=x) if np.iscomplexobj(x) else x
            spectra = residual if diagonal else _forward(residual)
            gradients.append(np.einsum("bri,bri->bi", conj, spectra))
            if k + 1 < layout.n_factors:
                spectra *= acting[k].conj()
                residual = spectra if diagonal else _backward(spectra, parameters)
        return values, gradients

    def _rows_of_inputs(self, rows: slice) -> NDArray[Any]:
        if self._inputs is not None:
            return self._inputs[rows]
        start, stop, _ = rows.indices(self.layout.n)
        return np.eye(stop - start, self.layout.n, start, dtype=self.dtype)

    def _height(self, parameters: NDArray[Any]) -> int:
        """Rows of a chunk."""
        return max(1, _CHUNK_BYTES // self._row_bytes(parameters))

    def _row_bytes(self, parameters: NDArray[Any]) -> int:
        """Memory that one row takes along the chain."""
        return parameters.nbytes

    def _over_chunks(self, part: Callable[[slice], Any], parameters: NDArray[Any]) -> list[Any]:
        """Apply `part` to slices of the rows, by threads; they depend on the problem only, and so does the sum."""
        count = len(self._target)
        height = self._height(parameters)
        chunks = [slice(i, min(i + height, count)) for i in range(0, count, height)]
        if len(chunks) == 1:
            return [part(chunks[0])]
        with ThreadPoolExecutor(min(len(chunks), os.cpu_count() or 1)) as pool:
            return list(pool.map(part, chunks))


def _acting(layout: Layout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return what rows are multiplied with for each factor, (B, 1, n): diagonals and, after a transform, spectra."""
    acting = [parameters[:, k, None, :] for k in range(layout.n_factors)]
    circulant = np.logical_not(layout.diagonal)
    if circulant.any():
        spectra = _forward(parameters[:, circulant]) / parameters.real.dtype.type(np.sqrt(layout.n))
        for j, k in enumerate(np.flatnonzero(circulant)):
            acting[k] = spectra[:, j, None, :]
    return acting


def _apply(
    layout: Layout,
    parameters: NDArray[Any],
    acting: list[NDArray[Any]],
    rows: NDArray[Any],
    keep: Callable[[NDArray[Any]], object],
) -> NDArray[Any]:
    """Return the products (B, rows, n) with `rows`.

    What each factor acts on goes to `keep`; what a circulant acts on is transformed before.
    """
    x = np.repeat(rows[None], len(parameters), axis=0)
    for k in reversed(range(layout.n_factors)):
        if layout.diagonal[k]:
            keep(x)
            x = x * acting[k]
        else:
            spectra = _forward(x)
            keep(spectra)
            x = _backward(spectra * acting[k], parameters)
    return x


def _forward(rows: NDArray[Any]) -> NDArray[Any]:
    transformed: NDArray[Any] = scipy.fft.fft(rows) if np.iscomplexobj(rows) else scipy.fft.rfft(rows)
    return transformed


def _backward(spectra: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    n = like.shape[-1]
    rows: NDArray[Any] = (
        scipy.fft.ifft(spectra, overwrite_x=True)
        if np.iscomplexobj(like)
        else scipy.fft.irfft(spectra, n=n, overwrite_x=True)
    )
    return rows


def norms2(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Squared norms along the last axis."""
    sums: NDArray[np.float64] = np.vecdot(rows, rows).real.astype(np.float64)
    return sums
