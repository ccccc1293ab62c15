"""Dense matrices of structured operators, written entry by entry from the definitions and not by structmat."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.linalg

Values: TypeAlias = np.ndarray[Any, Any]
"""An array of NumPy; matrices have it as their last two axes, in double precision, behind the axes of a batch."""


def wide(v: Values) -> Values:
    """Return the numbers in double precision."""
    return v.astype("complex128" if v.dtype.kind == "c" else "float64")


def circulant_matrix(c: Values) -> Values:
    """Return the circulants with first columns `c`, by SciPy."""
    c, n = wide(c), c.shape[-1]
    return np.array([scipy.linalg.circulant(v) for v in c.reshape(-1, n)]).reshape(*c.shape, n)


def banded_circulant_matrix(entries: Values, n: int, start: int) -> Values:
    """Return the circulants whose first column has the entries from row `start` on, around its end."""
    i = np.arange(n)
    shifts = np.array([i == (i[:, None] - start - k) % n for k in range(entries.shape[-1])], dtype=float)
    return np.einsum("...k,kij->...ij", wide(entries), shifts)


def diagonal_matrix(d: Values) -> Values:
    """Return the diagonal matrices with the diagonals `d`."""
    d, n = wide(d), d.shape[-1]
    return np.array([np.diag(v) for v in d.reshape(-1, n)]).reshape(*d.shape, n)


def block_circulant_matrix(c: Values, shape: tuple[int, int]) -> Values:
    """Return the matrices of circulant blocks with first columns ``c[..., r, s, :]``, cropped to a shape."""
    rows = [[circulant_matrix(c[..., r, s, :]) for s in range(c.shape[-2])] for r in range(c.shape[-3])]
    return np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)[..., : shape[0], : shape[1]]


def fourier_matrix(n: int) -> Values:
    """Return the unitary Fourier matrix, by SciPy."""
    return scipy.linalg.dft(n, scale="sqrtn")


def multilevel_circulant_matrix(c: Values, sizes: tuple[int, ...]) -> Values:
    """Return the cyclic convolutions on a grid with first columns `c`."""
    points = list(np.ndindex(*sizes))
    dense = np.empty((*c.shape, len(points)), dtype=wide(c).dtype)
    for i, to in enumerate(points):
        for j, of in enumerate(points):
            step = [(a - b) % n for a, b, n in zip(to, of, sizes, strict=True)]
            dense[..., i, j] = c[..., np.ravel_multi_index(step, sizes)]
    return dense


def multilevel_toeplitz_matrix(t: Values, rows: tuple[int, ...], cols: tuple[int, ...]) -> Values:
    """Return the matrices of which each entry depends on the difference of two places on grids."""
    offsets = tuple(m + n - 1 for m, n in zip(rows, cols, strict=True))
    dense = np.empty((*t.shape[:-1], int(np.prod(rows)), int(np.prod(cols))), dtype=wide(t).dtype)
    for i, to in enumerate(np.ndindex(*rows)):
        for j, of in enumerate(np.ndindex(*cols)):
            step = [a - b + n - 1 for a, b, n in zip(to, of, cols, strict=True)]
            dense[..., i, j] = t[..., np.ravel_multi_index(step, offsets)]
    return dense


def toeplitz_inverse_matrix(x: Values, y: Values, flips: tuple[bool, bool]) -> Values:
    """Return the sums of products of triangular Toeplitz matrices that Gohberg and Semencul give, flipped."""

    def triangular(column: Values) -> Values:
        return np.tril(circulant_matrix(column))

    def shifted(tail: Values, first: float) -> Values:
        rows = wide(np.concatenate([np.full_like(tail[..., :1], first), tail[..., :0:-1]], axis=-1))
        return np.swapaxes(triangular(rows), -1, -2)

    dense = triangular(x) @ shifted(-y, 1) + triangular(y) @ shifted(x, 0)
    return dense[..., :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]


def block_toeplitz_matrix(c: Values, r: Values) -> Values:
    """Return the matrices of Toeplitz blocks with first block columns `c` and first block rows `r`."""
    batch = np.broadcast_shapes(c.shape[:-3], r.shape[:-3])
    c, r = (np.broadcast_to(wide(blocks), (*batch, *blocks.shape[-3:])) for blocks in (c, r))
    rows = [
        [c[..., i - j, :, :] if i >= j else r[..., j - i, :, :] for j in range(r.shape[-3])] for i in range(c.shape[-3])
    ]
    return np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)


def trigonometric_matrix(kind: str, n: int) -> Values:
    """Return an orthonormal cosine or sine transform: "dct" or "dst", and its type from 1 to 4."""
    j, k = np.arange(n), np.arange(n)[:, None]
    first, last = np.ones(n), np.ones(n)
    if n == 1:
        return np.ones((1, 1))
    first[0] = last[-1] = 0.5**0.5
    both = first * last
    C = {
        "dct1": lambda: np.outer(both, both) * np.cos(np.pi * j * k / (n - 1)) * (2 / (n - 1)) ** 0.5,
        "dct2": lambda: first[:, None] * np.cos(np.pi * (2 * j + 1) * k / (2 * n)) * (2 / n) ** 0.5,
        "dct4": lambda: np.cos(np.pi * (2 * j + 1) * (2 * k + 1) / (4 * n)) * (2 / n) ** 0.5,
        "dst1": lambda: np.sin(np.pi * (j + 1) * (k + 1) / (n + 1)) * (2 / (n + 1)) ** 0.5,
        "dst2": lambda: last[:, None] * np.sin(np.pi * (2 * j + 1) * (k + 1) / (2 * n)) * (2 / n) ** 0.5,
        "dst4": lambda: np.sin(np.pi * (2 * j + 1) * (2 * k + 1) / (4 * n)) * (2 / n) ** 0.5,
    }
    return trigonometric_matrix(f"{kind[:3]}2", n).T if kind[3] == "3" else C[kind]()


def kronecker_product(left: Values, right: Values) -> Values:
    """Return the Kronecker products of matrices, or of stacks of them."""
    entries = np.einsum("...ij,...kl->...ikjl", left, right)
    *batch, m, p, n, q = entries.shape
    return entries.reshape(*batch, m * p, n * q)


def multiplier_matrix(values: Values, sizes: tuple[int, ...], kinds: tuple[str, ...]) -> Values:
    """Return ``S^H diag(values) S`` of the transforms of each axis of a grid: Fourier's ("dft"), cosine or sine."""
    S: Values = np.eye(1)
    for n, kind in zip(sizes, kinds, strict=True):
        S = np.kron(S, fourier_matrix(n) if kind == "dft" else trigonometric_matrix(kind, n))
    dense: Values = S.conj().T @ (values[..., None] * S)
    return dense


def grid_convolution_matrix(
    kernel: Values, own: tuple[int, ...], sizes: tuple[int, ...], boundary: tuple[str, ...]
) -> Values:
    """Return convolutions on a grid: each entry of the kernel where the array beyond the edges has its entries."""
    each_entry: Values = np.ones((1, 1, 1))
    for n, m, name in zip(sizes, own, boundary, strict=True):
        part = np.zeros((m, n, n))
        for s, i in np.ndindex(m, n):
            j, sign = _continued(i - s + m // 2, n, name)
            if 0 <= j < n:
                part[s, i, j] += sign
        each_entry = np.stack([np.kron(a, b) for a in each_entry for b in part])
    return np.einsum("...k,kij->...ij", wide(kernel), each_entry)


def _continued(j: int, n: int, boundary: str) -> tuple[int, int]:
    """Return the index in an array of length n that stands for an index beyond its edges, and its sign."""
    if boundary == "wrap":
        return j % n, 1
    if 0 <= j < n:
        return j, 1
    beyond = -1 - j if j < 0 else 2 * n - 1 - j
    if boundary == "zero":  # odd about the places next to the edges, where the array is zero
        beyond += -1 if j < 0 else 1
    return beyond, 1 if boundary == "reflect" else -1
