"""Dense references, independent of the code under test; layers of every kind; small helpers."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.linalg

torch = pytest.importorskip("torch")

from structmat.torch import CDDAdapter, CDDConv, CDDEmbedding, CDDLinear, adapt

VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
compiler = pytest.mark.skipif(VERSION < (2, 13), reason="torch 2.6 compiles neither transforms of batches nor PEFT")


def dense(factors, rows, cols, alpha=1.0):
    """A product of factors as a float64 matrix, from SciPy's circulants."""
    shape = (rows, cols)
    small = min(shape)
    squares = [(small, small)] * (len(factors) - 3)
    main = [(rows, rows), shape, (cols, cols)]
    shapes = main + squares if rows >= cols else squares + main
    total = np.eye(rows)
    for factor, (m, n) in zip(factors, shapes, strict=True):
        values = factor.detach().double().numpy()
        if values.ndim == 1:
            total = total * values
        else:
            blocks = [[scipy.linalg.circulant(block) for block in row] for row in values]
            total = total @ np.block(blocks)[:m, :n]
    return alpha * torch.from_numpy(total)


def factors_of(adapter):
    """The factors as they are multiplied, in float64, not rounded."""
    return [scale * vector.detach().double() for scale, vector in zip(adapter.scales, adapter.vectors, strict=True)]


def adapter(rows, cols, **options):
    """An adapter with every factor random, in float64."""
    made = CDDAdapter(cols, rows, **{"dtype": torch.float64, **options})
    fill(made)
    return made


def fill(module):
    """Random values for every factor of a module's adapters."""
    for each in module.modules():
        if isinstance(each, CDDAdapter):
            each.factors = [torch.randn_like(factor) for factor in each.factors]
    return module


def mlp(sizes=(6, 8, 4), dtype=torch.float64):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(a, b, dtype=dtype), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def adapted_mlp(sizes=(6, 8, 4), dtype=torch.float64, **options):
    model = mlp(sizes, dtype)
    adapt(model, **options)
    return fill(model)


def adapted_by_peft(model, targets=("0", "2"), **options):
    peft = pytest.importorskip("peft")
    from structmat.peft import CDDConfig

    return peft.get_peft_model(model, CDDConfig(target_modules=[*targets], **options))


def state(model):
    """Copies of everything that a model holds, and its flags."""
    values = {key: value.detach().clone() for key, value in model.state_dict().items()}
    return values, {key: p.requires_grad for key, p in model.named_parameters()}, str(model)


def assert_same_state(before, model):
    values, flags, text = before
    after = model.state_dict()
    assert list(after) == list(values)
    assert all(torch.equal(after[key], value) for key, value in values.items())
    assert {key: p.requires_grad for key, p in model.named_parameters()} == flags
    assert str(model) == text


def kept_bytes(function, *given):
    """Bytes of distinct storages that autograd keeps of a forward pass, those of `given` left out."""
    known = {t.untyped_storage().data_ptr() for t in given}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function()
    return sum(found.values()), out


@contextlib.contextmanager
def quietly():
    """Compilers and quantisation libraries remark on things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class QuantisedTensor(torch.Tensor):
    """A tensor of a class of its own that holds 8-bit integers and a scale and computes as one in float32.

    So are the frozen weights of optimum-quanto. Values that are written into its data are lost.
    """

    def __new__(cls, integers, scale):
        return torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype)

    def __init__(self, integers, scale):
        self.integers, self.scale = integers, scale

    @classmethod
    def __torch_dispatch__(cls, function, _, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return QuantisedTensor(args[0].integers, args[0].scale)
        plain = [each.integers * each.scale if isinstance(each, QuantisedTensor) else each for each in args]
        return function(*plain, **(kwargs or {}))


# Layers of every kind, their bases and inputs


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def conv1d(rows, cols, dtype=torch.float64):
    """transformers' Conv1D, whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(rows, cols).to(dtype)
    torch.nn.init.normal_(layer.bias)
    return layer


