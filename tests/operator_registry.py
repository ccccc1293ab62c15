"""The registry of operators: strategies that draw an operator together with its dense reference.

An entry draws NumPy vectors and returns ``(make, dense)``: ``make(asarray)`` builds the operator on any array library,
``dense`` is its matrix, written here from the definition and not by structmat. To add an operator, add one entry: every
law of `tests/operators/test_laws.py` then holds it to its reference on every backend, and the capability table of the
docs gains a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st

import structmat as sm
from structmat.extend import closed_forms
from tests.backends import ENGINES, by_engine
from tests.operators.outsiders import DirectSum, ToeplitzPlusHankel

DTYPES = ("float32", "float64", "complex64", "complex128")
BATCHES = ((), (), (), (2,), (1,), (2, 3))
FIXED = (("float32", (), 1), ("complex128", (2,), 2))
"""Dtype, batch and seed of the shapes, for a library that compiles each operation anew for each of them."""

CLOSED_FORMS = frozenset(closed_forms())


def by(*hooks: str) -> frozenset[str]:
    """Return the methods for which one of these hooks suffices."""
    return frozenset(name for name, form in closed_forms().items() if form.hooks[0] in hooks)


THROUGH_FACTORS = by("_inv", "_determinant_factors")
ENTRYWISE = by("_diagonal")
OF_ENTRIES: frozenset[Any] = frozenset({"fro", 1, np.inf})
"""Norms that need no singular values."""
FUNCTIONS = by("_spectral_function")
SPECTRAL = CLOSED_FORMS - FUNCTIONS
UNITARY = by("_inv", "_pinv", "_svdvals", "_norm")
NEED_SQUARE = THROUGH_FACTORS | FUNCTIONS | by("_eig")


def arguments_of(method: str, right: Any) -> tuple[Any, ...]:
    """Return what a method with a closed form is called with, a right-hand side if it takes one."""
    given = dict.fromkeys(("solve", "inv_matvec", "lstsq"), (right,)) | {
        "fractional_matrix_power": (0.5,),
        "funm": (lambda values: values * values,),
    }
    return given.get(method, ())


Make = Callable[[Callable[[np.ndarray], Any]], sm.LinearOperator]


@dataclass(frozen=True)
class Sample:
    """An operator, on any library, its dense matrix in double precision, and the dtype of its vectors."""

    make: Make
    dense: np.ndarray
    dtype: np.dtype


@dataclass(frozen=True)
class Entry:
    """How to draw an operator of one kind, and which linear algebra it claims to have in closed form."""

    name: str
    draw: Callable[..., Sample]
    closed_forms: frozenset[str]
    norms: frozenset[Any] = frozenset({"fro", "nuc", 1, 2, np.inf})
    is_variant: bool = False
    """Whether another entry shows the same class, in the table of the docs and to what compiles each shape."""
    is_own: bool = False
    """Whether it is an operator of the tests' own, which the table of the docs does not show."""
    keeps_identity: bool = True
    """Whether it takes in multiples of the identity, if it has eigenvalues and an inverse."""

    def samples(self, *, dtype: str | None = None) -> st.SearchStrategy[Sample]:
        """Operators of this kind."""
        return st.builds(
            lambda seed, dtype, batch: self.draw(Vectors(seed, dtype, batch)),
            st.integers(0, 2**32 - 1),
            st.just(dtype) if dtype else st.sampled_from(DTYPES),
            st.sampled_from(BATCHES),
        )

    def fixed_sample(self, seed: int, which: int, *, dtype: str | None = None) -> Sample:
        """An operator of one of the fixed shapes and dtypes; the seed is that of its values."""
        own, batch, shapes = FIXED[which % len(FIXED)]
        return self.draw(Vectors(seed, dtype or own, batch, shapes=shapes))


