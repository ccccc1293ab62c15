"""What the strategies draw: operators beside their matrices, as the options say, that shrink to small ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat.testing import check_operator
from structmat.testing import strategies as sms
from structmat.testing._kinds import KINDS
from tests import backends
from tests.cases import in_one_test

STRATEGIES = (sms.operators, sms.circulants, sms.diagonals, sms.toeplitz, sms.cdd_products, sms.compositions)
TOLERANCE = {"float32": 1e-4, "complex64": 1e-4, "float64": 1e-12, "complex128": 1e-12}


def assert_is_of_matrix(drawn: sms.DrawnOperator) -> None:
    A, dense = drawn
    assert (*A.batch_shape, *A.shape) == dense.shape
    found = A.to_dense() if A.dtype is None else backends.get("numpy").to_numpy(A.to_dense())
    scale = 1 + np.max(np.abs(dense), initial=0)
    name = "float64" if A.dtype is None else str(A.dtype).removeprefix("torch.")
    assert np.max(np.abs(found - dense), initial=0) <= TOLERANCE[name] * scale**2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_draws_operators_beside_their_matrix(strategy: Any) -> None:
    settings(max_examples=100)(given(strategy())(assert_is_of_matrix))()


@given(sms.operators(dtype="float64", shape=(4, 6), batch=(2,)))
def test_options_are_those_of_the_operator(drawn: sms.DrawnOperator) -> None:
    A, dense = drawn
    assert A.shape == (4, 6)
    assert A.batch_shape == (2,)
    assert dense.shape == (2, 4, 6)
    assert A.dtype == np.float64


@given(st.data())
def test_options_may_be_drawn_too(data: Any) -> None:
    shapes = st.sampled_from([(2, 2), (3, 5)])
    drawn = data.draw(sms.operators(shape=shapes, dtype=st.sampled_from(["float32", "complex64"]), batch=st.just((1,))))
    assert drawn.operator.shape in {(2, 2), (3, 5)}
    assert drawn.operator.dtype in {np.dtype("float32"), np.dtype("complex64")}


@given(sms.operators(sm.Toeplitz, sm.Diagonal, shape=(5, 5), conditioning=50.0))
def test_matrices_are_conditioned_as_asked_for(drawn: sms.DrawnOperator) -> None:
    assert type(drawn.operator) in {sm.Toeplitz, sm.Diagonal}
    assert np.all(np.linalg.cond(drawn.dense) <= 50)


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_operators_are_of_the_library(library: str) -> None:
    backends.get(library)

    @settings(max_examples=5)
    @given(st.data(), sms.circulants(library=library))
    def run(data: Any, drawn: sms.DrawnOperator) -> None:
        x = data.draw(sms.arrays_for(drawn.operator))
        assert type(x).__module__.startswith(library)
        assert drawn.operator.matvec(x).dtype == drawn.operator.dtype

    run()


@given(st.data(), sms.operators())
def test_arrays_are_those_that_an_operator_multiplies(data: Any, drawn: sms.DrawnOperator) -> None:
    A = drawn.operator
    x, y = data.draw(sms.arrays_for(A)), data.draw(sms.arrays_for(A, adjoint=True))
    X = data.draw(sms.arrays_for(A, columns=3, batch=()))
    assert A.matvec(x).shape == (*(A.batch_shape or x.shape[:-1]), A.shape[0])
    assert A.rmatvec(y).shape[-1] == A.shape[1]
    assert (A @ X).shape == (*A.batch_shape, A.shape[0], 3)


def test_every_kind_can_be_drawn() -> None:
    first = settings(max_examples=1, phases=[Phase.generate], database=None)
    for kind in {known.operator for known in KINDS.values()}:
        drawn = find(sms.operators(kind), lambda _: True, settings=first)
        assert isinstance(drawn.operator, kind)


def test_failing_examples_shrink_to_few_rows_and_small_whole_numbers() -> None:
    A, _ = find(sms.circulants(), lambda drawn: drawn.operator.shape[0] >= 3)
    assert (type(A), A.shape, A.batch_shape, A.dtype) == (sm.Circulant, (3, 3), (), np.float64)
    assert set(A.c.tolist()) <= set(range(1, 10))
    B, _ = find(sms.operators(), lambda drawn: drawn.operator.shape[0] != drawn.operator.shape[1])
    assert (B.shape, B.batch_shape, B.dtype.name) in {((1, 2), (), "float64"), ((2, 1), (), "float64")}
    D, dense = find(sms.operators(), lambda drawn: np.iscomplexobj(drawn.dense) and drawn.dense.ndim == 3)
    assert D.shape == (1, 1)
    assert dense.shape == (2, 1, 1)
    S, _ = find(sms.compositions(), lambda drawn: isinstance(drawn.operator, sm.Sum))
    assert (S.shape, S.batch_shape, S.dtype) == ((1, 1), (), np.float64)


@in_one_test(
    "make, error, text",
    [
        (lambda: sms.operators(int), TypeError, "operators: kinds must be classes of operators of structmat, got"),
        (lambda: sms.operators(conditioning=0.5), ValueError, "operators: conditioning must be at least 1, got 0.5"),
        (lambda: sms.compositions(most_steps=-1), ValueError, "compositions: most_steps must be at least 0, got -1"),
        (lambda: sms.operators(dtype="int8").example(), ValueError, "operators: dtype must be one of float64"),
        (lambda: sms.operators(library="nolibrary").example(), ValueError, "operators: library must be installed"),
        (lambda: sms.diagonals(shape=(2, 3)).example(), ValueError, "operators: shape must be one that these kinds"),
    ],
)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_options_that_cannot_be_are_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_hypothesis_is_needed_for_the_strategies_alone() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None; import structmat.testing; "
        "assert 'structmat.testing._kinds' not in sys.modules\n"
        "try:\n    import structmat.testing.strategies\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'needs the extra "testing": pip install "structmat[testing]"' in run.stdout


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("strategy", [sms.operators, sms.compositions])
def test_what_is_drawn_obeys_all_laws(strategy: Any, library: str) -> None:
    backends.get(library)

    @settings(max_examples=40)
    @given(strategy(library=library), st.booleans(), st.integers(0, 99))
    def run(drawn: sms.DrawnOperator, has_matrix: bool, seed: int) -> None:
        check_operator(drawn.operator, drawn.dense if has_matrix else None, rng=seed)

    run()


@settings(max_examples=4)
@given(sms.operators(), st.integers(0, 99))
def test_operators_obey_all_laws(drawn: sms.DrawnOperator, seed: int) -> None:
    check_operator(drawn.operator, drawn.dense, rng=seed)
