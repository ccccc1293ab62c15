"""Transforms: lengths, chunks, corners, the choice of an engine, and products against references without transforms."""

from __future__ import annotations

import itertools
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from array_api_compat import torch as torch_namespace
from hypothesis import given
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier import embedding, engines, small_products
from structmat._fourier.chunks import in_chunks
from structmat._fourier.convolutions import ducc_convolution
from structmat._fourier.embedding import fast_length
from structmat._fourier.grids import multilevel_fft, multilevel_ifft
from structmat._fourier.plans import Convolution
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat.extend import plan_of_parts
from tests.backends import Backend
from tests.cases import in_one_test


def test_embedded_lengths_are_fast() -> None:
    for n in [*range(1, 5000), 99991, 2**20 - 1, 2**20 + 1]:
        length = fast_length(n)
        assert n <= length <= n * (1.08 if n > 1000 else 1.16)
        assert 30**25 % length == 0  # no prime factor but 2, 3 and 5


@given(n=st.integers(1, 5000))
def test_embedded_lengths(n: int) -> None:
    c = np.arange(1.0, n + 1)
    kernel = embedding.cyclic_kernel(c, np)
    largest = max(
        (p for p in range(2, n + 1) if n % p == 0 and all(p % d for d in range(2, int(p**0.5) + 1))), default=1
    )
    assert embedding.is_fast(n) == (largest <= 67)
    if embedding.is_fast(n):
        assert kernel is c
    else:
        assert embedding.is_fast(len(kernel))
        assert len(kernel) >= 2 * n - 1
        np.testing.assert_array_equal(kernel[:n], c)
        np.testing.assert_array_equal(kernel[len(kernel) - n + 1 :], c[1:])


@in_one_test("size", [None, 1, 400, 10**6])
@in_one_test("rows", [0, 1, 1100])
def test_chunks_of_any_size_are_the_whole(rows: int, size: int | None) -> None:
    seen = []

    def doubled_but_the_last(x: Any) -> Any:
        seen.append(len(x))
        return 2 * x[:, :-1]

    x = np.arange(rows * 128.0).reshape(rows, 1, 128)
    wanted = 2 * x[..., :-1]
    found = in_chunks(doubled_but_the_last, x, 127, size)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)
    assert sum(seen) == rows
    assert max(seen, default=0) <= (size or rows)


@pytest.mark.parametrize(("length", "real"), [(4, True), (5, False)])
def test_corners_of_every_shape(length: int, real: bool) -> None:
    rng, xp = np.random.default_rng(length), numpy_namespace
    kernels = rng.standard_normal((2, length)) + (0 if real else 1j) * rng.standard_normal((2, length))
    whole = [scipy.linalg.circulant(kernel) for kernel in kernels]
    for rows, cols in product(range(1, length + 1), repeat=2):
        x = rng.standard_normal((2, cols)) * kernels[0, 0]
        for flips in product((False, True), repeat=2):
            down, along = (-1 if flip else 1 for flip in flips)
            wanted = [matrix[:rows, :cols][::down, ::along] @ v for matrix, v in zip(whole, x, strict=True)]
            stack = Convolution.of(kernels, (rows, cols), xp, flips=flips)
            np.testing.assert_allclose(stack.apply(x, xp), wanted, atol=1e-14)
            one = Convolution.of(kernels[0], (rows, cols), xp, flips=flips)
            for found in (one.apply(x[0], xp), one.apply(x[:1], xp)[0], stack.apply(x, xp)[0]):
                np.testing.assert_allclose(found, wanted[0], atol=1e-14)


@pytest.mark.skipif(not engines.ducc(), reason="needs ducc0")
@pytest.mark.parametrize("length", [1024, 1000])
def test_batches_are_convolved_as_their_vectors(length: int) -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.standard_normal(length).astype("float32"), rng.standard_normal((17, length)).astype("float32")
    wanted = np.fft.irfft(np.fft.rfft(kernel) * np.fft.rfft(x), length)
    for count in (1, 8, 17):
        np.testing.assert_allclose(ducc_convolution(kernel, x[:count]), wanted[:count], atol=1e-3)


