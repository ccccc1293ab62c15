"""The loop that all doors share, and what results tell of the ways that were tried."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import BlockToeplitzSystem, ToeplitzSystem
from structmat._ways import settle
from structmat.linear_systems import _logdet, _solve


class Way:
    def __init__(self, cost: float | None, answers: bool) -> None:
        self._cost, self.answers, self.times_asked = cost, answers, 0

    def cost(self, problem: Any) -> float | None:
        self.times_asked += 1
        return self._cost


class Problem:
    def __init__(self) -> None:
        self.is_settled, self.taken = False, []

    def take(self, way: Any, others: list[Any]) -> None:
        assert way not in others
        self.taken.append(way)
        self.is_settled = way.answers


@given(st.lists(st.builds(Way, st.one_of(st.none(), st.integers(0, 4)), st.booleans()), max_size=8))
def test_ways_are_taken_by_their_cost_until_one_answers(ways):
    problem = Problem()
    settle(problem, ways)
    offered = sorted((way for way in ways if way._cost is not None), key=lambda way: way._cost)  # which keeps ties
    answers = [k for k, way in enumerate(offered) if way.answers]
    assert problem.taken == offered[: answers[0] + 1 if answers else None]


def test_nothing_is_asked_after_a_way_that_costs_nothing_and_answers():
    ways = [Way(0, True), Way(0, True)]
    settle(Problem(), ways)
    assert [way.times_asked for way in ways] == [1, 0]


def turned(names):
    """Return names in their order, a way that comes again after others in brackets with how often it does."""
    counted = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counted.items())


def by_cost(ways, problem):
    costs = [(way.cost(problem), k, way.name) for k, way in enumerate(ways)]
    return [name for cost, _, name in sorted(each for each in costs if each[0] is not None)]


def offered(system, count):
    return [name for takes, name in sorted((takes, name) for name, takes, _ in system._ways(count) if takes)]


def test_the_tables_of_ways_are_those_of_the_guide():
    few, many = (_logdet._LogDeterminant(series(n, 1.0), None, "slogdet", numpy_namespace) for n in (100, 2000))
    small, large = (ToeplitzSystem(c, c) for c in (0.9 ** np.arange(300), 0.9 ** np.arange(5000)))
    blocks = BlockToeplitzSystem(*[np.stack([np.eye(2)] * 100)] * 2)
    tables = {
        "`solve`, to 1,024 rows": turned([way.name for way in _solve._WAYS]),
        "`solve`, above": turned([way.name for way in _solve._WAYS_OF_LARGE]),
        "`lstsq`": turned([way.name for way in _solve._WAYS_OF_LEAST_SQUARES]),
        "`slogdet`, to 1,024 rows": turned(by_cost(_logdet._WAYS, few)),
        "`slogdet`, above": turned(by_cost(_logdet._WAYS, many)),
        "`Toeplitz.solve`, from 129 rows": turned(offered(small, 1)),
        "`Toeplitz.solve`, above 4,096": turned(offered(large, 1)),
        "`BlockToeplitz.solve`, from 129 rows": turned(offered(blocks, 1)),
    }
    guide = (Path(__file__).parents[2] / "docs/guide/conventions.md").read_text("utf-8")
    rows = guide.partition("| function | ways")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows == [f"| {function} | {ways} |" for function, ways in tables.items()]


def series(n, noise, seed=0):
    rng = np.random.default_rng(seed)
    return sm.Toeplitz(np.exp(-0.5 * (np.arange(n) / 8) ** 2)) + sm.Diagonal(noise * (1 + rng.random(n)))


def random_sum(n):
    rng = np.random.default_rng(n)
    return sm.Toeplitz(*rng.standard_normal((2, n))) + sm.Diagonal(rng.standard_normal(n))


def band(n):
    c = np.zeros(n)
    c[:2] = 3, -1
    return sm.Toeplitz(c) + sm.Diagonal(np.linspace(1, 2, n))


@pytest.mark.parametrize(
    ("A", "ways"),
    [
        (sm.Circulant(np.array([2.0, 1.0, 0.0])), ["closed form"]),
        (band(40), ["closed form", "band"]),
        (series(40, 1.0), ["closed form", "elimination"]),
        (series(600, 1.0), ["closed form", "iteration"]),
        (random_sum(600), ["closed form", "iteration", "elimination"]),
        (series(1100, 1e-6), ["closed form", "direct factor", "iteration", "direct factor"]),
    ],
)
def test_a_solution_lists_the_ways_that_were_tried(A, ways):
    found = sm.solve(A, np.ones(A.shape[0]))
    assert [attempt.way for attempt in found.ways] == ways
    assert np.all(found.ways[-1].error == found.residual)
    assert all(attempt.said for attempt in found.ways[:-1] if attempt.error is None)
    assert all(str(attempt).startswith(attempt.way) for attempt in found.ways)


@pytest.mark.parametrize(
    ("A", "options", "ways"),
    [
        (sm.Diagonal(np.ones(3)), {}, ["closed form"]),
        (band(40), {}, ["closed form", "band"]),
        (series(40, 1.0), {}, ["closed form", "band", "dense factor"]),
        (series(1100, 1.0), {}, ["band", "direct factor"]),
        (series(50, 1.0), {"n_probes": 8, "rng": 0}, ["closed form", "estimate"]),
    ],
)
def test_a_determinant_lists_the_ways_that_were_tried(A, options, ways):
    found = sm.slogdet(A, **options)
    assert [attempt.way for attempt in found.ways] == ways
    assert math.isclose(found.ways[-1].error, found.standard_error, rel_tol=1e-12)


def test_least_squares_list_the_ways_that_were_tried():
    A = sm.Toeplitz(np.eye(1, 200)[0] + 0.1, np.eye(1, 150)[0])
    assert [attempt.way for attempt in sm.lstsq(A, np.ones(200)).ways] == ["closed form", "iteration"]
    assert [attempt.way for attempt in sm.lstsq(A, np.ones(200), damp=0.1).ways] == ["closed form", "iteration"]
    assert [attempt.way for attempt in sm.lstsq(A[:90, :80], np.ones(90)).ways] == ["closed form", "singular vectors"]


def test_an_error_holds_the_ways_that_were_tried():
    with pytest.raises(sm.ConvergenceError) as error:
        sm.solve(random_sum(64), np.ones(64), max_iter=2)
    assert [attempt.way for attempt in error.value.result.ways] == ["closed form", "iteration"]


def test_a_result_is_a_tuple_of_three_that_is_copied_with_its_ways():
    found = sm.solve(series(40, 1.0), np.ones(40))
    x, residual, iterations = found
    assert (x is found[0], residual == found.residual, iterations) == (True, True, 0)
    for copied in (copy.copy(found), pickle.loads(pickle.dumps(found))):
        assert type(copied) is sm.SolveResult
        assert [attempt.way for attempt in copied.ways] == [attempt.way for attempt in found.ways]
    assert sm.SolveResult(x, residual, iterations).ways == ()


def test_results_are_named_tuples_to_the_pytrees_of_jax():
    jax = pytest.importorskip("jax")
    tree = jax.tree.map(lambda leaf: leaf, sm.solve(series(40, 1.0), np.ones(40)))
    assert type(tree) is sm.SolveResult
    assert tree.iterations == 0


def test_results_are_named_tuples_to_the_pytrees_of_torch():
    pytest.importorskip("torch")
    from torch.utils import _pytree

    tree = _pytree.tree_map(lambda leaf: leaf, sm.solve(series(40, 1.0), np.ones(40)))
    assert type(tree) is sm.SolveResult
    assert tree.iterations == 0
    assert sm.SolveResult.__bases__ == (tuple,)  # some releases of torch take no subclass of a named tuple for one
