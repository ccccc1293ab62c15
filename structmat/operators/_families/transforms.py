"""Unitary transforms of vectors, or of arrays on grids along some or all of their axes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

from structmat._arguments import grid, integer
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat._fourier.diagonals import diagonal_by_transform
from structmat._fourier.grids import as_grid, from_grid, multilevel_fft, multilevel_ifft
from structmat._fourier.multipliers import FOURIER, along
from structmat._fourier.spectra import as_complex, no_transforms, transforms_of
from structmat._fourier.trigonometric import INVERSES, GridTransform
from structmat.operators._base.arithmetic import scale
from structmat.operators._base.linear_operator import LinearOperator


class Transform(LinearOperator):
    """A unitary matrix, whose inverse is its adjoint."""

    @property
    @abstractmethod
    def _sizes(self) -> tuple[int, ...]:
        """The sizes of the grid."""

    @property
    def shape(self) -> tuple[int, int]:
        """As many rows and columns as the grid has points."""
        side = prod(self._sizes)
        return (side, side)

    def _adjoint(self) -> LinearOperator:
        return self._conj()._transpose()

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self._adjoint()

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self._adjoint()

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        return scale(self._adjoint(), 1.0 / (1.0 + damp * damp))

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.ones(self.shape[0])

    def _frobenius(self, xp: Namespace) -> Array:
        return xp.asarray(math.sqrt(self.shape[0]))

    @property
    @abstractmethod
    def _transformed_axes(self) -> tuple[int, ...]:
        """The axes of the grid that are transformed, from zero on."""

    @property
    @abstractmethod
    def _inverse_kind(self) -> str:
        """The kind of the inverse transform of one axis."""

    def _squared_moduli_times(self, X: Array, xp: Namespace) -> Array:
        """Return it axis by axis: the diagonals of matrices with these eigenvalues, and with T for eigenvectors."""
        sizes, kind = self._sizes, self._inverse_kind
        values = as_grid(xp.matrix_transpose(X), sizes, xp)
        for axis in self._transformed_axes:
            values = along(values, axis - len(sizes), lambda v: diagonal_by_transform(v, kind, xp), xp)
        return xp.matrix_transpose(from_grid(values, sizes, xp))


def _checked_axes(axes: Any, sizes: tuple[int, ...], owner: str) -> tuple[int, ...] | None:
    """Return axes of a grid as numbers from zero on in increasing order; None for all of them."""
    if axes is None:
        return None
    count = len(sizes)
    values = axes if isinstance(axes, (tuple, list)) else (axes,)
    numbers = [integer(axis, owner, "axes", -count) for axis in values]
    found = sorted({axis % count for axis in numbers})
    if any(axis >= count for axis in numbers) or len(found) < len(numbers) or not numbers:
        text = f"must be different axes of the grid {sizes}, from 0 to {count - 1}, got {axes!r}"
        raise ArgumentValueError(owner, "axes", text)
    return None if len(found) == count else tuple(found)


def _checked_sizes(n: Any, owner: str) -> Any:
    return grid(n, owner, "n") if isinstance(n, (tuple, list)) else integer(n, owner, "n")


@dataclass(frozen=True, eq=False, repr=False)
class Fourier(Transform):
    """The unitary discrete Fourier transform of each of `blocks` consecutive pieces of length `n`.

    Parameters
    ----------
    n : int or tuple of int
        Length of one transform; several for the transform along every axis of a grid of these sizes, in row-major
        order, which is the Kronecker product of theirs.
    blocks : int, default 1
        Number of pieces; the matrix is ``kron(eye(blocks), F)``.
    inverse : bool, default False
        Whether it is the inverse transform, the complex conjugate.
    axes : int or tuple of int, optional
        The axes of the grid that are transformed. By default all.

    Raises
    ------
    ValueError
        If `n` or `blocks` is below one, or `axes` are not different axes of the grid.
    TypeError
        If `n` or `blocks` is no integer, nor `n` a tuple of integers.

    See Also
    --------
    CosineTransform, SineTransform : Real transforms.

    Notes
    -----
    ``F[j, k] = exp(-2 pi i j k / n) / sqrt(n)``. The columns of the inverse are the eigenvectors of every circulant,
    for a grid those of every multilevel circulant.

    Examples
    --------
    >>> import structmat as sm
    >>> (sm.Fourier(2).to_dense() * 2**0.5).real.round(12)
    array([[ 1.,  1.],
           [ 1., -1.]])
    >>> F = sm.Fourier((2, 3))
    >>> import numpy as np
    >>> bool(np.allclose(F.to_dense(), np.kron(sm.Fourier(2).to_dense(), sm.Fourier(3).to_dense())))
    True
    """

    n: int | tuple[int, ...]
    """Length of one transform, or the sizes of its grid."""
    blocks: int = 1
    """Number of pieces."""
    inverse: bool = False
    """Whether it is the inverse transform."""
    axes: Any = None
    """The axes of the grid that are transformed, or None for all."""

    def __post_init__(self) -> None:
        n = _checked_sizes(self.n, "Fourier")
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "blocks", integer(self.blocks, "Fourier", "blocks"))
        object.__setattr__(self, "axes", _checked_axes(self.axes, n if isinstance(n, tuple) else (n,), "Fourier"))

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.blocks, *(self.n if isinstance(self.n, tuple) else (self.n,)))

    @property
    def _transformed_axes(self) -> tuple[int, ...]:
        _, *sizes = self._sizes
        return tuple(1 + axis for axis in (range(len(sizes)) if self.axes is None else self.axes))

    @property
    def _inverse_kind(self) -> str:
        return FOURIER

    @property
    def _forces_complex(self) -> bool:
        return True

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        _, *sizes = self._sizes
        if self.axes is not None:
            return self._along_axes(x, xp)
        pieces = xp.reshape(x, (*x.shape[:-1], self.blocks, prod(sizes)))
        transform = multilevel_ifft if self.inverse else multilevel_fft
        return xp.reshape(transform(pieces, tuple(sizes), xp, real=False, norm="ortho"), x.shape)

    def _along_axes(self, x: Array, xp: Namespace) -> Array:
        if 0 in x.shape:
            return no_transforms(x, tuple(x.shape), xp, real=False)
        transforms = transforms_of(xp)
        levels = len(self._sizes) - 1
        axes = tuple(axis - levels for axis in self.axes)
        pieces = as_grid(as_complex(x, xp), self._sizes, xp)
        transform = transforms.ifftn if self.inverse else transforms.fftn
        return from_grid(transform(pieces, axes=axes, norm="ortho"), self._sizes, xp)

    def _transpose(self) -> LinearOperator:
        return self

    def _conj(self) -> LinearOperator:
        return self._replaced(inverse=not self.inverse)


@dataclass(frozen=True, eq=False, repr=False)
class TrigonometricTransform(Transform):
    """An orthogonal transform by cosines or sines, along axes of a grid."""

    _family: ClassVar[str]

    n: int | tuple[int, ...]
    """Length of one transform, or the sizes of the grid."""
    type: int = 2
    """Which of the types 1 to 4."""
    axes: Any = None
    """The axes of the grid that are transformed, or None for all."""

    def __post_init__(self) -> None:
        owner = self.__class__.__name__
        object.__setattr__(self, "n", _checked_sizes(self.n, owner))
        object.__setattr__(self, "type", integer(self.type, owner, "type"))
        if self.type > 4:
            raise ArgumentValueError(owner, "type", f"must be 1, 2, 3 or 4, got {self.type}")
        object.__setattr__(self, "axes", _checked_axes(self.axes, self._sizes, owner))

    def _details(self) -> str:
        grid = f"sizes={self.n}, " if isinstance(self.n, tuple) else ""
        return f"type={self.type}, {grid}" + ("" if self.axes is None else f"axes={self.axes}, ")

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.n if isinstance(self.n, tuple) else (self.n,)

    @property
    def _transformed_axes(self) -> tuple[int, ...]:
        return tuple(range(len(self._sizes))) if self.axes is None else self.axes

    @property
    def _inverse_kind(self) -> str:
        return INVERSES[f"{self._family}{self.type}"]

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        transform = GridTransform(f"{self._family}{self.type}", self._sizes, self._transformed_axes, xp)
        return rules_of(xp).compiled(transform)(x)

    def _transpose(self) -> Self:
        return self._replaced(type=int(self._inverse_kind[-1]))

    def _conj(self) -> Self:
        return self


@dataclass(frozen=True, eq=False, repr=False)
class CosineTransform(TrigonometricTransform):
    """The orthonormal discrete cosine transform (DCT), of one of four types.

    Parameters
    ----------
    n : int or tuple of int
        Length of one transform; several for the transform along axes of a grid of these sizes, in row-major order.
    type : {2, 1, 3, 4}, default 2
        The type, as `scipy.fft.dct` numbers them.
    axes : int or tuple of int, optional
        The axes of the grid that are transformed. By default all.

    Raises
    ------
    ValueError
        If `n` is below one, `type` is none of the four, or `axes` are not different axes of the grid.
    TypeError
        If `n` or `type` is no integer, nor `n` a tuple of integers.

    See Also
    --------
    SineTransform : By sines.
    SpectralMultiplier : The matrices that such transforms diagonalise.
    scipy.fft.dct : The same transforms with ``norm="ortho"``.

    Notes
    -----
    Type 2 has the entries ``C[k, j] = s_k sqrt(2 / n) cos(pi (2 j + 1) k / (2 n))``, where ``s_k`` is one, but the root
    of one half for k = 0 [1]_. Its rows are the eigenvectors of symmetric kernels whose scene is reflected at the
    edges. The transpose is the inverse: type 3 of type 2, and types 1 and 4 are their own inverses. Type 1 of one point
    is the identity, where other libraries have none.

    A product takes O(n log n): SciPy's transform of NumPy arrays, else one real FFT of the same length, but one of
    ``2 n - 2`` for type 1, and one complex FFT of half the length for type 4 and even n. Complex vectors are
    transformed as two real ones.

    References
    ----------
    .. [1] Strang, G., The discrete cosine transform, SIAM Rev. 41, 1999.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> C = sm.CosineTransform(4)
    >>> C
    CosineTransform(type=2, shape=(4, 4), dtype=any, device=any)
    >>> y = C @ np.array([1.0, 2.0, 3.0, 4.0])
    >>> y.round(3)
    array([ 5.   , -2.23 ,  0.   , -0.159])
    >>> (C.T @ y).round(12)
    array([1., 2., 3., 4.])
    >>> rows = sm.CosineTransform((2, 4), axes=1)
    >>> bool(np.allclose(rows.to_dense(), np.kron(np.eye(2), C.to_dense())))
    True
    """

    _family = "dct"


@dataclass(frozen=True, eq=False, repr=False)
class SineTransform(TrigonometricTransform):
    """The orthonormal discrete sine transform (DST), of one of four types.

    Parameters
    ----------
    n : int or tuple of int
        Length of one transform; several for the transform along axes of a grid of these sizes, in row-major order.
    type : {2, 1, 3, 4}, default 2
        The type, as `scipy.fft.dst` numbers them.
    axes : int or tuple of int, optional
        The axes of the grid that are transformed. By default all.

    Raises
    ------
    ValueError
        If `n` is below one, `type` is none of the four, or `axes` are not different axes of the grid.
    TypeError
        If `n` or `type` is no integer, nor `n` a tuple of integers.

    See Also
    --------
    CosineTransform : By cosines.
    SpectralMultiplier : The matrices that such transforms diagonalise.
    scipy.fft.dst : The same transforms with ``norm="ortho"``.

    Notes
    -----
    Type 1 has the entries ``S[k, j] = sqrt(2 / (n + 1)) sin(pi (j + 1) (k + 1) / (n + 1))``: its rows are the
    eigenvectors of second differences that vanish at the points beside the grid. Those of type 2 vanish at the edges,
    half a step from the last points. The transpose is the inverse: type 3 of type 2, and types 1 and 4 are their own
    inverses.

    A product takes O(n log n), as for `CosineTransform`; for type 1 it takes a real FFT of ``2 n + 2``.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> S = sm.SineTransform(3, type=1)
    >>> S.to_dense().round(3)
    array([[ 0.5  ,  0.707,  0.5  ],
           [ 0.707, -0.   , -0.707],
           [ 0.5  , -0.707,  0.5  ]])
    >>> bool(np.allclose((S @ S).to_dense(), np.eye(3)))
    True
    """

    _family = "dst"
