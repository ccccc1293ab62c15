"""Bad input: a clear error that knows whose argument is at fault, before anything is computed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

import structmat as sm
from tests.backends import Backend

PRODUCTS = [
    (lambda: sm.Circulant(np.ones(4)).matvec(np.ones(3)), ValueError, r"Circulant\.matvec: x must have shape \(\.\.\., 4\), got \(3,\)"),
    (lambda: sm.Circulant(np.ones(4)).matmat(np.ones((3, 4))), ValueError, r"matmat: X must have shape \(\.\.\., 4, k\), got \(3, 4\)"),
    (lambda: sm.Circulant(np.ones(4)).matmat(np.ones(4)), ValueError, r"matmat: X must have shape"),
    (lambda: np.ones((2, 3)) @ sm.Circulant(np.ones(4)), ValueError, r"X must have shape \(\.\.\., 4\), got \(2, 3\)"),
    (lambda: np.asarray(2.0) @ sm.Circulant(np.ones(4)), ValueError, r"X must have shape \(\.\.\., 4\), got \(\)"),
    (lambda: sm.Circulant(np.ones(4)).matvec(1.0), ValueError, r"x must have shape \(\.\.\., 4\), got \(\)"),
    (lambda: sm.Circulant(np.ones((2, 4))).matvec(np.ones((3, 4))), ValueError, r"batch axes \(2,\) and \(3,\) do not broadcast"),
    (lambda: sm.Product((sm.Identity(2), sm.Identity(3))), ValueError, r"Product: factors must have inner sizes that agree, got \(2, 2\) @ \(3, 3\)"),
    (lambda: sm.Identity(2) @ sm.Identity(3), ValueError, r"Identity @ Identity: inner sizes differ"),
    (lambda: sm.Circulant(np.ones(2)) + sm.Circulant(np.ones(3)), ValueError, r"shapes differ, \(2, 2\) \+ \(3, 3\)"),
    (lambda: sm.Circulant(np.ones(2)) * sm.Circulant(np.ones(2)), TypeError, r"use @ for the matrix product"),
    (lambda: sm.Circulant(np.ones(2)) @ 3, TypeError, r"unsupported operand"),
    (lambda: sm.Circulant(np.ones(2)) @ sm.Circulant(np.ones(2)) / sm.Identity(2), TypeError, r"unsupported operand"),
    (lambda: sm.Circulant(np.ones(2)).astype("int64"), TypeError, r"astype: dtype must be a floating dtype"),
    (lambda: sm.Circulant(np.ones(2)).astype(None), TypeError, r"astype: dtype must be a floating dtype, got None"),
    (lambda: sm.Circulant(np.ones(2)).astype("f9"), TypeError, r"astype: dtype must be a floating dtype, got 'f9'"),
    (lambda: sm.Circulant(np.ones(2)) @ [1, [2, 3]], ValueError, r"Circulant\.matvec: x must be a rectangular array of numbers"),
    (lambda: [1, [2, 3]] @ sm.Circulant(np.ones(2)), ValueError, r"Circulant\.matvec: x must be a rectangular array of numbers"),
    (lambda: sm.Circulant(np.ones(2)) @ np.ma.array([1.0, 2.0], mask=[0, 1]), ValueError, r"x has masked entries: fill them"),
    (lambda: sm.Circulant(np.ones(2)).matvec(scipy.sparse.eye_array(2)), TypeError, r"Circulant\.matvec: x must be dense, got a sparse matrix of SciPy: use its toarray\(\)"),
]  # fmt: skip

CONSTRUCTORS = [
    (lambda: sm.Circulant(np.ones(0)), ValueError, r"Circulant: c must have shape \(\.\.\., n\) with n >= 1, got \(0,\)"),
    (lambda: sm.Circulant(3.0), ValueError, r"Circulant: c must have shape"),
    (lambda: sm.Circulant([[1.0, 2.0], [3.0]]), ValueError, r"Circulant: c must be a rectangular array of numbers"),
    (lambda: sm.Circulant(np.array([1, "a"], dtype=object)), TypeError, r"Circulant: c must hold numbers of a standard dtype"),
    (lambda: sm.Circulant(scipy.sparse.eye_array(2)), TypeError, r"Circulant: c must be dense, got a sparse matrix of SciPy: use its toarray\(\)"),
    (lambda: sm.Circulant.nearest(scipy.sparse.eye_array(2, format="csr")), TypeError, r"A must be dense, got a sparse matrix of SciPy"),
    (lambda: sm.fit_cdd(scipy.sparse.eye_array(2)), TypeError, r"fit_cdd: W must be dense, got a sparse matrix of SciPy: use its toarray\(\)"),
    (lambda: sm.Circulant("abc"), TypeError, r"Circulant: c must hold numbers"),
    (lambda: sm.Circulant(np.ones(3, "longdouble")), TypeError, r"must hold numbers of a standard dtype, got dtype (float128|longdouble)"),
    (lambda: sm.Diagonal(np.ones((3, 0))), ValueError, r"Diagonal: d must have shape"),
    (lambda: sm.BlockCirculant(np.ones((2, 3))), ValueError, r"BlockCirculant: c must have shape \(\.\.\., p, q, b\)"),
    (lambda: sm.BlockCirculant(np.ones((2, 3, 4)), (9, 12)), ValueError, r"shape \(9, 12\) needs 3 x 3 blocks of 4, c has 2 x 3"),
    (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), (0, 4)), ValueError, r"shape must be at least 1, got 0"),
    (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), 4), ValueError, r"shape must be \(rows, cols\), got 4"),
    (lambda: sm.BlockCirculant(np.ones((1, 1, 4)), (2.5, 4)), TypeError, r"shape must be an integer, got 2\.5"),
    (lambda: sm.SpectralCirculant(np.ones(4), 4), ValueError, r"spectrum must have shape \(\.\.\., 3\) for n=4 and real=True"),
    (lambda: sm.Toeplitz(3.0), ValueError, r"Toeplitz: c must have shape \(\.\.\., m\) with m >= 1, got \(\)"),
    (lambda: sm.Toeplitz(np.ones(3), np.ones((2, 0))), ValueError, r"Toeplitz: r must have shape \(\.\.\., n\) with n >= 1, got \(2, 0\)"),
    (lambda: sm.Toeplitz(np.ones((2, 3)), np.ones((4, 3))), ValueError, r"Toeplitz: the batch axes \(2,\) and \(4,\) do not broadcast"),
    (lambda: sm.Toeplitz(np.ones(3), "abc"), TypeError, r"Toeplitz: r must hold numbers"),
    (lambda: sm.MultilevelToeplitz(np.ones(8), (2, 2)), ValueError, r"MultilevelToeplitz: t must have shape \(\.\.\., 9\) for grids \(2, 2\) and \(2, 2\), got \(8,\)"),
    (lambda: sm.MultilevelToeplitz(np.ones((3, 5))), TypeError, r"MultilevelToeplitz: row_sizes must be given; for .* MultilevelToeplitz\.from_offsets"),
    (lambda: sm.MultilevelCirculant(np.ones((3, 4))), TypeError, r"MultilevelCirculant: sizes must be given; for .* MultilevelCirculant\.from_kernel"),
    (lambda: sm.MultilevelToeplitz(np.ones(9), 3), TypeError, r"MultilevelToeplitz: row_sizes must be a tuple of integers, got 3"),
    (lambda: sm.MultilevelToeplitz(np.ones(9), (2, 2), (2,)), ValueError, r"col_sizes must have as many sizes as row_sizes, \(2, 2\), got \(2,\)"),
    (lambda: sm.MultilevelToeplitz.from_offsets(np.ones((3, 4))), ValueError, r"from_offsets: t must have odd lengths 2 n - 1 .*, got \(3, 4\)"),
    (lambda: sm.MultilevelToeplitz.from_covariance(np.ones((3, 0))), ValueError, r"from_covariance: values must be at least 1, got 0"),
    (lambda: sm.Fourier((2, 0)), ValueError, r"Fourier: n must be at least 1, got 0"),
    (lambda: sm.Fourier(()), ValueError, r"Fourier: n must have one size at least, got none"),
    (lambda: sm.Fourier((2, 3), axes=2), ValueError, r"Fourier: axes must be different axes of the grid \(2, 3\), from 0 to 1, got 2"),
    (lambda: sm.SineTransform((2, 3), axes=(0, -2)), ValueError, r"SineTransform: axes must be different axes of the grid"),
    (lambda: sm.SpectralMultiplier(np.ones(4), (4,), "dct5"), ValueError, r"SpectralMultiplier: transforms must be one of"),
    (lambda: sm.SpectralMultiplier(np.ones(4), (5,), "dft"), ValueError, r"SpectralMultiplier: spectrum must have shape \(\.\.\., 3\) for sizes"),
    (lambda: sm.SpectralMultiplier(np.ones(4), (2, 2), ("dct2",)), ValueError, r"transforms must be one word, or one for each of the 2 axes"),
    (lambda: sm.SpectralMultiplier.from_kernel(np.ones(4), (4,)), ValueError, r"from_kernel: kernel must have odd lengths of at most 7"),
    (lambda: sm.SpectralMultiplier.from_kernel(np.arange(3.0), (4,)), ValueError, r"kernel must be symmetric along the axis -1, unless its boundary is wrap; for other kernels use GridConvolution"),
    (lambda: sm.GridConvolution(np.ones(4), (3,), (4,)), ValueError, r"GridConvolution: kernel must have shape \(\.\.\., 3\) for kernel_sizes"),
    (lambda: sm.laplacian((4,), "mirror"), ValueError, r'laplacian: boundary must be one of "reflect", "zero", "odd", "wrap"'),
    (lambda: sm.laplacian((4,), spacing=0.0), ValueError, r"laplacian: spacing must be positive, got 0.0"),
    (lambda: sm.laplacian((4, 4), spacing=(1.0,)), ValueError, r"laplacian: spacing must be one number, or one for each of 2 axes"),
    (lambda: sm.laplacian((4,), like=np.arange(3)), TypeError, r"laplacian: like must be an array of floating-point numbers"),
    (lambda: sm.CosineTransform(4, 5), ValueError, r"CosineTransform: type must be 1, 2, 3 or 4, got 5"),
    (lambda: sm.CosineTransform(4, "2"), TypeError, r"CosineTransform: type must be an integer, got '2'"),
    (lambda: sm.Hankel(np.ones(0)), ValueError, r"Hankel: c must have shape \(\.\.\., m\) with m >= 1, got \(0,\)"),
    (lambda: sm.Hankel(np.ones(3), 2.0), ValueError, r"Hankel: r must have shape \(\.\.\., n\) with n >= 1, got \(\)"),
    (lambda: sm.ToeplitzInverse(3.0, 2.0), ValueError, r"ToeplitzInverse: x must have shape \(\.\.\., n\) with n >= 1, got \(\)"),
    (lambda: sm.ToeplitzInverse(np.ones(3), np.ones(2)), ValueError, r"ToeplitzInverse: y must have shape \(\.\.\., 3\), got \(2,\)"),
    (lambda: sm.Sum((sm.Circulant(np.ones(2)), np.eye(2))), TypeError, r"Sum: terms must be structmat operators, got ndarray"),
    (lambda: sm.Product((np.eye(2), sm.Circulant(np.ones(2)))), TypeError, r"Product: factors must be structmat operators, got ndarray"),
    (lambda: sm.Scaled(np.eye(2), 2.0), TypeError, r"Scaled: operator must be structmat operators, got ndarray"),
    (lambda: sm.Identity(0), ValueError, r"Identity: n must be at least 1"),
    (lambda: sm.Identity(2.0), TypeError, r"Identity: n must be an integer"),
]  # fmt: skip

NEAREST = [
    (lambda: sm.Circulant.nearest(np.ones((2, 3))), ValueError, r"for a rectangle use BlockCirculant\.nearest"),
    (lambda: sm.BlockCirculant.nearest(np.ones((2, 3)), 0), ValueError, r"block_size must be at least 1"),
    (lambda: sm.BlockCirculant.nearest(np.ones(3), 1), ValueError, r"BlockCirculant\.nearest: A must have shape"),
]  # fmt: skip

MEANT = [
    (lambda: sm.error_curve(np.eye(4), [3], restart=1), TypeError, r"error_curve: unexpected .* 'restart', did you mean 'restarts'\?; fit_cdd takes"),
    (lambda: sm.Toeplitz(np.ones(3)) + 0.1, TypeError, r"Toeplitz \+ or - number: add a number times the identity, structmat\.Identity\(n\)"),
    (lambda: 0.1 - sm.Toeplitz(np.ones(3)), TypeError, r"structmat\.Identity\(n\)"),
    (lambda: sm.Toeplitz(np.ones(3))[[0, 1], [0, 1]], TypeError, r"write op\[rows\]\[:, cols\]; of two arrays NumPy makes pairs"),
    (lambda: sm.sampling.conditional_mean(lambda t: 0.5**t, 5, [0, 3], [4.0, 1.0], noise=np.ones(5)), ValueError, r"one for each observed point, of shape \(2,\)"),
]  # fmt: skip

CLOSED_FORMS = [
    (lambda: sm.Toeplitz(np.ones(3), np.ones(4)).solve(np.ones(3)), ValueError, r"Toeplitz\.solve: the operator must be square, got shape \(3, 4\)"),
    (lambda: sm.Toeplitz(np.ones(3)).solve(np.ones(3)), np.linalg.LinAlgError, r"Toeplitz\.solve: the matrix is singular to working precision; use structmat\.lstsq"),
    (lambda: sm.Hankel(np.ones(3), np.ones(3)).inv(), np.linalg.LinAlgError, r"Hankel\.inv: the matrix is singular"),
    (lambda: sm.Toeplitz(np.ones(3)).norm([1]), ValueError, r"Toeplitz\.norm: ord must be"),
    (lambda: sm.BlockCirculant(np.ones((1, 2, 2))).inv(), ValueError, r"BlockCirculant\.inv: the operator must be square, got shape \(2, 4\)"),
    (lambda: sm.Circulant(np.ones(2)).fractional_matrix_power("2"), TypeError, r"p must be a finite real number"),
    (lambda: sm.Circulant(np.ones(2)).fractional_matrix_power(math.nan), TypeError, r"p must be a finite real number"),
    (lambda: sm.Circulant(np.ones(2)).funm(2.0), TypeError, r"Circulant\.funm: func must be callable, got 2\.0"),
    (lambda: sm.Circulant(np.ones(2)).funm(lambda z: "z"), TypeError, r"Circulant\.funm: func must hold numbers"),
    (lambda: sm.Circulant(np.ones(2)).funm(lambda z: z[:1]), ValueError, r"Circulant\.funm: func must return one value for each number"),
    (lambda: sm.BlockCirculant(np.ones((1, 2, 2))).funm(np.cos), ValueError, r"BlockCirculant\.funm: the operator must be square"),
    (lambda: sm.Toeplitz(np.ones(2)).funm(np.cos), NotImplementedError, r"Toeplitz\.funm: no closed form for Toeplitz operators; use scipy\.linalg\.funm"),
    (lambda: sm.Circulant(np.ones(3)).inv(), np.linalg.LinAlgError, r"singular to working precision; use pinv\(\) or lstsq\(\)"),
    (lambda: sm.Diagonal(np.array([1.0, 0.0])).inv(), np.linalg.LinAlgError, r"Diagonal\.inv: the matrix is singular"),
    (lambda: sm.Diagonal(np.array([1.0, 0.0])).logm(), np.linalg.LinAlgError, r"Diagonal\.logm: the matrix is singular"),
    (lambda: sm.Diagonal(np.array([1.0, 0.0])).fractional_matrix_power(-0.5), np.linalg.LinAlgError, r"Diagonal\.fractional_matrix_power: the matrix"),
    (lambda: (sm.Toeplitz(np.ones(3), np.ones(4)) @ sm.Toeplitz(np.ones(4), np.ones(3))).solve(np.ones(3)), NotImplementedError, r"Product\.solve: no closed form"),
    (lambda: sm.BlockCirculant(np.ones((2, 2, 3))).solve(np.ones(6)), np.linalg.LinAlgError, r"BlockCirculant\.solve"),
    (lambda: (0 * sm.Identity(2)).inv(), np.linalg.LinAlgError, r"Scaled\.inv: the matrix is singular"),
    (lambda: (0 * sm.Identity(2)).logm(), np.linalg.LinAlgError, r"Scaled\.logm: the matrix is singular"),
    (lambda: (0j * sm.Identity(2)).fractional_matrix_power(-1), np.linalg.LinAlgError, r"Scaled\.fractional_matrix_power: the matrix is"),
    (lambda: sm.Scaled(sm.Identity(2), np.array([1.0, 0.0])).inv(), np.linalg.LinAlgError, r"Scaled\.inv: the matrix is singular"),
    (lambda: (sm.Fourier(2) * 0).inv(), np.linalg.LinAlgError, r"Scaled\.inv: the matrix is singular"),
    (lambda: sm.Circulant(np.array([1.0, -1.0])).logm(), np.linalg.LinAlgError, r"logm: the matrix is singular"),
]  # fmt: skip

COMBINATIONS = [
    (lambda: sm.Product(()), ValueError, r"Product: factors must be at least one operator"),
    (lambda: sm.Sum((sm.Identity(2), sm.Identity(3))), ValueError, r"Sum: terms must have one shape"),
    (lambda: sm.CDDProduct((sm.Diagonal(np.ones(2)), sm.Diagonal(np.ones(2)))), ValueError, r"must be alternately diagonal and circulant, got Diagonal beside Diagonal"),
    (lambda: sm.CDDProduct((sm.Identity(2),)), TypeError, r"factors must be Diagonal, Circulant, .* got Identity"),
    (lambda: sm.CDDProduct(None), TypeError, r"CDDProduct: factors must be a sequence of operators, got NoneType"),
    (lambda: sm.Product(sm.Identity(2)), TypeError, r"Product: factors must be a sequence of operators, got Identity"),
    (lambda: sm.Sum(None), TypeError, r"Sum: terms must be a sequence of operators, got NoneType"),
    (lambda: sm.CDDProduct.from_vectors(np.ones(2), first="c"), ValueError, r'first must be "diagonal" or "circulant", got \'c\''),
    (lambda: sm.CDDProduct.from_vectors(np.ones(2), np.ones(3)), ValueError, r"must have inner sizes that agree"),
    (lambda: sm.CDDProduct.from_vectors(np.ones(5), np.ones((3, 2, 2)), 1.0, block=True), ValueError, r"vectors\[2\] must have shape \(\.\.\., n\)"),
    (lambda: sm.CDDProduct.from_vectors(1.0), ValueError, r"vectors\[0\] must have shape \(\.\.\., n\), got a scalar"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [*CONSTRUCTORS, *NEAREST, *COMBINATIONS, *PRODUCTS, *MEANT, *CLOSED_FORMS],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_bad_input_gets_a_clear_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    python_s_own = "unsupported operand" in text
    assert isinstance(caught.value, sm.ArgumentError) == (error in {ValueError, TypeError} and not python_s_own)


@pytest.mark.filterwarnings("ignore:Sparse CSC tensor support is in beta state:UserWarning")
def test_sparse_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    C = sm.Circulant(torch.ones(3))
    for call in (
        lambda: C @ torch.eye(3).to_sparse(),
        lambda: C @ torch.eye(3).to_sparse_csc(),
        lambda: C @ torch.eye(3, dtype=torch.int64).to_sparse(),
        lambda: sm.Diagonal(torch.ones(3).to_sparse()),
    ):
        with pytest.raises(TypeError, match=r"must be dense, got a sparse tensor: use its to_dense\(\)"):
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
    with pytest.raises(
        TypeError, match=r"factor must be .* numpy, got an array of torch; .* laplacian\(sizes, like=fa"
    ):
        torch.tensor(2.0) * sm.laplacian((3, 4))


@pytest.mark.parametrize("make", [scipy.sparse.csr_array, scipy.sparse.coo_matrix, scipy.sparse.dia_array])
def test_what_to_do_with_a_sparse_matrix_works(make: Any) -> None:
    C, S = sm.Circulant(np.arange(1.0, 5.0)), make(np.diag([1.0, 0.0, 2.0, 0.0]))
    for refused in (lambda: S @ C, lambda: S * C):
        with pytest.raises(TypeError, match=r"op @ S\.toarray\(\) or scipy\.sparse\.linalg\.aslinearoperator\(S\)"):
            refused()
    with pytest.raises(TypeError, match=r"X must be dense, got a sparse matrix of SciPy: use its toarray\(\)"):
        C @ S
    with pytest.raises(ValueError, match=r"op\.to_dense\(\) \* array"):
        C * S
    for refused in (lambda: C + S, lambda: C - S):
        with pytest.raises(TypeError, match=r"arrays to op\.to_dense\(\)"):
            refused()
    op, other, want = (
        sm.scipy.as_linear_operator(C),
        scipy.sparse.linalg.aslinearoperator(S),
        C.to_dense() @ S.toarray(),
    )
    for product in (op @ other @ np.eye(4), op @ S.toarray(), C @ S.toarray()):
        np.testing.assert_allclose(product, want, atol=1e-12)
    np.testing.assert_allclose((other @ op) @ np.eye(4), S.toarray() @ C, atol=1e-12)
    np.testing.assert_allclose((other + op) @ np.eye(4), S.toarray() + C.to_dense(), atol=1e-12)


def test_sums_and_products_of_entries_with_arrays_are_left_to_dense_matrices(backend: Backend) -> None:
    A = backend.asarray(np.ones((2, 3, 3)))
    calls = [(lambda op: op + A, TypeError), (lambda op: op - A, TypeError), (lambda op: op * A, ValueError)]
    if backend.name != "array_api_strict":  # whose arrays do not defer to the right operand
        calls += [(lambda op: A + op, TypeError), (lambda op: A - op, TypeError), (lambda op: A * op, ValueError)]
    for op in (sm.Circulant(A[0, 0, :]), sm.Toeplitz(A[:, 0, :]), sm.Identity(3), sm.Diagonal(A[0, 0, :]).prepare()):
        for call, error in calls:
            with pytest.raises(error, match=r"op\.to_dense\(\)"):
                call(op)


def test_nan_stays_nan_of_any_kind_of_operator_and_only_solutions_warn() -> None:
    c = np.array([3.0, np.nan, 1.0, 0.5])
    operators = (
        sm.Toeplitz(c),
        sm.Circulant(c),
        sm.Circulant(c + 1j),
        sm.Diagonal(c + 1j),
        sm.MultilevelCirculant.from_kernel(np.reshape(c, (2, 2))),
        sm.Kronecker(sm.Circulant(c), sm.Diagonal(np.ones(2))),
        sm.CDDProduct([sm.Diagonal(c), sm.Circulant(c), sm.Diagonal(c)]),
    )
    for op in operators:
        with pytest.warns(scipy.linalg.LinAlgWarning, match=r"\.solve: the solution is NaN") as caught:
            assert np.isnan(op.solve(np.ones(op.shape[0]))).any()
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(op.det())
            assert np.isnan(op.slogdet().logabsdet)
        for A in (op, op.T):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert np.isnan(A.inv().to_dense()).any()


@pytest.mark.parametrize("kind", ["Toeplitz", "BlockToeplitz", "Circulant", "Diagonal", "Dense", "Kronecker"])
def test_every_door_to_a_solution_warns_of_nan(kind: str) -> None:
    c, b = 0.5 ** np.arange(4.0), np.array([1.0, np.nan, 2.0, 3.0])
    op = {
        "Toeplitz": lambda: sm.Toeplitz(c),
        "BlockToeplitz": lambda: sm.BlockToeplitz(c[:, None, None]),
        "Circulant": lambda: sm.Circulant(c),
        "Diagonal": lambda: sm.Diagonal(c),
        "Dense": lambda: sm.Dense(np.diag(c)),
        "Kronecker": lambda: sm.Kronecker(sm.Circulant(c[:2]), sm.Circulant(c[:2])),
    }[kind]()
    text = "the solution is NaN: A or b hold NaN or infinity"
    doors = [(f"{kind}.solve", op.solve), (f"{kind}.inv_matvec", op.inv_matvec), ("solve", lambda b: sm.solve(op, b))]
    if kind in {"Circulant", "Diagonal", "Dense", "Kronecker"}:
        doors += [(f"{kind}.lstsq", op.lstsq), ("lstsq", lambda b: sm.lstsq(op, b))]
    for name, door in doors:
        with pytest.warns(scipy.linalg.LinAlgWarning, match=f"^{name}: {text}"):
            door(b)
        door(np.ones(4))  # no warning, which would be an error here
