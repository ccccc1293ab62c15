"""The objective of a search: the error of the products of one layout by their flat parameters, and its gradient.

The vectors of a `CDDLayout` have different lengths, so they stand one after the other in one flat vector. A grid of
circulants is held as ``sqrt(max(p, q) * b)`` times its first columns: entries are then of size one where the matrices
of all frequencies have orthonormal rows or columns, as those of diagonals of signs are, and one step size suits all
parameters. A leading axis of the parameters holds independent products.

To evaluate them, everything is held transposed, as rows that the factors act on from the right to the left of the
product. A diagonal is then a scaling and a circulant a convolution along the contiguous axis, and rows are independent
of one another: they are handled in chunks that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # Its `fft` is imported on first use.
from numpy.lib.stride_tricks import as_strided

from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import padded
from structmat.fit._matrices import most_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import CDDLayout

__all__ = ["Objective"]

_CHUNK_BYTES = 1 << 21
"""So many bytes are taken by the rows that are carried along the product together, with all that the backward pass
needs of them. Then there are few calls, and all of it is still in the cache of a core."""

_LEAST_ROWS = 32
"""With several blocks a chunk has no fewer rows than this. Otherwise most of its time would go into the sums of its
gradients, which are as large as the parameters."""

_PROBES = 8
"""The accuracy of products is estimated with so many random vectors."""


class _Factor(NamedTuple):
    """One factor of the product, and where its parameters stand."""

    diagonal: bool
    """Whether it is a diagonal, and not a grid of circulants."""
    shape: tuple[int, ...]
    """The shape of its vector."""
    place: slice
    """Its part of the flat vector."""
    scale: float
    """The parameters are so many times the vector."""
    rows: int
    """The rows of the factor."""
    cols: int
    """The columns of the factor."""


class Objective:
    """The squared relative error ``norm(target - P @ inputs)**2 / norm(target)**2`` of the products `P` of one layout.

    Parameters
    ----------
    layout : CDDLayout
    target : (rows, k) ndarray
        Not zero. Its dtype is that of the computation, of parameters and of gradients.
    inputs : (cols, k) ndarray, optional
        The identity by default.
    """

    def __init__(self, layout: CDDLayout, target: NDArray[Any], inputs: NDArray[Any] | None = None) -> None:
        self.dtype: np.dtype[Any] = target.dtype
        self.target, self.inputs = target, inputs
        self._target = np.ascontiguousarray(target.T)
        self._inputs = None if inputs is None else np.ascontiguousarray(inputs.T)
        self._norm2 = float(_norms2(target).sum())
        self.layout = layout
        self._factors: list[_Factor] = []
        begin = 0
        for shape, (rows, cols) in zip(layout.vector_shapes, layout.factor_shapes, strict=True):
            end = begin + math.prod(shape)
            scale = math.sqrt(max(shape[:2]) * shape[2]) if len(shape) == 3 else 1.0
            self._factors.append(_Factor(len(shape) == 1, shape, slice(begin, end), scale, rows, cols))
            begin = end
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, factor in enumerate(self._factors):
            if not factor.diagonal:
                groups.setdefault(factor.shape, []).append(k)
        self._circulants = list(groups.values())
        """The places of the circulant factors. Those of one shape are in one group, which is transformed at once."""

    def astype(self, dtype: np.dtype[Any]) -> Objective:
        """Return the same objective in another precision."""
        if dtype == self.dtype:
            return self
        inputs = None if self.inputs is None else self.inputs.astype(dtype)
        return Objective(self.layout, self.target.astype(dtype), inputs)

    # Parameters

    def parameters(self, vectors: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the parameters of the product with these vectors.

        It may have fewer factors: identities are added. All factors get one size.
        """
        whole: Any = self.layout.balanced(self.layout.extended(vectors))
        scaled = [v.reshape(-1) * factor.scale for v, factor in zip(whole, self._factors, strict=True)]
        return np.concatenate(scaled).astype(self.dtype)

    def vectors(self, parameters: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the vectors of one product, in the shapes of the layout."""
        return [
            parameters[factor.place].reshape(factor.shape) / parameters.real.dtype.type(factor.scale)
            for factor in self._factors
        ]

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Each parameter (N,) is so many times an entry of the vectors."""
        return np.concatenate([np.full(math.prod(factor.shape), factor.scale) for factor in self._factors])

    def random(self, count: int, rng: np.random.Generator) -> NDArray[Any]:
        """Return the parameters of random products, which are isometries or their adjoints.

        Diagonals have random signs, or random phases if they are complex. Circulants are orthogonal, and of block
        circulants the matrices of all frequencies have orthonormal rows or columns.
        """
        real, m = self.dtype.kind != "c", self.layout.block_size
        parts: list[NDArray[Any]] = []
        for factor in self._factors:
            if factor.diagonal:
                turns = rng.random((count, *factor.shape))
                parts.append(np.where(turns < 0.5, -1.0, 1.0) if real else np.exp(2j * np.pi * turns))
                continue
            p, q, _ = factor.shape
            size = (count, m // 2 + 1 if real else m, max(p, q), min(p, q))
            spectra = rng.standard_normal(size) + 1j * rng.standard_normal(size)
            if real:  # At these frequencies the spectrum of a real vector is real.
                ends = [0, -1] if m % 2 == 0 else [0]
                spectra[:, ends] = spectra[:, ends].real
            isometry = np.moveaxis(_isometries(spectra), 1, -1)
            isometry = isometry.swapaxes(1, 2) if p < q else isometry
            columns = np.fft.irfft(isometry, n=m) if real else np.fft.ifft(isometry)
            parts.append((columns * factor.scale).reshape(count, math.prod(factor.shape)))
        return np.concatenate(parts, axis=1).astype(self.dtype)

    # Errors

    def error(self, parameters: NDArray[Any], dtype: np.dtype[Any] | None = None) -> float:
        """Return the relative error of the product with the parameters (N,).

        It is computed in the precision of `dtype`, and infinite if the product overflows there.
        """
        products = parameters[None].astype(dtype or self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            acting = self._acting(products)
            lost = 0.0
            for rows in self._chunks(products):
                x = self._rows_of_inputs(rows).astype(products.dtype)
                lost += float(_norms2(self._applied(acting, x[None], [])[0] - self._target[rows]).sum())
        return float(np.sqrt(lost / self._norm2)) if np.isfinite(lost) else np.inf

    def spread(self, parameters: NDArray[Any]) -> float:
        """Return the spread of one product over the norm of the target: rounding errors are proportional to it."""
        if not np.isfinite(parameters).all():
            return float(np.inf)
        product = self.layout.product(self.vectors(parameters.astype(self.dtype)))
        rng = np.random.default_rng(0)
        left = rng.standard_normal((_PROBES, product.shape[0])).astype(self.dtype)
        columns = product.shape[1] if self.inputs is None else self.inputs.shape[1]
        right = rng.standard_normal((_PROBES, columns)).astype(self.dtype)
        right = right if self.inputs is None else right @ self.inputs.T
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return float(np.exp(product._log_spread(right, left) - 0.5 * np.log(self._norm2)))

    def allowed_spread(self, start: NDArray[Any], dtype: np.dtype[Any]) -> float:
        """Return the largest spread that products made from a start may have; the start may keep its own."""
        return max(most_spread(dtype), self.spread(start))

    def value_and_gradient(self, parameters: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return squared relative errors (B,) of products (B, N) and their gradients.

        A gradient of complex parameters holds the derivatives for their real and imaginary parts.
        """
        acting, trailing = self._acting(parameters), self._trailing(parameters)
        values, total = np.zeros(len(parameters)), [np.zeros_like(x) for x in acting]
        # A product may be lost to an overflow on the way; its error tells.
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in self._chunks(parameters):
                values += self._add_part(acting, trailing, rows, total)
        gradient = np.empty_like(parameters)
        for factor, of_factor in zip(self._factors, total, strict=True):
            if factor.diagonal:
                gradient[:, factor.place] = of_factor
        for group in self._circulants:
            blocks = self._from_spectra(np.stack([total[k] for k in group], axis=1))
            blocks /= self._factors[group[0]].scale
            for j, k in enumerate(group):
                gradient[:, self._factors[k].place] = blocks[:, j].reshape(len(parameters), -1)
        gradient *= 2.0 / self._norm2
        return values / self._norm2, gradient

    def _add_part(
        self, acting: list[NDArray[Any]], trailing: _TrailingFactors | None, rows: slice, total: list[NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Return the squared norms of the residuals in some rows, and add half of their gradients to `total`.

        The gradients of circulants are added as spectra.
        """
        count = len(acting[0])
        kept: list[NDArray[Any]] = []
        if trailing is None:
            carried, x = len(acting), np.repeat(self._rows_of_inputs(rows)[None], count, axis=0)
        else:
            carried, x = len(acting) - trailing.n_factors, trailing.rows(rows)
        residual = self._applied(acting[:carried], x, kept)
        residual -= self._target[rows]
        values = _norms2(residual.reshape(count, -1))
        for k, factor in enumerate(self._factors[:carried]):
            conj, last = kept.pop(), k + 1 == len(acting)
            if np.iscomplexobj(conj):
                np.conj(conj, out=conj)
            if factor.diagonal:
                total[k] += _sums_of_products(conj, residual)
                if not last:
                    residual *= acting[k].conj()[:, None]
                continue
            spectra = self._spectra(residual)
            total[k] += _correlated(spectra, conj)
            if not last:
                spectra = _combined(spectra, acting[k].conj().swapaxes(1, 2), overwrite=True)
                residual = _cropped(self._from_spectra(spectra), factor.cols)
        if trailing is not None:
            trailing.add_gradients(rows, residual, total[carried:])
        return values

    def _trailing(self, parameters: NDArray[Any]) -> _TrailingFactors | None:
        """Return the last one or two factors, where they are of one block and act on the identity; else None."""
        n_factors = 2 if self._factors[-1].diagonal else 1
        if self.inputs is not None or not self.layout.is_single_block or len(self._factors) < n_factors:
            return None
        first, *rest = self._factors[-n_factors:]
        c = parameters[:, first.place] / parameters.real.dtype.type(first.scale)
        return _TrailingFactors(c, parameters[:, rest[0].place] if rest else None)

    def _acting(self, parameters: NDArray[Any]) -> list[NDArray[Any]]:
        """Return what each factor multiplies rows with: a diagonal (B, n), or the spectra of blocks (B, p, q, f)."""
        acting = [parameters[:, factor.place].reshape(-1, *factor.shape) for factor in self._factors]
        for group in self._circulants:
            spectra = _transformed(np.stack([acting[k] for k in group], axis=1))
            spectra /= self._factors[group[0]].scale
            for j, k in enumerate(group):
                acting[k] = spectra[:, j]
        return acting

    def _applied(self, acting: list[NDArray[Any]], x: NDArray[Any], kept: list[NDArray[Any]]) -> NDArray[Any]:
        """Return the products of the first factors, as many as are in `acting`, with rows `x`.

        What each factor acts on is appended to `kept`: rows, or their spectra before a circulant.
        """
        for factor, by in zip(reversed(self._factors[: len(acting)]), reversed(acting), strict=True):
            if factor.diagonal:
                kept.append(x)
                x = x * by[:, None]
            else:
                spectra = self._spectra(x)
                kept.append(spectra)
                x = _cropped(self._from_spectra(_combined(spectra, by)), factor.rows)
        return x

    def _spectra(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the spectra (B, r, q, f) of the blocks of rows (B, r, n), the last of which is padded with zeros."""
        m, blocks = self.layout.block_size, -(-rows.shape[-1] // self.layout.block_size)
        whole: Any = padded(rows, blocks * m, numpy_namespace)
        return _transformed(whole.reshape(*rows.shape[:-1], blocks, m))

    def _from_spectra(self, spectra: NDArray[Any]) -> NDArray[Any]:
        """Return the blocks with these spectra, which are overwritten."""
        if self.dtype.kind == "c":
            blocks: NDArray[Any] = scipy.fft.ifft(spectra, overwrite_x=True)
        else:
            blocks = scipy.fft.irfft(spectra, n=self.layout.block_size, overwrite_x=True)
        return blocks

    def _rows_of_inputs(self, rows: slice) -> NDArray[Any]:
        if self._inputs is not None:
            return self._inputs[rows]
        return np.eye(rows.stop - rows.start, self.layout.shape[1], rows.start, dtype=self.dtype)

    def _chunks(self, parameters: NDArray[Any]) -> list[slice]:
        """Return slices of the rows that are carried together.

        They depend on the problem alone, and so do the roundings of a sum over them.
        """
        carried = sum(factor.cols for factor in self._factors)
        height = _CHUNK_BYTES // (len(parameters) * carried * parameters.dtype.itemsize)
        height = max(1 if self.layout.is_single_block else _LEAST_ROWS, height)
        count = len(self._target)
        return [slice(i, min(i + height, count)) for i in range(0, count, height)]


class _TrailingFactors:
    """The last factors of products of one block, where these act on the identity.

    The rows of their product are shifts of the column of the circulant. So rows and gradients need no transforms.

    Parameters
    ----------
    c : (B, n) ndarray
        First columns of circulants of one block.
    d : (B, n) ndarray, optional
        Diagonals on the right of these.
    """

    def __init__(self, c: NDArray[Any], d: NDArray[Any] | None) -> None:
        self._d, self.n_factors = d, 1 if d is None else 2
        self._twice = np.concatenate((c, c), axis=-1)

    def _shifted(self, rows: slice) -> NDArray[Any]:
        """Return rows (B, r, n) of the transposed circulant: row `i` is its column shifted by `i`."""
        (count, n2), (apart, step) = self._twice.shape, self._twice.strides
        shape = (count, rows.stop - rows.start, n2 // 2)
        return as_strided(self._twice[:, n2 // 2 - rows.start :], shape, (apart, -step, step), writeable=False)

    def rows(self, rows: slice) -> NDArray[Any]:
        """Return some rows (B, r, n) of the transposed product of these factors."""
        shifted = self._shifted(rows)
        return shifted.copy() if self._d is None else shifted * self._d[:, rows, None]

    def add_gradients(self, rows: slice, residual: NDArray[Any], total: list[NDArray[Any]]) -> None:
        """Add half of the gradients from some rows of the residual; that of the circulant as spectrum (B, 1, 1, f)."""
        twice = np.concatenate((residual, residual), axis=-1)
        (count, height, n2), (apart, down, step) = twice.shape, twice.strides
        shape = (count, height, n2 // 2)
        back = as_strided(twice[:, :, rows.start :], shape, (apart, down + step, step), writeable=False)
        of_c = back.sum(axis=1) if self._d is None else (back * self._d[:, rows, None].conj()).sum(axis=1)
        total[0] += _transformed(of_c)[:, None, None]
        if self._d is not None:
            total[1][:, rows] += np.vecdot(self._shifted(rows), residual)


def _isometries(x: NDArray[Any]) -> NDArray[Any]:
    """Return evenly distributed isometries from standard normal matrices with at least as many rows as columns."""
    if x.shape[-1] == x.shape[-2] == 1:
        phases: NDArray[Any] = x / np.abs(x)
        return phases
    isometry, triangle = np.linalg.qr(x)
    signs = np.diagonal(triangle, axis1=-2, axis2=-1)
    turned: NDArray[Any] = isometry * (signs / np.abs(signs))[..., None, :]
    return turned


def _transformed(blocks: NDArray[Any]) -> NDArray[Any]:
    """Return the spectra of blocks; of real blocks the first half, which determines the other one."""
    spectra: NDArray[Any] = scipy.fft.fft(blocks) if np.iscomplexobj(blocks) else scipy.fft.rfft(blocks)
    return spectra


def _norms2(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return squared norms along the last axis in double precision."""
    sums: NDArray[np.float64] = np.vecdot(rows, rows).real.astype(np.float64)
    return sums


def _cropped(blocks: NDArray[Any], n: int) -> NDArray[Any]:
    """Return rows (B, r, n) from their blocks (B, r, p, m), without the padding."""
    return blocks.reshape(*blocks.shape[:-2], -1)[..., :n]


def _combined(spectra: NDArray[Any], blocks: NDArray[Any], *, overwrite: bool = False) -> NDArray[Any]:
    """Return ``sum_q blocks[b, p, q, f] * spectra[b, r, q, f]``, of shape (B, r, p, f); may overwrite the spectra."""
    _, p, q, _ = blocks.shape
    if overwrite and p == q == 1:
        spectra *= blocks[:, None, :, 0]
        return spectra
    out = spectra[:, :, :1] * blocks[:, None, :, 0]
    for j in range(1, q):
        out += spectra[:, :, j : j + 1] * blocks[:, None, :, j]
    return out


def _correlated(spectra: NDArray[Any], conj: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_r spectra[b, r, p, f] * conj[b, r, q, f]``, of shape (B, p, q, f); may overwrite `conj`."""
    p = spectra.shape[2]
    if p == 1:
        return _sums_of_products(conj, spectra)[:, None]
    return np.stack([(spectra[:, :, i : i + 1] * conj).sum(axis=1) for i in range(p)], axis=1)


def _sums_of_products(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_r x[b, r, ...] * y[b, r, ...]``; overwrites `x`."""
    x *= y  # For complex numbers this is several times as fast as a contraction.
    sums: NDArray[Any] = x.sum(axis=1)
    return sums
