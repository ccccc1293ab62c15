"""The Krylov methods themselves, which operators and Toeplitz matrices of entries and of blocks share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import structmat
from structmat._arrays.namespaces import numpy_namespace as xp
from structmat._krylov import GivenUp, Patience, conjugate_gradients, gmres, gmres_cycle, lsmr

N = 40


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The callers of the methods let NumPy not warn, since they look at results."""
    with np.errstate(all="ignore"):
        yield


def matrix(kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A: np.ndarray = rng.standard_normal((N, N)) / 20
    if kind == "complex":
        A = A + 1j * rng.standard_normal((N, N)) / 20
    return A + np.eye(N)


def test_no_other_part_of_the_package_has_a_krylov_method_for_square_systems() -> None:
    other = re.compile(r"sparse\.linalg\.(cg|gmres|minres|bicgstab)\b|curvature = ")
    root = Path(structmat.__file__).parent
    having = {str(file.relative_to(root)) for file in root.rglob("*.py") if other.search(file.read_text("utf-8"))}
    assert having == {str(Path("_krylov", "conjugate_gradients.py"))}


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_conjugate_gradients_solve_each_right_hand_side_and_keep_what_is_solved(kind: str) -> None:
    A = matrix(kind)
    A = A @ A.conj().T
    b = np.random.default_rng(1).standard_normal((3, N)).astype(A.dtype)
    b[1] = 0
    found = conjugate_gradients(lambda v: v @ A.T, b, rtol=1e-12, max_iter=200, xp=xp)
    np.testing.assert_allclose(found.x @ A.T, b, atol=1e-10)
    assert np.all(found.is_definite)
    assert not np.any(found.x[1])
    by_inverse = conjugate_gradients(
        lambda v: v @ A.T, b, lambda v: v @ np.linalg.inv(A).T, rtol=1e-12, max_iter=200, xp=xp
    )
    assert by_inverse.iterations <= 2 < found.iterations
    np.testing.assert_allclose(by_inverse.x, found.x, atol=1e-10)


def test_conjugate_gradients_tell_which_right_hand_sides_show_an_indefinite_matrix() -> None:
    signs = np.where(np.arange(N) == 3, -1.0, np.arange(1.0, N + 1))
    b = np.ones((2, N))
    b[1, 3] = 0
    found = conjugate_gradients(lambda v: v * signs, b, rtol=1e-12, max_iter=100, xp=xp)
    assert found.is_definite.tolist() == [False, True]
    np.testing.assert_allclose(found.x[1] * signs, b[1], atol=1e-10)
    beyond = conjugate_gradients(lambda v: v * np.nan, b, rtol=1e-12, max_iter=100, xp=xp)
    assert not np.any(beyond.is_definite)


def test_conjugate_gradients_end_where_their_caller_says() -> None:
    seen = []

    def stagnates(squares: np.ndarray) -> bool:
        seen.append(squares)
        return len(seen) == 4

    A = np.linspace(1, 1e6, N)
    b = np.ones((2, N))
    found = conjugate_gradients(lambda v: v * A, b, rtol=1e-12, max_iter=100, xp=xp, stagnates=stagnates)
    assert found.iterations == 3
    assert np.all(found.is_definite)
    np.testing.assert_allclose(seen[3], np.sum((b - found.x * A) ** 2, axis=-1))


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_gmres_is_solved_with_and_without_a_restart(kind: str) -> None:
    A = matrix(kind)
    b = np.random.default_rng(1).standard_normal((3, N)).astype(A.dtype)
    for restart in (5, N):
        x, _ = gmres(lambda v: v @ A.T, b, rtol=1e-12, max_iter=200, restart=restart, xp=xp)
        np.testing.assert_allclose(x @ A.T, b, atol=1e-10)
    M = np.linalg.inv(A)
    x, count = gmres(lambda v: v @ A.T, b, lambda v: v @ M.T, rtol=1e-12, max_iter=200, restart=5, xp=xp)
    assert count <= 2
    np.testing.assert_allclose(x @ A.T, b, atol=1e-10)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("rows", [10, N])
def test_lsmr_finds_the_least_squares_solution_of_least_norm(kind: str, rows: int) -> None:
    A = matrix(kind)[:rows]
    A[:, -5:] = 0
    b = np.random.default_rng(1).standard_normal((3, rows)).astype(A.dtype)
    norm = np.full(3, np.linalg.norm(A, 2))
    x, _ = lsmr(lambda v: v @ A.T, lambda u: u @ A.conj(), b, rtol=1e-13, max_iter=200, norm=norm, xp=xp)
    np.testing.assert_allclose(x, b @ np.linalg.pinv(A).T, atol=1e-11)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_cycle_is_given_up_by_the_least_residual_of_its_first_steps(kind: str, steps: int) -> None:
    """It is known by least squares over the Krylov space."""
    A = matrix(kind, seed=5)
    b = np.random.default_rng(2).standard_normal(N).astype(A.dtype)
    powers = [b]
    for _ in range(steps):
        powers.append(A @ powers[-1])
    products = np.array(powers[1:]).T
    left = b - products @ np.linalg.lstsq(products, b)[0]
    least = float(np.linalg.norm(left) / np.linalg.norm(b))

    def solved(allowed: float) -> Any:
        product = Patience(lambda v: A @ v, steps=steps, allowed=allowed, xp=xp)
        return gmres_cycle(product, b, rtol=1e-12, size=N, xp=xp)

    np.testing.assert_array_equal(solved(1.001 * least), gmres_cycle(lambda v: A @ v, b, rtol=1e-12, size=N, xp=xp))
    np.testing.assert_allclose(A @ solved(1.001 * least), b, atol=1e-10)
    with pytest.raises(GivenUp):
        solved(0.999 * least)


def test_a_cycle_for_zeros_makes_no_step() -> None:
    x = gmres_cycle(lambda v: v, np.zeros((2, N)), rtol=1e-12, size=N, xp=xp)
    np.testing.assert_array_equal(x, np.zeros((2, N)))


def test_a_cycle_whose_products_are_not_finite_is_given_up() -> None:
    product = Patience(lambda v: v * np.nan, steps=2, allowed=1.0, xp=xp)
    for v in np.eye(N)[:2]:
        product(v)
    with pytest.raises(GivenUp):
        product(np.eye(N)[2])
