"""The laws of what structmat's operators have beside products, by products alone: of operators of any size.

Blocks, the diagonal, sums and multiples, solutions, determinants, eigenvectors, norms, functions, prepared operators
and pickles. What an operator has no closed form for is left out. So are solutions of matrices that amplify rounding so
much that right and wrong ones look alike.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from structmat._arrays.libraries import is_numpy
from structmat._errors import ArgumentValueError
from structmat.operators import Identity, LinearOperator, Prepared
from structmat.testing._matrix_laws import norm_of
from structmat.testing._probe import LawError, Probe, Values, inner
from structmat.testing._views import values_of

_Result = TypeVar("_Result")

_MOST_CHOSEN = 8
"""The most rows or columns that a law chooses one by one."""


def _known(function: Callable[[], _Result]) -> _Result | None:
    """Return what a function returns, or None where the operator has no closed form or no inverse."""
    try:
        return function()
    except (NotImplementedError, np.linalg.LinAlgError):
        return None


def _same(
    probe: Probe, text: str, other: LinearOperator, expected: Callable[[Values], Values], of: float = 1.0
) -> None:
    """Compare the products of an operator of the same columns with those that it should have."""
    x = probe.right()
    result = values_of(other.matvec(probe.view.array(x)))
    probe.near(text, result, expected(x), x, of=of)


def _unit(probe: Probe, length: int, index: int) -> Values:
    values = np.zeros((*probe.view.batch_shape, length), "float32" if probe.single else "float64")
    values[..., index] = 1
    return values


def _column(probe: Probe, index: int) -> Values:
    return probe.times(_unit(probe, probe.view.shape[1], index))


def _sums_and_multiples(probe: Probe) -> None:
    """Sums, multiples and products of operators multiply as the matrices do."""
    A, x = probe.operator, probe.right()
    rows, cols = A.shape
    product, array = probe.times(x), probe.view.array(x)
    three = x_scalar(probe, 3)
    for text, other, factor in (
        ("2 A", 2 * A, 2),
        ("-A", -A, -1),
        ("A / 4", A / 4, 0.25),
        ("A + A", A + A, 2),
        ("A - 3 A", A - 3 * A, -2),
        ("A times an array", A * three, 3),
        ("Identity @ A", Identity(rows) @ A, 1),
        ("A @ Identity", A @ Identity(cols), 1),
    ):
        probe.near(f"{text} multiplies wrongly", other.matvec(array), factor * product, x, of=4.0)
    i = 1 + 2j
    probe.near("(1 + 2 i) A multiplies wrongly", (i * A).matvec(array), i * product, x, of=4.0)
    if rows == cols:
        shifted = (A + 2 * Identity(rows)).matvec(array)
        probe.near("A + 2 Identity multiplies wrongly", shifted, product + 2 * x, x, of=4.0 + 2 / probe.norm)
    gram = probe.adjoint_times(product.astype(np.result_type(product, x)))
    probe.near("A.H @ A multiplies wrongly", (A.H @ A).matvec(array), gram, x, of=2 * probe.norm)


def x_scalar(probe: Probe, number: float) -> Any:
    """Return a number as an array of the operator's library and precision."""
    return probe.view.array(np.asarray(number, "float32" if probe.single else "float64"))


def _blocks(probe: Probe) -> None:
    """Entries, rows, columns and blocks are those of the matrix, and blocks of blocks too."""
    A, rng = probe.operator, probe.rng
    m, n = A.shape
    i, j = int(rng.integers(m)), int(rng.integers(n))
    column = _column(probe, j)
    probe.near(f"A[{i}, {j}]", A[i, j], column[..., i], np.ones(1))
    probe.near(f"A[:, {j}]", A[:, j], column, np.ones(1))
    row = np.conj(probe.adjoint_times(_unit(probe, m, i)))
    probe.near(f"A[{i}]", A[i], row, np.ones(1))
    k = j if j < m else int(rng.integers(m))
    probe.near(f"A[{k}, {k}]", A[k, k], (column if k == j else _column(probe, k))[..., k], np.ones(1))
    rows, cols = (np.sort(rng.choice(size + 1, 2, replace=False)) for size in (m, n))
    both = np.sort(rng.choice(min(m, n) + 1, 2, replace=False))
    for (a, b), (c, d) in ((rows, cols), (both, both)):
        _block(probe, f"A[{a}:{b}, {c}:{d}]", A[a:b, c:d], np.arange(a, b), np.arange(c, d))
    chosen = [_choice(probe, size) for size in (m, n)]
    _block(probe, "A[rows][:, cols]", A[chosen[0]][:, chosen[1]], *chosen)
    same = _choice(probe, min(m, n))
    _block(probe, "A[rows][:, rows]", A[same][:, same], same, same)
    few = [np.arange(min(size, _MOST_CHOSEN)) for size in (m, n)]
    _block(probe, "A[rows][:, cols] of neighbours", A[few[0]][:, few[1]], *few, with_adjoint=False)
    least = few[0] if m < n else few[1]
    _block(probe, "A[rows][:, rows] of neighbours", A[least][:, least], least, least, with_adjoint=False)


