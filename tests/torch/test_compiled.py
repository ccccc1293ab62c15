"""The operation that compilers take whole."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import CDDLinear
from structmat.torch._adapter.compiled import compiled_change
from tests.torch.common import MODES, adapter, compiler, fill, kept_bytes, quietly

modes = pytest.mark.parametrize("mode", MODES)

FORMS = [(5, 5, "min", 3), (7, 5, 3, 5)]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck of torch 2.15
@compiler
@pytest.mark.parametrize(("rows", "cols", "block", "n_factors"), FORMS)
@pytest.mark.parametrize("with_weight", [False, True])
def test_the_operation_is_what_torch_asks_of_one(rows, cols, block, n_factors, with_weight):
    """Its schema, its shapes without values, and its gradients, as a compiler traces them."""
    factors = list(adapter(rows, cols, block_size=block, n_factors=n_factors).factors)
    x = torch.randn(2, 4, cols, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(rows, cols, dtype=torch.float64), torch.randn(rows, dtype=torch.float64)
    y = torch.randn(2, 4, rows, dtype=torch.float64, requires_grad=True)
    given = (None, x, weight, bias) if with_weight else (y, x, None, None)
    torch.library.opcheck(compiled_change, (*given, factors, 0.5))
    gradients_of = (torch.randn(2, 4, rows, dtype=torch.float64), x.detach(), weight if with_weight else None)
    torch.library.opcheck(torch.ops.structmat.change_gradients, (*gradients_of, [f.detach() for f in factors], 0.5))
    empty = compiled_change(*(each[:0] if each is x or each is y else each for each in given), factors, 0.5)
    assert empty.shape == (0, 4, rows)
    empty.sum().backward()
    assert not x.grad.any()


@compiler
def test_compiled_layers_run_it_and_keep_nothing_else():
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(6, 4)))
    graphs = []

    def backend(graph, _):
        graphs.append(graph.code)
        return graph.forward

    x = torch.randn(3, 6, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x), layer(x))
    assert "structmat.add_change" in graphs[0]
    assert "structmat" not in torch.export.export(layer, (x,)).graph_module.code
    traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
    traced(x)
    assert kept_bytes(lambda: traced(x), x, *layer.parameters())[0] == 0


@compiler
@modes
def test_backward_passes_inside_of_a_compiled_function(mode):
    """Compilers run a graph for the first time under rules of their own, which lazy conjugates do not survive."""
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(8, 8, dtype=torch.float64), mode=mode, n_factors=5))
    x = torch.randn(4, 8, dtype=torch.float64)
    wanted = torch.autograd.grad(layer(x).square().sum(), list(layer.adapters.parameters()))

    with torch._dynamo.config.patch(compiled_autograd=True), quietly():
        step = torch.compile(lambda: layer(x).square().sum().backward(), backend="aot_eager")
        for _ in range(2):
            layer.zero_grad()
            step()
            for factor, gradient in zip(layer.adapters.parameters(), wanted, strict=True):
                torch.testing.assert_close(factor.grad, gradient)


@compiler
@modes
@pytest.mark.parametrize("sizes", [(6, 10), (6, 6)])
def test_compiled_layers_take_empty_batches(sizes, mode):
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(*sizes), mode=mode))
    x = torch.randn(0, 6, requires_grad=True)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert y.shape == (0, sizes[1])
    y.sum().backward()
    assert not any(p.grad.any() for p in layer.adapters.parameters())


@compiler
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rows", [3, 40])  # with a matrix unit, transforms and matrices
def test_compiled_layers_do_the_same_under_autocast(fused, rows):
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(16, 12)))
    if not fused:
        layer.base.weight.requires_grad_()
    x = torch.randn(rows, 16, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        expected, y = layer(x), compiled(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    trained = [x, *(p for p in layer.parameters() if p.requires_grad)]
    wanted, got = (torch.autograd.grad(out.float().square().sum(), trained) for out in (expected, y))
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)
