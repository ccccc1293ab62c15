"""The safetensors format: every dtype that it and NumPy share makes the round trip, and as the library writes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structmat._files.safetensors import CODES, SafetensorsFile, Tensor, to_bytes
from structmat.studies import WorkFolder

library = pytest.importorskip("safetensors.numpy")

NUMPY = sorted(set(CODES) - {"bfloat16"})
LIBRARY = set(NUMPY) - {"complex64"}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@pytest.mark.parametrize("dtype", NUMPY)
def test_every_dtype_makes_the_round_trip(tmp_path_factory, dtype):
    path = tmp_path_factory.mktemp("files") / "file.safetensors"

    @given(hnp.arrays(dtype, SHAPES))
    def round_trip(array):
        path.write_bytes(to_bytes({"array": Tensor.of(array), "other": Tensor.of(np.ones(3, "uint8"))}, {"a": "b"}))
        file = SafetensorsFile.open(path)
        tensor = file.tensors["array"]
        assert (tensor.dtype, tensor.shape, tensor.itemsize) == (dtype, array.shape, array.itemsize)
        assert file.metadata == {"a": "b"}
        found = tensor._replace(data=file.data("array")).values()
        assert (found.dtype, found.flags.writeable) == (array.dtype, True)
        assert found.tobytes() == array.tobytes()  # every NaN and zero too
        if array.ndim and len(array):
            np.testing.assert_array_equal(file.rows("array", 0, len(array)).values(), array)
        if dtype in LIBRARY:
            np.testing.assert_array_equal(library.load_file(path)["array"], array)

    round_trip()


@given(st.lists(st.tuples(st.sampled_from(NUMPY), SHAPES), max_size=6))
def test_values_are_aligned_where_files_are_mapped(drawn):
    """The header ends at a multiple of eight bytes, and wide numbers come before narrow ones."""
    arrays = {f"{k}": np.zeros(shape, dtype) for k, (dtype, shape) in enumerate(drawn)}
    content = to_bytes({name: Tensor.of(array) for name, array in arrays.items()}, {"a": "b"})
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, array in arrays.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0


@given(bits=hnp.arrays("uint16", hnp.array_shapes(max_dims=2, max_side=4)))
def test_bfloat16_is_read_as_the_upper_half_of_float32(tmp_path_factory, bits):
    path = tmp_path_factory.getbasetemp() / "bf16.safetensors"
    path.write_bytes(to_bytes({"x": Tensor("BF16", bits.shape, bits.astype("<u2").tobytes())}, {}))
    file = SafetensorsFile.open(path)
    found = file.tensors["x"]._replace(data=file.data("x")).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)


@given(st.sampled_from(NUMPY), SHAPES)
def test_big_endian_arrays_are_stored_as_little_ones(dtype, shape):
    array = np.ones(shape, np.dtype(dtype).newbyteorder(">"))
    assert Tensor.of(array) == Tensor.of(array.astype(dtype))


def test_records_of_studies_hold_every_dtype(tmp_path):
    arrays = {dtype: np.arange(3).astype(dtype) for dtype in NUMPY}
    with WorkFolder.open(tmp_path / "out", {}) as folder:
        folder.write("unit", {}, arrays)
        found = folder.read("unit").arrays
    for dtype, array in arrays.items():
        assert found[dtype].dtype == array.dtype
        np.testing.assert_array_equal(found[dtype], array)