def _choice(probe: Probe, size: int) -> Values:
    count = int(probe.rng.integers(1, min(size, _MOST_CHOSEN) + 1))
    return probe.rng.choice(size, count, replace=False)


def _block(
    probe: Probe, text: str, block: LinearOperator, rows: Values, cols: Values, *, with_adjoint: bool = True
) -> None:
    """Compare a block with the rows of the product with a vector that is zero elsewhere, and its adjoint."""
    batch = probe.view.batch_shape
    if block.shape != (len(rows), len(cols)):
        raise probe.fail(f"{text} has shape {block.shape}, not {(len(rows), len(cols))}")
    x = np.zeros((*batch, probe.view.shape[1]), probe.right().dtype)
    part = probe.drawn(*batch, len(cols))
    x[..., cols] = part
    product = values_of(block.matvec(probe.view.array(part)))
    probe.near(f"{text} multiplies wrongly", product, probe.times(x)[..., rows], part)
    if not with_adjoint:
        return
    other = probe.drawn(*batch, len(rows))
    left = inner(other, product)
    right = inner(values_of(block.rmatvec(probe.view.array(other))), part)
    probe.near(f"the adjoint of {text} is not its adjoint", left, right, part, other)


def _diagonals(probe: Probe) -> None:
    """The diagonal has the entries A[i, i], and the trace is their sum."""
    A = probe.operator
    diagonal = _known(A.diagonal)
    if diagonal is not None:
        diagonal = values_of(diagonal)
        length = min(A.shape)
        if diagonal.shape != (*A.batch_shape, length):
            raise probe.fail(f"the diagonal has shape {diagonal.shape}, not {(*A.batch_shape, length)}")
        for i in {0, length - 1, int(probe.rng.integers(length))}:
            entry = _column(probe, i)[..., i]
            probe.near(f"entry {i} of the diagonal", diagonal[..., i], entry, np.ones(1))
        trace = _known(A.trace)
        if trace is not None:
            text = "the trace is not the sum of the diagonal"
            probe.near(text, trace, np.sum(diagonal, axis=-1), np.ones(length))
    values = _known(A.eigvals) if A.shape[0] == A.shape[1] else None
    trace = _known(A.trace)
    if values is not None and trace is not None:
        text = "the trace is not the sum of the eigenvalues"
        total = np.sum(values_of(values), axis=-1)
        total = total if np.iscomplexobj(values_of(trace)) else total.real
        probe.near(text, trace, total, np.ones(len(values_of(values).T)), of=100.0)


def _solutions(probe: Probe) -> None:
    """A solve(b) = b, the inverse solves too, and the residual of a least-squares solution is orthogonal to A."""
    A = probe.operator
    b, other = probe.left(), probe.left()
    right = probe.view.array(b)
    if A.shape[0] == A.shape[1]:
        found = []
        x = _known(lambda: A.inv_matvec(right))
        if x is not None:
            found.append(("inv_matvec(b)", values_of(x), b))
            found.append(("prepare().inv_matvec(b)", values_of(A.prepare().inv_matvec(right)), b))
        X = _known(lambda: A.solve(probe.view.array(np.stack([other, b], axis=-1))))
        if X is not None:
            found += [(f"column {k} of solve(B)", values_of(X)[..., k], (other, b)[k]) for k in range(2)]
        inverse = _known(A.inv)
        if inverse is not None:
            _same_size(probe, "inv()", inverse)
            found.append(("inv() @ b", values_of(inverse.matvec(right)), b))
        _in_one_combination(probe, _solve, [(text, x, b, 0.0) for text, x, b in found])
    columns = probe.view.array(b[..., None])
    cases: tuple[tuple[str, Callable[[], Any], float], ...] = (
        ("lstsq(b)", lambda: A.lstsq(columns), 0.0),
        ("pinv() @ b", lambda: A.pinv() @ columns, 0.0),
        ("lstsq(b, damp)", lambda: A.lstsq(columns, damp=probe.norm), probe.norm),
    )
    known = [(text, _known(function), damp) for text, function, damp in cases]
    least = [(text, values_of(X)[..., 0], b, damp) for text, X, damp in known if X is not None]
    _in_one_combination(probe, _are_least, least)


