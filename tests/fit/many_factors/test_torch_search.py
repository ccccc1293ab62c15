"""The search on tensors of torch: the laws of NumPy's, and no copy or wait in the loop of the exploration."""

import signal

import numpy as np
import pytest
from scipy.linalg import circulant

from structmat.fit import fit_cdd
from structmat.fit._many_factors import adam, array_work, lbfgs, problem
from structmat.fit._many_factors.objective import Objective
from structmat.fit._many_factors.random_starts import random_orthogonal
from structmat.operators import CDDLayout, Diagonal

torch = pytest.importorskip("torch")
dispatch = pytest.importorskip("torch.utils._python_dispatch")


@pytest.fixture(autouse=True)
def on_torch(monkeypatch):
    """Small tensors are read by NumPy, which is faster there."""
    monkeypatch.setattr(array_work, "_is_slower", lambda torch, entries: False)


@pytest.fixture
def calls(monkeypatch):
    """The devices that evaluations were made on."""
    seen, evaluate = [], Objective.value_and_gradient

    def spied(objective, parameters):
        seen.append(parameters.device)
        return evaluate(objective, parameters)

    monkeypatch.setattr(Objective, "value_and_gradient", spied)
    return seen


def normal(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return torch.asarray(values if dtype.is_complex else values.real, dtype=dtype)


def dense(operator):
    """The product by the definition of its factors."""
    product = np.eye(operator.shape[1])
    for factor in reversed(operator.factors):
        vector = factor._arrays()[0].to(torch.complex128).numpy()
        if isinstance(factor, Diagonal):
            product = vector[:, None] * product
            continue
        grid = np.block([[circulant(c) for c in row] for row in (vector if vector.ndim == 3 else vector[None, None])])
        product = grid[: factor.shape[0], : factor.shape[1]] @ product
    return product


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((9, 9), torch.float32, {}),
        ((8, 8), torch.float64, {"solver": "lbfgs"}),
        ((8, 8), torch.complex64, {"n_factors": 4, "first": "circulant"}),
        ((6, 8), torch.float64, {"block_size": 4}),
        ((8, 6), torch.bfloat16, {}),
        ((8, 6), torch.float64, {"input_second_moment": np.diag(np.arange(1.0, 7.0)) + 0.1}),
    ],
    ids=str,
)
def test_the_error_is_that_of_the_product(calls, shape, dtype, options):
    W = normal(shape, dtype)
    result = fit_cdd(W, **{"n_factors": 5, "restarts": 1, **options}, rng=0, max_iter=40)
    assert set(calls) == {torch.device("cpu")}
    moment = options.get("input_second_moment", np.eye(shape[1]))
    root = np.linalg.cholesky(moment)
    values = W.to(torch.complex128).numpy()
    expected = np.linalg.norm((values - dense(result.operator)) @ root) / np.linalg.norm(values @ root)
    assert result.operator.dtype == dtype
    assert result.error == pytest.approx(expected, rel=2e-2 if dtype == torch.bfloat16 else 1e-4)
    assert result.error < 0.9
    assert np.all(np.diff(result.history) <= 0)


def test_a_matrix_without_double_precision_stays_in_single(monkeypatch):
    monkeypatch.setattr(array_work, "has_double", lambda like: False)
    monkeypatch.setattr(problem, "has_double", lambda like: False)
    dtypes, evaluate = set(), Objective.value_and_gradient

    def spied(objective, parameters):
        values, gradient = evaluate(objective, parameters)
        dtypes.update((parameters.dtype, values.dtype, gradient.dtype))
        return values, gradient

    monkeypatch.setattr(Objective, "value_and_gradient", spied)
    result = fit_cdd(normal((8, 8), torch.float32), 5, rng=0, max_iter=30)
    assert dtypes == {torch.float32}
    assert result.error < 1.0