@in_one_test("xp, zeros", [(numpy_namespace, np.zeros), (torch_namespace, torch.zeros)])
@in_one_test("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_transforms_of_no_vectors_have_the_shape_and_dtype_of_others(xp: Any, zeros: Any, shape: Any) -> None:
    none, some = zeros(shape), zeros(tuple(max(n, 1) for n in shape))
    for transform in (
        lambda x: spectrum(x, xp, real=False, n=6),
        lambda x: from_spectrum(x, 4, xp, real=False),
        lambda x: spectrum(x, xp, real=True),
        lambda x: spectrum(x, xp, real=True, n=7),
        lambda x: from_spectrum(spectrum(x, xp, real=True), 4, xp, real=True),
        lambda x: multilevel_fft(x, (2, 2), xp, real=True),
        lambda x: multilevel_fft(x, (2, 2), xp, real=False, n=(3, 4)),
        lambda x: multilevel_ifft(multilevel_fft(x, (2, 2), xp, real=True), (2, 2), xp, real=True),
    ):
        found, other = transform(none), transform(some)
        assert (*shape[:-1], other.shape[-1]) == tuple(found.shape)
        assert found.dtype == other.dtype


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("make", [sm.Toeplitz, sm.Hankel])
def test_products_keep_no_memory_of_the_entries_cut_off(make: Any) -> None:
    """Rows of a long kernel that are not wanted would be kept for as long as the product."""
    rng = np.random.default_rng(0)
    m, n = 500, 5000
    P = make(rng.standard_normal(m), rng.standard_normal(n)).prepare()
    for shape in ((n,), (1, n), (3, n)):
        y = P.matvec(rng.standard_normal(shape))
        held = y if y.base is None else y.base
        assert held.nbytes <= 2 * y.nbytes


@pytest.mark.parametrize("real", [True, False])
def test_the_number_of_transforms(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block circulant transforms q + p blocks of data, whatever p * q; a spectral circulant two vectors."""
    rng, counts = np.random.default_rng(11), []  # type: ignore[var-annotated]
    for name in ("fft", "ifft", "rfft", "irfft"):
        original = getattr(scipy.fft, name)

        def counted(x: Any, *args: Any, original: Any = original, name: str = name, **kwargs: Any) -> Any:
            axis = args[1] if len(args) > 1 else -1
            counts.append((name, x.size // x.shape[axis]))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(scipy.fft, name, counted)
    monkeypatch.setattr("structmat._fourier.engines.ducc", lambda: None)
    unit = 1.0 if real else 1j
    forward, backward = ("rfft", "irfft") if real else ("fft", "ifft")
    p, q, b = 3, 5, 4
    B = sm.BlockCirculant(unit * rng.standard_normal((p, q, b)))
    B.matvec(rng.standard_normal(q * b))
    assert sorted(counts) == sorted([(forward, p * q), (forward, q), (backward, p)])  # those of c, then q + p
    S = sm.Circulant(unit * rng.standard_normal(8)).to_spectral()
    counts.clear()
    S.matvec(rng.standard_normal(8))
    assert sorted(counts) == sorted([(forward, 1), (backward, 1)])
    counts.clear()
    n = small_products.FEW + 4
    sm.Circulant(unit * rng.standard_normal(n)).matvec(rng.standard_normal(n))
    assert sum(n for _, n in counts) == 3
    for kind in (sm.Toeplitz, sm.Hankel):
        op = kind(unit * rng.standard_normal(n + 10), rng.standard_normal(n))
        for multiply, size in ((op.matvec, n), (op.rmatvec, n + 10)):
            counts.clear()
            multiply(rng.standard_normal(size))
            assert sorted(counts) == sorted([(forward, 1), (forward, 1), (backward, 1)])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("n", [1, 2, 3, 16, 71, 251, small_products.FEW, small_products.FEW + 1])
def test_small_products_make_no_plan(n: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n)
    made, of = [], Convolution.of

    def counted(*args: Any, **options: Any) -> Convolution:
        made.append(args)
        return of(*args, **options)

    monkeypatch.setattr(Convolution, "of", counted)
    real_dtype, complex_dtype = np.real(np.zeros(1, dtype)).dtype, np.result_type(dtype, "complex64")
    c, r = (rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n))).astype(complex_dtype)
    c, r = (c, r) if dtype.startswith("c") else (c.real, r.real)
    x = (rng.standard_normal(n) + 1j * rng.standard_normal(n)).astype(complex_dtype)
    for op in (sm.Circulant(c), sm.Toeplitz(c, r), sm.Hankel(c, r), sm.Toeplitz(c[: n // 2 + 1], r)):
        wide = op.to_dense().astype("complex128")
        for v in (x, x[::-1], x.real.astype(real_dtype)):
            made.clear()
            found = op @ v
            assert bool(made) == (op.shape[0] * op.shape[1] > small_products.FEW**2)
            assert found.dtype == np.result_type(dtype, v.dtype)
            assert found.flags.owndata
            size = 1e-5 if real_dtype == np.float32 else 1e-13
            np.testing.assert_allclose(found, wide @ v, atol=size * np.linalg.norm(wide) * np.linalg.norm(v))


@pytest.mark.parametrize(
    ("n", "makes"), [(300, False), (2000, False), (engines.ONE_CALL, False), (257, True), (2 * engines.ONE_CALL, True)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_product_by_one_call_makes_no_plan(n: int, makes: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ducc0, for sizes that it convolves as they are; products are those of the plan."""
    if engines.ducc() is None:
        pytest.skip("ducc0 is not installed")
    made, of = [], Convolution.of

    def counted(*args: Any, **options: Any) -> Convolution:
        made.append(args)
        return of(*args, **options)

    monkeypatch.setattr(Convolution, "of", counted)
    rng = np.random.default_rng(n)
    c, x = (rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n))).astype(np.result_type(dtype, "complex64"))
    c, x = (c, x) if dtype.startswith("c") else (c.real.copy(), x.real.copy())
    found = sm.Circulant(c) @ x
    assert bool(made) == makes
    by_plan = sm.Circulant(c)._plan(numpy_namespace).apply(x, numpy_namespace)
    np.testing.assert_allclose(found, by_plan, atol=100 * np.finfo(dtype).eps * np.linalg.norm(c) * np.linalg.norm(x))


