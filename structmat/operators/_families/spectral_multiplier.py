"""Matrices that Fourier, cosine and sine transforms of the axes of a grid make diagonal, by their eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from structmat._arguments import as_floating, grid, one_of, positive, wrong_shape
from structmat._arrays.arithmetic import real_part
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import can_raise_for_values, device_of, namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import padded
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.diagonals import diagonal_by_transform
from structmat._fourier.grids import as_grid, from_grid
from structmat._fourier.multipliers import FOURIER, KINDS, along, fourier_axes, held_sizes
from structmat._fourier.plans import Plan
from structmat._fourier.spectra import as_complex, spectrum
from structmat.operators._base.near import Near
from structmat.operators._families.given_spectrum import GivenSpectrum
from structmat.operators._families.multilevel import OnGrids

Boundary: TypeAlias = Literal["reflect", "zero", "odd", "wrap"]
"""How an array on a grid goes on beyond an edge."""

TRANSFORMS: dict[str, str] = {"reflect": "dct2", "zero": "dst1", "odd": "dst2", "wrap": FOURIER}
"""For each boundary the transform that makes symmetric kernels diagonal."""


@dataclass(frozen=True, eq=False, repr=False)
class SpectralMultiplier(OnGrids, GivenSpectrum):
    """A matrix that transforms of the axes of a grid make diagonal, given by its eigenvalues.

    It is ``S^H diag(spectrum) S``, where S is the Kronecker product of one unitary transform for each axis: a Fourier
    multiplier, or the same by cosines or sines.

    Parameters
    ----------
    spectrum : array, shape (..., n_1 * ... * n_d)
        The eigenvalues on the grid of frequencies, in row-major order; leading axes make a stack of matrices. Of a real
        matrix with Fourier's transform along some axes it is the half spectrum, which has ``n // 2 + 1`` frequencies
        along the last of these axes.
    sizes : tuple of int
        The sizes of the grid, ``(n_1, ..., n_d)``.
    transforms : str or tuple of str
        The transform of each axis, or of all: ``"dct1"`` to ``"dct4"``, ``"dst1"`` to ``"dst4"``, ``"dft"``.
    real : bool, default True
        Whether the matrix is real, where some transform is ``"dft"``. Without that it is real where `spectrum` is.

    Raises
    ------
    ValueError
        If a size is not positive, a transform is none of these, or the length of `spectrum` does not fit.
    TypeError
        If `spectrum` does not hold numbers, or `sizes` are no integers.

    See Also
    --------
    laplacian : Of a box, with edges of any kind.
    SpectralMultiplier.from_kernel : Convolution with a symmetric kernel, of an image that goes on beyond its edges.
    MultilevelCirculant : With periodic edges, given by the first column.
    CosineTransform, SineTransform, Fourier : The transforms.

    Notes
    -----
    The transforms follow from what lies beyond the edges of the grid [1]_ [2]_:

    ===========  =========  =============================================  ====================
    boundary     transform  beyond the last points ``y z a`` of a line     differential problem
    ===========  =========  =============================================  ====================
    ``reflect``  ``dct2``   ``a z y``, reflected at the edge               Neumann
    ``zero``     ``dst1``   ``0 -a -z``, zero at the next point            Dirichlet
    ``odd``      ``dst2``   ``-a -z -y``, zero at the edge between points  Dirichlet
    ``wrap``     ``dft``    the first points                               periodic
    ===========  =========  =============================================  ====================

    Products take the transform and its inverse, O(N log N). All such matrices with the same transforms commute: their
    sums, products, inverses and functions are of the same kind, exact up to rounding. A matrix without ``"dft"`` is
    symmetric, and for ``"dct2"`` the sum of a Toeplitz and a Hankel matrix along each axis.

    References
    ----------
    .. [1] Strang, G., The discrete cosine transform, SIAM Rev. 41, 1999.
    .. [2] Ng, M. K., Chan, R. H., Tang, W.-C., A fast algorithm for deblurring models with Neumann boundary conditions,
       SIAM J. Sci. Comput. 21, 1999.

    Examples
    --------
    Heat on a box whose sides are insulated above and below, and cold on the left and on the right:

    >>> import numpy as np
    >>> import structmat as sm
    >>> L = sm.laplacian((3, 4), boundary=("reflect", "zero"))
    >>> L
    SpectralMultiplier(sizes=(3, 4), transforms=('dct2', 'dst1'), shape=(12, 12), dtype=float64, device=cpu)
    >>> heat = np.ones((3, 4))
    >>> (0.5 * L).expm().convolve(heat).round(3)
    array([[0.672, 0.921, 0.921, 0.672],
           [0.672, 0.921, 0.921, 0.672],
           [0.672, 0.921, 0.921, 0.672]])
    """

    _core_axes = {"spectrum": 1}

    spectrum: Array
    """The eigenvalues that determine all, shape ``(..., count)``."""
    sizes: Any
    """The sizes of the grid."""
    transforms: Any
    """The transform of each axis."""
    real: bool = True
    """Whether the matrix is real, where some transform is ``"dft"``."""

    def __post_init__(self) -> None:
        owner = "SpectralMultiplier"
        sizes = grid(self.sizes, owner, "sizes")
        transforms = _for_each_axis(self.transforms, len(sizes), owner, "transforms", KINDS)
        has_fourier = FOURIER in transforms
        real = bool(self.real) or not has_fourier
        values = as_floating(self.spectrum, owner, "spectrum")
        xp = namespace_of(owner, values)
        if has_fourier:
            values = as_complex(values, xp)
        count = prod(held_sizes(sizes, transforms, real=real))
        if values.ndim < 1 or values.shape[-1] != count:
            wanted = f"(..., {count}) for sizes {sizes}, transforms {transforms} and real={real}"
            raise wrong_shape(owner, "spectrum", wanted, values)
        for name, value in (("spectrum", values), ("sizes", sizes), ("transforms", transforms), ("real", real)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_kernel(
        cls, kernel: ArrayLike, sizes: tuple[int, ...], boundary: Boundary | Sequence[Boundary] = "reflect"
    ) -> SpectralMultiplier:
        """Return the matrix of the convolution with a symmetric kernel, of arrays that go on beyond their edges.

        Parameters
        ----------
        kernel : array, shape (..., 2 r_1 + 1, ..., 2 r_d + 1)
            The kernel, its centre in the middle of every axis; leading axes make a stack. Along axes whose boundary is
            not ``"wrap"`` it has to be symmetric. In PyTorch and JAX, where values are not looked at, the mean of it
            and of its mirror image counts.
        sizes : tuple of int
            The sizes of the grid, ``(n_1, ..., n_d)``, each larger than r.
        boundary : {"reflect", "zero", "odd", "wrap"} or a sequence of them, default "reflect"
            How arrays go on beyond the edges, along all axes or by axis; see the notes of the class.

        Returns
        -------
        SpectralMultiplier
            Of ``n_1 * ... * n_d`` rows.

        Raises
        ------
        ValueError
            If `kernel` has an even length or is too long, is not symmetric, or `boundary` is none of these.
        TypeError
            If `kernel` does not hold numbers, or `sizes` are no integers.

        See Also
        --------
        GridConvolution : Of any kernel, with the same boundaries.
        MultilevelToeplitz : With zeros beyond the edges.

        Notes
        -----
        Only with kernels of three points is ``"zero"`` the same as zeros everywhere beyond the edges.

        Examples
        --------
        >>> import numpy as np
        >>> import scipy.ndimage
        >>> import structmat as sm
        >>> kernel = np.outer([1.0, 2.0, 1.0], [1.0, 4.0, 1.0]) / 24
        >>> blur = sm.SpectralMultiplier.from_kernel(kernel, (8, 9))
        >>> image = np.random.default_rng(0).random((8, 9))
        >>> bool(np.allclose(blur.convolve(image), scipy.ndimage.convolve(image, kernel, mode="reflect")))
        True
        """
        owner = "SpectralMultiplier.from_kernel"
        values = as_floating(kernel, owner, "kernel")
        sizes = grid(sizes, owner, "sizes")
        _, names = checked_kernel(tuple(values.shape[-len(sizes) :]), sizes, boundary, owner)
        kinds = tuple(TRANSFORMS[name] for name in names)
        xp = namespace_of(owner, values)
        real = not is_complex(values.dtype, xp)
        for axis in range(-len(sizes), 0):
            if kinds[axis] != FOURIER:
                _require_symmetric(values, axis, owner, xp)
                n, kind = sizes[axis], kinds[axis]
                values = along(values, axis, lambda v: _of_symmetric(v, n, kind, xp), xp)  # noqa: B023
        half = real
        for axis in fourier_axes(kinds):
            n = sizes[axis]
            values = along(values, axis, lambda v: spectrum(_wrapped(v, n, xp), xp, real=half), xp)  # noqa: B023
            half = False
        return cls(from_grid(values, sizes, xp), sizes, kinds, real)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, N)``."""
        side = prod(self.sizes)
        return (side, side)

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.sizes, self.sizes

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def _kinds(self) -> tuple[str, ...]:
        return self.transforms

    def _details(self) -> str:
        return f"sizes={self.sizes}, transforms={self.transforms}, "

    def _plan(self, xp: Namespace) -> Plan:
        return self._as_given().plan()

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, eigenvectors=lambda: self._orthonormal_eig(xp))

    def _diagonal(self, xp: Namespace) -> Array:
        values = as_grid(self._grid_spectrum(xp).all_values(xp), self.sizes, xp)
        for axis, kind in enumerate(self.transforms):
            values = along(values, axis - len(self.sizes), lambda v: diagonal_by_transform(v, kind, xp), xp)  # noqa: B023
        values = from_grid(values, self.sizes, xp)
        return real_part(values, xp) if self._is_real else values


