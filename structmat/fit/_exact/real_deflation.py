"""Splits a real polynomial in the cyclic shift into real factors.

A real null sequence is a real linear factor. A complex one, ``u[i] = w[i] * nu**-i``, and its conjugate make a real
quadratic one, ``q = P^2 + diag(b) P + diag(a)``, which has no real linear factors. But with any real diagonal D and
real linear ``l = P - diag(k)`` the null sequences of ``q D l`` are that of `l` and the solutions y of ``D l y = u``.
If y is a real vector times ``nu**-i``, the circulant ``P^2 - 2 Re(nu) P + |nu|^2`` between real diagonals annihilates
it, and a linear factor is left: seven factors in all,

    q = left (P - r I) diag(1 / sigma) (P^2 - 2 Re(nu) P + |nu|^2) diag(tau) (P - r I)^-1 right.

The condition is solved by hand: with ``psi[i]`` the phases of `w` less a common one, ``k[i] = |nu| * sin(psi[i] - arg
nu) / sin(psi[i])``, ``tau`` the periodic part of the null sequence of `l`, and `r` its growth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["factor_real_sequences"]

# Half turns from the negative axis below which a multiplier counts as negative.
_NEGATIVE = 1e-9
# Roots of a multiplier that are tried for a pair, as turns from the one of least angle, which is no good where it is
# nearly real; and for each root common phases, those in the widest gaps between phases that make an entry zero.
_BRANCHES, _PHASES = (0, 1, -1), 8
# In the precision of the sequences, for a phase that is not theirs is an error of the factors.
_PI = 4 * np.arctan(np.longdouble(1))
# How much the order of the factors prefers long vectors beside flat ones, as for complex factors; a real sequence has
# entries nearer to zero than a complex one of the same flatness.
_DISTANCE, _REAL_COST = 0.25, 2.0


def factor_real_sequences(
    w: NDArray[np.inexact[Any]], nu: NDArray[np.inexact[Any]], *, extended: bool, real_turns: float = 0.0
) -> list[NDArray[np.float64]] | None:
    """Return the diagonals and first columns of the monic real polynomial with the null sequences ``w[i] * nu**-i``.

    Those that are not real come with their conjugates. A real one takes two factors and a pair six, and there is one
    more. Nothing where a multiplier ``nu**n`` is negative and n even, for a power of a real number is not. Within so
    many half turns of the positive axis multipliers count as real.
    """
    n = w.shape[1]
    dtype = np.clongdouble if extended else np.complex128
    turns = n * np.angle(nu) / _PI
    turns -= 2 * np.round(turns / 2)
    negative = np.abs(turns) > 1 - _NEGATIVE
    real = negative | (np.abs(turns) <= real_turns)
    if (n % 2 == 0 and negative.any()) or 2 * np.count_nonzero(~real & (turns > 0)) != np.count_nonzero(~real):
        return None
    # Any n-th root of the multiplier will do: a real one, or else that of the least angle.
    angle = np.where(real, np.where(negative, _PI, 0.0), _PI * turns / n).astype(np.longdouble)
    w = w * np.exp(1j * (angle - np.angle(nu))[:, None] * np.arange(n))
    nu = np.abs(nu) * np.exp(1j * angle)
    w = np.where(real[:, None], (w / w[np.arange(len(w)), np.abs(w).argmax(axis=1)][:, None]).real, w)
    nu = np.where(real, nu.real, nu)
    kept = real | (turns > 0)
    w, nu, real = w[kept].astype(dtype), nu[kept].astype(dtype), real[kept]
    vectors: list[NDArray[Any]] = [np.ones(n)]
    while len(nu):
        k = _next(w, nu, real)
        chosen, its_nu, is_real = w[k] / np.sqrt(np.mean(np.abs(w[k]) ** 2)), nu[k], real[k]
        factors = _linear(chosen.real, its_nu.real) if is_real else _quadratic(chosen, its_nu)
        vectors = [*factors[:-1], factors[-1] * vectors[0], *vectors[1:]]
        rest = np.arange(len(nu)) != k
        w, nu, real = w[rest], nu[rest], real[rest]
        a = its_nu * np.roll(chosen, 1) / chosen
        w = nu[:, None] * np.roll(w, 1, axis=1) - a * w
        if not is_real:
            conjugate = np.conj(its_nu) * np.roll(np.conj(chosen), 1) - a * np.conj(chosen)
            w = nu[:, None] * np.roll(w, 1, axis=1) - np.conj(its_nu) * np.roll(conjugate, 1) / conjugate * w
        w[real] = w[real].real
    return [vector.astype(np.float64) for vector in vectors]


def _next(w: NDArray[Any], nu: NDArray[Any], real: NDArray[np.bool_]) -> int:
    """Return the null sequence whose factors have the flattest diagonals, and that is far from those before."""
    size = np.abs(w)
    mean = np.mean(size**2, axis=1)
    second = np.abs((nu[:, None] * np.roll(w, 1, axis=1) * np.conj(w)).imag) / size
    flat = np.log(mean / np.min(size**2, axis=1))
    flat_second = np.log(np.mean(second**2, axis=1)[~real] / np.min(second**2, axis=1)[~real])
    cost = flat - _DISTANCE * np.log(mean / mean.max())
    cost[real] += (_REAL_COST - 1) * flat[real]
    cost[~real] += flat_second
    return int(cost.argmin())


def _linear(w: NDArray[Any], nu: Any) -> list[NDArray[Any]]:
    return [np.roll(w, 1), _column([-nu, 1.0], len(w)), 1 / w]


def _quadratic(w: NDArray[Any], nu: Any) -> list[NDArray[Any]]:
    """Return the seven factors of the monic quadratic polynomial with the null sequence ``w[i] * nu**-i``."""
    n = len(w)
    choices = [_phases(*_branch(w, nu, branch)) for branch in _BRANCHES]
    best = min(range(len(choices)), key=lambda k: choices[k][0])
    _, r, left, sigma, tau, right = choices[best]
    nu = _branch(w, nu, _BRANCHES[best])[1]
    middle = _column([np.abs(nu) ** 2, -2 * nu.real, 1.0], n)
    scale = np.sqrt(np.mean(sigma**2))
    return [left / scale, _column([-r, 1.0], n), scale / sigma, middle, tau, _inverse_column(r, n), right]


def _branch(w: NDArray[Any], nu: Any, turns: int) -> tuple[NDArray[Any], Any]:
    """Return `w` and `nu` of the same null sequence with another root of its multiplier."""
    n = len(w)
    step = 2 * _PI * turns / n
    return w * np.exp(1j * step * np.arange(n)), nu * np.exp(1j * step)


def _phases(w: NDArray[Any], nu: Any) -> tuple[float, Any, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a cost, `r` and the diagonals `left`, `sigma`, `tau` and `right` for the best of some common phases."""
    n, theta, phases = len(w), np.angle(nu), np.angle(w)
    zeros = np.sort(np.concatenate([phases, phases - theta]) % _PI)
    gaps = np.diff(np.append(zeros, zeros[0] + _PI))
    widest = np.argsort(-gaps)[:_PHASES]
    psi = phases - (zeros + gaps / 2)[widest, None]
    sine = np.sin(psi)
    k = np.abs(nu) * np.sin(psi - theta) / sine
    sign = np.prod(np.sign(k), axis=1)
    r = sign * np.exp(np.mean(np.log(np.abs(k)), axis=1))
    steps = r[:, None] / k
    logs = np.cumsum(np.log(np.abs(steps)), axis=1)
    tau = np.cumprod(np.sign(steps), axis=1) * np.exp(logs - np.mean(logs, axis=1, keepdims=True))
    size = np.abs(w) * sine
    sigma = tau * np.sin(theta + np.roll(psi, 1, axis=1) - psi) / (sine * np.roll(sine, 1, axis=1))
    right = 1 / (size * np.roll(tau, 1, axis=1))
    left = np.roll(sigma, 1, axis=1) * np.roll(size, 2, axis=1)
    # The norms of all factors tell how much they may magnify errors.
    cost = sum(np.log(np.mean(d**2, axis=1)) for d in (left, 1 / sigma, tau, right)) - 2 * np.log(np.abs(np.abs(r) - 1))
    cost = np.where((n % 2 == 0) & (sign < 0) | ~np.isfinite(cost), np.inf, cost)
    best = int(np.argmin(cost))
    return float(cost[best]), r[best], left[best], sigma[best], tau[best], right[best]


def _column(entries: list[Any], n: int) -> NDArray[Any]:
    """Return the first column of the polynomial in P with these coefficients."""
    column = np.zeros(n, dtype=np.longdouble)
    for power, entry in enumerate(entries):
        column[power % n] += entry
    return column


def _inverse_column(r: Any, n: int) -> NDArray[Any]:
    """Return the first column of ``(P - r I)^-1``, that is ``sum of r**k P^(n - 1 - k)`` over ``1 - r**n``."""
    k = np.arange(n)
    powers = r**k / (1 - r**n) if abs(r) < 1 else -(r ** (k - n)) / (1 - r**-n)
    return powers[::-1]
