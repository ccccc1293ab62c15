"""Layers of every kind, drawn by Hypothesis: their base, options, dtypes and inputs, and what they have to compute.

The reference is torch's own layer in float64 with the dense change in its weight. The change is made of circulants that
are written out, entry by entry, and differentiated by autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import AdapterBank, CDDAdapter, adapt
from tests.torch.common import DTYPES, base_of, dense_of, fill, kernel_of

LINEAR = ["linear", "no bias", "Conv1D"]
ROWS = [*LINEAR, "conv 1", "conv 2", "conv 3 x 2", "embedding", "scaled embedding"]
"""The kinds whose outputs are linear in the weight, so that sizes of rounding errors follow from absolute values."""
SUMS = ["attention", "attention to others", "experts"]
KINDS = ROWS + SUMS
HEADS, EXPERTS = 2, 3


class Experts(nn.Module):
    """The outputs of all experts, added up."""

    def __init__(self, rows, cols, dtype):
        super().__init__()
        self.stack = nn.Parameter(torch.randn(EXPERTS, rows, cols, dtype=dtype))

    def forward(self, x):
        return torch.einsum("emn,...n->...m", self.stack, x)


class Model(nn.Module):
    """A model of one layer, which has one input and one output whatever its kind."""

    def __init__(self, case):
        super().__init__()
        torch.manual_seed(case.seed)
        self.kind = case.kind
        if case.kind.startswith("attention"):
            others = {"kdim": case.cols, "vdim": case.cols} if case.kind == "attention to others" else {}
            features = HEADS * case.rows
            self.layer = nn.MultiheadAttention(features, HEADS, batch_first=True, dtype=case.dtype, **others)
            self.register_buffer("source", torch.randn(5, case.cols, dtype=case.dtype))
        elif case.kind == "experts":
            self.layer = Experts(case.rows, case.cols, case.dtype)
        else:
            self.layer = base_of(case.kind, case.rows, case.cols, case.dtype)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.normal_(0, 0.5)

    def forward(self, x):
        if self.kind == "attention":
            return self.layer(x, x, x)[0]
        if self.kind == "attention to others":
            source = self.source.expand(x.shape[0], -1, -1)
            return self.layer(x, source, source)[0]
        return self.layer(x)


@dataclass
class Case:
    """A layer of some kind, and inputs."""

    kind: str
    rows: int
    cols: int
    options: dict[str, Any]
    dtype: torch.dtype
    of_vectors: torch.dtype | None
    lead: tuple[int, ...]
    seed: int

    def model(self):
        """The plain model: the same one each time."""
        return Model(self)

    def begun(self, **options):
        """The adapted model before training."""
        model = self.model()
        stacks = {"parameters": ["layer.stack"], "targets": []} if self.kind == "experts" else {"targets": ["layer"]}
        adapt(model, **stacks, dtype=self.of_vectors, **{**self.options, **options})
        return model

    def adapted(self, n=0, **options):
        """The adapted model with random factors, the n-th ones."""
        model = self.begun(**options)
        torch.manual_seed(self.seed + 1 + n)
        fill(model)
        return model

    def x(self):
        """Inputs, that require gradients if they can."""
        torch.manual_seed(self.seed - 1)
        samples = self.lead[:1] or (1,)
        match self.kind:
            case "embedding" | "scaled embedding":
                return torch.randint(self.rows, self.lead)
            case "conv 1":
                shape = (*self.lead[:1], self.cols, 4)
            case "conv 2":
                shape = (*self.lead[:1], self.cols, 3, 2)
            case "conv 3 x 2":
                shape = (*self.lead[:1], self.cols, 5, 3)
            case "attention" | "attention to others":
                shape = (*samples, 4, HEADS * self.rows)
            case _:
                shape = (*self.lead, self.cols)
        return torch.randn(shape).to(self.dtype).requires_grad_()

    def shape(self):
        """The shape of the matrix of the change."""
        return shape_of(self.kind, self.model().layer, self.rows, self.cols)

    def reference(self, model, x, dy=None):
        """What an adapted model has to compute, and bounds on the sizes of the terms of each number."""
        return Reference(self, model, x, dy)


def shape_of(kind, base, rows, cols):
    if kind.startswith("attention"):
        return 4 * base.embed_dim, max(base.embed_dim, base.kdim, base.vdim)
    return (rows, cols) if kind == "experts" else tuple(dense_of(base).shape)


def adapter_of(model):
    (found,) = [module for module in model.modules() if isinstance(module, CDDAdapter)]
    return found


def product(factors, shape):
    """A product of diagonals and block circulants as a dense matrix, differentiable."""
    rows, cols = shape
    small = min(shape)
    squares = [(small, small)] * (len(factors) - 3)
    main = [(rows, rows), shape, (cols, cols)]
    total = None
    for factor, (m, n) in zip(factors, main + squares if rows >= cols else squares + main, strict=True):
        matrix = torch.diag(factor) if factor.ndim == 1 else circulants(factor)[:m, :n]
        total = matrix if total is None else total @ matrix
    return total


def circulants(grid):
    """A grid (p, q, b) as a matrix of p q circulants, whose first columns it holds."""
    p, q, b = grid.shape
    i = torch.arange(b)
    return grid[:, :, (i[:, None] - i) % b].transpose(1, 2).reshape(p * b, q * b)


class Reference:
    """Outputs and gradients of torch's own layer in float64, with the dense change in its weight."""

    def __init__(self, case, model, x, dy):
        self.case, self.own = case, adapter_of(model)
        self.shape = case.shape()
        self.values = self._computed(x, dy, lambda t: t)
        is_linear = case.kind in ROWS
        self.sizes = (
            self._computed(x, dy, torch.abs) if is_linear else [v.abs().max() for v in self.values if v.numel()]
        )

    def _computed(self, x, dy, of):
        """Outputs, and for their gradient those of the inputs and of all vectors; of absolute values throughout."""
        base = self.case.model().double()
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.copy_(of(parameter))
        vectors = [of(vector.detach().double()).requires_grad_() for vector in self.own.vectors]
        factors = [scale * vector for scale, vector in zip(self.own.scales, vectors, strict=True)]
        alpha = of(torch.tensor(self.own.alpha, dtype=torch.float64))
        if self.case.kind == "experts":
            change = alpha * torch.stack([product(each, self.shape) for each in zip(*factors, strict=True)])
        else:
            change = alpha * product(factors, self.shape)
        given = of(x.detach().double()).requires_grad_() if x.is_floating_point() else x
        y = torch.func.functional_call(base, self._placed(base.layer, change), (given,))
        if dy is None:
            return [y.detach()]
        inputs = [given, *vectors] if x.is_floating_point() else vectors
        return [y.detach(), *torch.autograd.grad(y, inputs, of(dy.double()))]

    def _placed(self, base, change):
        """Changed weights by their names in the model."""
        kind = self.case.kind
        if kind == "experts":
            return {"layer.stack": base.stack + change}
        if kind.startswith("conv "):
            return {"layer.weight": base.weight + kernel_of(base, change)}
        if kind == "Conv1D":
            return {"layer.weight": base.weight + change.T}
        if not kind.startswith("attention"):
            return {"layer.weight": base.weight + change}
        names = ["in_proj_weight"] if base._qkv_same_embed_dim else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
        weights = {name: base.get_parameter(name) for name in (*names, "out_proj.weight")}
        parts = change.split([len(weight) for weight in weights.values()])
        return {
            f"layer.{name}": weight + part[:, : weight.shape[1]]
            for (name, weight), part in zip(weights.items(), parts, strict=True)
        }

    def assert_close(self, found, *dtypes, count=None):
        """Refuse numbers whose errors are larger than some roundings of their terms, in the dtype of fewest digits.

        They are outputs, the gradient of the inputs and those of the vectors, or the first `count` of these.
        Transforms, in float32 at least, have errors of the size of the largest number. So has attention, times the
        sizes within.
        """
        eps = max(torch.finfo(dtype).eps for dtype in dtypes)
        of_transforms = min(eps, torch.finfo(torch.float32).eps)
        # Float16 has no small numbers.
        least = max(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps for dtype in dtypes)
        for number, value, size in zip(found, self.values[:count], self.sizes[:count], strict=True):
            assert number.shape == value.shape
            if not number.numel():
                continue
            error = (number.detach().double() - value).abs()
            if self.case.kind in ROWS:
                bound = 8 * eps * size + 32 * of_transforms * size.max() + 8 * least
            else:
                bound = 1e4 * eps * value.abs().max()
            assert (error <= bound).all(), f"{(error / bound).max():.3g} times the bound"


