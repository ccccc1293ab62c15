"""Vectors of adapters in four or eight bits a number, and folders of them."""

from __future__ import annotations

import copy
import json
import math

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from structmat._adapter_format import factor_key
from structmat.torch import AdapterBank, adapt, load_adapter, save_adapter
from structmat.torch._files.low_bits import packed_state, rounded, unpacked_state
from tests.torch.common import fill, mlp

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST = factor_key("0", 0)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def example(n=64):
    """Vectors as they are before, in and after training, with large numbers, and with none."""
    normal = torch.randn(6, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 30
    signs = normal[2:4].sign() / 30
    large = normal[5:].clone()
    large[0, 0] = 2.0
    return torch.cat((normal[:2], signs, signs[:1] + normal[4:5], large, torch.zeros_like(large)))


def nearest_multiples(vector, scale, largest):
    return (vector / scale).round().clamp(-largest, largest) * scale


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_numbers_are_the_nearest_multiples_of_the_best_scale(bits):
    vectors, largest = example(), 2 ** (bits - 1) - 1
    places = 2 ** (8 - bits)
    for vector, own in zip(vectors, rounded(vectors, bits), strict=True):
        top = vector.abs().max().item()
        scales = [math.ldexp(1 + k / places, math.frexp(top)[1] - e) for e in range(10) for k in range(places)]
        reaching = min(scale for scale in scales if largest * scale >= top)
        tried = [nearest_multiples(vector, scale, largest) for scale in scales if scale <= reaching]
        least = min((each - vector).square().sum().item() for each in tried)
        assert (own - vector).square().sum().item() == pytest.approx(least, rel=1e-5)
        assert any(torch.equal(own, each) for each in tried)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounded_vectors_are_the_same_in_every_dtype_and_rounded_to_themselves(bits):
    wide = rounded(example().float(), bits)
    for dtype in DTYPES:
        own = wide.to(dtype)
        assert torch.equal(own.float(), wide)
        assert torch.equal(rounded(own, bits), own)
        assert rounded(own, bits).dtype == dtype


def test_each_vector_of_a_stack_has_a_scale_of_its_own():
    grids = example().reshape(7, 2, 2, 16)
    alone = torch.stack([rounded(row) for row in grids.reshape(-1, 16)])
    assert torch.equal(rounded(grids).reshape(-1, 16), alone)


def test_extreme_numbers_stay_finite():
    vectors = torch.tensor([[1e-42, -3e-40, 0.0], [3e38, -3e38, 1.0], [1e-24, -7e-24, 3e-24]])
    own = rounded(vectors)
    assert own[0].tolist() == [0.0, 0.0, 0.0]
    errors = (own[1:].double() - vectors[1:]).norm(dim=1) / vectors[1:].double().norm(dim=1)
    assert (errors < 0.1).all()
    assert torch.equal(rounded(own), own)


# ---- files


def trained(dtype=torch.float32, **options):
    """An adapted model with random vectors of odd lengths, and a head, beside a copy of it that is not adapted."""
    plain = mlp((6, 9, 5), dtype)
    model = copy.deepcopy(plain)
    adapt(model, ["0"], train=["2"], **options)
    return fill(model), plain


@pytest.mark.parametrize("bits", [4, 8])
def test_files_hold_the_rounded_numbers_of_tensors_of_any_shape(bits):
    shapes = [(1,), (6,), (7,), (2, 3, 5), (4, 1, 2, 8)]
    vectors = {factor_key("a", i): torch.randn(shape) for i, shape in enumerate(shapes)}
    beside = {"count": torch.arange(9, dtype=torch.uint8), "head": torch.randn(3)}
    packed = packed_state(vectors | beside, bits, "test")
    for (key, tensor), shape in zip(vectors.items(), shapes, strict=True):
        length = shape[-1] if bits == 8 else (shape[-1] + 1) // 2
        assert (packed[key].shape, packed[key].itemsize) == ((*shape[:-1], 2 + length), 1)
        read, wanted = unpacked_state(packed, "test")[key].float(), rounded(tensor, bits)
        assert torch.equal(read.view(torch.int32), wanted.view(torch.int32))  # also the sign of a zero
    assert all(unpacked_state(packed, "test")[key] is tensor for key, tensor in beside.items())


@pytest.mark.parametrize(
    ("bits", "dtype", "options"),
    [
        (4, torch.float32, {"n_factors": 5}),
        (8, torch.float32, {"block_size": 3}),
        (4, torch.bfloat16, {}),
        (4, torch.float64, {"block_size": "toeplitz"}),
    ],
)
def test_every_model_loads_the_rounded_numbers_and_saves_the_same_file(bits, dtype, options, tmp_path):
    model, plain = trained(dtype, **options)
    folder = save_adapter(model, tmp_path / "a", bits=bits)
    assert load_adapter(plain, folder) == ["0"]
    for own, given in zip(plain[0].adapter.vectors, model[0].adapter.vectors, strict=True):
        assert own.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(own, rounded(given, bits))
    assert torch.equal(plain[2].weight, model[2].weight)
    again = save_adapter(plain, tmp_path / "b", bits=bits)
    assert [(again / name).read_bytes() for name in (WEIGHTS, CONFIG)] == [
        (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)
    ]


def test_a_bank_reads_and_writes_such_folders(tmp_path):
    model = mlp((6, 9, 5))
    adapt(model)
    folder = save_adapter(fill(model), tmp_path / "a", bits=4)
    load_adapter(model, folder)
    x = torch.randn(2, 6, dtype=torch.float64)
    wanted = model(x)
    model[0].adapter.reset_parameters()
    bank = AdapterBank(model)
    bank.add("a", folder)
    with bank.use(["a", "a"]):
        torch.testing.assert_close(model(x), wanted)
    again = bank.save("a", tmp_path / "again", bits=4)
    assert all((again / name).read_bytes() == (folder / name).read_bytes() for name in (WEIGHTS, CONFIG))
    with pytest.raises(ValueError, match=r"AdapterBank.save: bits must be 4, 8, or None.*got 5"):
        bank.save("a", tmp_path / "new", bits=5)


@pytest.mark.parametrize(("bits", "number"), [(3, 1.0), (4, 3.4e38)])
def test_nothing_is_written_where_bits_are_refused(bits, number, tmp_path):
    model, _ = trained()
    with torch.no_grad():
        model[0].adapter.vectors[1][0, 0, 0] = number
    with pytest.raises(ValueError, match=r"save_adapter: bits must be .*, got [34]"):
        save_adapter(model, tmp_path / "new", bits=bits)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda tensor: tensor[:2], r"holds \(2,\) bytes as .* that are no numbers of 4 bits"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([3]), 0x88), "no numbers of 4 bits"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([0, 1]), 0), "no numbers of 4 bits"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([0, 1]), 0x7F), "no numbers of 4 bits"),
        (lambda tensor: tensor[:-1], r"holds vectors \(\(8,\), .* the model has \(\(9,\)"),
        (lambda tensor: tensor.to(torch.int16), "has dtype torch.int16"),
    ],
)
def test_damaged_folders_are_refused(damage, text, tmp_path):
    model, plain = trained()
    folder = save_adapter(model, tmp_path / "a", bits=4)
    state = safetensors.load_file(folder / WEIGHTS)
    safetensors.save_file(state | {FIRST: damage(state[FIRST])}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"load_adapter: folder .*{text}"):
        load_adapter(plain, folder)


def test_folders_of_later_revisions_are_refused(tmp_path):
    model, plain = trained()
    folder = save_adapter(model, tmp_path / "a", bits=4)
    config = json.loads((folder / CONFIG).read_text())
    assert config["bits"] == 4
    (folder / CONFIG).write_text(json.dumps(config | {"bits": 3}))
    with pytest.raises(ValueError, match=r"load_adapter: folder .* bits must be 4, 8, or None .*got 3"):
        load_adapter(plain, folder)