class Vectors:
    """Draws vectors of one dtype and batch shape from one seed; now and then it leaves a batch axis out.

    Shapes come from a seed of their own where one is given.
    """

    def __init__(self, seed: int, dtype: str, batch: tuple[int, ...] = (), *, shapes: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.shapes = self.rng if shapes is None else np.random.default_rng(shapes)
        self.dtype = np.dtype(dtype)
        self.batch = batch

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high)."""
        return int(self.shapes.integers(low, high))

    def size(self) -> int:
        return int(self.shapes.choice((1, 2, 3, 4, 5, 7, 8, 9)))

    def __call__(self, *core: int) -> np.ndarray:
        batch = self.batch if self.shapes.random() < 0.7 else self.batch[:0]
        values = self.rng.standard_normal((*batch, *core))
        if self.dtype.kind == "c":
            values = values + 1j * self.rng.standard_normal(values.shape)
        return values.astype(self.dtype)


def wide(v: np.ndarray) -> np.ndarray:
    return v.astype("complex128" if v.dtype.kind == "c" else "float64")


def circulant_matrix(c: np.ndarray) -> np.ndarray:
    """Dense circulants with first columns c, by SciPy."""
    c, n = wide(c), c.shape[-1]
    return np.array([scipy.linalg.circulant(v) for v in c.reshape(-1, n)]).reshape(*c.shape, n)


def diagonal_matrix(d: np.ndarray) -> np.ndarray:
    d, n = wide(d), d.shape[-1]
    return np.array([np.diag(v) for v in d.reshape(-1, n)]).reshape(*d.shape, n)


def block_circulant_matrix(c: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows = [[circulant_matrix(c[..., r, s, :]) for s in range(c.shape[-2])] for r in range(c.shape[-3])]
    return np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)[..., : shape[0], : shape[1]]


def fourier_matrix(n: int) -> np.ndarray:
    return scipy.linalg.dft(n, scale="sqrtn")


def _circulant(v: Vectors) -> Sample:
    c = v(v.size())
    return Sample(lambda a: sm.Circulant(a(c)), circulant_matrix(c), v.dtype)


def _spectral(v: Vectors) -> Sample:
    c = v(v.size())
    return Sample(lambda a: sm.Circulant(a(c)).to_spectral(), circulant_matrix(c), v.dtype)


def _banded_circulant(v: Vectors) -> Sample:
    m, n, start = v.integer(1, 4), v.size(), v.integer(-3, 3)
    entries, i = v(m), np.arange(n)
    shifts = np.array([i == (i[:, None] - start - k) % n for k in range(m)], dtype=float)
    dense = np.einsum("...k,kij->...ij", wide(entries), shifts)
    return Sample(lambda a: sm.BandedCirculant(a(entries), n, start), dense, v.dtype)


def multilevel_circulant_matrix(c: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Dense matrices, entry by entry from the definition."""
    points = list(np.ndindex(*sizes))
    dense = np.empty((*c.shape, len(points)), dtype=wide(c).dtype)
    for i, to in enumerate(points):
        for j, of in enumerate(points):
            step = [(a - b) % n for a, b, n in zip(to, of, sizes, strict=True)]
            dense[..., i, j] = c[..., np.ravel_multi_index(step, sizes)]
    return dense


def _multilevel(v: Vectors) -> Sample:
    sizes = ((1, 1), (3, 1), (2, 3), (4, 2), (3, 3), (2, 2, 2))[v.integer(0, 6)]
    c = v(int(np.prod(sizes)))
    return Sample(lambda a: sm.MultilevelCirculant(a(c), sizes), multilevel_circulant_matrix(c, sizes), v.dtype)


def multilevel_toeplitz_matrix(t: np.ndarray, rows: tuple[int, ...], cols: tuple[int, ...]) -> np.ndarray:
    """Dense matrices, entry by entry from the definition."""
    offsets = tuple(m + n - 1 for m, n in zip(rows, cols, strict=True))
    dense = np.empty((*t.shape[:-1], int(np.prod(rows)), int(np.prod(cols))), dtype=wide(t).dtype)
    for i, to in enumerate(np.ndindex(*rows)):
        for j, of in enumerate(np.ndindex(*cols)):
            step = [a - b + n - 1 for a, b, n in zip(to, of, cols, strict=True)]
            dense[..., i, j] = t[..., np.ravel_multi_index(step, offsets)]
    return dense


