"""Claim: operators of SciPy, PyLops, lineax, linear_operator and CoLA obey the laws of linear operators, but for a few.

Each operator is made with small arguments, as its documentation says, and held to all laws of `structmat.testing` that
need no operator of structmat. What does not hold is in a table, with the number of random seeds out of five for which
it does not. A law that does not hold is no fault by itself: some results are promised otherwise, such as dtypes, and
some limits are documented. What was seen has a reproducer, of a few lines without structmat, which is run here too.
--out writes ``laws_of_others.md``.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import _one_thread  # noqa: F401
import cola
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pylops
import scipy.optimize
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from _common import begin, finish, parser, table
from linear_operator import operators as lo

from structmat.testing import Functions, laws

jax.config.update("jax_enable_x64", True)
RNG = np.random.default_rng(0)
M = RNG.standard_normal((6, 6))
W = RNG.standard_normal((4, 6))
Z = W + 1j * RNG.standard_normal((4, 6))
S = sp.random_array((6, 5), density=0.4, rng=1)
P = M @ M.T + 6 * np.eye(6)
d = np.abs(M[0]) + 1
T, TP, Td, TW = (torch.from_numpy(a) for a in (M, P, d, W))

Make = Callable[[], Any]


def of_cola(make: Make) -> Make:
    """Return a function that makes what the laws ask of an operator of CoLA: products by @, also of its adjoint."""

    def made() -> Functions:
        A = make()
        adjoint = A.H
        dtype = A.dtype
        return Functions(lambda x: A @ x, lambda y: adjoint @ y, A.shape, dtype, torch.zeros(1, dtype=dtype))

    return made


SCIPY: dict[str, Make] = {
    **{
        f"{name} array": lambda name=name: sp.random_array((6, 5), density=0.4, rng=1, format=name)
        for name in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    },
    "csr array, complex": lambda: sp.csr_array(Z),
    "csr array, float32": lambda: sp.csr_array(W.astype("float32")),
    "aslinearoperator, dense": lambda: spla.aslinearoperator(W),
    "aslinearoperator, complex": lambda: spla.aslinearoperator(Z),
    "a sum": lambda: spla.aslinearoperator(W) + spla.aslinearoperator(W),
    "a product": lambda: spla.aslinearoperator(W) @ spla.aslinearoperator(M),
    "a multiple": lambda: 2 * spla.aslinearoperator(W),
    "a multiple by a complex number": lambda: (1 + 2j) * spla.aslinearoperator(W),
    "a power": lambda: spla.aslinearoperator(M) ** 3,
    "a transpose": lambda: spla.aslinearoperator(Z).T,
    "an adjoint": lambda: spla.aslinearoperator(Z).H,
    "LaplacianNd": lambda: spla.LaplacianNd((3, 4), boundary_conditions="periodic", dtype=np.float64),
    "LaplacianNd, Dirichlet": lambda: spla.LaplacianNd((3, 4), boundary_conditions="dirichlet", dtype=np.float64),
    "LbfgsInvHessProduct": lambda: scipy.optimize.LbfgsInvHessProduct(M[:2], (P @ M[:2].T).T),
}
x6, y6 = np.arange(6.0), np.arange(5.0)
PYLOPS: dict[str, Make] = {
    "MatrixMult": lambda: pylops.MatrixMult(W),
    "MatrixMult, complex": lambda: pylops.MatrixMult(Z, dtype="complex128"),
    "Identity": lambda: pylops.Identity(5, 6),
    "Zero": lambda: pylops.Zero(5, 6),
    "Diagonal": lambda: pylops.Diagonal(d),
    "Diagonal, complex": lambda: pylops.Diagonal(Z[0], dtype="complex128"),
    "Transpose": lambda: pylops.Transpose((2, 3), (1, 0)),
    "Flip": lambda: pylops.Flip((3, 4), axis=0),
    "Roll": lambda: pylops.Roll((3, 4), axis=1, shift=2),
    "Pad": lambda: pylops.Pad((3, 4), ((1, 2), (0, 1))),
    "Sum": lambda: pylops.Sum((3, 4), axis=0),
    "Symmetrize": lambda: pylops.Symmetrize((3, 4), axis=0),
    "Restriction": lambda: pylops.Restriction(8, [1, 3, 4]),
    "Regression": lambda: pylops.Regression(x6, order=3),
    "LinearRegression": lambda: pylops.LinearRegression(x6),
    "CausalIntegration": lambda: pylops.CausalIntegration((6,)),
    "CausalIntegration, trapezoidal": lambda: pylops.CausalIntegration((6, 2), axis=0, kind="trapezoidal"),
    "Smoothing1D": lambda: pylops.Smoothing1D(3, (7,)),
    "Smoothing2D": lambda: pylops.Smoothing2D((3, 3), (5, 6)),
    "FirstDerivative, forward": lambda: pylops.FirstDerivative((7,), kind="forward"),
    "FirstDerivative, backward": lambda: pylops.FirstDerivative((7,), kind="backward"),
    "FirstDerivative, centered, edge": lambda: pylops.FirstDerivative((7,), kind="centered", edge=True),
    "FirstDerivative, order 5": lambda: pylops.FirstDerivative((9,), kind="centered", order=5),
    "SecondDerivative": lambda: pylops.SecondDerivative((7,), edge=True),
    "SecondDerivative, forward": lambda: pylops.SecondDerivative((7,), kind="forward"),
    "Laplacian": lambda: pylops.Laplacian((5, 6)),
    "Gradient": lambda: pylops.Gradient((4, 5)),
    "FirstDirectionalDerivative": lambda: pylops.FirstDirectionalDerivative((4, 5), np.array([0.6, 0.8])),
    "FFT": lambda: pylops.signalprocessing.FFT(8),
    "FFT, ortho": lambda: pylops.signalprocessing.FFT(8, norm="ortho"),
    "FFT, real": lambda: pylops.signalprocessing.FFT(8, real=True),
    "FFT, longer": lambda: pylops.signalprocessing.FFT(6, nfft=9, norm="ortho"),
    "FFT2D": lambda: pylops.signalprocessing.FFT2D((4, 5), norm="ortho"),
    "FFTND": lambda: pylops.signalprocessing.FFTND((3, 4), axes=(0, 1), norm="ortho"),
    "Shift": lambda: pylops.signalprocessing.Shift((8,), 1.5),
    "DCT": lambda: pylops.signalprocessing.DCT((6,), type=2),
    "DCT, type 1": lambda: pylops.signalprocessing.DCT((6,), type=1),
    "Convolve1D": lambda: pylops.signalprocessing.Convolve1D(8, M[0, :3], offset=1),
    "Convolve2D": lambda: pylops.signalprocessing.Convolve2D((5, 6), M[:3, :3], offset=(1, 1)),
    "ConvolveND": lambda: pylops.signalprocessing.ConvolveND((5, 6), M[:3, :3], offset=(1, 1), axes=(0, 1)),
    "NonStationaryConvolve1D": lambda: pylops.signalprocessing.NonStationaryConvolve1D(
        (10,), np.abs(M[:2, :3]), ih=(3, 6)
    ),
    "Interp": lambda: pylops.signalprocessing.Interp(8, np.array([0.5, 2.25, 5.0]), kind="linear")[0],
    "Interp, nearest": lambda: pylops.signalprocessing.Interp(8, np.array([0.4, 2.2, 5.0]), kind="nearest")[0],
    "Interp, sinc": lambda: pylops.signalprocessing.Interp(8, np.array([0.5, 2.25, 5.0]), kind="sinc")[0],
    "Bilinear": lambda: pylops.signalprocessing.Bilinear(np.array([[0.5, 2.2], [1.5, 3.1]]), (4, 6)),
    "Sliding1D": lambda: pylops.signalprocessing.Sliding1D(pylops.Identity(4), 8, 8, 4, 0),
    "ChirpRadon2D": lambda: pylops.signalprocessing.ChirpRadon2D(np.arange(5.0), np.arange(6.0), 0.1),
    "Real": lambda: pylops.Real(5, dtype="complex128"),
    "Imag": lambda: pylops.Imag(5, dtype="complex128"),
    "Conj": lambda: pylops.Conj(5, dtype="complex128"),
    "HStack": lambda: pylops.HStack([pylops.MatrixMult(W), pylops.MatrixMult(W)]),
    "VStack": lambda: pylops.VStack([pylops.MatrixMult(W), pylops.MatrixMult(M)]),
    "BlockDiag": lambda: pylops.BlockDiag([pylops.MatrixMult(W), pylops.MatrixMult(M)]),
    "Block": lambda: pylops.Block([[pylops.MatrixMult(W), pylops.MatrixMult(W)]]),
    "Kronecker": lambda: pylops.Kronecker(pylops.MatrixMult(W), pylops.MatrixMult(M[:2])),
    "a sum": lambda: pylops.MatrixMult(W) + pylops.MatrixMult(W),
    "a multiple by a complex number": lambda: (1 + 2j) * pylops.MatrixMult(Z, dtype="complex128"),
    "PoststackLinearModelling": lambda: pylops.avo.poststack.PoststackLinearModelling(M[0, :3], 8),
}
LINEAX: dict[str, Make] = {
    "MatrixLinearOperator": lambda: lx.MatrixLinearOperator(jnp.asarray(W)),
    "MatrixLinearOperator, complex": lambda: lx.MatrixLinearOperator(jnp.asarray(Z)),
    "DiagonalLinearOperator": lambda: lx.DiagonalLinearOperator(jnp.asarray(d)),
    "TridiagonalLinearOperator": lambda: lx.TridiagonalLinearOperator(*map(jnp.asarray, (d, d[:5], M[1, :5]))),
    "IdentityLinearOperator": lambda: lx.IdentityLinearOperator(jax.ShapeDtypeStruct((5,), jnp.float64)),
    "FunctionLinearOperator": lambda: lx.FunctionLinearOperator(
        lambda x: jnp.asarray(W) @ x, jax.ShapeDtypeStruct((6,), jnp.float64)
    ),
    "FunctionLinearOperator, complex": lambda: lx.FunctionLinearOperator(
        lambda x: jnp.asarray(Z) @ x, jax.ShapeDtypeStruct((6,), jnp.complex128)
    ),
    "JacobianLinearOperator": lambda: lx.JacobianLinearOperator(lambda x, _: jnp.sin(x) * x[0], jnp.asarray(d)),
    "a sum": lambda: lx.MatrixLinearOperator(jnp.asarray(W)) + lx.MatrixLinearOperator(jnp.asarray(W)),
    "a product": lambda: lx.MatrixLinearOperator(jnp.asarray(W)) @ lx.DiagonalLinearOperator(jnp.asarray(d)),
    "a multiple": lambda: lx.MatrixLinearOperator(jnp.asarray(Z)) * (1 + 2j),
    "a quotient": lambda: lx.MatrixLinearOperator(jnp.asarray(W)) / 3.0,
}
tril = torch.tril(T) + 3 * torch.eye(6, dtype=T.dtype)
psd = lo.DenseLinearOperator(TP)
LINEAR_OPERATOR: dict[str, Make] = {
    "DenseLinearOperator": lambda: lo.DenseLinearOperator(TP),
    "DenseLinearOperator, m x n": lambda: lo.DenseLinearOperator(TW),
    "DiagLinearOperator": lambda: lo.DiagLinearOperator(Td),
    "ConstantDiagLinearOperator": lambda: lo.ConstantDiagLinearOperator(Td[:1], 5),
    "IdentityLinearOperator": lambda: lo.IdentityLinearOperator(5, dtype=torch.float64),
    "ZeroLinearOperator": lambda: lo.ZeroLinearOperator(4, 5, dtype=torch.float64),
    "RootLinearOperator": lambda: lo.RootLinearOperator(TW),
    "LowRankRootLinearOperator": lambda: lo.LowRankRootLinearOperator(TW.T.contiguous()),
    "ToeplitzLinearOperator": lambda: lo.ToeplitzLinearOperator(0.5 ** torch.arange(6, dtype=torch.float64)),
    "KroneckerProductLinearOperator": lambda: lo.KroneckerProductLinearOperator(psd, psd),
    "KroneckerProductLinearOperator, m x n": lambda: lo.KroneckerProductLinearOperator(
        lo.DenseLinearOperator(TW), lo.DenseLinearOperator(TW)
    ),
    "KroneckerProductAddedDiagLinearOperator": lambda: lo.KroneckerProductAddedDiagLinearOperator(
        lo.KroneckerProductLinearOperator(psd, psd), lo.ConstantDiagLinearOperator(Td[:1], 36)
    ),
    "SumLinearOperator": lambda: lo.SumLinearOperator(psd, lo.DiagLinearOperator(Td)),
    "MatmulLinearOperator": lambda: lo.MatmulLinearOperator(lo.DenseLinearOperator(TW), psd),
    "ConstantMulLinearOperator": lambda: lo.ConstantMulLinearOperator(psd, torch.tensor(2.0, dtype=torch.float64)),
    "MulLinearOperator": lambda: lo.MulLinearOperator(psd, lo.RootLinearOperator(T)),
    "AddedDiagLinearOperator": lambda: lo.AddedDiagLinearOperator(psd, lo.DiagLinearOperator(Td)),
    "BlockDiagLinearOperator": lambda: lo.BlockDiagLinearOperator(lo.DenseLinearOperator(torch.stack([TP, 2 * TP]))),
    "BlockInterleavedLinearOperator": lambda: lo.BlockInterleavedLinearOperator(
        lo.DenseLinearOperator(torch.stack([TP, 2 * TP]))
    ),
    "SumBatchLinearOperator": lambda: lo.SumBatchLinearOperator(lo.DenseLinearOperator(torch.stack([TP, 2 * TP]))),
    "BatchRepeatLinearOperator": lambda: lo.BatchRepeatLinearOperator(psd, torch.Size([3])),
    "CatLinearOperator": lambda: lo.CatLinearOperator(psd, psd, dim=-2),
    "TriangularLinearOperator": lambda: lo.TriangularLinearOperator(tril),
    "CholLinearOperator": lambda: lo.CholLinearOperator(lo.TriangularLinearOperator(tril)),
    "InterpolatedLinearOperator": lambda: lo.InterpolatedLinearOperator(psd),
    "MaskedLinearOperator": lambda: lo.MaskedLinearOperator(
        psd, torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool), torch.tensor([1, 1, 1, 0, 0, 1], dtype=torch.bool)
    ),
    "PermutationLinearOperator": lambda: lo.PermutationLinearOperator(torch.tensor([2, 0, 1, 3])),
}
COLA: dict[str, Make] = {
    name: of_cola(make)
    for name, make in {
        "Dense": lambda: cola.ops.Dense(TW),
        "Dense, complex": lambda: cola.ops.Dense(torch.from_numpy(Z)),
        "Diagonal": lambda: cola.ops.Diagonal(Td),
        "Diagonal, complex": lambda: cola.ops.Diagonal(torch.from_numpy(Z[0])),
        "Identity": lambda: cola.ops.Identity((5, 5), torch.float64),
        "ScalarMul": lambda: cola.ops.ScalarMul(2.0, (5, 5), torch.float64),
        "Triangular": lambda: cola.ops.Triangular(tril),
        "Tridiagonal": lambda: cola.ops.Tridiagonal(Td[:5], Td, T[0, :5]),
        "Kronecker": lambda: cola.ops.Kronecker(cola.ops.Dense(TW), cola.ops.Dense(T)),
        "Kronecker, complex": lambda: cola.ops.Kronecker(
            cola.ops.Dense(torch.from_numpy(Z)), cola.ops.Dense(torch.from_numpy(Z))
        ),
        "KronSum": lambda: cola.ops.KronSum(cola.ops.Dense(T), cola.ops.Dense(TP)),
        "BlockDiag": lambda: cola.ops.BlockDiag(cola.ops.Dense(TW), cola.ops.Dense(T)),
        "Sum": lambda: cola.ops.Sum(cola.ops.Dense(TW), cola.ops.Dense(TW)),
        "Product": lambda: cola.ops.Dense(TW) @ cola.ops.Dense(T),
        "Transpose": lambda: cola.ops.Dense(torch.from_numpy(Z)).T,
        "Adjoint": lambda: cola.ops.Dense(torch.from_numpy(Z)).H,
        "Sliced": lambda: cola.ops.Dense(T)[1:4, 2:],
        "Householder": lambda: cola.ops.Householder(T[:, :1]),
        "Householder, complex": lambda: cola.ops.Householder(torch.from_numpy(Z[:, :1])),
        "Permutation": lambda: cola.ops.Permutation(torch.tensor([2, 0, 1, 3]), torch.float64),
        "FFT": lambda: cola.ops.FFT(6, torch.complex128),
        "Concatenated": lambda: cola.ops.Concatenated(cola.ops.Dense(TW), cola.ops.Dense(TW), axis=0),
        "Jacobian": lambda: cola.ops.Jacobian(lambda x: torch.sin(x) * x[0], Td),
        "Hessian": lambda: cola.ops.Hessian(lambda x: torch.sum(x**3), Td),
    }.items()
}
LIBRARIES = {
    "SciPy": SCIPY, "PyLops": PYLOPS, "lineax": LINEAX, "linear_operator": LINEAR_OPERATOR, "CoLA": COLA,
}  # fmt: skip

REPRODUCERS: dict[str, str] = {
    "PyLops, NonStationaryConvolve1D: the dense matrix is not that of the products. Expected: equal columns.": """\