def laplacian(
    shape: int | Sequence[int],
    boundary: Boundary | Sequence[Boundary] = "reflect",
    *,
    spacing: float | Sequence[float] = 1.0,
    like: Array | None = None,
) -> SpectralMultiplier:
    """Return the Laplacian on a box, the sum of the second differences along its axes.

    Parameters
    ----------
    shape : int or tuple of int
        The sizes of the grid.
    boundary : {"reflect", "zero", "odd", "wrap"} or a sequence of them, default "reflect"
        How arrays go on beyond the edges, along all axes or by axis: see the notes of `SpectralMultiplier`.
    spacing : float or sequence of float, default 1
        The step of the grid, or that of each axis.
    like : array, optional
        Of the library, precision and device that the eigenvalues shall have; of half precision they are in single. By
        default NumPy's float64.

    Returns
    -------
    SpectralMultiplier
        With the entries ``1 / spacing^2`` for neighbours: no eigenvalue is positive, and with ``"reflect"`` and
        ``"wrap"`` along all axes one is zero.

    Raises
    ------
    ValueError
        If a size or a step is not positive, or `boundary` is none of these.
    TypeError
        If sizes are no integers, or `like` is no array of floating-point numbers.

    See Also
    --------
    scipy.sparse.linalg.LaplacianNd : The same matrix, of ``"reflect"`` (there Neumann), ``"zero"`` (Dirichlet) and
        ``"wrap"`` (periodic) along all axes.

    Examples
    --------
    Poisson's problem on a square whose sides are held at zero, and its determinant:

    >>> import numpy as np
    >>> import structmat as sm
    >>> L = sm.laplacian((30, 30), boundary="zero")
    >>> force = np.ones(900)
    >>> u = (-L).solve(force)
    >>> bool(np.allclose(-L @ u, force)), round(float((-L).slogdet().logabsdet), 3)
    (True, 1065.001)
    """
    owner = "laplacian"
    sizes = grid(shape if isinstance(shape, (tuple, list)) else (shape,), owner, "shape")
    names = _for_each_axis(boundary, len(sizes), owner, "boundary", tuple(TRANSFORMS))
    kinds = tuple(TRANSFORMS[name] for name in names)
    given: Any = spacing if np.ndim(spacing) == 1 else (spacing,) * len(sizes)
    if len(given) != len(sizes):
        raise ArgumentValueError(owner, "spacing", f"must be one number, or one for each of {len(sizes)} axes")
    steps = [positive(step, owner, "spacing") for step in given]
    xp: Namespace = numpy_namespace
    if like is not None:
        xp = namespace_of(owner, like)
        if not (hasattr(like, "dtype") and xp.isdtype(like.dtype, ("real floating", "complex floating"))):
            raise ArgumentTypeError(owner, "like", "must be an array of floating-point numbers")
    dtype = xp.float64 if like is None else precision_of(like.dtype, xp)
    device = None if like is None else device_of(like)
    total: Any = None
    held = held_sizes(sizes, kinds, real=True)
    for axis, (n, count, kind, step) in enumerate(zip(sizes, held, kinds, steps, strict=True)):
        k = np.arange(count)  # in double precision, whatever the dtype
        angle = {"dct2": k / n, "dst1": (k + 1) / (n + 1), "dst2": (k + 1) / n, FOURIER: 2 * k / n}[kind] * math.pi
        values = -((2 * np.sin(angle / 2) / step) ** 2)
        values = values.reshape([-1 if other == axis else 1 for other in range(len(sizes))])
        total = values if total is None else total + values
    return SpectralMultiplier(xp.asarray(total.ravel(), dtype=dtype, device=device), sizes, kinds)


