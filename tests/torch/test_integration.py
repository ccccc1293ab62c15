"""Compilers, exporters, torch.func, checkpointing, autocast, and what layers keep for the backward pass."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

from structmat.torch import CDDConv, CDDLinear, adapt
from tests.torch.common import MODES, adapted_mlp, compiler, dense, fill, kept_bytes, quietly

modes = pytest.mark.parametrize("mode", MODES)


def gradients(model, y):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(y.square().sum(), trained)


def assert_equal_gradients(got, expected, **tolerances):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerances)


class TestMemory:
    @pytest.mark.parametrize("n_factors", [3, 5])
    def test_a_recomputing_layer_keeps_its_input_only(self, n_factors):
        layer = fill(CDDLinear.from_linear(nn.Linear(64, 48), n_factors=n_factors))
        x = torch.randn(5, 7, 64, requires_grad=True)
        assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0
        assert kept_bytes(lambda: layer(x.detach()), x, *layer.parameters())[0] == 0
        layer.add_adapter("second")
        assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0

    def test_with_any_base(self):
        class Other(nn.Linear):
            pass

        layer = fill(CDDLinear.from_linear(Other(64, 48)))
        x = torch.randn(5, 7, 64, requires_grad=True)
        assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0

    def test_a_convolution(self):
        conv = nn.Conv2d(8, 6, 1)
        layer = fill(CDDConv(conv))
        x = torch.randn(3, 8, 5, 4, requires_grad=True)
        assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0

    def test_a_stack_keeps_what_the_frozen_stack_needs_and_each_input(self):
        """Every input is an output that the activation before keeps anyway, so nothing is added at all."""
        torch.manual_seed(0)
        stack = nn.Sequential(*[part for _ in range(12) for part in (nn.Linear(32, 32), nn.Tanh())])
        x = torch.randn(20, 32, requires_grad=True)
        stack.requires_grad_(requires_grad=False)
        frozen = kept_bytes(lambda: stack(x), x, *stack.parameters())[0]
        adapt(stack)
        fill(stack)
        assert kept_bytes(lambda: stack(x), x, *stack.parameters())[0] == frozen == 12 * x.numel() * 4

    def test_fast_layers_keep_spectra(self):
        layer = fill(CDDLinear.from_linear(nn.Linear(256, 256), mode="cache"))
        x = torch.randn(64, 256, requires_grad=True)
        times = kept_bytes(lambda: layer(x), x, *layer.parameters())[0] / (x.numel() * 4)
        assert 2 <= times < 2.02
        with torch.no_grad():
            assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0


@compiler
@modes
@pytest.mark.parametrize("n_factors", [3, 5])
def test_compiles_to_one_graph(mode, n_factors):
    torch.manual_seed(0)
    model = adapted_mlp(mode=mode, n_factors=n_factors, block_size=3)
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = model(x)
    with quietly():
        y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        got = gradients(model, y)
    torch.testing.assert_close(y, expected)
    assert_equal_gradients(got, gradients(model, expected))


@compiler
def test_merged_disabled_and_selected_layers_compile_too():
    from structmat.torch import adapters_per_sample, disable_adapters, merge_adapters, unmerge_adapters

    model = adapted_mlp((6, 8, 4), torch.float32)
    x = torch.randn(2, 6)
    with quietly():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), model(x))
        merge_adapters(model)
        torch.testing.assert_close(compiled(x), model(x))
        unmerge_adapters(model)
        torch.testing.assert_close(compiled(x), model(x))
        with disable_adapters(model):
            torch.testing.assert_close(compiled(x), model(x))
        with adapters_per_sample(model, ["default", None]):
            torch.testing.assert_close(compiled(x), model(x))
        torch.testing.assert_close(compiled(x), model(x))


@compiler
@modes
def test_exports_with_a_dynamic_batch(mode):
    model = adapted_mlp((6, 8, 4), torch.float32, mode=mode).eval()
    with quietly():
        batch = torch.export.Dim("batch", min=2, max=64)
        program = torch.export.export(model, (torch.randn(4, 6),), dynamic_shapes=({0: batch},))
    x = torch.randn(9, 6)
    torch.testing.assert_close(program.module()(x), model(x))


@modes
def test_functional_calls_and_stacked_adapters(mode):
    """An ensemble of adapters over one frozen model, by torch.func alone."""
    models = [adapted_mlp(mode=mode) for _ in range(3)]
    for other in models[1:]:
        for a, b in ((models[0][i], other[i]) for i in (0, 2)):
            b.base = a.base
    params, buffers = torch.func.stack_module_state(models)
    x = torch.randn(5, 6, dtype=torch.float64)

    def call(params, buffers, x):
        return torch.func.functional_call(models[0], (params, buffers), (x,))

    y = torch.vmap(call, in_dims=(0, 0, None))(params, buffers, x)
    torch.testing.assert_close(y, torch.stack([model(x) for model in models]))
    loss = lambda params: torch.vmap(call, in_dims=(0, 0, None))(params, buffers, x).square().sum()
    got = torch.func.grad(loss)({key: value.detach() for key, value in params.items()})
    for i, model in enumerate(models):
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        assert_equal_gradients([got[name][i] for name in names], gradients(model, model(x)))


@modes
def test_per_sample_gradients_of_a_model(mode):
    model = adapted_mlp(mode=mode)
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    x = torch.randn(5, 6, dtype=torch.float64)

    def loss(trained, x):
        return torch.func.functional_call(model, trained, (x[None],)).square().sum()

    got = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(trained, x)
    for i in range(5):
        assert_equal_gradients([g[i] for g in got.values()], gradients(model, model(x[i : i + 1])))


@modes
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(mode, reentrant):
    model = adapted_mlp((6, 8, 8, 4), mode=mode)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    y = model[2:](checkpoint(model[:2], x, use_reentrant=reentrant))
    y.square().sum().backward()
    got = [p.grad for p in model.parameters() if p.requires_grad]
    torch.testing.assert_close(y, model(x))
    assert_equal_gradients(got, gradients(model, model(x)))


@modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(mode, dtype):
    """Outputs are of the autocast dtype, as the base's; the change is summed in float32 and rounded once."""
    layer = fill(CDDLinear.from_linear(nn.Linear(24, 16), mode=mode))
    x = torch.randn(40, 24, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y, base = layer(x), layer.base(x)
        kept = kept_bytes(lambda: layer.adapters["default"].add_to(base, x), x, *layer.parameters())[0]
    assert y.dtype == dtype
    assert kept == 0 or mode == "cache"
    change = x.to(dtype).double() @ dense(layer.adapters["default"].factors, 16, 24).T
    expected = base.double() + change
    assert (y.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
    got = gradients(layer, y.float())
    reference = gradients(layer, layer(x))
    assert {g.dtype for g in got} == {torch.float32}
    for a, b in zip(got, reference, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize(
    ("given", "weight", "result"),
    [
        (torch.float32, torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32, torch.bfloat16),  # the outputs of another layer
        (torch.float32, torch.float16, torch.bfloat16),
        (torch.float64, torch.float64, torch.float64),  # which autocast leaves alone
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_autocast_casts_what_base_and_change_multiply_and_keeps_nothing(given, weight, result, fused):
    """Less than torch keeps for the base alone, the weight in the dtype of autocast."""
    layer = fill(CDDLinear.from_linear(nn.Linear(24, 16, dtype=weight)))
    if not fused:
        layer.base.register_forward_hook(lambda *_: None)
    x = torch.randn(7, 24, dtype=given, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer.base(x)
        kept, y = kept_bytes(lambda: layer(x), x, *layer.parameters())
    assert y.dtype == expected.dtype == result
    assert kept == (0 if fused or weight == result else 16 * 24 * 2)
    change = x.detach().to(result).double() @ dense(layer.adapters["default"].factors, 16, 24).T
    expected = expected.detach().double() + change
    computing = 32 * torch.finfo(torch.promote_types(result, torch.float32)).eps  # the change, in the wider dtype
    error = (y.detach().double() - expected).abs().max()
    assert error <= (torch.finfo(result).eps + computing) * expected.abs().max()
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.dtype == given


def test_layers_with_the_same_inputs_keep_them_once_under_autocast():
    layers = [fill(CDDLinear.from_linear(nn.Linear(8, 8))) for _ in range(3)]
    layers[0].add_adapter("second")  # active too
    x = torch.randn(7, 8, requires_grad=True)

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            h = 2 * x
            return sum(layer(h) for layer in layers)

    assert kept_bytes(run, *(p for layer in layers for p in layer.parameters()))[0] == 4 * x.numel()


@pytest.mark.parametrize(
    ("x", "change"),
    [
        (torch.ones(3, 6, dtype=torch.int64), {}),
        (torch.ones(3, 6, dtype=torch.complex64), {}),
        (torch.ones(3, 6), {"weight": torch.ones(4, 6, dtype=torch.int8)}),
        (torch.ones(3, 6), {"bias": torch.ones(4, dtype=torch.float64)}),
    ],
)
def test_autocast_does_not_hide_dtypes_that_the_base_refuses(x, change):
    layer = CDDLinear.from_linear(nn.Linear(6, 4))
    for name, value in change.items():
        setattr(layer.base, name, nn.Parameter(value, requires_grad=False))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="type"):
        layer(x)


def test_layers_without_a_base_keep_their_precision_under_autocast():
    layer = fill(CDDLinear(24, 16))
    x = torch.randn(7, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.clone()))
        y = layer(x)
    torch.testing.assert_close(y, layer(x))


@modes
def test_double_backward_through_a_model(mode):
    model = adapted_mlp((3, 4, 2), mode=mode)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(model, (x,))
    penalty = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0].square().sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert any(g is not None and g.any() for g in torch.autograd.grad(penalty, trained, allow_unused=True))


@modes
def test_inference_mode_and_threads_of_autograd(mode):
    model = adapted_mlp(mode=mode)
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = model(x)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
    retained = model(x).square().sum()
    first = torch.autograd.grad(retained, [model[0].adapters["default"].factors[0]], retain_graph=True)
    second = torch.autograd.grad(retained, [model[0].adapters["default"].factors[0]])
    assert torch.equal(first[0], second[0])


def test_a_vector_changed_between_forward_and_backward_is_noticed():
    layer = fill(CDDLinear.from_linear(nn.Linear(6, 4)))
    y = layer(torch.randn(3, 6))
    with torch.no_grad():
        layer.adapters["default"].factors[1].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_meta_devices():
    with torch.device("meta"):
        layer = CDDLinear.from_linear(nn.Linear(6, 4))
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert layer(torch.ones(3, 6, device="meta")).shape == (3, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@modes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [(6, 8, 4), (37, 53, 29), (256, 64, 256)])
def test_on_a_gpu(mode, dtype, sizes):
    model = adapted_mlp(sizes, torch.float64, mode=mode)
    x = torch.randn(50, sizes[0], dtype=torch.float64)
    with torch.no_grad():
        for p in (*model.parameters(), x):
            p.copy_(p.to(dtype))
    expected = model(x)
    reference = gradients(model, expected)
    model.to("cuda", dtype)
    y = model(x.to("cuda", dtype))
    scale = max(1.0, expected.detach().abs().max().item())
    tolerance = 32 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.cpu().double(), expected, atol=tolerance * scale, rtol=tolerance)
    if dtype in {torch.float64, torch.float32}:
        for a, b in zip(gradients(model, y), reference, strict=True):
            torch.testing.assert_close(a.cpu().double(), b, atol=1e4 * tolerance * b.abs().max().item(), rtol=tolerance)
