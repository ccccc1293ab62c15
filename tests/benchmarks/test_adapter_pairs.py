"""`benchmarks/adapter_pairs.py`: that its products and its ways to clip are what their names say."""

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")


@pytest.fixture
def methods(modules):
    return modules("_pair_methods")


def test_products_of_diagonals_and_circulants_are_those_of_an_adapted_layer(methods):
    from structmat.torch import CDDLinear

    torch.manual_seed(0)
    base = torch.nn.Linear(12, 12)
    layer = CDDLinear.from_linear(base, block_size=4)
    product = methods.Product(base, "DCD", 4)
    x = torch.randn(5, 12)
    assert torch.equal(product(x), base(x))
    with torch.no_grad():
        for own, vector in zip(product.vectors, layer.adapter.vectors, strict=True):
            vector.normal_()
            own.copy_(vector.reshape(own.shape))
    assert tuple(product.scales) == layer.adapter.scales
    assert torch.allclose(product(x), layer(x), atol=1e-5)


@pytest.mark.parametrize(("kinds", "block"), [("CDC", 12), ("DC", 6)])
def test_products_have_three_numbers_a_column_and_their_first_factor_learns(methods, kinds, block):
    torch.manual_seed(0)
    base = torch.nn.Linear(12, 12).requires_grad_(requires_grad=False)
    product, x = methods.Product(base, kinds, block), torch.randn(5, 12)
    assert sum(vector.numel() for vector in product.vectors) == 36
    product(x).square().sum().backward()
    assert product.vectors[0].grad.norm() > 0


def gradients(scale=1.0):
    """Parameters of an adapter and of a head, with the gradients that a loss has for them."""
    torch.manual_seed(1)
    adapter, head = ([torch.zeros(4, requires_grad=True) for _ in range(2)] for _ in range(2))
    for factor, p in zip((30 * scale, 2 * scale, 1.0, 1.0), (*adapter, *head), strict=True):
        p.grad = factor * torch.randn(4)
    return adapter, head


def norm(parameters):
    return float(torch.stack([p.grad.norm() for p in parameters]).norm())


def test_clipped_apart_the_head_does_not_depend_on_the_adapter(methods):
    adapter, head = gradients()
    methods.clip_apart(adapter, head)
    assert (norm(adapter), norm(head)) == pytest.approx((1, 1), rel=1e-4)


def test_the_norm_of_the_factors_is_that_of_vectors_that_are_stored_as_they_are(methods):
    """With the scales in the rates of Adam in place of the vectors, clipped together, it takes the same steps."""
    scaled, plain = gradients(), gradients()
    scales = (30.0, 2.0)
    for vector, scale in zip(plain[0], scales, strict=True):
        vector.grad /= scale
    before = [p.grad.clone() for p in scaled[0]]
    methods.clip_by_factors(scales, *scaled)
    torch.nn.utils.clip_grad_norm_([*plain[0], *plain[1]], 1.0)
    for vector, own, scale in zip(scaled[0], plain[0], scales, strict=True):
        assert torch.allclose(vector.grad, scale * own.grad)
    for own, other in zip(scaled[1], plain[1], strict=True):
        assert torch.allclose(own.grad, other.grad)
    assert not torch.equal(scaled[0][0].grad, before[0])


def test_methods_without_clipping_leave_gradients(methods):
    adapter, head = gradients()
    expected = copy.deepcopy([p.grad for p in (*adapter, *head)])
    methods.clip_not(adapter, head)
    assert all(torch.equal(p.grad, g) for p, g in zip((*adapter, *head), expected, strict=True))
