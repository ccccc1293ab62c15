"""Checks for operators, your own and ours: every law of linear operators, against a dense matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from structmat._arguments import non_negative, random_generator
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    Namespace,
    euclidean_norm,
    is_complex,
    is_numpy,
    precision_of,
)
from structmat.operators import Identity, LinearOperator, Prepared

__all__ = ["adjoint_error", "check_operator"]


def adjoint_error(operator: LinearOperator, *, rng: np.random.Generator | int | None = None) -> float:
    """Return how far `rmatvec` is from the adjoint of `matvec`, on random vectors: the dot-product test.

    Parameters
    ----------
    operator : LinearOperator
        Any operator, of any array library; of a stack the largest discrepancy counts.
    rng : numpy.random.Generator or int, optional
        Source of the vectors x and y: complex ones, and for a real operator real ones as well.

    Returns
    -------
    float
        ``|<y, A x> - <A^H y, x>|`` relative to ``norm(y) * norm(A x) + norm(A^H y) * norm(x)``; of the order of the
        machine epsilon for a correct pair, and zero for a stack of none.

    Raises
    ------
    TypeError
        If `operator` is not a structmat operator.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.testing.adjoint_error(sm.Circulant(np.array([1.0, 2.0, 3.0])), rng=0) < 1e-15
    True
    """
    _require_operator(operator, "adjoint_error")
    generator = random_generator(rng, "adjoint_error")
    xp = operator._own_namespace()
    dtype = xp.float64 if operator.dtype is None else precision_of(operator.dtype, xp)

    def drawn(size: int) -> Array:
        values = xp.asarray(generator.standard_normal((*operator.batch_shape, size)), device=operator.device)
        return xp.astype(values, dtype)

    rows, cols = operator.shape
    x, y = drawn(cols), drawn(rows)
    pairs = [(x + 1j * drawn(cols), y + 1j * drawn(rows))]
    if not (operator._forces_complex or (operator.dtype is not None and is_complex(operator.dtype, xp))):
        pairs.append((x, y))
    return max(_adjoint_error(operator, x, y, xp) for x, y in pairs)


def _adjoint_error(operator: LinearOperator, x: Array, y: Array, xp: Namespace) -> float:
    Ax, Ay = operator.matvec(x), operator.rmatvec(y)
    if 0 in operator.batch_shape:
        return 0.0

    def inner(u: Array, v: Array) -> Array:
        return xp.sum((xp.conj(u) if is_complex(u.dtype, xp) else u) * v, axis=-1)

    scale = euclidean_norm(y, xp) * euclidean_norm(Ax, xp) + euclidean_norm(Ay, xp) * euclidean_norm(x, xp)
    return float(xp.max(xp.abs(inner(y, Ax) - inner(Ay, x)) / xp.where(scale > 0, scale, xp.ones_like(scale))))


def check_operator(
    operator: LinearOperator,
    dense: np.ndarray[Any, Any],
    *,
    rng: np.random.Generator | int | None = None,
    rtol: float | None = None,
) -> None:
    """Check an operator against its dense matrix, by every law of linear operators.

    Parameters
    ----------
    operator : LinearOperator
        Any operator, of any array library, in single or double precision; a stack as well.
    dense : numpy.ndarray, shape (..., rows, cols)
        Its matrix, written from the definition and not by the operator, in double precision.
    rng : numpy.random.Generator or int, optional
        Source of vectors.
    rtol : float, optional
        How far results may be from dense ones, relative to the norms of what is multiplied. Default: 1e-13 in double
        precision, 1e-5 in single.

    Raises
    ------
    AssertionError
        If a law does not hold; the text names it.
    TypeError
        If `operator` is not a structmat operator, or an argument is of the wrong kind.
    ValueError
        If `dense` is not a matrix, or `rtol` is negative or not finite.

    Notes
    -----
    The laws are about shapes and dtypes, `to_dense`, products with one vector, batches and no vector at all, columns,
    adjoint, transposes, multiples and sums, the identity, complex vectors, copies, and whatever linear algebra the
    operator has in closed form. Operations without a closed form are skipped.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from scipy.linalg import circulant
    >>> c = np.array([1.0, 2.0, 3.0])
    >>> sm.testing.check_operator(sm.Circulant(c), circulant(c), rng=0)
    >>> sm.testing.check_operator(sm.Circulant(c).T, circulant(c), rng=0)
    Traceback (most recent call last):
        ...
    AssertionError: Circulant: to_dense is not the dense matrix: off by 1
    """
    _require_operator(operator, "check_operator")
    matrix = np.asarray(dense)
    if matrix.ndim < 2 or matrix.dtype.kind not in "fc":
        raise ArgumentValueError("check_operator", "dense", f"must be a matrix, got {matrix.dtype} {matrix.shape}")
    rtol = None if rtol is None else non_negative(rtol, "check_operator", "rtol")
    pair = _Pair(operator, matrix, random_generator(rng, "check_operator"), rtol)
    for law in LAWS:
        law(pair)


def _require_operator(operator: object, owner: str) -> None:
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(owner, "operator", f"must be a structmat operator, got {type(operator).__name__}")


class _Pair:
    """An operator beside its dense matrix, and comparisons in the operator's own library."""

    def __init__(self, op: Any, dense: Any, rng: np.random.Generator, rtol: float | None) -> None:
        self.op, self.dense, self.rng = op, dense, rng
        self.xp: Any = op._own_namespace()
        self.single = op.dtype is not None and float(self.xp.finfo(op.dtype).eps) > 1e-10
        self.complex = op._forces_complex or (op.dtype is not None and is_complex(op.dtype, self.xp))
        self.rtol = (1e-5 if self.single else 1e-13) if rtol is None else rtol

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

    def near(self, name: str, actual: Any, expected: Any, *factors: Any, rtol: float = 0.0) -> None:
        """Compare up to rounding, relative to the product of the norms of what was multiplied."""
        expected = np.asarray(expected)
        if tuple(actual.shape) != expected.shape:
            raise self.fail(f"{name} has shape {tuple(actual.shape)}, not {expected.shape}")
        if not expected.size:
            return
        if is_complex(actual.dtype, self.xp):
            expected = expected.astype("complex128")
        elif np.iscomplexobj(expected):
            raise self.fail(f"{name} is real where complex numbers are due")
        off = float(self.xp.max(self.xp.abs(actual - self.array(expected))))
        norms = [np.max(_norm(f, axis=-1)) for f in factors or (expected[..., None],)]
        size = np.sqrt(max(expected.shape[-2:], default=1))
        finite = np.isfinite(expected)
        if not off <= (rtol or self.rtol) * size * (np.prod(norms) + np.max(np.abs(expected[finite]), initial=0)):
            raise self.fail(f"{name}: off by {off:.2g}")


