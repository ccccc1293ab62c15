"""The laws of structmat's operators beside their dense matrix, which is given or made of products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy, namespace
from structmat.operators import Identity


class Pair:
    """An operator and its dense matrix, and methods that compare arrays in their own library."""

    def __init__(
        self,
        op: Any,
        dense: Any,
        rng: np.random.Generator,
        rtol: float | None,
        xp: Any = None,
        *,
        is_made: bool = False,
    ) -> None:
        self.op, self.dense, self.rng = op, dense, rng
        self.floor = float(np.max(np.abs(dense), initial=0.0)) if is_made else 0.0
        """What rounding is relative to at least: the largest entry of a matrix that is itself made of products."""
        self.xp: Any = op._own_namespace() if xp is None else xp
        self.single = op.dtype is not None and float(self.xp.finfo(op.dtype).eps) > 1e-10
        self.complex = op._forces_complex or (op.dtype is not None and is_complex(op.dtype, self.xp))
        self.rtol = (1e-5 if self.single else 1e-13) if rtol is None else rtol
        self.loose = 2e-3 if self.single else 1e-11
        """The tolerance for results of linear algebra, relative to the largest entry."""
        self.is_square = dense.shape[-1] == dense.shape[-2]
        self.is_well_conditioned = bool(np.all(np.linalg.cond(dense) < 100)) if dense.size else False
        self.skipped: set[str] = set()
        """The names of results for which the operator has no closed form."""

    def fail(self, text: str) -> AssertionError:
        return AssertionError(f"{type(self.op).__name__}: {text}")

    def drawn(self, *shape: int, imaginary: bool = False) -> Any:
        values = self.rng.standard_normal(shape)
        if imaginary:
            values = values + 1j * self.rng.standard_normal(shape)
        single = "complex64" if imaginary else "float32"
        return values.astype(single) if self.single else values

    def array(self, values: Any) -> Any:
        return self.xp.asarray(np.array(values), device=self.op.device)  # a copy, which all libraries may write to

    def near(self, name: str, actual: Any, expected: Any, *factors: Any, scale: float | None = None) -> None:
        """Raise an error unless arrays are equal up to rounding, relative to the product of the norms of the `factors`.

        With a `scale` the tolerance is that of linear algebra, relative to the scale or the largest entry.
        """
        expected = np.asarray(expected)
        if tuple(actual.shape) != expected.shape:
            raise self.fail(f"{name} has shape {tuple(actual.shape)}, not {expected.shape}")
        if not expected.size:
            return
        xp = namespace(actual)
        if is_complex(actual.dtype, xp):
            expected = expected.astype("complex128")
        elif np.iscomplexobj(expected):
            raise self.fail(f"{name} is real where complex numbers are due")
        off = float(xp.max(xp.abs(actual - xp.asarray(np.array(expected), device=device_of(actual)))))
        largest = np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)
        if scale is None:
            norms = [np.max(norm_of(f, axis=-1)) for f in factors]
            allowed = self.rtol * np.sqrt(max(expected.shape[-2:], default=1)) * (np.prod(norms) + largest)
        else:
            allowed = self.loose * max(scale, largest, self.floor)
        if not off <= allowed:
            raise self.fail(f"{name}: off by {off:.2g}")

    def equal(self, name: str, actual: Callable[[], Any], expected: Callable[[], Any], scale: float = 1e-30) -> None:
        """Compare results of linear algebra, if the operator has a closed form for them."""
        try:
            value = actual()
        except NotImplementedError:
            self.skipped.add(name)
        else:
            self.near(name, value, expected(), scale=scale)


def _description(pair: Pair) -> None:
    op, dense = pair.op, pair.dense
    if (op.shape, op.batch_shape) != (dense.shape[-2:], dense.shape[:-2]):
        raise pair.fail(f"it has shape {op.shape} and batch {op.batch_shape}, the dense matrix {dense.shape}")
    text = repr(op)
    if str(op.shape) not in text or "\n" in text or not text.startswith(type(op).__name__):
        raise pair.fail(f"repr is {text}")
    if (f"batch={op.batch_shape}" in text) != bool(op.batch_shape) or str(op.device or "any") not in text:
        raise pair.fail(f"repr does not tell batch and device: {text}")
    if op.dtype is not None and op.to_dense().dtype != op.dtype:
        raise pair.fail(f"to_dense has dtype {op.to_dense().dtype}, the operator {op.dtype}")
    pair.near("to_dense is not the dense matrix", op.to_dense(), dense, dense, np.ones(1))


def _product(pair: Pair, lead: tuple[int, ...], *, imaginary: bool = False) -> None:
    """Compare the products of the operator and of its adjoint with vectors of the batch shape `lead`."""
    op, dense = pair.op, pair.dense
    rows, cols = dense.shape[-2:]
    x, y = pair.drawn(*lead, cols, imaginary=imaginary), pair.drawn(*lead, rows, imaginary=imaginary)
    product, adjoint = op.matvec(pair.array(x)), op.rmatvec(pair.array(y))
    if is_complex(product.dtype, pair.xp) != (pair.complex or imaginary):
        raise pair.fail(f"matvec makes {product.dtype} of {x.dtype}")
    pair.near(f"matvec of {x.dtype} {x.shape}", product, np.einsum("...ij,...j->...i", dense, x), dense, x)
    expected = np.einsum("...ji,...j->...i", dense.conj(), y)
    pair.near(f"rmatvec of {y.dtype} {y.shape}", adjoint, expected, dense, y)


def _vectors(pair: Pair) -> None:
    _product(pair, ())
    batch = pair.dense.shape[:-2]
    if batch:
        _product(pair, batch)


def _batches(pair: Pair) -> None:
    _product(pair, (2, 3, *pair.dense.shape[:-2]))
    if is_numpy(pair.xp):
        x = pair.drawn(2, 3, *pair.dense.shape[:-2], pair.dense.shape[-1])
        right = pair.op.matvec(x)
        out = np.empty_like(right)
        if pair.op.matvec(x, out=out) is not out:
            raise pair.fail("matvec does not return out")
        pair.near("matvec into out", out, right, pair.dense, x)


def _complex_vectors(pair: Pair) -> None:
    _product(pair, (), imaginary=True)
    x = pair.drawn(pair.dense.shape[-1], 1, imaginary=True)
    pair.near("op @ complex columns", pair.op @ pair.array(x), pair.dense @ x, pair.dense, x)


def _columns(pair: Pair) -> None:
    op, dense = pair.op, pair.dense
    rows, cols = dense.shape[-2:]
    X, Y, x, y = pair.drawn(cols, 3), pair.drawn(3, rows), pair.drawn(cols), pair.drawn(rows)
    pair.near("matmat", op.matmat(pair.array(X)), dense @ X, dense, X)
    pair.near("op @ X", op @ pair.array(X), dense @ X, dense, X)
    pair.near("op @ x", op @ pair.array(x), dense @ x, dense, x)
    pair.near("X @ op", op.__rmatmul__(pair.array(Y)), Y @ dense, dense, Y)
    pair.near("x @ op", op.__rmatmul__(pair.array(y)), y @ dense, dense, y)


def _transposes(pair: Pair) -> None:
    op, dense = pair.op, pair.dense
    T = np.swapaxes(dense, -1, -2)
    cases = (("T", op.T, T), ("H", op.H, T.conj()), ("conj", op.conj(), dense.conj()), ("T.T", op.T.T, dense))
    for name, other, expected in (*cases, ("H.H", op.H.H, dense)):
        pair.near(name, other.to_dense(), expected, dense, np.ones(1))
        if type(other) is not type(op):
            raise pair.fail(f"{name} is a {type(other).__name__}")


def _arithmetic(pair: Pair) -> None:
    op, dense = pair.op, pair.dense
    x = pair.drawn(op.shape[1])
    cases = [
        ("2 * op", 2 * op, 2 * dense),
        ("op * -0.5", op * -0.5, -0.5 * dense),
        ("op / 4", op / 4, dense / 4),
        ("-op", -op, -dense),
        ("op * (1 + 2j)", op * (1 + 2j), (1 + 2j) * dense),
        ("op + op", op + op, 2 * dense),
        ("op - 3 * op", op - 3 * op, -2 * dense),
        ("numpy.float64(2) * op", np.float64(2) * op, 2 * dense),
        ("array * op", op * pair.array(np.asarray(3, x.dtype)), 3 * dense),
    ]
    for name, other, matrix in cases:
        pair.near(name, other.matvec(pair.array(x)), matrix @ x, dense, 3 * x)


def _identities(pair: Pair) -> None:
    op, dense, (rows, cols) = pair.op, pair.dense, pair.op.shape
    x = pair.drawn(cols)
    cases = [("Identity @ op", Identity(rows) @ op, dense), ("op @ Identity", op @ Identity(cols), dense)]
    if rows == cols:
        cases.append(("op + 2 * Identity", op + 2 * Identity(rows), dense + 2 * np.eye(rows)))
    for name, other, matrix in cases:
        pair.near(name, other.matvec(pair.array(x)), matrix @ x, dense, 3 * x)


def _entries(pair: Pair) -> None:
    """Compare entries, norms and singular values, for any matrix."""
    op, dense = pair.op, pair.dense
    diagonal = np.diagonal(dense, axis1=-2, axis2=-1)
    scale = float(np.max(np.abs(dense), initial=0.0)) * max(dense.shape[-2:])
    pair.equal("diagonal", op.diagonal, lambda: diagonal)
    pair.equal("trace", op.trace, lambda: np.sum(diagonal, axis=-1), scale)
    pair.equal("svdvals", op.svdvals, lambda: np.linalg.svdvals(dense))
    for order in ("fro", "nuc", 1, 2, np.inf):
        options = {"ord": order, "axis": (-2, -1)}
        pair.equal(f"norm({order})", partial(op.norm, order), partial(norm_of, dense, **options))


def _inverses(pair: Pair) -> None:
    """Compare solutions, inverses and determinants, for matrices that are well conditioned."""
    op, dense = pair.op, pair.dense
    if not pair.is_well_conditioned:
        return
    b = pair.drawn(*dense.shape[:-1])
    columns = pair.drawn(dense.shape[-2], dense.shape[-2])  # as many as rows, which a wrong axis would not notice
    right, ours, theirs = pair.array(b), pair.array(columns), b[..., None]
    pair.equal("rank", op.rank, lambda: np.linalg.matrix_rank(dense))
    pair.equal("pinv", lambda: op.pinv().to_dense(), lambda: np.linalg.pinv(dense))
    pair.equal("lstsq", lambda: op.lstsq(ours), lambda: np.linalg.pinv(dense) @ columns)
    pair.equal("cond", op.cond, lambda: np.linalg.cond(dense / np.max(np.abs(dense))))
    if pair.is_square:
        pair.equal("inv", lambda: op.inv().to_dense(), lambda: np.linalg.inv(dense))
        pair.equal("solve", lambda: op.solve(ours), lambda: np.linalg.solve(dense, columns))
        pair.equal("inv_matvec", lambda: op.inv_matvec(right), lambda: np.linalg.solve(dense, theirs)[..., 0])
        if _has_determinant(pair):
            pair.equal("det", op.det, lambda: np.linalg.det(dense))
        sign, log = np.linalg.slogdet(dense)
        pair.equal("slogdet", lambda: op.slogdet().sign, lambda: sign)
        pair.equal("slogdet", lambda: op.slogdet().logabsdet, lambda: log, 10.0)


def _eigenvalues(pair: Pair) -> None:
    """Compare eigenvalues and eigenvectors."""
    op, dense = pair.op, pair.dense
    if not pair.is_square:
        return
    try:
        values, vectors = op.eig()
    except (NotImplementedError, AttributeError):  # some libraries have no general eigenvalues
        pair.skipped |= {"eig", "eigvals"}
        return
    pair.near("eigvals beside eig", op.eigvals(), to_numpy(values), scale=0.0)
    w, V = to_numpy(values), to_numpy(vectors.to_dense())
    size = pair.loose * (1 + np.max(np.abs(w), initial=0.0))
    if not np.max(np.abs(dense @ V - V * w[..., None, :]), initial=0.0) <= size * np.max(np.abs(V), initial=0.0):
        raise pair.fail("eig: the columns are no eigenvectors")
    if not np.max(np.abs(np.sum(w, axis=-1) - np.trace(dense, axis1=-2, axis2=-1)), initial=0.0) <= size * len(dense):
        raise pair.fail("eigvals: their sum is not the trace")


def _functions(pair: Pair) -> None:
    """Compare a function of the matrix by its eigenvalues with a product of matrices."""
    op, dense = pair.op, pair.dense
    if pair.is_square:
        unit = float(np.max(np.abs(dense), initial=0.0)) or 1.0
        square = partial((op / unit).funm, lambda values: values * values, real=True)  # without overflow
        pair.equal("funm", lambda: square().to_dense(), lambda: (dense / unit) @ (dense / unit), len(dense))


def _has_determinant(pair: Pair) -> bool:
    """Tell whether determinants are well inside the range of numbers of the operator."""
    limits = pair.xp.finfo(pair.xp.float64 if pair.op.dtype is None else pair.op.dtype)
    logs = np.linalg.slogdet(pair.dense)[1]
    return bool(np.all((logs < 0.9 * np.log(float(limits.max))) & (logs > 0.9 * np.log(float(limits.smallest_normal)))))


def norm_of(values: Any, **options: Any) -> Any:
    """Return a norm of values by NumPy, without overflow of their squares."""
    with np.errstate(over="ignore", under="ignore"):
        norm = np.linalg.norm(values, **options)
    limits = np.finfo(np.asarray(norm).dtype)
    if np.all((norm > limits.smallest_normal**0.5 / limits.eps) & (norm <= limits.max)):
        return norm
    power_of_two = 2.0 ** np.floor(np.log2(np.max(np.abs(values), initial=0.0) or 1.0))
    return np.linalg.norm(values / power_of_two, **options) * power_of_two


MATRIX_LAWS: dict[str, Callable[[Pair], None]] = {
    "description": _description,
    "vectors": _vectors,
    "batches": _batches,
    "no vectors": lambda pair: _product(pair, (0, *pair.dense.shape[:-2])),
    "complex vectors": _complex_vectors,
    "columns": _columns,
    "transposes": _transposes,
    "arithmetic": _arithmetic,
    "identities": _identities,
    "entries": _entries,
    "inverses": _inverses,
    "eigenvalues": _eigenvalues,
    "functions": _functions,
}
"""The laws by name, each as a function that compares an operator with its dense matrix."""