def test_time_limits_and_interrupts():
    W = normal((12, 12), torch.float32)
    assert fit_cdd(W, 5, rng=0, time_limit=0).stopped == "time limit"
    seen = []

    def hear(progress):
        seen.append(progress.error)
        if len(seen) == 40:
            signal.raise_signal(signal.SIGINT)

    assert fit_cdd(W, 5, rng=0, callback=hear, on_interrupt="return").stopped == "interrupted"
    assert len(seen) <= 44


def explored(like, steps_at_once=1, steps=21):
    """The chains and the reported errors of an exploration whose errors are read after so many steps."""
    layout = CDDLayout((6, 6), 5)
    objective = Objective(layout, normal((6, 6), torch.float64).numpy(), like=like)
    objective.work.steps_at_once = steps_at_once
    chains = objective.work.moved(random_orthogonal(layout, 2, np.random.default_rng(0), objective.dtype))
    reports = []
    adam.anneal(objective, chains, np.array([0.2, 0.1]), steps, deadline=None, report=lambda *r: reports.append(r))
    numbers, errors = zip(*reports, strict=True)
    assert numbers == (*range(1, steps + 1),)
    return np.asarray(chains), np.array(errors)


def polished(like, chain):
    """The errors of a few iterations."""
    objective = Objective(CDDLayout((6, 6), 5), normal((6, 6), torch.float64).numpy(), like=like)
    errors = []
    lbfgs.polish(objective, chain, max_iter=8, tol=0.0, deadline=None, report=lambda error, _: errors.append(error))
    return errors


def test_torch_explores_and_polishes_as_numpy_does():
    (chains, errors), (of_numpy, errors_of_numpy) = explored(torch.zeros(1)), explored(None)
    assert errors == pytest.approx(errors_of_numpy, rel=1e-8)
    assert chains == pytest.approx(of_numpy, rel=1e-8, abs=1e-8)
    assert polished(torch.zeros(1), chains[0]) == pytest.approx(polished(None, chains[0]), rel=1e-8)


def test_errors_that_are_read_later_are_the_same():
    (chains, errors), (same, at_once) = explored(torch.zeros(1)), explored(torch.zeros(1), 8)
    assert np.array_equal(chains, same)
    assert np.array_equal(errors, at_once)


class Crossings(dispatch.TorchDispatchMode):
    """Lists operations between devices."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in (*args, *(kwargs or {}).values(), out) if isinstance(x, torch.Tensor)]
        if len({x.device for x in tensors}) > 1:
            self.found.append(str(func))
        return out


@pytest.mark.parametrize(
    ("layout", "weighted", "dtype"),
    [
        (CDDLayout((6, 6), 5), False, np.float32),
        (CDDLayout((6, 6), 4), True, np.complex64),
        (CDDLayout((6, 4), 5, 3), False, np.float64),
        (CDDLayout((5, 20), 3, 1), True, np.float32),
    ],
    ids=str,
)
def test_nothing_is_copied_or_waited_for_in_the_loop(monkeypatch, layout, weighted, dtype):
    # Tensors of this device have no values: reading one raises, and so does an operation with one of the CPU.
    like = torch.zeros(1, device="meta")
    target = np.ones((layout.shape[0], 3 if weighted else layout.shape[1]), dtype=dtype)
    inputs = np.ones((layout.shape[1], 3), dtype=dtype) if weighted else None
    objective = Objective(layout, target, inputs, like=like)
    chains = objective.work.moved(np.ones((2, layout.n_parameters), dtype=dtype))
    with pytest.raises(NotImplementedError, match="meta"):
        chains.cpu()
    read = []

    def to_numpy(values):
        read.append(len(values))
        return np.zeros(values.shape)

    monkeypatch.setattr(adam, "to_numpy", to_numpy)
    with Crossings() as crossings:
        whole = adam.anneal(objective, chains, np.ones(2), 20, deadline=None, report=lambda *_: None)
    assert whole
    assert read == [16, 4]
    assert crossings.found == ["aten._to_copy.default"]  # the rates, before the first step
