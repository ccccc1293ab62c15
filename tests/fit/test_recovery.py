"""Planted products are found, without noise to rounding and under noise as well as from the true factors."""

import numpy as np
import pytest

from structmat.fit import fit_cdd
from structmat.fit._alternation import Run, alternate
from structmat.fit._block_grid import BlockGrid, Factors
from structmat.fit._matrices import most_spread
from tests.fit.matrices import matrix_of, planted, with_noise

KINDS = ["normal", "complex normal", "signs", "phases", "uniform"]
SQUARES = [2, 3, 7, 16, 64, 65, 200]
GRIDS = [
    ((14, 21), 7),
    ((32, 48), 16),
    ((128, 192), 64),
    ((11, 17), 7),
    ((20, 13), 7),
    ((16, 40), 16),
    ((41, 40), 40),
    ((19, 18), 5),
    ((9, 9), 4),
]


def optimum_from_the_truth(W, vectors, block_size):
    """The error that the solver reaches from the true factors, padded as the solver wants them."""
    grid = BlockGrid(W, block_size)
    a, c, b = vectors
    padded = [
        np.concatenate([x, np.zeros(blocks * block_size - x.size)]).reshape(blocks, block_size)
        for x, blocks in ((a, grid.p), (b, grid.q))
    ]
    begun = Run.begin(grid, Factors(padded[0], c, padded[1]))
    return alternate(grid, begun, 500, 1e-7).error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SQUARES)
def test_square_without_noise(kind, n):
    for seed in range(3):
        W, _ = planted(kind, np.random.default_rng([n, seed]), (n, n), n)
        assert fit_cdd(W, rng=seed).error < 1e-7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "block_size"), GRIDS)
def test_blocks_without_noise(kind, shape, block_size):
    for seed in range(3):
        W, _ = planted(kind, np.random.default_rng([*shape, seed]), shape, block_size)
        assert fit_cdd(W, block_size=block_size, rng=seed).error < 1e-7


@pytest.mark.parametrize("kind", ["normal", "complex normal"])
@pytest.mark.parametrize("level", [0.5, 1.0])
@pytest.mark.parametrize(("shape", "block_size"), [((64, 64), 64), ((65, 65), 65), ((128, 192), 64), ((100, 150), 64)])
def test_noisy(kind, level, shape, block_size):
    for seed in range(2):
        rng = np.random.default_rng([*shape, seed])
        clean, vectors = planted(kind, rng, shape, block_size)
        W = with_noise(clean, level, rng)
        reached = fit_cdd(W, block_size=block_size, rng=seed).error
        assert reached <= 1.001 * optimum_from_the_truth(W, vectors, block_size)


@pytest.mark.parametrize("kind", ["normal", "complex normal"])
def test_single_precision(kind):
    W, _ = planted(kind, np.random.default_rng(1), (64, 64), 64)
    W = W.astype(np.complex64 if np.iscomplexobj(W) else np.float32)
    assert fit_cdd(W, rng=0).error < 1e-6


@pytest.mark.parametrize("level", [0.0, 0.5])
@pytest.mark.parametrize(("shape", "block_size"), [((32, 32), 32), ((32, 48), 16), ((30, 41), 16)])
def test_the_transpose_is_fitted_as_well(shape, block_size, level):
    rng = np.random.default_rng(2)
    W = with_noise(planted("normal", rng, shape, block_size)[0], level, rng)
    error, transposed = (fit_cdd(X, block_size=block_size, rng=0).error for X in (W, W.T))
    assert transposed == pytest.approx(error, rel=1e-4, abs=1e-9)


def test_rows_and_columns_of_zeros_do_not_hinder():
    W, _ = planted("uniform", np.random.default_rng(3), (40, 40), 40)
    W[[3, 20]] = 0.0
    W[:, 11] = 0.0
    fit = fit_cdd(W, rng=0)
    assert fit.error < 1e-7
    assert not np.asarray(fit.operator.to_dense())[[3, 20]].any()


@pytest.mark.parametrize("seed", range(2))
def test_factors_keep_their_accuracy_where_the_alternation_diverges(seed):
    """Without a bound the factors of these sparse matrices grow until products in single precision mean nothing."""
    W = matrix_of("sparse", (9, 9), np.float32, np.random.default_rng(seed)).astype(np.float32)
    a, c, b = (np.asarray(factor.to_dense(), dtype=np.float64) for factor in fit_cdd(W, rng=0).operator.factors)
    # Of one block the spread is the product of the norms over the side.
    spread = np.linalg.norm(a) * (np.linalg.norm(c) / 3.0) * np.linalg.norm(b) / 3.0
    assert spread <= 1.001 * most_spread(np.float32) * np.linalg.norm(W)