_Solved: TypeAlias = tuple[str, Values, Values, float]
"""What solved a system, its solution, the right-hand side, and the damping."""


def _in_one_combination(probe: Probe, law: Callable[[Probe, list[_Solved]], None], solved: list[_Solved]) -> None:
    """Hold a random combination of solutions to a law, and each alone where it does not obey: by few products."""
    usable = []
    for solution in solved:
        text, x, b, _ = solution
        if np.all(np.isfinite(x)) and np.isfinite(_amplification(probe, x, b)):
            _expect_shape(probe, text, x, probe.view.shape[1])
            usable.append(solution)
    if not usable:
        return
    try:
        law(probe, usable)
    except LawError:
        for solution in usable:
            law(probe, [solution])
        raise


def _same_size(probe: Probe, text: str, other: LinearOperator) -> None:
    if other.shape != probe.view.shape[::-1] or other.batch_shape != probe.view.batch_shape:
        raise probe.fail(f"{text} has shape {other.batch_shape} of {other.shape}")


def _amplification(probe: Probe, x: Values, b: Values) -> float:
    """Return by how much the solution is larger than it has to be; infinite where nothing can be said of it."""
    amplification = norm_of(x) * probe.norm / max(norm_of(b), float(np.finfo(float).tiny))
    limit = 1e3 if probe.single else 1e7
    return amplification if amplification <= limit else np.inf


def _combined(probe: Probe, solved: list[_Solved]) -> tuple[str, Values, Values, Values, float]:
    """Return a random combination of solutions, of right-hand sides and of the damped ones, and how large they are."""
    weights = probe.rng.uniform(0.5, 1, len(solved)).astype(solved[0][2].real.dtype)
    x, b, damped = (
        sum(weight * values for weight, values in zip(weights, of_each, strict=True))
        for of_each in zip(*((x, b, damp**2 * x) for _, x, b, damp in solved), strict=True)
    )
    amplification = max(_amplification(probe, x, b) for _, x, b, _ in solved)
    size = max(norm_of(b) for _, _, b, _ in solved)
    name = solved[0][0] if len(solved) == 1 else f"a combination of {', '.join(text for text, *_ in solved)}"
    return name, x, b, damped, size * 10 * (1 + amplification)


def _solve(probe: Probe, solved: list[_Solved]) -> None:
    text, x, b, _, size = _combined(probe, solved)
    x = x.astype(b.dtype) if np.iscomplexobj(b) else x
    probe.near(f"A times {text} is not b", probe.times(x), b, of=size)


def _are_least(probe: Probe, solved: list[_Solved]) -> None:
    text, x, b, damped, size = _combined(probe, solved)
    product = probe.times(x)
    found = probe.adjoint_times((b - product).astype(product.dtype))
    probe.near(f"{text} is no least-squares solution", found, damped, of=size)


def _expect_shape(probe: Probe, text: str, x: Values, length: int) -> None:
    if x.shape != (*probe.view.batch_shape, length):
        raise probe.fail(f"{text} has shape {x.shape}, not {(*probe.view.batch_shape, length)}")


