"""Convolutions of vectors with several components, by one small matrix for each frequency."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import is_numpy
from structmat._arrays.shapes import contiguous, move_axis
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.chunks import rows_in_chunk
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.engines import PLAIN
from structmat._fourier.plans import PlanByMethod
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._fourier.transforms import transforms

if TYPE_CHECKING:
    from collections.abc import Callable


def convolved_by_frequency(
    product: Callable[[Array], Array], x: Array, length: int, xp: Namespace, *, real: bool, stack: bool
) -> Array:
    """Return circular convolutions of vectors with several components, by the `product` for one frequency.

    Parameters
    ----------
    product : callable
        Takes an array of shape ``(frequencies, vectors, q)``, or for a `stack` of operators ``(..., frequencies, 1,
        q)``, and returns its products for all frequencies, where p takes the place of q.
    x : array, shape (..., q, n)
        The components of the vectors.
    length : int
        The length to which each component is padded with zeros for the transform.
    xp : namespace
        Theirs.
    real : bool
        Whether they are real, so that the frequencies are those of half spectra.
    stack : bool
        Whether `product` is that of a stack of operators.

    Returns
    -------
    array, shape (..., p, length)
        The components of the convolutions.
    """
    X = spectrum(x, xp, real=real, n=length)
    batch = X.shape[:-2]
    if stack:
        Y = product(move_axis(X, -1, -2, xp)[..., None, :])[..., 0, :]
        Y = move_axis(Y, -2, -1, xp)
    else:
        X = xp.reshape(X, (prod(batch), *X.shape[-2:]))
        Y = xp.permute_dims(product(xp.permute_dims(X, (2, 0, 1))), (1, 2, 0))
        Y = xp.reshape(Y, (*batch, *Y.shape[-2:]))
    return from_spectrum(Y, length, xp, real=real)


@dataclass(frozen=True, eq=False, repr=False)
class BlockToeplitzConvolution(PlanByMethod):
    """The product with a matrix of m x n blocks of p x q that depend on their offset, for vectors by block rows."""

    _core_axes = {"spectrum": 3}

    spectrum: Any
    """The transpose of the block for each frequency, shape ``(..., frequencies, q, p)``."""
    length: int
    """The length of transforms, at least m + n - 1."""
    is_real: bool
    shape: Any
    """Rows and columns."""

    @classmethod
    def of(cls, column: Array, row: Array, xp: Namespace) -> BlockToeplitzConvolution:
        """Return the plan of the matrix with these blocks in its first block column and its first block row.

        They have the shapes ``(..., m, p, q)`` and ``(..., n, p, q)``. The first block of the row counts for nothing.
        """
        m, p, q = column.shape[-3:]
        n = row.shape[-3]
        real = not (is_complex(column.dtype, xp) or is_complex(row.dtype, xp))
        below, above = (move_axis(blocks, -3, -1, xp) for blocks in (column, row[..., 1:, :, :]))
        kernel = kernel_of_diagonals(below, above, xp)
        S = xp.matrix_transpose(move_axis(spectrum(kernel, xp, real=real), -1, -3, xp))
        S = contiguous(S, xp) if is_numpy(xp) else S
        return cls(S, kernel.shape[-1], real, (m * p, n * q))

    @property
    def width(self) -> int:
        return int(max(self.spectrum.shape[-2:])) * self.length

    def chunk_rows(self, dtype: Any) -> int | None:
        return rows_in_chunk(2 * self.width, dtype.itemsize)  # half as many as other plans, as blocks are copied too

    @property
    def cost(self) -> float:
        """The sum of the lengths of the convolutions of one product, which includes the products for each frequency.

        By measurements a product of 512 rows takes 17 to 26 us, whatever the blocks from 2 x 2 to 16 x 16, and a dense
        one 50; of 256 rows 13 to 23 us and 10 to 14: of so many convolutions of one vector 0.6 would take as long.
        """
        return 0.6 * sum(self.spectrum.shape[-2:]) * self.length

    def _by(self, method: str, xp: Namespace) -> Callable[[Any], Any]:
        S = self.spectrum
        length = self.length
        q, p = S.shape[-2:]
        m, n = self.shape[0] // p, self.shape[1] // q
        if not is_numpy(xp) or self.is_stack:
            options = {"real": self.is_real, "stack": self.is_stack}

            def general_product(x: Any) -> Any:
                components = move_axis(xp.reshape(x, (*x.shape[:-1], n, q)), -1, -2, xp)
                y = convolved_by_frequency(lambda X: xp.matmul(X, S), components, length, xp, **options)[..., :m]
                return xp.reshape(move_axis(y, -1, -2, xp), (*y.shape[:-2], m * p))

            return general_product
        forward, backward = transforms(PLAIN.get(method, method), length, real=self.is_real, axis=0)

        def product(x: Any) -> Any:
            # Matrix products of contiguous arrays: (frequencies, vectors, q) times (frequencies, q, p).
            y = backward(forward(x.reshape(-1, n, q).transpose(1, 0, 2)) @ S)
            return y[:m].transpose(1, 0, 2).reshape(*x.shape[:-1], m * p)

        return product