def _description(pair: _Pair) -> None:
    op, dense = pair.op, pair.dense
    if (op.shape, op.batch_shape) != (dense.shape[-2:], dense.shape[:-2]):
        raise pair.fail(f"it has shape {op.shape} and batch {op.batch_shape}, the dense matrix {dense.shape}")
    if str(op.shape) not in repr(op) or "\n" in repr(op) or not repr(op).startswith(type(op).__name__):
        raise pair.fail(f"repr is {op!r}")
    if op.dtype is not None and op.to_dense().dtype != op.dtype:
        raise pair.fail(f"to_dense has dtype {op.to_dense().dtype}, the operator {op.dtype}")
    pair.near("to_dense is not the dense matrix", op.to_dense(), dense, dense, np.ones(1))


def _products(pair: _Pair) -> None:
    op, dense = pair.op, pair.dense
    batch, (rows, cols) = dense.shape[:-2], dense.shape[-2:]
    for lead in ((), (0, *batch), (2, 3, *batch)):
        for imaginary in (False, True):
            x, y = pair.drawn(*lead, cols, imaginary=imaginary), pair.drawn(*lead, rows, imaginary=imaginary)
            product, adjoint = op.matvec(pair.array(x)), op.rmatvec(pair.array(y))
            if is_complex(product.dtype, pair.xp) != (pair.complex or imaginary):
                raise pair.fail(f"matvec makes {product.dtype} of {x.dtype}")
            pair.near(f"matvec of {x.dtype} {x.shape}", product, np.einsum("...ij,...j->...i", dense, x), dense, x)
            expected = np.einsum("...ji,...j->...i", dense.conj(), y)
            pair.near(f"rmatvec of {y.dtype} {y.shape}", adjoint, expected, dense, y)
    X, Y, x, y = pair.drawn(cols, 3), pair.drawn(3, rows), pair.drawn(cols), pair.drawn(rows)
    pair.near("matmat", op.matmat(pair.array(X)), dense @ X, dense, X)
    pair.near("op @ X", op @ pair.array(X), dense @ X, dense, X)
    pair.near("op @ x", op @ pair.array(x), dense @ x, dense, x)
    pair.near("X @ op", op.__rmatmul__(pair.array(Y)), Y @ dense, dense, Y)
    pair.near("x @ op", op.__rmatmul__(pair.array(y)), y @ dense, dense, y)
    if is_numpy(pair.xp):
        right = op.matvec(x)
        out = np.empty_like(right)
        if op.matvec(x, out=out) is not out:
            raise pair.fail("matvec does not return out")
        pair.near("matvec into out", out, right, dense, x)


def _transposes(pair: _Pair) -> None:
    op, dense = pair.op, pair.dense
    T = np.swapaxes(dense, -1, -2)
    cases = (("T", op.T, T), ("H", op.H, T.conj()), ("conj", op.conj(), dense.conj()), ("T.T", op.T.T, dense))
    for name, other, expected in (*cases, ("H.H", op.H.H, dense)):
        pair.near(name, other.to_dense(), expected, dense, np.ones(1))
        if type(other) is not type(op):
            raise pair.fail(f"{name} is a {type(other).__name__}")


