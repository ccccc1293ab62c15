"""Changes in bfloat16 as dense matrices: as exact as a product of bfloat16 matrices, and only where they are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from structmat.torch import CDDLinear, adapt
from structmat.torch._adapter import chunked, circulant_rows, dense_bfloat16
from structmat.torch._adapter.autograd import add_change, linear_with_change
from structmat.torch._adapter.merged import weight_plus_change
from tests.torch.common import adapter, dense, fill, mlp

EPS = torch.finfo(torch.bfloat16).eps
layers = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(*map(st.just, shape), st.integers(1, max(shape)))
)
pieces = st.sampled_from([1, 20, 60, 2**17])
dtypes = st.sampled_from([torch.bfloat16, torch.float32])


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """As on a processor with a matrix unit; lists what is computed by matrices."""
    found = []

    def counted(name):
        original = getattr(chunked, name)
        return lambda *given, **options: (found.append(name), original(*given, **options))[1]

    for name in ("add_dense_change", "dense_gradients"):
        monkeypatch.setattr(chunked, name, counted(name))
    monkeypatch.setattr(dense_bfloat16, "has_matrix_unit", lambda: True)
    return found


def drawn(m, n, block, rows, dtype):
    factors = [f.detach().requires_grad_() for f in adapter(m, n, block_size=block, dtype=dtype).factors]
    x, y, dy = (torch.randn(rows, size, dtype=torch.bfloat16) for size in (n, m, m))
    weight = torch.randn(m, n, dtype=torch.bfloat16)
    return factors, x.requires_grad_(), y.requires_grad_(), dy, weight


def circulant_gradient(matrix, p, q, b):
    """The sums over the entries that hold each entry of a circulant, one by one."""
    padded = torch.zeros(p * b, q * b, dtype=matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    total = torch.zeros(p, q, b, dtype=matrix.dtype)
    for i in range(p * b):
        for j in range(q * b):
            total[i // b, j // b, (i - j) % b] += padded[i, j]
    return total


def references(factors, matrix, alpha):
    """Gradients of the factors where that of the change is `matrix`, in float64."""
    m, n = matrix.shape
    left, grid, right = (f.detach().double() for f in factors)
    ones = [torch.ones_like(left), grid, torch.ones_like(right)]
    circulants = dense(ones, m, n)
    scaled = alpha * matrix * left[:, None] * right
    return (
        alpha * (matrix * circulants) @ right,
        circulant_gradient(scaled, *grid.shape),
        (alpha * left) @ (matrix * circulants),
    )


@given(layer=layers, piece=pieces, rows=st.integers(12, 20), dtype=dtypes, alpha=st.sampled_from([1.0, -0.7]))
def test_values_and_gradients_are_as_exact_as_products_in_bfloat16(layer, piece, rows, dtype, alpha):
    m, n, block = layer
    factors, x, y, dy, weight = drawn(m, n, block, rows, dtype)
    W, wide_x, wide_dy = dense(factors, m, n, alpha), x.detach().double(), dy.double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(circulant_rows, "_PIECE", piece)
        generic = add_change(y, x, factors, alpha)
        fused = linear_with_change(x, weight, None, factors, alpha)
        of_generic = torch.autograd.grad(generic, (y, x, *factors), dy)
        of_fused = torch.autograd.grad(fused, (x, *factors), dy)

    change, sizes = wide_x @ W.T, wide_x.abs() @ W.abs().T
    base = wide_x @ weight.double().T
    assert_near(generic, y.double() + change, EPS * (y.double() + change).abs() + EPS * sizes)
    assert_near(fused, base + change, 2 * EPS * (base.abs() + change.abs()) + EPS * sizes)
    assert torch.equal(of_generic[0], dy)
    for dx, matrix in ((of_generic[1], W), (of_fused[0], W + weight.double())):
        assert_near(dx, wide_dy @ matrix, EPS * (wide_dy @ matrix).abs() + EPS * wide_dy.abs() @ matrix.abs())
    products, sizes = wide_dy.T @ wide_x, wide_dy.abs().T @ wide_x.abs()
    bounds = references([f.abs() for f in factors], sizes, abs(alpha))
    for gradients in (of_generic[2:], of_fused[1:]):
        for got, expected, bound in zip(gradients, references(factors, products, alpha), bounds, strict=True):
            assert got.dtype == dtype
            assert_near(got, expected.reshape(got.shape), 2 * EPS * bound.reshape(got.shape))


def assert_near(got, expected, bound):
    assert ((got.detach().double() - expected).abs() <= bound).all()


@given(layer=layers, piece=pieces)
def test_the_matrix_is_rounded_once(layer, piece):
    m, n, block = layer
    factors, _, _, _, weight = drawn(m, n, block, 1, torch.float32)
    change = dense(factors, m, n, -0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(circulant_rows, "_PIECE", piece)
        for base, expected in ((None, change), (weight, weight.double() + change)):
            got = weight_plus_change(base, [f.detach() for f in factors], -0.7, torch.bfloat16)
            assert got.dtype == torch.bfloat16
            # Sums of weight and change may cancel: what float32 lost is left over.
            lost = 4 * torch.finfo(torch.float32).eps * (change.abs() + weight.double().abs())
            assert_near(got, expected, EPS / 2 * expected.abs() + lost)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9)),
    piece=pieces,
    seed=st.integers(0, 2**31),
)
def test_sums_over_lags_are_exact_for_integers(shape, piece, seed):
    p, q, b = shape
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.randint(-50, 50, (p * b, q * b), generator=rng).float()
    scale = torch.randint(-3, 4, (q, b), generator=rng).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(circulant_rows, "_PIECE", piece)
        circulants = torch.randn(p, q, b)
        sums, rebuilt = circulant_rows.LagSums(circulants), torch.zeros_like(matrix)
        for here, values in circulant_rows.circulant_rows(circulants):
            rebuilt[here] = values.reshape(-1, q * b)
            sums.add(here, matrix[here].view(values.shape), scale)
    assert torch.equal(sums.total(), circulant_gradient(matrix * scale.flatten(), p, q, b))
    ones = [torch.ones(p * b), circulants, torch.ones(q * b)]
    assert torch.equal(rebuilt.double(), dense(ones, p * b, q * b))


BOTH = ["add_dense_change", "dense_gradients"]


@pytest.mark.parametrize(
    ("rows", "dtype", "options", "expected"),
    [
        (16, torch.bfloat16, {}, BOTH),
        (15, torch.bfloat16, {}, []),  # too few rows for a matrix of 16 x 16
        (16, torch.float32, {}, []),
        (16, torch.float16, {}, []),
        (16, torch.bfloat16, {"n_factors": 5}, []),
        (16, torch.bfloat16, {"mode": "cache"}, []),
        (16, torch.bfloat16, {"dtype": torch.float32}, BOTH),
        (16, torch.bfloat16, {"dtype": torch.float64}, []),  # who asks for them has a reason
    ],
)
def test_where_matrices_are_used(calls, rows, dtype, options, expected):
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(16, 16, dtype=dtype), **options))
    layer(torch.randn(rows, 16, dtype=dtype)).sum().backward()
    assert calls == expected


@pytest.mark.parametrize(("shape", "rows", "expected"), [
    ((6, 24), 11, []),
    ((6, 24), 12, BOTH),  # as a square with as many entries
    ((24, 6), 5, []),
    ((24, 6), 6, BOTH),  # as many as outputs
])  # fmt: skip
def test_how_many_rows_rectangles_need(calls, shape, rows, expected):
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(*shape, dtype=torch.bfloat16)))
    layer(torch.randn(rows, shape[0], dtype=torch.bfloat16)).sum().backward()
    assert calls == expected


def test_wider_inputs_are_not_rounded(calls):
    change = adapter(6, 6, dtype=torch.float32)
    y, x = torch.zeros(16, 6, dtype=torch.bfloat16), torch.randn(16, 6, dtype=torch.float32)
    torch.testing.assert_close(change.add_to(y, x), change(x).bfloat16(), rtol=0, atol=0)
    assert calls == []


def test_other_devices_use_transforms(calls):
    layer = CDDLinear.from_linear(torch.nn.Linear(16, 16, dtype=torch.bfloat16)).to("meta")
    layer(torch.randn(64, 16, dtype=torch.bfloat16, device="meta")).sum().backward()
    assert calls == []


def test_the_processor_is_asked(monkeypatch):
    monkeypatch.undo()
    asked = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    assert dense_bfloat16.has_matrix_unit() is asked
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: not asked, raising=False)
    assert dense_bfloat16.has_matrix_unit() is not asked
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert dense_bfloat16.has_matrix_unit() is False


@pytest.mark.parametrize("shape", [(5, 7, 3), (7, 5, 3), (6, 6, 4)])
def test_memory_that_was_not_written_is_not_read(shape):
    """In its deterministic mode torch fills new memory with NaN."""
    factors, x, y, dy, _ = drawn(*shape, 12, torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = torch.autograd.grad(add_change(y, x, factors, 1.0), (x, *factors), dy)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(g.isfinite().all() for g in gradients)


def test_no_product_is_computed_for_inputs_without_gradient(calls):
    factors, x, _, dy, weight = drawn(6, 6, 6, 12, torch.float32)
    expected = torch.autograd.grad(linear_with_change(x, weight, None, factors, 1.0), factors, dy)
    out = linear_with_change(x.detach(), weight, None, factors, 1.0)
    with torch.profiler.profile() as profile:
        got = torch.autograd.grad(out, factors, dy)
    assert calls == 2 * BOTH
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::mm") == 1
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    with torch.no_grad():
        for g in (dy, dy.float()):  # by matrices, by transforms
            assert chunked.chunked_gradients(g, x, weight, factors, [], 1.0, needs_x=False)[0] is None


def test_other_processors_use_transforms(calls, monkeypatch):
    monkeypatch.setattr(dense_bfloat16, "has_matrix_unit", lambda: False)
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(16, 16, dtype=torch.bfloat16)))
    layer(torch.randn(64, 16, dtype=torch.bfloat16)).sum().backward()
    assert calls == []


def test_large_matrices_are_left_to_transforms(calls, monkeypatch):
    monkeypatch.setattr(dense_bfloat16, "_LARGEST", 255)
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(16, 16, dtype=torch.bfloat16)))
    layer(torch.randn(64, 16, dtype=torch.bfloat16))
    assert calls == []


def test_under_autocast_too(calls):
    layer = fill(CDDLinear.from_linear(torch.nn.Linear(16, 12)))
    x = torch.randn(40, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert calls == BOTH
    plain = fill(CDDLinear.from_linear(torch.nn.Linear(16, 12)))
    plain.load_state_dict(layer.state_dict())
    x64 = x.detach().clone().requires_grad_()
    plain(x64).square().sum().backward()
    wanted = [x64.grad, *(p.grad for p in plain.parameters() if p.requires_grad)]
    got = [x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch maps some operations one by one
def test_gradients_of_gradients_and_batches_of_gradients(calls):
    factors, x, y, dy, _ = drawn(6, 6, 6, 12, torch.float32)
    out = add_change(y, x, factors, 1.0)
    (first,) = torch.autograd.grad(out, [factors[1]], dy, create_graph=True)  # which keeps the graph
    assert first.requires_grad
    batch = torch.stack([dy, 2 * dy])
    mapped = torch.autograd.grad(out, factors, batch, is_grads_batched=True, retain_graph=True)
    assert calls == BOTH[:1]

    def by_func(dy):
        return torch.autograd.grad(out, factors, dy, retain_graph=True)

    by_func_too = torch.func.vmap(by_func)(batch)
    single = by_func(dy)
    for many, more, one in zip(mapped, by_func_too, single, strict=True):
        torch.testing.assert_close(many[1], 2 * many[0])
        torch.testing.assert_close(many, more)
        assert (many[0] - one).norm() < 4 * EPS * one.norm() + EPS


def test_a_model_learns_the_same(calls, monkeypatch):
    """Training by matrices and by transforms ends at the same loss."""
    torch.manual_seed(0)
    start = mlp((16, 16, 8), torch.bfloat16).state_dict()
    x, target = torch.randn(64, 16, dtype=torch.bfloat16), torch.randn(64, 8, dtype=torch.bfloat16)
    losses = []
    for unit in (True, False):
        monkeypatch.setattr(dense_bfloat16, "has_matrix_unit", lambda unit=unit: unit)
        torch.manual_seed(1)
        model = mlp((16, 16, 8), torch.bfloat16)
        model.load_state_dict(start)
        adapt(model, dtype=torch.float32)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
        for _ in range(40):
            loss = (model(x).float() - target.float()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert len(calls) == 2 * 2 * 40
    assert losses[1] < 0.9 * target.float().square().mean().item()
    assert abs(losses[0] - losses[1]) < 0.02 * losses[1]
