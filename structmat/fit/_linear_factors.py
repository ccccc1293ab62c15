"""Any polynomial in the cyclic shift, with diagonal coefficients, as a product of diagonals and circulants.

**The polynomial.** A matrix is a polynomial in the cyclic shift P, ``(P u)[i] = u[i - 1]``, of degree n - 1. On
sequences with ``u[i - n] = z * u[i]`` it acts on n entries as ``tril(W) + z * triu(W, 1)``. On periodic ones ``P^n -
I`` is zero, so that ``lead * (P^n - I)`` may be added: the degree is n then, the leading coefficient a scalar, and all
multipliers z of null sequences are of moderate size. They are the solutions of one eigenvalue problem.

**Linear factors.** A null sequence is a solution u of the polynomial on such sequences. With ``nu = z**(1 / n)`` and
the periodic ``w[i] = u[i] * nu**i``, the linear polynomial with that solution is

    P - diag(u[i - 1] / u[i]) = diag(w[i - 1]) (P - nu I) diag(1 / w[i]),

a right factor of the polynomial. It takes every other null sequence to one of the quotient: ``u[i - 1] - a[i] * u[i]``
with the diagonal ``a`` above. So null sequences are used up one by one. They are kept as `w` and `nu`, which are of
moderate size whatever z is; the step is ``nu' * w'[i - 1] - nu * w[i - 1] / w[i] * w'[i]`` on these.

**Real factors.** A real null sequence is a real linear factor. A complex one and its conjugate make a real quadratic
one, ``q = P^2 + diag(b) P + diag(a)``, which has no real linear factors. But with any real diagonal D and real linear
``l = P - diag(k)`` the null sequences of ``q D l`` are that of `l` and the solutions y of ``D l y = u``. If y is a real
vector times ``nu**-i``, the circulant ``P^2 - 2 Re(nu) P + |nu|^2`` between real diagonals annihilates it, and a linear
factor is left: seven factors in all,

    q = left (P - r I) diag(1 / sigma) (P^2 - 2 Re(nu) P + |nu|^2) diag(tau) (P - r I)^-1 right.

The condition is solved by hand: with ``psi[i]`` the phases of `w` less a common one, ``k[i] = |nu| * sin(psi[i] - arg
nu) / sin(psi[i])``, ``tau`` the periodic part of the null sequence of `l`, and `r` its growth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SHIFT",
    "eigen_sequences",
    "factor_matrix",
    "factor_real_matrix",
    "factor_real_sequences",
    "linear_factors",
    "periodic_parts",
]

_LEAD = 0.4 * np.exp(0.6j)
"""The leading coefficient in units of the root mean square norm of a row. Half of it brings multipliers that range over
ten digits, ten times as much twice the error; the phase only keeps away from real numbers."""

_REAL_LEADS = (0.4, 0.6, 0.9, 1.3, 2.0, 3.0)
"""The leading coefficients for real factors, which are tried one after the other until no multiplier is negative. Large
ones bring all multipliers near one, but errors grow with them."""

SHIFT = -np.exp(0.35j)
"""The multiplier around which the pencil becomes an ordinary eigenvalue problem."""

_REAL_SHIFT = -1.0
"""A real one, for real factors."""

_LARGEST_MULTIPLIER = 1e3
"""All multipliers of a matrix without structure are within this factor of one, with a wide margin. Others do not lead
to accurate factors."""

_ROUGHEST = 1e5
"""Likewise, the mean square of the entries of a null sequence is below this multiple of n**2 times the least square."""


def factor_matrix(W: NDArray[Any], extended: bool) -> list[NDArray[np.complex128]] | None:
    """Return ``2n + 1`` diagonals and first columns, or nothing where structure of `W` would spoil their accuracy."""
    n = len(W)
    lead = _LEAD * np.linalg.norm(W) / np.sqrt(n)
    below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
    return _factor(below, above, lead, extended=extended)


def factor_real_matrix(W: NDArray[np.float64], extended: bool) -> list[NDArray[np.float64]] | None:
    """Return at most ``3n + 1`` real diagonals and first columns, or nothing where structure of `W` is in the way."""
    n = len(W)
    for share in _REAL_LEADS:
        lead = float(share * np.linalg.norm(W) / np.sqrt(n))
        below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
        if (vectors := _factor_real(below, above, lead, extended=extended)) is not None:
            return vectors
    return None


def _factor(
    below: NDArray[np.complex128], above: NDArray[np.complex128], lead: complex, *, extended: bool
) -> list[NDArray[np.complex128]] | None:
    sequences = _null_sequences(below, above)
    if sequences is None:
        return None
    with np.errstate(all="ignore"):  # The caller sees what becomes of zeros.
        w, log_nu = periodic_parts(*sequences)
        return linear_factors(w, np.exp(log_nu), lead, extended=extended)


def _factor_real(
    below: NDArray[np.float64], above: NDArray[np.float64], lead: float, *, extended: bool
) -> list[NDArray[np.float64]] | None:
    sequences = _null_sequences(below, above, _REAL_SHIFT)
    if sequences is None:
        return None
    with np.errstate(all="ignore"):  # The caller sees what becomes of zeros.
        w, log_nu = periodic_parts(*sequences)
        vectors = factor_real_sequences(w, np.exp(log_nu), extended=extended)
    return None if vectors is None else [lead * vectors[0], *vectors[1:]]


def periodic_parts(
    u: NDArray[np.complex128], z: NDArray[np.complex128]
) -> tuple[NDArray[np.clongdouble], NDArray[np.clongdouble]]:
    """Return w and the logarithms of nu, with ``u[i] = w[i] * nu**-i`` and w periodic."""
    n = u.shape[1]
    log_nu = np.log(z.astype(np.clongdouble)) / n
    return u * np.exp(log_nu[:, None] * np.arange(n)), log_nu


def eigen_sequences(
    corner: NDArray[Any], inverse: NDArray[Any], shift: complex = SHIFT
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return u, as rows, and z with ``(below + z * above) u = 0``.

    `corner` holds the rows of `above` that are not zero, `inverse` those columns of ``(below + shift * above)^-1``.
    """
    theta, x = np.linalg.eig(corner @ inverse)
    with np.errstate(all="ignore"):  # A multiplier of no accuracy may be zero or infinite.
        z = np.asarray(shift - 1 / theta, dtype=np.complex128)
    return np.asarray((inverse @ x).T, dtype=np.complex128), z