def _multilevel_toeplitz(v: Vectors) -> Sample:
    rows, cols = (
        ((2, 3), (2, 3)), ((3, 2), (1, 4)), ((1, 1), (1, 1)), ((4, 1), (4, 1)), ((2, 2, 2), (2, 2, 2)), ((1, 4), (2, 3))
    )[v.integer(0, 6)]  # fmt: skip
    t = v(int(np.prod([m + n - 1 for m, n in zip(rows, cols, strict=True)])))
    dense = multilevel_toeplitz_matrix(t, rows, cols)
    return Sample(lambda a: sm.MultilevelToeplitz(a(t), rows, cols), dense, v.dtype)


def _diagonal(v: Vectors) -> Sample:
    d = v(v.size())
    return Sample(lambda a: sm.Diagonal(a(d)), diagonal_matrix(d), v.dtype)


def _square_blocks(v: Vectors) -> Sample:
    p, b = v.integer(1, 4), v.integer(1, 5)
    c = v(p, p, b)
    return Sample(lambda a: sm.BlockCirculant(a(c)), block_circulant_matrix(c, (p * b, p * b)), v.dtype)


def _rectangular_blocks(v: Vectors) -> Sample:
    p, b = v.integer(1, 4), v.integer(1, 5)
    q = p + v.integer(1, 3)
    if v.rng.random() < 0.5:
        p, q = q, p
    c = v(p, q, b)
    return Sample(lambda a: sm.BlockCirculant(a(c)), block_circulant_matrix(c, (p * b, q * b)), v.dtype)


def _cropped(v: Vectors) -> tuple[np.ndarray, tuple[int, int]]:
    p, q, b = v.integer(1, 4), v.integer(1, 4), v.integer(2, 6)
    rows, cols = p * b - v.integer(0, b), q * b - v.integer(0, b)
    if (rows, cols) == (p * b, q * b):
        rows -= 1
    return v(p, q, b), (rows, cols)


def _cropped_blocks(v: Vectors) -> Sample:
    c, shape = _cropped(v)
    return Sample(lambda a: sm.BlockCirculant(a(c), shape), block_circulant_matrix(c, shape), v.dtype)


def _dcd(v: Vectors) -> Sample:
    n = v.size()
    left, c, right = v(n), v(n), v(n)
    dense = diagonal_matrix(left) @ circulant_matrix(c) @ diagonal_matrix(right)
    return Sample(lambda a: sm.CDDProduct.from_vectors(a(left), a(c), a(right)), dense, v.dtype)


def _long_cdd(v: Vectors) -> Sample:
    n = v.size()
    vectors = [v(n) for _ in range(v.integer(4, 7))]
    first = str(v.rng.choice(["diagonal", "circulant"]))
    kinds = (circulant_matrix, diagonal_matrix) if first == "circulant" else (diagonal_matrix, circulant_matrix)
    dense = kinds[0](vectors[0])
    for i, vector in enumerate(vectors[1:], start=1):
        dense = dense @ kinds[i % 2](vector)
    return Sample(lambda a: sm.CDDProduct.from_vectors(*map(a, vectors), first=first), dense, v.dtype)


def _rectangular_cdd(v: Vectors) -> Sample:
    c, shape = _cropped(v)
    left, right = v(shape[0]), v(shape[1])
    dense = diagonal_matrix(left) @ block_circulant_matrix(c, shape) @ diagonal_matrix(right)
    return Sample(lambda a: sm.CDDProduct.from_vectors(a(left), a(c), a(right), block=True), dense, v.dtype)


