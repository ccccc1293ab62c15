"""Time of an evaluation in the search for many factors: NumPy, and torch where the matrix is a tensor on the CPU.

    python benchmarks/torch_search.py [--sizes 128,256,512,1024] [--factors 5,9] [--output FOLDER] [--quick]

An evaluation gives the error of one product and its gradient, with the copies to and from the tensor that a polish
makes. Both take turns on one thread of one core; the times are the least of all rounds, in milliseconds.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

import argparse
from pathlib import Path

from _common import in_turns, machine, one_thread

one_thread()

import numpy as np
import torch

from structmat._arguments import to_numpy
from structmat.fit._many_factors import array_work
from structmat.fit._many_factors.objective import Objective
from structmat.fit._many_factors.random_starts import random_orthogonal
from structmat.operators import CDDLayout


def evaluation(objective, parameters):
    """Return a function that evaluates as a polish does."""

    def evaluate():
        values, gradient = objective.value_and_gradient(objective.work.moved(parameters))
        return float(values[0]), to_numpy(gradient)

    return evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="128,256,512,1024")
    parser.add_argument("--factors", default="5,9")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--quick", action="store_true", help="a tiny matrix, and no file")
    options = parser.parse_args()
    sizes = [8] if options.quick else [int(size) for size in options.sizes.split(",")]
    torch.set_num_threads(1)
    smallest = round(array_work._TORCH_ENTRIES**0.5)
    array_work._is_slower = lambda *_: False  # here both are measured at every size
    rows = ["| side | factors | dtype | NumPy | torch | torch / NumPy |", "|---:|---:|---|---:|---:|---:|"]
    for n in sizes:
        for n_factors in map(int, options.factors.split(",")):
            for dtype in (np.float32, np.float64):
                rng = np.random.default_rng(0)
                W, layout = rng.standard_normal((n, n)).astype(dtype), CDDLayout((n, n), n_factors)
                parameters = random_orthogonal(layout, 1, rng, np.dtype(dtype))
                likes = {"NumPy": None, "torch": torch.zeros(1)}
                times = in_turns(
                    {name: evaluation(Objective(layout, W, like=like), parameters) for name, like in likes.items()},
                    limit=0.1 if options.quick else 2.0,
                )
                least = {name: min(seen) * 1e3 for name, seen in times.items()}
                rows.append(
                    f"| {n:,} | {n_factors} | {np.dtype(dtype).name} | {least['NumPy']:.2f} | {least['torch']:.2f} "
                    f"| {least['torch'] / least['NumPy']:.2f} |"
                )
                print(rows[-1], flush=True)
    where = machine("numpy", "scipy", "torch")
    text = (
        "# Evaluations of the search for many factors\n\n"
        "Milliseconds for the error of one product and its gradient, one thread, the least of up to 15 rounds; "
        "`python benchmarks/torch_search.py`.\n\n" + "\n".join(rows) + f"\n\n{where}\n\n"
        f"A tensor on the CPU is searched by torch from a side of {smallest} on, if torch has MKL's transforms, and by "
        "NumPy below. Not run: a GPU, and several threads.\n"
    )
    if not options.quick:
        (options.output / "torch_search.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