@pytest.mark.usefixtures("engine")
@in_one_test("dtype", ["float32", "float64", "complex64", "complex128"])
@in_one_test("n", [1, 2, 300, 2000, 8192, 20000])
def test_steps_return_arrays_of_their_own(n: int, dtype: str) -> None:
    """And leave the vectors as they are, also where what is multiplied or kept is a part of a longer vector."""
    rng = np.random.default_rng(n)

    def vectors(*shape: int) -> np.ndarray:
        found = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype.startswith("c") else 0)
        return found.astype(dtype)

    short = max(1, n // 2)
    plans = [
        sm.Circulant(vectors(n))._plan(numpy_namespace),
        sm.Toeplitz(vectors(n), vectors(short))._plan(numpy_namespace),
        sm.Hankel(vectors(short), vectors(n))._plan(numpy_namespace),
        sm.BandedCirculant(vectors(3), n)._plan(numpy_namespace),
        sm.Diagonal(vectors(n))._plan(numpy_namespace),
        plan_of_parts(sm.Circulant(vectors(n)) + sm.Diagonal(vectors(n))),
        (sm.Diagonal(vectors(n)) @ sm.Circulant(vectors(n)) @ sm.Diagonal(vectors(n)))._plan(numpy_namespace),
        Convolution.of(vectors(embedding.fast_length(n)), (n, short), numpy_namespace),
    ]
    for plan in plans:
        rows, cols = plan.shape
        for shape in ((), (3,)):
            step = plan.step(numpy_namespace, dtype, batched=bool(shape))
            x = vectors(*shape, cols)
            kept = x.copy()
            found = step(x)
            assert found.shape == (*shape, rows)
            np.testing.assert_array_equal(step(x), found)
            np.testing.assert_array_equal(x, kept)
            assert not np.shares_memory(found, x)
            assert found.base is None or found.base.size <= 2 * found.size


def test_the_table_has_a_method_for_every_length() -> None:
    for dtype in ("float32", "complex64", "float64", "complex128"):
        for library, many in itertools.product(("numpy", "ducc0", "torch"), (False, True)):
            limits = [limit for limit, _ in engines.CHOICES.get((library, dtype, many), ((np.inf, ""),))]
            assert limits == sorted(limits)
            assert limits[-1] == np.inf
        for library in ("numpy", "ducc0", "torch"):
            sizes = list(small_products.DENSE_UP_TO[library, dtype])
            assert sizes == sorted(sizes, reverse=True)
            assert small_products.dense_up_to(sizes[-1], library, dtype) == sys.maxsize
            assert small_products.dense_up_to(sizes[0] + 1, library, dtype) == 0
            assert small_products.dense_up_to(sizes[0], library, dtype) >= 1


@pytest.mark.parametrize("fast", [False, True])
def test_the_configuration_is_told(fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if fast and not engines.ducc():
        pytest.skip("needs structmat[fast]")
    if not fast:
        monkeypatch.setattr(engines, "ducc", lambda: None)
    sm.show_config()
    text = capsys.readouterr().out
    assert f"numpy {np.__version__}" in text
    assert ("structmat[fast]" in text) != fast


def test_no_engine_is_imported_before_the_first_product() -> None:
    code = "import sys, structmat; print([m for m in ('scipy.fft', 'ducc0', 'ducc0.fft') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


SIZES = [1, 2, 3, 7, 16, 64, 97, 100, 1000, 4096, 65537]
TOLERANCE = {"float64": 1e-13, "float32": 1e-5}


def sparse_product(c: np.ndarray, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """C x for an x with few nonzero entries: shifted copies of the column, in extended precision."""
    c = c.astype(np.longdouble)
    return sum(value * np.roll(c, int(k)) for k, value in zip(positions, values.astype(np.longdouble), strict=True))


def skip_where_each_shape_compiles(backend: Backend, one_of_few: bool) -> None:
    if backend.compiles and not one_of_few:
        pytest.skip("each operation would be compiled for each shape")


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", SIZES)
def test_products_and_solutions(backend: Backend, n: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, n in {1, 7, 100, 4096})
    rng = np.random.default_rng(n)
    c = rng.standard_normal(n).astype(dtype)
    c[0] += 2 * np.sum(np.abs(c))  # diagonally dominant, so well conditioned
    positions = rng.choice(n, size=min(n, 9), replace=False)
    values = rng.standard_normal(len(positions)).astype(dtype)
    x = np.zeros(n, dtype)
    x[positions] = values
    expected = sparse_product(c, positions, values)
    reversed_c = np.roll(c[::-1], 1)
    adjoint = sparse_product(reversed_c, positions, values)
    a = backend.asarray
    for op in (sm.Circulant(a(c)), sm.Circulant(a(c)).to_spectral()):
        assert relative(backend.to_numpy(op.matvec(a(x))), expected) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.rmatvec(a(x))), adjoint) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.solve(a(expected.astype(dtype)))), x) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("rows", "cols", "b"), [(1000, 700, 97), (700, 1000, 256), (130, 257, 64), (7, 5, 3)])
