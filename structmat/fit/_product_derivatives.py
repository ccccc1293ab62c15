"""The derivatives of a product for all of its vectors at once, and their Gram matrix in closed form.

In the basis that makes it diagonal, a factor is the sum of its entries times matrices of rank one: the identity's for a
diagonal, and those of the Fourier transforms of the blocks for a grid of circulants. So the derivative for one entry is
an outer product too, of a column of what is on the left of the factor and a row of what is on its right. With these
columns `A` (rows, N) and these rows `B` (N, k), the Gram matrix of all derivatives is ``(A^H A) * conj(B B^H)``,
elementwise, without one derivative being formed. Transforms along the blocks turn spectra into first columns.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # Its `fft` is imported on first use.

from structmat.fit._levenberg_marquardt import levenberg_marquardt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from structmat.fit._objective import Objective
    from structmat.operators import CDDLayout

__all__ = ["ProductDerivatives", "second_order_steps"]


def second_order_steps(
    objective: Objective,
    start: NDArray[Any],
    most: int,
    after_iteration: Callable[[NDArray[Any], float], None],
) -> bool:
    """Go down from a product in up to `most` steps of Levenberg and Marquardt, as `lbfgs` does by its own steps.

    A step takes a Cholesky factorisation of the size of the parameters.
    """
    sizes = objective.sizes

    def linearised(entries: NDArray[Any]) -> ProductDerivatives:
        vectors = objective.vectors(entries * sizes)
        return ProductDerivatives(objective.layout, vectors, objective.target, objective.inputs)

    def after_step(entries: NDArray[Any], error: float) -> None:
        after_iteration((entries * sizes).astype(objective.dtype), error)

    return levenberg_marquardt(linearised, start / sizes, most, after_step)


class ProductDerivatives:
    """The residual ``P @ inputs - target`` at one product `P`, and its derivatives for the vectors of the product.

    Parameters
    ----------
    layout : CDDLayout
    vectors : sequence of ndarray
        In the shapes of the layout.
    target : (rows, k) ndarray
        Not zero.
    inputs : (cols, k) ndarray, optional
        The identity by default.
    """

    def __init__(
        self,
        layout: CDDLayout,
        vectors: Sequence[NDArray[Any]],
        target: NDArray[Any],
        inputs: NDArray[Any] | None = None,
    ) -> None:
        self._real, self._vectors = target.dtype.kind != "c", vectors
        self._shapes, self._sides, self._side = layout.vector_shapes, layout.factor_shapes, layout.block_size
        self._entries = [v if v.ndim == 1 else scipy.fft.fft(v) for v in vectors]
        x: NDArray[Any] = np.eye(layout.shape[1]) if inputs is None else inputs
        self._right: list[NDArray[Any]] = []
        """What is on the right of each factor, in the basis in which it is diagonal; from the last factor on."""
        with np.errstate(over="ignore", invalid="ignore"):
            for entries, (rows, _) in zip(reversed(self._entries), reversed(self._sides), strict=True):
                x = self._transformed(x) if entries.ndim == 3 else x
                self._right.append(x)
                if entries.ndim == 1:
                    x = entries[:, None] * x
                else:
                    x = self._cropped(np.einsum("pqf,qfk->pfk", entries, x), rows)
            self._norm = float(np.linalg.norm(target))
            self._residual = ((x.real if self._real else x) - target) / self._norm
            self.error = float(np.linalg.norm(self._residual))

    def normal_equations(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the Gram matrix (N, N) of the derivatives, and their products (N,) with the residual.

        Both are those of the residual over the norm of the target, whose norm is the relative error.
        """
        columns, rows = self._columns.astype(np.complex128) / self._norm, self._rows.astype(np.complex128)
        gram: NDArray[Any] = (columns.conj().T @ columns) * (rows.conj() @ rows.T)
        with_residual = (columns.conj() * (self._residual @ rows.conj().T)).sum(axis=0)
        at = 0
        for shape in self._shapes:
            size = int(np.prod(shape))
            part = slice(at, at + size)
            if len(shape) == 3:
                # A spectrum is the transform of the first column: its matrix acts from the right, its adjoint
                # from the left.
                gram[:, part] = scipy.fft.fft(gram[:, part].reshape(-1, *shape)).reshape(-1, size)
                turned = scipy.fft.ifft(gram[part].reshape(*shape, -1), axis=2, norm="forward")
                gram[part] = turned.reshape(size, -1)
                own = scipy.fft.ifft(with_residual[part].reshape(shape), norm="forward")
                with_residual[part] = own.reshape(-1)
            at += size
        return (gram.real, with_residual.real) if self._real else (gram, with_residual)

    @cached_property
    def _columns(self) -> NDArray[Any]:
        """The column of each derivative, (rows, N)."""
        parts = []
        x: NDArray[Any] = np.eye(self._sides[0][0])
        for entries, (_, cols) in zip(self._entries, self._sides, strict=True):
            if entries.ndim == 1:
                parts.append(x)
                x = x * entries
            else:
                turned = self._transformed(x.T, inverse=True)  # (p, f, rows)
                p, q, m = entries.shape
                parts.append(np.broadcast_to(turned[:, None], (p, q, m, len(x))).reshape(p * q * m, -1).T)
                x = self._cropped(np.einsum("pqf,pfk->qfk", entries, turned), cols, inverse=True).T
        return np.concatenate(parts, axis=1)

    @cached_property
    def _rows(self) -> NDArray[Any]:
        """The row of each derivative, (N, k)."""
        parts = []
        for entries, x in zip(self._entries, reversed(self._right), strict=True):
            if entries.ndim == 1:
                parts.append(x)
            else:
                p, q, m = entries.shape
                parts.append(np.broadcast_to(x, (p, q, m, x.shape[-1])).reshape(p * q * m, -1))
        return np.concatenate(parts)

    def _transformed(self, x: NDArray[Any], *, inverse: bool = False) -> NDArray[Any]:
        """Return the transforms (q, f, k) of the blocks of columns (n, k)."""
        n, m = len(x), self._side
        blocks = -(-n // m)
        whole = np.zeros((blocks * m, x.shape[1]), dtype=np.complex128)
        whole[:n] = x
        transform: Callable[..., NDArray[Any]] = scipy.fft.ifft if inverse else scipy.fft.fft
        return transform(whole.reshape(blocks, m, -1), axis=1)

    def _cropped(self, x: NDArray[Any], n: int, *, inverse: bool = False) -> NDArray[Any]:
        """Return the columns (n, k) whose blocks have the transforms (p, f, k)."""
        transform: Callable[..., NDArray[Any]] = scipy.fft.fft if inverse else scipy.fft.ifft
        columns: NDArray[Any] = transform(x, axis=1).reshape(-1, x.shape[-1])
        return columns[:n]
