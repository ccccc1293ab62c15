"""The error of a product of any number of factors and its gradient, by transforms: what first-order solvers need.

Written once for NumPy and torch: of a tensor the n x n work is done on its device, and only `error` and `spread`
read values of it, so that calls may run ahead of the device.

Everything is held transposed, as rows that the factors act on from the right to the left of the product. A diagonal is
then a scaling and a circulant a convolution along the contiguous axis (one small matrix per frequency where it has
several blocks), and rows are independent of one another: they are handled in chunks, so that memory is that of the
matrices themselves and a few chunks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from structmat._arguments import to_numpy
from structmat._array_tools import device_of
from structmat.fit._many_factors.array_work import NumpyWork, work_like
from structmat.fit._many_factors.parameters import factor_parameters, to_vectors
from structmat.fit._many_factors.spectra import combined, correlated, spectra_of_rows, sums_of_products
from structmat.fit._many_factors.trailing_factors import TrailingFactors
from structmat.fit._three_factors.spread import most_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import Array
    from structmat.fit._many_factors.array_work import Work, WorkArray
    from structmat.operators import CDDLayout

__all__ = ["Objective"]

# On several blocks chunks of fewer rows would spend their time on the sums of gradients, as large as the parameters.
_LEAST_ROWS = 32
# Random vectors that the accuracy of products is estimated with.
_PROBES = 8


class Objective:
    """``norm(target - P @ inputs)**2 / norm(target)**2`` of products `P` of one layout, and its gradient.

    Parameters
    ----------
    layout : CDDLayout
    target : (rows, k) ndarray
        Not zero. Its dtype is that of the computation.
    inputs : (cols, k) ndarray, optional
        The identity by default.
    products : dtype, optional
        That of the products that `error` is measured through, by default of the target.
    like : array, optional
        A tensor of torch, on whose device torch does the work unless NumPy is faster there.
    """

    def __init__(
        self,
        layout: CDDLayout,
        target: NDArray[Any],
        inputs: NDArray[Any] | None = None,
        products: np.dtype[Any] | None = None,
        like: Array | None = None,
    ) -> None:
        self._begin(layout)
        self.work: Work = work_like(like, target.size)
        self.dtype: np.dtype[Any] = target.dtype
        """The dtype of target, parameters and gradients."""
        self.products: np.dtype[Any] = target.dtype if products is None else products
        self._norm2 = float(np.sum(NumpyWork().norms2(target)))
        self._target: WorkArray = self.work.moved(np.ascontiguousarray(target.T))
        self._inputs: WorkArray | None = None if inputs is None else self.work.moved(np.ascontiguousarray(inputs.T))

    @property
    def target(self) -> NDArray[Any]:
        """What the products are compared with."""
        return to_numpy(self._target).T

    @property
    def inputs(self) -> NDArray[Any] | None:
        """What the columns of the products are combined with; None for the identity."""
        return None if self._inputs is None else to_numpy(self._inputs).T

    @property
    def weighted(self) -> bool:
        """Whether the inputs are other than the identity."""
        return self._inputs is not None

    def astype(self, dtype: np.dtype[Any]) -> Objective:
        """Return the same problem in another precision."""
        if dtype == self.dtype:
            return self
        other = copy.copy(self)
        other.dtype = other.products = dtype
        other._target = self._in(self._target, dtype)
        other._inputs = None if self._inputs is None else self._in(self._inputs, dtype)
        return other

    def of(self, layout: CDDLayout) -> Objective:
        """Return the same problem for products of another layout; shares the matrices."""
        other = copy.copy(self)
        other._begin(layout)
        return other

    def error(self, parameters: NDArray[Any]) -> float:
        """Return the relative error of one product, (N,), through transforms in the precision of its products."""
        products = self.work.moved(parameters[None].astype(self.products))
        acting = self._acting(products)

        def part(rows: slice) -> WorkArray:
            x = self._in(self._rows_of_inputs(rows), self.products)
            out = self._applied(acting, x[None], _forget)
            return self.work.norms2(out[0] - self._target[rows]).sum()

        return float(np.sqrt(float(sum(self._over_chunks(part, products))) / self._norm2))

    def spread(self, parameters: NDArray[Any]) -> float:
        """Return what rounding errors of products of one chain grow with, over the norm of the target.

        The parameters may come in another precision than that of the objective.
        """
        if not np.isfinite(parameters).all():
            return float(np.inf)
        product = self.layout.product(to_vectors(self.layout, parameters.astype(self.dtype)))
        rng = np.random.default_rng(0)
        left = rng.standard_normal((_PROBES, product.shape[0])).astype(self.dtype)
        inputs = self.inputs
        if inputs is None:
            right = rng.standard_normal((_PROBES, product.shape[1])).astype(self.dtype)
        else:
            right = rng.standard_normal((_PROBES, inputs.shape[1])).astype(self.dtype) @ inputs.T
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            spread, _ = product._log_spread_and_norm(right, left, array_namespace(left))
            return float(np.exp(spread - 0.5 * np.log(self._norm2)))

    def allowed_spread(self, start: NDArray[Any]) -> float:
        """Return the most spread that is accepted of what is made of a chain, which may keep its own."""
        return max(most_spread(self.products), self.spread(start))

    def value_and_gradient(self, parameters: WorkArray) -> tuple[WorkArray, WorkArray]:
        """Return squared relative errors (B,) of products (B, N) and their gradients.

        A gradient of complex parameters holds the derivatives for their real and imaginary parts.
        """
        acting, trailing = self._acting(parameters), self._trailing(parameters)

        def part(rows: slice) -> tuple[WorkArray, list[WorkArray]]:
            with np.errstate(over="ignore", invalid="ignore"):  # a product may be lost on the way; its error tells
                return self._part(acting, trailing, rows)

        values, sums = zip(*self._over_chunks(part, parameters), strict=True)
        total = [sum(of_factor[1:], start=of_factor[0]) for of_factor in zip(*sums, strict=True)]
        work, xp = self.work, self.work.xp
        gradient = xp.empty_like(parameters)
        for factor, part_of_factor in zip(self._factors, total, strict=True):
            if factor.diagonal:
                gradient[:, factor.place] = part_of_factor
        for group in self._circulants:
            spectra = xp.stack([total[k] for k in group], axis=1)
            blocks = work.from_spectra(spectra, self.layout.block_size, real=self._real)
            blocks /= self._factors[group[0]].scale
            for j, k in enumerate(group):
                gradient[:, self._factors[k].place] = blocks[:, j].reshape(len(parameters), -1)
        gradient *= 2.0 / self._norm2
        return sum(values[1:], start=values[0]) / self._norm2, gradient

    def _part(
        self, acting: list[WorkArray], trailing: TrailingFactors | None, rows: slice
    ) -> tuple[WorkArray, list[WorkArray]]:
        """Squared norms of the residual of some rows, and half its gradients, circulants' as spectra."""
        m, count, work = self.layout.block_size, len(acting[0]), self.work
        kept: list[WorkArray] = []
        x = work.xp.tile(self._rows_of_inputs(rows)[None], (count, 1, 1)) if trailing is None else trailing.rows(rows)
        carried = len(acting) - (0 if trailing is None else trailing.n_factors)
        residual = self._applied(acting[:carried], x, kept.append)
        residual -= self._target[rows]
        values = work.norms2(residual.reshape(count, -1))
        gradients = []
        for k, factor in enumerate(self._factors[:carried]):
            conj = work.conjugated(kept.pop())
            last = k + 1 == len(acting)
            if factor.diagonal:
                gradients.append(sums_of_products(conj, residual))
                if not last:
                    residual *= acting[k].conj()[:, None]
                continue
            spectra = spectra_of_rows(residual, m, work)
            gradients.append(correlated(spectra, conj, work.xp))
            if not last:
                spectra = combined(spectra, acting[k].conj().swapaxes(1, 2), work.xp, overwrite=True)
                residual = _cropped(work.from_spectra(spectra, m, real=self._real), factor.cols)
        if trailing is not None:
            gradients += trailing.gradients(rows, residual)
        return values, gradients

    def _trailing(self, parameters: WorkArray) -> TrailingFactors | None:
        """Return the last factors of products of one block that act on the identity."""
        n_factors = 1 if self._factors[-1].shape[1:] else 2
        if self.weighted or not self.layout.is_single_block or len(self._factors) < n_factors:
            return None
        first, *rest = self._factors[-n_factors:]
        c = parameters[:, first.place] / first.scale
        return TrailingFactors(c, parameters[:, rest[0].place] if rest else None, self.work)

    def _acting(self, parameters: WorkArray) -> list[WorkArray]:
        """Return what rows are multiplied with for each factor: diagonals (B, n), or spectra of blocks (B, p, q, f)."""
        acting = [parameters[:, factor.place].reshape(-1, *factor.shape) for factor in self._factors]
        for group in self._circulants:
            spectra = self.work.transformed(self.work.xp.stack([acting[k] for k in group], axis=1))
            spectra /= self._factors[group[0]].scale
            for j, k in enumerate(group):
                acting[k] = spectra[:, j]
        return acting

    def _begin(self, layout: CDDLayout) -> None:
        self.layout, self._factors = layout, factor_parameters(layout)
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, factor in enumerate(self._factors):
            if not factor.diagonal:
                groups.setdefault(factor.shape, []).append(k)
        self._circulants = list(groups.values())
        """The places of circulant factors, those of one shape together: they are transformed together."""

    def _applied(self, acting: list[WorkArray], x: WorkArray, keep: Callable[[WorkArray], object]) -> WorkArray:
        """Return products of the first factors with rows `x`; what each factor acts on, transformed, goes to `keep`."""
        m, work = self.layout.block_size, self.work
        for factor, by in zip(reversed(self._factors[: len(acting)]), reversed(acting), strict=True):
            if factor.diagonal:
                keep(x)
                x = x * by[:, None]
            else:
                spectra = spectra_of_rows(x, m, work)
                keep(spectra)
                x = _cropped(work.from_spectra(combined(spectra, by, work.xp), m, real=self._real), factor.rows)
        return x

    def _rows_of_inputs(self, rows: slice) -> WorkArray:
        if self._inputs is not None:
            return self._inputs[rows]
        start, stop, _ = rows.indices(len(self._target))
        xp, like = self.work.xp, self._target
        return xp.eye(stop - start, self.layout.shape[1], k=start, dtype=like.dtype, device=device_of(like))

    def _in(self, x: WorkArray, dtype: np.dtype[Any]) -> WorkArray:
        return self.work.xp.astype(x, getattr(self.work.xp, dtype.name), copy=False)

    @property
    def _real(self) -> bool:
        return self.dtype.kind != "c"

    def _height(self, parameters: WorkArray) -> int:
        """Rows of a chunk."""
        carried = sum(factor.cols for factor in self._factors)
        rows = self.work.chunk_bytes // (len(parameters) * carried * parameters.dtype.itemsize)
        return max(1 if self.layout.is_single_block else _LEAST_ROWS, rows)

    def _over_chunks(self, part: Callable[[slice], Any], parameters: WorkArray) -> list[Any]:
        """Apply `part` to slices of the rows; they depend on the problem only, and so does the sum."""
        count = len(self._target)
        height = self._height(parameters)
        chunks = [slice(i, min(i + height, count)) for i in range(0, count, height)]
        return [part(chunk) for chunk in chunks]


def _cropped(blocks: WorkArray, n: int) -> WorkArray:
    """Rows (B, r, n) of their blocks (B, r, p, m)."""
    return blocks.reshape(*blocks.shape[:-2], -1)[..., :n]


def _forget(_: WorkArray) -> None:
    """Keep nothing."""
