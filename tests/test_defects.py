"""The defects seen in other libraries, each as a test, and bad input: a clear error that names the argument."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

import structmat as sm
from structmat._engine import fast_length

rng = np.random.default_rng(11)


def test_complex_is_not_cast_to_real() -> None:
    c, x = rng.standard_normal(5), rng.standard_normal(5) + 1j * rng.standard_normal(5)
    for op, v in ((sm.Circulant(c), x), (sm.Circulant(x), c), (sm.Circulant(c).to_spectral(), x)):
        assert np.linalg.norm(np.imag(op.matvec(v))) > 0.1


def test_single_precision_is_not_widened() -> None:
    c = rng.standard_normal(9).astype("float32")
    for value in (
        sm.Circulant(c).matvec(c), sm.Circulant(c).to_spectral().matvec(c), sm.Circulant(c).inv().c, (2.5 * sm.Circulant(c)).c,
        sm.Circulant(c).to_dense(), sm.Circulant(c).norm(), sm.Circulant(c).svdvals(), sm.Diagonal(c).solve(c),
        (sm.Circulant(c) + sm.Identity(9)).c, sm.Circulant.nearest(np.outer(c, c)).c, sm.preconditioners.tyrtyshnikov(c).c,
    ):  # fmt: skip
        assert value.dtype == "float32"
    assert sm.Circulant(c).eigvals().dtype == "complex64"


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_imaginary_parts_without_a_partner_count_as_zero(n: int) -> None:
    values = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1) + 3
    S, b = sm.SpectralCirculant(values, n), rng.standard_normal(n)
    C, A = S.to_circulant(), S.to_dense()
    for op in (S, S.prepare()):
        np.testing.assert_allclose(A @ op.solve(b), b)
        np.testing.assert_allclose(A @ op.inv().matvec(b), b)
        np.testing.assert_allclose(A @ op.pinv().matvec(b), b)
        np.testing.assert_allclose(np.sort_complex(op.eigvals()), np.sort_complex(C.eigvals()))
        np.testing.assert_allclose(op.svdvals(), C.svdvals())
        np.testing.assert_allclose(op.exp().to_dense(), scipy.linalg.expm(A))
        np.testing.assert_allclose((op @ op).to_dense(), A @ A)
        np.testing.assert_allclose((op + op).to_dense(), 2 * A)
        np.testing.assert_allclose(op.det(), np.linalg.det(A))


def test_the_order_of_bytes_does_not_matter() -> None:
    c, x = rng.standard_normal((2, 300))
    swapped = sm.Circulant(c.astype(">f8"))
    assert swapped.dtype == "float64"
    for op in (swapped, swapped.prepare(), sm.Circulant(c).prepare()):
        for v in (x, np.stack([x, x])):
            np.testing.assert_allclose(op.matvec(v.astype(">f8")), sm.Circulant(c).matvec(v))


def test_odd_lengths_survive_the_inverse_transform() -> None:
    for n in (1, 3, 5, 7, 9):
        c = rng.standard_normal(n)
        assert sm.Circulant(c).to_spectral().to_circulant().c.shape == (n,)
        np.testing.assert_allclose(sm.Circulant(c).to_spectral().to_circulant().c, c, atol=1e-14)


def test_integers_are_not_truncated() -> None:
    C = sm.Circulant([0.5, 0.25, 0.0])
    np.testing.assert_allclose(C @ np.array([1, 1, 1]), 0.75)
    assert sm.Circulant(np.array([1, 2, 3])).inv().c.dtype == "float64"
    np.testing.assert_allclose(C @ [1, 0, 0], [0.5, 0.25, 0.0], atol=1e-15)
    assert (sm.Circulant(np.ones(2, "float32")) @ [1, 2]).dtype == "float32"


def test_the_column_convention_is_scipys() -> None:
    c = rng.standard_normal(6)
    np.testing.assert_array_equal(sm.Circulant(c).to_dense(), scipy.linalg.circulant(c))
    np.testing.assert_array_equal(sm.Circulant.from_row(c).to_dense()[0], c)
    np.testing.assert_array_equal(sm.Circulant.from_row(c).to_dense(), scipy.linalg.circulant(c).T)
    np.testing.assert_allclose(sm.Circulant(c).matvec(c), np.fft.ifft(np.fft.fft(c) ** 2).real, atol=1e-14)


def test_toeplitz_and_hankel_are_scipys() -> None:
    c, r = rng.standard_normal((2, 5)) + 1j * rng.standard_normal((2, 5))
    for ours, scipys in ((sm.Toeplitz, scipy.linalg.toeplitz), (sm.Hankel, scipy.linalg.hankel)):
        for vectors in ((c,), (c, r), (c, r[:3]), (c[:2], r), (c.real, r), (c, r.imag), (c[:1],), (c, r[:1])):
            np.testing.assert_array_equal(ours(*vectors).to_dense(), scipys(*vectors))
        real, single = ours(c.real, r.real), ours(c.real.astype("float32"), r.real.astype("float32"))
        assert real.matvec(c.real).dtype == "float64"
        assert single.matvec(single.r).dtype == single.T.norm().dtype == single.to_dense().dtype == "float32"
        assert ours.nearest(single.to_dense()).dtype == "float32"
        assert ours(c.real, r.astype("complex64")).dtype == "complex128"
        assert ours([1, 2], [3, 4, 5]).dtype == "float64"
        ignored = r.copy()
        ignored[0] = np.nan
        assert np.all(np.isfinite(2 * (ours(c, ignored) + ours(c, ignored)).H @ c))
    np.testing.assert_array_equal(sm.Toeplitz(c).H.to_dense()[1:, 0], sm.Toeplitz(c).to_dense()[1:, 0])


def test_a_batch_axis_is_not_read_as_columns() -> None:
    C, X = sm.Circulant(rng.standard_normal(4)), rng.standard_normal((4, 4))
    np.testing.assert_allclose(C.matvec(X), X @ C.to_dense().T, atol=1e-14)
    np.testing.assert_allclose(C @ X, C.to_dense() @ X, atol=1e-14)
    np.testing.assert_allclose(X @ C, X @ C.to_dense(), atol=1e-14)


def test_a_spectrum_is_never_stale() -> None:
    c = rng.standard_normal(5)
    C = sm.Circulant(c)
    C.matvec(c)
    c[0] += 1
    np.testing.assert_allclose(C.matvec(np.eye(5)[0]), c, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: sm.Circulant(np.ones(4)).matvec(np.ones(3)), ValueError, r"Circulant\.matvec: x must have shape \(\.\.\., 4\), got \(3,\)"),
        (lambda: sm.Circulant(np.ones(4)).rmatvec(np.ones((4, 3))), ValueError, r"Circulant\.rmatvec: y must have shape"),
        (lambda: sm.Circulant(np.ones(4)).matmat(np.ones((3, 4))), ValueError, r"matmat: X must have shape \(\.\.\., 4, k\), got \(3, 4\)"),
        (lambda: sm.Circulant(np.ones(4)).matmat(np.ones(4)), ValueError, r"matmat: X must have shape"),
        (lambda: np.ones((2, 3)) @ sm.Circulant(np.ones(4)), ValueError, r"X must have shape \(\.\.\., 4\), got \(2, 3\)"),
        (lambda: sm.Circulant(np.ones(4)).matvec(1.0), ValueError, r"x must have shape \(\.\.\., 4\), got \(\)"),
        (lambda: sm.Circulant(np.ones((2, 4))).matvec(np.ones((3, 4))), ValueError, r"batch axes \(2,\) and \(3,\) do not broadcast"),
        (lambda: sm.Circulant(np.ones(0)), ValueError, r"Circulant: c must have shape \(\.\.\., n\) with n >= 1, got \(0,\)"),
        (lambda: sm.Circulant(3.0), ValueError, r"Circulant: c must have shape"),
        (lambda: sm.Circulant([[1.0, 2.0], [3.0]]), ValueError, r"Circulant: c must be a rectangular array of numbers"),
        (lambda: sm.Circulant(np.array([1, "a"], dtype=object)), TypeError, r"Circulant: c must hold numbers of a standard dtype"),
        (lambda: sm.Circulant("abc"), TypeError, r"Circulant: c must hold numbers"),
        (lambda: sm.Circulant(None), TypeError, r"Circulant: c must hold numbers"),
        (lambda: sm.Circulant(np.ones(3, "longdouble")), TypeError, r"must hold numbers of a standard dtype, got dtype (float128|longdouble)"),
        (lambda: sm.Diagonal(np.ones((3, 0))), ValueError, r"Diagonal: d must have shape"),
        (lambda: sm.BlockCirculant(np.ones((2, 3))), ValueError, r"BlockCirculant: c must have shape \(\.\.\., p, q, b\)"),
        (lambda: sm.BlockCirculant(np.ones((2, 3, 4)), (9, 12)), ValueError, r"shape \(9, 12\) needs 3 x 3 blocks of 4, c has 2 x 3"),
        (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), (0, 4)), ValueError, r"shape must be at least 1, got 0"),
        (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), (4,)), ValueError, r"shape must be \(rows, cols\)"),
        (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), (2.5, 4)), TypeError, r"shape must be an integer, got 2\.5"),
        (lambda: sm.SpectralCirculant(np.ones(4), 4), ValueError, r"spectrum must have shape \(\.\.\., 3\) for n=4 and real=True"),
        (lambda: sm.Circulant.nearest(np.ones((2, 3))), ValueError, r"for a rectangle use BlockCirculant\.nearest"),
        (lambda: sm.Diagonal.nearest(np.ones((2, 3))), ValueError, r"Diagonal\.nearest: A must have shape \(\.\.\., n, n\)"),
        (lambda: sm.BlockCirculant.nearest(np.ones((2, 3)), 0), ValueError, r"block_size must be at least 1"),
        (lambda: sm.BlockCirculant.nearest(np.ones(3), 1), ValueError, r"BlockCirculant\.nearest: A must have shape"),
        (lambda: sm.Toeplitz(3.0), ValueError, r"Toeplitz: c must have shape \(\.\.\., m\) with m >= 1, got \(\)"),
        (lambda: sm.Toeplitz(np.ones(3), np.ones((2, 0))), ValueError, r"Toeplitz: r must have shape \(\.\.\., n\) with n >= 1, got \(2, 0\)"),
        (lambda: sm.Toeplitz(np.ones((2, 3)), np.ones((4, 3))), ValueError, r"Toeplitz: the batch axes \(2,\) and \(4,\) do not broadcast"),
        (lambda: sm.Toeplitz("abc"), TypeError, r"Toeplitz: c must hold numbers"),
        (lambda: sm.Toeplitz(np.ones(3), "abc"), TypeError, r"Toeplitz: r must hold numbers"),
        (lambda: sm.Toeplitz(np.ones(3), np.ones(4)).solve(np.ones(3)), ValueError, r"Toeplitz\.solve: the operator must be square, got shape \(3, 4\)"),
        (lambda: sm.Toeplitz(np.ones(3)).solve(np.ones(3)), NotImplementedError, r"Toeplitz\.solve: no closed form .* use scipy\.sparse\.linalg\.gmres"),
        (lambda: sm.Toeplitz.nearest(np.ones(3)), ValueError, r"Toeplitz\.nearest: A must have shape \(\.\.\., m, n\), none of them 0, got \(3,\)"),
        (lambda: sm.Hankel(np.ones(0)), ValueError, r"Hankel: c must have shape \(\.\.\., m\) with m >= 1, got \(0,\)"),
        (lambda: sm.Hankel(np.ones(3), 2.0), ValueError, r"Hankel: r must have shape \(\.\.\., n\) with n >= 1, got \(\)"),
        (lambda: sm.Hankel.nearest(np.ones((0, 3))), ValueError, r"Hankel\.nearest: A must have shape"),
        (lambda: sm.Identity(0), ValueError, r"Identity: n must be at least 1"),
        (lambda: sm.Identity(2.0), TypeError, r"Identity: n must be an integer"),
        (lambda: sm.Product(()), ValueError, r"Product needs at least one operator"),
        (lambda: sm.Product((sm.Identity(2), np.eye(2))), TypeError, r"Product takes structmat operators, got ndarray"),
        (lambda: sm.Product((sm.Identity(2), sm.Identity(3))), ValueError, r"Product: inner sizes differ, \(2, 2\) @ \(3, 3\)"),
        (lambda: sm.Sum((sm.Identity(2), sm.Identity(3))), ValueError, r"Sum: shapes differ"),
        (lambda: sm.CDDProduct((sm.Diagonal(np.ones(2)), sm.Diagonal(np.ones(2)))), ValueError, r"must alternate, got Diagonal beside Diagonal"),
        (lambda: sm.CDDProduct((sm.Identity(2),)), TypeError, r"factors must be Diagonal, Circulant, .* got Identity"),
        (lambda: sm.CDDProduct.from_vectors(), ValueError, r"CDDProduct needs at least one operator"),
        (lambda: sm.CDDProduct.from_vectors(np.ones(2), first="c"), ValueError, r'first must be "diagonal" or "circulant", got \'c\''),
        (lambda: sm.CDDProduct.from_vectors(np.ones(2), np.ones(3)), ValueError, r"inner sizes differ"),
        (lambda: sm.Identity(2) @ sm.Identity(3), ValueError, r"Identity @ Identity: inner sizes differ"),
        (lambda: sm.Circulant(np.ones(2)) + sm.Circulant(np.ones(3)), ValueError, r"shapes differ, \(2, 2\) \+ \(3, 3\)"),
        (lambda: sm.Circulant(np.ones(2)) * sm.Circulant(np.ones(2)), TypeError, r"use @ for the matrix product"),
        (lambda: sm.Circulant(np.ones(2)) * np.ones(2), ValueError, r"use @ for the product with a vector"),
        (lambda: sm.Circulant(np.ones(2)) + np.eye(2), TypeError, r"Circulant \+ array: add operators, or arrays to op\.to_dense\(\)"),
        (lambda: np.eye(2) + sm.Circulant(np.ones(2)), TypeError, r"Circulant \+ array"),
        (lambda: sm.Circulant(np.ones(2)) - np.eye(2), TypeError, r"Circulant \+ array"),
        (lambda: sm.Circulant(np.ones(2)) @ 3, TypeError, r"unsupported operand"),
        (lambda: sm.Circulant(np.ones(2)) @ sm.Circulant(np.ones(2)) / sm.Identity(2), TypeError, r"unsupported operand"),
        (lambda: sm.BlockCirculant(np.ones((1, 2, 2))).inv(), ValueError, r"BlockCirculant\.inv: the operator must be square, got shape \(2, 4\)"),
        (lambda: sm.Circulant(np.ones(2)).norm("abc"), ValueError, r'ord must be "fro", "nuc", 1, 2 or inf, got \'abc\''),
        (lambda: sm.Circulant(np.ones(2)).power("2"), TypeError, r"p must be a finite real number"),
        (lambda: sm.Circulant(np.ones(2)).power(math.nan), TypeError, r"p must be a finite real number"),
        (lambda: sm.Circulant(np.ones(2)).astype("int64"), TypeError, r"astype: dtype must be a floating dtype"),
        (lambda: sm.Circulant(np.ones(3)).inv(), np.linalg.LinAlgError, r"singular to working precision; use pinv\(\) or lstsq\(\)"),
        (lambda: sm.Circulant(np.ones(3)).solve(np.ones(3)), np.linalg.LinAlgError, r"singular to working precision"),
        (lambda: sm.Diagonal(np.array([1.0, 0.0])).inv(), np.linalg.LinAlgError, r"Diagonal\.inv: the matrix is singular"),
        (lambda: sm.BlockCirculant(np.ones((2, 2, 3))).solve(np.ones(6)), np.linalg.LinAlgError, r"BlockCirculant\.solve"),
        (lambda: sm.Circulant(np.array([1.0, -1.0])).log(), np.linalg.LinAlgError, r"log: the matrix is singular"),
        (lambda: sm.Circulant(np.ones(3)).power(-1), np.linalg.LinAlgError, r"power: the matrix is singular"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_clear_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_libraries_are_never_mixed() -> None:
    torch = pytest.importorskip("torch")
    C = sm.Circulant(np.ones(3))
    for call in (
        lambda: C.matvec(torch.ones(3)),
        lambda: C @ sm.Circulant(torch.ones(3)),
        lambda: C + sm.Diagonal(torch.ones(3)),
        lambda: sm.CDDProduct.from_vectors(np.ones(3), torch.ones(3)),
        lambda: sm.Toeplitz(np.ones(3), torch.ones(3)),
        lambda: sm.Hankel(torch.ones(3), np.ones(3)),
    ):
        with pytest.raises(TypeError, match="all arrays must come from one array library"):
            call()


def test_nothing_leaves_the_device() -> None:
    strict = pytest.importorskip("array_api_strict")

    def a(values: Any) -> Any:
        return strict.asarray(np.array(values), device=strict.Device("device1"))  # refuses to meet the default one

    x = a(rng.standard_normal(4))
    T, H = (kind(a(rng.standard_normal(4)), a(rng.standard_normal(4))) for kind in (sm.Toeplitz, sm.Hankel))
    for op in (
        T,
        H,
        sm.Circulant(x),
        sm.Diagonal(x),
        T + sm.Identity(4),
        T + sm.Circulant(x),
        type(T).nearest(H.to_dense()),
    ):
        results = [
            op.matvec(x),
            op.rmatvec(x),
            op.to_dense(),
            op.T.to_dense(),
            op.trace(),
            *map(op.norm, ("fro", 1, np.inf)),
        ]
        assert {str(result.device) for result in results} == {str(x.device)}
    for make in (sm.preconditioners.chan, sm.preconditioners.strang, sm.preconditioners.tyrtyshnikov):
        assert make(T).device == x.device


def test_operators_cannot_be_changed() -> None:
    C = sm.Circulant(np.ones(3))
    with pytest.raises(AttributeError):
        C.c = np.zeros(3)
    with pytest.raises((AttributeError, TypeError)):
        C.spectrum = 1


@pytest.mark.parametrize("real", [True, False])
def test_the_number_of_transforms(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block circulant transforms q + p blocks of data, whatever p * q; a spectral circulant two vectors."""
    counts: list[tuple[str, int]] = []
    for name in ("fft", "ifft", "rfft", "irfft"):
        original = getattr(scipy.fft, name)

        def counted(x: Any, *args: Any, original: Any = original, name: str = name, **kwargs: Any) -> Any:
            axis = args[1] if len(args) > 1 else -1
            counts.append((name, x.size // x.shape[axis]))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(scipy.fft, name, counted)
    monkeypatch.setattr("structmat._engine.engines.ducc", lambda: None)
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
        for product, size in ((op.matvec, 6), (op.rmatvec, 8)):
            counts.clear()
            product(rng.standard_normal(size))
            assert sorted(counts) == sorted([(forward, 1), (forward, 1), (backward, 1)])


def test_embedded_lengths_are_fast() -> None:
    for n in [*range(1, 5000), 99991, 2**20 - 1, 2**20 + 1]:
        length = fast_length(n)
        assert n <= length <= n * (1.08 if n > 1000 else 1.16)
        assert 30**25 % length == 0  # no prime factor but 2, 3 and 5


def test_import_is_light() -> None:
    code = (
        "import sys, structmat\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'rich', 'cyclopts', 'safetensors', 'scipy.fft', 'scipy.sparse'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "structmat.scipy.as_linear_operator\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_functions_of_real_circulants() -> None:
    """Negative eigenvalues in pairs have a real root; one alone, at frequency 0 or n / 2, has not."""
    rotation = sm.Circulant([0.0, 1.0, 0.0])  # eigenvalues 1 and a conjugate pair
    assert rotation.sqrt().dtype == "float64"
    assert rotation.power(0.3).dtype == "float64"
    pair = sm.SpectralCirculant(np.array([1.0, -1.0]), 3)  # eigenvalues 1, -1, -1
    root = pair.sqrt()
    assert root.dtype == "float64"
    np.testing.assert_allclose((root @ root).to_dense(), pair.to_dense(), atol=1e-14)
    swap = sm.Circulant([0.0, 1.0])  # eigenvalues 1 and -1
    assert swap.sqrt().dtype == "complex128"
    np.testing.assert_allclose((swap.sqrt() @ swap.sqrt()).to_dense(), swap.to_dense(), atol=1e-14)
    np.testing.assert_allclose(swap.log().exp().to_dense(), swap.to_dense(), atol=1e-14)
    np.testing.assert_allclose(rotation.power(3).to_dense(), np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rotation.exp().to_dense(), scipy.linalg.expm(rotation.to_dense()), atol=1e-14)
    np.testing.assert_allclose(rotation.log().to_dense(), scipy.linalg.logm(rotation.to_dense()), atol=1e-12)


def test_negative_semidefinite_determinants_keep_their_sign() -> None:
    for n in (2, 3, 4, 5):
        for sign in (1.0, -1.0):
            c = sign * (np.arange(n) == 0) * 2.0
            assert math.isclose(sm.Circulant(c).det(), (2 * sign) ** n)
            assert sm.Circulant(c).slogdet().sign == sign**n
    singular = sm.Diagonal(np.array([1.0, 0.0])).slogdet()
    assert (singular.sign, singular.logabsdet) == (0, -np.inf)


def test_pseudo_inverse_of_singular_and_rectangular_operators() -> None:
    for op in (
        sm.Circulant(np.ones(4)),
        sm.Circulant([1.0, -1.0, 0.0]),
        sm.Diagonal([1.0, 0.0, 2.0]),
        sm.BlockCirculant(np.ones((2, 3, 2))),
        sm.BlockCirculant(rng.standard_normal((3, 1, 4))),
    ):
        dense = op.to_dense()
        np.testing.assert_allclose(op.pinv().to_dense(), np.linalg.pinv(dense), atol=1e-13)
        assert op.rank() == np.linalg.matrix_rank(dense)
        b = rng.standard_normal(dense.shape[0])
        np.testing.assert_allclose(op.lstsq(b), np.linalg.lstsq(dense, b)[0], atol=1e-13)
    assert sm.Circulant(np.ones(4)).cond() > 1e15


def test_the_adjoint_test_finds_a_wrong_adjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    C = sm.Circulant(rng.standard_normal(6))
    assert sm.testing.adjoint_error(C) < 1e-14
    monkeypatch.setattr(sm.Circulant, "_rmatvec", lambda self, y, xp: self._matvec(y, xp))
    assert sm.testing.adjoint_error(C, rng=0) > 1e-3
    with pytest.raises(TypeError, match="adjoint_error: operator must be a structmat operator, got ndarray"):
        sm.testing.adjoint_error(np.eye(3))
