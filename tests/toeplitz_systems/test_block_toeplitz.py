"""Block Toeplitz matrices: how they are made, their blocks, and their systems by each algorithm."""

from __future__ import annotations

import importlib
import warnings
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import scipy.linalg
import torch

import structmat as sm
from structmat._toeplitz_systems import BlockToeplitzSystem, thresholds
from structmat._toeplitz_systems.blocks.recursion import whittle
from structmat.testing._references import block_circulant_matrix, block_toeplitz_matrix
from tests import backends
from tests.cases import in_one_test

KINDS = ("real", "complex", "symmetric", "Hermitian", "definite", "complex definite", "singular sections")


def blocks(n: int, p: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First block column and first block row."""
    rng = np.random.default_rng(seed)
    is_complex = kind in {"complex", "Hermitian", "complex definite"}
    if "definite" in kind:  # the covariances of a moving average, which end before n
        steps = rng.standard_normal((n // 2 + 1, p, p)) + (1j * rng.standard_normal((n // 2 + 1, p, p)) * is_complex)
        pairs = [steps[k:] @ steps[: len(steps) - k].conj().swapaxes(1, 2) for k in range(len(steps))]
        c = np.zeros((n, p, p), pairs[0].dtype if is_complex else float)
        for k, products in enumerate(pairs[:n]):
            c[k] = products.sum(axis=0) if is_complex else products.sum(axis=0).real
        c[0] = (c[0] + c[0].conj().T) / 2
        return c, c.conj().swapaxes(1, 2)
    c, r = rng.standard_normal((2, n, p, p)) + (1j * rng.standard_normal((2, n, p, p)) if is_complex else 0)
    if kind in {"symmetric", "Hermitian"}:
        c[0] += c[0].conj().T
        r = c.conj().swapaxes(1, 2)
    if kind == "singular sections":
        c[0] = 0
    return c, r


# How they are made


def test_offsets_go_from_the_upper_right_corner_to_the_lower_left_one() -> None:
    blocks = np.random.default_rng(0).standard_normal((3, 5, 2, 4))
    for rows in (1, 3, 5):
        c, r = blocks[:, 5 - rows :], blocks[:, 5 - rows :: -1]
        T = sm.BlockToeplitz.from_offsets(blocks, rows)
        assert T.grid == (rows, 6 - rows)
        assert T.block_shape == (2, 4)
        np.testing.assert_array_equal(T.to_dense(), block_toeplitz_matrix(c, r))
    np.testing.assert_array_equal(sm.BlockToeplitz.from_offsets(blocks).c, blocks[:, 2:])


def test_without_a_row_the_matrix_is_hermitian() -> None:
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 2, 2)) + 1j * rng.standard_normal((4, 2, 2))
    c[0] += c[0].conj().T
    dense = sm.BlockToeplitz(c).to_dense()
    np.testing.assert_array_equal(dense, dense.conj().T)


def test_a_grid_of_circulants_in_the_order_of_block_rows() -> None:
    p, q, b = 2, 3, 4
    B = sm.BlockCirculant(np.random.default_rng(0).standard_normal((p, q, b)))
    by_grids = block_circulant_matrix(B.c, B.shape).reshape(p, b, q, b)
    expected = by_grids.transpose(1, 0, 3, 2).reshape(b * p, b * q)
    np.testing.assert_array_equal(sm.BlockToeplitz.from_block_circulant(B).to_dense(), expected)


def test_equal_blocks_on_the_diagonal_multiply_from_both_sides() -> None:
    rng = np.random.default_rng(0)
    T = sm.BlockToeplitz(rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((5, 2, 4)))
    left, right = rng.standard_normal((3, 2)), rng.standard_normal((2, 4, 1)) + 1j
    L, R = sm.BlockToeplitz.block_diagonal(left, 3), sm.BlockToeplitz.block_diagonal(right, 5)
    np.testing.assert_array_equal(L.to_dense(), np.kron(np.eye(3), left))
    product = T.multiply_blocks(left, right)
    assert product.block_shape == (3, 1)
    np.testing.assert_allclose(product.to_dense(), L.to_dense() @ T.to_dense() @ R.to_dense(), atol=1e-13)


def test_whole_blocks_are_block_toeplitz_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    T = sm.BlockToeplitz(rng.standard_normal((4, 2, 3)), rng.standard_normal((5, 2, 3)))
    part = T[2:8, 3:12]
    assert type(part) is sm.BlockToeplitz
    assert part.grid == (3, 3)
    np.testing.assert_array_equal(part.to_dense(), T.to_dense()[2:8, 3:12])
    assert type(T[1:8, 3:12]) is sm.Submatrix


SERIES = sm.BlockToeplitz(np.concatenate([4 * np.eye(2)[None], np.ones((3, 2, 2))]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: sm.BlockToeplitz(np.ones((2, 3))), r"BlockToeplitz: c must have shape \(..., m, p, q\)"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 4))), r"r must be given where blocks are not square: .* 3 x 4"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 4)), np.ones((2, 4, 3))), r"r must have shape \(..., n, 3, 4\)"),
        (lambda: sm.BlockToeplitz(np.ones((2, 2, 3, 3)), np.ones((3, 2, 3, 3))), "do not broadcast"),
        (lambda: sm.BlockToeplitz.from_offsets(np.ones((4, 2, 2))), "odd number"),
        (lambda: sm.BlockToeplitz.from_offsets(np.ones((4, 2, 2)), 5), "number of offsets, 4, got 5"),
        (lambda: sm.BlockToeplitz.block_diagonal(np.ones(2), 2), "block must have shape"),
        (lambda: sm.BlockToeplitz.from_block_circulant(sm.BlockCirculant(np.ones((1, 1, 3)), (2, 3))), "cropped"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 3))).multiply_blocks(np.ones((3, 2))), r"left must have shape"),
        (lambda: SERIES.solve(np.ones((4, 2))), r"first step first: solve\(b\.reshape\(8\)\)"),
        (lambda: SERIES.solve(np.ones((4, 2, 5))), r"first step first: solve\(b\.reshape\(8, 5\)\)"),
        (lambda: SERIES.matvec(np.ones((4, 2))), r"first step first: matvec\(x\.reshape\(8\)\)"),
        (lambda: SERIES @ np.ones((4, 2)), r"first step first: matvec\(X\.reshape\(8\)\)"),
        (lambda: sm.solve(SERIES, np.ones((4, 2))), r"first step first: solve\(b\.reshape\(8\)\)"),
        (lambda: SERIES.solve(np.ones((5, 2))), r"got \(5, 2\)$"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 3))).multiply_blocks(None, np.ones((2, 3))), r"right must have shape"),
    ],
)
def test_errors_name_the_argument(make: Any, match: str) -> None:
    with pytest.raises(sm.ArgumentValueError, match=match):
        make()


# Their systems, by each algorithm

SIZES = ((1, 1), (1, 3), (2, 2), (3, 1), (13, 3), (60, 5))


@pytest.mark.parametrize("kind", KINDS[:6])
@pytest.mark.parametrize(("n", "p"), SIZES[:5])
def test_whittles_recursion_finds_inverse_and_determinant(n: int, p: int, kind: str) -> None:
    c, r = blocks(n, p, kind)
    if "definite" not in kind:
        c[0] += 3 * n * p * np.eye(p)
    system = BlockToeplitzSystem(c, r)
    dense = system.dense
    found = whittle(system.constants, hermitian=system.hermitian)
    assert found is not None
    assert found.is_definite == (kind not in {"real", "complex"} or (n == 1 and system.hermitian))
    np.testing.assert_allclose((found.sign, found.log), np.linalg.slogdet(dense), atol=1e-11)
    rows = system.recursion
    assert rows is not None
    assert rows.first < 1e-9
    expected = np.linalg.inv(dense)
    np.testing.assert_allclose(system.inverse(np.eye(n * p)).T, expected, atol=1e-11 * np.max(np.abs(expected)))


@in_one_test("least", [0, 128])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_linear_algebra_is_that_of_lapack(n: int, p: int, kind: str, least: int) -> None:
    if kind == "singular sections" and n < 3:
        return  # it is singular, or nothing but its section
    c, r = blocks(n, p, kind, seed=n)
    T, dense = sm.BlockToeplitz(c, r), block_toeplitz_matrix(c, r)
    b = np.random.default_rng(1).standard_normal((3, n * p))
    with patch.object(thresholds, "DENSE", least), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        x = T.inv_matvec(b)
        ready = T.prepare().inv_matvec(b)
        inverse = T.inv()
        found = T.slogdet()
    residual = np.max(np.abs(x @ dense.T - b))
    assert residual <= 1e-13 * np.linalg.norm(dense, np.inf) * np.max(np.abs(x))
    condition, scale = np.linalg.cond(dense), np.max(np.abs(x))
    np.testing.assert_allclose(ready, x, atol=1e-12 * condition * scale)
    np.testing.assert_allclose(inverse @ b.T, x.T, atol=1e-11 * condition * scale)
    np.testing.assert_allclose(found, np.linalg.slogdet(dense), atol=1e-14 * n * p, rtol=1e-13)
    if "definite" in kind:
        L = T.cholesky()
        np.testing.assert_allclose(L, np.linalg.cholesky(dense), atol=1e-13 * np.max(np.abs(L)) * condition)
        assert np.all(np.triu(L, 1) == 0)


@pytest.mark.parametrize("upper", [False, True])
def test_block_triangular_matrices(upper: bool) -> None:
    c, r = blocks(100, 2, "real")
    decay = 0.5 ** np.arange(100)[:, None, None]
    c, r = (np.where(decay == 1, 1, v) * decay for v in (c, r))
    c[0] += np.eye(2)
    c, r = (c[:1] * (decay == 1), r) if upper else (c, np.zeros_like(r))
    T, b = sm.BlockToeplitz(c, r), np.random.default_rng(0).standard_normal(200)
    dense = block_toeplitz_matrix(c, r)
    np.testing.assert_allclose(T.inv_matvec(b), np.linalg.solve(dense, b), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(T.slogdet(), np.linalg.slogdet(dense), rtol=1e-12)


def ill_conditioned(n: int, p: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Matrices of conditions from 1e6 to far beyond the inverse of the machine epsilon."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((p, p))
    S = A @ A.T + 0.1 * np.eye(p)
    k = np.arange(n)[:, None, None]
    symmetric = {
        "Gaussian": np.exp(-(k**2) / 32) * S,
        "Gaussian with noise": np.exp(-(k**2) / 32) * S + 1e-8 * (k == 0) * np.eye(p),
        "prolate": 0.9 * np.sinc(0.9 * k) * S,
        "slow decay": 0.999**k * S,
        "equal components with noise": 0.9**k * np.ones((p, p)) + 1e-10 * (k == 0) * np.eye(p),
    }
    found = {name: (c, c.swapaxes(1, 2)) for name, c in symmetric.items()}
    units = 10.0 ** rng.uniform(-6, 6, p)
    c, r = rng.standard_normal((2, n, p, p))
    return found | {
        "units of rows": (c * units[:, None], r * units[:, None]),
        "units of columns": (c * units, r * units),
    }


@pytest.mark.parametrize(("n", "p"), [(150, 2), (60, 5)])
def test_backward_errors_of_ill_conditioned_matrices_are_at_the_level_of_rounding(n: int, p: int) -> None:
    for name, (c, r) in ill_conditioned(n, p).items():
        T, dense = sm.BlockToeplitz(c, r), block_toeplitz_matrix(c, r)
        b = dense @ np.random.default_rng(1).standard_normal((n * p, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
            x = T.solve(b)
        errors = np.abs(dense.astype(np.longdouble) @ x - b)
        sizes = np.sum(np.abs(dense), axis=1)[:, None] * np.max(np.abs(x), axis=0)
        assert np.max(errors / sizes) <= 4 * np.finfo(float).eps * np.sqrt(n * p), name


@pytest.mark.parametrize("n", [3, 100])
def test_real_matrices_are_solved_for_complex_right_hand_sides(n: int) -> None:
    T = sm.BlockToeplitz(*blocks(n, 2, "real"))
    b = np.random.default_rng(1).standard_normal((2, 3, 2 * n))
    b[:, 0] *= 2.0**600  # whose scale is changed, and back
    x = T.solve((b[0] + 1j * b[1]).T).T
    np.testing.assert_array_equal(x.real, T.solve(b[0].T).T)
    np.testing.assert_array_equal(x.imag, T.solve(b[1].T).T)
    by_torch = sm.BlockToeplitz(torch.tensor(T.c), torch.tensor(T.r)).solve(torch.tensor(b[0, 1] + 1j * b[1, 1]))
    np.testing.assert_array_equal(by_torch.numpy(), T.solve(b[0, 1] + 1j * b[1, 1]))


@pytest.mark.parametrize("n", [50, 65, 100])
def test_smooth_covariances_with_a_nugget_are_solved_without_a_warning(n: int) -> None:
    """Solutions have large norms here: their condition is about 1e7."""
    lags = np.arange(float(n))[:, None, None]
    c = np.exp(-0.01 * lags**2) * np.array([[1.0, 0.5], [0.5, 1.0]]) + 1e-6 * np.eye(2) * (lags == 0)
    T = sm.BlockToeplitz(c)
    b = np.random.default_rng(0).standard_normal(2 * n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = T.solve(b)
    np.testing.assert_allclose(T @ x, b, atol=1e-6)


def test_components_of_different_units_are_solved_as_accurately_as_of_one() -> None:
    c, r = blocks(100, 3, "definite")
    units = np.array([1e-140, 1.0, 3e120])
    of_blocks = units[:, None] * units
    T, scaled = sm.BlockToeplitz(c, r), sm.BlockToeplitz(c * of_blocks, r * of_blocks)
    b = np.random.default_rng(0).standard_normal(300)
    every = np.tile(units, 100)
    np.testing.assert_allclose(scaled.inv_matvec(b * every) * every, T.inv_matvec(b), rtol=1e-9)
    expected = T.slogdet().logabsdet + 200 * np.log(units).sum()
    np.testing.assert_allclose(scaled.slogdet().logabsdet, expected, rtol=1e-13)
    small = sm.BlockToeplitz(*(v * of_blocks[1:, 1:] for v in (c[:, 1:, 1:], r[:, 1:, 1:])))
    plain = sm.BlockToeplitz(c[:, 1:, 1:], r[:, 1:, 1:]).inv()
    x = np.random.default_rng(1).standard_normal(200)
    every = np.tile(units[1:], 100)
    np.testing.assert_allclose(small.inv().matvec(x * every) * every, plain.matvec(x), rtol=1e-8)


@pytest.mark.parametrize("kind", ["symmetric", "complex definite", "real"])
def test_long_matrices_are_solved_by_iteration(kind: str) -> None:
    n, p = 3000, 2
    c, r = blocks(n, p, kind)
    decay = (1 / (1 + np.arange(n)) ** 2)[:, None, None]
    c, r = c * decay, r * decay
    c[0] += 8 * np.eye(p)
    r = r if kind == "real" else c.conj().swapaxes(1, 2)
    T = sm.BlockToeplitz(c, r)
    b = np.random.default_rng(0).standard_normal((2, n * p))
    with (
        patch.object(thresholds, "BLOCK_RECURSION", 0),
        patch.object(thresholds, "LARGEST", 0),
        patch.object(thresholds, "LAST_RESORT", 0),
    ):
        x = T.inv_matvec(b)
        assert np.linalg.norm(T.matvec(x) - b) <= 1e-12 * np.linalg.norm(b)
        with pytest.raises(np.linalg.LinAlgError, match=r"BlockToeplitz\.slogdet: .* 3000 x 3000 blocks, too many"):
            T.slogdet()
        with pytest.raises(np.linalg.LinAlgError, match=r"BlockToeplitz\.inv: .*`solve` iterates"):
            T.inv()


def test_what_no_recursion_serves_is_written_out() -> None:
    """Also above the size that is so at once."""
    c, r = blocks(40, 2, "real")
    T = sm.BlockToeplitz(c, r)
    dense, b = T.to_dense(), np.ones(80)
    with (
        patch.object(thresholds, "BLOCK_RECURSION", 0),
        patch.object(thresholds, "LARGEST", 0),
        patch.object(thresholds, "DENSE", 0),
        patch.object(thresholds, "GMRES_STEPS", 2),
    ):
        np.testing.assert_allclose(T.solve(b), np.linalg.solve(dense, b), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(T.slogdet(), np.linalg.slogdet(dense), rtol=1e-12)
        np.testing.assert_allclose(T.inv().to_dense(), np.linalg.inv(dense), rtol=1e-9, atol=1e-12)


def test_what_no_way_solves_is_an_error() -> None:
    c, r = blocks(40, 2, "real")
    T = sm.BlockToeplitz(c, r)
    with (
        patch.object(thresholds, "BLOCK_RECURSION", 0),
        patch.object(thresholds, "LARGEST", 0),
        patch.object(thresholds, "LAST_RESORT", 0),
        patch.object(thresholds, "DENSE", 0),
        patch.object(thresholds, "GMRES_STEPS", 2),
        pytest.raises(np.linalg.LinAlgError, match="too large to be written out"),
    ):
        T.solve(np.ones(80))


@pytest.mark.parametrize("kind", ["definite", "complex definite"])
def test_the_nearest_block_circulant_preconditions_sums_and_gaps(kind: str) -> None:
    n, p = 100, 2
    c, _ = blocks(n, p, kind)
    T = sm.BlockToeplitz(c)
    values, vectors, real = T._near(T.c, np).eigenvectors()  # type: ignore[misc]
    near = sm.Eigendecomposition(values, vectors, real)
    by_components = T.to_dense().reshape(n, p, n, p).swapaxes(0, 1).swapaxes(2, 3).reshape(n * p, n * p)
    expected = sm.BlockToeplitz.from_block_circulant(sm.BlockCirculant.nearest(by_components, n))
    np.testing.assert_allclose(near.to_dense(), expected.to_dense(), atol=1e-11)
    noisy = T + sm.Diagonal(np.linspace(1, 2, n * p))
    seen = np.arange(n * p) % 7 != 3
    for A in (noisy, T[seen][:, seen]):
        b = np.ones(A.shape[0])
        x, _, steps = sm.solve(A, b, method=sm.CG())
        np.testing.assert_allclose(A @ x, b, atol=1e-8)
        _, _, without = sm.solve(A, b, method=sm.CG(), preconditioner=None)
        assert 0 < steps < 0.6 * without
    torch_steps = sm.solve(
        sm.BlockToeplitz(torch.tensor(c)) + sm.Diagonal(torch.linspace(1, 2, n * p, dtype=torch.float64)),
        torch.ones(n * p, dtype=torch.float64),
        method=sm.CG(),
    )[2]
    assert abs(torch_steps - sm.solve(noisy, np.ones(n * p), method=sm.CG())[2]) <= 1


def test_a_singular_matrix_has_determinant_zero_and_no_inverse() -> None:
    for n in (3, 100):
        T = sm.BlockToeplitz(np.ones((n, 2, 2)))
        assert T.slogdet().sign == 0
        assert T.det() == 0
        for method in (T.inv, lambda T=T: T.solve(np.ones(T.shape[0]))):
            with pytest.raises(np.linalg.LinAlgError, match="singular"):
                method()
        assert torch.all(torch.isnan(sm.BlockToeplitz(torch.ones(n, 2, 2)).inv_matvec(torch.ones(2 * n))))


def test_an_ill_conditioned_matrix_is_solved_with_a_warning() -> None:
    smooth = np.exp(-0.02 * np.arange(40.0) ** 2)
    T = sm.BlockToeplitz(smooth[:, None, None] * np.array([[1.0, 0.5], [0.5, 1.0]]))
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"BlockToeplitz\.solve: the matrix is ill-conditioned"):
        T.solve(np.ones(80))


def test_blocks_that_are_not_square_have_no_direct_solution() -> None:
    T = sm.BlockToeplitz(np.ones((2, 3, 2)), np.ones((3, 3, 2)))
    with pytest.raises(NotImplementedError, match="no closed form"):
        T.inv()
    with pytest.raises(sm.ArgumentValueError, match=r"cholesky: the blocks must be square, got 3 x 2"):
        T.cholesky()


def test_cholesky_names_the_first_section_that_is_not_definite() -> None:
    c = np.zeros((4, 2, 2))
    c[0] = np.eye(2)
    c[2] = 2 * np.eye(2)
    with pytest.raises(np.linalg.LinAlgError, match=r"leading section of 3 x 3 blocks is not"):
        sm.BlockToeplitz(c).cholesky()
    assert torch.isnan(sm.BlockToeplitz(torch.tensor(c)).cholesky()).any()
    with pytest.raises(sm.ArgumentValueError, match="must be Hermitian"):
        sm.BlockToeplitz(c, 2 * c).cholesky()


# Derivatives


def test_gradients_of_determinants_in_torch_are_those_of_the_dense_matrix() -> None:
    found, expected = [], []
    for function, result in ((lambda T: T.slogdet(), found), (lambda T: torch.linalg.slogdet(T.to_dense()), expected)):
        c, r = (torch.tensor(v, requires_grad=True) for v in blocks(3, 2, "real"))
        log = function(sm.BlockToeplitz(torch.cat([c[:1] + 4 * torch.eye(2, dtype=c.dtype), c[1:]]), r))[1]
        result.extend(torch.autograd.grad(log, (c, r)))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_derivatives_of_solutions_inverses_determinants_and_factors_in_torch() -> None:
    c, r = (torch.tensor(v, requires_grad=True) for v in blocks(3, 2, "real"))
    shift = 4 * torch.eye(2, dtype=c.dtype)
    b = torch.tensor(np.random.default_rng(0).standard_normal((2, 6)))

    def of(method: str) -> Any:
        def function(c: Any, r: Any) -> Any:
            T = sm.BlockToeplitz(torch.cat([(c[:1] + shift), c[1:]]), r)
            if method == "inv":
                return T.inv().matvec(b)
            return T.inv_matvec(b) if method == "solve" else T.slogdet().logabsdet

        return function

    for method in ("solve", "inv", "slogdet"):
        assert torch.autograd.gradcheck(of(method), (c, r), fast_mode=True)
    each = torch.vmap(lambda c: of("solve")(c, r))(torch.stack([c, 2 * c]))
    np.testing.assert_allclose(each[1].detach(), of("solve")(2 * c, r).detach(), rtol=1e-12)
    assert torch.autograd.gradgradcheck(of("slogdet"), (c, r), fast_mode=True)
    d = torch.tensor(blocks(3, 2, "complex definite")[0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: sm.BlockToeplitz(d).cholesky(), (d,), fast_mode=True)


def test_derivatives_and_factors_in_jax() -> None:
    numbers = backends.get("jax").xp
    jax = importlib.import_module("jax")

    c, _ = blocks(3, 2, "definite")
    b = np.random.default_rng(0).standard_normal(6)

    def likelihood(c: Any, b: Any, library: Any) -> Any:
        T = sm.BlockToeplitz(c)
        return library.sum(b * T.inv_matvec(b)) + T.slogdet().logabsdet + library.sum(T.cholesky() ** 2)

    value, gradient = jax.jit(jax.value_and_grad(lambda c: likelihood(c, numbers.asarray(b), numbers)))(c)
    expected = torch.tensor(c, requires_grad=True)
    of_torch = likelihood(expected, torch.tensor(b), torch)
    of_torch.backward()
    np.testing.assert_allclose(value, of_torch.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, expected.grad, atol=1e-10)


def test_independent_components_have_the_solutions_of_one_ill_conditioned_component() -> None:
    n = 200
    g = np.exp(-((np.arange(n) / 8) ** 2)) + 1e-8 * (np.arange(n) == 0)
    b = np.random.default_rng(0).standard_normal((n, 2))
    x = sm.BlockToeplitz(g[:, None, None] * np.eye(2)).solve(b.ravel()).reshape(n, 2)
    dense = scipy.linalg.toeplitz(g)
    assert np.max(np.abs(dense @ x - b)) <= 1e-14 * np.max(np.abs(x)) * np.sum(np.abs(dense[n // 2]))
