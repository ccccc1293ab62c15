"""The one way from changes to vectors: layers in memory, in files, by many workers."""

from __future__ import annotations

import numpy as np
import pytest

from structmat._layer_fits.changes import Computed, Stored
from structmat._layer_fits.layers import LayerTask, OtherWeights, fit_layers
from structmat._layer_fits.table import FittedLayer, FittedLayers
from structmat.io import Checkpoint, CheckpointError
from structmat.operators import CDDProduct

W = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")


def change(values, name="layer"):
    return Computed(name, values.shape, str(values.dtype), values.copy)


def outcomes(tasks, **options):
    found = {}
    fit_layers(tasks, found.__setitem__, **options)
    return found


@pytest.mark.parametrize("options", [{}, {"block_size": 2}, {"n_factors": 5}, {"alpha": 0.5}, {"transposed": True}])
def test_the_vectors_are_those_of_the_product(options):
    found = outcomes({"layer": LayerTask("layer", change(W), **options)})["layer"]
    vectors = [found.arrays[str(i)].astype(float) for i in range(options.get("n_factors", 3))]
    product = options.get("alpha", 1.0) * CDDProduct.from_vectors(*vectors, block=True).to_dense()
    want = W.T if options.get("transposed") else W
    error = np.linalg.norm(want - product) / np.linalg.norm(want)
    assert error == pytest.approx(found.values["error"], rel=1e-4)
    row = FittedLayer.of(found.values)
    assert (row.rows, row.cols, row.dtype) == (*want.shape, "float32")
    assert row.n_parameters == sum(v.size for v in vectors)
    assert row.svd_parameters <= row.n_parameters


def test_the_same_layer_gives_the_same_vectors_from_memory():
    torch = pytest.importorskip("torch")
    checkpoint = Checkpoint.in_memory({"layer.weight": torch.from_numpy(W)}, "model")
    entry = checkpoint.entry("layer.weight")
    one = outcomes({"layer": LayerTask("layer", change(W))})["layer"]
    other = outcomes({"layer": LayerTask("layer", Stored(entry))})["layer"]
    assert one.values == other.values
    for name, vector in one.arrays.items():
        np.testing.assert_array_equal(vector, other.arrays[name])


def test_faults_stop_or_are_handed_over():
    bad = np.full((2, 2), np.nan)
    tasks = {"bad": LayerTask("bad", change(bad, "bad")), "flat": LayerTask("flat", change(np.ones(3), "flat"))}
    with pytest.raises(CheckpointError, match="bad: the change holds NaN or infinity"):
        outcomes(tasks)
    found = outcomes({**tasks, "layer": LayerTask("layer", change(W))}, skip_bad=True)
    assert "flat must be a matrix, got shape (3,)" in found["flat"].fault
    assert found["layer"].values["error"] < 1
    large = LayerTask("layer", change(W), block_size=99)
    with pytest.raises(CheckpointError, match=r"layer: .*block_size must be at most rows \+ cols - 1"):
        outcomes({"layer": large})


def test_weights_in_memory_are_compared_bit_for_bit():
    torch = pytest.importorskip("torch")
    base = {"a": torch.zeros(3), "b": torch.arange(4), "c": torch.ones(2).bfloat16()}
    tuned = {"a": torch.zeros(3), "b": torch.arange(4) + 1, "c": torch.ones(2).bfloat16()}
    old, new = Checkpoint.in_memory(base, "base"), Checkpoint.in_memory(tuned, "tuned")
    pairs = tuple((new.entry(key), old.entry(key)) for key in base)
    assert outcomes({"others": OtherWeights(pairs)})["others"].values == {"changed": ["b"]}
    with pytest.raises(CheckpointError, match="tuned has no weight d"):
        new.entry("d")


def test_the_table_sums_up_by_norms():
    class Table(FittedLayers):
        layers = (FittedLayer("a", 2, 3, "float32", 3.0, 0.5, 8, 2), FittedLayer("b", 2, 2, "float32", 4.0, 0.0, 6, 2))
        left_out = ("norm",)

    table = Table()
    assert (table.error, table.n_parameters) == (pytest.approx(1.5 / 5), 14)
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines] == ["layer", "a", "b", "all", "tuned"]
