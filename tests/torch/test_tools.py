"""Compilers, exporters, torch.func, checkpointing, autocast, offloading and quantisation."""

from __future__ import annotations

import copy
import importlib
import io
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

from structmat.torch import CDDLinear, adapt, load_adapter, remove_adapters, save_adapter
from structmat.torch._changes.operation import _compiled_change
from tests.torch.common import (
    adapted_by_peft,
    adapted_mlp,
    adapter,
    compiler,
    dense,
    factors_of,
    fill,
    input_of,
    kept_bytes,
    kinds,
    layer_of,
    quietly,
)

FORMS = [(5, 5, "min", 3), (5, 7, "min", 3), (7, 5, 3, 5), (8, 12, 4, 5)]


def gradients(model, y):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(y.square().sum(), trained)


class TestCompilers:
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck of torch 2.15
    @compiler
    @pytest.mark.parametrize(
        ("rows", "cols", "block", "n_factors", "with_weight"),
        [(*form, k % 2 == 1) for k, form in enumerate(FORMS)],
    )
    def test_the_operation_is_what_torch_asks_of_one(self, rows, cols, block, n_factors, with_weight):
        """Its schema, its shapes without values, and its gradients, as a compiler traces them."""
        vectors = list(adapter(rows, cols, block_size=block, n_factors=n_factors).vectors)
        x = torch.randn(2, 4, cols, dtype=torch.float64, requires_grad=True)
        weight, bias = torch.randn(rows, cols, dtype=torch.float64), torch.randn(rows, dtype=torch.float64)
        y = torch.randn(2, 4, rows, dtype=torch.float64, requires_grad=True)
        given = (None, x, weight, bias) if with_weight else (y, x, None, None)
        gradients_of = (torch.randn(2, 4, rows, dtype=torch.float64), x.detach(), weight if with_weight else None)
        stacks = [torch.stack([torch.zeros_like(v), v.detach()]).requires_grad_() for v in vectors]
        of_samples = torch.tensor([1, 0]), torch.tensor([0.0, 0.7], dtype=torch.float64)
        for own, samples in ((vectors, (None, None)), (stacks, of_samples)):
            torch.library.opcheck(_compiled_change, (*given, own, 0.5, *samples))
            plain = [vector.detach() for vector in own]
            torch.library.opcheck(torch.ops.structmat.change_gradients, (*gradients_of, plain, 0.5, *samples))

    @compiler
    @pytest.mark.parametrize("n_factors", [3, 5])
    def test_one_graph_that_keeps_nothing_but_the_input(self, n_factors):
        layer = fill(CDDLinear.from_linear(nn.Linear(6, 4), n_factors=n_factors))
        graphs = []

        def backend(graph, _):
            graphs.append(graph.code)
            return graph.forward

        x = torch.randn(3, 6, requires_grad=True)
        torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend=backend)(x), layer(x))
        assert "structmat.add_change" in graphs[0]
        traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(gradients(layer, traced(x)), gradients(layer, layer(x)))
        of_input = [torch.autograd.grad(forward(x).square().sum(), x) for forward in (traced, layer)]
        torch.testing.assert_close(*of_input)
        assert kept_bytes(lambda: traced(x), x, *layer.parameters())[0] == 0
        empty = traced(torch.randn(0, 6, requires_grad=True))
        assert not any(g.any() for g in gradients(layer, empty))

    @compiler
    def test_backward_passes_inside_of_a_compiled_function(self):
        """Compilers run a graph for the first time under rules of their own, which lazy conjugates do not survive."""
        layer = fill(CDDLinear.from_linear(nn.Linear(8, 8, dtype=torch.float64), n_factors=5))
        x = torch.randn(4, 8, dtype=torch.float64)
        wanted = gradients(layer, layer(x))
        with torch._dynamo.config.patch(compiled_autograd=True), quietly():
            step = torch.compile(lambda: layer(x).square().sum().backward(), backend="aot_eager")
            for _ in range(2):
                layer.zero_grad()
                step()
                for vector, gradient in zip(layer.adapter.vectors, wanted, strict=True):
                    torch.testing.assert_close(vector.grad, gradient)

    @compiler
    @pytest.mark.parametrize("fused", [True, False])
    def test_the_same_under_autocast(self, fused):
        layer = fill(CDDLinear.from_linear(nn.Linear(16, 12)))
        layer.base.weight.requires_grad_(not fused)
        x = torch.randn(40, 16)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            expected, y = layer(x), compiled(x)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        torch.testing.assert_close(gradients(layer, y.float()), gradients(layer, expected.float()))


