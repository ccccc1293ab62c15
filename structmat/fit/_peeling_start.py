"""A starting point that finds planted products of many factors: the outermost factors first, one after the other.

With ``Q`` the identity for a diagonal and the unitary Fourier matrix for a circulant every factor is ``Q^H diag(x) Q``,
and between these *diagonal forms* stand Fourier matrices T: ``X = D_1 T_1 D_2 T_2 ... D_F``. What stands between `D_1`
and its adjoint in ``G = X X^H`` is ``T_1 D_2 R D_2^H T_1^H``: a circulant, since the mean of ``|D_2|^2`` passes
through, plus fluctuations. So off its diagonal G is a D C D product with noise of one or two times the signal, which is
what synchronisation over shifts solves: its eigenvector of phases holds those of `D_1`. Row norms, made equal
beforehand, hold the moduli. The last factor comes from ``X^T`` in the same way. Dividing by the factor, and a
transform, leaves a product of one factor less, and three factors are solved for by synchronisation and alternating
steps.

Instead of G its damped inverse is taken: it is of the same form, for ``D_1`` is nearly unitary once rows are equal, and
fluctuates less. With G itself 14 of 20 outer factors of real products of five (n = 64) are found, with ``(G +
0.1)^-1`` all, and of seven and nine factors (n = 128) less than half and all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._alternation import Run, alternate
from structmat.fit._block_grid import BlockGrid
from structmat.fit._synchronisation import shift_synchronisation_start, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem
    from structmat.operators import FactorKind

__all__ = ["peeling_start"]

_MOST_SIDE = 512
"""The inverses and sweeps of larger matrices take minutes."""

_ENTRIES_PER_FACTOR = 2
"""A matrix of fewer rows than this for each factor does not show the phases of the factors."""

_DAMPINGS = (0.1, 1.0, 0.3)
"""What is added to the Gram matrix before it is inverted, as shares of its mean eigenvalue. One attempt is made with
each of them. Noise fills up small eigenvalues and asks for more. With less, the smallest eigenvalue alone makes the
inverse a matrix of rank one, which is a product of this kind whatever the matrix."""

_BALANCING = 30
"""Rounds of balancing: rows and columns are brought to equal norms in turn."""

_PASSES = 60
"""Power iterations for the phases of an outermost factor."""

_GRAM_SWEEPS = 30
"""The most alternating steps on a Gram matrix, whose phases alone are wanted."""

_INNER_SWEEPS = 300
"""The most alternating steps on the three factors that are left, which are wanted as they are."""

_EXPLAINED = 8.0
"""Over the side n, the share of the squared norm of a Gram matrix that the phases of the better side must explain. Of
a random matrix the best fit explains 3 / n to 7 / n, of planted products of five factors 8 / n to 11 / n (n = 16) and
24 / n to 38 / n (n = 64)."""

_EXPLAINED_BY_OTHER = 5.0
"""Likewise for the other side of the whole matrix. Real weight changes may look planted from one side."""

_LEAST_MODULUS = 0.2
"""No entry of a factor is taken to be smaller than this share of what the norm of its row says: the matrix is divided
by it."""


def peeling_start(problem: Problem, rng: np.random.Generator, control: Control) -> Iterator[list[NDArray[Any]]]:
    """Yield products of three or more factors near a square matrix, as long as it looks like a planted product.

    A factor costs O(n^3) for the Gram matrix and its inverse and some hundred passes of O(n^2).
    """
    layout, W = problem.layout, problem.target
    small = len(W) <= _MOST_SIDE and 3 <= layout.n_factors <= len(W) // _ENTRIES_PER_FACTOR
    if not layout.is_single_block or problem.inputs is not None or not small:
        return
    W = W.astype(np.result_type(W.dtype, np.float64))
    for damping in _DAMPINGS:
        chain = _Chain(layout.kinds, len(W), real=not np.iscomplexobj(W))
        if _peel(W, chain, damping, rng, control):
            vectors = chain.vectors()
            yield [v.reshape(s) for v, s in zip(vectors, layout.vector_shapes, strict=True)]
        elif chain.lo == 0 and chain.hi == layout.n_factors - 1:
            return  # With another damping the less certain side of the whole matrix tells as little.


class _Chain:
    """The factors of a product by their diagonal forms, of which those from `lo` to `hi` are not known yet."""

    def __init__(self, kinds: tuple[FactorKind, ...], n: int, *, real: bool) -> None:
        self.circulant = [kind == "circulant" for kind in kinds]
        self.real = real
        self.x = np.ones((len(kinds), n), dtype=np.complex128)
        self.lo, self.hi = 0, len(kinds) - 1

    def turned(self, k: int, M: NDArray[Any], axis: int) -> NDArray[Any]:
        """Return a matrix times the transform that stands between factor `k` and the next.

        On the first axis of the matrix the transform stands on its left, on the last axis on its right.
        """
        turn = np.fft.fft if self.circulant[k] else np.fft.ifft
        return turn(M, axis=axis, norm="ortho")

    def vectors(self) -> list[NDArray[Any]]:
        """Return the vectors of the factors: diagonals, and first columns of circulants."""
        vectors = [np.fft.ifft(x) if circulant else x for x, circulant in zip(self.x, self.circulant, strict=True)]
        return [v.real for v in vectors] if self.real else vectors

    def dense(self) -> NDArray[Any]:
        """Return the product."""
        P: NDArray[Any] = np.eye(self.x.shape[1], dtype=np.complex128)
        for x, circulant in zip(self.x[::-1], self.circulant[::-1], strict=True):
            P = np.fft.ifft(x[:, None] * np.fft.fft(P, axis=0), axis=0) if circulant else x[:, None] * P
        return P.real if self.real else P


class _OuterPhases(NamedTuple):
    """The phases of an outermost factor, and how certain they are."""

    phases: NDArray[Any]
    explained: float
    """The share of the squared norm of the Gram matrix that they explain, at most one."""


def _peel(W: NDArray[Any], chain: _Chain, damping: float, rng: np.random.Generator, control: Control) -> bool:
    """Take factors off the matrix, one by one, until three are left, and fit these; tell whether that succeeded."""
    X = W.astype(np.complex128)
    if chain.circulant[0]:
        X = np.fft.fft(X, axis=0, norm="ortho")
    if chain.circulant[-1]:
        X = np.fft.ifft(X, axis=1, norm="ortho")
    while chain.hi - chain.lo > 2:
        control.check()
        outermost = _outermost(X, chain, damping, rng, control)
        if outermost is None:
            return False
        k, chain.x[k] = outermost
        if k == chain.lo:
            chain.lo += 1
            X = chain.turned(chain.lo, _quotient(X, chain.x[k][:, None]), axis=-2)
        else:
            X = chain.turned(k, _quotient(X, chain.x[k]), axis=-1)
            chain.hi -= 1
    # What is left may be anything; its norm tells.
    with np.errstate(over="ignore", invalid="ignore"):
        _fit_inner(X, chain, rng)
        P = chain.dense()
        norm2 = float(np.vdot(P, P).real)
    if not 0.0 < norm2 < np.inf:
        return False
    chain.x[chain.lo] *= np.vdot(P, W) / norm2
    return True


def _outermost(
    X: NDArray[Any], chain: _Chain, damping: float, rng: np.random.Generator, control: Control
) -> tuple[int, NDArray[Any]] | None:
    """Return the place and the diagonal form of that outermost factor of which `X` tells more; None if too little."""
    r, c = _balance(X)
    Y = _quotient(_quotient(X, r[:, None]), c)
    ends = (chain.lo, chain.hi)
    layers: list[_OuterPhases] = []
    least = _EXPLAINED_BY_OTHER if ends == (0, len(chain.x) - 1) else 0.0
    for k, rows in zip(ends, (Y, Y.T), strict=True):
        G = _damped_inverse(rows, damping)
        # A real diagonal stands before a real matrix, though the other side may be transformed.
        layers.append(_synchronised_gram(G.real.copy() if chain.real and not chain.circulant[k] else G, rng))
        control.check()
        if layers[-1].explained < least / len(X):
            return None
    side = int(layers[1].explained > layers[0].explained)
    if layers[side].explained < _EXPLAINED / len(X):
        return None
    k, moduli = ends[side], (r, c)[side]
    d = layers[side].phases * moduli
    if chain.real:
        d = _as_of_real(d, circulant=chain.circulant[k])
    low = np.abs(d) < _LEAST_MODULUS * moduli
    d[low] = _LEAST_MODULUS * moduli[low] * np.exp(1j * np.angle(d[low]))
    return k, d


def _synchronised_gram(G: NDArray[Any], rng: np.random.Generator) -> _OuterPhases:
    """Return the phases `d` of the Hermitian matrix ``diag(d) R diag(d)^H``, `R` a circulant, that is nearest to `G`.

    The diagonal of `G` is overwritten, as it does not depend on the phases.
    """
    n = len(G)
    i = np.arange(n)
    G[i, i] = 0.0
    grid = BlockGrid(G, n)
    run = alternate(grid, Run.begin(grid, shift_synchronisation_start(grid, rng)), _GRAM_SWEEPS, 1e-4)
    left, right = unit(run.factors.a[0]), unit(run.factors.b[0]).conj()
    d = unit(left + right * unit(np.vdot(right, left)))
    lags = (i[:, None] - i) % n
    for _ in range(_PASSES):
        d = unit((G * _means(G, d, lags)[lags].conj()) @ d)
    explained = n * float(np.sum(np.abs(_means(G, d, lags)) ** 2))
    size = float(np.sum(np.abs(G) ** 2))
    return _OuterPhases(d, explained / size if size > 0.0 else 0.0)


def _means(G: NDArray[Any], d: NDArray[Any], lags: NDArray[Any]) -> NDArray[Any]:
    """Return the first column of the nearest circulant to `G` without the phases `d`."""
    means: NDArray[Any] = np.take_along_axis(d.conj()[:, None] * G * d, lags, axis=1).mean(axis=0)
    return means


def _damped_inverse(rows: NDArray[Any], damping: float) -> NDArray[Any]:
    """Return the inverse of the Gram matrix of rows with a multiple of its mean eigenvalue added, in units of that."""
    G = rows @ rows.conj().T
    mean = float(G.diagonal().real.mean())
    G[np.diag_indices(len(G))] += damping * mean
    inverse: NDArray[Any] = np.linalg.inv(G / mean)
    return inverse


def _balance(X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `r` and `c` such that all rows and columns of ``X / (r c^T)`` but those of zeros have equal norms."""
    squares = np.abs(X) ** 2
    r2, c2 = np.ones(len(X)), np.ones(len(X))
    for _ in range(_BALANCING):
        r2 = squares @ _quotient(np.ones_like(c2), c2) / len(X)
        c2 = squares.T @ _quotient(np.ones_like(r2), r2) / len(X)
    return np.sqrt(r2), np.sqrt(c2)


