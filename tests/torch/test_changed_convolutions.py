"""Convolutions with a change: torch's convolution with the dense changed kernel is the law, by torch's own function."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structmat.torch import CDDConv, FFTConv1d
from tests.torch.common import fill, kernel_of

CLASSES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def strides(y):
    """Those of the axes that are longer than one: the others address nothing."""
    return [step for step, length in zip(y.stride(), y.shape, strict=True) if length > 1]


def changed(layer):
    """A copy of the base of a layer whose kernel is the changed one; gradients flow to the vectors."""
    base = copy.deepcopy(layer.base)
    weight = layer.base.weight + kernel_of(layer.base, layer.delta().to_dense())
    return lambda x: torch.func.functional_call(base, {"weight": weight}, (x,))


@st.composite
def convolutions(draw):
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    several = st.tuples(*[st.integers(1, 3)] * axes)
    twice = st.tuples(*[st.integers(1, 2)] * axes)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    padding = draw(st.one_of(st.tuples(*[st.integers(0, 2)] * axes), st.sampled_from(["same", "valid"])))
    return CLASSES[axes](
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        draw(several),
        (1,) * axes if padding == "same" else draw(twice),
        padding,
        draw(twice),
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        dtype=torch.float64,
    )


@given(
    base=convolutions(),
    n_factors=st.sampled_from([3, 3, 5]),
    block_size=st.sampled_from(["min", "toeplitz", 1]),
    samples=st.sampled_from([None, 0, 2]),
)
@settings(max_examples=20)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_outputs_and_gradients_are_those_of_the_changed_kernel(base, n_factors, block_size, samples):
    layer = fill(CDDConv(base, n_factors=n_factors, block_size=block_size, alpha=0.5))
    shape = (base.in_channels, *[5] * len(base.kernel_size))
    x = torch.randn(shape if samples is None else (samples, *shape), dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.adapter.vectors]
    plain, expected = base(x), changed(layer)(x)
    dy = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, dy)
    for y in (layer(x), CDDConv._add(base, layer.adapter, plain, x)):
        torch.testing.assert_close(y, expected)
        assert strides(y) == strides(plain)
        torch.testing.assert_close(torch.autograd.grad(y, inputs, dy), wanted)
    torch.testing.assert_close(layer.merge_into_base()(x), expected)


@pytest.mark.parametrize("n_factors", [3, 5])
def test_second_derivatives(n_factors):
    base = nn.Conv2d(2, 4, (2, 3), stride=(2, 1), padding=1, padding_mode="circular", dtype=torch.float64)
    layer = fill(CDDConv(base, n_factors=n_factors))
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda *_: layer(x), [x, *layer.adapter.vectors], fast_mode=True)


def test_a_batch_of_gradients():
    layer = fill(CDDConv(nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect", dtype=torch.float64)))
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.adapter.vectors]
    y = layer(x)
    dys = torch.randn(3, *y.shape, dtype=torch.float64)
    batched = torch.autograd.grad(y, inputs, dys, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, inputs, dy, retain_graph=True) for dy in dys]
    for found, *expected in zip(batched, *each, strict=True):
        torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(("base", "shapes"), [
    (nn.Conv2d(8, 8, 3), [(24,), (1, 1, 24), (24,)]),  # 9 n, where LoRA has 10 n for each rank
    (nn.Conv1d(8, 8, 3), [(8,), (1, 3, 8), (24,)]),
    (nn.Conv2d(8, 8, 3, groups=8), [(8,), (1, 2, 8), (9,)]),
    (nn.Conv2d(3, 64, 7), [(64,), (1, 3, 64), (147,)]),
    (nn.Conv2d(8, 4, 1), [(4,), (1, 2, 4), (8,)]),
])  # fmt: skip
def test_numbers_of_parameters(base, shapes):
    assert [tuple(vector.shape) for vector in CDDConv(base).adapter.vectors] == shapes


def test_half_precision_keeps_small_changes():
    """In the sum with the kernel they would be rounded away."""
    layer = fill(CDDConv(nn.Conv2d(4, 4, 3, dtype=torch.bfloat16), alpha=1e-5))
    x = torch.randn(3, 4, 5, 5, dtype=torch.bfloat16)
    dense = kernel_of(layer.base, layer.adapter.dense())
    expected = nn.functional.conv2d(x.float(), dense)
    change = layer._add(layer.base, layer.adapter, torch.zeros(3, 4, 3, 3), x).detach()
    assert change.dtype == torch.float32
    torch.testing.assert_close(change, expected, rtol=0.02, atol=0.02 * float(expected.std()))
    assert layer(x).dtype == torch.bfloat16


def test_autocast():
    layer = fill(CDDConv(nn.Conv2d(4, 4, 3), alpha=0.1))
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = layer(x), changed(layer)(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    inputs = [x, *layer.adapter.vectors]
    found, wanted = (torch.autograd.grad(out.float().square().sum(), inputs) for out in (y, expected))
    for a, b in zip((y, *found), (expected, *wanted), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()
    assert [a.dtype for a in found] == [torch.float32] * 4


def test_compilers_see_one_graph():
    layer = fill(CDDConv(nn.Conv2d(3, 4, 3, groups=1, padding=1)))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


def test_layers_by_transforms_have_a_change():
    layer = fill(CDDConv(FFTConv1d(2, 4, 20, method="fft", dtype=torch.float64)))
    x = torch.randn(3, 2, 50, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(expected, changed(layer)(x))
    torch.testing.assert_close(layer.merge_into_base()(x), expected)


def test_models_read_sizes_of_an_adapted_convolution():  # as Wav2Vec2-BERT, which pads by itself
    base = nn.Conv1d(4, 8, 3, stride=2, groups=2)
    layer = CDDConv(base)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "padding_mode", "bias"):
        assert getattr(layer, name) is getattr(base, name)


def test_vectors_of_several_layers_are_mapped_over():
    layer = CDDConv(nn.Conv2d(2, 4, 3, dtype=torch.float64).to(memory_format=torch.channels_last))
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    trained = {name: vector for name, vector in layer.named_parameters() if vector.requires_grad}
    several = {name: torch.randn(3, *vector.shape, dtype=torch.float64) for name, vector in trained.items()}
    found = torch.vmap(lambda own: torch.func.functional_call(layer, own, (x,)))(several)
    for i, y in enumerate(found):
        own = {name: vectors[i] for name, vectors in several.items()}
        torch.testing.assert_close(y, torch.func.functional_call(layer, own, (x,)))
