"""Least squares by the bidiagonalisation of Golub and Kahan: LSMR [1]_.

References
----------
.. [1] Fong, D. C.-L., Saunders, M., LSMR: an iterative algorithm for sparse least-squares problems, SIAM J. Sci.
   Comput. 33, 2011.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov.vectors import Count, Product, plain_norm, smallest_normal


def lsmr(
    product: Product,
    adjoint: Product,
    b: Array,
    *,
    rtol: float,
    max_iter: Count,
    norm: Array | None,
    xp: Namespace,
) -> tuple[Array, Count]:
    """Return least-squares solutions for all vectors of b, and the number of iterations, the most for any of them.

    `product` and `adjoint` multiply by a matrix A and by its adjoint. A right-hand side is solved where the residual r
    has ``norm(r) <= rtol * norm(b)`` or, with the `norm` of A, ``norm(A^H r) <= rtol * norm * norm(r)``.
    """
    rules = rules_of(xp)
    add = rules.add
    smallest = smallest_normal(b.dtype, xp)
    target = rtol * plain_norm(b, xp)
    nothing = xp.zeros_like(target)
    least = nothing if norm is None else rtol * norm

    def goes_on(state: Any) -> Any:
        return xp.any(state[-2]) & (state[-1] < max_iter)

    def step(state: Any) -> Any:
        x, h, hbar, u, v, alpha, s, active, count = state
        # the bidiagonalisation
        u, beta = _unit(add(-alpha[..., None] * u, product(v)), smallest, xp)
        v, alpha = _unit(add(-beta[..., None] * v, adjoint(u)), smallest, xp)
        # its QR factor, and that of the transpose of this one
        s, back, forward, along = s.after(alpha, beta, smallest, xp)
        hbar = add(-back[..., None] * hbar, h)
        x = add(x, xp.where(active, forward, nothing)[..., None] * hbar)
        h = add(-along[..., None] * h, v)
        residual = s.residual(xp)
        gradient = xp.abs(s.zetabar)
        active = active & ~(residual <= target) & (gradient > least * residual) & (gradient > 0.0)
        return x, h, hbar, u, v, alpha, s, active, count + 1

    u, beta = _unit(b, smallest, xp)
    v, alpha = _unit(adjoint(u), smallest, xp)
    s = _Rotations.start(alpha, beta, xp)
    active = (beta > target) & (alpha > least) & (alpha > 0.0)
    state = (xp.zeros_like(v), v, xp.zeros_like(v), u, v, alpha, s, active, 0)
    x, *_, count = rules.loop(goes_on, step, state)
    return x, count


class _Rotations(NamedTuple):
    """What the two QR factorisations carry on, one number for each right-hand side, in the letters of the paper."""

    zetabar: Array
    """Its modulus is the norm of the gradient ``A^H r``."""
    alphabar: Array
    rho: Array
    rhobar: Array
    cbar: Array
    sbar: Array
    zeta: Array
    # for the norm of the residual
    betadd: Array
    betad: Array
    rhod: Array
    tautilde: Array
    thetatilde: Array
    taud: Array

    @classmethod
    def start(cls, alpha: Array, beta: Array, xp: Namespace) -> _Rotations:
        one, zero = xp.ones_like(alpha), xp.zeros_like(alpha)
        return cls(
            zetabar=alpha * beta,
            alphabar=alpha,
            rho=one,
            rhobar=one,
            cbar=one,
            sbar=zero,
            zeta=zero,
            betadd=beta,
            betad=zero,
            rhod=one,
            tautilde=zero,
            thetatilde=zero,
            taud=zero,
        )

    def after(
        self, alpha: Array, beta: Array, smallest: float, xp: Namespace
    ) -> tuple[_Rotations, Array, Array, Array]:
        """Return what is carried on after a step, and the factors of the step for hbar, x and h.

        Divisors are not negative: with the `smallest` number added there are no quotients of zeros.
        """
        c, s, rho = _rotation(self.alphabar, beta, smallest, xp)
        theta = s * alpha
        alphabar = c * alpha
        thetabar = self.sbar * rho
        cbar, sbar, rhobar = _rotation(self.cbar * rho, theta, smallest, xp)
        zeta = cbar * self.zetabar
        zetabar = -sbar * self.zetabar
        back = thetabar * rho / (self.rho * self.rhobar + smallest)
        forward = zeta / (rho * rhobar + smallest)
        along = theta / (rho + smallest)

        betahat = c * self.betadd
        betadd = -s * self.betadd
        ctilde, stilde, rhotilde = _rotation(self.rhod, thetabar, smallest, xp)
        thetatilde = stilde * rhobar
        rhod = ctilde * rhobar
        betad = ctilde * betahat - stilde * self.betad
        tautilde = (self.zeta - self.thetatilde * self.tautilde) / (rhotilde + smallest)
        taud = (zeta - thetatilde * tautilde) / (rhod + smallest)
        following = _Rotations(
            zetabar, alphabar, rho, rhobar, cbar, sbar, zeta, betadd, betad, rhod, tautilde, thetatilde, taud
        )
        return following, back, forward, along

    def residual(self, xp: Namespace) -> Array:
        """Return the norm of the residual."""
        return xp.sqrt((self.betad - self.taud) ** 2 + self.betadd**2)


def _unit(v: Array, smallest: float, xp: Namespace) -> tuple[Array, Array]:
    """Return vectors of length one, zeros for zeros, and the lengths of those that were given."""
    length = plain_norm(v, xp)
    return v / (length + smallest)[..., None], length


def _rotation(a: Array, b: Array, smallest: float, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return cosine and sine of the rotation that takes ``(a, b)`` to ``(r, 0)``, and r, which is not negative."""
    r = xp.sqrt(a * a + b * b)
    divisor = r + smallest
    return a / divisor, b / divisor, r
