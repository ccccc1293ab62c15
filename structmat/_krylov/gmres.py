"""Generalised minimal residuals, restarted, and how a caller gives an iteration up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.linear_algebra import dense_solutions, matmul
from structmat._arrays.typing import Array, Namespace
from structmat._krylov.vectors import Count, Product, plain_norm, smallest_normal


def gmres(
    product: Product,
    b: Array,
    preconditioned: Product | None = None,
    *,
    rtol: float,
    max_iter: Count,
    restart: int,
    xp: Namespace,
) -> tuple[Array, Count]:
    """Return solutions for all vectors of b, and the number of iterations, the most for any of them.

    They are computed by cycles of at most `restart` iterations, each on the residual that the one before has left. The
    preconditioner stands on the right, so that the residual is that of the system itself.
    """
    rules = rules_of(xp)
    target = rtol * plain_norm(b, xp)

    def by_preconditioner(v: Array) -> Array:
        return v if preconditioned is None else preconditioned(v)

    def preconditioned_product(v: Array) -> Array:
        return product(by_preconditioner(v))

    def goes_on(state: tuple[Any, ...]) -> Any:
        _, _, residual_norm, is_better, count = state
        return xp.any((residual_norm > target) & is_better) & (count < max_iter)

    def cycle(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, residual_norm, _, count = state
        steps = rules.least(restart, max_iter - count)
        y, made = _combination(preconditioned_product, r, residual_norm, xp, target=target, size=restart, steps=steps)
        x = x + by_preconditioner(y)
        r = b - product(x)
        new_norm = plain_norm(r, xp)
        return x, r, new_norm, new_norm < residual_norm, count + made

    residual_norm = plain_norm(b, xp)
    # A cycle that makes no residual smaller ends the loop, since all later ones would be the same.
    state = (xp.zeros_like(b), b, residual_norm, residual_norm > 0.0, 0)
    x, *_, count = rules.loop(goes_on, cycle, state)
    return x, count


def gmres_cycle(product: Product, b: Array, *, rtol: float, size: int, xp: Namespace) -> Array:
    """Return solutions for all vectors of b by at most `size` iterations, with no look at the residuals they leave."""
    norm = plain_norm(b, xp)

    def made() -> Array:
        return _combination(product, b, norm, xp, target=rtol * norm, size=size, steps=size)[0]

    return rules_of(xp).branch(xp.any(norm > 0.0), made, lambda: xp.zeros_like(b))


class GivenUp(Exception):  # noqa: N818  # no error: another way is taken
    """Iteration does not converge within the steps that are allowed."""


class Patience:
    """Products for a cycle for one vector, which give it up if its first steps have hardly made the residual smaller.

    What they have left is known by the Hessenberg matrix H of the basis that the cycle multiplies, ``product(v_j) =
    sum_i H[i, j] v_i``: the least norm of ``e_0 - H y``, relative to the norm of the first residual.
    """

    def __init__(self, product: Product, *, steps: int, allowed: float, xp: Namespace) -> None:
        self.product = product
        self.steps = steps
        """After so many steps it is given up, or goes on to the end."""
        self.allowed = allowed
        """The largest relative residual with which it goes on."""
        self.xp = xp
        self.count = 0
        self.first: list[tuple[Array, Array]] = []
        """The first vectors of the basis, and the products with them."""

    def __call__(self, v: Array) -> Array:
        if self.count == self.steps:
            if not self._least_residual(v) <= self.allowed:
                raise GivenUp
            self.first.clear()
        w = self.product(v)
        if self.count < self.steps:
            self.first.append((v, w))
        self.count += 1
        return w

    def _least_residual(self, following: Array) -> float:
        """Return the relative residual after the first steps, of which `following` is the last vector of the basis."""
        xp = self.xp
        vectors, products = zip(*self.first, strict=True)
        basis = conjugate(xp.stack([*vectors, following]), xp)
        hessenberg = matmul(basis, xp.matrix_transpose(xp.stack(products)), xp)
        unit = xp.eye(self.steps + 1, 1, dtype=following.dtype, device=device_of(following))
        _, R = xp.linalg.qr(xp.concat([hessenberg, unit], axis=1))
        return float(xp.abs(R[-1, -1]))


def _combination(
    product: Callable[[Array], Array],
    r: Array,
    residual_norm: Array,
    xp: Namespace,
    *,
    target: Array,
    size: int,
    steps: Count,
) -> tuple[Array, Count]:
    """Return the y in the Krylov space of r with the least ``norm(r - product(y))``, and how many products it took.

    Row j of `basis` is the vector v_j; row j of `hessenberg` is column j of the Hessenberg matrix H: ``product(v_j) =
    sum_i H[i, j] v_i``. A vector u with ``u^T H = 0`` and ``u_0 = 1`` grows by one entry in each step, by
    ``H[j + 1, j] u_{j + 1} = -sum_i u_i H[i, j]``: the least norm is ``norm(r) / norm(u)`` [1]_. The columns of steps
    that a right-hand side has not made are unit vectors, which have no part in its y.

    References
    ----------
    .. [1] Ayachour, E. H., A fast implementation for GMRES method, J. Comput. Appl. Math. 159, 2003.
    """
    batch = tuple(r.shape[:-1])
    n = r.shape[-1]
    like = {"dtype": r.dtype, "device": device_of(r)}
    eps = float(xp.finfo(r.dtype).eps)
    smallest = smallest_normal(r.dtype, xp)
    one = xp.ones_like(residual_norm)
    rules = rules_of(xp)
    put = rules.put
    first = rules.first

    def goes_on(state: tuple[Any, ...]) -> Any:
        *_, active, j = state
        return xp.any(active) & (j < steps)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        basis, hessenberg, u, squares, active, j = state
        vectors = basis[..., first(j + 1), :]
        w = product(basis[..., j, :])
        norm_of_product = plain_norm(w, xp)
        h = _projections(vectors, w, xp)
        w = w - matmul(h[..., None, :], vectors, xp)[..., 0, :]
        correction = _projections(vectors, w, xp)  # orthogonalised twice, or rounding errors would remain
        w = w - matmul(correction[..., None, :], vectors, xp)[..., 0, :]
        h = h + correction
        norm = plain_norm(w, xp)
        grows = norm > eps * norm_of_product  # else the product lies in the Krylov space
        divisor = norm + smallest
        following = -xp.sum(u[..., first(j + 1)] * h, axis=-1) / divisor
        basis = put(basis, (j + 1, slice(None)), w / divisor[..., None])
        hessenberg = put(hessenberg, (j, first(j + 1)), xp.where(active[..., None], h, xp.zeros_like(h)))
        hessenberg = put(hessenberg, (j, j + 1), xp.astype(xp.where(active, norm, one), r.dtype))
        u = put(u, (j + 1,), following)
        squares = squares + xp.abs(following) ** 2
        return basis, hessenberg, u, squares, active & grows & (residual_norm > target * xp.sqrt(squares)), j + 1

    basis = xp.zeros((*batch, size + 1, n), **like)
    basis = put(basis, (0, slice(None)), r / (residual_norm + smallest)[..., None])
    hessenberg = xp.zeros((*batch, size, size + 1), **like) + xp.eye(size, size + 1, k=1, **like)
    u = put(xp.zeros((*batch, size + 1), **like), (0,), xp.ones(batch, **like))
    state = (basis, hessenberg, u, one, residual_norm > target, 0)
    basis, hessenberg, *_, made = rules.loop(goes_on, step, state)

    made_steps = first(made)
    rows = hessenberg[..., made_steps, first(made + 1)]
    coefficients = _least_squares(xp.matrix_transpose(rows), residual_norm, xp)
    return matmul(coefficients[..., None, :], basis[..., made_steps, :][..., : rows.shape[-2], :], xp)[..., 0, :], made


def _projections(basis: Array, w: Array, xp: Namespace) -> Array:
    """Return the inner products of the rows of a basis with a vector."""
    return conjugate(matmul(basis, conjugate(w, xp)[..., None], xp)[..., 0], xp)


def _least_squares(hessenberg: Array, residual_norm: Array, xp: Namespace) -> Array:
    """Return the y with the least ``norm(residual_norm e_0 - H y)``, of moderate size where H is singular."""
    Q, R = xp.linalg.qr(hessenberg)
    moduli = xp.abs(xp.linalg.diagonal(R))
    eps = float(xp.finfo(moduli.dtype).eps)
    largest = xp.max(moduli, axis=-1, keepdims=True)
    negligible = moduli <= eps * largest
    # Large numbers are added to negligible entries of the diagonal, by which the entries of y there are negligible too.
    shift = xp.where(negligible, xp.where(largest > 0.0, largest, xp.ones_like(largest)), xp.zeros_like(moduli))
    eye = xp.eye(R.shape[-1], dtype=R.dtype, device=device_of(R))
    R = R + eye * xp.astype(shift / eps, R.dtype)[..., None, :]
    right = conjugate(Q[..., 0, :], xp) * xp.astype(residual_norm, R.dtype)[..., None]
    return dense_solutions(R, right[..., None], xp)[..., 0]
