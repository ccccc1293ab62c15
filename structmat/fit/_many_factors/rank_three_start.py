"""Every matrix of rank three as a product of seven factors, by Newton's method.

Let the circulant in the middle of D C D C D C D have three eigenvalues that are not zero, those of the Fourier vectors
f of frequencies -1, 0 and 1. Then D C D on its left has to take these to vectors u that span the column space, and so
on the right. With ``w = 1 / d`` for the outer diagonal, ``A_j`` the transform of ``w * u_j`` and `s` and `e` those of
the circulant and the inner diagonal, ``A_j[g] = s[g] e[g - j]``. There is such an `e` if

    A_-1[g - 1] A_1[g] = A_0[g] A_0[g - 1]  for all g:

n equations for n numbers w, up to scale, and the basis u, which both sides share, and which leaves a few to choose.
Damped Newton steps on both sides at once find a solution from most random signs `w`, in some thirty steps. Those on the
basis are kept small: three parallel vectors would be a solution of no use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._many_factors.diagonal_forms import DiagonalForms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["rank_three_product"]

# Random starts and steps of each. Of rows that were not normalised, one start in three or four led to a solution.
_STARTS, _STEPS = 16, 400
# Damping of the first step and its changes, and how many are tried for one step.
_DAMPING, _LESS, _MORE, _TRIALS = 1e-3, 0.2, 5.0, 10
# Steps of the basis beside those of w, and the residual at which steps end.
_BASIS_STEP, _SOLVED = 0.05, 1e-11
# Equations are solved by entries near zero too, which make no factors: the product must be as near as this.
_NEAR = 1e-3


class _Side(NamedTuple):
    """The equations of one side, each in units of its terms, and their derivatives."""

    residual: NDArray[Any]
    by_w: NDArray[Any]
    """(equations, n), in units of `_steps_of`."""
    by_basis: NDArray[Any]
    """(equations, 9)"""
    transforms: NDArray[Any]
    """(n, 3): of the frequencies -1, 0 and 1."""


class _State(NamedTuple):
    """`w` of both sides, the basis M of the left one, and what they lead to."""

    w: NDArray[Any]
    M: NDArray[Any]
    sides: tuple[_Side, _Side]

    @property
    def error(self) -> float:
        left, right = self.sides
        return float(np.linalg.norm(np.concatenate([left.residual, right.residual])))


def rank_three_product(
    A: NDArray[Any], B: NDArray[Any], rng: np.random.Generator, stopped: Callable[[], bool]
) -> list[NDArray[Any]] | None:
    """Return diagonals and first columns of seven factors whose product is ``A @ B.T``; None if none are found.

    Parameters
    ----------
    A, B : (n, 3) ndarray
        In double precision, of full rank; n from 4 on.
    rng : numpy.random.Generator
    stopped : callable
        Whether time is up.
    """
    # The outer diagonals take the norms of rows, so that all rows count alike, and any row may stand for one of zeros.
    sizes = [np.linalg.norm(side, axis=1)[:, None] for side in (A, B)]
    rows = [
        np.where(d > 0, side / np.where(d > 0, d, 1.0), rng.standard_normal(side.shape))
        for side, d in zip((A, B), sizes, strict=True)
    ]
    equations = _Equations(*rows)
    target = equations.columns[0] @ equations.columns[1].T
    for _ in range(_STARTS):
        state = _solved(equations, rng, stopped)
        if state is not None:
            with np.errstate(all="ignore"):
                vectors = _chain(equations, state)
                product = DiagonalForms.from_vectors(vectors, "diagonal", real=equations.real).dense()
            if np.linalg.norm(product - target) <= _NEAR * np.linalg.norm(target):
                first, *others, last = vectors
                return [sizes[0][:, 0] * first, *others, sizes[1][:, 0] * last]
        if stopped():
            break
    return None


class _Equations:
    """The equations of both sides."""

    def __init__(self, A: NDArray[Any], B: NDArray[Any]) -> None:
        self.columns = (A, B)
        self.real = not (np.iscomplexobj(A) or np.iscomplexobj(B))
        # Vectors of the frequencies -1, 0 and 1: conjugates of one another for real factors.
        self.K = np.array([[0, 1, 0], [1, 0, 1], [-1j, 0, 1j]]) if self.real else np.eye(3, dtype=np.complex128)
        inverse = np.linalg.inv(self.K)
        self.flipped = inverse.T[:, ::-1] @ inverse
        if self.real:
            self.flipped = self.flipped.real
        n = len(A)
        i = np.arange(n)
        # Equation g is the conjugate of equation 1 - g if factors are real.
        self.rows = np.arange(1, (n + 1) // 2 + 1) % n if self.real else i
        self.fourier = np.exp(-2j * np.pi * (self.rows[:, None] * i % n) / n)
        self.shift = np.exp(2j * np.pi * i / n)

    def state(self, w: NDArray[Any], M: NDArray[Any]) -> _State:
        right = np.linalg.inv(M).T @ self.flipped
        sides = self._side(self.columns[0], w[0], M), self._side(self.columns[1], w[1], right)
        # The derivative of the basis on the right by that on the left.
        inner = sides[1].by_basis.reshape(-1, 3, 3)
        by_basis = -np.einsum("nab,ai,jb->nji", inner, np.linalg.inv(M).T, right).reshape(-1, 9)
        return _State(w, M, (sides[0], sides[1]._replace(by_basis=by_basis)))

    def _side(self, columns: NDArray[Any], w: NDArray[Any], M: NDArray[Any]) -> _Side:
        u = columns @ (M @ self.K)
        transforms = np.fft.fft(u * w[:, None], axis=0)
        of_columns = np.fft.fft(columns * w[:, None], axis=0)
        _, zero, high = transforms[self.rows].T
        low_before, zero_before, _ = transforms[self.rows - 1].T
        residual = low_before * high - zero * zero_before
        weights = 1 / np.sqrt(np.abs(low_before * high) ** 2 + np.abs(zero * zero_before) ** 2 + np.finfo(float).tiny)
        by_w = np.stack([high, -zero, low_before, -zero_before], axis=1) @ np.stack(
            [u[:, 0] * self.shift, u[:, 1] * self.shift, u[:, 2], u[:, 1]]
        )
        by_w *= self.fourier * _steps_of(w)
        now, before = of_columns[self.rows], of_columns[self.rows - 1]
        by_vectors = np.stack(
            [before * high[:, None], -now * zero_before[:, None] - zero[:, None] * before, low_before[:, None] * now],
            axis=2,
        )
        by_basis = (by_vectors @ self.K.T).reshape(-1, 9)
        residual, by_w, by_basis = residual * weights, by_w * weights[:, None], by_basis * weights[:, None]
        if self.real:
            residual, by_w, by_basis = (np.concatenate([x.real, x.imag]) for x in (residual, by_w, by_basis))
        return _Side(residual, by_w, by_basis, transforms)


def _solved(equations: _Equations, rng: np.random.Generator, stopped: Callable[[], bool]) -> _State | None:
    """Return a solution from random signs or phases, or nothing if steps do not converge."""
    n = len(equations.columns[0])
    w = rng.choice([-1.0, 1.0], (2, n)) * rng.uniform(0.7, 1.3, (2, n))
    M = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    if not equations.real:
        w = w * np.exp(2j * np.pi * rng.random((2, n)))
        M = np.linalg.qr(M + 1j * rng.standard_normal((3, 3)))[0]
    damping = _DAMPING
    state = equations.state(w, M)
    for _ in range(_STEPS):
        if state.error <= _SOLVED:
            return state
        normal = [_normal(side) for side in state.sides]
        for _trial in range(_TRIALS):
            if stopped():
                return None
            try:
                steps, basis_step = _step(normal, damping)
                with np.errstate(all="ignore"):
                    following = equations.state(state.w + _steps_of(state.w) * steps, state.M + basis_step)
            except np.linalg.LinAlgError:  # of the normal matrix, or of a basis that became singular
                return None
            if following.error < state.error:
                break
            damping *= _MORE
        else:
            return None
        damping *= _LESS
        scaled = following.w / np.sqrt(np.mean(np.abs(following.w) ** 2, axis=1, keepdims=True))
        state = equations.state(scaled, following.M)
    return None


def _steps_of(w: NDArray[Any]) -> NDArray[Any]:
    """Return units for steps of `w`: small entries change their signs, but few come to lie near zero."""
    units: NDArray[Any] = np.sqrt(1.0 + np.abs(w) ** 2)
    return units


def _normal(side: _Side) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the normal matrix of `w`, what couples it to the basis and the residual, and that of these two."""
    basis = np.concatenate([_BASIS_STEP * side.by_basis, side.residual[:, None]], axis=1)
    adjoint = side.by_w.conj().T
    return adjoint @ side.by_w, adjoint @ basis, basis.conj().T @ basis


