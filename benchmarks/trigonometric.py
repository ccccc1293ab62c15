"""Claim: with edges that reflect or vanish, transforms by cosines and sines solve exactly, in milliseconds.

Transforms: 64 vectors of 4,096 numbers by the orthonormal DCT of type 2. Poisson: the Laplacian that vanishes beside a
square. Random field: the log-density of a Gaussian Markov random field on a square with reflecting edges,
``Q = s (k I - Laplacian)``, and its gradient by k and s; GPyTorch has the product with Q alone and estimates.
Deblurring: an image cut from a larger scene, blurred and with noise; errors are relative to what was there. The filter
penalises the Laplacian, with a weight chosen by generalised cross-validation for reflecting edges, and for each kind.
Seconds are the processor's, of one core; --out writes ``edges.md``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import _one_thread  # noqa: F401
import jax
import linear_operator
import numpy as np
import pylops
import scipy.fft
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
import skimage.restoration
import torch
import torch_dct
from _common import begin, finish, in_turns, parser, ratio, table

import structmat as sm

jax.config.update("jax_enable_x64", True)


def seconds(times: list[float]) -> str:
    return f"{np.median(times):.2g}"


def timed(function: Callable[[], Any]) -> tuple[Any, str]:
    function()
    begun = time.process_time()
    found = function()
    return found, f"{time.process_time() - begun:.2g}"


def transforms(count: int, n: int) -> str:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((count, n)))
    C = sm.CosineTransform(n)
    vectors, others = x.numpy(), jax.numpy.asarray(x.numpy())
    theirs = jax.jit(lambda v: jax.scipy.fft.dct(v, norm="ortho"))
    ours = jax.jit(C.matvec)
    functions: dict[str, Callable[[], Any]] = {
        "`torch.fft.rfft` alone": lambda: torch.fft.rfft(x),
        "structmat, torch": lambda: C.matvec(x),
        "torch-dct": lambda: torch_dct.dct(x, norm="ortho"),
        "structmat, NumPy": lambda: C.matvec(vectors),
        "`scipy.fft.dct`": lambda: scipy.fft.dct(vectors, norm="ortho"),
        "structmat, JAX": lambda: ours(others).block_until_ready(),
        "`jax.scipy.fft.dct`": lambda: theirs(others).block_until_ready(),
    }
    wanted = scipy.fft.dct(vectors, norm="ortho")
    times = in_turns(functions, sample=2e-2, limit=3.0)
    first = next(iter(functions))
    rows = []
    for name, function in functions.items():
        error = "" if name == first else f"{np.max(np.abs(np.asarray(function()) - wanted)):.0e}"
        rows.append([name, seconds(times[name]), f"{ratio(times, name, first):.1f}", error])
    return table(["DCT of type 2", "s", "times `rfft`", "largest error"], rows)


def poisson(n: int) -> str:
    L = sm.laplacian((n, n), "zero")
    sparse = -scipy.sparse.linalg.LaplacianNd((n, n), boundary_conditions="dirichlet").tosparse().astype(float).tocsc()
    b = np.random.default_rng(0).standard_normal(n * n)
    A, right = -sm.laplacian((n, n), "zero", like=torch.ones(1, dtype=torch.float64)), torch.from_numpy(b)
    wanted, theirs = timed(lambda: scipy.sparse.linalg.spsolve(sparse, b))
    steps = np.arange(1, n + 1)
    squares = 4 * np.sin(0.5 * np.pi * steps / (n + 1)) ** 2
    eigenvalues = squares[:, None] + squares
    S = np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.outer(steps, steps) / (n + 1))
    prepared = (-L).prepare()

    def by_products() -> np.ndarray:
        return (S @ ((S @ b.reshape(n, n) @ S) / eigenvalues) @ S).ravel()

    def by_hand() -> np.ndarray:
        return scipy.fft.idstn(scipy.fft.dstn(b.reshape(n, n), 1) / eigenvalues, 1).ravel()

    solutions = {
        "structmat, NumPy": lambda: (-L).solve(b),
        "structmat, NumPy, prepared": lambda: prepared.solve(b),
        "structmat, torch": lambda: A.inv_matvec(right).numpy(),
        "four products with the dense sine matrix": by_products,
        "`scipy.fft.dstn` by hand": by_hand,
    }
    times = in_turns(solutions)
    log, our_log = timed(lambda: (-L).slogdet().logabsdet)
    factor, their_log = timed(lambda: scipy.sparse.linalg.splu(sparse))
    theirs_log = np.sum(np.log(np.abs(factor.U.diagonal())))
    rows = []
    for name, solution in solutions.items():
        difference = np.max(np.abs(solution() - wanted)) / np.max(np.abs(wanted))
        rows.append([name, seconds(times[name]), f"{difference:.0e}", "", ""])
    rows[0][3:] = [our_log, f"{log:.6f}"]
    rows.append(["SciPy, `spsolve` and `splu`", theirs, "", their_log, f"{theirs_log:.6f}"])
    return table([f"Poisson, {n} x {n}", "solution, s", "difference", "log-determinant, s", "its value"], rows)


class Precision(linear_operator.LinearOperator):
    """The precision matrix for GPyTorch, by its products: differences of neighbours on a grid that is reflected."""

    def __init__(self, k: Any, s: Any, n: int) -> None:
        super().__init__(k, s, n=n)
        self.k, self.s, self.n = k, s, n

    def _size(self) -> torch.Size:
        return torch.Size([self.n**2, self.n**2])

    def _transpose_nonbatch(self) -> Precision:
        return self

    def _matmul(self, rhs: Any) -> Any:
        x = rhs.reshape(self.n, self.n, -1)
        y = self.k * x
        down, along = x.diff(dim=0), x.diff(dim=1)
        pad = torch.nn.functional.pad
        y = y + pad(down, (0, 0, 0, 0, 1, 0)) - pad(down, (0, 0, 0, 0, 0, 1))
        y = y + pad(along, (0, 0, 1, 0)) - pad(along, (0, 0, 0, 1))
        return self.s * y.reshape(rhs.shape)


def log_density(k: Any, s: Any, x: Any, n: int) -> Any:
    Q = s * (k * sm.Identity(n * n) - sm.laplacian((n, n), like=x))
    return 0.5 * (Q.slogdet().logabsdet - x @ Q.matvec(x))


def field(n: int, *, estimate: bool) -> list[list[object]]:
    def parameters() -> tuple[Any, Any]:
        return tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.1, 2.0))

    x = torch.from_numpy(np.random.default_rng(0).standard_normal(n * n))

    def ours() -> tuple[Any, Any]:
        k, s = parameters()
        value = log_density(k, s, x, n)
        value.backward()
        return value.item(), k.grad.item()

    def theirs() -> tuple[Any, Any]:
        k, s = parameters()
        Q = Precision(k, s, n)
        with warnings.catch_warnings(), linear_operator.settings.max_cholesky_size(1):
            warnings.simplefilter("ignore")
            _, log = Q.inv_quad_logdet(logdet=True)
        value = 0.5 * (log - x @ Q.matmul(x))
        value.backward()
        return value.item(), k.grad.item()

    cases = {"structmat, torch": ours} | ({"GPyTorch's estimate": theirs} if estimate else {})
    rows: list[list[object]] = []
    for name, function in cases.items():
        (value, gradient), spent = timed(function)
        rows.append([name, f"{n} x {n}", spent, f"{value:,.3f}", f"{gradient:,.3f}"])
    return rows


def scene(n: int) -> np.ndarray:
    """Discs, stripes and a slope, as far as the eye can see."""
    y, x = np.mgrid[:n, :n] / n
    image = 0.3 + 0.4 * y + 0.2 * np.sin(9 * x + 4 * y)
    for row in np.linspace(0.1, 0.95, 7):
        for col in np.linspace(0.05, 0.9, 6):
            image += 0.4 * (np.hypot(x - col, y - row) < 0.05) - 0.3 * (np.hypot(x - col - 0.06, y - row) < 0.03)
    return image + 0.3 * ((12 * (x + y)) % 2 < 0.7)


def best_weight(eigenvalues: np.ndarray, penalties: np.ndarray, coefficients: np.ndarray) -> float:
    """Return the weight of the penalty with the least score of generalised cross-validation."""
    weights = np.geomspace(1e-8, 1.0, 60)
    power = np.abs(eigenvalues) ** 2
    kept = [weight * penalties / (power + weight * penalties) for weight in weights]
    return float(weights[np.argmin([np.sum(np.abs(g * coefficients) ** 2) / np.sum(g) ** 2 for g in kept])])


def deblurring(n: int) -> str:
    margin, reach = 40, 12
    r = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (np.hypot(r[:, None], r) / 2.0) ** 2)
    kernel /= kernel.sum()
    whole = scene(n + 2 * margin)
    inside = (slice(margin, margin + n),) * 2
    image = whole[inside]
    blurred = scipy.ndimage.convolve(whole, kernel)[inside]
    blurred = blurred + 5e-3 * np.random.default_rng(0).standard_normal((n, n))
    rows: list[list[object]] = [["the blurred image itself", error(blurred, image), "", "", ""]]
    shared = None
    for boundary in ("reflect", "odd", "zero", "wrap"):
        B = sm.SpectralMultiplier.from_kernel(kernel, (n, n), boundary)
        smooth = -sm.laplacian((n, n), boundary)
        values, vectors = B.eig()
        own = best_weight(values, smooth.eigvals().real, vectors.rmatvec(blurred.ravel()))
        shared = own if shared is None else shared

        def sharpened(weight: float, B: Any = B, smooth: Any = smooth) -> Any:
            return ((B.H @ B + weight * smooth).pinv() @ B.H).convolve(blurred)

        found, spent = timed(lambda: sharpened(shared))  # noqa: B023
        by_own = error(sharpened(own), image)
        rows.append([f"structmat, `{boundary}`", error(found, image), spent, f"{own:.1g}", by_own])
    A = pylops.signalprocessing.Convolve2D((n, n), kernel, offset=(reach, reach))
    D = shared**0.5 * pylops.Gradient((n, n), edge=True)
    right = np.concatenate([blurred.ravel(), np.zeros(D.shape[0])])
    both = pylops.VStack([A, D])
    found, spent = timed(lambda: pylops.optimization.basic.lsqr(both, right, niter=60)[0])
    rows.append(["PyLops, zeros beyond, 60 steps of LSQR", error(found.reshape(n, n), image), spent, "", ""])
    wiener = skimage.restoration.wiener
    found, spent = timed(lambda: wiener(blurred, kernel, shared, clip=False))
    rows.append(["scikit-image, `wiener`, periodic", error(found, image), spent, "", ""])
    head = [f"deblurring, {n} x {n}", f"error with the weight {shared:.2g}", "s", "its own weight", "error with that"]
    return table(head, rows)


def error(found: np.ndarray, image: np.ndarray) -> str:
    return f"{np.linalg.norm(found - image) / np.linalg.norm(image):.3f}"


def main() -> None:
    options = begin(parser(__doc__))
    quick = options.quick
    fields = field(16 if quick else 256, estimate=True) + ([] if quick else field(1024, estimate=False))
    finish(
        options.out,
        "edges",
        "Transforms by cosines and sines, and what they solve",
        transforms(4 if quick else 64, 64 if quick else 4096),
        poisson(16 if quick else 256),
        table(["random field, value and gradient", "grid", "s", "log-density", "its derivative by k"], fields, left=2),
        deblurring(64 if quick else 512),
        packages=("structmat", "numpy", "scipy", "torch", "torch-dct", "jax", "pylops", "gpytorch", "scikit-image"),
    )


if __name__ == "__main__":
    main()