import numpy as np, pylops

filters = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
A = pylops.signalprocessing.NonStationaryConvolve1D((10,), filters, ih=(3, 6))
first = np.eye(10)[0]
print(A.matvec(first)[:3], A.todense()[:3, 0])
""",
    "PyLops, FFT with real=True: the dense matrix is real. Expected: the complex products with unit vectors.": """\
import numpy as np, pylops

A = pylops.signalprocessing.FFT(8, real=True)
print(A.dtype, A.todense().dtype)
print(A.matvec(np.eye(8)[1])[1], A.todense()[1, 1])
""",
    "PyLops, real operators that fill an array of zeros of their own dtype: the imaginary part of a vector is "
    "dropped, with a warning of NumPy. Expected: the product, as MatrixMult and Restriction have it, or an error.": """\
import numpy as np, pylops

x = 1j * np.arange(4.0)
print(pylops.MatrixMult(np.eye(4)).matvec(x), pylops.FirstDerivative((4,), kind="forward").matvec(x))
print(pylops.VStack([pylops.MatrixMult(np.eye(4))]).matvec(x))
""",
    "PyLops, Restriction and LinearRegression: complex vectors end in an error of NumPy within. Expected: the "
    "product, or an error that names the dtype of the operator.": """\
import numpy as np, pylops

