"""Claim: `fit_cdd` ends below Adam at four rates and below L-BFGS, and passes Adam's best error in less time.

The matrices are standard normal. Adam makes 2,000 steps in torch, in double precision, from one random orthogonal chain
of the norm of the matrix, at a constant rate; L-BFGS then polishes the result. L-BFGS alone makes 1,000 iterations from
the same chain. Circulants are scaled such that all parameters of the start are about one in modulus, which suits one
rate for all. The table holds the lowest errors. "passed" is the time after which the search of structmat saw the lowest
error that Adam ended with, and "reached" the shortest of the time limits 1/16, 1/8, 1/4, ... seconds with which it ends
there, both over the time of that run of Adam. Seconds are the processor's, of one core; --out writes a section of
``fits.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from math import floor, log2
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import numpy as np
import torch
from _common import begin, finish, normal, parser, shown, table
from scipy.optimize import minimize

import structmat as sm
from structmat.fit._objective import Objective

RATES, ALONE, POLISH = (0.01, 0.03, 0.1, 0.3), 1000, 500


class Matrix(NamedTuple):
    """A matrix of a race, and the number of factors of its fits."""

    size: int
    factors: int
    seed: int
    real: bool = True

    def drawn(self) -> np.ndarray:
        return normal(np.random.default_rng(self.seed), self.size, self.size, real=self.real)


RACES = (Matrix(60, 5, 911), Matrix(64, 7, 912, real=False), Matrix(60, 9, 913, real=False), Matrix(88, 7, 914))
"""No setting of `fit_cdd` was chosen by these."""

Race = list[tuple[float, float]]
"""Seconds, and the lowest error until then."""


def timed(method: Callable[[Callable[[float], None]], object]) -> Race:
    """Run a method that reports its errors."""
    seen: Race = []
    begun = time.process_time()

    def record(error: float) -> None:
        seen.append((time.process_time() - begun, min(error, seen[-1][1] if seen else error)))

    method(record)
    return seen


class Torch:
    """The relative error of a chain, and its gradient by torch."""

    def __init__(self, W: np.ndarray, layout: sm.CDDLayout, steps: int) -> None:
        n, self.steps = len(W), steps
        self.W = torch.from_numpy(W / np.linalg.norm(W) * np.sqrt(n))
        self.layout, self.root = layout, n**0.5

    def loss(self, parameters: Any) -> Any:
        """Return the squared relative error."""
        product = torch.eye(len(self.W), dtype=parameters.dtype)
        for x, kind in zip(parameters.flip(0), self.layout.kinds[::-1], strict=True):
            if kind == "diagonal":
                product = x[:, None] * product
            elif self.W.is_complex():
                product = torch.fft.ifft(torch.fft.fft(x / self.root)[:, None] * torch.fft.fft(product, dim=0), dim=0)
            else:
                spectrum = torch.fft.rfft(x / self.root)[:, None] * torch.fft.rfft(product, dim=0)
                product = torch.fft.irfft(spectrum, n=len(self.W), dim=0)
        residual = self.W - product
        return (residual.abs() ** 2 if residual.is_complex() else residual**2).sum() / len(self.W)

    def adam(self, start: np.ndarray, rate: float, record: Callable[[float], None]) -> None:
        parameters = torch.from_numpy(start.copy()).requires_grad_()
        optimiser = torch.optim.Adam([parameters], lr=rate)
        for _ in range(self.steps):
            optimiser.zero_grad()
            loss = self.loss(parameters)
            loss.backward()
            record(float(loss.detach()) ** 0.5)
            optimiser.step()
        self.lbfgs(parameters.detach().numpy(), POLISH, record)

    def lbfgs(self, start: np.ndarray, iterations: int, record: Callable[[float], None]) -> None:
        real = start.real.dtype

        def function(x: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = torch.from_numpy(x.view(start.dtype).reshape(start.shape).copy()).requires_grad_()
            loss = self.loss(parameters)
            loss.backward()
            record(float(loss.detach()) ** 0.5)
            return float(loss.detach()), parameters.grad.numpy().view(real).ravel()

        limits = {"maxiter": iterations, "maxfun": 10 * iterations, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-10}
        minimize(function, np.ravel(start).view(real).copy(), jac=True, method="L-BFGS-B", options=limits)


def race(case: Matrix, W: np.ndarray, options: argparse.Namespace) -> dict[str, Race]:
    layout = sm.CDDLayout(W.shape, case.factors)

    def structmat(record: Callable[[float], None]) -> None:
        limits = {"rng": case.seed, "time_limit": options.seconds}
        record(sm.fit_cdd(W, case.factors, **limits, callback=lambda p: record(p.error)).error)

    runs = {"structmat": timed(structmat)}
    problem = Torch(W, layout, options.steps)
    (start,) = Objective(layout, W).random(1, np.random.default_rng(case.seed + 1))
    start = start.reshape(case.factors, case.size)
    problem.lbfgs(start, 2, lambda _: None)
    for rate in RATES:
        runs[f"Adam {rate}"] = timed(partial(problem.adam, start, rate))
    runs["L-BFGS"] = timed(partial(problem.lbfgs, start, ALONE))
    return runs


def measured(case: Matrix, options: argparse.Namespace) -> list[str]:
    """Return the lowest errors of all, and when structmat was at that of Adam."""
    W = case.drawn()
    runs = race(case, W, options)
    errors = [f"{run[-1][1]:.4f}" for run in runs.values()]
    best = min((name for name in runs if name.startswith("Adam")), key=lambda name: runs[name][-1][1])
    seconds, error = runs[best][-1]
    passed = (s for s, e in runs["structmat"] if e <= error)
    limits = (2.0**k for k in range(-4, floor(log2(options.seconds)) + 1))
    fit = partial(sm.fit_cdd, W, case.factors, rng=case.seed)
    reached = (limit for limit in limits if fit(time_limit=limit).error <= error)
    shares = ["no" if (taken := next(found, None)) is None else f"{taken / seconds:.2f}" for found in (passed, reached)]
    kind = "real" if case.real else "complex"
    return [str(case.size), kind, str(case.factors), str(case.seed), *errors, f"{seconds:.1f}", *shares]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=3.0, help="time of structmat")
    options = begin(made)
    options.steps, races = 2000, RACES
    if options.quick:
        options.steps, options.seconds, races = 20, 0.5, (Matrix(8, 3, 911),)
    torch.set_num_threads(1)
    sm.fit_cdd(np.eye(8), 5, rng=0, max_iter=5)  # imports
    rows = shown(measured(case, options) for case in races)
    head = ["rows", "field", "factors", "seed", "structmat", *(f"Adam {rate}" for rate in RATES), "L-BFGS"]
    text = table([*head, "seconds of the best Adam", "passed", "reached"], rows, left=2)
    packages = ("structmat", "numpy", "scipy", "torch")
    finish(options.out, "fits", "Races of `fit_cdd` against Adam and L-BFGS", text, packages=packages)


if __name__ == "__main__":
    main()
