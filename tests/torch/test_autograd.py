"""The one operation: its values, gradients of every order, chunks, dtypes, and what it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from structmat.operators import CDDLayout
from structmat.torch import CDDLinear
from structmat.torch._changes import dense as dense_changes
from structmat.torch._changes import operation
from structmat.torch._changes import rows as row_changes
from structmat.torch._changes.operation import apply_change
from tests.torch.common import adapter, dense, factors_of, kept_bytes

SHAPES = [
    ((4, 4), 4, 3),
    ((5, 7), 3, 3),
    ((7, 4), 4, 3),
    ((4, 9), 4, 5),
    ((9, 4), 2, 5),
    ((6, 6), 6, 7),
    ((3, 5), 5, 7),
    ((1, 1), 1, 3),
    ((2, 3), 1, 3),
]
layers = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*map(st.just, shape), st.integers(1, max(shape)), st.sampled_from([3, 5, 7]))
)
leads = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def add_change(y, x, vectors, gain):
    return apply_change(y, x, None, None, vectors, gain)


def linear_with_change(x, weight, bias, vectors, gain):
    return apply_change(None, x, weight, bias, vectors, gain)


@pytest.fixture
def tiny_chunks(monkeypatch):
    """Chunks of 16 rows, the least that there are."""
    monkeypatch.setattr(row_changes, "_CHUNK", 1)


def drawn(shape, block, n_factors, lead=(2, 3), dtype=torch.float64):
    made = adapter(*shape, block_size=block, n_factors=n_factors, dtype=dtype)
    x = torch.randn(*lead, shape[1], dtype=dtype, requires_grad=True)
    y = torch.randn(*lead, shape[0], dtype=dtype, requires_grad=True)
    weight, bias = torch.randn(shape, dtype=dtype), torch.randn(shape[0], dtype=dtype)
    vectors = [torch.randn_like(vector).requires_grad_() for vector in made.vectors]
    return vectors, x, y, weight, bias


@settings(max_examples=30)
@given(layer=layers, lead=leads, alpha=st.sampled_from([1.0, -0.7, 0.0]))
def test_values_and_gradients_are_those_of_the_dense_matrix(layer, lead, alpha):
    m, n, block, n_factors = layer
    f, x, y, weight, bias = drawn((m, n), block, n_factors, lead)
    W = dense(f, m, n, alpha)
    change = x.detach() @ W.T
    generic, fused = add_change(y, x, f, alpha), linear_with_change(x, weight, bias, f, alpha)
    torch.testing.assert_close(generic.detach(), y.detach() + change)
    torch.testing.assert_close(fused.detach(), x.detach() @ weight.T + bias + change)

    dy = torch.randn_like(generic)
    of_generic = torch.autograd.grad(generic, (y, x, *f), dy)
    of_fused = torch.autograd.grad(fused, (x, *f), dy)
    torch.testing.assert_close(of_generic[0], dy)
    torch.testing.assert_close(of_generic[1], dy @ W)
    torch.testing.assert_close(of_fused[0], dy @ (W + weight))
    for a, b in zip(of_generic[2:], of_fused[1:], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("tiny_chunks")
@pytest.mark.parametrize(
    ("shape", "block", "n_factors", "n_rows"), [*((*each, 2) for each in SHAPES), ((3, 2), 2, 3, 18)]
)  # the last ones are two chunks
def test_gradients_and_second_gradients(shape, block, n_factors, n_rows):
    f, x, y, weight, bias = drawn(shape, block, n_factors, (n_rows,))

    def generic(y, x, *f):
        return add_change(y, x, f, 0.7)

    def fused(x, *f):
        return linear_with_change(x, weight, bias, f, 0.7)

    for function, inputs in ((generic, (y, x, *f)), (fused, (x, *f))):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=n_rows > 2)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=n_rows > 2)


@pytest.mark.usefixtures("tiny_chunks")
@pytest.mark.parametrize("n_rows", [15, 16, 17, 49, 64])
def test_chunks_do_not_show(n_rows):
    f, x, y, weight, bias = drawn((5, 7), 3, 5, (n_rows,))
    assert row_changes.Working.of(f, 0.7, x, y).chunk == 16
    W, dy = dense(f, 5, 7, 0.7), torch.randn(n_rows, 5, dtype=torch.float64)
    out = linear_with_change(x, weight, bias, f, 0.7)
    torch.testing.assert_close(out.detach(), x.detach() @ (W + weight).T + bias)
    got = torch.autograd.grad(out, (x, *f), dy)
    by_generic = torch.autograd.grad(add_change(y, x, f, 0.7), (x, *f), dy)
    whole = operation._plainly(y, x, None, None, f, 0.7)
    reference = torch.autograd.grad(whole, (x, *f), dy)
    torch.testing.assert_close(got[0], reference[0] + dy @ weight)
    for a, b, c in zip(got[1:], by_generic[1:], reference[1:], strict=True):
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(b, c)


@pytest.mark.parametrize(("shape", "block", "n_factors"), SHAPES[::2])
@pytest.mark.parametrize("chunk", [1, 2**17])
def test_samples_with_changes_of_their_own_are_those_computed_alone(shape, block, n_factors, chunk, monkeypatch):
    monkeypatch.setattr(row_changes, "_CHUNK", chunk)
    monkeypatch.setattr(row_changes, "_ALONE", chunk)
    several = [drawn(shape, block, n_factors)[0] for _ in range(3)]
    stacks = [torch.stack([v.detach() for v in each]).requires_grad_() for each in zip(*several, strict=True)]
    _, _, _, weight, bias = drawn(shape, block, n_factors)
    numbers, alphas = torch.tensor([2, 0, 0, 2]), torch.tensor([1.0, 5.0, -0.4], dtype=torch.float64)
    for lead in ((4,), (4, 3), (4, 2, 17)):
        x = torch.randn(*lead, shape[1], dtype=torch.float64, requires_grad=True)
        y = torch.randn(*lead, shape[0], dtype=torch.float64, requires_grad=True)
        dy = torch.randn_like(y)
        samples = row_changes.Samples(numbers, alphas[numbers])
        for inputs in ((y, None, None), (None, weight, bias)):
            wanted = [each for each in (inputs[0], x, *stacks) if each is not None]
            out = apply_change(inputs[0], x, *inputs[1:], stacks, 0.7, samples)
            parts = []
            for i, number in enumerate(numbers):
                own, gain = [stack[number] for stack in stacks], 0.7 * alphas[number].item()
                own_y = None if inputs[0] is None else inputs[0][i][None]
                parts.append(apply_change(own_y, x[i][None], *inputs[1:], own, gain))
            expected = torch.cat(parts)
            torch.testing.assert_close(out, expected)
            plain = operation._plainly(inputs[0], x, *inputs[1:], stacks, 0.7, samples)
            torch.testing.assert_close(plain, expected)
            reference = torch.autograd.grad(expected, wanted, dy)
            for outputs in (out, plain):
                for a, b in zip(torch.autograd.grad(outputs, wanted, dy), reference, strict=True):
                    torch.testing.assert_close(a, b)
            with torch.no_grad():  # nothing is kept that a change of a vector does not reach
                for _ in range(2):
                    torch.testing.assert_close(apply_change(inputs[0], x, *inputs[1:], stacks, 0.7, samples), expected)
                stacks[1][2].zero_()
                changed = apply_change(inputs[0], x, *inputs[1:], stacks, 0.7, samples)
                assert not torch.allclose(changed[0], expected[0])
                stacks[1][2].copy_(several[2][1])


def test_second_gradients_of_samples_with_changes_of_their_own():
    several = [drawn((3, 5), 2, 3)[0] for _ in range(2)]
    stacks = [torch.stack([v.detach() for v in each]).requires_grad_() for each in zip(*several, strict=True)]
    _, x, y, *_ = drawn((3, 5), 2, 3, (3, 1))
    samples = row_changes.Samples(torch.tensor([1, 0, 1]), torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64))

    def function(y, x, *stacks):
        return apply_change(y, x, None, None, stacks, 0.7, samples)

    assert torch.autograd.gradcheck(function, (y, x, *stacks), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (y, x, *stacks), fast_mode=True)


@pytest.mark.parametrize(("shape", "rows", "chunk"), [
    ((384, 384), 64, 80),  # one chunk, as calls cost more than what leaves the cache
    ((384, 384), 512, 128),  # a quarter of the batch
    ((1536, 384), 512, 80),  # the widest tensor counts
    ((384, 1536), 512, 80),
    ((8192, 8192), 512, 16),
])  # fmt: skip
def test_chunks_stay_in_the_cache(shape, rows, chunk):
    vectors = [torch.empty(size) for size in CDDLayout(shape, 3, "min").vector_shapes]
    x, y = torch.empty(rows, shape[1]), torch.empty(rows, shape[0])
    found = row_changes.Working.of(vectors, 1.0, x, y).chunk
    assert found == chunk or torch.get_num_threads() > 2


@pytest.mark.parametrize("piece", [1, 60, 2**17])
@pytest.mark.parametrize(("shape", "block"), [((24, 24), 24), ((20, 33), 7), ((33, 20), 20), ((7, 9), 9)])
def test_many_rows_take_the_weight_plus_the_change(monkeypatch, shape, block, piece):
    """No digit is lost: the error is that of a product by a dense matrix in float32."""
    monkeypatch.setattr(dense_changes, "_PIECE", piece)
    f, x, _, weight, bias = drawn(shape, block, 3, (4, 10), torch.float32)
    assert row_changes._merges(x.flatten(0, 1), weight, f)
    W = weight.double() + dense(f, *shape, -0.7)
    out = linear_with_change(x, weight, bias, f, -0.7)
    sizes = x.detach().double().abs() @ W.abs().T + bias.abs()
    error = out.detach() - (x.detach().double() @ W.T + bias)
    assert (error.abs() <= 4 * torch.finfo(torch.float32).eps * sizes).all()
    few = [linear_with_change(rows, weight, bias, f, -0.7) for rows in x.flatten(0, 1).split(3)]
    torch.testing.assert_close(
        torch.cat(few).reshape(out.shape), out, rtol=0, atol=1e-5 * float(out.detach().abs().max())
    )


@in_one_test("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@in_one_test("shape, block", [((24, 24), "min"), ((20, 33), 7), ((33, 20), "min")])
def test_every_dtype_is_as_exact_as_it_can_be(dtype, shape, block):
    """Half precision is computed in float32 and rounded once: the error is that of the result's own rounding."""
    torch.manual_seed(0)
    made = adapter(*shape, block_size=block, dtype=dtype)
    x, y = torch.randn(40, shape[1], dtype=dtype, requires_grad=True), torch.randn(40, shape[0], dtype=dtype)
    out = made.add_to(y, x)
    W = dense(factors_of(made), *shape)
    expected = y.double() + x.detach().double() @ W.T
    assert out.dtype == dtype
    rounding = torch.finfo(dtype).eps * expected.abs()
    computing = 32 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps * expected.abs().max()
    assert ((out.detach().double() - expected).abs() <= rounding + computing).all()

    dy = torch.randn(40, shape[0], dtype=dtype)
    dx, *gradients = torch.autograd.grad(out, (x, *made.vectors), dy)
    wide = adapter(*shape, block_size=block)
    with torch.no_grad():
        for a, b in zip(wide.vectors, made.vectors, strict=True):
            a.copy_(b)
    x64 = x.detach().double().requires_grad_()
    reference = torch.autograd.grad(wide.add_to(y.double(), x64), (x64, *wide.vectors), dy.double())
    # The gradient through a frozen weight is rounded as torch rounds that of a linear layer; the change is added to it.
    weight = torch.randn(shape, dtype=dtype)
    fused = linear_with_change(x, weight, None, made.vectors.forward(), made.gain)
    (fused_dx,) = torch.autograd.grad(fused, x, dy)
    found, expected = (dx, fused_dx, *gradients), (reference[0], (dy @ weight).double() + reference[0], *reference[1:])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        computing = 64 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps * b.abs().max()
        assert ((a.double() - b).abs() <= torch.finfo(dtype).eps * b.abs() + computing).all()


