"""Claim: N + 2 phase masks reproduce every random unitary matrix of N ports from nearly every start.

One section a run, each of one thread; seconds are the processor's.

- By default: the share of starts with random phases that end at the matrix (an error below 1e-10), for N - 1 to N + 4
  masks. Each start has a random unitary matrix of its own. The rows go to ``phase_masks.csv`` as they come, and those
  that are there are not run again; ``--seconds`` ends it early.
- ``--methods``: our steps beside what others type, on the same matrices and starts: Adam with 3,000 steps, as the
  published code of arXiv:2508.20010 has it (JAX and Optax, compiled, without the time of the compilation), and L-BFGS
  of SciPy on our gradients, with the numbers of masks of the constructions.
- ``--modes``: ten input and ten output modes of 64 ports, whose crosstalk is compared with wavefront matching.
- ``--large``: one fit each for 64 and 128 ports.

--quick makes everything tiny; --out writes a section of ``phase_masks.md`` there.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

import _one_thread  # noqa: F401
import jax
import numpy as np
import optax
import scipy.linalg
from _common import begin, finish, parser, shown, table
from scipy.stats import unitary_group

import structmat as sm

jax.config.update("jax_enable_x64", True)

EXACT = 1e-10
STARTS = {4: 20, 8: 20, 16: 20, 32: 20, 64: 3}
"""How many starts there are for a number of ports."""
MORE = (-1, 0, 1, 2, 3, 4)
"""Masks beyond the number of ports."""


def haar(n: int, seed: int) -> np.ndarray:
    return unitary_group.rvs(n, random_state=seed)


# ---- the share of starts


def counted(folder: Path | None, sizes: dict[int, int], limit: float) -> list[dict[str, str]]:
    """Return a row for each start; those that a file holds already are taken from it, and new ones added to it."""
    file = None if folder is None else folder / "phase_masks.csv"
    rows = list(csv.DictReader(file.open(encoding="utf-8"))) if file is not None and file.exists() else []
    there = {(row["ports"], row["masks"], row["start"]) for row in rows}
    begun = time.process_time()
    for n, starts in sizes.items():
        for masks, start in ((n + more, start) for more in MORE for start in range(starts)):
            if (str(n), str(masks), str(start)) in there or time.process_time() - begun > limit:
                continue
            fit = sm.fit_phase_masks(haar(n, start), masks, rng=start, restarts=1)
            row = {"ports": n, "masks": masks, "start": start, "error": f"{fit.error:.3e}", "iterations": fit.n_iter}
            rows.append({key: str(value) for key, value in row.items()} | {"seconds": f"{fit.seconds:.3g}"})
            if file is not None:
                with file.open("w", encoding="utf-8", newline="") as opened:
                    writer = csv.DictWriter(opened, rows[0])
                    writer.writeheader()
                    writer.writerows(rows)
    return rows


def shares(rows: list[dict[str, str]]) -> Iterator[list[str]]:
    for n in sorted({int(row["ports"]) for row in rows}):
        cells = [str(n)]
        for more in MORE:
            errors = [float(row["error"]) for row in rows if (row["ports"], row["masks"]) == (str(n), str(n + more))]
            exact = sum(error < EXACT for error in errors)
            cells.append(f"{exact} of {len(errors)} ({np.median(errors):.0e})" if errors else "-")
        seconds = [float(row["seconds"]) for row in rows if (row["ports"], row["masks"]) == (str(n), str(n + 2))]
        yield [*cells, f"{np.median(seconds):.2g}" if seconds else "-"]


# ---- beside other methods


def adam(U: np.ndarray, phases: np.ndarray, steps: int, rate: float) -> tuple[float, float]:
    """Return the error and the seconds of Adam on the infidelity, compiled as one loop."""
    xp, n = jax.numpy, len(U)
    F, target = xp.asarray(scipy.linalg.dft(n, scale="sqrtn")), xp.asarray(U)

    def infidelity(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
        product, _ = jax.lax.scan(
            lambda carry, mask: (carry @ (F * mask), None), xp.diag(xp.exp(1j * angles[0])), xp.exp(1j * angles[1:])
        )
        return 1 - xp.abs(xp.vdot(target, product) / n) ** 2, product

    optimizer = optax.adam(rate)

    @jax.jit
    def run(angles: jax.Array) -> jax.Array:
        def step(state: tuple, _: None) -> tuple[tuple, None]:
            angles, moments = state
            gradient, _ = jax.grad(infidelity, has_aux=True)(angles)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(angles, updates), moments), None

        (angles, _), _ = jax.lax.scan(step, (angles, optimizer.init(angles)), None, length=steps)
        return infidelity(angles)[1]

    compiled = run.lower(xp.asarray(phases)).compile()
    begun = time.process_time()
    product = np.asarray(compiled(xp.asarray(phases)))
    seconds = time.process_time() - begun
    overlap = np.vdot(product, U)
    return float(np.linalg.norm(product * overlap / abs(overlap) - U) / np.linalg.norm(U)), seconds


def ours(U: np.ndarray, phases: np.ndarray, memory: float) -> tuple[float, float]:
    begun = time.process_time()
    fit = sm.fit_phase_masks(U, phases=phases, mixing=sm.Fourier(len(U)), memory_limit=memory)
    return fit.error, time.process_time() - begun


def compared(n: int, starts: int, steps: int) -> Iterator[list[str]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(starts):
        U = haar(n, seed)
        phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (n + 2, n))
        found.setdefault("structmat", []).append(ours(U, phases, 2**31))
        found.setdefault("L-BFGS, our gradients", []).append(ours(U, phases, 1.0))
        for rate in (0.1, 0.01):
            found.setdefault(f"Adam, rate {rate:g}", []).append(adam(U, phases, steps, rate))
    for name, pairs in found.items():
        errors = [error for error, _ in pairs]
        exact = f"{sum(error < EXACT for error in errors)} of {len(errors)}"
        seconds = np.median([seconds for _, seconds in pairs])
        yield [str(n), name, str(n + 2), exact, f"{np.median(errors):.0e}", f"{max(errors):.0e}", f"{seconds:.2g}"]
    for name, masks in (("by construction [2508.20010]", 2 * n + 5), ("by construction [1912.04721]", 6 * n + 1)):
        yield [str(n), name, str(masks), "-", "-", "-", "-"]


# ---- some modes


def wavefront_matching(inputs: np.ndarray, outputs: np.ndarray, masks: int, rounds: int) -> np.ndarray:
    """Return the matrix between modes of a converter whose masks are set one after the other, again and again.

    Each mask takes the phases that bring the fields of the inputs before it to those that the outputs, sent backwards,
    have behind it, added up over the modes.
    """
    F = scipy.linalg.dft(len(inputs), scale="sqrtn")
    phases = np.zeros((masks, len(inputs)))
    for _ in range(rounds):
        backward = [outputs.conj().T]
        for mask in phases[:-1]:
            backward.append((backward[-1] * np.exp(1j * mask)) @ F)
        forward = inputs
        for mask in range(masks - 1, -1, -1):
            phases[mask] = -np.angle((backward[mask].T * forward).sum(axis=1))
            forward = np.exp(1j * phases[mask])[:, None] * forward
            if mask:
                forward = F @ forward
    return outputs.conj().T @ forward


def crosstalk(table_of_modes: np.ndarray) -> tuple[float, float]:
    """Return the light in wrong modes over that in the right one, in dB, and the share in the right one."""
    power = np.abs(table_of_modes) ** 2
    right = power.trace()
    return 10 * np.log10(max((power.sum() - right) / right, 1e-30)), right / len(power)


def converters(n: int, modes: int, masks: int) -> Iterator[list[str]]:
    inputs, outputs = haar(n, 0)[:, :modes], haar(n, 1)[:, :modes]
    begun = time.process_time()
    matched = crosstalk(wavefront_matching(inputs, outputs, masks, 500))
    first = time.process_time() - begun
    fit = sm.fit_phase_masks(
        np.eye(modes), masks, inputs=inputs, outputs=outputs, mixing=sm.Fourier(n), rng=0, restarts=2
    )
    mapped = outputs.conj().T @ (fit.operator @ inputs)
    mine = crosstalk(mapped)
    for name, (lost, kept), seconds in (("wavefront matching", matched, first), ("structmat", mine, fit.seconds)):
        yield [str(masks), name, f"{lost:.1f}", f"{kept:.2%}", f"{seconds:.2g}"]


# ---- large ones


def large(n: int) -> list[str]:
    begun = time.process_time()
    fit = sm.fit_phase_masks(haar(n, 0), rng=0)
    seconds = time.process_time() - begun
    matrices = 16 * (n * (n + 2)) ** 2
    steps = "first and second order" if matrices <= 2**31 else "first order"
    return [str(n), str(n + 2), f"{fit.error:.0e}", str(fit.n_iter), steps, f"{matrices / 1e9:.2g}", f"{seconds:.3g}"]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--methods", action="store_true")
    made.add_argument("--modes", action="store_true")
    made.add_argument("--large", action="store_true")
    made.add_argument("--seconds", type=float, default=600.0, help="of the processor, after which no start begins")
    options = begin(made)
    packages = ("structmat", "numpy", "scipy", "jax", "optax")
    if options.methods:
        cases = ((4, 2, 50),) if options.quick else ((8, 10, 3000), (16, 5, 3000), (32, 3, 3000))
        rows = shown(row for case in cases for row in compared(*case))
        head = ("N", "method", "masks", "exact", "median error", "worst error", "seconds")
        finish(options.out, "phase_masks", "Beside other methods", table(head, rows, left=2), packages=packages)
    elif options.modes:
        n, modes, numbers = (8, 2, (3,)) if options.quick else (64, 10, (5, 7, 10, 14, 18, 19, 20))
        rows = shown(row for masks in numbers for row in converters(n, modes, masks))
        head = ("masks", "method", "crosstalk (dB)", "in the right mode", "seconds")
        text = (
            f"{modes} modes of {n} ports; by counting {-(-(2 * n * modes - modes**2 - 1) // (n - 1))} masks are needed."
        )
        finish(options.out, "phase_masks", "Some modes", text, table(head, rows, left=2), packages=packages)
    elif options.large:
        rows = shown(large(n) for n in ((8,) if options.quick else (64, 128)))
        head = ("N", "masks", "error", "iterations", "steps", "GB of a second-order step", "seconds")
        finish(options.out, "phase_masks", "Large ones", table(head, rows), packages=packages)
    else:
        print_shares(options)


def print_shares(options: argparse.Namespace) -> None:
    rows = counted(options.out, {4: 2} if options.quick else STARTS, options.seconds)
    head = ("N", *(f"N {more:+d}" if more else "N" for more in MORE), "seconds, N + 2")
    text = "Starts that end at the matrix, of all, and the median error."
    finish(options.out, "phase_masks", "Share of starts", text, table(head, shown(shares(rows))))


if __name__ == "__main__":
    main()
