"""Derivatives of solutions in torch: the transforms of `torch.func` beside those of the dense solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.func import grad, vmap

import structmat as sm

N = 5
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # what torch says of itself


def circulant_plus_diagonal(c: Any, d: Any, b: Any, **options: Any) -> Any:
    return sm.solve(sm.Circulant(c) + sm.Diagonal(4 * d), b, rtol=1e-13, **options).x


def with_a_preconditioner(c: Any, d: Any, b: Any) -> Any:
    return circulant_plus_diagonal(c, d, b, preconditioner=sm.Diagonal(1 / d))


def prepared(c: Any, d: Any, b: Any) -> Any:
    M = (sm.Circulant(torch.zeros_like(c)) + sm.Diagonal(1 / d)).prepare()
    return sm.solve((sm.Circulant(c).prepare() + sm.Diagonal(4 * d)).prepare(), b, rtol=1e-13, preconditioner=M).x


def of_more_equations(c: Any, d: Any, b: Any) -> Any:
    return sm.lstsq(sm.Toeplitz(c, d[:3]), b, rtol=1e-13).x


def of_less_equations(c: Any, d: Any, b: Any) -> Any:
    return sm.lstsq(sm.Toeplitz(c[:3], d), b[:3], rtol=1e-13).x


def of_low_rank(c: Any, d: Any, b: Any) -> Any:
    keep = torch.tensor([1.0, 0, 2, 0, 1], dtype=d.dtype)
    return sm.lstsq(sm.Toeplitz(c, d) @ sm.Diagonal(keep), b, rtol=1e-13).x


def in_closed_form(c: Any, d: Any, b: Any) -> Any:
    return sm.solve(sm.Toeplitz(torch.cat([c[:1] + 6, c[1:]], -1), d), b).x


def dense(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same by dense matrices."""

    def solved(c: Any, d: Any, b: Any) -> Any:
        match function.__name__:
            case "of_more_equations":
                matrix = sm.Toeplitz(c, d[:3]).to_dense()
            case "of_less_equations":
                matrix, b = sm.Toeplitz(c[:3], d).to_dense(), b[:3]
            case "of_low_rank":
                matrix = sm.Toeplitz(c, d).to_dense() * torch.tensor([1.0, 0, 2, 0, 1], dtype=d.dtype)
                return torch.linalg.pinv(matrix, rtol=1e-10) @ b
            case "in_closed_form":
                matrix = sm.Toeplitz(torch.cat([c[:1] + 6, c[1:]], -1), d).to_dense()
            case _:
                matrix = sm.Circulant(c).to_dense() + torch.diag(4 * d)
        return torch.linalg.pinv(matrix) @ b

    return solved


FUNCTIONS = (
    circulant_plus_diagonal,
    with_a_preconditioner,
    prepared,
    of_more_equations,
    of_less_equations,
    of_low_rank,
    in_closed_form,
)
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, point: grad(lambda *at: f(*at).abs().square().sum(), (0, 1, 2))(*point),
    "twice": lambda f, point: grad(
        lambda c: grad(lambda d: f(c, d, point[2]).abs().square().sum())(point[1]).abs().sum()
    )(point[0]),
}


def drawn(dtype: Any = torch.float64) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(3)
    c, d, b = (torch.randn(N, dtype=dtype, generator=generator) for _ in range(3))
    return c, d + 3, b


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_transforms_are_those_of_the_dense_solution(function, transform, dtype):
    found, expected = (TRANSFORMS[transform](f, drawn(dtype)) for f in (function, dense(function)))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_closed_forms_are_mapped():
    c, d, b = drawn()
    stack = torch.stack([b, 2 * b])
    found = vmap(grad(lambda b: in_closed_form(c, d, b).square().sum()))(stack)
    expected = vmap(grad(lambda b: dense(in_closed_form)(c, d, b).square().sum()))(stack)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_a_solution_is_as_exact_as_the_solution():
    """The derivative of an iteration that has converged need not have."""
    n = 200
    c, d = 0.9 ** torch.arange(n, dtype=torch.float64), torch.linspace(0.1, 2, n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    b, w = (torch.randn(n, dtype=torch.float64, generator=generator) for _ in range(2))
    A = sm.Toeplitz(c) + sm.Diagonal(d)
    expected = torch.linalg.solve(A.to_dense().T, w)
    for options in ({"preconditioner": None}, {"assume": "positive definite"}):
        found = grad(lambda b, options=options: sm.solve(A, b, max_iter=5000, **options).x @ w)(b)
        assert (found - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("solve", [sm.solve, sm.lstsq])
def test_operators_without_arrays(solve):
    A = sm.Fourier(N) + 3 * sm.Identity(N)
    b, w = (v.to(torch.complex128) for v in drawn()[:2])
    found = grad(lambda b: (solve(A, b, rtol=1e-13).x * w).sum().abs())(b)
    dense = torch.asarray(A.to_dense())
    torch.testing.assert_close(found, grad(lambda b: (torch.linalg.solve(dense, b) * w).sum().abs())(b))
