"""Whether a matrix is Hermitian up to rounding: all that ask it of one matrix get one answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from structmat._arrays.linear_algebra import equals_adjoint, is_hermitian
from structmat._arrays.namespaces import numpy_namespace
from tests import backends
from tests.backends import Backend
from tests.cases import in_one_test

N = 6
LARGEST = 4.0
EPS = np.finfo(float).eps
COLUMN = np.r_[LARGEST, 0.5 ** np.arange(1, N)]
WAVES = COLUMN * np.exp(0.3j * np.arange(N))


def asked(c: np.ndarray, r: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What asks whether the Toeplitz matrix of that column and row is Hermitian."""
    T = sm.Toeplitz(c, r)
    dense = scipy.linalg.toeplitz(c, r)
    b = np.ones(N)
    noise = np.linspace(0.0, LARGEST / 8, N) * (np.abs(c[0]) / LARGEST)  # so that there is no closed form
    return {
        "Toeplitz.cholesky": T.cholesky,
        "Toeplitz.reflection_coefficients": T.reflection_coefficients,
        "BlockToeplitz.cholesky": sm.BlockToeplitz(c[:, None, None], r[:, None, None]).cholesky,
        "Dense.cholesky": sm.Dense(dense).cholesky,
        "Eigendecomposition.of": lambda: sm.Eigendecomposition.of(dense),
        "inverse of a sum": lambda: sm.KroneckerSum(dense, np.eye(2)).inv(),
        "solve by Superfast": lambda: sm.solve(T, b, method=sm.Superfast()),
        "slogdet by Superfast": lambda: sm.slogdet(T, method=sm.Superfast()),
        "slogdet written out": lambda: sm.slogdet(T + sm.Diagonal(noise)),
    }


def counts_as_hermitian(question: Callable[[], Any]) -> bool:
    """Whether there is an answer, or an error for another reason, such as NaN."""
    try:
        with np.errstate(all="ignore"):
            question()
    except (ValueError, NotImplementedError, np.linalg.LinAlgError) as error:
        return re.search("must be Hermitian|is not Hermitian", str(error)) is None
    return True


@in_one_test("column", [COLUMN, WAVES])
@pytest.mark.parametrize("scale", [1.0, 2.0**-1000, 2.0**1019])
@in_one_test("units, expected", [(0, True), (20, True), (50, True), (100, False), (1e4, False)])
def test_all_that_ask_get_one_answer(units: float, expected: bool, scale: float, column: np.ndarray) -> None:
    """A matrix whose first row is off by so many units of eps, of numbers of every size."""
    r = column.conj().copy()
    r[1] += units * EPS * LARGEST
    answers = {name: counts_as_hermitian(question) for name, question in asked(scale * column, scale * r).items()}
    assert answers == dict.fromkeys(answers, expected)


@pytest.mark.parametrize(("units", "expected"), [(20, True), (100, False)])
def test_imaginary_parts_on_the_diagonal_are_compared_with_the_whole_matrix(units: float, expected: bool) -> None:
    off = 1j * units * EPS * LARGEST
    r = WAVES.conj().copy()
    r[0] += off
    answers = {name: counts_as_hermitian(question) for name, question in asked(WAVES + off * np.eye(N)[0], r).items()}
    assert answers == dict.fromkeys(answers, expected)
    A = sm.Toeplitz(COLUMN / LARGEST) + sm.Diagonal((LARGEST - 1.0) * np.ones(N) + off)
    for question in (
        sm.Dense(A.to_dense()).cholesky,
        lambda: sm.slogdet(A),
        lambda: sm.solve(A, np.ones(N), method=sm.Superfast()),
    ):
        assert counts_as_hermitian(question) == expected


@in_one_test("value", [np.nan, np.inf])
@in_one_test("place", ["column", "row", "both"])
def test_what_is_not_finite_is_reported_as_such(place: str, value: float) -> None:
    c, r = COLUMN.copy(), COLUMN.copy()
    r[1] += LARGEST / 8  # which no rounding explains
    if place in {"column", "both"}:
        c[2] = value
    if place in {"row", "both"}:
        r[2] = value
    answers = {name: counts_as_hermitian(question) for name, question in asked(c, r).items()}
    assert answers == dict.fromkeys(answers, True)


def test_moduli_that_overflow_hide_no_difference() -> None:
    """Of numbers whose real and imaginary parts are near the largest number."""
    large = np.finfo(float).max * np.array([[1.0, 0.9 + 0.9j], [0.9 + 0.9j, 1.0]])
    assert is_hermitian(large / 2 + large.conj().T / 2, numpy_namespace)
    assert not is_hermitian(large, numpy_namespace)
    assert not is_hermitian(np.finfo(float).max * np.array([[1.0, 1.0], [-1.0, 1.0]]), numpy_namespace)


def test_each_matrix_of_a_stack_has_its_own_answer(backend: Backend) -> None:
    """Each is compared with its own largest entry; a stack may be empty."""
    r = np.stack([COLUMN, COLUMN * 2.0**-60, COLUMN])
    c = r.copy()
    c[:, 1] += [0.0, EPS, 20 * LARGEST * EPS]
    expected = np.array([True, False, True])
    dense = np.stack([scipy.linalg.toeplitz(*pair) for pair in zip(c, r, strict=True)])
    for arrays, core, of_adjoint in ((c, 1, r), (c[:, None, :, None], 3, r[:, None, :, None])):
        first, second = backend.asarray(arrays), backend.asarray(of_adjoint)
        xp = sm.Toeplitz(backend.asarray(COLUMN))._own_namespace()
        found = backend.to_numpy(equals_adjoint(first, second, xp, core=core))
        np.testing.assert_array_equal(found, expected)
    matrices = backend.asarray(dense)
    np.testing.assert_array_equal(backend.to_numpy(is_hermitian(matrices, xp)), expected)
    np.testing.assert_array_equal(backend.to_numpy(is_hermitian(matrices[:, None, ...], xp)), expected[:, None])
    assert is_hermitian(matrices[:0, ...], xp).shape == (0,)


@pytest.mark.parametrize("transform", ["jax.jit", "jax.vmap", "torch.vmap"])
def test_no_value_is_looked_at(transform: str) -> None:
    library, _, name = transform.partition(".")
    backend = backends.get(library)
    transformed = getattr(pytest.importorskip(library), name)
    xp = sm.Toeplitz(backend.asarray(COLUMN))._own_namespace()
    dense = np.stack([scipy.linalg.toeplitz(COLUMN), scipy.linalg.toeplitz(COLUMN, 2 * COLUMN)])
    found = transformed(lambda matrices: is_hermitian(matrices, xp))(backend.asarray(dense))
    np.testing.assert_array_equal(backend.to_numpy(found), [True, False])
