"""Norms where squares leave the range of the dtype, or where factors of a product have a wide one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, Sample, Vectors, block_circulant_matrix
from tests.operators.test_laws import check, skip_most_where_each_shape_compiles

WITH_NORM = [entry for entry in REGISTRY if "norm" in entry.closed_forms]


def exact_norm(left: np.ndarray, c: np.ndarray, right: np.ndarray, ord: Any) -> np.ndarray:
    """From the entries in extended precision, whose range no product of three numbers leaves."""
    left, c, right = (np.abs(array).astype(np.longdouble) for array in (left, c, right))
    dense = block_circulant_matrix(c, (left.shape[-1], right.shape[-1]))
    entries = left[..., None] * dense * right[..., None, :]
    if ord == "fro":
        return np.sqrt(np.sum(entries**2, axis=(-2, -1)))
    return np.max(np.sum(entries, axis=-2 if ord == 1 else -1), axis=-1)


@pytest.mark.parametrize("entry", WITH_NORM, ids=lambda e: e.name)
def test_norms_of_extreme_multiples(backend: Backend, entry: Entry) -> None:
    skip_most_where_each_shape_compiles(backend, entry)

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        single = sample.dtype.name in {"float32", "complex64"}
        for scale in (1e-25, 1e25) if single else (1e-200, 1e200):
            scaled = op * scale
            for ord in entry.norms:
                expected = scale * np.linalg.norm(dense, ord, axis=(-2, -1))
                found = np.asarray(scaled.norm(ord)) if scaled.dtype is None else backend.to_numpy(scaled.norm(ord))
                np.testing.assert_allclose(found, expected, rtol=2e-3 if single else 1e-11, atol=0)

    check(backend, entry, law)


@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_condition_numbers_do_not_depend_on_the_scale(kind: Any, p: float) -> None:
    c, r = np.random.default_rng(5).standard_normal((2, 7))
    for dtype, scale in (("float64", 1e-250), ("float64", 1e250), ("complex64", 1e25), ("float32", 1e-25)):
        cond = kind((scale * c).astype(dtype), (scale * r).astype(dtype)).cond(p)
        np.testing.assert_allclose(cond, kind(c, r).cond(p), rtol=1e-9 if dtype == "float64" else 1e-2)


def drawn(seed: int, sides: tuple[int, int], b: int, decades: float, dtype: str) -> list[np.ndarray]:
    """Two diagonals and a grid of that many decades to both sides of one; some entries are zero."""
    rng = np.random.default_rng(seed)
    grid = (-(-sides[0] // b), -(-sides[1] // b), b)

    def values(*shape: int) -> np.ndarray:
        drawn = 10 ** rng.uniform(-decades, decades, shape) * rng.choice([0, 1, -1], shape, p=[0.1, 0.5, 0.4])
        return drawn.astype(dtype) * (1j ** rng.integers(0, 4, shape) if np.dtype(dtype).kind == "c" else 1)

    return [array.astype(dtype) for array in (values(sides[0]), values(*grid), values(sides[1]))]


def test_norms_of_products_of_any_range(backend: Backend) -> None:
    kinds = [("float32", 12), ("float64", 9), ("float64", 100), ("float64", 300), ("complex128", 40)]
    shapes = st.tuples(*(st.just(4) if backend.compiles else st.integers(1, 9) for _ in range(3)))

    @settings(max_examples=min(backend.examples, 20))
    @given(st.integers(0, 2**32 - 1), shapes, st.sampled_from(kinds[3:4] if backend.compiles else kinds))
    def run(seed: int, shape: tuple[int, int, int], kind: tuple[str, int]) -> None:
        dtype, decades = kind
        left, c, right = drawn(seed, shape[:2], shape[2], decades, dtype)
        P = sm.CDDProduct.from_vectors(*map(backend.asarray, (left, c, right)), block=True)
        limits = np.finfo(dtype)
        for ord in ("fro", 1, np.inf):
            expected = exact_norm(left, c, right, ord)
            if limits.smallest_normal < expected < limits.max / 2 or expected == 0:
                found = backend.to_numpy(P.norm(ord))
                np.testing.assert_allclose(found, float(expected), rtol=1e-5 if dtype == "float32" else 1e-13)

    run()


@pytest.mark.parametrize("decades", [0, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_large_products_by_transforms_or_by_entries(backend: Backend, dtype: str, decades: int) -> None:
    if backend.compiles:
        pytest.skip("compiles too much, and goes by entries always: the test below")
    sides, b = (301, 280), 97
    left, c, right = drawn(decades, sides, b, decades, dtype)
    P = sm.CDDProduct.from_vectors(*map(backend.asarray, (left, c, right)), block=True)
    for ord in ("fro", 1, np.inf):
        expected = float(exact_norm(left, c, right, ord))
        np.testing.assert_allclose(backend.to_numpy(P.norm(ord)), expected, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_norms_of_stacks_of_large_products_are_those_of_their_members() -> None:
    sides, b = (150, 140), 49
    stack = [drawn(seed, sides, b, 0, "float64") for seed in range(3)]
    P = sm.CDDProduct.from_vectors(*map(np.stack, zip(*stack, strict=True)), block=True)
    for ord in ("fro", 1, np.inf):
        np.testing.assert_allclose(P.norm(ord), [float(exact_norm(*one, ord)) for one in stack], rtol=1e-13)


def test_small_entries_are_seen_behind_large_ones(backend: Backend) -> None:
    """A similarity of the shift: all its products of entries that meet are near one."""
    n = 300
    d = np.geomspace(1e-9, 1e9, n)
    vectors = d, np.eye(n)[1], 1 / d
    P = sm.CDDProduct.from_vectors(*map(backend.asarray, vectors))
    for ord in ("fro", 1, np.inf):
        expected = float(exact_norm(d, vectors[1][None, None], 1 / d, ord))
        assert float(P.norm(ord)) == pytest.approx(expected, rel=1e-12)
        assert float(P.prepare().norm(ord)) == pytest.approx(expected, rel=1e-12)


def test_a_row_of_small_blocks_does_not_hide_the_range_of_another() -> None:
    """Whether transforms are accurate enough is decided by the row of blocks that is worst for them."""
    n = 300
    shift, d = np.eye(n)[1], np.geomspace(1e-9, 1e9, n)
    left, c, right = np.append(d, np.full(n, 1e-30)), np.stack([shift, 1e-30 * shift])[:, None], 1 / d
    P = sm.CDDProduct.from_vectors(left, c, right, block=True)
    for ord in ("fro", 1, np.inf):
        assert float(P.norm(ord)) == pytest.approx(float(exact_norm(left, c, right, ord)), rel=1e-12)


def test_norms_of_stacks_and_of_every_kind_of_factor() -> None:
    rng = np.random.default_rng(0)
    n = 6
    d, e = rng.standard_normal((2, 1, n)), rng.standard_normal((3, n))
    for middle in (
        sm.Circulant(rng.standard_normal((2, 3, n))),
        sm.Circulant(rng.standard_normal(n)).to_spectral(),
        sm.BandedCirculant(rng.standard_normal((3, 2)), n),
        sm.BlockCirculant(rng.standard_normal((3, 3, 2))),
    ):
        for P in (
            sm.Diagonal(d) @ middle @ sm.Diagonal(e),
            sm.Diagonal(d) @ middle,
            middle @ sm.Diagonal(e),
            sm.CDDProduct((middle,)),
        ):
            for ord in ("fro", 1, np.inf):
                np.testing.assert_allclose(P.norm(ord), np.linalg.norm(P.to_dense(), ord, axis=(-2, -1)), rtol=1e-12)
    for ord in ("fro", 1, np.inf):
        np.testing.assert_allclose(
            sm.CDDProduct((sm.Diagonal(e),)).norm(ord), np.linalg.norm(sm.Diagonal(e).to_dense(), ord, axis=(-2, -1))
        )


def test_what_is_cropped_away_does_not_count(backend: Backend) -> None:
    c = np.array([[[1.0, 1e20, 1e20, 2.0]]])  # of which a matrix of one row and two columns shows the outer ones
    B = sm.BlockCirculant(backend.asarray(c), (1, 2))
    assert float(B.norm()) == pytest.approx(5**0.5, rel=1e-14)
    assert float(B.norm(1)) == 2.0
    assert float(B.norm(np.inf)) == 3.0


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinities_reach_the_norm(backend: Backend) -> None:
    if backend.compiles:
        pytest.skip("compiles too much")
    for bad in (np.nan, np.inf):
        for make in (sm.Circulant, sm.Diagonal, sm.Toeplitz, lambda c: sm.BlockCirculant(c[None, None, :])):
            op = make(backend.asarray(np.array([1.0, bad, 2.0])))
            for ord in ("fro", 1):
                assert not np.isfinite(float(op.norm(ord)))
        v = np.array([1.0, bad, 2.0])
        assert not np.isfinite(float(sm.CDDProduct.from_vectors(*map(backend.asarray, (v, v, v))).norm()))


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, 2, np.inf])
def test_the_gradient_of_the_norm_of_zeros_is_zero(ord: Any) -> None:
    torch = pytest.importorskip("torch")
    z = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    makers = [sm.Circulant, sm.Diagonal, sm.Toeplitz, lambda c: sm.BlockCirculant(c.reshape(2, 1, 2))]
    if ord in {"fro", 1, np.inf}:
        makers.append(lambda c: sm.CDDProduct.from_vectors(c, c, c))
    for make in makers:
        op = make(z)
        if ord in {"nuc", 2} and isinstance(op, sm.Toeplitz):
            continue
        (gradient,) = torch.autograd.grad(op.norm(ord), z)
        assert bool(torch.all(torch.isfinite(gradient)))
        if ord == "fro":
            assert not gradient.any()


def test_gradients_of_norms_of_products() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    d, c, e = (torch.randn(k, dtype=torch.float64, generator=generator, requires_grad=True) for k in (3, 4, 2))

    def norms(d: Any, c: Any, e: Any) -> Any:
        P = sm.CDDProduct.from_vectors(d, c.reshape(1, 1, 4), e, block=True)
        return torch.stack([P.norm(ord) for ord in ("fro", 1, np.inf)])

    assert torch.autograd.gradcheck(norms, (d, c, e))


def test_zeros_do_not_hide_small_entries(backend: Backend) -> None:
    vectors = np.array([1e-300, 0.0]), np.array([1e-300, 0.0]), np.array([1e300, 1e300])
    P = sm.CDDProduct.from_vectors(*map(backend.asarray, vectors))
    for ord in ("fro", 1, np.inf):
        assert float(P.norm(ord)) == pytest.approx(1e-300, rel=1e-12)


@pytest.mark.parametrize("n", [24, 25, 40])
def test_estimates_of_conditions_are_near(n):
    rng = np.random.default_rng(n)
    for column, row in rng.standard_normal((20, 2, n)):
        for op in (sm.Toeplitz(column, row), sm.Toeplitz(column, column)):
            exact = np.linalg.cond(np.asarray(op.to_dense()), 1)
            assert 1 / 3 < op.cond(1) / exact < 1 + 1e-6
            assert n > 24 or op.cond(1) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("make", [sm.Diagonal, sm.Circulant])
@pytest.mark.parametrize("end", ["max", "smallest_normal", "smallest_subnormal"])
def test_norms_at_the_ends_of_the_range(make: Any, dtype: str, end: str) -> None:
    value = getattr(np.finfo(dtype), end)
    assert make(np.array([value], dtype)).norm() == value
    assert sm.Diagonal(np.array([value, 0], dtype)).norm() == value