def test_block_circulant_rectangles(backend: Backend, rows: int, cols: int, b: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, b == 64)
    rng = np.random.default_rng(b)
    c = rng.standard_normal((-(-rows // b), -(-cols // b), b)).astype(dtype)
    x, y = rng.standard_normal((3, cols)).astype(dtype), rng.standard_normal((3, rows)).astype(dtype)
    dense = np.block([[scipy.linalg.circulant(v.astype("float64")) for v in row] for row in c])[:rows, :cols]
    op = sm.BlockCirculant(backend.asarray(c), (rows, cols))
    assert relative(backend.to_numpy(op.matvec(backend.asarray(x))), x @ dense.T) <= TOLERANCE[dtype]
    assert relative(backend.to_numpy(op.rmatvec(backend.asarray(y))), y @ dense) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (97, 101), (1000, 1), (1, 1000), (4096, 4096), (700, 65537)])
def test_toeplitz_and_hankel_rectangles(backend: Backend, m: int, n: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, (m, n) in {(2, 3), (97, 101)})
    rng = np.random.default_rng(n)
    t = rng.standard_normal(m + n - 1).astype(dtype)  # the constants, from one corner to the other
    x, y = rng.standard_normal(n).astype(dtype), rng.standard_normal(m).astype(dtype)
    wide, a = t.astype(np.longdouble), backend.asarray
    windows = np.lib.stride_tricks.sliding_window_view(wide, n)  # the Hankel matrix, m x n
    some = np.r_[0, rng.choice(m, 40), m - 1]
    others = np.r_[0, rng.choice(n, 40), n - 1]
    columns = np.lib.stride_tricks.sliding_window_view(wide, m)
    cases = (
        (sm.Hankel(a(t[:m]), a(t[m - 1 :])), x, y, columns[others] @ y),
        (sm.Toeplitz(a(t[n - 1 :]), a(t[n - 1 :: -1].copy())), x[::-1].copy(), y, columns[n - 1 - others] @ y),
    )
    for op, v, w, adjoint in cases:
        product = backend.to_numpy(op.matvec(a(v)))
        assert product.dtype == dtype
        assert relative(product[some], windows[some] @ x) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.rmatvec(a(w)))[others], adjoint) <= TOLERANCE[dtype]


