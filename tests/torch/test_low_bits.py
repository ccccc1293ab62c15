"""Vectors of adapters in four bits a number."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from structmat.torch._files.low_bits import rounded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def example(n=64):
    """Vectors as they are before, in and after training, with large numbers, and with none."""
    normal = torch.randn(6, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 30
    signs = normal[2:4].sign() / 30
    large = normal[5:].clone()
    large[0, 0] = 2.0
    return torch.cat((normal[:2], signs, signs[:1] + normal[4:5], large, torch.zeros_like(large)))


def errors_by(scale, vector, largest):
    return (vector - (vector / scale).round().clamp(-largest, largest) * scale).square().sum().item()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_numbers_are_the_nearest_multiples_of_the_best_scale(bits):
    vectors, largest = example(), 2 ** (bits - 1) - 1
    places = 2 ** (8 - bits)
    for vector, own in zip(vectors, rounded(vectors, bits), strict=True):
        top = vector.abs().max().item()
        scales = [math.ldexp(1 + k / places, math.frexp(top)[1] - e) for e in range(6) for k in range(places)]
        reaching = min(scale for scale in scales if largest * scale >= top)
        least = min(errors_by(scale, vector, largest) for scale in scales if scale <= reaching)
        assert (own - vector).square().sum().item() == pytest.approx(least, rel=1e-5)
        if top > 0:
            scale = own.abs().max() / largest
            assert torch.equal(own, (vector / scale).round().clamp(-largest, largest) * scale)


def test_rounded_vectors_are_the_same_in_every_dtype_and_rounded_to_themselves():
    wide = rounded(example().float())
    for dtype in DTYPES:
        own = wide.to(dtype)
        assert torch.equal(own.float(), wide)
        assert torch.equal(rounded(own), own)
        assert rounded(own).dtype == dtype


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
