"""The families that a fit is compared with: dense references, members, and errors that never rise with the size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat.fit._baselines import _OF_FAMILY as BASELINES
from structmat.fit._baselines import _block_circulant as block_circulant
from structmat.fit._baselines import _monarch as monarch
from structmat.fit._baselines import _sparse_fourier as sparse_fourier
from structmat.fit._baselines import _truncated_svd as truncated_svd
from tests.cases import in_one_test
from tests.fit.matrices import matrix, relative, svd_error

SHAPES = [(1, 1), (1, 5), (6, 6), (7, 7), (8, 12), (12, 8), (9, 16), (16, 16)]


def random_matrix(shape, kind, seed=0):
    return matrix(shape, real="complex" not in kind, seed=seed).astype(kind)


@pytest.mark.parametrize("name", BASELINES)
@given(
    shape=st.sampled_from(SHAPES),
    kind=st.sampled_from(["float32", "float64", "complex128"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None)
def test_the_error_never_rises_and_the_budget_is_kept(name, shape, kind, seed):
    W = random_matrix(shape, kind, seed)
    budgets = list(range(2 * W.size + sum(shape)))
    members = BASELINES[name](W, budgets)
    errors = np.array([m.error for m in members])
    assert members[0] == (0, pytest.approx(1.0))
    assert (np.diff(errors) <= 1e-12).all()
    assert ((errors >= 0) & (errors <= 1 + 1e-12)).all()
    assert all(0 <= m.n_parameters <= budget for m, budget in zip(members, budgets, strict=True))
    # One budget at a time gives the same.
    assert BASELINES[name](W, [W.size]) == [members[W.size]]
    assert BASELINES[name](W, []) == []


@in_one_test("name", BASELINES)
@in_one_test("shape", [(6, 6), (4, 6)])
def test_the_zero_matrix_is_fitted(name, shape):
    assert [m.error for m in BASELINES[name](np.zeros(shape), [0, 7, 100])] == [0.0, 0.0, 0.0]


@in_one_test("name", ["truncated-svd", "block-circulant", "sparse-fourier"])
@pytest.mark.parametrize("shape", SHAPES)
@in_one_test("kind", ["float64", "complex128"])
def test_enough_parameters_give_the_matrix(name, shape, kind):
    enough = min(shape) * sum(shape)
    assert BASELINES[name](random_matrix(shape, kind), [enough])[0].error < 1e-14


# Each family: a dense reference, and members of its own


@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_truncated_svd_is_that_of_the_rank_that_fits(kind):
    W = random_matrix((9, 5), kind)
    u, s, vh = np.linalg.svd(W, full_matrices=False)
    for budget in (13, 14, 27, 28, 55, 1000):
        rank = min(budget // 14, 5)
        got = truncated_svd(W, [budget])[0]
        assert got.n_parameters == 14 * rank
        assert got.error == pytest.approx(relative(W, (u[:, :rank] * s[:rank]) @ vh[:rank]), abs=1e-14)
    low_rank = random_matrix((9, 2), kind) @ random_matrix((2, 5), kind)
    assert truncated_svd(low_rank, [28])[0].error < 1e-14


@pytest.mark.parametrize("rank", [2, 5])
def test_truncated_svd_with_inputs_is_the_weighted_one(rank):
    W, M = random_matrix((9, 5), "complex128"), random_matrix((5, rank), "complex128", 1)
    u, s, vh = np.linalg.svd(W @ M, full_matrices=False)
    P = (u[:, :1] * s[:1]) @ vh[:1] @ np.linalg.pinv(M)
    assert np.linalg.matrix_rank(P) == 1
    got = truncated_svd(W, [14, 14 * rank, 1000], M)
    assert got[0] == (14, pytest.approx(relative(W @ M, P @ M)))
    assert got[1].error < 1e-14
    assert got[2].error < 1e-14


@pytest.mark.parametrize("shape", [(8, 12), (12, 12), (9, 6)])
def test_block_circulant_is_the_best_size_that_fits(shape):
    W = random_matrix(shape, "float64")
    for budget in (5, 9, 12, 30, 60, W.size):
        best = (1.0, 0)
        for b in range(1, max(shape) + 1):
            count = -(-shape[0] // b) * -(-shape[1] // b) * b
            if count <= budget and (shape[0] % b == 0 or shape[1] % b == 0):
                best = min(best, (relative(W, sm.BlockCirculant.nearest(W, b).to_dense()), count))
        got = block_circulant(W, [budget])[0]
        assert (got.error, got.n_parameters) == (pytest.approx(best[0], abs=1e-14), best[1])


@pytest.mark.parametrize("b", [1, 2, 4])
def test_block_circulants_are_found(b):
    W = sm.BlockCirculant(random_matrix((8 // b, 12 // b, b), "float64")).to_dense()
    assert block_circulant(W, [96 // b])[0].error < 1e-14


def real_fourier_basis(rows, cols):
    """An orthonormal basis of cosines and sines of the torus, as columns."""
    i, j = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    waves = []
    for u in range(rows):
        for v in range(cols):
            opposite = (-u % rows, -v % cols)
            angle = 2 * np.pi * (u * i / rows + v * j / cols)
            if (u, v) <= opposite:
                waves.append(np.cos(angle))
            if (u, v) < opposite:
                waves.append(np.sin(angle))
    basis = np.array([wave.ravel() / np.linalg.norm(wave) for wave in waves]).T
    np.testing.assert_allclose(basis.T @ basis, np.eye(rows * cols), atol=1e-12)
    return basis


@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (1, 8), (3, 4)])
def test_sparse_fourier_of_a_real_matrix_keeps_the_largest_cosines_and_sines(shape):
    W = random_matrix(shape, "float64")
    sizes = np.sort(np.abs(real_fourier_basis(*shape).T @ W.ravel()))
    for count, member in enumerate(sparse_fourier(W, range(W.size + 1))):
        left = np.linalg.norm(sizes[: W.size - count]) / np.linalg.norm(W)
        assert (member.n_parameters, member.error) == (count, pytest.approx(left, abs=1e-14))


def test_sparse_fourier_of_a_complex_matrix_keeps_the_largest_coefficients():
    W = random_matrix((4, 6), "complex128")
    transform = np.fft.fft2(W)
    for count in (1, 5, 23):
        kept = np.where(np.abs(transform) >= np.sort(np.abs(transform), axis=None)[-count], transform, 0)
        assert sparse_fourier(W, [count])[0].error == pytest.approx(relative(W, np.fft.ifft2(kept)))


def random_monarch(rows, cols, g, rng):
    """Two block-diagonal matrices with a permutation between them, by dense products."""
    right, left = np.zeros((g * g, cols)), np.zeros((rows, g * g))
    for k in range(g):
        right[k * g : (k + 1) * g, k * (cols // g) : (k + 1) * (cols // g)] = rng.standard_normal((g, cols // g))
        left[k * (rows // g) : (k + 1) * (rows // g), k * g : (k + 1) * g] = rng.standard_normal((rows // g, g))
    inner = np.arange(g * g).reshape(g, g).T.ravel()
    outer = np.arange(rows).reshape(g, rows // g).T.ravel()
    return left[outer] @ right[inner]


@in_one_test("rows, cols, g", [(4, 4, 2), (9, 9, 3), (16, 16, 4), (8, 12, 4), (12, 8, 2), (16, 16, 2)])
def test_monarch_matrices_are_found(rows, cols, g):
    W = random_monarch(rows, cols, g, np.random.default_rng(1))
    got = monarch(W, [g * (rows + cols)])[0]
    assert got.error < 1e-14
    assert got.n_parameters <= g * (rows + cols)
    assert monarch(W, [g * (rows + cols) - 1])[0].error > 1e-3


def test_monarch_projection_is_part_by_part():
    W = random_matrix((6, 4), "float64")
    P = np.zeros_like(W)
    for j in range(2):
        for k in range(2):
            u, s, vh = np.linalg.svd(W[j::2, 2 * k : 2 * k + 2])
            P[j::2, 2 * k : 2 * k + 2] = s[0] * np.outer(u[:, 0], vh[0])
    assert monarch(W, [20])[0] == (20, pytest.approx(relative(W, P)))


def test_without_a_common_divisor_there_is_no_monarch_matrix():
    assert monarch(random_matrix((9, 16), "float64"), [1000]) == [(0, 1.0)]


@in_one_test("shape", [(12, 12), (14, 9), (7, 12)])
@in_one_test("k", [2, 3, 4])
def test_five_factors_in_blocks_hold_the_truncated_svd(shape, k):
    W = random_matrix(shape, "float64")
    layout = sm.CDDLayout(shape, 5, -(-min(shape) // k))
    (member,) = BASELINES["cdd-in-blocks"](W, [layout.n_parameters])
    rank = -(-min(shape) // layout.block_size)
    assert member.error <= svd_error(W, rank) + 1e-12
    fit = sm.fit_cdd(W, 5, block_size=layout.block_size, rng=0, time_limit=0)
    assert fit.error <= svd_error(W, rank) + 1e-12