def test_mixed_dtypes_follow_the_outputs():
    made = adapter(4, 6, dtype=torch.float32)
    x = torch.randn(3, 6, dtype=torch.bfloat16, requires_grad=True)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        y = torch.randn(3, 4, dtype=dtype, requires_grad=True)
        out = made.add_to(y, x)
        assert out.dtype == dtype
        dy, dx, *gradients = torch.autograd.grad(out.sum(), (y, x, *made.vectors))
        assert (dy.dtype, dx.dtype, {g.dtype for g in gradients}) == (dtype, torch.bfloat16, {torch.float32})


@pytest.mark.parametrize("lead", [(0,), (2, 0), (0, 3)])
def test_an_empty_batch_has_outputs_and_gradients(lead):
    f, x, y, weight, bias = drawn((4, 6), 4, 3, lead)
    for out in (add_change(y, x, f, 1.0), linear_with_change(x, weight, bias, f, 1.0)):
        assert out.shape == (*lead, 4)
        gradients = torch.autograd.grad(out.sum(), (x, *f))
        assert gradients[0].shape == x.shape
        assert not any(g.any() for g in gradients[1:])


@pytest.mark.parametrize("make", [
    lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    lambda t: torch.stack([t, t], -1)[..., 0],
    lambda t: t.flip(0),
    lambda t: t[:, :1].expand(t.shape),
])  # fmt: skip
def test_strides_do_not_matter(make):
    f, x, y, weight, bias = drawn((5, 7), 3, 3, (4, 6))
    xs, ys = make(x.detach()).requires_grad_(), make(y.detach()).requires_grad_()
    before = xs.detach().clone(), ys.detach().clone()
    plain_x, plain_y = (t.contiguous().requires_grad_() for t in before)
    for function in (
        lambda x, y: add_change(y, x, f, 0.7),
        lambda x, y: y + linear_with_change(x, weight, bias, f, 0.7),
    ):
        a, b = function(xs, ys), function(plain_x, plain_y)
        torch.testing.assert_close(a, b)
        dy = make(torch.randn(4, 6, 5, dtype=torch.float64))
        got, expected = torch.autograd.grad(a, (xs, ys, *f), dy), torch.autograd.grad(b, (plain_x, plain_y, *f), dy)
        for g, h in zip(got, expected, strict=True):
            torch.testing.assert_close(g, h)
    assert torch.equal(xs.detach(), before[0])
    assert torch.equal(ys.detach(), before[1])


