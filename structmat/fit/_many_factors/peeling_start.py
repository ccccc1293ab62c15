"""A starting point that finds planted products of many factors: the outermost factors first, one after the other.

Between diagonal forms a chain is ``X = D_1 T_1 D_2 T_2 ... D_F`` with Fourier matrices T. What stands between `D_1` and
its adjoint in ``G = X X^H`` is ``T_1 D_2 R D_2^H T_1^H``: a circulant, since the mean of ``|D_2|^2`` passes through,
plus fluctuations. So off its diagonal G is a D C D product with noise of one or two times the signal, which is what
synchronisation over shifts solves: its eigenvector of phases holds those of `D_1`. Row norms, made equal beforehand,
hold the moduli. The last factor comes from ``X^T`` in the same way. Dividing by the factor, and a transform, leaves a
chain of one factor less, and three factors are solved for by synchronisation and sweeps.

Instead of G its damped inverse is taken: it is of the same form, for ``D_1`` is nearly unitary once rows are equal, and
fluctuates less. With G itself 14 of 20 outer factors of real chains of five (n = 64) are found, with ``(G + 0.1)^-1``
all, and of seven and nine factors (n = 128) less than half and all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._many_factors import als, levenberg_marquardt
from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._three_factors.alternate import Run, alternate
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.shift_synchronisation_start import shift_synchronisation_start

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.operators import FactorKind

__all__ = ["OuterPhases", "peeled", "synchronised_gram"]

# What is added to the Gram matrix before it is inverted, as shares of its mean eigenvalue; one attempt with each. Noise
# fills up small eigenvalues and asks for more; with less the smallest eigenvalue alone makes a matrix of rank one, a
# product of this kind whatever the matrix.
_DAMPINGS = (0.1, 1.0, 0.3)
_BALANCING, _PASSES, _GRAM_SWEEPS, _INNER_SWEEPS = 30, 60, 30, 300
# Of the Gram matrix of a random matrix of side n the best fit explains 3 / n to 7 / n of the squared norm; of planted
# products of five factors 8 / n to 11 / n (n = 16), 24 / n to 38 / n (n = 64). More on the better side, and less on the
# other one, is asked for: real weight changes may look planted from one side.
_EXPLAINED, _EXPLAINED_BY_OTHER = 8.0, 5.0
# Entries of a factor are taken to be no smaller than this share of what the norms of rows say.
_LEAST_MODULUS = 0.2
# Sweeps of a refinement, which stop when they take off less than a share, and joint steps after them.
_SWEEPS, _PROGRESS, _STEPS, _DAMPING = 40, 0.02, 25, 1e-4
# With this error a chain is the planted one; no further attempt is made.
_FOUND = 1e-6
# Joint steps cost the third power of the number of parameters.
_MOST_PARAMETERS = 1500


class OuterPhases(NamedTuple):
    """The phases of an outermost factor."""

    phases: NDArray[Any]
    explained: float
    """How much of the squared norm of the Gram matrix they explain, of one."""


def peeled(
    W: NDArray[Any], n_factors: int, first: FactorKind, rng: np.random.Generator, control: Control
) -> list[NDArray[Any]] | None:
    """Return the vectors of a chain of three or more factors near a matrix; None where it does not look like one.

    Parameters
    ----------
    W : (n, n) ndarray
        In double precision.
    n_factors : int
        From three on.
    first : {"diagonal", "circulant"}
        The kind of the first factor.
    rng : numpy.random.Generator
    control : Control
        Ends the refinement.

    Notes
    -----
    A factor costs O(n^3) for the Gram matrix and its inverse and some hundred passes of O(n^2).
    """
    best: DiagonalForms | None = None
    least = np.inf
    for damping in _DAMPINGS:
        if control.stopped():
            break
        chain, taken_off = _peel(W, n_factors, first, damping, rng, control.stopped)
        if chain is None:
            if not taken_off:  # the less certain side of the whole tells as little with every damping
                break
            continue
        chain, error = _refined(W, chain, control)
        if error < least:
            best, least = chain, error
        if error <= _FOUND:
            break
    return None if best is None else best.to_vectors()


def _peel(
    W: NDArray[Any],
    n_factors: int,
    first: FactorKind,
    damping: float,
    rng: np.random.Generator,
    stopped: Callable[[], bool],
) -> tuple[DiagonalForms | None, int]:
    """Take off one factor after the other until three are left; those are fitted as they are.

    Returns the chain, None if it is not found, and how many factors were taken off.
    """
    chain = DiagonalForms(np.ones((n_factors, len(W)), dtype=np.complex128), first, not np.iscomplexobj(W))
    x, lo, hi = chain.x, 0, n_factors - 1
    X = W.astype(np.complex128)
    if chain.is_circulant(lo):
        X = np.fft.fft(X, axis=0, norm="ortho")
    if chain.is_circulant(hi):
        X = np.fft.ifft(X, axis=1, norm="ortho")
    while hi - lo > 2:
        outermost = _outermost(X, chain, (lo, hi), damping, rng, stopped)
        if outermost is None:
            return None, n_factors - 1 - hi + lo
        k, x[k] = outermost
        if k == lo:
            X = chain.change(lo + 1, _quotient(X, x[k][:, None]), axis=-2)
            lo += 1
        else:
            X = chain.change(hi, _quotient(X, x[k]), axis=-1)
            hi -= 1
    with np.errstate(over="ignore", invalid="ignore"):  # what is left may be anything; its norm tells
        _fit_inner(X, chain, lo, rng)
        P = chain.dense()
        norm2 = float(np.vdot(P, P).real)
    if not 0.0 < norm2 < np.inf:
        return None, n_factors - 3
    x[lo] *= np.vdot(P, W) / norm2
    return chain, n_factors - 3


def _outermost(
    X: NDArray[Any],
    chain: DiagonalForms,
    ends: tuple[int, int],
    damping: float,
    rng: np.random.Generator,
    stopped: Callable[[], bool],
) -> tuple[int, NDArray[Any]] | None:
    """Return that one of two outermost factors of which `X` tells more; None if it tells too little or time is up."""
    r, c = _balance(X)
    Y = _quotient(_quotient(X, r[:, None]), c)
    layers: list[OuterPhases] = []
    least = _EXPLAINED_BY_OTHER if ends == (0, len(chain.x) - 1) else 0.0
    for k, rows in zip(ends, (Y, Y.T), strict=True):
        G = _damped_inverse(rows, damping)
        # A real diagonal stands before a real matrix, though the other side may be transformed.
        layers.append(synchronised_gram(G.real.copy() if chain.real and not chain.is_circulant(k) else G, rng))
        if stopped() or layers[-1].explained < least / len(X):
            return None
    side = int(layers[1].explained > layers[0].explained)
    if layers[side].explained < _EXPLAINED / len(X):
        return None
    k, moduli = ends[side], (r, c)[side]
    d = layers[side].phases * moduli
    if chain.real:
        d = _as_of_real(d, circulant=chain.is_circulant(k))
    low = np.abs(d) < _LEAST_MODULUS * moduli
    d[low] = _LEAST_MODULUS * moduli[low] * np.exp(1j * np.angle(d[low]))
    return k, d


def synchronised_gram(G: NDArray[Any], rng: np.random.Generator) -> OuterPhases:
    """Return the phases `d` of the Hermitian matrix ``diag(d) R diag(d)^H``, `R` a circulant, that is nearest to `G`.

    The diagonal of `G`, which knows nothing of them, is overwritten.
    """
    n = len(G)
    i = np.arange(n)
    G[i, i] = 0.0
    grid = BlockGrid(G, n)
    run = Run.begin(grid, shift_synchronisation_start(grid, rng))
    run = alternate(grid, run, _GRAM_SWEEPS, 1e-4)
    left, right = _unit(run.factors.a[0]), _unit(run.factors.b[0]).conj()
    d = _unit(left + right * _unit(np.vdot(right, left)))
    lags = (i[:, None] - i) % n
    for _ in range(_PASSES):
        r = _means(G, d, lags)
        d = _unit((G * r[lags].conj()) @ d)
    explained = n * float(np.sum(np.abs(_means(G, d, lags)) ** 2))
    size = float(np.sum(np.abs(G) ** 2))
    return OuterPhases(d, explained / size if size > 0.0 else 0.0)


def _means(G: NDArray[Any], d: NDArray[Any], lags: NDArray[Any]) -> NDArray[Any]:
    """The first column of the nearest circulant to `G` without the phases `d`."""
    inside = d.conj()[:, None] * G * d
    means: NDArray[Any] = np.take_along_axis(inside, lags, axis=1).mean(axis=0)
    return means


def _damped_inverse(rows: NDArray[Any], damping: float) -> NDArray[Any]:
    G = rows @ rows.conj().T
    mean = float(G.diagonal().real.mean())
    i = np.arange(len(G))
    G[i, i] += damping * mean
    inverse: NDArray[Any] = np.linalg.inv(G / mean)
    return inverse


def _balance(X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `r` and `c` such that ``X / (r c^T)`` has rows and columns of equal norms, but for those of zeros."""
    squares = np.abs(X) ** 2
    r2 = np.ones(len(X))
    c2 = np.ones(len(X))
    for _ in range(_BALANCING):
        r2 = squares @ _quotient(np.ones_like(c2), c2) / len(X)
        c2 = squares.T @ _quotient(np.ones_like(r2), r2) / len(X)
    return np.sqrt(r2), np.sqrt(c2)


