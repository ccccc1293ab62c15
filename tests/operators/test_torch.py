"""Autograd, double backward, compile, export and vmap through every parameter, under torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import structmat as sm
import structmat.torch
from tests.cases import in_one_test
from tests.torch.common import compiler

KINDS: dict[str, tuple[Callable[..., sm.LinearOperator], list[tuple[int, ...]]]] = {
    "Circulant": (sm.Circulant, [(5,)]),
    "Circulant stack": (sm.Circulant, [(2, 4)]),
    "SpectralCirculant": (lambda c: sm.Circulant(c).to_spectral(), [(5,)]),
    "Prepared circulant": (lambda c: sm.Circulant(c).prepare(), [(5,)]),
    "Prepared blocks": (lambda c: sm.BlockCirculant(c, (5, 7)).prepare(), [(2, 3, 3)]),
    "Prepared D C D": (lambda a, c, b: sm.CDDProduct.from_vectors(a, c, b).prepare(), [(4,), (4,), (4,)]),
    "Diagonal": (sm.Diagonal, [(4,)]),
    "BlockCirculant": (lambda c: sm.BlockCirculant(c, (5, 7)), [(2, 3, 3)]),
    "Toeplitz": (sm.Toeplitz, [(4,), (6,)]),
    "Toeplitz, Hermitian": (sm.Toeplitz, [(5,)]),
    "Hankel": (sm.Hankel, [(5,), (3,)]),
    "ToeplitzInverse": (sm.ToeplitzInverse, [(5,), (5,)]),
    "D C D": (sm.CDDProduct.from_vectors, [(4,), (4,), (4,)]),
    "D B D": (lambda a, c, b: sm.CDDProduct.from_vectors(a, c, b, block=True), [(5,), (2, 3, 3), (7,)]),
    "five factors": (sm.CDDProduct.from_vectors, [(4,)] * 5),
    "Submatrix": (lambda c, r: sm.Toeplitz(c, r)[::2][:, [0, 3, 2]], [(4,), (6,)]),
    "Sum": (lambda c, d: sm.Circulant(c) + sm.Diagonal(d), [(4,), (4,)]),
    "Scaled": (lambda c, d, s: s * (sm.Circulant(c) @ sm.BlockCirculant(d)), [(4,), (2, 2, 2), ()]),
}
CHOSEN = KINDS["Submatrix"][0](torch.ones(4), torch.ones(6))
kinds = pytest.mark.parametrize("kind", list(KINDS))


def drawn(kind: str, dtype: Any = None, seed: int = 0) -> tuple[Callable[..., Any], list[Any], Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    make, shapes = KINDS[kind]
    dtype = dtype or torch.float64
    parameters = [torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True) for shape in shapes]
    rows, cols = make(*parameters).shape
    lead = (3, 2) if kind == "Circulant stack" else (3,)
    x = torch.randn((*lead, cols), dtype=dtype, generator=generator, requires_grad=True)
    y = torch.randn((*lead, rows), dtype=dtype, generator=generator, requires_grad=True)
    return make, parameters, x, y


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@kinds
def test_complex32_is_refused(kind: str) -> None:
    """torch has neither transforms nor quotients of it on a CPU."""
    make, parameters, x, _ = drawn(kind)
    half = [parameter.detach().to(torch.complex32) for parameter in parameters]
    with pytest.raises(TypeError, match=r"must be in complex64 or complex128, got torch\.complex32"):
        make(*half)
    with pytest.raises(TypeError, match=r"matvec: x must be in complex64 or complex128, got torch\.complex32"):
        make(*parameters).matvec(x.detach().to(torch.complex32))


@kinds
def test_tensors_on_the_device_meta_have_shapes_and_no_values(kind: str) -> None:
    make, parameters, x, _ = drawn(kind)
    there, expected = make(*(parameter.to("meta") for parameter in parameters)), make(*parameters)
    for result, like in ((there.matvec(x.to("meta")), expected.matvec(x)), (there.to_dense(), expected.to_dense())):
        assert (result.shape, result.dtype, result.is_meta) == (like.shape, like.dtype, True)


def test_what_needs_values_refuses_the_device_meta() -> None:
    W = torch.ones(4, 4, device="meta")
    for function in (sm.fit_cdd, sm.factorize_cdd, sm.error_curve):
        with pytest.raises(ValueError, match=f"{function.__name__}: W is on the device meta, where tensors have"):
            function(W)
    for method in ("inv", "det"):
        with pytest.raises(ValueError, match="this needs the values of a tensor on the device meta"):
            getattr(sm.Toeplitz(W[0], W[0]), method)()


@kinds
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_and_second_gradients(kind: str, dtype: Any) -> None:
    make, parameters, x, y = drawn(kind, dtype)
    for product, operand in ((lambda op, v: op.matvec(v), x), (lambda op, v: op.rmatvec(v), y)):

        def function(v: Any, *p: Any, product: Any = product) -> Any:
            return product(make(*p), v)

        assert torch.autograd.gradcheck(function, (operand, *parameters))
        assert torch.autograd.gradgradcheck(function, (operand, *parameters))


def test_singular_matrices_give_infinities_not_errors() -> None:
    blocks = torch.ones(2, 2, 2, 3, dtype=torch.float64)
    blocks[1] = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    op, b = sm.BlockCirculant(blocks), torch.ones(6, dtype=torch.float64)
    regular = sm.BlockCirculant(blocks[1])
    for found, expected in ((op.inv().c, regular.inv().c), (op.solve(b), regular.solve(b))):
        assert not bool(torch.isfinite(found[0]).any())
        torch.testing.assert_close(found[1], expected)
    zero = torch.zeros(3, dtype=torch.float64)
    for singular in (sm.Circulant(zero), sm.Diagonal(zero), sm.Scaled(sm.Identity(3), zero[0])):
        assert not bool(torch.isfinite(singular.solve(torch.ones(3, dtype=torch.float64))).any())


@pytest.mark.parametrize("grid", [
    [[[1.0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]],  # the identity
    [[[1.0, 0, 0]], [[1, 0, 0]]],
    [[[1.0, 1, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]],  # of rank one
    [[[0.0, 1], [1, 0]], [[2, 1], [0, 3]]],
    [[[0.0], [1]], [[2], [1]]],
], ids=["identity", "tall", "rank one", "regular", "blocks of one"])  # fmt: skip
def test_gradients_of_pseudo_inverses_where_singular_values_coincide(grid: Any) -> None:
    """Where singular vectors have no derivatives."""
    found, expected = (torch.tensor(grid, dtype=torch.float64, requires_grad=True) for _ in range(2))
    A, dense = sm.BlockCirculant(found), torch.linalg.pinv(sm.BlockCirculant(expected).to_dense(), rtol=1e-12)
    weights = torch.arange(dense.numel(), dtype=torch.float64).reshape(dense.shape).sin()
    (A.pinv().to_dense() * weights).sum().backward()
    (dense * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    b = torch.arange(len(dense.T), dtype=torch.float64)
    slope = lambda function: torch.autograd.grad(function.square().sum(), (found, expected), allow_unused=True)
    torch.testing.assert_close(
        slope(sm.lstsq(sm.BlockCirculant(found), b).x)[0],
        slope(torch.linalg.pinv(sm.BlockCirculant(expected).to_dense(), rtol=1e-12) @ b)[1],
    )


def test_gradients_through_solve_and_inverse() -> None:
    c = torch.tensor([4.0, 1.0, 0.5, 0.2], dtype=torch.float64, requires_grad=True)
    d = torch.tensor([2.0, 1.0, 3.0, 1.5], dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c, d: (sm.Circulant(c) @ sm.Diagonal(d)).inv_matvec(b), (c, d))
    assert torch.autograd.gradcheck(lambda c, d: (sm.Circulant(c) @ sm.Diagonal(d)).slogdet().logabsdet, (c, d))


@compiler
@kinds
def test_compiles_to_one_graph(kind: str) -> None:
    make, parameters, x, y = drawn(kind, torch.float32)

    def step(x: Any, y: Any, *p: Any) -> Any:
        op = make_in_graph(*p)
        return op.matvec(x), op.rmatvec(y)

    make_in_graph = {  # composing by @ costs a break, so a hot path names its class
        "Sum": lambda c, d: sm.Sum((sm.Circulant(c), sm.Diagonal(d))),
        "Submatrix": lambda c, r: sm.Submatrix(sm.Toeplitz(c, r), CHOSEN.rows, CHOSEN.cols),  # nor are indices found
        "Scaled": lambda c, d, s: sm.Scaled(sm.Product((sm.Circulant(c), sm.BlockCirculant(d))), s),
    }.get(kind, make)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo remarks on cached functions of array_api_compat
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        got = compiled(x, y, *parameters)
        expected = step(x, y, *parameters)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
        gradients = torch.autograd.grad(got[0].sum() + got[1].square().sum(), parameters)
        reference = torch.autograd.grad(expected[0].sum() + expected[1].square().sum(), parameters)
    for a, b in zip(gradients, reference, strict=True):
        torch.testing.assert_close(a, b)


@compiler
def test_a_toeplitz_of_any_size_compiles_once_for_all() -> None:
    """The fast length is chosen inside the graph, without a cache on which the compiler would remark."""

    def step(c: Any, r: Any, x: Any) -> Any:
        T, H = sm.Toeplitz(c, r), sm.Hankel(c, r)
        return T.matvec(x), T.H.matvec(T.matvec(x)), H.matvec(x), T.norm(), H.norm(1), H.to_dense()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for m, n in ((5, 7), (33, 12), (100, 64)):
        c, r, x = torch.randn(m), torch.randn(n), torch.randn(3, n)
        for got, expected in zip(compiled(c, r, x), step(c, r, x), strict=True):
            torch.testing.assert_close(got, expected)


SYSTEMS: dict[str, Callable[..., Any]] = {
    "solve": lambda T, b: T.solve(b),
    "inv": lambda T, b: T.inv().matvec(b),
    "slogdet": lambda T, b: T.slogdet().logabsdet[..., None] * b,
}


@compiler
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")  # to cached functions of array_api_compat
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by the compiler itself
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what reaches the graph after a break, where torch looks
@pytest.mark.parametrize(("n", "system"), [(5, "solve"), (520, "solve"), (5, "inv"), (5, "slogdet")])
def test_compiled_toeplitz_systems_have_the_values_and_gradients_of_eager_ones(n: int, system: str) -> None:
    """Small ones are solved in one graph, large ones on the host: what calls them is compiled around them, once."""
    first = torch.cat([torch.full((2, 1), 3.0), torch.rand(2, n - 1) / n], -1).double().requires_grad_()
    b = torch.randn(n, dtype=torch.float64, requires_grad=True)
    kinds = (sm.Toeplitz(first), sm.Toeplitz(first[0]).prepare())
    for op in kinds if (n, system) == (5, "solve") else kinds[:1]:
        torch.compiler.reset()

        def run(b: Any, op: Any = op) -> Any:
            return SYSTEMS[system](op, b)

        in_one_graph = (n, system) == (5, "solve") and op is kinds[0]
        compiled, expected = torch.compile(run, backend="aot_eager", fullgraph=in_one_graph), run(b)
        for _ in range(10):  # more often than a function is compiled for objects that change
            got = compiled(b)
        torch.testing.assert_close(got, expected)
        found, wanted = (torch.autograd.grad(y.square().sum(), (first, b)) for y in (got, expected))
        torch.testing.assert_close(found, wanted)
        if n == 520:
            torch.testing.assert_close(torch.compile(op.solve, backend="aot_eager")(b), expected)


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.c, self.right = (torch.nn.Parameter(torch.randn(s)) for s in ((5,), (2, 3, 3), (7,)))

    def forward(self, x: Any) -> Any:
        return sm.CDDProduct.from_vectors(self.left, self.c, self.right, block=True).matvec(x)


@compiler
def test_exports_with_a_dynamic_batch() -> None:
    layer = Layer()
    x = torch.randn(4, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    other = torch.randn(9, 7)
    torch.testing.assert_close(program.module()(other), layer(other))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of conj, which `prepare` takes
@kinds
def test_vmap_over_parameters_and_vectors(kind: str) -> None:
    make, shapes = KINDS[kind]
    parameters = [torch.randn(6, *shape, dtype=torch.float64) for shape in shapes]
    cols = make(*(p[0] for p in parameters)).shape[1]
    x = torch.randn(6, 3, 2, cols, dtype=torch.float64)
    mapped = torch.func.vmap(lambda v, *p: make(*p).matvec(v))(x, *parameters)
    looped = torch.stack([make(*(p[i] for p in parameters)).matvec(x[i]) for i in range(6)])
    torch.testing.assert_close(mapped, looped)


SPECTRAL = {
    "trace": lambda op: op.trace(),
    "det": lambda op: op.det(),
    "slogdet": lambda op: torch.stack(tuple(op.slogdet())),
    "norm": lambda op: op.norm("fro"),
    "norm2": lambda op: op.norm(2),
    "cond": lambda op: op.cond(),
    "svdvals": lambda op: op.svdvals(),
    "solve": lambda op: op.solve(torch.ones(op.shape[0], dtype=torch.float64)),
    "inverse": lambda op: op.inv().to_dense(),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@kinds
@in_one_test("name", SPECTRAL)
def test_vmap_over_what_has_a_closed_form(kind: str, name: str) -> None:
    (make, shapes), function = KINDS[kind], SPECTRAL[name]
    parameters = [torch.randn(6, *shape, dtype=torch.float64) for shape in shapes]
    try:
        looped = [function(make(*(p[i] for p in parameters))) for i in range(6)]
    except NotImplementedError:
        pytest.skip("has no closed form")
    except sm.ArgumentValueError as error:
        if "square" not in str(error):
            raise
        pytest.skip(str(error))
    mapped = torch.func.vmap(lambda *p: function(make(*p)))(*parameters)
    torch.testing.assert_close(mapped, torch.stack(looped))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@kinds
def test_on_a_gpu(kind: str) -> None:
    make, parameters, x, _ = drawn(kind)
    on_gpu = make(*(p.detach().cuda() for p in parameters))
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.matvec(x.cuda()).cpu(), make(*parameters).matvec(x))
    torch.testing.assert_close(on_gpu.to_dense().cpu(), make(*parameters).to_dense())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of blocks, which linear_operator interpolates
@kinds
def test_linear_operator_multiplies_selects_and_differentiates(kind: str) -> None:
    pytest.importorskip("linear_operator")
    make, parameters, x, y = drawn(kind)
    op = make(*parameters)
    if any(array.is_complex() for array in op._arrays()):
        with pytest.raises(sm.ArgumentTypeError, match="as_linear_operator: operator must hold real tensors"):
            sm.torch.as_linear_operator(op)
        return
    A, dense, (m, n) = sm.torch.as_linear_operator(op), op.to_dense(), op.shape
    some = (..., [0, m - 1], [n - 1, 0])
    X, Y = x.reshape(-1, n).mT, y.reshape(-1, m).mT
    pairs = [(A @ X, dense @ X), (A.mT @ Y, dense.mT @ Y), (A.to_dense(), dense), (A[some], dense[some])]
    pairs += [(A[..., 1:, :2].to_dense(), dense[..., 1:, :2])]
    pairs += [(A.diagonal(), dense.diagonal(dim1=-2, dim2=-1))] if m == n else [(A[..., 0, :], dense[..., 0, :])]
    for pair in pairs:
        torch.testing.assert_close(*pair)
        options = {"retain_graph": True, "materialize_grads": True}
        torch.testing.assert_close(*(torch.autograd.grad(value.sum(), parameters, **options) for value in pair))


def test_gpytorch_trains_with_a_toeplitz_covariance() -> None:
    gpytorch = pytest.importorskip("gpytorch")

    class Stationary(gpytorch.kernels.RBFKernel):
        def forward(self, x1: Any, x2: Any, diag: bool = False, **options: Any) -> Any:
            of_all = super().forward
            if diag:
                return of_all(x1, x2, diag=True, **options)
            return sm.torch.as_linear_operator(sm.Toeplitz(of_all(x1, x2[:1])[:, 0], of_all(x1[:1], x2)[0]))

    class Process(gpytorch.models.ExactGP):
        def __init__(self, kernel: Any) -> None:
            super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean, self.kernel = gpytorch.means.ConstantMean(), gpytorch.kernels.ScaleKernel(kernel)

        def forward(self, x: Any) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    def trained(kernel: Any) -> list[float]:
        model = Process(kernel).double()
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        optimizer, values = torch.optim.Adam(model.parameters(), lr=0.1), []
        for _ in range(5):
            optimizer.zero_grad()
            values.append(objective(model(x), y))
            (-values[-1]).backward()
            optimizer.step()
        model.eval()
        return [value.item() for value in (*values, *model(x[-1:] + x[1:6]).mean)]

    x = torch.linspace(0, 10, 200, dtype=torch.float64)
    y = torch.sin(x) + 0.1 * torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = trained(Stationary()), trained(gpytorch.kernels.RBFKernel())
    assert found[4] > found[0]
    assert found == pytest.approx(expected, abs=1e-4)


COLUMNS = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8)) + 6 * np.eye(1, 8))
SEVERAL = torch.from_numpy(np.random.default_rng(1).standard_normal((8, 3)))
OF_SYSTEMS = {
    "solve": lambda c: sm.Toeplitz(c).solve(SEVERAL),  # as many right-hand sides as matrices
    "inv": lambda c: sm.Toeplitz(c).inv() @ SEVERAL,
    "slogdet": lambda c: sm.Toeplitz(c).slogdet().logabsdet,
    "sum": lambda c: sm.solve(sm.Circulant(c) @ sm.Circulant(c).H, SEVERAL).x,
}


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_vmap_over_an_axis_that_is_not_the_first(name: str) -> None:
    function = OF_SYSTEMS[name]
    each = torch.stack([function(c) for c in COLUMNS])
    torch.testing.assert_close(torch.func.vmap(function, in_dims=1)(COLUMNS.T), each)
    derived = torch.func.grad(lambda c: function(c).square().sum())
    each = torch.stack([derived(c) for c in COLUMNS])
    torch.testing.assert_close(torch.func.vmap(derived, in_dims=1)(COLUMNS.T), each)


MANY_DIRECTIONS: dict[str, tuple[Any, list[Any]]] = {
    "Toeplitz": (lambda c, b: sm.Toeplitz(c, c / 2).solve(b), [(5,), (5,)]),
    "long Toeplitz": (lambda c, b: sm.Toeplitz(c).solve(b)[:3], [(140,), (140,)]),
    "BlockToeplitz": (lambda c, b: sm.BlockToeplitz(c).solve(b), [(3, 2, 2), (6,)]),
    "KroneckerSum": (lambda c, b: sm.KroneckerSum(sm.Toeplitz(c[:2]), sm.Toeplitz(c)).solve(b), [(3,), (6,)]),
    "by iteration": (lambda c, b: sm.solve(sm.Toeplitz(c) + sm.Diagonal(c * c + 9), b).x, [(5,), (5,)]),
    "slogdet": (lambda c: sm.Toeplitz(c).slogdet().logabsdet * c, [(5,)]),
    "inv": (lambda c, b: sm.Toeplitz(c).inv() @ b, [(5,), (5,)]),
    "Circulant": (lambda c, b: sm.Circulant(c).solve(b), [(5,), (5,)]),
    "fft_conv": (lambda x, w: structmat.torch.fft_conv(x, w, method="fft").tanh(), [(1, 2, 24), (2, 2, 18)]),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of windows, in the vmap of torch
@pytest.mark.parametrize("name", MANY_DIRECTIONS)
def test_derivatives_in_many_directions_at_once_are_those_one_by_one(name: str) -> None:
    function, shapes = MANY_DIRECTIONS[name]
    rng = np.random.default_rng(0)
    given = [torch.from_numpy(0.1 * rng.standard_normal(shape)) for shape in shapes]
    given[0][0] += 3 * torch.eye(2) if name == "BlockToeplitz" else 0
    if given[0].ndim == 1:
        given[0][0] += 3
    jacobian = torch.autograd.functional.jacobian
    wanted = jacobian(function, tuple(given))
    found = {
        "vectorize": jacobian(function, tuple(given), vectorize=True),
        "jacrev": torch.func.jacrev(function, argnums=tuple(range(len(given))))(*given),
    }
    if name == "fft_conv":
        found["forward"] = jacobian(function, tuple(given), vectorize=True, strategy="forward-mode")
        found["jacfwd"] = torch.func.jacfwd(function, argnums=(0, 1))(*given)
    for each in found.values():
        torch.testing.assert_close(each, wanted)


def test_second_derivatives_in_many_directions_at_once_are_those_one_by_one() -> None:
    c = torch.tensor([3.0, 0.5, 0.2], dtype=torch.float64)

    def quadratic(c: Any) -> Any:
        return sm.Toeplitz(c).solve(torch.ones_like(c)).square().sum()

    hessian = torch.autograd.functional.hessian
    torch.testing.assert_close(hessian(quadratic, c, vectorize=True), hessian(quadratic, c))


def test_derivatives_of_systems_in_forward_mode_are_a_clear_error() -> None:
    for function in (lambda c: sm.Toeplitz(c).solve(c), lambda c: sm.Toeplitz(c).slogdet().logabsdet):
        with pytest.raises(NotImplementedError, match=r"jvp function .* to use it with forward mode AD"):
            torch.func.jacfwd(function)(torch.tensor([3.0, 0.5, 0.2]))