def _determinants(probe: Probe) -> None:
    """Sign and logarithm belong to the determinant, to multiples, the adjoint, the inverse and the eigenvalues."""
    A = probe.operator
    if A.shape[0] != A.shape[1]:
        return
    found = _known(A.slogdet)
    if found is None:
        return
    sign, log = (values_of(part) for part in found)
    if np.iscomplexobj(log) or log.shape != A.batch_shape or sign.shape != A.batch_shape:
        raise probe.fail(f"slogdet returns {sign.dtype} {sign.shape} and {log.dtype} {log.shape}")
    n = A.shape[0]
    limit = 30.0 if probe.single else 600.0
    if not np.all(np.isfinite(log)) or _is_nearly_singular(probe, log, n):
        return
    _compare(probe, "the sign of slogdet has a modulus that is not 1", np.abs(sign), np.ones_like(log), 1.0)
    _, again, error = (values_of(part) for part in A._slogdet_and_error(probe.view.xp))
    _compare(probe, "the logarithm of _slogdet_and_error", again, log, float(n))
    if error.shape != A.batch_shape or not np.all(error >= 0):
        raise probe.fail(f"the error of _slogdet_and_error is {error}")
    det = _known(A.det) if np.all(np.abs(log) < limit) else None
    if det is not None:
        ratio = values_of(det) * np.exp(-log.astype(float))
        _compare(probe, "det is not sign times exp(logabsdet)", ratio, sign, float(n))
    _determinants_of_others(probe, sign, log)


def _determinants_of_others(probe: Probe, sign: Values, log: Values) -> None:
    """Compare with determinants of a multiple, the adjoint and the inverse, and with the eigenvalues."""
    A, n = probe.operator, probe.view.shape[0]
    size = float(n + np.max(np.abs(log), initial=0.0))
    twice = _known((2 * A).slogdet)
    if twice is not None:
        text = "the logarithm of the determinant of 2 A"
        _compare(probe, text, twice[1], log + n * np.log(2.0), size)
    adjoint = _known(A.H.slogdet)
    if adjoint is not None:
        _compare(probe, "the logarithm of the determinant of the adjoint", adjoint[1], log, size)
        _compare(probe, "the sign of the determinant of the adjoint", adjoint[0], np.conj(sign), size)
    inverse = _known(lambda: A.inv().slogdet())
    if inverse is not None:
        _compare(probe, "the logarithm of the determinant of the inverse", inverse[1], -log, size)
    values = _known(A.eigvals)
    if values is not None:
        moduli = np.abs(values_of(values)).astype(float)
        if np.all(moduli > 0):
            text = "the determinant is not the product of the eigenvalues"
            _compare(probe, text, log, np.sum(np.log(moduli), axis=-1), size)


def _is_nearly_singular(probe: Probe, log: Values, n: int) -> bool:
    """Tell whether a singular value may be rounding alone: by a solution, or else by the mean of all of them."""
    b = probe.left()
    x = _known(lambda: probe.operator.inv_matvec(probe.view.array(b)))
    if x is not None:
        return not np.isfinite(_amplification(probe, values_of(x), b))
    return bool(np.any(log < n * np.log(probe.norm / np.sqrt(n)) + np.log(1e-3 if probe.single else 1e-7)))


def _compare(probe: Probe, text: str, actual: Any, expected: Any, size: float) -> None:
    """Compare results of linear algebra, whose rounding grows with the condition number."""
    actual, expected = values_of(actual), values_of(expected)
    if actual.shape != expected.shape:
        raise probe.fail(f"{text} has shape {actual.shape}, not {expected.shape}")
    off = float(np.max(np.abs(actual - expected), initial=0.0))
    if not off <= (1e-3 if probe.single else 1e-7) * size:
        raise probe.fail(f"{text}: off by {off:.2g}")


def _eigenvectors(probe: Probe) -> None:
    """A v = w v for some of the eigenvectors, and the eigenvalues beside them are those of `eigvals`."""
    A = probe.operator
    if A.shape[0] != A.shape[1]:
        return
    try:
        found = _known(A.eig)
    except AttributeError:  # some libraries have no general eigenvalues
        return
    if found is None:
        return
    w, V = values_of(found[0]), found[1]
    scale = float(np.max(np.abs(w), initial=0.0))
    _compare(probe, "eigvals differ from those beside eig", A.eigvals(), w, scale or 1.0)
    _multiply_as(probe, "eig", w, V)
    if scale > 2 * probe.norm * probe.growth:
        raise probe.fail(f"an eigenvalue of modulus {scale:.2g} is larger than the matrix")


