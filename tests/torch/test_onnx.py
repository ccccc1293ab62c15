"""Files for ONNX Runtime by both exporters of torch, and traced modules."""

from __future__ import annotations

import io
import warnings

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import adapters_per_sample
from structmat.torch._adapter.change import Working, change_rows, change_rows_by_matrices
from tests.torch.common import adapter, compiler, fill
from tests.torch.layers import input_of, kinds, layer_of

FORMS = [(5, 5, "min", 3), (5, 7, "min", 3), (7, 5, 3, 5), (8, 12, 4, 5)]

forms = pytest.mark.parametrize(("rows", "cols", "block", "n_factors"), FORMS)


@forms
def test_dense_circulants_give_what_transforms_give(rows, cols, block, n_factors):
    factors = list(adapter(rows, cols, block_size=block, n_factors=n_factors).factors)
    x = torch.randn(4, cols, dtype=torch.float64)
    h, scale, _ = change_rows(x, Working.of(factors, 0.5, x.dtype))
    torch.testing.assert_close(change_rows_by_matrices(x, factors, 0.5, x.dtype), h * scale)


def quiet_trace(layer, x):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.*` is (deprecated|not supported)", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(layer, (x,), check_trace=False)


@kinds
def test_a_traced_layer_is_saved_with_its_change(kind):
    layer, base = layer_of(kind, dtype=torch.float32)
    layer.add_adapter("second", **({} if kind == "embedding" else {"block_size": 3}))
    fill(layer.eval())
    x = input_of(kind, torch.float32)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.*` is (deprecated|not supported)", DeprecationWarning)
        torch.jit.save(quiet_trace(layer, x[:3]), file)
        file.seek(0)
        loaded = torch.jit.load(file)
    torch.testing.assert_close(loaded(x), layer(x))  # also for another number of rows
    assert not torch.allclose(loaded(x), base(x))


@compiler
@pytest.mark.parametrize("dynamo", [False, True])
@forms
def test_onnx_runtime_computes_the_change(tmp_path, rows, cols, block, n_factors, dynamo):
    layer, _ = layer_of("linear", dtype=torch.float32)
    base = torch.nn.Linear(cols, rows)
    layer = fill(type(layer).from_linear(base, block_size=block, n_factors=n_factors)).eval()
    check(layer, torch.randn(4, 3, cols), tmp_path / "layer.onnx", dynamo=dynamo)


@compiler
@pytest.mark.parametrize("side", [96, 128])
def test_onnx_runtime_is_exact_for_long_circulants_too(tmp_path, side):
    layer, _ = layer_of("linear", dtype=torch.float32)
    layer = type(layer).from_linear(torch.nn.Linear(side, side), n_factors=5, init="normal").eval()
    check(layer, torch.randn(4, side), tmp_path / "layer.onnx", dynamo=True)


@compiler
@pytest.mark.parametrize("dynamo", [False, True])
@kinds
def test_onnx_files_of_every_kind_of_layer(tmp_path, kind, dynamo):
    layer, _ = layer_of(kind, dtype=torch.float32)
    layer.add_adapter("second")
    check(fill(layer.eval()), input_of(kind, torch.float32), tmp_path / "layer.onnx", dynamo=dynamo)


@compiler
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_files_of_merged_and_selected_adapters(tmp_path, dynamo):
    layer, _ = layer_of("linear", dtype=torch.float32)
    x = input_of("linear", torch.float32)
    with fill(layer.eval()).merged():
        check(layer, x, tmp_path / "merged.onnx", dynamo=dynamo)
    with adapters_per_sample(layer, ["default", None, "default", None]):
        check(layer, x, tmp_path / "selected.onnx", dynamo=dynamo, dynamic=False)


@compiler
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_files_of_a_model_of_peft(tmp_path, dynamo):
    peft = pytest.importorskip("peft")
    from structmat.peft import CDDConfig

    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4))
    model = peft.get_peft_model(model, CDDConfig(target_modules=["0", "2"], init_weights=False)).eval()
    check(model.base_model.model, torch.randn(4, 6), tmp_path / "model.onnx", dynamo=dynamo)


def check(layer, x, path, *, dynamo, dynamic=True):
    """Export with a dynamic first axis, run, compare."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"dynamic_axes": {"x": {0: "rows"}}, "input_names": ["x"]}
        if dynamo:
            axes = {"dynamic_shapes": ({0: torch.export.Dim("rows")},), "verbose": False}
        torch.onnx.export(layer, (x,), path, dynamo=dynamo, **(axes if dynamic else {"verbose": False}))
    session = runtime.InferenceSession(path)
    name = session.get_inputs()[0].name
    for given in (x, torch.cat([x, x[:1]])) if dynamic else (x,):
        (found,) = session.run(None, {name: given.numpy()})
        expected = layer(given).detach()
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