def _step(normal: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], damping: float) -> tuple[NDArray[Any], Any]:
    """Return the damped step: of `w` on both sides, and of the basis."""
    scale = damping * sum(float(np.trace(H).real) for H, _, _ in normal) / sum(len(H) for H, _, _ in normal)
    solutions = [np.linalg.solve(H + scale * np.eye(len(H)), c) for H, c, _ in normal]
    left = sum(b - c.conj().T @ x for (_, c, b), x in zip(normal, solutions, strict=True))
    basis = -np.linalg.solve(left[:9, :9] + scale * np.eye(9), left[:9, 9])
    steps = np.stack([-x[:, 9] - x[:, :9] @ basis for x in solutions])
    return steps, _BASIS_STEP * basis.reshape(3, 3)


def _chain(equations: _Equations, state: _State) -> list[NDArray[Any]]:
    """Return diagonals and first columns of the seven factors."""
    halves = [_half(side.transforms) for side in state.sides]
    (e, s, growth), (right_e, right_s, right_growth) = halves
    n = len(e)
    middle = np.zeros(n, dtype=np.complex128)
    middle[[-1, 0, 1]] = n * (right_growth / growth) ** np.array([-1, 0, 1])
    outer, right_outer = 1 / state.w
    forms = (outer, s, np.fft.ifft(e), middle, np.fft.ifft(right_e), right_s, right_outer)
    vectors: list[NDArray[Any]] = [np.fft.ifft(x) if place % 2 else x for place, x in enumerate(forms)]
    vectors[5] = np.roll(vectors[5][::-1], 1)  # the side on the right is transposed
    return [x.real if equations.real else x for x in vectors]


def _half(transforms: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Return `e`, `s` and the factor that the vector of frequency -1 lacks for `e` to close along the cycle."""
    low, zero, _ = transforms.T
    ratios = low / zero
    growth = np.exp(np.mean(np.log(np.abs(ratios))) + 1j * np.angle(np.prod(ratios / np.abs(ratios))) / len(low))
    e = np.cumprod(np.append(1.0, ratios[:-1] / growth))
    e /= np.exp(np.mean(np.log(np.abs(e))))
    return e, zero / e, growth
