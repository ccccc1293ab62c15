"""The rules of derivatives of each library, with a matrix and solvers that are no part of the package."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import structmat
import structmat as sm
from structmat._arrays.conversion import on_host
from structmat._arrays.libraries import namespace, rules_of
from structmat._parametrised import Parametrised
from structmat._rules import Solver
from structmat.extend import device_of
from tests import backends


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Parametrised):
    """A matrix that is written out."""

    _core_axes = {"entries": 2}

    entries: Any

    @property
    def H(self) -> Dense:
        xp = self._own_namespace()
        return Dense(xp.conj(xp.matrix_transpose(self.entries)))

    def _matvec(self, x: Any, xp: Any) -> Any:
        return xp.matmul(self.entries, x[..., None])[..., 0]


@dataclass(frozen=True)
class ByNumPy(Solver):
    """Solves systems on the host."""

    def __call__(self, A: Any, M: Any, b: Any, xp: Any) -> Any:
        def solve(A: Any, b: Any) -> tuple[Any]:
            return (np.linalg.solve(A, b),)

        right = b[..., None]
        A = xp.broadcast_to(A.entries, (*b.shape, b.shape[-1]))
        x = on_host(solve, [(tuple(right.shape), b.dtype)], [A, right], xp)[0][..., 0]
        return x, (xp.sum(x, axis=-1), xp.all(xp.isfinite(x), axis=-1), xp.sum(x), 7)


@dataclass(frozen=True)
class ByInverse(Solver):
    """Solves systems by an inverse that is known."""

    def __call__(self, A: Any, M: Any, b: Any, xp: Any) -> Any:
        return M._matvec(b, xp), ()


@dataclass(frozen=True)
class Trace:
    """The derivative of a determinant."""

    def inverse(self, A: Any, given: Any, xp: Any) -> Any:
        return xp.linalg.inv(A.entries)

    def trace(self, A: Any, inverse: Any, given: Any, xp: Any) -> Any:
        return xp.sum(inverse * xp.matrix_transpose(A.entries), axis=(-2, -1))


def solution(entries: Any, b: Any, xp: Any) -> Any:
    x, (totals, finite, total, number) = rules_of(xp).solution(ByNumPy(), Dense(entries), None, b)
    without_derivatives = (totals[..., None] + total) * (0.0 * number)
    return xp.where(finite[..., None], x + without_derivatives, xp.zeros_like(x))


def solution_by_inverse(entries: Any, b: Any, xp: Any) -> Any:
    rules = rules_of(xp)
    return rules.solution(ByInverse(), Dense(entries), Dense(rules.constant(xp.linalg.inv(entries))), b)[0]


def logarithm(entries: Any, _: Any, xp: Any) -> Any:
    rules = rules_of(xp)
    value = rules.constant(xp.log(xp.abs(xp.linalg.det(entries))))
    return rules.log_determinant(Trace(), Dense(entries), None, value)


PAIRS = {
    "solution": (solution, lambda A, b, xp: xp.linalg.solve(A, b[..., None])[..., 0]),
    "solution by a known inverse": (solution_by_inverse, lambda A, b, xp: xp.linalg.solve(A, b[..., None])[..., 0]),
    "logarithm": (logarithm, lambda A, b, xp: xp.log(xp.abs(xp.linalg.det(A)))),
}
pairs = pytest.mark.parametrize("pair", PAIRS)


def drawn(*batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((*batch, 3, 3)) + 3 * np.eye(3), rng.standard_normal((*batch, 3))


@pairs
def test_torch_differentiates_and_maps(pair: str) -> None:
    torch = pytest.importorskip("torch")
    found, expected = PAIRS[pair]
    A, b = (torch.from_numpy(v) for v in drawn())
    torch.testing.assert_close(found(A, b, torch), expected(A, b, torch))
    inputs = A.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda A, b: found(A, b, torch), inputs)
    assert torch.autograd.gradgradcheck(lambda A, b: found(A, b, torch), inputs)
    As, bs = (torch.from_numpy(v) for v in drawn(4))
    for dims, arrays in (((0, 0), (As, bs)), ((0, None), (As, bs[0])), ((None, 0), (As[0], bs))):
        if pair == "logarithm" and dims[0] is None:
            continue
        of_one = [torch.func.grad(lambda A, b, f=f: f(A, b, torch).sin().sum(), (0, 1)) for f in (found, expected)]
        for got, wanted in zip(*(torch.func.vmap(f, dims)(*arrays) for f in of_one), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.fixture
def jax() -> Any:
    """JAX, which knows the matrix."""
    jax = pytest.importorskip("jax")
    backends.get("jax")
    if jax.tree_util.all_leaves([Dense(0)]):  # not yet, by another of these tests
        importlib.import_module("structmat.jax").register_operator(Dense)
    return jax


@pytest.mark.quick  # alone it counts exchanges of rows in JAX
@backends.on("numpy", "torch", "jax")
def test_elimination_counts_the_exchanges_of_rows(backend: backends.Backend) -> None:
    """All orders of three rows, of which half have an odd number of exchanges."""
    orders = np.array(list(itertools.permutations(range(3))))
    matrices = (np.diag([4.0, -5.0, 6.0]) + 1.0)[orders]
    found = rules_of(backend.xp).elimination(backend.asarray(matrices)).slogdet()
    for ours, expected in zip(found, np.linalg.slogdet(matrices), strict=True):
        np.testing.assert_allclose(backend.to_numpy(ours), expected, rtol=1e-5)


@pairs
def test_gradients_in_jax(pair: str, jax: Any) -> None:
    jnp = jax.numpy

    def gradients(A: Any, b: Any) -> list[Any]:
        return [jax.grad(lambda A, b, f=f: jnp.sum(jnp.sin(f(A, b, jnp))), (0, 1))(A, b) for f in PAIRS[pair]]

    found, expected = jax.jit(gradients)(*drawn())
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-10)


def test_a_solution_in_jax_changes_with_its_matrix(jax: Any) -> None:
    """By ``A^-1 (db - dA x)``, in the forward mode, which compiles least."""
    (A, dA), (b, db) = (v.astype("float32") for v in drawn(2))
    found = jax.jvp(lambda A, b: solution_by_inverse(A, b, jax.numpy), (A, b), (dA, db))[1]
    expected = np.linalg.solve(A, db - dA @ np.linalg.solve(A, b))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pairs
def test_jax_differentiates_and_maps(pair: str, jax: Any) -> None:
    jnp = jax.numpy
    found, expected = PAIRS[pair]
    A, b = map(jnp.asarray, drawn(4))
    for mode in (jax.jacrev, jax.jacfwd, jax.hessian):
        derived = [
            jax.jit(jax.vmap(mode(lambda A, b, f=f: jnp.sum(jnp.sin(f(A, b, jnp))), (0, 1)))) for f in (found, expected)
        ]
        for got, wanted in zip(*(jax.tree.leaves(f(A, b)) for f in derived), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-10)


@backends.on("array_api_strict")
def test_a_library_without_rules_has_values(backend: backends.Backend) -> None:
    A, b = map(backend.asarray, drawn())
    for found, expected in PAIRS.values():
        np.testing.assert_allclose(*(backend.to_numpy(f(A, b, backend.xp)) for f in (found, expected)), atol=1e-12)


def test_the_first_array_of_jax_registers_operators_of_the_package() -> None:
    """Without the public module, which stands above them."""
    pytest.importorskip("jax")
    code = (
        "import sys, jax, structmat as sm; C = sm.Circulant(jax.numpy.ones(3));"
        "assert len(jax.tree.leaves([C, C.prepare(), sm.Toeplitz(C.c).inv()])) > 4;"
        "assert 'structmat.jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_looks_up_another_one_of_the_package_by_a_string() -> None:
    """As contracts of imports do not see it; only the package itself imports its modules when they are asked for."""
    folder = Path(structmat.__file__).parent
    texts = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.py")}
    pattern = re.compile(r"""(modules\[|modules\.get\(|import_module\()\s*f?["']structmat""")
    assert [name for name, text in texts.items() if pattern.search(text)] == ["__init__.py"]


def test_no_module_compares_names_of_libraries() -> None:
    """What a library is able to do is said by its rules, so that a new one is one class and its name in one table."""

    def compares(tree: ast.AST) -> bool:
        sides = (side for n in ast.walk(tree) if isinstance(n, ast.Compare) for side in (n.left, *n.comparators))
        return any(getattr(getattr(side, "func", side), "id", None) in {"library", "library_of"} for side in sides)

    folder = Path(structmat.__file__).parent
    texts = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.py")}
    suspects = {name: text for name, text in texts.items() if re.search(r"\blibrary(_of\(.*)? *(==|!=| in )", text)}
    door = {"_arrays/libraries.py", "_arrays/namespaces.py"}  # where the name of a library finds namespace and rules
    assert {name for name, text in suspects.items() if compares(ast.parse(text))} == door


def test_rules_say_whether_arrays_may_be_in_double_precision(backend: backends.Backend) -> None:
    """Whether systems are computed in it by the library itself is another question, which NumPy answers with no."""
    given = backend.asarray(np.ones(2))
    rules, xp = rules_of(namespace(given)), namespace(given)
    device = device_of(given)
    assert rules.has_double_precision(device)
    assert rules.computes_in_double_precision(device) == (backend.name in {"torch", "jax"})
    if not backend.compiles:
        T = sm.Toeplitz(xp.asarray(given, dtype=xp.float32))
        assert sm.slogdet(T + sm.Diagonal(T.c), method=sm.Superfast()).logabsdet.dtype == xp.float32


def test_jax_has_single_precision_alone_unless_it_is_told_otherwise() -> None:
    jax = pytest.importorskip("jax")
    if not hasattr(jax, "enable_x64"):
        pytest.skip("this version of JAX has double precision for all or nothing")
    with jax.enable_x64(False):
        given = jax.numpy.ones(3)
        rules = rules_of(namespace(given))
        assert not rules.has_double_precision(device_of(given))
        assert rules.computes_in_double_precision(device_of(given))
        with pytest.raises(TypeError, match=r"must be of a library with factors in double precision, got jax, device"):
            sm.solve(sm.Toeplitz(given) + sm.Diagonal(given), given, method=sm.Superfast())


def test_a_device_without_double_precision_has_no_factor() -> None:
    torch = pytest.importorskip("torch")
    given = torch.ones(3, device="meta")
    assert not rules_of(namespace(given)).has_double_precision(given.device)
    assert not rules_of(namespace(given)).has_double_precision(torch.device("mps"))
    with pytest.raises(TypeError, match=r"must be of a library with factors in double precision, got torch, device m"):
        sm.slogdet(sm.Toeplitz(given) + sm.Diagonal(given), method=sm.Superfast())


def test_dask_has_no_factors_of_stacks() -> None:
    dask = pytest.importorskip("dask.array")
    given = dask.ones(3)
    with pytest.raises(TypeError, match=r"must be of a library with factors in double precision, got dask, device cpu"):
        sm.slogdet(sm.Toeplitz(given) + sm.Diagonal(given), method=sm.Superfast())


@backends.on("torch", "jax")
def test_an_elimination_has_solutions_and_determinants_of_any_sign(backend: backends.Backend) -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 3, 3)) + 1j * rng.standard_normal((6, 3, 3))
    A[:2, 0, 0] = 0.0  # so that rows are exchanged
    b = rng.standard_normal((6, 3, 2)) + 0j
    rules = rules_of(backend.xp)

    def computed(A: Any, b: Any) -> tuple[Any, ...]:
        elimination = rules.elimination(A)
        return *elimination.slogdet(), elimination.solve(b)

    found = rules.compiled(computed)(backend.asarray(A), backend.asarray(b))
    for got, expected in zip(found, (*np.linalg.slogdet(A), np.linalg.solve(A, b)), strict=True):
        np.testing.assert_allclose(backend.to_numpy(got), expected, atol=1e-10)