def _fit_inner(X: NDArray[Any], chain: DiagonalForms, k: int, rng: np.random.Generator) -> None:
    """Put the three factors from `k` on, whose product between diagonal forms is `X`, into the chain."""
    n = len(X)
    circulant = chain.is_circulant(k)
    grid = BlockGrid(X.real if chain.real and not circulant else X, n)
    run = Run.begin(grid, shift_synchronisation_start(grid, rng))
    run = alternate(grid, run, _INNER_SWEEPS, 1e-6)
    a, c, b = run.factors.scaled(grid.exponent)
    # Between two transforms the factor in the middle is a circulant, of one kind or the other.
    middle = c[0, 0]
    chain.x[k], chain.x[k + 2] = a[0], b[0]
    chain.x[k + 1] = np.fft.ifft(middle) * n if circulant else np.fft.fft(middle)
    if chain.real:
        for own in range(k, k + 3):
            chain.x[own] = _as_of_real(chain.x[own], circulant=chain.is_circulant(own))


def _as_of_real(d: NDArray[Any], *, circulant: bool) -> NDArray[Any]:
    """The diagonal form of a real factor nearest to `d` times some phase."""
    if not circulant:
        turned = d * np.exp(-0.5j * np.angle(np.sum(d * d)))
        return turned.real.astype(np.complex128)
    mirror = np.conj(d[-np.arange(len(d))])
    turned = d * np.exp(0.5j * np.angle(np.vdot(d, mirror)))
    spectrum: NDArray[Any] = (turned + np.conj(turned[-np.arange(len(d))])) / 2
    return spectrum