def _multiply_as(probe: Probe, text: str, w: Values, V: LinearOperator) -> None:
    """Compare A V r with V (w r), which a random vector r tells of all columns of V at once."""
    n = probe.view.shape[1]
    batch = probe.view.batch_shape
    dtype = "complex64" if probe.single else "complex128"
    r = probe.rng.uniform(0.5, 1, (*batch, n))

    def by_vectors(values: Values) -> Values:
        values = values.astype(dtype)
        product = values_of(V.matvec(probe.view.array(values) if V.dtype is not None else values))
        return np.broadcast_to(product, (*batch, n)).astype(dtype)

    v = by_vectors(r)
    if np.all(np.isfinite(v)):
        product = values_of(probe.operator.matvec(probe.view.array(v)))
        probe.near(f"{text}: A V is not V diag(w)", product, by_vectors(w * r), v, of=10.0)


def _norms(probe: Probe) -> None:
    """Singular values and norms belong together, and no vector grows more than they say."""
    A = probe.operator
    norms = {order: _known(partial(A.norm, order)) for order in ("fro", "nuc", 1, 2, np.inf)}
    known = {order: values_of(value).astype(float) for order, value in norms.items() if value is not None}
    for order, value in known.items():
        if value.shape != A.batch_shape or np.any(value < 0) or not np.all(np.isfinite(value)):
            raise probe.fail(f"norm({order}) is {value}")
    _singular_values(probe, known)
    _growth(probe, known)
    _norms_of_transpose(probe, known)


def _singular_values(probe: Probe, known: dict[Any, Values]) -> None:
    """Compare norms with the singular values."""
    A = probe.operator
    singular = _known(A.svdvals)
    if singular is not None:
        values = values_of(singular).astype(float)
        if np.any(np.diff(values, axis=-1) > 0) or np.any(values < 0):
            raise probe.fail("the singular values do not fall, or are negative")
        if values.shape != (*A.batch_shape, min(A.shape)):
            raise probe.fail(f"svdvals has shape {values.shape}")
        largest = np.max(values, axis=-1)
        scale = float(np.max(np.linalg.norm(values, axis=-1), initial=0.0))
        for order, expected in (
            ("fro", np.linalg.norm(values, axis=-1)),
            ("nuc", np.sum(values, axis=-1)),
            (2, largest),
        ):
            if order in known:
                text = f"norm({order}) is not that of the singular values"
                _compare(probe, text, known[order], expected, probe.growth * scale or 1.0)
        _rank(probe, values)


def _growth(probe: Probe, known: dict[Any, Values]) -> None:
    """No norm is less than that of a column, of a row, or than a vector grows."""
    A = probe.operator
    by_columns = [_column(probe, j) for j in {0, A.shape[1] - 1}]
    for order, axis_order in ((1, 1), ("fro", 2), (2, 2)):
        for column in by_columns if order in known else ():
            least = np.linalg.norm(column.astype(np.result_type(column, float)), axis_order, axis=-1)
            _at_least(probe, f"norm({order}) is less than that of a column", known[order], least)
    if np.inf in known:
        row = probe.adjoint_times(_unit(probe, A.shape[0], 0))
        _at_least(probe, "norm(inf) is less than that of a row", known[np.inf], np.sum(np.abs(row), axis=-1))
    x = probe.right()
    growth = norm_of(probe.times(x)) / norm_of(x)
    for order in (2, "fro"):
        if order in known:
            text = f"norm({order}) is less than a vector grows"
            _at_least(probe, text, np.max(known[order], initial=0.0), growth * (0.0 if A.batch_shape else 1.0))


def _norms_of_transpose(probe: Probe, known: dict[Any, Values]) -> None:
    """Compare norms with those of the transpose."""
    A = probe.operator
    for order in ("fro", "nuc", 2):
        other = _known(partial(A.T.norm, order)) if order in known else None
        if other is not None:
            scale = probe.growth * float(np.max(known[order], initial=0.0)) or 1.0
            _compare(probe, f"norm({order}) of the transpose", other, known[order], scale)
    turns: tuple[tuple[Any, Any], ...] = ((1, np.inf), (np.inf, 1))
    for order, turned in turns:
        other = _known(partial(A.T.norm, turned)) if order in known else None
        if other is not None:
            scale = float(np.max(known[order], initial=0.0)) or 1.0
            _compare(probe, f"norm({turned}) of the transpose is not norm({order})", other, known[order], scale)