try:
    pylops.Restriction(4, [1, 3]).rmatvec(1j * np.arange(2.0))
except Exception as error:
    print(type(error).__name__, error)
""",
    "linear_operator, ZeroLinearOperator: the dtype is lost. Expected: float64.": """\
import torch
from linear_operator.operators import ZeroLinearOperator

A = ZeroLinearOperator(4, 5, dtype=torch.float64)
print(A.dtype, A.to_dense().dtype, A.mT.dtype)
""",
    "CoLA, with cola-plum-dispatch: a sum by + of two Dense operators. Expected: a sum, as cola.ops.Sum makes it.": """\
import cola, torch

A = cola.ops.Dense(torch.eye(2))
try:
    A + A
except Exception as error:
    print(type(error).__name__, str(error).partition(",")[0])
""",
}
"""What was seen, with what was expected: programs without structmat, whose output stands below each."""


EXCEPTIONS = (
    "What does not hold. Real operators of PyLops do not promise products with complex vectors, as most rows say; "
    "Identity says in its documentation that it returns its argument; solutions of linear_operator are for positive "
    "definite matrices, which a permutation and a part of other rows than columns are not:"
)


def repeated(found: dict[str, tuple[str, int]], seeds: int) -> str:
    """Return for how many of the random seeds the laws do not hold."""
    counts = {count for _, count in found.values()}
    return f"{min(counts)} of {seeds}" if len(counts) == 1 else f"{min(counts)} to {max(counts)} of {seeds}"


def failures(make: Make, seeds: int) -> dict[str, tuple[str, int]]:
    """Return what errors say, and how often, by the name of the law that does not hold."""
    found: dict[str, tuple[str, int]] = {}
    for law in laws():
        for seed in range(seeds):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    law(make(), rng=seed)
            except AssertionError as error:
                text, count = found.get(law.name, (str(error).rpartition(" (law: ")[0], 0))
                found[law.name] = (text, count + 1)
    return found


def printed(code: str) -> str:
    """Return a reproducer with what it prints, as comments."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})  # noqa: S102  # of this file
    return f"```python\n{code}{textwrap.indent(out.getvalue(), '# ')}```"