def _refined(W: NDArray[Any], chain: DiagonalForms, control: Control) -> tuple[DiagonalForms, float]:
    """Lower the error by sweeps over the factors while these get on, then by joint steps."""
    vectors, history, _ = descend(
        als.steps,
        W,
        chain.to_vectors(),
        chain.first,
        max_iter=_SWEEPS,
        tol=_PROGRESS,
        deadline=control.deadline,
    )
    chain, error = DiagonalForms.from_vectors(vectors, chain.first, real=chain.real), history[-1]
    if chain.x.size > _MOST_PARAMETERS:
        return chain, error
    for step, state in enumerate(levenberg_marquardt.steps(W, chain, damping=_DAMPING)):
        before, chain, error = error, state.chain, state.error
        if control.stopped() or state.stationary or step >= _STEPS or error <= np.finfo(np.float64).eps:
            break
        if step and before - error <= control.tol * error and error < before:
            break
    return chain, error


def _quotient(X: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
    """``X / d``, zero where `d` is zero."""
    quotient: NDArray[Any] = np.divide(
        X, d, out=np.zeros(np.broadcast_shapes(X.shape, d.shape), np.result_type(X, d)), where=d != 0
    )
    return quotient


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    """``x / |x|``, zero where `x` is zero."""
    return _quotient(x, np.abs(x))