def _rank(probe: Probe, values: Values) -> None:
    """The rank and the condition number are those of the singular values, where these tell them clearly."""
    A = probe.operator
    relative = values / np.maximum(np.max(values, axis=-1, keepdims=True), np.finfo(float).tiny)
    rank, cond = _known(A.rank), _known(A.cond)
    clear = relative > (1e-2 if probe.single else 1e-4)
    if rank is not None and np.all(clear | (relative == 0)):
        if not np.array_equal(values_of(rank), np.sum(clear, axis=-1)):
            raise probe.fail("the rank is not the number of singular values")
        if cond is not None and np.all(clear):
            _compare(probe, "cond", cond, 1 / relative[..., -1], float(1 / np.min(relative, initial=1.0)) ** 2)


def _at_least(probe: Probe, text: str, value: Any, least: Any) -> None:
    slack = (1e-3 if probe.single else 1e-9) * (np.max(least, initial=0.0))
    if np.any(value < least - slack):
        raise probe.fail(text)


def _matrix_functions(probe: Probe) -> None:
    """The square, as a function of the eigenvalues, multiplies as the matrix twice; so does the square root squared."""
    A = probe.operator
    if A.shape[0] != A.shape[1]:
        return
    scale = probe.norm
    for text, function, size in (
        ("funm of a square", lambda: A.funm(lambda values: (values / scale) * (values / scale), real=True), scale),
        ("the second power", lambda: A.fractional_matrix_power(2), 1.0),
    ):
        square = _known(function)
        if square is not None:
            x = probe.right()
            expected = probe.times(probe.times(x) / size) / size
            product = values_of(square.matvec(probe.view.array(x)))
            probe.near(f"{text} is not A (A x)", product, expected, x, of=100 * probe.growth * scale / size**2)


def _prepared(probe: Probe) -> None:
    """A prepared operator multiplies and solves as the operator does."""
    A = probe.operator
    P = A.prepare()
    y = probe.left()
    adjoint = probe.adjoint_times(y)
    probe.near("rmatvec of prepare()", P.rmatvec(probe.view.array(y)), adjoint, y)
    probe.near("H of prepare()", P.H.matvec(probe.view.array(y)), adjoint, y)
    vectors = [probe.right(), probe.right()]
    products = values_of(P @ probe.view.array(np.stack(vectors, axis=-1)))
    for k, x in enumerate(vectors):
        probe.near(f"column {k} of prepare() @ X", products[..., k], probe.times(x), x)
    product = P.matvec(probe.view.array(vectors[0]))
    probe.near("prepare() multiplies wrongly", product, probe.times(vectors[0]), vectors[0])
    if isinstance(P, Prepared) and P.most_dense:  # whose dense matrix multiplied, and not its plan
        product = replace(P, most_dense=0).matvec(probe.view.array(vectors[0]))
        probe.near("the plan of prepare() multiplies wrongly", product, probe.times(vectors[0]), vectors[0])


def _pickled(probe: Probe) -> None:
    """A pickle and a copy hold an operator with the same products."""
    A = probe.operator
    _same(probe, "a copy multiplies wrongly", copy.deepcopy(A), probe.times)
    try:
        data = pickle.dumps(A)
    except (pickle.PicklingError, AttributeError) as error:
        if _is_importable(type(A)):
            raise probe.fail(f"it cannot be pickled: {error}") from error
        return
    again = pickle.loads(data)  # noqa: S301  # which was made here
    if type(again) is not type(A):
        raise probe.fail(f"its pickle holds a {type(again).__name__}")
    _same(probe, "what a pickle holds multiplies wrongly", again, probe.times)


def _is_importable(kind: type) -> bool:
    """Tell whether a class is found again by its name, as pickles need, which a class in a function is not."""
    import sys  # noqa: PLC0415

    return getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind


def _other_hooks(probe: Probe) -> None:
    """What operators that are made of this one ask of it, and what errors tell."""
    A, xp = probe.operator, probe.view.xp
    ones = np.ones((*A.batch_shape, A.shape[1]), "float32" if probe.single else "float64")
    if A.dtype is not None:
        probe.near("_row_sums", A._row_sums(xp), probe.times(ones), ones)
    if probe.is_small:
        _squared_moduli(probe)
    if A.shape[0] == A.shape[1] and A.dtype is not None:
        found = _known(lambda: A._orthonormal_eig(xp))
        if found is not None:
            _orthonormal(probe, "_orthonormal_eig", found)
        _near(probe)
    _texts(probe)