def _null_sequences(
    below: NDArray[Any], above: NDArray[Any], shift: complex = SHIFT
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]] | None:
    """Return all u and z with ``(below + z * above) u = 0``, u as rows, or nothing where these are of no use."""
    rows = np.flatnonzero(above.any(axis=1))
    pencil = below + shift * above
    unit = np.eye(len(above), dtype=pencil.dtype)[:, rows]
    try:
        u, z = eigen_sequences(above[rows], np.linalg.solve(pencil, unit), shift)
    except np.linalg.LinAlgError:
        return None
    with np.errstate(all="ignore"):
        sizes, squares = np.abs(z), np.abs(u) ** 2
        spread = np.max(squares.mean(axis=1) / squares.min(axis=1))
        useful = spread <= _ROUGHEST * len(above) ** 2 and max(sizes.max(), 1 / sizes.min()) <= _LARGEST_MULTIPLIER
    return (u, z) if useful else None


_DISTANCE = 0.25
"""How much the order of the factors prefers long vectors to flat ones. Long vectors are far from all that were used.
Without this circulants lose digits, since all of their null sequences are flat."""

_CHUNK_BYTES = 2**19
"""Rows are worked on in chunks of so many bytes, which stay in the cache of a core."""


def linear_factors(
    w: NDArray[np.inexact[Any]], nu: NDArray[np.inexact[Any]], lead: complex, *, extended: bool
) -> list[NDArray[np.complex128]]:
    """Return the ``2k + 1`` diagonals and first columns of `lead` times the polynomial with given null sequences.

    These are ``w[i] * nu**-i``, with `w` (k, n) and `nu` (k,). Next comes always the sequence of the flattest modulus,
    because a factor multiplies errors by the range of its diagonals. `extended` works in long double: rounding here
    dominates the error, and grows as the square of n.
    """
    rows, n = w.shape
    dtype = np.clongdouble if extended else np.complex128
    w, nu = w.astype(dtype), nu.astype(dtype)
    mean, least = np.empty(rows), np.empty(rows)
    chunk = max(1, _CHUNK_BYTES // (n * w.itemsize))

    def measure(part: slice) -> None:
        squares = (w[part].real ** 2 + w[part].imag ** 2).astype(np.float64)
        mean[part], least[part] = squares.mean(axis=1), squares.min(axis=1)

    for start in range(0, rows, chunk):
        measure(slice(start, start + chunk))
    used_w, used_nu = np.empty_like(w), np.empty_like(nu)
    for left in range(rows, 0, -1):
        cost = np.log(mean[:left] / least[:left]) - _DISTANCE * np.log(mean[:left] / mean[:left].max())
        k = int(cost.argmin())
        used_w[rows - left] = w[k] / np.sqrt(mean[k])
        used_nu[rows - left] = nu[k]
        a = nu[k] * np.roll(w[k], 1) / w[k]
        last = left - 1
        for array in (w, nu):
            array[k] = array[last]
        for start in range(0, last, chunk):
            part = slice(start, min(start + chunk, last))
            product = w[part] * a
            shifted = np.roll(w[part], 1, axis=1)
            shifted *= nu[part, None]
            np.subtract(shifted, product, out=w[part])
            measure(part)
    before = np.roll(used_w, 1, axis=1)
    vectors = [lead * before[-1]]
    for j in range(rows - 1, -1, -1):
        column = np.zeros(n, dtype=dtype)
        column[0] -= used_nu[j]
        column[1 % n] += 1
        vectors += [column, (before[j - 1] if j else 1) / used_w[j]]
    return [vector.astype(np.complex128) for vector in vectors]


_NEGATIVE = 1e-9
"""A multiplier counts as negative if it is fewer than so many half turns away from the negative axis."""

_BRANCHES = (0, 1, -1)
"""The roots of a multiplier that are tried for a pair, in turns from the root of least angle. That one is of no use
where it is nearly real."""

_PHASES = 8
"""So many common phases are tried for each root: those in the middle of the widest gaps between phases that make an
entry zero."""

_PI = 4 * np.arctan(np.longdouble(1))
"""This is pi in the precision of the sequences: any error in their phases is an error of the factors."""

_REAL_COST = 2.0
"""How much the flatness of a real sequence counts in the order of the factors, in units of that of complex ones: a real
sequence has entries nearer to zero than a complex one of the same flatness."""


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
