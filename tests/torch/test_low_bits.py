"""Vectors of adapters in four or eight bits a number, and folders of them."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def scales_of(bits):
    """Every normal number of bfloat16; with four bits and fewer, those of so few places that products fit."""
    numbers = torch.arange(0x0080, 0x7F80, 1 if bits > 4 else 2 ** (bits - 1), dtype=torch.int32)
    return (numbers << 16).view(torch.float32).double()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_numbers_are_the_nearest_multiples_of_the_best_scale(bits):
    largest, scales = 2 ** (bits - 1) - 1, scales_of(bits)
    for vector, own in zip(example(), rounded(example(), bits), strict=True):
        top = vector.abs().max()
        # Those by which the largest number has the largest code, and all codes are used.
        tried = scales[(top / scales).round() >= largest][:, None] if top else scales[:1, None]
        multiples = (vector / tried).round().clamp(-largest, largest) * tried
        errors = (multiples - vector).square().sum(-1)
        assert torch.equal(own, multiples[errors == errors.min()][-1])


@pytest.mark.parametrize(("bits", "n", "most"), [(4, 64, 1.3), (4, 384, 1.01), (8, 64, 1.6), (8, 384, 1.2)])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-33, 30))
def test_errors_are_little_larger_than_with_any_scale(bits, n, most, seed, exponent):
    # Among 1,600 vectors each the largest ratios are 1.12, 1.001, 1.29 and 1.10.
    vectors = torch.randn(4, n, generator=torch.Generator().manual_seed(seed))
    vectors[2:, 0] *= 20
    vectors = (10.0**exponent * vectors.double()).float()
    largest, wide = 2 ** (bits - 1) - 1, vectors.double()[:, None]
    top = float(wide.abs().max())
    scales = scales_of(bits)
    scales = scales[(scales > top / largest / 40) & (scales < top / largest * 4)][:, None]
    multiples = (wide / scales).round().clamp(-largest, largest) * scales
    best = (multiples - wide).norm(dim=-1).amin(-1)
    assert ((rounded(vectors, bits).double() - wide[:, 0]).norm(dim=-1) <= most * best).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_rounded_vectors_are_the_same_in_every_dtype_and_rounded_to_themselves(bits):
    wide = rounded(example().float(), bits)
    for dtype in DTYPES if bits <= 4 else DTYPES[:2]:
        own = wide.to(dtype)
        assert torch.equal(own.float(), wide)
        assert torch.equal(rounded(own, bits), own)
        assert rounded(own, bits).dtype == dtype


def test_each_vector_of_a_stack_has_a_scale_of_its_own():
    grids = example().reshape(7, 2, 2, 16)
    alone = torch.stack([rounded(row) for row in grids.reshape(-1, 16)])
    assert torch.equal(rounded(grids).reshape(-1, 16), alone)


def test_extreme_numbers_stay_finite():
    vectors = torch.tensor([[1e-42, -3e-40, 0.0], [3.3e38, -3e38, 1.0], [1e-24, -7e-24, 3e-24], [1e-35, -9e-35, 0.0]])
    for bits in (4, 8):
        own = rounded(vectors, bits)
        assert own[0].tolist() == [0.0, 0.0, 0.0]
        errors = (own[1:].double() - vectors[1:]).norm(dim=1) / vectors[1:].double().norm(dim=1)
        assert (errors < (0.1 if bits == 4 else 0.006)).all()
        assert torch.equal(rounded(own, bits), own)


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


def test_bytes_mean_the_same_numbers_for_good():
    """As files have them: the scale in bfloat16, the low byte first, and the codes, of four bits in halves of bytes."""
    key = factor_key("a", 1)
    for scale, low, high in ((2.0**-5, 0x00, 0x3D), (2.0**-5 * 1.5, 0x40, 0x3D), (2.0**-99, 0x00, 0x0E)):
        eight = torch.tensor([low, high, -127, 0, 5], dtype=torch.int8)
        four = torch.tensor([low, high, 0x97, 0x80], dtype=torch.uint8)
        for packed, codes in ((eight, [-127, 0, 5]), (four, [7, -7, 0])):
            read = unpacked_state({key: packed}, "test")[key]
            assert torch.equal(read, torch.tensor(codes, dtype=torch.float64).mul(scale).float())


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
    for own, exact in zip(plain[0].adapter.vectors, model[0].adapter.vectors, strict=True):
        assert own.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(own, rounded(exact, bits))
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
