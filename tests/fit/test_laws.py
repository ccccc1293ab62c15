"""Laws of every fit, whatever the matrix: never worse than the closed forms, honest about its error, reproducible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structmat.fit import fit_cdd
from tests.fit.matrices import closed_form_errors, dense, matrix_of, planted, relative, with_noise

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
# Largest excess over a closed form, by precision of the matrix: rounding of the returned vectors.
SLACK = {4: 1e-6, 8: 1e-12}
KINDS = ["normal", "heavy tails", "sparse", "banded", "permutation", "single entry", "signs", "low rank"]


def slack(W):
    return SLACK[W.real.dtype.itemsize]


@st.composite
def problems(draw):
    """A matrix and a block size."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    dtype = draw(st.sampled_from(DTYPES))
    block_size = draw(st.just("min") | st.integers(1, max(shape)))
    W = matrix_of(draw(st.sampled_from(KINDS)), shape, dtype, np.random.default_rng(draw(st.integers(0, 2**16))))
    return W, block_size


def check_all_laws(W, block_size, fit):
    size = min(W.shape) if block_size == "min" else block_size
    exact = W.astype(np.result_type(W.dtype, np.float64))
    for name, closed_form in closed_form_errors(exact, size).items():
        assert fit.error <= closed_form + slack(W), name
    assert fit.error == pytest.approx(relative(exact, fit.operator.to_dense()), abs=slack(W))
    assert fit.history[-1] == pytest.approx(fit.error, abs=slack(W) * 10)
    assert fit.history.dtype == np.float64
    assert (np.diff(fit.history) <= 0.0).all()
    assert len(fit.history) == fit.n_iter + 1
    assert fit.operator.shape == W.shape
    assert fit.operator.dtype == W.dtype


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_random_matrices(problem):
    W, block_size = problem
    check_all_laws(W, block_size, fit_cdd(W, block_size=block_size, rng=0))


@settings(max_examples=40, deadline=None)
@given(
    W=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.sampled_from([0.0, 0.0, 1.0, -1.0, 1e-8, 3.0, 1e8]),
    )
)
def test_adversarial_entries(W):
    check_all_laws(W, "min", fit_cdd(W, rng=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "block_size"), [((70, 70), "min"), ((300, 280), "min"), ((40, 90), 16)])
@pytest.mark.parametrize("max_iter", [1, 60])
def test_larger_matrices(kind, shape, block_size, max_iter):
    W = matrix_of(kind, shape, np.float64, np.random.default_rng(5))
    fit = fit_cdd(W, block_size=block_size, rng=0, max_iter=max_iter)
    assert fit.n_iter <= max_iter
    check_all_laws(W, block_size, fit)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize(
    ("shape", "block_size"), [((9, 9), "min"), ((12, 7), "min"), ((7, 12), 5), ((1, 8), "min"), ((8, 1), 3)]
)
class TestMembersOfTheSet:
    """Matrices that are such products are fitted exactly."""

    def fit(self, W, dtype, block_size):
        return fit_cdd(W.astype(dtype), block_size=block_size, rng=0)

    def test_zero(self, dtype, shape, block_size):
        fit = self.fit(np.zeros(shape), dtype, block_size)
        assert fit.error == 0.0
        assert fit.converged
        assert not np.asarray(fit.operator.to_dense()).any()

    def test_rank_one(self, dtype, shape, block_size):
        rng = np.random.default_rng(0)
        W = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
        assert self.fit(W, dtype, block_size).error < 1e-12

    def test_diagonal(self, dtype, shape, block_size):
        rng = np.random.default_rng(0)
        W = np.eye(*shape) * rng.standard_normal(shape)
        assert self.fit(W, dtype, block_size).error < 1e-12

    def test_block_circulant(self, dtype, shape, block_size):
        size = min(shape) if block_size == "min" else block_size
        c = np.random.default_rng(0).standard_normal((*(-(-side // size) for side in shape), size))
        W = dense(np.ones(shape[0]), c, np.ones(shape[1]))
        assert self.fit(W, dtype, block_size).error < 1e-12


@pytest.mark.parametrize(
    ("dtype", "alpha"),
    [(np.float64, 1e-200), (np.float64, 1e200), (np.float64, -3.0), (np.float32, 1e-30), (np.float32, 1e30)],
)
def test_scaling_leaves_the_error(dtype, alpha):
    rng = np.random.default_rng(4)
    W = with_noise(planted("uniform", rng, (12, 9), 9)[0], 0.1, rng).astype(dtype)
    plain, scaled = (fit_cdd(X, rng=0) for X in (W, W * dtype(alpha)))
    assert scaled.error == pytest.approx(plain.error, rel=1e-6 if dtype is np.float64 else 1e-4)
    assert relative(W, np.asarray(scaled.operator.to_dense()) / dtype(alpha)) == pytest.approx(scaled.error, rel=1e-5)


def test_the_same_seed_gives_the_same_fit():
    W = np.random.default_rng(6).standard_normal((20, 20))
    first, again = (fit_cdd(W, rng=np.random.default_rng(8)) for _ in range(2))
    assert first.to_dict() == again.to_dict() == fit_cdd(W, rng=8).to_dict()
    assert np.array_equal(first.operator.to_dense(), again.operator.to_dense())


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES])
def test_the_matrix_is_only_read(dtype):
    W = np.random.default_rng(7).standard_normal((6, 6)).astype(dtype)
    before = W.copy()
    W.flags.writeable = False
    fit = fit_cdd(W, rng=0)
    assert np.array_equal(W, before)
    assert fit.operator.dtype == dtype


@pytest.mark.parametrize("block_size", [1, 5])
def test_any_memory_layout(block_size):
    rng = np.random.default_rng(9)
    W = with_noise(planted("uniform", rng, (10, 14), 5)[0], 0.1, rng)
    expected = fit_cdd(W[::2, ::-2].copy(), block_size=block_size, rng=0)
    for view in (W[::2, ::-2], np.asfortranarray(W[::2, ::-2]), W[::2, ::-2].astype(">f8")):
        assert fit_cdd(view, block_size=block_size, rng=0).error == pytest.approx(expected.error, rel=1e-6, abs=1e-12)
