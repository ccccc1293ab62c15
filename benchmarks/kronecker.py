"""Claim: Kronecker products cost what their factors cost, and grids with noise have exact likelihoods with gradients.

Products of one vector and two or three dense factors of normal entries, beside one matrix product of NumPy for each
axis, and other libraries. Likelihoods with their gradients by two lengths and the noise, of a squared exponential along
the first axis (length 8 steps) and a Matérn covariance of order 3/2 along the second (6), with noise of variance 0.1:
torch, beside linear_operator, the base of GPyTorch, and a dense Cholesky factor; errors of gradients are relative to
that. Systems to 1e-8 where the noise is uneven, 0.05 to 0.2, and where a tenth of the grid is missing, by conjugate
gradients. Poisson's equation with zeros around a square, by the Kronecker sum of second differences as small dense
matrices, beside SciPy's sparse LU factor. Seconds are the processor's, of one core; --out writes ``kronecker.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import cola
import numpy as np
import pylops
import scipy.sparse
import torch
from _common import begin, finish, in_turns, parser, table
from linear_operator import operators as peers

import structmat as sm

LENGTHS, NOISE = (8.0, 6.0), 0.1
DENSE = 3600
"""The most points for which dense factors are computed."""
Row = list[object]


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int = 9) -> list[str]:
    times = in_turns(calls, rounds=rounds, limit=3.0)
    return [f"{1e3 * median(times[name]):.3g}" for name in calls]


def by_hand(factors: list[Any], x: Any) -> Any:
    """Return the product by the fewest lines of NumPy: one matrix product along each axis."""
    for factor in reversed(factors):
        x = (factor @ x.reshape(-1, factor.shape[1]).T).reshape(-1)
    return x


def product(sizes: tuple[int, ...]) -> Row:
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((n, n)) for n in sizes]
    x = rng.standard_normal(int(np.prod(sizes)))
    tensors, vector = [torch.from_numpy(factor) for factor in factors], torch.from_numpy(x)
    ours, ours_in_torch = sm.Kronecker(*factors), sm.Kronecker(*tensors)
    of_pylops = reduce(pylops.Kronecker, map(pylops.MatrixMult, factors))
    of_gpytorch = peers.KroneckerProductLinearOperator(*map(peers.DenseLinearOperator, tensors))
    of_cola = cola.ops.Kronecker(*map(cola.ops.Dense, tensors))
    calls = {
        "structmat": lambda: ours @ x,
        "NumPy": lambda: by_hand(factors, x),
        "PyLops": lambda: of_pylops @ x,
        "structmat, torch": lambda: ours_in_torch @ vector,
        "linear_operator": lambda: of_gpytorch @ vector,
        "CoLA": lambda: of_cola @ vector,
    }
    wanted = by_hand(factors, x)
    for call in calls.values():
        np.testing.assert_allclose(np.asarray(call()), wanted, atol=1e-9 * np.max(np.abs(wanted)))
    return [" x ".join(map(str, sizes)), *milliseconds(calls)]


def covariances(sizes: tuple[int, int], lengths: Any) -> list[Any]:
    """Return the matrices of both axes, in torch."""
    first, second = (torch.abs(torch.arange(n)[:, None] - torch.arange(n)).double() for n in sizes)
    scaled = second / lengths[1]
    return [torch.exp(-0.5 * (first / lengths[0]) ** 2), (1 + scaled) * torch.exp(-scaled)]


def likelihood(sizes: tuple[int, int]) -> Row:
    n = sizes[0] * sizes[1]
    y = torch.from_numpy(np.random.default_rng(0).standard_normal(n))

    def ours(factors: list[Any], noise: Any) -> Any:
        A = sm.Kronecker(*factors) + noise * sm.Identity(n)
        return y @ A.solve(y) + A.slogdet().logabsdet

    def of_gpytorch(factors: list[Any], noise: Any) -> Any:
        K = peers.KroneckerProductLinearOperator(*map(peers.DenseLinearOperator, factors))
        A = K + peers.ConstantDiagLinearOperator(noise[None], n)
        return sum(A.inv_quad_logdet(y[:, None], logdet=True))

    def dense(factors: list[Any], noise: Any) -> Any:
        L = torch.linalg.cholesky(torch.kron(*factors) + noise * torch.eye(n, dtype=torch.float64))
        whitened = torch.linalg.solve_triangular(L, y[:, None], upper=False)
        return torch.sum(whitened**2) + 2 * torch.sum(torch.log(torch.diagonal(L)))

    def gradient(function: Callable[..., Any]) -> Any:
        values = torch.tensor([*LENGTHS, NOISE], dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(function(covariances(sizes, values[:2]), values[2]), values)
        return found

    functions = {"structmat": ours, "linear_operator": of_gpytorch} | ({"dense": dense} if n <= DENSE else {})
    times = milliseconds({name: lambda f=f: gradient(f) for name, f in functions.items()}, rounds=5)
    exact = gradient(dense if n <= DENSE else ours)
    errors = [f"{float(torch.max(torch.abs(gradient(f) / exact - 1))):.0e}" for f in (ours, of_gpytorch)]
    row = [f"{sizes[0]} x {sizes[1]}", *times, *[""] * (3 - len(times))]
    return [*row, *(errors if n <= DENSE else ["", ""])]


def system(sizes: tuple[int, int], kind: str) -> Row:
    rng, n = np.random.default_rng(0), sizes[0] * sizes[1]
    K = sm.Kronecker(*(sm.Toeplitz(np.asarray(factor[0])) for factor in covariances(sizes, LENGTHS)))
    A: Any = K + (sm.Diagonal(rng.uniform(0.05, 0.2, n)) if "uneven" in kind else NOISE * sm.Identity(n))
    if "gaps" in kind:
        kept = np.flatnonzero(rng.random(n) > 0.1)
        A = A[kept][:, kept]
    b = rng.standard_normal(A.shape[0])
    options: dict[str, Any] = {"assume": "positive definite", "rtol": 1e-8, "max_iter": 5000}
    calls = {
        "nearest": lambda: sm.solve(A, b, **options),
        "none": lambda: sm.solve(A, b, preconditioner=None, **options),
    }
    steps = [call().iterations for call in calls.values()]
    times = milliseconds(calls, rounds=3)
    return [f"{sizes[0]} x {sizes[1]}", kind, steps[0], times[0], steps[1], times[1]]


def poisson(n: int) -> Row:
    D = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    b = np.random.default_rng(0).standard_normal(n * n)
    sparse = scipy.sparse.csc_array(scipy.sparse.kronsum(D, D))
    L = sm.KroneckerSum(D, D)
    once = sm.Eigendecomposition.of(L).inv()
    calls = {
        "structmat": lambda: L.solve(b),
        "again": lambda: once @ b,
        "SciPy": lambda: scipy.sparse.linalg.spsolve(sparse, b),
    }
    error = np.max(np.abs(L @ calls["structmat"]() - b)) / np.max(np.abs(b))
    return [f"{n} x {n}", *milliseconds(calls, rounds=3), f"{error:.0e}"]


def main() -> None:
    options = begin(parser(__doc__))
    quick = options.quick
    products = ((10, 10), (4, 5, 6)) if quick else ((100, 100), (300, 300), (1000, 1000), (60, 60, 60))
    grids = ((8, 9),) if quick else ((30, 30), (60, 60), (200, 200), (500, 500))
    systems = ((8, 9),) if quick else ((100, 100),)
    squares = (8,) if quick else (64, 256)
    parts = [
        "Products, milliseconds:",
        table(
            ["factors", "structmat", "NumPy by hand", "PyLops", "structmat, torch", "linear_operator", "CoLA"],
            map(product, products),
        ),
        "Likelihood and gradient, milliseconds, and largest relative errors of gradients:",
        table(["grid", "structmat", "linear_operator", "dense", "error", "of linear_operator"], map(likelihood, grids)),
        "Systems, milliseconds:",
        table(
            ["grid", "kind", "steps", "structmat", "steps, no preconditioner", "without"],
            [system(sizes, kind) for sizes in systems for kind in ("uneven noise", "gaps", "gaps, uneven noise")],
            left=2,
        ),
        "Poisson's equation, milliseconds:",
        table(["grid", "structmat", "with eigenvectors at hand", "SciPy", "residual"], map(poisson, squares)),
    ]
    packages = ("structmat", "numpy", "scipy", "torch", "linear_operator", "pylops", "cola-ml")
    finish(options.out, "kronecker", "Kronecker products and sums", *parts, packages=packages)


if __name__ == "__main__":
    main()