def _corner_vectors(
    v: Vectors, matrix: Callable[..., np.ndarray], *, square: bool
) -> tuple[list[np.ndarray], np.ndarray]:
    """First column and a row, or for square ones now and then the column only, beside what SciPy makes of them."""
    vectors = [v(n := v.size())]
    if not square or v.rng.random() < 0.7:
        vectors.append(v(n if square else n + v.integer(1, 4)))
    if not square and v.rng.random() < 0.5:
        vectors.reverse()
    batch = np.broadcast_shapes(*(u.shape[:-1] for u in vectors))
    rows = [np.broadcast_to(wide(u), (*batch, u.shape[-1])).reshape(-1, u.shape[-1]) for u in vectors]
    dense = np.array([matrix(*pair) for pair in zip(*rows, strict=True)])
    return vectors, dense.reshape(*batch, *dense.shape[1:])


def _toeplitz(v: Vectors, *, square: bool) -> Sample:
    vectors, dense = _corner_vectors(v, scipy.linalg.toeplitz, square=square)
    return Sample(lambda a: sm.Toeplitz(*map(a, vectors)), dense, v.dtype)


def _hankel(v: Vectors, *, square: bool) -> Sample:
    vectors, dense = _corner_vectors(v, scipy.linalg.hankel, square=square)
    return Sample(lambda a: sm.Hankel(*map(a, vectors)), dense, v.dtype)


