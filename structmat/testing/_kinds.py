"""How an operator of each kind is drawn, together with its dense matrix.

A function draws sizes and NumPy vectors, and returns a `Sample`: ``make(asarray)`` builds the operator on any array
library, ``dense`` is its matrix, written from the definition and not by the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.linalg

from structmat.operators import (
    BandedCirculant,
    BlockCirculant,
    BlockToeplitz,
    CDDProduct,
    Circulant,
    CosineTransform,
    Dense,
    Diagonal,
    Eigendecomposition,
    Fourier,
    GridConvolution,
    Hankel,
    Identity,
    Kronecker,
    KroneckerSum,
    MultilevelCirculant,
    MultilevelToeplitz,
    Product,
    Scaled,
    SineTransform,
    SpectralCirculant,
    SpectralMultiplier,
    Submatrix,
    Sum,
    Toeplitz,
    ToeplitzInverse,
)
from structmat.testing._drawing import Sample, Vectors
from structmat.testing._references import (
    Values,
    banded_circulant_matrix,
    block_circulant_matrix,
    block_toeplitz_matrix,
    circulant_matrix,
    diagonal_matrix,
    fourier_matrix,
    grid_convolution_matrix,
    kronecker_product,
    multilevel_circulant_matrix,
    multilevel_toeplitz_matrix,
    multiplier_matrix,
    toeplitz_inverse_matrix,
    trigonometric_matrix,
    wide,
)

# Circulants


def _circulant(v: Vectors) -> Sample:
    c = v(v.size())
    return Sample(lambda a: Circulant(a(c)), circulant_matrix(c), v.dtype)


def _spectral(v: Vectors) -> Sample:
    c = v(v.size())
    return Sample(lambda a: Circulant(a(c)).to_spectral(), circulant_matrix(c), v.dtype)


def _banded_circulant(v: Vectors) -> Sample:
    m, n, start = v.integer(1, 4), v.size(), v.choice((0, 1, 2, -1, -2, -3))
    entries = v(m)
    dense = banded_circulant_matrix(entries, n, start)
    return Sample(lambda a: BandedCirculant(a(entries), n, start), dense, v.dtype)


def _multilevel(v: Vectors) -> Sample:
    n = v.composite()
    sizes = v.factors(n, v.integer(2, 4))
    c = v(n)
    return Sample(lambda a: MultilevelCirculant(a(c), sizes), multilevel_circulant_matrix(c, sizes), v.dtype)


def _square_blocks(v: Vectors) -> Sample:
    n = v.composite()
    b, p = v.factors(n, 2)
    c = v(p, p, b)
    return Sample(lambda a: BlockCirculant(a(c)), block_circulant_matrix(c, (n, n)), v.dtype)


def _rectangular_blocks(v: Vectors) -> Sample:
    if v.shape is None:
        b, least = v.integer(1, 5), v.integer(1, 4)
        p, q = least, least + v.integer(1, 3)
        if v.chance(0.5):
            p, q = q, p
    else:
        b, _ = v.factors(math.gcd(*v.shape), 2)
        p, q = v.shape[0] // b, v.shape[1] // b
    c = v(p, q, b)
    return Sample(lambda a: BlockCirculant(a(c)), block_circulant_matrix(c, (p * b, q * b)), v.dtype)


def _cropped(v: Vectors) -> tuple[Values, tuple[int, int]]:
    """Return first columns of circulant blocks, and a shape that cuts some of these."""
    rows, cols = (v.size(), v.size()) if v.shape is None else v.shape
    sides = [b for b in range(2, max(rows, cols) + 2) if rows % b or cols % b]
    b = v.choice(sides[:5])
    return v(-(-rows // b), -(-cols // b), b), (rows, cols)


def _cropped_blocks(v: Vectors) -> Sample:
    c, shape = _cropped(v)
    return Sample(lambda a: BlockCirculant(a(c), shape), block_circulant_matrix(c, shape), v.dtype)


# Diagonals


def _diagonal(v: Vectors) -> Sample:
    d = v(v.size())
    return Sample(lambda a: Diagonal(a(d)), diagonal_matrix(d), v.dtype)


def _identity(v: Vectors) -> Sample:
    n = v.size()
    return Sample(lambda _: Identity(n), np.eye(n), v.dtype)


def _scaled_identity(v: Vectors) -> Sample:
    n, factor = v.size(), v()
    dense = wide(factor)[..., None, None] * np.eye(n)
    if factor.ndim == 0 and v.chance(0.5):  # a number, which fits any library
        number = factor.item()
        return Sample(lambda _: Scaled(Identity(n), number), dense, v.dtype)
    return Sample(lambda a: Scaled(Identity(n), a(factor)), dense, v.dtype)


# Products of circulants and diagonals


def _dcd(v: Vectors) -> Sample:
    n = v.size()
    left, c, right = v(n), v(n), v(n)
    dense = diagonal_matrix(left) @ circulant_matrix(c) @ diagonal_matrix(right)
    return Sample(lambda a: CDDProduct.from_vectors(a(left), a(c), a(right)), dense, v.dtype)


def _long_cdd(v: Vectors) -> Sample:
    n = v.size()
    vectors = [v(n) for _ in range(v.integer(4, 7))]
    first: Literal["circulant", "diagonal"] = "circulant" if v.chance(0.5) else "diagonal"
    matrices = (circulant_matrix, diagonal_matrix) if first == "circulant" else (diagonal_matrix, circulant_matrix)
    dense = matrices[0](vectors[0])
    for i, vector in enumerate(vectors[1:], start=1):
        dense = dense @ matrices[i % 2](vector)
    return Sample(lambda a: CDDProduct.from_vectors(*map(a, vectors), first=first), dense, v.dtype)


def _rectangular_cdd(v: Vectors) -> Sample:
    c, shape = _cropped(v)
    left, right = v(shape[0]), v(shape[1])
    dense = diagonal_matrix(left) @ block_circulant_matrix(c, shape) @ diagonal_matrix(right)
    return Sample(lambda a: CDDProduct.from_vectors(a(left), a(c), a(right), block=True), dense, v.dtype)


# Toeplitz and Hankel


def _corner_vectors(v: Vectors, matrix: Callable[..., Any], *, square: bool) -> tuple[list[Values], Values]:
    """First column and a row, or for square ones now and then the column only, beside what SciPy makes of them."""
    rows, cols = (v.size(),) * 2 if square else v.sides()
    vectors = [v(rows)]
    if rows != cols or v.chance(0.7):
        vectors.append(v(cols))
    batch = np.broadcast_shapes(*(u.shape[:-1] for u in vectors))
    stacks = [np.broadcast_to(wide(u), (*batch, u.shape[-1])).reshape(-1, u.shape[-1]) for u in vectors]
    dense = np.array([matrix(*pair) for pair in zip(*stacks, strict=True)])
    return vectors, dense.reshape(*batch, *dense.shape[1:])


def _toeplitz(v: Vectors, *, square: bool) -> Sample:
    vectors, dense = _corner_vectors(v, scipy.linalg.toeplitz, square=square)
    return Sample(lambda a: Toeplitz(*map(a, vectors)), dense, v.dtype)


def _hankel(v: Vectors, *, square: bool) -> Sample:
    vectors, dense = _corner_vectors(v, scipy.linalg.hankel, square=square)
    return Sample(lambda a: Hankel(*map(a, vectors)), dense, v.dtype)


def _multilevel_toeplitz(v: Vectors) -> Sample:
    m, n = v.shape or (v.composite(), v.composite())
    if v.shape is None and v.chance(0.5):
        n = m
    count = v.integer(2, 4)
    rows = v.factors(m, count)
    cols = rows if m == n and v.chance(0.5) else v.factors(n, count)
    t = v(math.prod(a + b - 1 for a, b in zip(rows, cols, strict=True)))
    dense = multilevel_toeplitz_matrix(t, rows, cols)
    return Sample(lambda a: MultilevelToeplitz(a(t), rows, cols), dense, v.dtype)


def _block_toeplitz(v: Vectors, *, square: bool) -> Sample:
    if square:
        m, p = v.factors(v.composite(), 2)
        n, q = m, p
    elif v.shape is None:
        m, p = v.integer(1, 5), v.integer(1, 4)
        n, q = m + v.integer(0, 3), p + v.integer(1, 3)
        if v.chance(0.5):
            (m, p), (n, q) = (n, q), (m, p)
    else:
        (m, p), (n, q) = (v.factors(side, 2) for side in v.shape)
    c = v(m, p, q)
    if square and v.chance(0.3):
        return Sample(lambda a: BlockToeplitz(a(c)), block_toeplitz_matrix(c, c.swapaxes(-2, -1).conj()), v.dtype)
    r = v(n, p, q)
    return Sample(lambda a: BlockToeplitz(a(c), a(r)), block_toeplitz_matrix(c, r), v.dtype)


def _toeplitz_inverse(v: Vectors, *, flips: tuple[bool, bool]) -> Sample:
    n = v.size()
    x, y = v(n), v(n)
    return Sample(lambda a: ToeplitzInverse(a(x), a(y), flips), toeplitz_inverse_matrix(x, y, flips), v.dtype)


# Transforms, and what they make diagonal


def _fourier(v: Vectors) -> Sample:
    size, blocks = v.factors(v.composite(), 2)
    inverse = v.chance(0.5)
    n: Any = size
    axes, F = None, fourier_matrix(size)
    if v.chance(0.3):
        n = v.factors(size, 2)
        axes = v.choice((None, 0))
        F = np.kron(fourier_matrix(n[0]), fourier_matrix(n[1]) if axes is None else np.eye(n[1]))
    F = np.kron(np.eye(blocks), F)
    return Sample(lambda _: Fourier(n, blocks, inverse, axes), F.conj() if inverse else F, v.dtype)


def _trigonometric_transform(v: Vectors, *, kind: type[CosineTransform | SineTransform], name: str) -> Sample:
    n: Any = v.composite()
    of_type, axes = v.integer(1, 5), None
    if v.chance(0.3):
        n, axes = v.factors(n, 2), 0
        dense = np.kron(trigonometric_matrix(f"{name}{of_type}", n[0]), np.eye(n[1]))
    else:
        dense = trigonometric_matrix(f"{name}{of_type}", n)
    return Sample(lambda _: kind(n, of_type, axes), dense, v.dtype)


_TRANSFORMS = ("dct2", "dst1", "dft", "dst2", "dct1", "dct3", "dct4", "dst3", "dst4")


def _multiplier(v: Vectors) -> Sample:
    """By all eigenvalues, from which those are taken that are held."""
    n, count = v.composite(), v.integer(1, 4)
    sizes = v.factors(n, count)
    kinds = tuple(v.choice(_TRANSFORMS) for _ in sizes)
    values = v(n)
    real = v.dtype.kind != "c"
    axes = [axis for axis in range(-count, 0) if kinds[axis] == "dft"]
    values = values.reshape(*values.shape[:-1], *sizes)
    if axes:  # the transform of an array that is real if the matrix is
        complex_dtype = {"float32": "complex64", "float64": "complex128"}.get(v.dtype.name, v.dtype.name)
        spectrum = np.fft.fftn(wide(values), axes=axes)
        if real:  # the same after rounding, whichever half is held
            spectrum = (spectrum + np.roll(np.flip(spectrum, tuple(axes)), 1, axes).conj()) / 2
        values = spectrum.astype(complex_dtype)
    held = np.take(values, range(sizes[axes[-1]] // 2 + 1), axis=axes[-1]) if axes and real else values
    batch = values.shape[: values.ndim - count]
    flat, eigenvalues = held.reshape(*batch, -1), wide(values).reshape(*batch, -1)
    dense = multiplier_matrix(eigenvalues, sizes, kinds)
    dense = dense.real if real else dense
    return Sample(lambda a: SpectralMultiplier(a(flat), sizes, kinds, real), dense, v.dtype)


def _grid_convolution(v: Vectors) -> Sample:
    sizes = v.factors(v.composite(), v.integer(1, 3))
    own = tuple(2 * v.integer(0, min(n, 4)) + 1 for n in sizes)
    boundary = tuple(v.choice(("reflect", "zero", "odd", "wrap")) for _ in sizes)
    kernel = v(math.prod(own))
    dense = grid_convolution_matrix(kernel, own, sizes, boundary)
    return Sample(lambda a: GridConvolution(a(kernel), own, sizes, boundary), dense, v.dtype)


# What is made of other operators


def _product(v: Vectors) -> Sample:
    n = v.composite()
    b, p = v.factors(n, 2)
    blocks, c = v(p, p, b), v(n)
    dense = block_circulant_matrix(blocks, (n, n)) @ circulant_matrix(c)
    return Sample(lambda a: BlockCirculant(a(blocks)) @ Circulant(a(c)), dense, v.dtype)


def _sum(v: Vectors) -> Sample:
    n = v.size()
    c, d = v(n), v(n)
    return Sample(lambda a: Circulant(a(c)) + Diagonal(a(d)), circulant_matrix(c) + diagonal_matrix(d), v.dtype)


def _scaled(v: Vectors) -> Sample:
    inner, factor = _product(v), v()
    return Sample(lambda a: Scaled(inner.make(a), a(factor)), inner.dense * wide(factor)[..., None, None], v.dtype)


def _submatrix(v: Vectors, *, principal: bool) -> Sample:
    """Of a Toeplitz matrix, in any order."""
    whole = v
    if v.shape is not None:
        m, n = (side + v.integer(0, 3) for side in v.shape)
        whole = v.of_shape((m, m) if principal else (m, n))
    sample = _toeplitz(whole, square=principal)
    sizes = sample.dense.shape[-2:]
    counts = v.shape or tuple(v.integer(1, size + 1) for size in sizes)
    rows, cols = (v.permutation(size)[:count] for size, count in zip(sizes, counts, strict=True))
    cols = rows if principal else cols
    dense = sample.dense[..., rows[:, None], cols]
    return Sample(lambda a: sample.make(a)[rows][:, cols], dense, v.dtype)


def _dense(v: Vectors, *, square: bool) -> Sample:
    rows, cols = (v.size(),) * 2 if square else v.sides()
    matrix = v(rows, cols)
    return Sample(lambda a: Dense(a(matrix)), wide(matrix), v.dtype)


def _eigendecomposition(v: Vectors) -> Sample:
    n = v.size()
    values, vectors = v(n), np.linalg.qr(v(n, n))[0]
    V = wide(vectors)
    dense = V * wide(values)[..., None, :] @ np.swapaxes(V, -1, -2).conj()
    return Sample(lambda a: Eigendecomposition(a(values), Dense(a(vectors))), dense, v.dtype)


def _kronecker(v: Vectors) -> Sample:
    """Of a circulant and a diagonal matrix, which have closed forms of all kinds."""
    m, n = v.factors(v.composite(), 2)
    c, d = v(m), v(n)
    dense = kronecker_product(circulant_matrix(c), diagonal_matrix(d))
    return Sample(lambda a: Kronecker(Circulant(a(c)), Diagonal(a(d))), dense, v.dtype)


def _kronecker_plus_identity(v: Vectors) -> Sample:
    sample, shift = _kronecker(v), v()
    n = sample.dense.shape[-1]
    dense = sample.dense + wide(shift)[..., None, None] * np.eye(n)
    return Sample(lambda a: sample.make(a) + Scaled(Identity(n), a(shift)), dense, v.dtype)


def _rectangular_kronecker(v: Vectors) -> Sample:
    """Of three factors, one of them dense."""
    if v.shape is None:
        n, first, last = v.integer(1, 3), v.sides(), v.sides()
    else:
        n, _ = v.factors(math.gcd(*v.shape), 2)
        (m, p), (q, r) = (v.factors(side // n, 2) for side in v.shape)
        first, last = (m, q), (p, r)
    left, right = _toeplitz(v.of_shape(first), square=False), _dense(v.of_shape(last), square=False)
    dense = kronecker_product(kronecker_product(left.dense, np.eye(n)), right.dense)
    return Sample(lambda a: Kronecker(left.make(a), Identity(n), right.make(a)), dense, v.dtype)


def _kronecker_sum(v: Vectors) -> Sample:
    n, m, k = v.factors(v.composite(), 3)
    c, d = v(n), v(k)
    C, D = circulant_matrix(c), diagonal_matrix(d)
    of_first = kronecker_product(C, np.eye(m * k))
    of_last = kronecker_product(np.eye(n * m), D)
    dense = of_first + np.eye(n * m * k) + of_last
    return Sample(lambda a: KroneckerSum(Circulant(a(c)), Identity(m), Diagonal(a(d))), dense, v.dtype)


@dataclass(frozen=True)
class Kind:
    """A kind of operators: how one is drawn, its class, and which shapes it has."""

    draw: Callable[[Vectors], Sample]
    operator: type[Any]
    is_square: bool = True
    has_parameters: bool = True


KINDS: dict[str, Kind] = {
    "Circulant": Kind(_circulant, Circulant),
    "SpectralCirculant": Kind(_spectral, SpectralCirculant),
    "BandedCirculant": Kind(_banded_circulant, BandedCirculant),
    "MultilevelCirculant": Kind(_multilevel, MultilevelCirculant),
    "SpectralMultiplier": Kind(_multiplier, SpectralMultiplier),
    "GridConvolution": Kind(_grid_convolution, GridConvolution),
    "Diagonal": Kind(_diagonal, Diagonal),
    "BlockCirculant, square": Kind(_square_blocks, BlockCirculant),
    "BlockCirculant, p x q": Kind(_rectangular_blocks, BlockCirculant, is_square=False),
    "BlockCirculant, cropped": Kind(_cropped_blocks, BlockCirculant, is_square=False),
    "CDDProduct, D C D": Kind(_dcd, CDDProduct),
    "CDDProduct, longer": Kind(_long_cdd, CDDProduct),
    "CDDProduct, rectangular": Kind(_rectangular_cdd, CDDProduct, is_square=False),
    "Toeplitz, square": Kind(partial(_toeplitz, square=True), Toeplitz),
    "Toeplitz, m x n": Kind(partial(_toeplitz, square=False), Toeplitz, is_square=False),
    "MultilevelToeplitz": Kind(_multilevel_toeplitz, MultilevelToeplitz, is_square=False),
    "BlockToeplitz, square": Kind(partial(_block_toeplitz, square=True), BlockToeplitz),
    "BlockToeplitz, p x q": Kind(partial(_block_toeplitz, square=False), BlockToeplitz, is_square=False),
    "Hankel, square": Kind(partial(_hankel, square=True), Hankel),
    "Hankel, m x n": Kind(partial(_hankel, square=False), Hankel, is_square=False),
    "ToeplitzInverse": Kind(partial(_toeplitz_inverse, flips=(False, False)), ToeplitzInverse),
    "ToeplitzInverse, transposed": Kind(partial(_toeplitz_inverse, flips=(True, True)), ToeplitzInverse),
    "ToeplitzInverse, of Hankel": Kind(partial(_toeplitz_inverse, flips=(True, False)), ToeplitzInverse),
    "Identity": Kind(_identity, Identity, has_parameters=False),
    "Fourier": Kind(_fourier, Fourier, has_parameters=False),
    "CosineTransform": Kind(
        partial(_trigonometric_transform, kind=CosineTransform, name="dct"), CosineTransform, has_parameters=False
    ),
    "SineTransform": Kind(
        partial(_trigonometric_transform, kind=SineTransform, name="dst"), SineTransform, has_parameters=False
    ),
    "Product": Kind(_product, Product),
    "Sum": Kind(_sum, Sum),
    "Scaled": Kind(_scaled, Scaled),
    "Submatrix, the same rows and columns": Kind(partial(_submatrix, principal=True), Submatrix),
    "Submatrix": Kind(partial(_submatrix, principal=False), Submatrix, is_square=False),
    "Scaled identity": Kind(_scaled_identity, Scaled),
    "Dense": Kind(partial(_dense, square=True), Dense),
    "Dense, m x n": Kind(partial(_dense, square=False), Dense, is_square=False),
    "Eigendecomposition": Kind(_eigendecomposition, Eigendecomposition),
    "Kronecker": Kind(_kronecker, Kronecker),
    "Kronecker, rectangular": Kind(_rectangular_kronecker, Kronecker, is_square=False),
    "Kronecker plus identity": Kind(_kronecker_plus_identity, Sum),
    "KroneckerSum": Kind(_kronecker_sum, KroneckerSum),
}
"""All kinds by name, those of one class with several names by what they have in common."""