def _squared_moduli(probe: Probe) -> None:
    """Real columns are multiplied by all ``|A[i, j]|^2``: those of a stack, and those that all its matrices share."""
    A = probe.operator
    squares = np.abs(probe.dense) ** 2

    def times(X: Values) -> Any:
        return A._squared_moduli_times(probe.view.array(X), probe.view.xp)

    for batch in ((), A.batch_shape or (2,)):
        X = probe.rng.standard_normal((*batch, A.shape[1], 2)).astype("float32" if probe.single else "float64")
        found = _known(partial(times, X))
        if found is not None:
            probe.near(f"_squared_moduli_times of {X.shape}", found, squares @ X, X, of=probe.norm)


def _orthonormal(probe: Probe, text: str, found: Any) -> None:
    values, V, is_real = found
    if is_real and probe.complex:
        raise probe.fail(f"{text} says that a complex matrix is real")
    _multiply_as(probe, text, values_of(values), V)
    n = probe.view.shape[1]
    unit = _unit(probe, n, int(probe.rng.integers(n)))
    v = values_of(V.matvec(probe.view.array(unit) if V.dtype is not None else unit))
    _compare(probe, f"{text}: the length of an eigenvector", np.linalg.norm(v, axis=-1), np.ones(v.shape[:-1]), 1.0)


def _near(probe: Probe) -> None:
    """The matrix of which it is a submatrix, and the sum that it is exactly, multiply as it does."""
    A, xp = probe.operator, probe.view.xp
    near = A._near(probe.view.array(np.ones(1, "float32" if probe.single else "float64")), xp)
    x = probe.right()
    expected = probe.times(x)
    whole = near.whole
    if near.chosen is None:
        probe.near("_near().whole", whole.matvec(probe.view.array(x)), expected, x)
        terms = near.noisy_toeplitz()
        if terms is not None:
            toeplitz, diagonal = terms
            array = probe.view.array(x)
            total = 0 if toeplitz is None else toeplitz.matvec(array)
            total = total if diagonal is None else total + diagonal * array
            probe.near("the sum of _near().noisy_toeplitz()", total, expected, x, of=10.0)
    circulant = near.circulant()
    if circulant is not None:
        size = whole.shape[0]
        c, sizes = values_of(circulant.c), circulant.sizes
        if c.shape[-1] != size or (sizes is not None and int(np.prod(sizes)) != size) or not np.all(np.isfinite(c)):
            raise probe.fail(f"_near().circulant() has a first column of shape {c.shape} on a grid of {sizes}")
    found = near.eigenvectors()
    if found is not None and found[1].shape != whole.shape:
        raise probe.fail(f"_near().eigenvectors() has shape {found[1].shape}")


def _texts(probe: Probe) -> None:
    """What errors say of it is one line, and a vector of a wrong length is refused."""
    A = probe.operator
    texts: dict[str, Any] = {"_described": A._described(), "_details": A._details(), "repr": repr(A)}
    for name, text in texts.items():
        if not isinstance(text, str) or "\n" in text or (not text and name != "_details"):
            raise probe.fail(f"{name} is {text!r}")
    wrong = probe.view.array(np.ones(A.shape[1] + 1, "float32" if probe.single else "float64"))
    with suppress(ArgumentValueError):
        A.matvec(wrong)
        raise probe.fail(f"matvec takes a vector of length {A.shape[1] + 1}")
    hint: Any = A._hint_for_shape("matvec", "x", (A.shape[1] + 1,), A.shape[1])
    if not isinstance(hint, str) or "\n" in hint:
        raise probe.fail(f"_hint_for_shape is {hint!r}")


def _out(probe: Probe) -> None:
    """A product is written into an array that is given for it."""
    if not is_numpy(probe.view.xp):
        return
    x = probe.right()
    expected = probe.times(x)
    out = np.empty_like(expected)
    if probe.operator.matvec(x, out=out) is not out:
        raise probe.fail("matvec does not return out")
    probe.near("matvec into out", out, expected, x)


STRUCTURE_LAWS: dict[str, Callable[[Probe], None]] = {
    "given results": _out,
    "sums and multiples": _sums_and_multiples,
    "blocks": _blocks,
    "diagonals": _diagonals,
    "solutions": _solutions,
    "determinants": _determinants,
    "eigenvectors": _eigenvectors,
    "norms": _norms,
    "matrix functions": _matrix_functions,
    "prepared": _prepared,
    "pickled": _pickled,
    "other hooks": _other_hooks,
}
"""The laws by name, of structmat's operators of any size."""
