"""What is handed out is the caller's own: prepared operators are snapshots, and results are no views of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, Vectors

PLAIN = [entry for entry in REGISTRY if not entry.name.startswith("Prepared")]
entries = pytest.mark.parametrize("entry", PLAIN, ids=lambda e: e.name)


@pytest.fixture(autouse=True)
def _arrays_can_be_changed(request: pytest.FixtureRequest) -> None:
    if "backend" in request.fixturenames and request.getfixturevalue("backend").name == "jax":
        pytest.skip("arrays of JAX cannot be changed")


def drawn(backend: Backend, entry: Entry, dtype: str, seed: int = 5) -> Any:
    return entry.draw(Vectors(seed, dtype)).make(backend.asarray)


def dense(backend: Backend, op: Any) -> np.ndarray:
    return np.array(op.to_dense() if op.dtype is None else backend.to_numpy(op.to_dense()))


@entries
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_prepared_operator_does_not_follow_its_parameters(backend: Backend, entry: Entry, dtype: str) -> None:
    op = drawn(backend, entry, dtype)
    v = Vectors(0, dtype)
    a, x, y = backend.asarray, v(3, op.shape[1]), v(3, op.shape[0])
    for P in (op.prepare(), op.prepare().T.T, 2 * op.prepare() / 2):

        def answers(P: Any = P) -> list[np.ndarray]:
            found = [P.matvec(a(x)), P.rmatvec(a(y)), P.matvec(a(x[0])), P @ a(x.T), P.T.matvec(a(y))]
            if "solve" in entry.closed_forms:
                found.append(P.inv_matvec(a(y)))
            return [*(np.array(backend.to_numpy(f)) for f in found), dense(backend, P)]

        before = answers()
        kept = [(array, np.array(backend.to_numpy(array))) for array in op._arrays()]
        for array, _ in kept:
            array[...] = 0
        for now, then in zip(answers(), before, strict=True):
            np.testing.assert_array_equal(now, then)
        for array, values in kept:
            array[...] = a(values)


@entries
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_results_are_no_views_of_the_operator(backend: Backend, entry: Entry, dtype: str) -> None:
    for seed in (5, 6, 7):
        results_are_no_views(backend, entry, drawn(backend, entry, dtype, seed), dtype)


def results_are_no_views(backend: Backend, entry: Entry, op: Any, dtype: str) -> None:
    before = dense(backend, op)
    x = backend.asarray(Vectors(0, dtype)(op.shape[1]))
    calls = {
        "diagonal": op.diagonal,
        "eigvals": op.eigvals,
        "eig": lambda: op.eig().eigenvalues,
        "svdvals": op.svdvals,
        "solve": lambda: op.solve(x),
    }
    forms = [calls[name] for name in calls if name in entry.closed_forms]
    for call in (*forms, op.to_dense, lambda: op.matvec(x)):
        found = call()
        found[...] = 0
        np.testing.assert_array_equal(dense(backend, op), before)
    assert np.any(backend.to_numpy(x) != 0)


@pytest.mark.parametrize("kind", [sm.Circulant, sm.Diagonal, sm.Toeplitz, sm.Hankel, sm.BlockCirculant])
@pytest.mark.parametrize("shape", [(3, 3), (1, 1)])
def test_the_nearest_matrix_is_no_view(backend: Backend, kind: Any, shape: tuple[int, int]) -> None:
    A = backend.asarray(np.random.default_rng(0).standard_normal(shape))
    op = kind.nearest(A, 1) if kind is sm.BlockCirculant else kind.nearest(A)
    before = dense(backend, op)
    A[...] = 0
    np.testing.assert_array_equal(dense(backend, op), before)
    op._arrays()[0][...] = 0  # which is writeable


@pytest.mark.parametrize("n", [1, 5, 64, 512, 1021, 4096])
def test_snapshots_of_every_size(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors, x, X = rng.standard_normal((3, n)), rng.standard_normal(n), rng.standard_normal((20, n))
    for op in (sm.Circulant(vectors[0]), sm.CDDProduct.from_vectors(*vectors), sm.Diagonal(vectors[0])):
        for P in (op.prepare(), op.prepare(engine="scipy"), sm.Diagonal(vectors[1]) @ op.prepare()):
            before = [P @ x, P.matvec(X), P.rmatvec(x)]
            kept = vectors.copy()
            vectors *= 2
            after = [P @ x, P.matvec(X), P.rmatvec(x)]
            vectors[...] = kept
            for now, then in zip(after, before, strict=True):
                np.testing.assert_array_equal(now, then)


def test_combinations_with_a_prepared_operator_do_not_follow_the_other(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    P = sm.Circulant(backend.asarray(rng.standard_normal(4))).prepare()
    for kind in (sm.Circulant, sm.Diagonal, sm.Toeplitz):
        vector = backend.asarray(rng.standard_normal(4))
        other = kind(vector)
        combined = [P + other, other + P, P - other, P @ other, other @ P]
        befores = [dense(backend, op) for op in combined]
        vector[...] = 7
        for op, before in zip(combined, befores, strict=True):
            np.testing.assert_array_equal(dense(backend, op), before)


def test_products_into_the_vector_of_a_prepared_operator() -> None:
    c, x = np.random.default_rng(0).standard_normal((2, 512))
    P = sm.Circulant(c).prepare()
    y = P @ x
    assert P.matvec(x, out=c) is c
    np.testing.assert_array_equal(P @ x, y)
    with pytest.raises(ValueError, match="read-only"):
        P.operator.c[0] = 1.0


def test_a_prepared_operator_of_torch_keeps_its_gradient() -> None:
    torch: Any = pytest.importorskip("torch")
    for n in (5, 600):
        c = torch.randn(n, dtype=torch.float64, requires_grad=True)
        P = sm.Circulant(c).prepare()
        with torch.no_grad():
            c.add_(1.0)  # as an optimiser does: autograd would refuse a product that had saved the vector itself
        ones = torch.ones(n, dtype=torch.float64)
        (P.matvec(ones) @ ones).backward()  # no sum: the transforms of torch 2.6 fail on its expanded gradient
        torch.testing.assert_close(c.grad, torch.full((n,), float(n), dtype=torch.float64))