def main() -> None:
    options = begin(parser(__doc__))
    seeds = 1 if options.quick else 5
    counts, rows = [], []
    for library, operators in LIBRARIES.items():
        held = 0
        for name, make in list(operators.items())[:: 8 if options.quick else 1]:
            found = failures(make, seeds)
            held += not found
            if found:
                text, _ = next(iter(found.values()))
                rows.append([library, name, ", ".join(found), text.replace("|", "\\|"), repeated(found, seeds)])
        counts.append([library, len(operators), held])
    parts = [
        "Operators that were tried, and those that obey all laws:",
        table(["library", "operators", "obey all laws"], counts),
        EXCEPTIONS,
        table(["library", "operator", "laws", "what came first", "seeds"], rows, left=4),
        "What was seen, with the versions above. Each program is without structmat; what it prints stands below it.",
        *(f"{claim}\n\n{printed(code)}" for claim, code in REPRODUCERS.items()),
    ]
    packages = (
        "structmat",
        "numpy",
        "scipy",
        "pylops",
        "jax",
        "lineax",
        "torch",
        "linear_operator",
        "cola-ml",
        "cola-plum-dispatch",
    )
    finish(options.out, "laws_of_others", "Operators that obey the laws", *parts, packages=packages)


if __name__ == "__main__":
    main()
