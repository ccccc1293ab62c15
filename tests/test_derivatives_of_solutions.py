"""Derivatives of solutions in torch: both modes and the transforms of `torch.func` beside the dense solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import structmat as sm
from tests.backends import along_last_axis


def solve(A: Any, b: Any, **options: Any) -> Any:
    return along_last_axis(sm.solve, A, b, **options)


def lstsq(A: Any, b: Any, **options: Any) -> Any:
    return along_last_axis(sm.lstsq, A, b, **options)


N = 5
pytestmark = [  # what torch says of its own rules
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]


def circulant_plus_diagonal(c: Any, d: Any, b: Any, **options: Any) -> Any:
    return solve(sm.Circulant(c) + sm.Diagonal(4 * d), b, rtol=1e-13, **options).x


def the_same_with_a_preconditioner(c: Any, d: Any, b: Any) -> Any:
    return circulant_plus_diagonal(c, d, b, preconditioner=sm.Diagonal(1 / d))


def prepared(c: Any, d: Any, b: Any) -> Any:
    M = (sm.Circulant(torch.zeros_like(c)) + sm.Diagonal(1 / d)).prepare()
    return solve((sm.Circulant(c).prepare() + sm.Diagonal(4 * d)).prepare(), b, rtol=1e-13, preconditioner=M).x


def of_more_equations(c: Any, d: Any, b: Any) -> Any:
    return lstsq(sm.Toeplitz(c, d[:3]), b, rtol=1e-13).x


def of_less_equations(c: Any, d: Any, b: Any) -> Any:
    return lstsq(sm.Toeplitz(c[:3], d), b[..., :3], rtol=1e-13).x


def of_low_rank(c: Any, d: Any, b: Any) -> Any:
    keep = torch.tensor([1.0, 0, 2, 0, 1], dtype=d.dtype)
    return lstsq(sm.Toeplitz(c, d) @ sm.Diagonal(keep), b, rtol=1e-13).x


def in_closed_form(c: Any, d: Any, b: Any) -> Any:
    return solve(sm.Toeplitz(torch.cat([c[..., :1] + 6, c[..., 1:]], -1), d), b).x


def dense(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same by dense matrices."""

    def solved(c: Any, d: Any, b: Any) -> Any:
        match function.__name__:
            case "circulant_plus_diagonal" | "the_same_with_a_preconditioner" | "prepared":
                matrix = sm.Circulant(c).to_dense() + torch.diag(4 * d)
            case "of_more_equations":
                matrix = sm.Toeplitz(c, d[:3]).to_dense()
            case "of_less_equations":
                matrix, b = sm.Toeplitz(c[:3], d).to_dense(), b[..., :3]
            case "of_low_rank":
                matrix = sm.Toeplitz(c, d).to_dense() * torch.tensor([1.0, 0, 2, 0, 1], dtype=d.dtype)
                return torch.linalg.pinv(matrix, rtol=1e-10) @ b
            case _:
                matrix = sm.Toeplitz(torch.cat([c[..., :1] + 6, c[..., 1:]], -1), d).to_dense()
        return torch.linalg.pinv(matrix) @ b

    return solved


FUNCTIONS = (
    circulant_plus_diagonal,
    the_same_with_a_preconditioner,
    prepared,
    of_more_equations,
    of_less_equations,
    of_low_rank,
    in_closed_form,
)
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "jvp": lambda f, point, changes: jvp(f, point, changes)[1],
    "grad": lambda f, point, _: grad(lambda *at: f(*at).abs().square().sum(), (0, 1, 2))(*point),
    "jacfwd": lambda f, point, _: jacfwd(lambda *at: f(*at).abs(), (0, 1, 2))(*point),
    "jacrev": lambda f, point, _: jacrev(lambda *at: f(*at).abs(), (0, 1, 2))(*point),
    "hessian": lambda f, point, _: hessian(lambda c: f(c, *point[1:]).square().sum())(point[0]),
    "vmap over matrices": lambda f, point, _: vmap(f, (1, 0, None))(*(torch.stack([point[0], -point[0]], 1),
        torch.stack([point[1], point[1] + 1])), point[2]),
    "vmap over right-hand sides": lambda f, point, changes: vmap(f, (None, None, 0))(*point[:2],
        torch.stack([point[2], changes[2]])),
    "vmap of vmap": lambda f, point, changes: vmap(vmap(f, (None, None, 0)), (0, None, None))(
        torch.stack([point[0], -point[0]]), point[1], torch.stack([point[2], changes[2]])),
    "vmap of grad": lambda f, point, changes: vmap(grad(lambda b: f(*point[:2], b).abs().square().sum()))(
        torch.stack([point[2], changes[2]])),
}  # fmt: skip


