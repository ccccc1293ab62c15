"""Long convolutions: those of `torch.nn` are the law, in outputs, gradients, arguments, errors and state dicts."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import parametrizations, parametrize

from structmat._long_convolutions import operation, transforms
from structmat._long_convolutions.plan import Convolution, tile_for
from structmat.torch import (
    FFTConv1d,
    FFTConv2d,
    FFTConv3d,
    fft_conv,
    replace_convolutions,
)
from tests.torch.common import compiler, kept_bytes, quietly

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")

PAIRS = {1: (nn.Conv1d, FFTConv1d), 2: (nn.Conv2d, FFTConv2d), 3: (nn.Conv3d, FFTConv3d)}
CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


def pair(axes, *sizes, method="fft", **options):
    """A layer of PyTorch and one of ours with its weights."""
    plain, ours = PAIRS[axes]
    reference = plain(*sizes, **options)
    layer = ours(*sizes, **options, method=method)
    layer.load_state_dict(reference.state_dict())
    return reference, layer


def assert_same(reference, layer, x):
    """Outputs and all gradients are the same."""
    x = x.clone().requires_grad_()
    expected, found = reference(x), layer(x)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, (x, *m.parameters()), dy) for y, m in ((found, layer), (expected, reference))]
    torch.testing.assert_close(*gradients)


@st.composite
def cases(draw):
    axes = draw(st.sampled_from([1, 1, 2, 2, 3]))
    groups = draw(st.integers(1, 3))
    columns, rows = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(axes)) for most in (5, 3, 3))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    numbers = tuple(draw(st.integers(0, 3)) for _ in range(axes))
    words = ["valid", "same"] if max(stride) == 1 else ["valid"]
    padding = draw(st.sampled_from([numbers, *words]))
    least = [max(d * (k - 1) + 1, 7) for k, d in zip(kernel, dilation, strict=True)]
    sizes = tuple(n + draw(st.integers(0, 9)) for n in least)
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode)
    options["bias"] = draw(st.booleans())
    return axes, (columns, rows, kernel), options, (*batch, columns, *sizes), draw(st.sampled_from([10, 200, 2**19]))


@settings(max_examples=20)
@given(case=cases(), data=st.data())
def test_outputs_and_gradients_are_those_of_the_layers_of_torch(case, data):
    axes, sizes, options, shape, chunk = case
    reference, layer = pair(axes, *sizes, dtype=torch.float64, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "_CHUNK", chunk)
        if data.draw(st.booleans(), label="shortest tiles"):  # as many of them as there can be
            patch.setattr(operation, "tile_for", shortest_tiles)
        assert_same(reference, layer, torch.randn(shape, dtype=torch.float64))


def shortest_tiles(which, wanted, dtype, *, forced):
    return tuple(k + (k > 1) for k in which.kernel)


@in_one_test("axes", [1, 2, 3])
@in_one_test("method", ["auto", "fft", "direct"])
def test_single_precision(axes, method):
    kernel, n = {1: (300, 2000), 2: (20, 70), 3: (5, 12)}[axes]
    reference, layer = pair(axes, 4, 3, kernel, method=method)
    x = torch.randn(2, 4, *[n] * axes)
    expected, found = reference.double()(x.double()), layer(x)
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    transformed = "Convolved" in str(found.grad_fn) or "Convolved" in str(found.grad_fn.next_functions)
    assert transformed == (method == "fft" or (method == "auto" and axes < 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_dtypes_are_rounded_once(dtype):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    with quietly():
        reference, layer = pair(1, 3, 2, 40, dtype=dtype)
        reference = reference.to(wide)
    x = torch.randn(2, 3, 90).to(dtype).requires_grad_()
    found, expected = layer(x), reference(x.to(wide))
    assert found.dtype == dtype
    # Of ones all entries of the weight's gradient would be nearly one sum, which may be close to zero.
    dy = torch.randn_like(found)
    gradients = torch.autograd.grad(found, (x, layer.weight), dy)
    exact = torch.autograd.grad(expected, (x, reference.weight), dy.to(wide))
    for a, b in zip((found, *gradients), (expected, *exact), strict=True):
        assert a.dtype == dtype
        assert (a - b).norm() <= 2 * torch.finfo(dtype).eps * b.norm()


def test_gradients_of_gradients():
    options = dict(stride=2, padding=2, dilation=2, groups=2, method="fft")
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 4, 11), (2, 2, 3), (2,))]
    assert torch.autograd.gradcheck(lambda *t: fft_conv(*t, **options), given)
    assert torch.autograd.gradgradcheck(lambda *t: fft_conv(*t, **options), given)
    given = [t.detach().to(torch.complex128).requires_grad_() for t in given]
    assert torch.autograd.gradcheck(lambda *t: fft_conv(*t, **options), given, fast_mode=True)


def test_only_arguments_are_kept():
    _, layer = pair(1, 4, 4, 50, padding=10)
    x = torch.randn(2, 4, 300, requires_grad=True)
    kept, _ = kept_bytes(lambda: layer(x), x, *layer.parameters())
    assert kept == 0


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 10), dict(kernel_size=11)),
        ((2, 3, 10), dict(kernel_size=6, dilation=2)),
        ((2, 4, 40), dict(kernel_size=20)),
        ((2, 3, 40, 1), dict(kernel_size=20)),
        ((40,), dict(kernel_size=20)),
        ((2, 3, 0), dict(kernel_size=20)),
        ((2, 3, 9), dict(kernel_size=20, padding=9, padding_mode="reflect")),
    ],
)
@in_one_test("method", ["auto", "fft"])
def test_errors_are_those_of_torch(shape, options, method):
    reference, layer = pair(1, 3, 2, method=method, **options)
    x = torch.randn(shape)
    with pytest.raises(RuntimeError) as expected:
        reference(x)
    with pytest.raises(RuntimeError) as found:
        layer(x)
    assert str(found.value) == str(expected.value)
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        layer(torch.randn(2, 3, 40, dtype=torch.float64))


def test_no_inputs_have_no_outputs():
    reference, layer = pair(1, 3, 2, 20)
    assert_same(reference, layer, torch.randn(0, 3, 40))


def test_errors_of_our_own():
    with pytest.raises(ValueError, match=r'FFTConv1d: method must be one of "auto", "direct", "fft", got \'best\''):
        FFTConv1d(1, 1, 3, method="best")
    with pytest.raises(ValueError, match="padding='same' is not supported for strided"):
        FFTConv1d(1, 1, 4, stride=2, padding="same")
    x = torch.randn(1, 1, 9)
    with pytest.raises(ValueError, match=r"fft_conv: weight must have one, two or three axes of space"):
        fft_conv(x, torch.randn(1, 1))
    with pytest.raises(ValueError, match=r"fft_conv: stride must be one number or 1, got \(1, 1\)"):
        fft_conv(x, torch.randn(1, 1, 3), stride=(1, 1))
    with pytest.raises(TypeError, match=r"fft_conv: dilation must be a whole number or several, got 'two'"):
        fft_conv(x, torch.randn(1, 1, 3), dilation="two")
    with pytest.raises(RuntimeError, match="same"):
        fft_conv(x, torch.randn(1, 1, 4), stride=2, padding="same", method="fft")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_state_dicts_and_copies(axes):
    torch.manual_seed(0)
    plain = PAIRS[axes][0](2, 4, 3, padding=1, padding_mode="circular")
    torch.manual_seed(0)
    layer = PAIRS[axes][1](2, 4, 3, padding=1, padding_mode="circular")
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), plain.parameters(), strict=True))
    plain.load_state_dict(layer.state_dict())
    assert str(layer) == f"FFT{plain}"
    layer.method = "fft"
    assert str(layer).endswith(", method='fft')")
    x = torch.randn(1, 2, *[5] * axes)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.method == "fft"
        assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    reference, layer = pair(1, 3, 2, 60)
    x = torch.randn(2, 3, 200, requires_grad=True)
    with torch.autocast("cpu", dtype):
        found, expected = layer(x), reference(x)
    assert found.dtype == expected.dtype == dtype
    assert (found - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()
    dy = torch.ones_like(found)
    gradients = [torch.autograd.grad(y, (x, m.weight), dy) for y, m in ((found, layer), (expected, reference))]
    for a, b in zip(*gradients, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() <= 4 * torch.finfo(dtype).eps * b.norm()


def test_transforms_of_torch_func():
    x, weight = torch.randn(3, 2, 2, 40, dtype=torch.float64), torch.randn(3, 4, 1, 9, dtype=torch.float64)

    def ours(x, weight):
        return fft_conv(x, weight, stride=2, padding=3, groups=2, method="fft")

    def reference(x, weight):
        return nn.functional.conv1d(x, weight, None, 2, 3, 1, 2)

    torch.testing.assert_close(torch.vmap(ours)(x, weight), torch.vmap(reference)(x, weight))
    found, expected = (torch.func.jvp(f, (x[0], weight[0]), (x[1], weight[1])) for f in (ours, reference))
    torch.testing.assert_close(found, expected)
    found, expected = (
        torch.vmap(torch.func.grad(lambda w, x, f=f: f(x, w).square().sum()))(weight, x) for f in (ours, reference)
    )
    torch.testing.assert_close(found, expected)


@compiler
def test_compiled_layers():
    reference, layer = pair(1, 3, 2, 60, stride=2)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with quietly():
        assert_same(reference, compiled, torch.randn(2, 3, 200))


class Convolves(nn.Module):
    """Calls the function in place of a layer."""

    def __init__(self, layer):
        super().__init__()
        self.weight, self.method = layer.weight, layer.method

    def forward(self, input):
        return fft_conv(input, self.weight, method=self.method)


@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
@in_one_test("wrap", [lambda layer: layer, Convolves])
def test_exporters_see_plain_convolutions_of_any_size(method, wrap):
    """No guard tells sizes apart by which the choice would be made: here a sample more would make another one."""
    layer = wrap(FFTConv1d(4, 4, 64, bias=False, method=method))
    x = torch.randn(40, 4, 100)
    assert 64 * x.numel() < operation.LEAST_WORK < 64 * torch.randn(60, 4, 100).numel()
    dynamic = {"input": {0: torch.export.Dim("batch", min=2), 2: torch.export.Dim("n", min=66)}}
    with quietly():
        program = torch.export.export(layer, (x,), dynamic_shapes=dynamic)
    assert "conv1d" in str(program.graph)
    x = torch.randn(60, 4, 120)
    torch.testing.assert_close(program.module()(x), layer(x), atol=1e-5, rtol=1e-5)


# ---- the choice


def tile(shape, weight, wanted="output", dtype=torch.float32, **options):
    n = len(shape) - 2
    numbers = dict(stride=(1,) * n, padding=(0,) * n, dilation=(1,) * n, groups=1) | options
    return tile_for(Convolution(shape, weight, **numbers), wanted, dtype, forced=False)


def test_long_kernels_are_transformed_in_tiles_and_short_ones_are_not():
    for wanted in ("output", "input", "weight"):
        for dtype in (torch.float32, torch.float64):
            (length,) = tile((1, 32, 16_000), (32, 32, 1024), wanted, dtype)
            assert 1024 < length < 16_000
            assert tile((1, 32, 16_000), (32, 32, 3), wanted, dtype) is None
    assert tile((1, 1, 64, 64), (1, 1, 3, 3)) is None
    assert tile((4, 16, 256, 256), (16, 16, 63, 63)) is not None
    assert tile((1, 32, 16_000), (32, 32, 1024), dtype=torch.complex64) is not None


def test_small_convolutions_are_left_to_torch_at_once(monkeypatch):
    monkeypatch.setattr(operation, "Convolution", None)
    fft_conv(torch.randn(1, 2, 50), torch.randn(2, 2, 30))
    FFTConv1d(64, 64, 3)(torch.randn(1, 64, 500))
    FFTConv1d(1, 1, 15)(torch.randn(1, 1, 100_000))


# ---- models


def test_replaced_convolutions_stay_what_they_are():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 100, padding=50), nn.Sequential(nn.Conv1d(4, 4, 40, groups=2).eval(), nn.Conv1d(4, 2, 3))
    )
    first, (second, third) = model[0], model[1]
    calls = []
    first.register_forward_hook(lambda *_: calls.append("hook"))
    first.weight.requires_grad_(False)
    x = torch.randn(1, 2, 200)
    before, state, parameters = model(x), model.state_dict(), list(model.parameters())
    assert replace_convolutions(model, min_kernel=40, method="fft") == ("0", "1.0")
    assert [type(layer) for layer in (first, second, third)] == [FFTConv1d, FFTConv1d, nn.Conv1d]
    assert model[0] is first
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == list(state)
    assert (first.training, second.training) == (True, False)
    assert not first.weight.requires_grad
    torch.testing.assert_close(model(x), before)
    assert calls == ["hook"] * 2
    assert replace_convolutions(nn.Conv2d(1, 1, (3, 31))) == ("",)


def test_parametrised_convolutions_stay_so():
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(2, 2, 50)))
    x = torch.randn(1, 2, 100)
    before = model(x)
    assert replace_convolutions(model, method="fft") == ("0",)
    layer = model[0]
    assert isinstance(layer, FFTConv1d)
    assert parametrize.is_parametrized(layer, "weight")
    for each in (layer, copy.deepcopy(layer)):
        torch.testing.assert_close(each(x), before)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is FFTConv1d
    torch.testing.assert_close(layer(x), before)


def test_other_classes_are_left_alone():
    class Standardised(nn.Conv1d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(
        Standardised(1, 1, 50), nn.LazyConv1d(1, 50), nn.ConvTranspose1d(1, 1, 50), nn.Conv1d(1, 1, 7)
    )
    text = (
        r"replace_convolutions: model has no Conv1d, Conv2d or Conv3d with a kernel of at least min_kernel=16: "
        r"the longest one has 7"
    )
    with pytest.raises(ValueError, match=text):
        replace_convolutions(model)
    with pytest.raises(ValueError, match="there is none at all"):
        replace_convolutions(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="none at all beside the 2 that compute by transforms already; set `method`"):
        replace_convolutions(nn.Sequential(FFTConv1d(1, 1, 20), FFTConv1d(1, 1, 20)))
    with pytest.raises(TypeError, match=r"replace_convolutions: model must be a torch.nn.Module, got list"):
        replace_convolutions([])
    with pytest.raises(ValueError, match="min_kernel"):
        replace_convolutions(model, min_kernel=0)
    with pytest.raises(ValueError, match="method"):
        replace_convolutions(model, min_kernel=7, method="best")
    assert [type(layer) for layer in model] == [Standardised, nn.LazyConv1d, nn.ConvTranspose1d, nn.Conv1d]


@in_one_test("kernel", [(4,), (5,), (4, 3), (3, 2), (2, 3, 4)])
@in_one_test("dilation", [1, 3])
def test_same_padding_of_even_kernels_is_longer_at_the_end(kernel, dilation):
    sizes = (9, 11, 12)[: len(kernel)]
    x, weight = (torch.randn(2, 3, *each, dtype=torch.float64, requires_grad=True) for each in (sizes, kernel))
    direct = (torch.conv1d, torch.conv2d, torch.conv3d)[len(kernel) - 1]
    found = fft_conv(x, weight, None, 1, "same", dilation, method="fft")
    expected = direct(x, weight, None, 1, "same", dilation)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(y.sin().sum(), (x, weight)) for y in (found, expected))
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted)