@pytest.mark.parametrize("n", [1, 2, 5, 8, 33])
def test_nearest_members_are_projections(n: int) -> None:
    """The residual of a nearest member is orthogonal to the family, and a member is its own nearest."""
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    near = sm.Circulant.nearest(A)
    residual = A - near.to_dense()
    direction = sm.Circulant(rng.standard_normal(n)).to_dense()
    assert abs(np.vdot(direction, residual)) <= 1e-12 * n * n
    np.testing.assert_allclose(sm.Circulant.nearest(near.to_dense()).c, near.c, atol=1e-14)
    for b in {1, 2, n}:
        B = sm.BlockCirculant.nearest(A[:, : n - n // 3], b)
        zero = sm.BlockCirculant(rng.standard_normal(B.c.shape), B.shape).to_dense()
        assert abs(np.vdot(zero, A[:, : n - n // 3] - B.to_dense())) <= 1e-12 * n * n
        again = sm.BlockCirculant.nearest(B.to_dense(), b)
        np.testing.assert_allclose(again.to_dense(), B.to_dense(), atol=1e-13)


def test_nearest_members_of_stacks(backend: Backend) -> None:
    A = np.random.default_rng(0).standard_normal((4, 6, 6))
    stacked = sm.Circulant.nearest(backend.asarray(A))
    for i in range(4):
        np.testing.assert_allclose(backend.to_numpy(stacked.c)[i], sm.Circulant.nearest(A[i]).c, atol=1e-14)
    blocks = sm.BlockCirculant.nearest(backend.asarray(A[:, :5]), 2)
    assert blocks.batch_shape == (4,)
    np.testing.assert_allclose(backend.to_numpy(blocks.c)[2], sm.BlockCirculant.nearest(A[2, :5], 2).c, atol=1e-14)
