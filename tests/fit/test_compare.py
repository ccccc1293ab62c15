"""The public functions of the baselines: dense references, scales, weights, refusals."""

import numpy as np
import pytest

import structmat as sm
from structmat.fit import BASELINES, baseline_errors
from structmat.studies._changes import weighted_norm
from tests.cases import in_one_test
from tests.fit.matrices import matrix, svd_error


def second_moment(cols, rank, *, real=True):
    X = matrix((cols, rank), real=real, seed=1)
    return X @ X.conj().T


def truncated_svd_error(W, rank, **weights):
    budget = [rank * sum(W.shape)]
    return baseline_errors(W, budget, names=["truncated-svd"], **weights)["truncated-svd"][1][0]


def test_all_baselines_are_compared_by_name():
    W = matrix((8, 12))
    found = baseline_errors(W, [20, 40])
    assert tuple(found) == BASELINES
    used, error = found["truncated-svd"]
    assert used.tolist() == [20, 40]
    assert error == pytest.approx([svd_error(W, 1), svd_error(W, 2)])
    assert list(baseline_errors(W, [20], names=["monarch"])) == ["monarch"]
    assert list(baseline_errors(W, [20], input_second_moment=np.ones(12))) == ["truncated-svd"]


@in_one_test("scale", [1e-300, 1.0, 1e300])
@in_one_test("real", [True, False])
def test_scales_do_not_matter(scale, real):
    W = matrix((6, 4), real=real)
    assert truncated_svd_error(W * scale, 2) == pytest.approx(svd_error(W, 2))
    want, got = (baseline_errors(w, [20]) for w in (W, W * scale))
    assert {name: error for name, (_, error) in got.items()} == {
        name: pytest.approx(error) for name, (_, error) in want.items()
    }


@pytest.mark.parametrize("rank", [3, 9])
@pytest.mark.parametrize("real", [True, False])
def test_weighted_errors_are_those_of_the_weighted_matrix(rank, real):
    W, S = matrix((5, 6), real=real), second_moment(6, rank, real=real)
    values, vectors = np.linalg.eigh(S)
    weighted = W @ (vectors * np.sqrt(np.maximum(values, 0.0)))
    assert truncated_svd_error(W, 2, input_second_moment=S) == pytest.approx(svd_error(weighted, 2))
    assert weighted_norm(W, S) == pytest.approx(np.linalg.norm(weighted))
    used, error = baseline_errors(W, [22], input_second_moment=S)["truncated-svd"]
    assert (used.tolist(), error) == ([22], pytest.approx([svd_error(weighted, 2)]))
    diagonal = np.diag(S).real
    of_columns = svd_error(W * np.sqrt(diagonal), 1)
    assert truncated_svd_error(W, 1, input_second_moment=diagonal) == pytest.approx(of_columns)


def test_the_ends_of_the_ranks():
    W = matrix((4, 6))
    assert truncated_svd_error(W, 0) == 1.0
    assert [truncated_svd_error(W, rank) for rank in (4, 100)] == [0.0, 0.0]
    assert truncated_svd_error(np.zeros((3, 3)), 0) == 0.0
    large = matrix((700, 601))
    assert truncated_svd_error(large, 0) == 1.0
    assert truncated_svd_error(large, 3) == pytest.approx(svd_error(large, 3), rel=1e-9)
    low_rank = large[:, :2] @ large[:2]
    assert truncated_svd_error(low_rank, 1) == pytest.approx(svd_error(low_rank, 1), rel=1e-9)
    assert truncated_svd_error(low_rank, 2) < 1e-14


@in_one_test(
    "call, argument",
    [
        (lambda: baseline_errors(np.ones(3), [1]), "W"),
        (lambda: baseline_errors([[np.nan]], [1]), "W"),
        (lambda: baseline_errors(np.eye(3), 3), "n_parameters"),
        (lambda: baseline_errors(np.eye(3), ["3"]), "n_parameters"),
        (lambda: baseline_errors(np.eye(3), [-1]), "n_parameters"),
        (lambda: baseline_errors(np.eye(3), [1], names=["svd"]), "names"),
        (lambda: baseline_errors(np.eye(3), [1], names=["monarch"], input_second_moment=np.ones(3)), "names"),
        (lambda: baseline_errors(np.eye(3), [1], input_second_moment=np.ones(2)), "input_second_moment"),
        (lambda: baseline_errors(np.eye(3), [1], input_second_moment=-np.eye(3)), "input_second_moment"),
    ],
)
def test_errors_know_their_argument(call, argument):
    with pytest.raises(sm.ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
