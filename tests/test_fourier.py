"""Transforms: fast lengths, chunks, corners of circulants, the choice of an engine, and how many there are."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from itertools import product
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from array_api_compat import numpy as numpy_namespace
from array_api_compat import torch as torch_namespace
from hypothesis import given
from hypothesis import strategies as st

import structmat as sm
from structmat import _fourier
from structmat._fourier import (
    Settings,
    convolution,
    convolve_axis,
    fast_length,
    from_spectrum,
    in_chunks,
    multilevel_fft,
    multilevel_ifft,
    spectrum,
)


def test_embedded_lengths_are_fast() -> None:
    for n in [*range(1, 5000), 99991, 2**20 - 1, 2**20 + 1]:
        length = fast_length(n)
        assert n <= length <= n * (1.08 if n > 1000 else 1.16)
        assert 30**25 % length == 0  # no prime factor but 2, 3 and 5


@given(n=st.integers(1, 5000))
def test_embedded_lengths(n: int) -> None:
    c = np.arange(1.0, n + 1)
    kernel = _fourier.cyclic_kernel(c, np)
    largest = max(
        (p for p in range(2, n + 1) if n % p == 0 and all(p % d for d in range(2, int(p**0.5) + 1))), default=1
    )
    assert _fourier.is_fast(n, np) == (largest <= _fourier.LARGEST_PRIME["numpy"])
    assert _fourier.is_fast(n, array_api_strict) == (largest <= _fourier.LARGEST_PRIME_ELSEWHERE)
    if _fourier.is_fast(n, np):
        assert kernel is c
    else:
        assert _fourier.is_fast(len(kernel), np)
        assert len(kernel) >= 2 * n - 1
        np.testing.assert_array_equal(kernel[:n], c)
        np.testing.assert_array_equal(kernel[len(kernel) - n + 1 :], c[1:])


@pytest.mark.parametrize("size", [None, 1, 400, 10**6])
@pytest.mark.parametrize("rows", [0, 1, 1100])
def test_chunks_of_any_size_are_the_whole(rows: int, size: int | None) -> None:
    seen = []

    def doubled_but_the_last(x: Any, out: Any) -> Any:
        seen.append(len(x))
        return np.multiply(x[:, :-1], 2, out=out)

    x = np.arange(rows * 128.0).reshape(rows, 1, 128)
    wanted = 2 * x[..., :-1]
    for out in (None, np.empty_like(wanted)):
        seen.clear()
        found = in_chunks(doubled_but_the_last, x, 127, size, out)
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
        if out is not None and rows:
            assert np.shares_memory(found, out)
        assert sum(seen) == rows
        assert max(seen, default=0) <= (size or rows)


ENGINES = ["scipy", *(["ducc0"] if _fourier.ducc() else [])]


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
            stack = convolution(kernels, (rows, cols), Settings(), xp, flips=flips)
            np.testing.assert_allclose(stack.apply(x, xp), wanted, atol=1e-14)
            one = convolution(kernels[0], (rows, cols), Settings(), xp, flips=flips)
            for found in (one.apply(x[0], xp), one.apply(x[:1], xp)[0], stack.apply(x, xp)[0]):
                np.testing.assert_allclose(found, wanted[0], atol=1e-14)


@pytest.mark.skipif(not _fourier.ducc(), reason="needs ducc0")
@pytest.mark.parametrize("length", [1024, 1000])
def test_batches_are_convolved_as_their_vectors(length: int) -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.standard_normal(length).astype("float32"), rng.standard_normal((17, length)).astype("float32")
    wanted = np.fft.irfft(np.fft.rfft(kernel) * np.fft.rfft(x), length)
    for count in (1, 8, 17):
        np.testing.assert_allclose(convolve_axis(kernel, x[:count], None), wanted[:count], atol=1e-3)


@pytest.mark.parametrize(("xp", "zeros"), [(numpy_namespace, np.zeros), (torch_namespace, torch.zeros)])
@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [sm.Toeplitz, sm.Hankel])
def test_products_keep_no_memory_of_the_entries_cut_off(engine: str, make: Any) -> None:
    """Rows of a long kernel that are not wanted would be kept for as long as the product."""
    rng = np.random.default_rng(0)
    m, n = 500, 5000
    P = make(rng.standard_normal(m), rng.standard_normal(n)).prepare(engine=engine)
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
    monkeypatch.setattr("structmat._fourier.ducc", lambda: None)
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
    sm.Circulant(unit * rng.standard_normal(8)).matvec(rng.standard_normal(8))
    assert sum(n for _, n in counts) == 3
    for kind in (sm.Toeplitz, sm.Hankel):
        op = kind(unit * rng.standard_normal(8), rng.standard_normal(6))
        for multiply, size in ((op.matvec, 6), (op.rmatvec, 8)):
            counts.clear()
            multiply(rng.standard_normal(size))
            assert sorted(counts) == sorted([(forward, 1), (forward, 1), (backward, 1)])


def test_the_table_has_a_method_for_every_length() -> None:
    for dtype in ("float32", "complex64", "float64", "complex128"):
        for engine, many in itertools.product(("scipy", "ducc0", "auto", "torch"), (False, True)):
            limits = [limit for limit, _ in _fourier.choices(dtype, engine, batched=many)]
            assert limits == sorted(limits)
            assert limits[-1] == np.inf
        for library in ("numpy", "ducc0", "torch"):
            sizes = list(_fourier.direct_sizes(library, dtype).values())
            assert sizes == sorted(sizes, reverse=True)
            assert _fourier.direct_up_to(sizes[-1], library, dtype) == sys.maxsize
            assert _fourier.direct_up_to(sizes[0] + 1, library, dtype) == 0
            assert _fourier.direct_up_to(sizes[0], library, dtype) >= 1


def test_engines_that_are_none_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    C = sm.Circulant(np.ones(3))
    with pytest.raises(ValueError, match=r'Circulant\.prepare: engine must be "auto", "scipy" or "ducc0"'):
        C.prepare(engine="fftw")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ducc0", None)  # so that its import fails
    monkeypatch.setattr(_fourier, "ducc", _fourier.ducc.__wrapped__)
    with pytest.raises(ImportError, match=r"structmat\[fast\]"):
        C.prepare(engine="ducc0")


@pytest.mark.parametrize("fast", [False, True])
def test_the_configuration_is_told(fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if fast and not _fourier.ducc():
        pytest.skip("needs structmat[fast]")
    if not fast:
        monkeypatch.setattr(_fourier, "ducc", lambda: None)
        monkeypatch.setattr("structmat.operators._prepared.ducc", lambda: None)
    sm.show_config()
    text = capsys.readouterr().out
    assert f"numpy {np.__version__}" in text
    assert text.count("one vector: dense for n <= ") == 4
    assert text.count("8 vectors or more: dense for n <= ") == 4
    assert ("ducc0.fft.convolve_axis" in text) == fast
    assert ("structmat[fast]" in text) != fast
    for dtype, limit in re.findall("  ([a-z0-9]+), one vector: dense for n <= ([0-9]+)", text):
        sizes = int(limit), int(limit) // 16 * 16 + 16  # one that is transformed as it is
        assert [sm.Circulant(np.ones(n, dtype)).prepare().direct > 0 for n in sizes] == [True, False]


def test_no_method_is_told_for_sizes_that_are_dense(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    table = ((10, "never taken"), (np.inf, "taken"))
    monkeypatch.setattr("structmat._fourier.choices", lambda *_, **__: table)
    sm.show_config()
    text = capsys.readouterr().out
    assert (text.count("never taken"), text.count(", taken")) == (0, 8)


def test_no_engine_is_imported_before_the_first_product() -> None:
    code = "import sys, structmat; print([m for m in ('scipy.fft', 'ducc0', 'ducc0.fft') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
