"""The error of a chain of diagonals and block circulants, on any grid of blocks, and its gradient by transforms.

As in `objective`, rows are carried along the chain from right to left; a block circulant is one small matrix per
frequency. Vectors have different lengths here, so the parameters of a chain are one flat vector, its factors' left to
right. A block circulant is held as the square root of its longer side times its first columns: entries are then of
size one where the matrices of all frequencies have orthonormal rows or columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `fft` is imported on first use

from structmat.fit._many_factors import objective
from structmat.fit._many_factors.objective import Layout, Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BlockLayout", "BlockObjective", "block_layout"]

# Grids of no more blocks are gone through block by block, larger ones by a matrix product per frequency.
_FEW_BLOCKS = 16
# Chunks of fewer rows would spend their time on the sums of the gradients, as large as the parameters.
_LEAST_ROWS = 32


@dataclass(frozen=True)
class BlockLayout(Layout):
    """The factors of a chain D B D ... D of diagonals and block circulants.

    One block circulant has the shape of the whole, all others are square with its smaller side: they are on the right
    of it if the whole is tall, on the left if it is wide. Of the fields of `Layout`, `n` is the side of a square with
    as many entries, and the first factor is diagonal.
    """

    shape: tuple[int, int] = (1, 1)
    block_size: int = 1

    @property
    def least(self) -> int:
        """The fewest factors of such a chain."""
        return 3

    @property
    def tall(self) -> bool:
        """Whether square factors are on the right."""
        return self.shape[0] >= self.shape[1]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of each factor."""
        small = min(self.shape)
        squares = [(small, small)] * (self.n_factors - 3)
        rows, cols = self.shape
        main = [(rows, rows), (rows, cols), (cols, cols)]
        return main + squares if self.tall else squares + main

    @property
    def vector_shapes(self) -> list[tuple[int, ...]]:
        """Shape of the vector of each factor: (n,), or blocks and their side."""
        m = self.block_size
        return [
            (rows,) if diagonal else (-(-rows // m), -(-cols // m), m)
            for diagonal, (rows, cols) in zip(self.diagonal, self.shapes, strict=True)
        ]

    @property
    def n_parameters(self) -> int:
        """The length of a flat vector of parameters."""
        return sum(math.prod(shape) for shape in self.vector_shapes)

    def split(self, parameters: NDArray[Any]) -> list[NDArray[Any]]:
        """Return views (..., *shape) of the parameters of each factor."""
        shapes = self.vector_shapes
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = np.split(parameters, ends[:-1], axis=-1)
        return [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]

    def join(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the flat parameters of those of each factor, the inverse of `split`."""
        flat = [
            part.reshape(*part.shape[: part.ndim - len(shape)], math.prod(shape))
            for part, shape in zip(parts, self.vector_shapes, strict=True)
        ]
        return np.concatenate(flat, axis=-1)

    def from_vectors(self, vectors: Any) -> NDArray[Any]:
        """Return the parameters of a chain given by diagonals and first columns."""
        return self.join([v * v.real.dtype.type(s) for v, s in zip(vectors, self.scales, strict=True)])

    def to_vectors(self, parameters: NDArray[Any]) -> Any:
        """Return a list of diagonals and first columns."""
        parts = self.split(parameters)
        return [part / part.real.dtype.type(s) for part, s in zip(parts, self.scales, strict=True)]

    def balanced(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return parameters of the same product, entries of one root mean square in all factors; zeros if one is."""
        parts = self.split(parameters)
        sizes = np.array([float(np.linalg.norm(part)) / np.sqrt(part.size) for part in parts])
        if not sizes.all():
            return np.zeros_like(parameters)
        shares = np.exp(np.mean(np.log(sizes)) - np.log(sizes)).astype(parameters.real.dtype)
        return self.join([part * share for part, share in zip(parts, shares, strict=True)])

    def dense(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Return the product of one chain as a dense matrix."""
        chains = parameters[None]
        rows = np.eye(self.shape[1], dtype=parameters.dtype)
        return _apply(self, _acting(self, chains), rows[None], lambda _: None)[0].T

    @property
    def scales(self) -> list[float]:
        """How many times its vector the parameters of each factor are."""
        return [
            1.0 if diagonal else math.sqrt(max(shape[:2]) * shape[2])
            for diagonal, shape in zip(self.diagonal, self.vector_shapes, strict=True)
        ]


def block_layout(shape: tuple[int, int], block_size: int, n_factors: int) -> BlockLayout:
    """Return the layout of a rectangle."""
    side = max(1, math.isqrt(shape[0] * shape[1]))
    return BlockLayout(side, n_factors, "diagonal", shape, block_size)


class BlockObjective(Objective):
    """The same as `Objective`, of chains with a `BlockLayout`, whose parameters are (B, N)."""

    layout: BlockLayout

    def error(self, parameters: NDArray[Any]) -> float:
        """Return the relative error of one chain, (N,)."""
        chains = parameters[None]
        acting = _acting(self.layout, chains)

        def part(rows: slice) -> float:
            out = _apply(self.layout, acting, self._rows_of_inputs(rows)[None], lambda _: None)
            return float(np.sum(objective.norms2(out[0] - self._target[rows])))

        return float(np.sqrt(sum(self._over_chunks(part, chains)) / self._norm2))

    def value_and_gradient(self, parameters: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return squared relative errors (B,) of chains (B, N) and their gradients."""
        layout = self.layout
        acting = _acting(layout, parameters)

        def part(rows: slice) -> tuple[NDArray[np.float64], list[NDArray[Any]]]:
            with np.errstate(over="ignore", invalid="ignore"):  # a chain may be lost on the way; its error tells
                return self._part(parameters, acting, rows)

        values, sums = zip(*self._over_chunks(part, parameters), strict=True)
        total = [sum(of_factor[1:], start=of_factor[0]) for of_factor in zip(*sums, strict=True)]
        real = not np.iscomplexobj(parameters)
        for k, (diagonal, scale) in enumerate(zip(layout.diagonal, layout.scales, strict=True)):
            if not diagonal:
                total[k] = _backward(total[k], layout.block_size, real=real) / parameters.real.dtype.type(scale)
        gradient = layout.join(total) * parameters.real.dtype.type(2.0 / self._norm2)
        return sum(values[1:], start=values[0]) / self._norm2, gradient.astype(parameters.dtype, copy=False)

    def _part(
        self, parameters: NDArray[Any], acting: list[NDArray[Any]], rows: slice
    ) -> tuple[NDArray[np.float64], list[NDArray[Any]]]:
        layout, m = self.layout, self.layout.block_size
        kept: list[NDArray[Any]] = []
        x = np.repeat(self._rows_of_inputs(rows)[None], len(parameters), axis=0)
        residual = _apply(layout, acting, x, kept.append)
        residual -= self._target[rows]
        values = objective.norms2(residual.reshape(len(parameters), -1))
        gradients = []
        for k, (diagonal, (_, cols)) in enumerate(zip(layout.diagonal, layout.shapes, strict=True)):
            x = kept.pop()
            if diagonal:
                gradients.append(np.einsum("bri,bri->bi", x.conj(), residual))
                residual = residual * acting[k].conj()[:, None]
                continue
            spectra = _forward(residual, m)
            gradients.append(_correlated(spectra, x))
            spectra = _combined(spectra, acting[k].conj().swapaxes(1, 2))
            residual = _cropped(_backward(spectra, m, real=not np.iscomplexobj(parameters)), cols)
        return values, gradients

    def _rows_of_inputs(self, rows: slice) -> NDArray[Any]:
        if self._inputs is not None:
            return self._inputs[rows]
        start, stop, _ = rows.indices(len(self._target))
        return np.eye(stop - start, self.layout.shape[1], start, dtype=self.dtype)

    def _row_bytes(self, parameters: NDArray[Any]) -> int:
        carried = sum(cols for _, cols in self.layout.shapes)
        return len(parameters) * carried * parameters.itemsize

    def _height(self, parameters: NDArray[Any]) -> int:
        return max(_LEAST_ROWS, super()._height(parameters))


def _acting(layout: BlockLayout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return what rows are multiplied with for each factor: diagonals (B, n), or spectra of blocks (B, p, q, f)."""
    return [
        part if diagonal else _transform(part) / part.real.dtype.type(scale)
        for part, diagonal, scale in zip(layout.split(parameters), layout.diagonal, layout.scales, strict=True)
    ]


def _apply(
    layout: BlockLayout, acting: list[NDArray[Any]], x: NDArray[Any], keep: Callable[[NDArray[Any]], object]
) -> NDArray[Any]:
    """Return the products (B, rows, n) with rows `x`; what each factor acts on goes to `keep`, as in `objective`."""
    real = not np.iscomplexobj(x)
    for k in reversed(range(layout.n_factors)):
        if layout.diagonal[k]:
            keep(x)
            x = x * acting[k][:, None]
        else:
            spectra = _forward(x, layout.block_size)
            keep(spectra)
            blocks = _backward(_combined(spectra, acting[k]), layout.block_size, real=real)
            x = _cropped(blocks, layout.shapes[k][0])
    return x


def _combined(spectra: NDArray[Any], blocks: NDArray[Any]) -> NDArray[Any]:
    """``sum_q blocks[b, p, q, f] * spectra[b, r, q, f]``, of shape (B, r, p, f)."""
    _, p, q, _ = blocks.shape
    if p * q > _FEW_BLOCKS:
        left = np.ascontiguousarray(spectra.transpose(0, 3, 1, 2))
        product = left @ np.ascontiguousarray(blocks.transpose(0, 3, 2, 1))
        return np.ascontiguousarray(product.transpose(0, 2, 3, 1))
    if q == 1:
        outer: NDArray[Any] = spectra * blocks[:, None, :, 0]
        return outer
    out = spectra[:, :, :1] * blocks[:, None, :, 0]
    for j in range(1, q):
        out += spectra[:, :, j : j + 1] * blocks[:, None, :, j]
    return out


def _correlated(spectra: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """``sum_r spectra[b, r, p, f] * conj(x[b, r, q, f])``, of shape (B, p, q, f)."""
    p, q = spectra.shape[2], x.shape[2]
    if p * q > _FEW_BLOCKS:
        left = np.ascontiguousarray(spectra.transpose(0, 3, 2, 1))
        return (left @ np.ascontiguousarray(x.transpose(0, 3, 1, 2)).conj()).transpose(0, 2, 3, 1)
    conj = x.conj()
    sums = [[np.einsum("brf,brf->bf", spectra[:, :, i], conj[:, :, j]) for j in range(q)] for i in range(p)]
    return np.stack([np.stack(row, axis=1) for row in sums], axis=1)


def _forward(rows: NDArray[Any], m: int) -> NDArray[Any]:
    """Spectra (B, r, q, f) of the blocks of rows (B, r, n), the last one padded with zeros."""
    *lead, n = rows.shape
    blocks = -(-n // m)
    if blocks * m != n:
        padded = np.zeros((*lead, blocks * m), dtype=rows.dtype)
        padded[..., :n] = rows
        rows = padded
    return _transform(rows.reshape(*lead, blocks, m))


def _transform(blocks: NDArray[Any]) -> NDArray[Any]:
    spectra: NDArray[Any] = scipy.fft.fft(blocks) if np.iscomplexobj(blocks) else scipy.fft.rfft(blocks)
    return spectra


def _backward(spectra: NDArray[Any], m: int, *, real: bool) -> NDArray[Any]:
    blocks: NDArray[Any] = (
        scipy.fft.irfft(spectra, n=m, overwrite_x=True) if real else scipy.fft.ifft(spectra, overwrite_x=True)
    )
    return blocks


def _cropped(blocks: NDArray[Any], n: int) -> NDArray[Any]:
    """Rows (B, r, n) of their blocks (B, r, p, m)."""
    return blocks.reshape(*blocks.shape[:-2], -1)[..., :n]
