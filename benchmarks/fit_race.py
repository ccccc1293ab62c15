"""Claim: `fit_cdd` ends below Adam at four rates and below L-BFGS, and passes Adam's best error in less time.

The matrix is standard normal. Adam makes 2,000 steps in torch, in double precision, from one random orthogonal chain of
the norm of the matrix, at a constant rate; L-BFGS then polishes the result. L-BFGS alone makes 1,000 iterations from
the same chain. Circulants are scaled such that all parameters of the start are about one in modulus, which suits one
rate for all. The table holds the lowest error so far, which for structmat is the lowest that its search has seen. Below
it stands the time structmat took to reach the lowest error that Adam ended with, and the shortest of the time limits
1/16, 1/8, 1/4, ... seconds with which it ends there. With --process-time all seconds are those of the process, as those
of time limits always are: for a machine with other work. --out writes
``fit_race_SIZE_FACTORS_SEED.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from math import floor, log2
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
import torch
from _common import begin, finish, normal, parser, table
from scipy.optimize import minimize

import structmat as sm
from structmat.fit._objective import Objective

RATES, ALONE, POLISH = (0.01, 0.03, 0.1, 0.3), 1000, 500


Race = list[tuple[float, float]]
"""Seconds, and the lowest error until then."""


def timed(method: Callable[[Callable[[float], None]], object]) -> Race:
    """Run a method that reports its errors."""
    seen: Race = []
    begun = time.perf_counter()

    def record(error: float) -> None:
        seen.append((time.perf_counter() - begun, min(error, seen[-1][1] if seen else error)))

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


def race(W: np.ndarray, options: argparse.Namespace) -> dict[str, Race]:
    n = len(W)
    layout = sm.CDDLayout((n, n), options.factors)
    sm.fit_cdd(W[:8, :8], 5, rng=0, max_iter=5)  # imports

    def structmat(record: Callable[[float], None]) -> None:
        limits = {"rng": options.seed, "time_limit": options.seconds}
        record(sm.fit_cdd(W, options.factors, **limits, callback=lambda p: record(p.error)).error)

    runs = {"structmat": timed(structmat)}
    torch.set_num_threads(1)
    problem = Torch(W, layout, options.steps)
    (start,) = Objective(layout, W).random(1, np.random.default_rng(options.seed + 1))
    start = start.reshape(options.factors, n)
    problem.lbfgs(start, 2, lambda _: None)
    for rate in RATES:
        runs[f"Adam {rate}"] = timed(partial(problem.adam, start, rate))
    runs["L-BFGS"] = timed(partial(problem.lbfgs, start, ALONE))
    return runs


def report(runs: dict[str, Race], W: np.ndarray, options: argparse.Namespace) -> None:
    lines = [(name, f"{run[-1][1]:.4f}", f"{run[-1][0]:.1f}") for name, run in runs.items()]
    parts = [table(("method", "error", "seconds"), lines)]
    best = min((name for name in runs if name.startswith("Adam")), key=lambda name: runs[name][-1][1])
    seconds, error = runs[best][-1]
    parts.append(f"{best} ends at {error:.4f} after {seconds:.2f} s.")
    passed = (s for s, e in runs["structmat"] if e <= error)
    limits = (2.0**k for k in range(-4, floor(log2(options.seconds)) + 1))
    fit = partial(sm.fit_cdd, W, options.factors, rng=options.seed)
    enough = (limit for limit in limits if fit(time_limit=limit).error <= error)
    for what, found in (("passed this error after", passed), ("ends there with a time limit of", enough)):
        taken = next(found, None)
        reached = "(not reached)" if taken is None else f"{taken:.2f} s, {taken / seconds:.2f} of that"
        parts.append(f"structmat {what} {reached}.")
    stem = f"fit_race_{options.size}_{options.factors}_{options.seed}"
    finish(options.out, stem, "A race of `fit_cdd`", *parts, packages=("structmat", "numpy", "scipy", "torch"))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--size", type=int, default=64)
    made.add_argument("--factors", type=int, default=5)
    made.add_argument("--seed", type=int, default=100)
    made.add_argument("--complex", action="store_true")
    made.add_argument("--seconds", type=float, default=120.0, help="time of structmat")
    made.add_argument("--process-time", action="store_true", help="count what the process itself takes")
    options = begin(made)
    options.steps = 20 if options.quick else 2000
    if options.process_time:
        time.perf_counter = time.process_time
    if options.quick:
        options.size, options.factors, options.seconds = 8, 3, 0.5
    W = normal(np.random.default_rng(options.seed), options.size, options.size, real=not options.complex)
    report(race(W, options), W, options)


if __name__ == "__main__":
    main()