def test_what_is_not_trained_gets_no_gradient():
    f, x, y, weight, bias = drawn((5, 7), 3, 5)
    everything = torch.autograd.grad(add_change(y, x, f, 0.7).square().sum(), (x, *f))
    for frozen in range(len(f)):
        own = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(f)]
        add_change(y.detach(), x.detach(), own, 0.7).square().sum().backward()
        for i, t in enumerate(own):
            if i == frozen:
                assert t.grad is None
            else:
                torch.testing.assert_close(t.grad, everything[1 + i])
    frozen = [t.detach() for t in f]
    assert not linear_with_change(x.detach(), weight, bias, frozen, 0.7).requires_grad
    (dy,) = torch.autograd.grad(add_change(y, x.detach(), frozen, 0.7).sum(), y, create_graph=True)
    assert (dy == 1).all()
    assert torch.autograd.gradgradcheck(lambda x: linear_with_change(x, weight, bias, frozen, 0.7), x)


@settings(max_examples=20)
@given(layer=layers)
def test_vmap_and_per_sample_gradients(layer):
    m, n, block, n_factors = layer
    f, _, _, weight, _ = drawn((m, n), block, n_factors)
    f = tuple(t.detach() for t in f)
    xs = torch.randn(5, 3, n, dtype=torch.float64)

    def loss(f, x):
        return linear_with_change(x, weight, None, f, 0.7).square().sum()

    mapped = torch.vmap(lambda x: linear_with_change(x, weight, None, f, 0.7))(xs)
    torch.testing.assert_close(mapped, linear_with_change(xs, weight, None, f, 0.7))
    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(f, xs)
    for i in range(5):
        for a, b in zip(per_sample, torch.func.grad(loss)(f, xs[i]), strict=True):
            torch.testing.assert_close(a[i], b)