class TestExporters:
    @compiler
    def test_a_dynamic_batch(self):
        model = adapted_mlp((6, 8, 4), torch.float32).eval()
        with quietly():
            batch = torch.export.Dim("batch", min=2, max=64)
            program = torch.export.export(model, (torch.randn(4, 6),), dynamic_shapes=({0: batch},))
        assert "structmat" not in program.graph_module.code
        x = torch.randn(9, 6)
        torch.testing.assert_close(program.module()(x), model(x))

    def test_tracers_of_graphs_see_plain_operations(self):
        from torch.fx.experimental.proxy_tensor import make_fx

        layer, x = fill(layer_of("linear")[0]), input_of("linear")
        torch.testing.assert_close(make_fx(layer)(torch.randn_like(x))(x), layer(x))

    @kinds
    def test_a_traced_layer_is_saved_with_its_change(self, kind):
        layer, _ = layer_of(kind, dtype=torch.float32)
        x, file = input_of(kind, torch.float32), io.BytesIO()
        fill(layer.eval())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.*` is (deprecated|not supported)", DeprecationWarning)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            torch.jit.save(torch.jit.trace(layer, (x[:3],), check_trace=False), file)
            file.seek(0)
            loaded = torch.jit.load(file)
        torch.testing.assert_close(loaded(x), layer(x))  # also for another number of rows

    @compiler
    @pytest.mark.parametrize("dynamo", [False, True])
    @kinds
    def test_onnx_runtime_computes_the_change(self, tmp_path, kind, dynamo):
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        layer, path = fill(layer_of(kind, dtype=torch.float32)[0]).eval(), tmp_path / "layer.onnx"
        x = input_of(kind, torch.float32)
        options = {"dynamic_axes": {"x": {0: "rows"}}, "input_names": ["x"]}
        if dynamo:
            options = {"dynamic_shapes": ({0: torch.export.Dim("rows")},), "verbose": False}
        with quietly():
            torch.onnx.export(layer, (x,), path, dynamo=dynamo, **options)
        session = runtime.InferenceSession(path)
        for given in (x, torch.cat([x, x[:1]])):
            (found,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
            expected = layer(given).detach()
            torch.testing.assert_close(
                torch.from_numpy(found), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
            )


class TestFunctions:
    def test_an_ensemble_of_adapters_over_one_frozen_model(self):
        models = [adapted_mlp() for _ in range(3)]
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
            torch.testing.assert_close(tuple(got[name][i] for name in names), gradients(model, model(x)))

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_gradient_checkpointing(self, reentrant):
        model = adapted_mlp((6, 8, 8, 4))
        x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
        y = model[2:](checkpoint(model[:2], x, use_reentrant=reentrant))
        y.square().sum().backward()
        got = tuple(p.grad for p in model.parameters() if p.requires_grad)
        torch.testing.assert_close(got, gradients(model, model(x)))

    def test_a_vector_changed_between_forward_and_backward_is_noticed(self):
        layer = fill(CDDLinear.from_linear(nn.Linear(6, 4)))
        y = layer(torch.randn(3, 6))
        with torch.no_grad():
            layer.adapter.vectors[1].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


class TestAutocast:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("fused", [True, False])
    def test_outputs_have_its_dtype_and_one_rounding(self, dtype, fused):
        layer = fill(CDDLinear.from_linear(nn.Linear(24, 16)))
        x = torch.randn(40, 24, requires_grad=True)
        reference = gradients(layer, layer(x))
        layer.base.weight.requires_grad_(not fused)
        with torch.autocast("cpu", dtype):
            kept, y = kept_bytes(lambda: layer(x), x, *layer.parameters())
            kept_by_base, base = kept_bytes(lambda: layer.base(x), x, *layer.parameters())
        assert y.dtype == dtype
        assert kept == (0 if fused else kept_by_base)
        expected = base.double() + x.to(dtype).double() @ dense(factors_of(layer.adapter), 16, 24).T
        assert (y.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
        layer.base.weight.requires_grad_(requires_grad=False)
        for a, b in zip(
            torch.autograd.grad(y.float().square().sum(), list(layer.adapter.vectors)), reference, strict=True
        ):
            assert a.dtype == torch.float32
            assert (a - b).norm() < 0.02 * b.norm()

    @pytest.mark.parametrize("x", [torch.ones(3, 6, dtype=torch.int64), torch.ones(3, 6, dtype=torch.complex64)])
    def test_dtypes_that_the_base_refuses(self, x):
        layer = CDDLinear.from_linear(nn.Linear(6, 4))
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="type"):
            layer(x)

    def test_layers_without_a_base_keep_their_precision(self):
        layer = fill(CDDLinear(24, 16))
        x = torch.randn(7, 24)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        torch.testing.assert_close(y, layer(x))


class TestDevices:
    def test_meta(self):
        with torch.device("meta"):
            layer = CDDLinear.from_linear(nn.Linear(6, 4))
        assert {p.device.type for p in layer.parameters()} == {"meta"}
        assert layer(torch.ones(3, 6, device="meta")).shape == (3, 4)

    @pytest.mark.parametrize("first", ["adapted", "offloaded"])
    @pytest.mark.parametrize("by_peft", [False, True])
    def test_weights_and_vectors_that_accelerate_keeps_elsewhere(self, tmp_path, first, by_peft):
        accelerate = pytest.importorskip("accelerate")
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
        x, plain = torch.randn(3, 6), copy.deepcopy(model)

        def adapted(model):
            if by_peft:
                return adapted_by_peft(model)
            adapt(model)
            return model

        if first == "adapted":
            model = fill(adapted(model))
            expected = model(x)
            accelerate.cpu_offload(model, "cpu")
            assert all(p.is_meta for p in model.parameters())
            torch.testing.assert_close(model(x), expected)
            if not by_peft:
                with pytest.raises(ValueError, match=r"load_adapter: model has .*vectors\.0 on the device meta"):
                    load_adapter(model, save_adapter(model, tmp_path / "unused"))
        else:
            accelerate.cpu_offload(model, "cpu")
            model = adapted(model)
            assert {p.is_meta for p in model.parameters() if not p.requires_grad} == {True}
            torch.testing.assert_close(model(x), plain(x))
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
            for _ in range(3):
                model(x).square().sum().backward()
                optimizer.step()
            assert not torch.allclose(model(x), plain(x), atol=1e-3)
        if not by_peft:
            load_adapter(plain, save_adapter(model, tmp_path / "adapter"))
            torch.testing.assert_close(plain(x), model(x))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("sizes", [(6, 8, 4), (37, 53, 29), (256, 64, 256)])
    def test_a_gpu(self, dtype, sizes):
        model = adapted_mlp(sizes, torch.float64)
        x = torch.randn(50, sizes[0], dtype=torch.float64)
        with torch.no_grad():
            for p in (*model.parameters(), x):
                p.copy_(p.to(dtype))
        expected = model(x)
        reference = gradients(model, expected)
        model.to("cuda", dtype)
        y = model(x.to("cuda", dtype))
        scale, tolerance = max(1.0, expected.detach().abs().max().item()), 32 * torch.finfo(dtype).eps
        torch.testing.assert_close(y.cpu().double(), expected, atol=tolerance * scale, rtol=tolerance)
        if dtype in {torch.float64, torch.float32}:
            for a, b in zip(gradients(model, y), reference, strict=True):
                bound = 1e4 * tolerance * b.abs().max().item()
                torch.testing.assert_close(a.cpu().double(), b, atol=bound, rtol=tolerance)


def imported(name):
    with quietly():
        try:
            return importlib.import_module(name)
        except ImportError:
            return pytest.skip(f"needs {name}")


def torchao_int8(linear):
    quantization = imported("torchao.quantization")
    model = nn.Sequential(copy.deepcopy(linear))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model[0], model[0].weight.dequantize()


def bitsandbytes_int8(linear):
    modules = imported("bitsandbytes.nn")
    base = modules.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
    base.load_state_dict(linear.state_dict())
    base = base.to("cpu")  # which quantises
    return base, base.weight.detach().float() * (base.weight.SCB[:, None] / 127)


def torch_dynamic(linear):
    base = torch.ao.quantization.quantize_dynamic(nn.Sequential(copy.deepcopy(linear)), {nn.Linear})[0]
    return base, base.weight().dequantize()


@pytest.mark.parametrize("quantise", [torchao_int8, bitsandbytes_int8, torch_dynamic])
def test_quantised_bases(quantise):
    torch.manual_seed(0)
    with quietly():
        base, weight = quantise(nn.Linear(48, 32))
        model = nn.Sequential(base, nn.ReLU(), nn.Linear(32, 4))
        x = torch.randn(20, 48)
        before = model(x)
        adapt(model)
        assert torch.equal(model(x), before)
        layer = fill(model)[0]
        assert {vector.dtype for vector in layer.adapter.vectors} == {torch.float32}
        torch.testing.assert_close(layer(x) - base(x), layer.adapter(x), atol=1e-4, rtol=1e-4)
        assert (layer(x) - x @ (weight + layer.adapter.dense()).T - layer.bias).abs().max() < 0.1 * layer(x).abs().max()
        assert all(g.any() for g in gradients(model, model(x)))
        with pytest.raises(TypeError, match="in 0"):
            remove_adapters(model, merge=True)
        assert type(model[2]) is CDDLinear
        remove_adapters(model)
        assert torch.equal(model(x), before)