def drawn(dtype: Any = torch.float64) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(3)
    c, d, b, *changes = (torch.randn(N, dtype=dtype, generator=generator) for _ in range(6))
    return (c, d + 3, b), tuple(changes)


@functions
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_transforms_are_those_of_the_dense_solution(function, transform, dtype):
    point, changes = drawn(dtype)
    if dtype.is_complex and transform in {"jacfwd", "jacrev", "hessian"}:
        pytest.skip("torch has no jacobians by complex numbers")
    found, expected = (TRANSFORMS[transform](f, point, changes) for f in (function, dense(function)))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@functions
def test_dual_numbers(function):
    point, changes = drawn()
    expected = jvp(dense(function), point, changes)[1]
    with forward_ad.dual_level():
        x = function(*map(forward_ad.make_dual, point, changes))
        torch.testing.assert_close(forward_ad.unpack_dual(x).tangent, expected, rtol=1e-8, atol=1e-8)


@functions
@pytest.mark.parametrize("b", [torch.zeros(N), torch.stack([torch.zeros(N), torch.ones(N)])], ids=["zeros", "a stack"])
def test_the_change_of_a_solution_that_is_zero(function, b):
    """Iteration for it ends before it begins."""
    (c, d, _), _ = drawn()
    change = torch.arange(1.0, 1 + b.numel(), dtype=torch.float64).reshape(b.shape)
    found = jvp(lambda b: function(c, d, b), (b.double(),), (change,))[1]
    each = [dense(function)(c, d, row) for row in change.reshape(-1, N)]
    torch.testing.assert_close(found, torch.stack(each).reshape(found.shape), rtol=1e-8, atol=1e-8)


def test_the_change_of_a_solution_is_as_exact_as_the_solution():
    """The derivative of an iteration that has converged need not have."""
    n = 200
    c, d = 0.9 ** torch.arange(n, dtype=torch.float64), torch.linspace(0.1, 2, n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    b, change = (torch.randn(n, dtype=torch.float64, generator=generator) for _ in range(2))
    A = sm.Toeplitz(c) + sm.Diagonal(d)
    expected = torch.linalg.solve(A.to_dense(), change)
    for options in ({"preconditioner": None}, {"assume": "positive definite"}):
        found = jvp(lambda b, options=options: solve(A, b, max_iter=5000, **options).x, (b,), (change,))[1]
        assert (found - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("function", [circulant_plus_diagonal, of_more_equations, in_closed_form])
def test_forward_mode_over_forward_mode_is_refused(function):
    """For which torch gives zeros, without a word."""
    (c, d, b), (change, *_) = drawn()
    once = lambda c: jvp(lambda d: function(c, d, b), (d,), (change,))[1]
    with pytest.raises(RuntimeError, match=r"no forward mode over forward mode here; use reverse mode for one"):
        jvp(once, (c,), (change,))


def test_closed_forms_have_tangents_too():
    (c, d, b), (change, *_) = drawn()
    with forward_ad.dual_level():
        A = sm.Toeplitz(forward_ad.make_dual(c + 3, change), d)
        assert solve(A, b).iterations == 0
        found = [
            forward_ad.unpack_dual(value).tangent for value in (A.det(), A.slogdet().logabsdet, A.inv().to_dense())
        ]
    of = lambda c: sm.Toeplitz(c, d).to_dense()
    plain = torch.linalg.det, lambda A: torch.linalg.slogdet(A)[1], torch.linalg.inv
    for tangent, function in zip(found, plain, strict=True):
        expected = jvp(lambda c, function=function: function(of(c)), (c + 3,), (change,))[1]
        torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("solve", [sm.solve, sm.lstsq])
def test_operators_without_arrays(solve):
    A = sm.Fourier(N) + 3 * sm.Identity(N)
    b, change = (v.to(torch.complex128) for v in drawn()[0][:2])
    expected = torch.linalg.solve(torch.asarray(A.to_dense()), change)
    torch.testing.assert_close(jvp(lambda b: solve(A, b, rtol=1e-13).x, (b,), (change,))[1], expected)