@st.composite
def cases(draw, kinds=KINDS, dtypes=DTYPES, vectors=(None, *DTYPES), least=0):
    """Draw a layer of one of some kinds, of one of some dtypes, with vectors of one of some dtypes, and inputs.

    Axes of the inputs have at least so many entries.
    """
    kind = draw(st.sampled_from(kinds))
    dtype = draw(st.sampled_from([d for d in dtypes if kind in ROWS or d == torch.float64]))
    case = Case(
        kind=kind,
        rows=draw(st.integers(1, 7)),
        cols=draw(st.integers(1, 7)),
        options={},
        dtype=dtype,
        of_vectors=draw(st.sampled_from(vectors)) if kind in ROWS else None,
        lead=(),
        seed=draw(st.integers(1, 10**6)),
    )
    shape = case.shape()
    case.options = {
        "n_factors": 3 if "embedding" in kind else draw(st.sampled_from([3, 5])),
        "block_size": draw(st.sampled_from(["min", "toeplitz"]) | st.integers(1, max(shape))),
        "alpha": draw(st.sampled_from([1.0, -0.5, 2.0])),
        # Gradients of vectors that are multiplied by 30 each are larger than the numbers of float16.
        "factor_scale": 1.0 if torch.float16 in (dtype, case.of_vectors) else draw(st.sampled_from([1.0, 30.0])),
    }
    if kind in LINEAR or "embedding" in kind:
        case.lead = tuple(draw(st.lists(st.integers(least, 4), max_size=3)))
    else:
        case.lead = tuple(draw(st.lists(st.integers(1, 4), max_size=1)))
    return case


def banked(case, count):
    """A bank of so many adapters around the model of a case, and the models that have one each."""
    models = [case.adapted(n, alpha=0.5 + n) for n in range(count)]
    model = case.adapted()
    bank = AdapterBank(model, capacity=count)
    return model, bank, models