def _arithmetic(pair: _Pair) -> None:
    op, dense = pair.op, pair.dense
    rows, cols = op.shape
    x = pair.drawn(cols)
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
        ("Identity @ op", Identity(rows) @ op, dense),
        ("op @ Identity", op @ Identity(cols), dense),
    ]
    if rows == cols:
        cases.append(("op + 2 * Identity", op + 2 * Identity(rows), dense + 2 * np.eye(rows)))
    for name, other, matrix in cases:
        expected = matrix @ x
        pair.near(name, other.matvec(pair.array(x)), expected, dense, 3 * x)


def _copies(pair: _Pair) -> None:
    again = copy.deepcopy(pair.op)  # as pickles make them
    x = pair.drawn(pair.op.shape[1])
    pair.near("a copy", again.matvec(pair.array(x)), pair.dense @ x, pair.dense, x)


def _linear_algebra(pair: _Pair) -> None:
    op, dense = pair.op, pair.dense
    loose = 2e-3 if pair.single else 1e-11
    well = bool(np.all(np.linalg.cond(dense) < 100)) if dense.size else False
    diagonal = np.diagonal(dense, axis1=-2, axis2=-1)
    b = pair.drawn(*dense.shape[:-1])
    square, right = dense.shape[-1] == dense.shape[-2], b[..., None]
    columns = pair.drawn(dense.shape[-2], dense.shape[-2])  # as many as rows, which a wrong axis would not notice
    checks: list[tuple[str, bool, Callable[[], Any], Callable[[], Any]]] = [
        ("diagonal", True, op.diagonal, lambda: diagonal),
        ("trace", True, op.trace, lambda: np.sum(diagonal, axis=-1)),
        ("svdvals", True, op.svdvals, lambda: np.linalg.svdvals(dense)),
        ("cond", well and not _estimates_cond(op), op.cond, lambda: np.linalg.cond(dense)),
        (
            "rank",
            well,
            lambda: pair.xp.astype(op.rank(), pair.xp.float64),
            lambda: np.linalg.matrix_rank(dense).astype("float64"),
        ),
        ("pinv", well, lambda: op.pinv().to_dense(), lambda: np.linalg.pinv(dense)),
        ("lstsq", well, lambda: op.lstsq(pair.array(columns)), lambda: np.linalg.pinv(dense) @ columns),
        ("pinv_matvec", well, lambda: op.pinv_matvec(pair.array(b)), lambda: (np.linalg.pinv(dense) @ right)[..., 0]),
        ("inv", well and square, lambda: op.inv().to_dense(), lambda: np.linalg.inv(dense)),
        ("solve", well and square, lambda: op.solve(pair.array(columns)), lambda: np.linalg.solve(dense, columns)),
        (
            "inv_matvec",
            well and square,
            lambda: op.inv_matvec(pair.array(b)),
            lambda: np.linalg.solve(dense, right)[..., 0],
        ),
        ("det", well and square and _has_determinant(pair), op.det, lambda: np.linalg.det(dense)),
        ("slogdet", well and square, lambda: op.slogdet().sign, lambda: np.linalg.slogdet(dense)[0]),
        ("slogdet", well and square, lambda: op.slogdet().logabsdet, lambda: np.linalg.slogdet(dense)[1]),
    ]
    for order in ("fro", "nuc", 1, 2, np.inf):
        of_order = {"ord": order, "axis": (-2, -1)}
        checks.append((f"norm({order})", True, _bound(op.norm, order), _bound(_norm, dense, **of_order)))
    for name, defined, actual, expected in checks:
        if not defined:
            continue
        try:
            value = actual()
        except NotImplementedError:
            continue
        scale = np.max(np.abs(dense), initial=0.0) * max(dense.shape[-2:]) if name in {"trace", "diagonal"} else 0.0
        pair.near(name, value, expected(), *([np.full((1, 1), scale)] if scale else []), rtol=loose)


def _has_determinant(pair: _Pair) -> bool:
    """Tell whether determinants are well inside the range of numbers of the operator."""
    limits = pair.xp.finfo(pair.xp.float64 if pair.op.dtype is None else pair.op.dtype)
    logs = np.linalg.slogdet(pair.dense)[1]
    return bool(np.all((logs < 0.9 * np.log(float(limits.max))) & (logs > 0.9 * np.log(float(limits.smallest_normal)))))


def _norm(values: Any, **options: Any) -> Any:
    """Return a norm by NumPy of values of any size."""
    unit = 2.0 ** np.floor(np.log2(np.max(np.abs(values), initial=0.0) or 1.0))
    return np.linalg.norm(values / unit, **options) * unit


def _estimates_cond(op: LinearOperator) -> bool:
    """Tell whether a condition number is only an estimate: where a class has its own."""
    source = op.operator if isinstance(op, Prepared) else op
    return type(source)._cond is not LinearOperator._cond


def _bound(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    return lambda: function(*arguments, **named)


LAWS: tuple[Callable[[_Pair], None], ...] = (
    _description,
    _products,
    _transposes,
    _arithmetic,
    _copies,
    _linear_algebra,
)
"""The laws, each a function of an operator beside its dense matrix."""