def _for_each_axis(value: Any, count: int, owner: str, argument: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return a word for each axis, given as one for all or as a sequence."""
    words = (value,) * count if isinstance(value, str) or not isinstance(value, (tuple, list)) else tuple(value)
    if len(words) != count:
        text = f"must be one word, or one for each of the {count} axes, got {value!r}"
        raise ArgumentValueError(owner, argument, text)
    return tuple(one_of(word, owner, argument, choices) for word in words)


def checked_kernel(
    own: tuple[int, ...], sizes: Any, boundary: Any, owner: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the grid and the boundary of each of its axes, after a check of the sizes of a kernel for it."""
    sizes = grid(sizes, owner, "sizes")
    names = _for_each_axis(boundary, len(sizes), owner, "boundary", tuple(TRANSFORMS))
    if len(own) != len(sizes) or any(m % 2 == 0 or m > 2 * n - 1 for m, n in zip(own, sizes, strict=True)):
        limits = ", ".join(str(2 * n - 1) for n in sizes)
        text = f"must have odd lengths of at most {limits} along its axes for a grid of sizes {sizes}, got {own}"
        raise ArgumentValueError(owner, "kernel", text)
    return sizes, names


def _require_symmetric(kernel: Array, axis: int, owner: str, xp: Namespace) -> None:
    """Raise an error for a kernel that is not symmetric along an axis, if its values can be looked at."""
    if not can_raise_for_values(xp) or 0 in kernel.shape:
        return
    largest = xp.max(xp.abs(kernel))
    deviation = xp.max(xp.abs(kernel - xp.flip(kernel, axis=axis)))
    if bool(deviation > 100 * float(xp.finfo(kernel.dtype).eps) * largest):
        text = f"must be symmetric along the axis {axis}, unless its boundary is wrap"
        raise ArgumentValueError(owner, "kernel", f"{text}; for other kernels use GridConvolution.from_kernel")


def _wrapped(kernel: Array, period: int, xp: Namespace) -> Array:
    """Return a kernel of odd length, less than twice the period, as the first column of a circulant of that size."""
    centre = kernel.shape[-1] // 2
    before = xp.flip(padded(xp.flip(kernel[..., :centre], axis=-1), period, xp), axis=-1)
    return padded(kernel[..., centre:], period, xp) + before


def _of_symmetric(kernel: Array, n: int, kind: str, xp: Namespace) -> Array:
    """Return the eigenvalues ``sum(k[r] cos(r angle))`` of a symmetric kernel at the angles of a transform."""
    period = 2 * n + 2 if kind == "dst1" else 2 * n
    first = 0 if kind == "dct2" else 1
    column = _wrapped((kernel + xp.flip(kernel, axis=-1)) / 2, period, xp)
    if is_complex(kernel.dtype, xp):
        return spectrum(column, xp, real=False)[..., first : first + n]
    return xp.real(spectrum(column, xp, real=True))[..., first : first + n]