def test_batches_of_gradients():
    f, x, y, weight, _ = drawn((5, 7), 3, 3)
    for out, inputs in ((linear_with_change(x, weight, None, f, 0.7), (x, *f)), (add_change(y, x, f, 0.7), (y, x, *f))):
        dys = torch.randn(4, *out.shape, dtype=torch.float64)
        batched = torch.autograd.grad(out, inputs, dys, is_grads_batched=True, retain_graph=True)
        for i in range(4):
            for a, b in zip(batched, torch.autograd.grad(out, inputs, dys[i], retain_graph=True), strict=True):
                torch.testing.assert_close(a[i], b)


def test_hessians_through_torch_func():
    f, x, _, weight, _ = drawn((3, 2), 2, 3, (2,))
    x, f = x.detach(), tuple(t.detach() for t in f)
    W = dense(f, 3, 2, 0.7) + weight

    def loss(x):
        return linear_with_change(x, weight, None, f, 0.7).square().sum()

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(x)
    expected = torch.einsum("ac,ij->aicj", torch.eye(2, dtype=torch.float64), 2 * W.T @ W)
    torch.testing.assert_close(hessian, expected)


def test_recomputing_keeps_nothing_but_the_input():
    f, x, y, weight, bias = drawn((8, 8), 8, 5, (40,))
    params = [*f, weight, bias]
    assert kept_bytes(lambda: linear_with_change(x, weight, bias, f, 1.0), x, *params)[0] == 0
    assert kept_bytes(lambda: add_change(y, x, f, 1.0), x, *params)[0] == 0
    turned = torch.randn(40, 3, 8, dtype=torch.float64).transpose(0, 1)
    assert kept_bytes(lambda: linear_with_change(turned, weight, bias, f, 1.0), turned, *params)[0] == 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch's own rules
@pytest.mark.parametrize("train", [False, True])
def test_derivatives_in_forward_mode(train):
    from torch.autograd import forward_ad

    change = adapter(5, 7).requires_grad_(requires_grad=train)
    x, dx = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    with forward_ad.dual_level():
        y = forward_ad.unpack_dual(change(forward_ad.make_dual(x, dx)))
        torch.testing.assert_close(y.tangent, change(dx))
        torch.testing.assert_close(y.primal, change(x))


@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
def test_gradients_that_are_differentiated_have_the_frozen_weight_in_them(shape):
    linear = torch.nn.Linear(shape[1], shape[0], dtype=torch.float64)
    layer = CDDLinear.from_linear(linear, init="normal")
    x = torch.randn(3, shape[1], dtype=torch.float64, requires_grad=True)
    weight = layer.to_linear().weight.detach()

    def penalty(y):
        (gradient,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return gradient, torch.autograd.grad(gradient.square().sum(), x)[0]

    for found, expected in zip(penalty(layer(x)), penalty(x @ weight.T + linear.bias), strict=True):
        torch.testing.assert_close(found, expected)