def block_toeplitz_matrix(c: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Dense matrices, block by block from the definition."""
    batch = np.broadcast_shapes(c.shape[:-3], r.shape[:-3])
    c, r = (np.broadcast_to(wide(blocks), (*batch, *blocks.shape[-3:])) for blocks in (c, r))
    rows = [
        [c[..., i - j, :, :] if i >= j else r[..., j - i, :, :] for j in range(r.shape[-3])] for i in range(c.shape[-3])
    ]
    return np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)


def _block_toeplitz(v: Vectors, *, square: bool) -> Sample:
    m, p = v.integer(1, 5), v.integer(1, 4)
    if square:
        n, q = m, p
    else:
        n, q = m + v.integer(0, 3), p + v.integer(1, 3)
        if v.shapes.random() < 0.5:
            (m, p), (n, q) = (n, q), (m, p)
    c = v(m, p, q)
    if square and v.shapes.random() < 0.3:
        return Sample(lambda a: sm.BlockToeplitz(a(c)), block_toeplitz_matrix(c, c.swapaxes(-2, -1).conj()), v.dtype)
    r = v(n, p, q)
    return Sample(lambda a: sm.BlockToeplitz(a(c), a(r)), block_toeplitz_matrix(c, r), v.dtype)


def _toeplitz_inverse(v: Vectors, *, flips: tuple[bool, bool]) -> Sample:
    n = v.size()
    x, y = v(n), v(n)

    def triangular(column: np.ndarray) -> np.ndarray:
        return np.tril(circulant_matrix(column))

    def shifted(tail: np.ndarray, first: float) -> np.ndarray:
        rows = wide(np.concatenate([np.full_like(tail[..., :1], first), tail[..., :0:-1]], axis=-1))
        return np.swapaxes(triangular(rows), -1, -2)

    dense = triangular(x) @ shifted(-y, 1) + triangular(y) @ shifted(x, 0)
    dense = dense[..., :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    return Sample(lambda a: sm.ToeplitzInverse(a(x), a(y), flips), dense, v.dtype)


def _identity(v: Vectors) -> Sample:
    n = v.size()
    return Sample(lambda a: sm.Identity(n), np.eye(n), v.dtype)


def _fourier(v: Vectors) -> Sample:
    n, blocks, inverse, axes = v.size(), v.integer(1, 4), bool(v.rng.integers(2)), None
    F = fourier_matrix(n)
    if v.shapes.random() < 0.3:
        axes = (None, 0)[v.integer(0, 2)]
        n, F = (n, 3), np.kron(F, fourier_matrix(3) if axes is None else np.eye(3))
    F = np.kron(np.eye(blocks), F)
    return Sample(lambda a: sm.Fourier(n, blocks, inverse, axes), F.conj() if inverse else F, v.dtype)


def trigonometric_matrix(kind: str, n: int) -> np.ndarray:
    """Dense cosine and sine transforms, entry by entry from the definition."""
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


def _trigonometric_transform(v: Vectors) -> Sample:
    n, of_type, axes = v.size(), v.integer(1, 5), None
    kind, name = ((sm.CosineTransform, "dct"), (sm.SineTransform, "dst"))[v.integer(0, 2)]
    dense = trigonometric_matrix(f"{name}{of_type}", n)
    if v.shapes.random() < 0.3:
        n, axes, dense = (n, 3), 0, np.kron(dense, np.eye(3))
    return Sample(lambda a: kind(n, of_type, axes), dense, v.dtype)


MIXED = (
    ((8,), ("dct2",)), ((7,), ("dst1",)), ((1,), ("dst2",)), ((3, 4), ("dct2", "dst1")), ((2, 3), ("dst2", "dct4")),
    ((5,), ("dct1",)), ((3, 2), ("dst3", "dct3")), ((4,), ("dft",)), ((2, 2, 3), ("dft", "dct2", "dft")),
    ((4, 3), ("dft", "dst4")), ((3, 4), ("dct2", "dft")), ((3, 4), ("dft", "dft")),
)  # fmt: skip
"""Grids of any sizes, with a transform for each axis."""


def _multiplier(v: Vectors) -> Sample:
    """By all eigenvalues, from which those are taken that are held."""
    sizes, kinds = MIXED[v.integer(0, len(MIXED))]
    values, count = v(int(np.prod(sizes))), len(sizes)
    real = v.dtype.kind != "c"
    axes = [axis for axis in range(-count, 0) if kinds[axis] == "dft"]
    values = values.reshape(*values.shape[:-1], *sizes)
    if axes:  # the transform of an array that is real if the matrix is
        complex_dtype = {"float32": "complex64", "float64": "complex128"}.get(v.dtype.name, v.dtype.name)
        values = np.fft.fftn(wide(values), axes=axes).astype(complex_dtype)
    held = np.take(values, range(sizes[axes[-1]] // 2 + 1), axis=axes[-1]) if axes and real else values
    batch = values.shape[: values.ndim - count]
    flat, eigenvalues = held.reshape(*batch, -1), wide(values).reshape(*batch, -1)
    S = np.eye(1)
    for n, kind in zip(sizes, kinds, strict=True):
        S = np.kron(S, fourier_matrix(n) if kind == "dft" else trigonometric_matrix(kind, n))
    dense = S.conj().T @ (eigenvalues[..., None] * S)
    dense = dense.real if real else dense
    return Sample(lambda a: sm.SpectralMultiplier(a(flat), sizes, kinds, real), dense, v.dtype)


def _grid_convolution(v: Vectors) -> Sample:
    """Dense matrices: each entry of the kernel at each place, where the array beyond the edges has its entries."""
    names = ("reflect", "zero", "odd", "wrap")
    sizes, own = (((5,), (3,)), ((4,), (7,)), ((1,), (1,)), ((3, 4), (3, 5)), ((2, 3), (1, 3)))[v.integer(0, 5)]
    boundary = tuple(names[v.integer(0, 4)] for _ in sizes)
    kernel = v(int(np.prod(own)))
    parts = []
    for n, m, name in zip(sizes, own, boundary, strict=True):
        part = np.zeros((m, n, n))
        for s, i in np.ndindex(m, n):
            j, sign = i - s + m // 2, 1
            if name == "wrap":
                j %= n
            elif not 0 <= j < n:
                beyond = -1 - j if j < 0 else 2 * n - 1 - j
                j = beyond if name != "zero" else beyond + (-1 if j < 0 else 1)
                sign = 1 if name == "reflect" else -1
            if 0 <= j < n:
                part[s, i, j] += sign
        parts.append(part)
    each_entry = parts[0]
    for part in parts[1:]:
        each_entry = np.stack([np.kron(a, b) for a in each_entry for b in part])
    dense = np.einsum("...k,kij->...ij", wide(kernel), each_entry)
    return Sample(lambda a: sm.GridConvolution(a(kernel), own, sizes, boundary), dense, v.dtype)


def _product(v: Vectors) -> Sample:
    p, b = v.integer(1, 4), v.integer(1, 5)
    blocks, c = v(p, p, b), v(p * b)
    dense = block_circulant_matrix(blocks, (p * b, p * b)) @ circulant_matrix(c)
    return Sample(lambda a: sm.BlockCirculant(a(blocks)) @ sm.Circulant(a(c)), dense, v.dtype)


def _sum(v: Vectors) -> Sample:
    n = v.size()
    c, d = v(n), v(n)
    return Sample(lambda a: sm.Circulant(a(c)) + sm.Diagonal(a(d)), circulant_matrix(c) + diagonal_matrix(d), v.dtype)


def _scaled(v: Vectors) -> Sample:
    inner, factor = _product(v), v()
    return Sample(lambda a: sm.Scaled(inner.make(a), a(factor)), inner.dense * wide(factor)[..., None, None], v.dtype)


def _scaled_identity(v: Vectors) -> Sample:
    n, factor = v.size(), v()
    if factor.ndim == 0 and v.rng.random() < 0.5:  # a number, which fits any library
        number = factor.item()
        return Sample(lambda a: sm.Scaled(sm.Identity(n), number), number * np.eye(n), v.dtype)
    dense = wide(factor)[..., None, None] * np.eye(n)
    return Sample(lambda a: sm.Scaled(sm.Identity(n), a(factor)), dense, v.dtype)


def _submatrix(v: Vectors, *, principal: bool) -> Sample:
    sample = _toeplitz(v, square=principal)
    rows, cols = (v.shapes.permutation(size)[: v.integer(1, size + 1)] for size in sample.dense.shape[-2:])
    cols = rows if principal else cols
    dense = sample.dense[..., rows[:, None], cols]
    return Sample(lambda a: sample.make(a)[rows][:, cols], dense, v.dtype)


def kronecker_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Dense Kronecker products of matrices, or of stacks of them."""
    entries = np.einsum("...ij,...kl->...ikjl", left, right)
    *batch, m, p, n, q = entries.shape
    return entries.reshape(*batch, m * p, n * q)


def _dense(v: Vectors, *, square: bool) -> Sample:
    m = v.size()
    matrix = v(m, m if square else m + v.integer(1, 4))
    return Sample(lambda a: sm.Dense(a(matrix)), wide(matrix), v.dtype)


def _eigendecomposition(v: Vectors) -> Sample:
    n = v.size()
    values, vectors = v(n), np.linalg.qr(v(n, n))[0]
    V = wide(vectors)
    dense = V * wide(values)[..., None, :] @ np.swapaxes(V, -1, -2).conj()
    return Sample(lambda a: sm.Eigendecomposition(a(values), sm.Dense(a(vectors))), dense, v.dtype)


def _kronecker(v: Vectors) -> Sample:
    """Of a circulant and a diagonal matrix, which have closed forms of all kinds."""
    c, d = v(v.integer(1, 5)), v(v.integer(1, 5))
    dense = kronecker_product(circulant_matrix(c), diagonal_matrix(d))
    return Sample(lambda a: sm.Kronecker(sm.Circulant(a(c)), sm.Diagonal(a(d))), dense, v.dtype)


def _kronecker_plus_identity(v: Vectors) -> Sample:
    sample, shift = _kronecker(v), v()
    n = sample.dense.shape[-1]
    dense = sample.dense + wide(shift)[..., None, None] * np.eye(n)
    return Sample(lambda a: sample.make(a) + sm.Scaled(sm.Identity(n), a(shift)), dense, v.dtype)


def _rectangular_kronecker(v: Vectors) -> Sample:
    """Of three factors, one of them dense."""
    samples = [_toeplitz(v, square=False), _dense(v, square=False)]
    n = v.integer(1, 3)
    dense = kronecker_product(kronecker_product(samples[0].dense, np.eye(n)), samples[1].dense)
    make = lambda a: sm.Kronecker(samples[0].make(a), sm.Identity(n), samples[1].make(a))
    return Sample(make, dense, v.dtype)


def _kronecker_sum(v: Vectors) -> Sample:
    c, d, m = v(v.integer(1, 4)), v(v.integer(1, 4)), v.integer(1, 3)
    C, D = circulant_matrix(c), diagonal_matrix(d)
    eye = [np.eye(n) for n in (C.shape[-1], m, D.shape[-1])]
    of_first = kronecker_product(C, np.kron(eye[1], eye[2]))
    of_last = kronecker_product(np.kron(eye[0], eye[1]), D)
    make = lambda a: sm.KroneckerSum(sm.Circulant(a(c)), sm.Identity(m), sm.Diagonal(a(d)))
    return Sample(make, of_first + np.eye(of_last.shape[-1]) + of_last, v.dtype)


def _direct_sum(v: Vectors) -> Sample:
    """Of a circulant and a diagonal matrix, which have closed forms of all kinds."""
    first, d = _circulant(v), v(v.integer(1, 5))
    D = diagonal_matrix(d)
    m, k = first.dense.shape[-1], d.shape[-1]
    batch = np.broadcast_shapes(first.dense.shape[:-2], D.shape[:-2])
    dense = np.zeros((*batch, m + k, m + k), np.result_type(first.dense, D))
    dense[..., :m, :m], dense[..., m:, m:] = first.dense, D
    return Sample(lambda a: DirectSum(first.make(a), sm.Diagonal(a(d))), dense, v.dtype)


def _toeplitz_plus_hankel(v: Vectors, *, square: bool) -> Sample:
    m = v.size()
    n = m if square else m + v.integer(1, 4)
    if v.shapes.random() < 0.5:
        m, n = n, m
    t, h = v(m + n - 1), v(m + n - 1)
    i, j = np.arange(m)[:, None], np.arange(n)
    dense = wide(t)[..., n - 1 + i - j] + wide(h)[..., i + j]
    return Sample(lambda a: ToeplitzPlusHankel(a(t), a(h), m), dense, v.dtype)


def prepared(entry: Entry) -> Entry:
    """The same operators prepared, by any engine, with their dense matrix for small products or without."""

    def draw(v: Vectors) -> Sample:
        sample = entry.draw(v)
        engine, direct = str(v.rng.choice(ENGINES)), bool(v.rng.integers(2))

        def make(a: Callable[[np.ndarray], Any]) -> sm.LinearOperator:
            with by_engine(engine):
                P = sample.make(a).prepare()
            return P if direct else replace(P, most_dense=0)

        return replace(sample, make=make)

    return replace(entry, name=f"Prepared {entry.name}", draw=draw, is_variant=True)


REGISTRY = [
    Entry("Circulant", _circulant, CLOSED_FORMS),
    Entry("SpectralCirculant", _spectral, CLOSED_FORMS),
    Entry("BandedCirculant", _banded_circulant, CLOSED_FORMS),
    Entry("MultilevelCirculant", _multilevel, CLOSED_FORMS),
    Entry("SpectralMultiplier", _multiplier, CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    Entry("GridConvolution", _grid_convolution, ENTRYWISE, frozenset()),
    Entry("Diagonal", _diagonal, CLOSED_FORMS),
    Entry("BlockCirculant, square", _square_blocks, SPECTRAL),
    Entry("BlockCirculant, p x q", _rectangular_blocks, SPECTRAL - NEED_SQUARE),
    Entry("BlockCirculant, cropped", _cropped_blocks, ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("CDDProduct, D C D", _dcd, THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("CDDProduct, longer", _long_cdd, THROUGH_FACTORS, frozenset()),
    Entry("CDDProduct, rectangular", _rectangular_cdd, ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("Toeplitz, square", partial(_toeplitz, square=True), THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("Toeplitz, m x n", partial(_toeplitz, square=False), ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("MultilevelToeplitz", _multilevel_toeplitz, ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry(
        "BlockToeplitz, square",
        partial(_block_toeplitz, square=True),
        THROUGH_FACTORS | ENTRYWISE | {"norm"},
        OF_ENTRIES,
    ),
    Entry(
        "BlockToeplitz, p x q",
        partial(_block_toeplitz, square=False),
        ENTRYWISE | {"norm"},
        OF_ENTRIES,
        is_variant=True,
    ),
    Entry("Hankel, square", partial(_hankel, square=True), THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("Hankel, m x n", partial(_hankel, square=False), ENTRYWISE | {"norm"}, OF_ENTRIES),
    Entry("ToeplitzInverse", partial(_toeplitz_inverse, flips=(False, False)), ENTRYWISE),
    Entry("ToeplitzInverse, transposed", partial(_toeplitz_inverse, flips=(True, True)), ENTRYWISE, is_variant=True),
    Entry("ToeplitzInverse, of Hankel", partial(_toeplitz_inverse, flips=(True, False)), frozenset(), is_variant=True),
    Entry("Identity", _identity, CLOSED_FORMS),
    Entry(
        "Fourier",
        _fourier,
        UNITARY,
        frozenset({"fro", 2, "nuc"}),
    ),
    Entry("CosineTransform, SineTransform", _trigonometric_transform, UNITARY, frozenset({"fro", 2, "nuc"})),
    Entry("Product", _product, THROUGH_FACTORS, frozenset()),
    Entry("Sum", _sum, ENTRYWISE, frozenset()),
    Entry("Scaled", _scaled, THROUGH_FACTORS, frozenset()),
    Entry("Submatrix, the same rows and columns", partial(_submatrix, principal=True), ENTRYWISE, frozenset()),
    Entry("Submatrix", partial(_submatrix, principal=False), frozenset(), frozenset()),
    Entry("Scaled identity", _scaled_identity, CLOSED_FORMS, is_variant=True),
    Entry("Dense", partial(_dense, square=True), SPECTRAL),
    Entry("Eigendecomposition", _eigendecomposition, CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    Entry("Kronecker", _kronecker, CLOSED_FORMS, keeps_identity=False),
    Entry("Kronecker, rectangular", _rectangular_kronecker, by("_norm"), OF_ENTRIES, is_variant=True),
    Entry(
        "Kronecker plus identity", _kronecker_plus_identity, CLOSED_FORMS, frozenset({"fro", 2, "nuc"}), is_variant=True
    ),
    Entry("KroneckerSum", _kronecker_sum, CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    Entry(
        "DirectSum",
        _direct_sum,
        CLOSED_FORMS - FUNCTIONS - by("_pinv"),
        is_variant=True,
        is_own=True,
        keeps_identity=False,
    ),
    Entry("ToeplitzPlusHankel", partial(_toeplitz_plus_hankel, square=True), ENTRYWISE, frozenset(), is_own=True),
    Entry(
        "ToeplitzPlusHankel, m x n",
        partial(_toeplitz_plus_hankel, square=False),
        ENTRYWISE,
        frozenset(),
        is_variant=True,
        is_own=True,
    ),
]
PREPARED = {
    "Circulant", "MultilevelCirculant", "BlockCirculant, cropped", "CDDProduct, D C D",
    "Toeplitz, square", "ToeplitzInverse", "Submatrix", "Kronecker", "ToeplitzPlusHankel",
}  # fmt: skip
PLAIN = REGISTRY.copy()
REGISTRY += [prepared(entry) for entry in REGISTRY if entry.name in PREPARED]


def each(entries: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


every_entry = each(REGISTRY)

QUICK_TO_COMPILE = {"Diagonal", "Eigendecomposition", "Identity", "Sum"}
SLOW_TO_COMPILE = tuple(entry.name for entry in REGISTRY if entry.name not in QUICK_TO_COMPILE)
"""The entries with a law that takes JAX more than 0.5 s of the processor."""

every_class = each([entry for entry in REGISTRY if not entry.is_variant])
"""For what takes seconds for each of them, and depends on the class alone."""

every_entry_of_the_package = each([entry for entry in REGISTRY if not entry.is_own])
"""For files, which hold operators of the package alone."""
