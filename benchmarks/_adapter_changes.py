"""Trainable changes of weights, in every variant that `adapter_variants.py` compares.

A change is formed as a dense matrix in every step, so that a variant is a few lines; `structmat.torch` never does that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

LAYERS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "i": "intermediate.dense",
    "f": "output.dense",
}
"""Linear layers of a block of BERT, by one letter each."""


class Folded(nn.Module):
    """A frozen linear layer whose weight is changed; the change may miss a share of its inputs in training."""

    def __init__(self, base: nn.Linear, change: nn.Module) -> None:
        super().__init__()
        self.base, self.change, self.dropout = base, change, 0.0
        self.bias: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        bias = self.base.bias if self.bias is None else self.base.bias + self.bias
        weight = self.change(self.base.weight)
        if not (self.training and self.dropout):
            return nn.functional.linear(x, weight, bias)
        kept = nn.functional.dropout(x, self.dropout)
        return nn.functional.linear(x, self.base.weight, bias) + nn.functional.linear(kept, weight - self.base.weight)


class _Circulants(torch.autograd.Function):
    """The dense matrix of a grid of circulants (p, q, b); its gradient is summed along the cyclic diagonals."""

    @staticmethod
    def forward(ctx, grid: Tensor) -> Tensor:
        p, q, b = ctx.grid = grid.shape
        lags = torch.arange(b)
        return grid[:, :, (lags[:, None] - lags) % b].permute(0, 2, 1, 3).reshape(p * b, q * b)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        p, q, b = ctx.grid
        blocks = gradient.reshape(p, b, q, b).permute(0, 2, 1, 3)
        twice = torch.cat([blocks, blocks], 2).contiguous()
        a, c, row, column = twice.stride()
        return twice.as_strided((p, q, b, b), (a, c, row, row + column)).sum(-1)


class Products(nn.Module):
    """A sum of products D C D, or one D C D C D, times `alpha`, with a zero factor to begin with.

    `rates` are those of the first diagonal, the circulants and the other diagonals, relative to the rate; `zero` is
    the factor that begins with zero; diagonals in `ones` begin with ones instead of random signs. `side`: the weight
    W becomes W (I + D C D) at the right or (I + D C D) W at the left. `spectral`: the spectra are trained.
    `permuted`: rows and columns between the factors are permuted at random. `begin`: the middle of five factors has
    two entries, so that the change is of rank two, or the first circulant is the identity, so that it is one D C D.
    `normalised`: all factors but the first keep the norms that they begin with, whatever is trained.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        *,
        block: int | None = None,
        factors: int = 3,
        terms: int = 1,
        rates: tuple[float, float, float] = (1, 1, 1),
        zero: int = 0,
        ones: tuple[int, ...] = (),
        side: str | None = None,
        spectral: bool = False,
        permuted: bool = False,
        alpha: float = 1.0,
        normalised: bool = False,
        begin: Literal["random", "rank two", "one product"] = "random",
        start: list[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.cols, self.block = rows, cols, block or min(rows, cols)
        self.side, self.spectral, self.length, self.alpha, self.normalised = side, spectral, factors, alpha, normalised
        self.factors, self.rates = nn.ParameterList(), []
        for _ in range(terms):
            vectors = start or self._random(factors, ones, begin)
            vectors[zero].zero_()
            for k, vector in enumerate(vectors):
                stored = torch.view_as_real(torch.fft.rfft(vector)).clone() if spectral and k % 2 else vector
                self.factors.append(nn.Parameter(stored))
                scale = cols**-0.5 if k % 2 and not spectral else 1.0
                self.rates.append(scale * rates[1 if k % 2 else 2 if k else 0])
        self.norms = [factor.detach().norm() for factor in self.factors]
        self.order = (torch.randperm(rows), torch.randperm(cols)) if permuted else None

    def _random(self, factors: int, ones: tuple[int, ...], begin: str) -> list[Tensor]:
        first, last = (torch.randint(0, 2, (n,)).float() * 2 - 1 for n in (self.rows, self.cols))
        p, q = -(-self.rows // self.block), -(-self.cols // self.block)
        vectors = [first, torch.randn(p, q, self.block) * self.cols**-0.5, last]
        if factors == 5:
            signs = torch.randint(0, 2, (self.cols,)).float() * 2 - 1
            vectors[2:2] = [signs, torch.randn(1, 1, self.cols) * self.cols**-0.5]
        if begin == "rank two":
            vectors[2] = torch.zeros(self.cols)
            vectors[2][:2] = (self.cols / 2) ** 0.5  # the product has the norm that it has with random signs
        elif begin == "one product":
            vectors[1] = torch.zeros_like(vectors[1])
            vectors[1][..., 0] = 1
        return [torch.ones_like(v) if k in ones else v for k, v in enumerate(vectors)]

    def _circulant(self, stored: Tensor) -> Tensor:
        grid = torch.fft.irfft(torch.view_as_complex(stored), n=self.block) if self.spectral else stored
        return _Circulants.apply(grid)

    def forward(self, weight: Tensor) -> Tensor:
        total = weight.new_zeros(self.rows, self.cols)
        factors = list(self.factors)
        if self.normalised:
            factors = [f if k % self.length == 0 else f * (self.norms[k] / f.norm()) for k, f in enumerate(factors)]
        for begin in range(0, len(factors), self.length):
            first, circulant, second, *more = factors[begin : begin + self.length]
            matrix = self._circulant(circulant)[: self.rows, : self.cols]
            if self.order is not None:
                matrix = matrix[self.order[0]][:, self.order[1]]
            matrix = first[:, None] * matrix * second
            if more:
                matrix = (matrix @ self._circulant(more[0])) * more[1]
            total = total + self.alpha * matrix
        if self.side is None:
            return weight + total
        return weight + (weight @ total if self.side == "right" else total @ weight)

    def groups(self, lr: float) -> Iterator[tuple[nn.Parameter, float]]:
        """Yield the trained vectors, each with its rate."""
        return ((p, lr * r) for p, r in zip(self.factors, self.rates, strict=True))


class LowRank(nn.Module):
    """LoRA's change, scale times B A."""

    def __init__(self, rows: int, cols: int, rank: int, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, cols))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a)

    def groups(self, lr: float) -> Iterator[tuple[nn.Parameter, float]]:
        return ((p, lr) for p in (self.a, self.b))


def wrap(
    encoder: nn.Module, letters: str, make: Callable[[nn.Linear, str], nn.Module], blocks: Iterable[int] = range(100)
) -> list[Folded]:
    """Give layers of these letters a change each, in place, in these blocks."""
    endings = tuple(f".{number}.{LAYERS[k]}" for k in letters for number in blocks)
    wrapped = []
    for name in [n for n, m in encoder.named_modules() if isinstance(m, nn.Linear) and n.endswith(endings)]:
        parent, _, leaf = name.rpartition(".")
        outer = encoder.get_submodule(parent)
        layer = Folded(getattr(outer, leaf), make(getattr(outer, leaf), name))
        setattr(outer, leaf, layer)
        wrapped.append(layer)
    return wrapped