class ScaledWordEmbedding(torch.nn.Embedding):
    """As in BART and its relatives; Gemma has a tensor in the place of the number."""

    embed_scale = 3.0

    def forward(self, tokens):
        return super().forward(tokens) * self.embed_scale


def base_of(kind, rows=5, cols=7, dtype=torch.float64):
    match kind:
        case "linear":
            return torch.nn.Linear(cols, rows, dtype=dtype)
        case "no bias":
            return torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
        case "Conv1D":
            pytest.importorskip("transformers")
            return conv1d(rows, cols, dtype)
        case "conv 1":
            return torch.nn.Conv1d(cols, rows, 1, dtype=dtype)
        case "conv 2":
            return torch.nn.Conv2d(cols, rows, 1, dtype=dtype)
        case "conv 3 x 2":
            settings = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
            return torch.nn.Conv2d(cols, rows, (3, 2), **settings, dtype=dtype)
        case "embedding":
            return torch.nn.Embedding(rows, cols, dtype=dtype)
        case "scaled embedding":
            return ScaledWordEmbedding(rows, cols, dtype=dtype)


WRAPPERS = {
    "embedding": CDDEmbedding,
    "scaled embedding": CDDEmbedding,
    "conv 1": CDDConv,
    "conv 2": CDDConv,
    "conv 3 x 2": CDDConv,
}
"""What makes a layer of a base; that of all other kinds is `CDDLinear.from_linear`."""


def layer_around(kind, base, **options):
    return WRAPPERS.get(kind, CDDLinear.from_linear)(base, **options)


def layer_of(kind, dtype=torch.float64, **options):
    base = base_of(kind, dtype=dtype)
    return layer_around(kind, base, **options), base


def input_of(kind, dtype=torch.float64):
    match kind:
        case "embedding" | "scaled embedding":
            return torch.randint(0, 5, (4, 6))
        case "conv 1":
            return torch.randn(4, 7, 3, dtype=dtype)
        case "conv 2":
            return torch.randn(4, 7, 3, 2, dtype=dtype)
        case "conv 3 x 2":
            return torch.randn(4, 7, 5, 3, dtype=dtype)
        case _:
            return torch.randn(4, 6, 7, dtype=dtype)


KINDS = ["linear", "no bias", "Conv1D", "conv 1", "conv 2", "conv 3 x 2", "embedding", "scaled embedding"]

kinds = pytest.mark.parametrize("kind", KINDS)


def with_weight(base, weight):
    """A copy of a base with another weight, given as (rows, cols)."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        if hasattr(base, "kernel_size"):
            other.weight.copy_(kernel_of(base, weight))
        else:
            other.weight.copy_(weight.T if type(base).__name__ == "Conv1D" else weight)
    return other


def dense_of(base):
    weight = base.weight.detach()
    if hasattr(base, "kernel_size"):
        rows, cols, places = places_of(base)
        matrix = weight.new_zeros(rows, cols)
        for kernel, at in places:
            matrix[at] = weight[kernel]
        return matrix
    return weight.T if type(base).__name__ == "Conv1D" else weight


def kernel_of(base, matrix):
    """A matrix (rows, cols) as a kernel of a convolution."""
    kernel = matrix.new_zeros(base.weight.shape)
    for here, at in places_of(base)[2]:
        kernel[here] = matrix[at]
    return kernel


def places_of(base):
    """Rows and columns of the change of a kernel, and where each of its channels by channels stands there.

    Some first axes of space belong to the rows, so many that rows and columns together are fewest.
    """
    (m, n), sizes = base.weight.shape[:2], base.weight.shape[2:]
    shapes = [(m * math.prod(sizes[:s]), n * math.prod(sizes[s:])) for s in range(len(sizes) + 1)]
    split = min(range(len(shapes)), key=lambda s: sum(shapes[s]))
    places = []
    for above, row in enumerate(itertools.product(*map(range, sizes[:split]))):
        for left, column in enumerate(itertools.product(*map(range, sizes[split:]))):
            at = (slice(m * above, m * (above + 1)), slice(n * left, n * (left + 1)))
            places.append(((slice(None), slice(None), *row, *column), at))
    return *shapes[split], places
