"""Least squares by the bidiagonalisation of Golub and Kahan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count, plain_norm, smallest_normal
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class LSMR(KrylovMethod):
    """The method LSMR for least-squares solutions of matrices of any shape and rank [1]_.

    See Also
    --------
    GMRES : For regular square matrices, of which an iteration costs one product.

    Notes
    -----
    Each iteration costs one product with A and one with its adjoint. In exact arithmetic it is MINRES on the normal
    equations, without their loss of digits. The solution has the least norm; with a preconditioner M it is M times the
    y of least norm. The number of iterations grows with the condition number; singular values that are zero do not
    count.

    References
    ----------
    .. [1] Fong, D. C.-L., Saunders, M., LSMR: an iterative algorithm for sparse least-squares problems, SIAM J. Sci.
       Comput. 33, 2011.

    Examples
    --------
    A system near a cyclic shift, whose eigenvalues lie all around zero:

    >>> import numpy as np
    >>> import structmat as sm
    >>> shift = sm.Circulant(np.array([0.0, 1.0] + 98 * [0.0]))
    >>> A = shift + sm.Diagonal(np.linspace(0.0, 0.1, 100))
    >>> sm.solve(A, np.arange(100.0), method=sm.LSMR(), preconditioner=None).iterations < 30
    True
    """

    def _run(
        self,
        A: LinearOperator,
        b: Array,
        M: LinearOperator | None,
        rtol: float,
        max_iter: Count,
        norm: Array | None,
        xp: Namespace,
    ) -> tuple[Array, Count]:
        rules = rules_of(xp)
        add = rules.add
        smallest = smallest_normal(b.dtype, xp)
        target = rtol * plain_norm(b, xp)
        nothing = xp.zeros_like(target)
        least = nothing if norm is None else rtol * norm

        def product(v: Array) -> Array:
            return A._matvec(v if M is None else M._matvec(v, xp), xp)

        def adjoint(u: Array) -> Array:
            v = A._rmatvec(u, xp)
            return v if M is None else M._rmatvec(v, xp)

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
        x = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        s = _Rotations.start(alpha, beta, xp)
        active = (beta > target) & (alpha > least) & (alpha > 0.0)
        state = (x, v, xp.zeros_like(x), u, v, alpha, s, active, 0)
        x, *_, count = rules.loop(goes_on, step, state)
        return x if M is None else M._matvec(x, xp), count


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