def _fit_inner(X: NDArray[Any], chain: _Chain, rng: np.random.Generator) -> None:
    """Fit the three factors that are left, whose product between diagonal forms is `X`, and put them into the chain."""
    n, k = len(X), chain.lo
    circulant = chain.circulant[k]
    grid = BlockGrid(X.real if chain.real and not circulant else X, n)
    run = alternate(grid, Run.begin(grid, shift_synchronisation_start(grid, rng)), _INNER_SWEEPS, 1e-6)
    a, c, b = run.factors.scaled(grid.exponent)
    # Between two transforms the factor in the middle is a circulant, of one kind or the other.
    middle = c[0, 0]
    chain.x[k], chain.x[k + 2] = a[0], b[0]
    chain.x[k + 1] = np.fft.ifft(middle) * n if circulant else np.fft.fft(middle)
    if chain.real:
        for own in range(k, k + 3):
            chain.x[own] = _as_of_real(chain.x[own], circulant=chain.circulant[own])


def _as_of_real(d: NDArray[Any], *, circulant: bool) -> NDArray[Any]:
    """Return the diagonal form of a real factor nearest to `d` times some phase."""
    if not circulant:
        turned = d * np.exp(-0.5j * np.angle(np.sum(d * d)))
        return turned.real.astype(np.complex128)
    mirror = -np.arange(len(d))
    turned = d * np.exp(0.5j * np.angle(np.vdot(d, d[mirror].conj())))
    spectrum: NDArray[Any] = (turned + turned[mirror].conj()) / 2
    return spectrum


def _quotient(X: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
    """Return ``X / d``, zero where `d` is zero."""
    out = np.zeros(np.broadcast_shapes(X.shape, d.shape), np.result_type(X, d))
    quotient: NDArray[Any] = np.divide(X, d, out=out, where=d != 0)
    return quotient
