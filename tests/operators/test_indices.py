"""Rows and columns by slices, masks and integers of every dtype, as NumPy chooses them of the dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests import backends
from tests.backends import on
from tests.cases import in_one_test

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
LIBRARIES = ("numpy", "torch", "jax", "array_api_strict")
SIZES = (1, 2, 7, 127, 128, 129, 255, 256, 300)
"""Where integers of eight bits overflow, as an index or as the size that is added to it, and near that."""


@st.composite
def choices(draw: Any, n: int) -> Any:
    """An index of NumPy that chooses some rows of n, each once at most."""
    kind = draw(st.sampled_from(["slice", "mask", *INTEGERS]))
    if kind == "slice":
        return draw(st.slices(n).filter(lambda part: len(range(n)[part]) > 0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "mask":
        mask = rng.random(n) < rng.random()
        mask[rng.integers(n)] = True
        return mask
    chosen = rng.permutation(n)[: rng.integers(1, n + 1)]
    limits = np.iinfo(kind)
    if limits.min < 0:
        chosen = np.where(rng.random(len(chosen)) < 0.5, chosen - n, chosen)
    fitting = chosen[(chosen >= limits.min) & (chosen <= limits.max)]
    return (fitting if len(fitting) else np.array([0])).astype(kind)


def forms_of(index: Any, backend: Any) -> list[Any]:
    """The same index as NumPy, Python and another library have it."""
    if isinstance(index, slice):
        small = [None if k is None else np.int16(k) for k in (index.start, index.stop, index.step)]
        return [index, slice(*small)]
    return [index, index.tolist(), backend.asarray(index)]


@on(*LIBRARIES)
def test_any_index_chooses_what_it_chooses_of_the_dense_matrix(backend: Any) -> None:
    @settings(max_examples=40)
    @given(data=st.data(), n=st.sampled_from(SIZES), one=st.integers(-(2**31), 2**31))
    def law(data: Any, n: int, one: int) -> None:
        T, dense = sm.Toeplitz(np.arange(n) + 1.0, -np.arange(n)), np.arange(n)[:, None] - np.arange(n)
        dense = np.where(dense < 0, dense, dense + 1.0)
        rows, cols = data.draw(choices(n)), data.draw(choices(n))
        one %= n
        for i in forms_of(rows, backend):
            np.testing.assert_allclose(T[i].to_dense(), dense[rows], atol=1e-9)
            np.testing.assert_array_equal(T[i, one], dense[rows, one])
            np.testing.assert_array_equal(T[i, one - n], dense[rows, one])
            for j in forms_of(cols, backend):
                np.testing.assert_allclose(T[i][:, j].to_dense(), dense[rows][:, cols], atol=1e-9)
                np.testing.assert_allclose(T[:, j][i].to_dense(), dense[rows][:, cols], atol=1e-9)

    law()


@on(*LIBRARIES)
@pytest.mark.parametrize("kind", INTEGERS)
def test_small_integers_choose_of_large_matrices_in_any_library(backend: Any, kind: str) -> None:
    n = 300
    index = np.array([5, 127, 0] if kind == "int8" else [5, 200, 0]).astype(kind)
    dense = np.abs(np.arange(n)[:, None] - np.arange(n)) + 1.0
    T = sm.Toeplitz(backend.asarray(np.arange(n) + 1.0))
    for chosen in (index, backend.asarray(index)):
        np.testing.assert_allclose(backend.to_numpy(T[chosen].matvec(backend.asarray(np.ones(n)))), dense[index].sum(1))
        np.testing.assert_allclose(backend.to_numpy(T[chosen, 7]), dense[index, 7])
    np.testing.assert_allclose(backend.to_numpy(T[index[1]]), dense[index[1]])


ONE = "must choose one index at least, got none"
NO_INDEX = "must be a mask or integers along one axis"
TWICE = "must name each index at most once"
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no integers": (np.zeros(0, "int64"), ValueError, ONE),
    "no small integers": (np.zeros(0, "uint8"), ValueError, ONE),
    "an empty mask": (np.zeros(200, bool), ValueError, ONE),
    "a mask of another length": (np.ones(3, bool), ValueError, "must be a mask of length 200, got 3"),
    "numbers": (np.array([1.0, 2.0]), TypeError, NO_INDEX),
    "two axes": (np.zeros((2, 2), "int8"), TypeError, NO_INDEX),
    "an index twice": (np.array([1, 1], "int8"), ValueError, TWICE),
    "an index twice, once from the end": (np.array([100, -100], "int8"), ValueError, TWICE),
    "an index too large": (np.array([200], "uint8"), IndexError, "has 200, which is none of the 200 indices"),
    "an index too small": (np.array([-201], "int16"), IndexError, "has -201, which is none of the 200 indices"),
    "the largest integer": (np.array([2**64 - 1], "uint64"), IndexError, "which is none of the 200 indices"),
}
ONLY_PYTHON: dict[str, tuple[Any, type[Exception], str]] = {
    "an empty list": ([], ValueError, ONE),
    "an empty slice": (slice(3, 3), ValueError, ONE),
    "an empty slice with a step": (slice(3, 3, 2), ValueError, ONE),
    "an empty slice beyond the end": (slice(200, None), ValueError, ONE),
    "a ragged list": ([[1], [2, 3]], TypeError, NO_INDEX),
    "a step of zero": (slice(None, None, 0), ValueError, "must have a step other than zero"),
    "a step that is no integer": (slice(None, None, 2.0), TypeError, "takes integers, slices and arrays"),
    "a bound that is no integer": (slice(1.5, None, 2), TypeError, "takes integers, slices and arrays"),
    "one truth of NumPy": (np.array(True), TypeError, "takes integers, slices and arrays"),
    "one truth of torch": (torch.tensor(True), TypeError, "takes integers, slices and arrays"),
    "a tensor that is learned": (torch.ones(2, requires_grad=True), TypeError, NO_INDEX),
    "a tensor without values": (torch.ones(2, dtype=torch.int64, device="meta"), TypeError, "must be known"),
}


def assert_refused(T: sm.LinearOperator, index: Any, error: type[Exception], text: str) -> None:
    for name, call in (("rows", lambda: T[index]), ("cols", lambda: T[:, index])):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith("Toeplitz[i, j]: ")
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value) or "takes integers" in text


@on(*LIBRARIES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_index_is_refused_alike_in_any_library(backend: Any, case: str) -> None:
    index, error, text = REFUSED[case]
    assert_refused(sm.Toeplitz(np.ones(200)), backend.asarray(index), error, text)


@in_one_test("case", ONLY_PYTHON)
def test_what_is_no_index_of_python_is_refused(case: str) -> None:
    assert_refused(sm.Toeplitz(np.ones(200)), *ONLY_PYTHON[case])


CHOSEN = {"mask": torch.tensor([True, False, True, True]), "integers": torch.tensor([2, 0], dtype=torch.int8)}


@pytest.mark.parametrize("chosen", CHOSEN)
@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
def test_transforms_of_torch_take_masks_and_integers(transform: str, chosen: str) -> None:
    """Made outside of the function, or within: from what is differentiated, too."""
    c, x = torch.tensor([3.0, 2.0, -1.0, 0.5], dtype=torch.float64), torch.arange(1.0, 5.0, dtype=torch.float64)

    def f(c: Any, *, dense: bool = False) -> Any:
        T = sm.Toeplitz(c)
        A = T.to_dense() if dense else T
        total = 0.0
        for one in (CHOSEN[chosen], c > 0, torch.tensor([1, 3])):
            known = one if one.dtype == torch.bool else one.long()
            index = known if dense else one  # torch's own indices are of few dtypes
            total = total + (A[index] @ x**2).sum() ** 2 + (A[:, index] @ x[known]).sum() ** 2
        return total

    of = getattr(torch.func, transform)
    torch.testing.assert_close(of(f)(c), of(lambda c: f(c, dense=True))(c))


def test_indices_that_are_mapped_or_traced_are_refused() -> None:
    stack = torch.tensor([[3.0, 2.0, -1.0], [1.0, -2.0, 3.0]], dtype=torch.float64)
    rows = torch.func.vmap(lambda c: sm.Toeplitz(c)[[2, 0]].matvec(c))(stack)
    torch.testing.assert_close(rows, torch.stack([sm.Toeplitz(c).to_dense()[[2, 0]] @ c for c in stack]))
    with pytest.raises(TypeError, match="rows must be known when the operator is made"):
        torch.func.vmap(lambda c: sm.Toeplitz(c)[c > 0].matvec(c))(stack)
    jax = pytest.importorskip("jax")
    c = backends.get("jax").asarray(np.ones(3))
    with pytest.raises(TypeError, match="rows must be known when the operator is made"):
        jax.jit(lambda index: sm.Toeplitz(c)[index].matvec(c))(jax.numpy.asarray([0, 2]))


@pytest.mark.parametrize("make", [sm.Toeplitz, sm.Circulant, sm.Hankel, sm.Diagonal], ids=lambda make: make.__name__)
def test_the_dense_matrix_of_chosen_rows_and_columns_has_their_exact_entries(make: Any) -> None:
    op = make(np.array([1.0, 1e-9, 3e-9, 7e20, 1e-12, 5.0, 1e-3]))
    dense = op.to_dense()
    for rows, cols in (([2, 1, 4], [1, 2]), ([5, 1, 3, 2], [6, 0, 3]), ([1], [5]), ([6, 2, 4, 5], [4, 5, 6, 2])):
        np.testing.assert_array_equal(op[rows][:, cols].to_dense(), dense[np.ix_(rows, cols)])
        np.testing.assert_array_equal(op[rows].to_dense(), dense[rows])
        np.testing.assert_array_equal(op[:, cols].to_dense(), dense[:, cols])


@pytest.mark.parametrize("index", [np.s_[5:8, 3:900], np.s_[3:900, 5:8]])
def test_few_rows_or_columns_are_written_out_by_few_products(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = [np.random.default_rng(k).standard_normal((2, 2)) for k in range(10)]
    K = sm.Kronecker(*factors)
    widths = []
    products = sm.Kronecker._matvec
    monkeypatch.setattr(sm.Kronecker, "_matvec", lambda op, x, xp: widths.append(x.shape) or products(op, x, xp))
    found = K[index].to_dense()
    np.testing.assert_allclose(found, K.to_dense()[index], atol=1e-12)
    assert widths == [(3, 1024)]
