"""Count parameters, operations and file sizes of fine-tuning methods on the models of the paper, by formulas alone.

The query and value projections of all layers are adapted. A complex Fourier transform of N numbers is counted as
5 N log2 N operations and a real one as half of that, a product of complex numbers as 6 and a sum as 2. What a method
computes once in a step, such as the dense change of FourierFT, is shared among the tokens of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, log2

import torch
from _common import begin, finish, parser, table

from structmat.torch import AdapterSummary, adapt

MODELS = {"RoBERTa-base, ViT-base": (24, 768), "RoBERTa-large, ViT-large": (48, 1024), "LLaMA2-7B": (64, 4096)}
"""How many layers are adapted, and the side of their square weights."""
TOKENS = 512
"""In a step."""
BYTES = 4
"""Of a number in a file, in float32."""


@dataclass(frozen=True)
class Method:
    """What a method has in a layer of m rows and n columns."""

    parameters: Callable[[int, int], int]
    for_a_token: Callable[[int, int], float]
    for_a_step: Callable[[int, int], float] = lambda _m, _n: 0.0

    def operations(self, m: int, n: int, tokens: int) -> float:
        """Return the operations that a method adds to a layer for each token."""
        return self.for_a_token(m, n) + self.for_a_step(m, n) / tokens


def lora(r: int) -> Method:
    """Return LoRA of rank r: B A x."""
    return Method(lambda m, n: r * (m + n), lambda m, n: 2 * r * (m + n))


def dora(r: int) -> Method:
    """Return DoRA of rank r: LoRA, and in each step the norms of the rows of W + B A."""
    return Method(lambda m, n: r * (m + n) + m, lambda m, n: 2 * r * (m + n) + m, lambda m, n: (2 * r + 3) * m * n)


def adalora(r: int) -> Method:
    """Return AdaLoRA of rank r: P diag(e) Q x."""
    return Method(lambda m, n: r * (m + n + 1), lambda m, n: 2 * r * (m + n) + r)


def vera(r: int) -> Method:
    """Return VeRA of rank r, whose two large matrices are random and frozen, and follow from a seed."""
    return Method(lambda m, _n: r + m, lambda m, n: 2 * r * (m + n) + r + m)


def fourierft(k: int) -> Method:
    """Return FourierFT of k coefficients, which makes the dense change in each step, and multiplies by it."""
    return Method(lambda _m, _n: k, lambda m, n: 2 * m * n, lambda m, n: 5 * m * n * log2(m * n))


def c3a(parts: int) -> Method:
    """Return C3A with blocks of the common divisor of both sides over some number of parts."""

    def for_a_token(m: int, n: int) -> float:
        b = gcd(m, n) // parts
        p, q = m // b, n // b
        return (p + q) * 2.5 * b * log2(b) + (6 * q + 2 * (q - 1)) * p * (b // 2 + 1)

    return Method(lambda m, n: m * n // (gcd(m, n) // parts), for_a_token)


def cdd() -> Method:
    """Return D C D as the package has it."""

    def summary(m: int, n: int) -> AdapterSummary:
        return adapt(torch.nn.Sequential(torch.nn.Linear(n, m, device="meta")))

    return Method(lambda m, n: summary(m, n).n_parameters, lambda m, n: summary(m, n).flops_per_token)


METHODS = {
    "all weights": Method(lambda m, n: m * n, lambda _m, _n: 0),
    "LoRA r = 16": lora(16),
    "LoRA r = 8": lora(8),
    "LoRA r = 2": lora(2),
    "LoRA r = 1": lora(1),
    "DoRA r = 8": dora(8),
    "AdaLoRA r = 8": adalora(8),
    "VeRA r = 256": vera(256),
    "FourierFT k = 1,000": fourierft(1000),
    "C3A, one block": c3a(1),
    "C3A, 4 x 4 blocks": c3a(4),
    "D C D": cdd(),
}


def size(number: float) -> str:
    """Return bytes in kB or MB."""
    return f"{number / 1e3:,.0f} kB" if number < 1e6 else f"{number / 1e6:,.1f} MB"


def main() -> None:
    """Write the table."""
    options = begin(parser(__doc__))
    head, rows = ["method"], [[name] for name in METHODS]
    for model, (layers, n) in MODELS.items():
        head += [f"{model}: parameters", "operations", "file"]
        for row, method in zip(rows, METHODS.values(), strict=True):
            count = layers * method.parameters(n, n)
            row += [f"{count:,}", f"{method.operations(n, n, TOKENS):,.0f}", size(BYTES * count)]
    finish(
        options.out,
        "adapter_costs",
        "Parameters, operations and files, by formulas",
        "Query and value of all layers. Operations are those added to one layer for each token, of 512 in a step. A "
        "file holds the numbers in float32, without names of layers and a head:",
        "<!-- by formulas -->",
        table(head, rows, left=1),
        "<!-- /by formulas -->",
        packages=("structmat",),
    )


if __name__ == "__main__":
    main()
