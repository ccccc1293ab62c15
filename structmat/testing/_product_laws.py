"""The laws of products, which need no matrix: of operators of any library and of any size."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from structmat._arrays.libraries import is_numpy
from structmat.testing._probe import Probe, Values, inner
from structmat.testing._views import values_of, view_of


def _zero(probe: Probe) -> None:
    """A 0 = 0, and no vectors have no products."""
    x = np.zeros_like(probe.right())
    if np.any(probe.times(x)):
        raise probe.fail("A 0 is not 0")


def _additive(probe: Probe) -> None:
    """A (x + y) = A x + A y."""
    x, y = probe.right(), probe.right()
    probe.near("A (x + y) is not A x + A y", probe.times(x + y), probe.times(x) + probe.times(y), x)


def _homogeneous(probe: Probe) -> None:
    """A (s x) = s (A x), for small and large numbers s."""
    x = probe.right()
    Ax = probe.times(x)
    for s in (-3.0, 1e-4, 1e4):
        number = x.dtype.type(s)
        probe.near(f"A ({s:g} x) is not {s:g} (A x)", probe.times(number * x), number * Ax, x, of=abs(s))


def _complex_numbers(probe: Probe) -> None:
    """A (x + i y) = A x + i A y, and A (i x) = i (A x)."""
    if not (probe.complex or probe.view.takes_any_dtype) or not probe.view.is_complex_linear:
        return
    z = probe.right(imaginary=True)
    Az = probe.times(z)
    i = z.dtype.type(1j)
    probe.near("A (i x) is not i (A x)", probe.times(i * z), i * Az, z)
    if probe.view.takes_any_dtype:
        real, imaginary = z.real.copy(), z.imag.copy()
        parts = probe.times(real) + i * probe.times(imaginary)
        probe.near("A (x + i y) is not A x + i (A y)", Az, parts, z)


def _adjoint(probe: Probe) -> None:
    """<A x, y> = <x, A^H y>, and the adjoint is linear too."""
    if probe.view.rmatvec is None:
        return
    imaginary = probe.view.takes_any_dtype and probe.view.is_complex_linear
    for is_complex in (False, True) if imaginary else (False,):
        x, y = probe.right(imaginary=is_complex), probe.left(imaginary=is_complex)
        left, right = (inner(u, v) for u, v in ((y, probe.times(x)), (probe.adjoint_times(y), x)))
        if not probe.view.is_complex_linear:
            left, right = left.real, right.real
        probe.near("<A x, y> is not <x, A^H y>", left, right, x, y)


def _columns(probe: Probe) -> None:
    """The products with columns are those with single vectors; no columns have none."""
    view = probe.view
    for name, function, draw, single in (
        ("A X", view.matmat, probe.right, probe.times),
        ("A^H Y", view.rmatmat if view.rmatvec is not None else None, probe.left, probe.adjoint_times),
    ):
        if function is None:
            continue
        vectors = [draw(), draw()]
        X = np.stack(vectors, axis=-1)
        found = single(X, function, name)
        for k, x in enumerate(vectors):
            probe.near(f"column {k} of {name} is not its product with column {k}", found[..., k], single(x), x)
        if view.operator is not None:
            single(X[..., :0], function, f"{name} without columns")
    if view.operator is not None:
        _batches(probe)


def _batches(probe: Probe) -> None:
    """Vectors in a batch are multiplied each on its own, in the strides of any array."""
    lead = (2, *probe.view.batch_shape)
    for name, function, draw, single, (rows, cols) in (
        ("matvec", probe.view.matvec, probe.right, probe.times, probe.view.shape),
        ("rmatvec", probe.view.rmatvec, probe.left, probe.adjoint_times, probe.view.shape[::-1]),
    ):
        if function is None:
            continue
        vectors = [draw(), draw()]
        X = np.stack(vectors)
        if is_numpy(probe.view.xp):  # in strides of their own, as a part of another array
            X = np.empty((*lead, 2 * cols), X.dtype)[..., ::2]
            X[...] = vectors
            found = function(X)
        else:
            found = probe.result(f"{name} of a batch", function, X, (*lead, rows))
        for k, x in enumerate(vectors):
            probe.near(f"{name} of vector {k} of a batch is not that of the vector", found[k], single(x), x)


def _transposes(probe: Probe) -> None:
    """The transpose, the adjoint and the conjugate multiply as those of one matrix do, and twice are the matrix."""
    view = probe.view
    if view.rmatvec is None:
        return
    known: dict[str, Callable[[Values], Values]] = {
        "T": lambda v: probe.conj(probe.adjoint_times(probe.conj(v))),
        "H": probe.adjoint_times,
        "conj": lambda v: probe.conj(probe.times(probe.conj(v))),
    }
    for name, make in view.related.items():
        other = view_of(make(), "check_operator")
        shape = view.shape if name == "conj" else view.shape[::-1]
        if other.shape != shape:
            raise probe.fail(f"{name} has shape {other.shape}, not {shape}")
        v = probe.right() if name == "conj" else probe.left()
        product = probe.times if name == "conj" else probe.adjoint_times
        probe.near(f"the product of {name}", product(v, other.matvec, f"A.{name} v"), known[name](v), v)
        if other.rmatvec is not None:
            u, back = (probe.left(), probe.adjoint_times) if name == "conj" else (probe.right(), probe.times)
            expected = {"T": known["conj"], "H": probe.times, "conj": known["T"]}[name](u)
            probe.near(f"rmatvec of {name}", back(u, other.rmatvec, f"A.{name} adjoint"), expected, u)
        if name in other.related:
            again = view_of(other.related[name](), "check_operator")
            w = probe.right()
            text = f"{name} of {name} is not the operator"
            probe.near(text, probe.times(w, again.matvec, f"A.{name}.{name} x"), probe.times(w), w)


def _untouched_inputs(probe: Probe) -> None:
    """No function writes to the array that it is given."""
    view = probe.view
    x, y = probe.right(), probe.left()
    cases = [("matvec", view.matvec, x), ("rmatvec", view.rmatvec, y)]
    cases += [("matmat", view.matmat, x[..., None]), ("rmatmat", view.rmatmat, y[..., None])]
    for name, function, values in cases:
        if function is None or (name.startswith("r") and view.rmatvec is None):
            continue
        array = view.array(values)
        function(array)
        if not np.array_equal(values_of(array), values):
            raise probe.fail(f"{name} writes to its argument")


def _own_results(probe: Probe) -> None:
    """A result is an array of its own: no view of the argument, and what is written to it does not come back."""
    view = probe.view
    if hasattr(view.xp, "jit") or view.xp.__name__.startswith("jax"):
        return  # arrays that cannot be written to
    for name, function, values, other in (
        ("matvec", view.matvec, probe.right(), probe.right()),
        ("rmatvec", view.rmatvec, probe.left(), probe.left()),
    ):
        if function is None:
            continue
        array = view.array(values)
        result = function(array)
        kept = np.array(values_of(result))
        if is_numpy(view.xp) and np.shares_memory(result, array):
            raise probe.fail(f"{name} returns a view of its argument")
        is_written = _overwrite(result)
        if not np.array_equal(values_of(array), values):
            raise probe.fail(f"{name} returns a view of its argument")
        left = np.array(values_of(result))
        again = function(array if is_written else view.array(other))
        if not np.array_equal(values_of(result), left):
            raise probe.fail(f"{name} changes the result of the call before")
        if is_written:
            probe.near(f"{name}, after its result was written to,", again, kept, values)


def _overwrite(result: Any) -> bool:
    """Write to an array, and tell whether it can be written to."""
    if isinstance(result, np.ndarray) and not result.flags.writeable:
        return False
    try:
        result[...] = 7
    except (RuntimeError, TypeError):  # a tensor with a gradient, or an array of a library without writing
        return False
    return True


def _repeatable(probe: Probe) -> None:
    """The same vector has the same product each time."""
    x = probe.right()
    again = probe.times(x, probe.view.matvec)
    probe.near("the second product with one vector is not the first", again, probe.times(x), x)
    if probe.view.rmatvec is not None:
        y = probe.left()
        text = "the second product of the adjoint with one vector is not the first"
        probe.near(text, probe.adjoint_times(y, probe.view.rmatvec), probe.adjoint_times(y), y)


def _written_out(probe: Probe) -> None:
    """The matrix, its diagonal and solutions are those of the products with unit vectors."""
    dense = probe.dense
    if probe.given is not None:
        x = probe.right()
        probe.near(
            "A x is not the product of the dense matrix", probe.times(x), np.einsum("...ij,...j->...i", dense, x), x
        )
    expected: dict[str, Values] = {"the matrix": dense, "the diagonal": np.diagonal(dense, axis1=-2, axis2=-1)}
    for name, function in probe.view.entries.items():
        with suppress(NotImplementedError):
            probe.near(f"{name} is not that of the products", function(), expected[name], np.ones(1))
    solve = probe.view.solve
    if solve is not None and np.all(np.linalg.cond(dense) < 100):
        b = probe.left(2)
        probe.near("A solve(B) is not B", dense @ values_of(solve(probe.view.array(b))), b, 100 * b)


PRODUCT_LAWS: dict[str, Callable[[Probe], None]] = {
    "zero": _zero,
    "additive": _additive,
    "homogeneous": _homogeneous,
    "complex numbers": _complex_numbers,
    "adjoint": _adjoint,
    "single columns": _columns,
    "transposed products": _transposes,
    "untouched inputs": _untouched_inputs,
    "own results": _own_results,
    "repeatable": _repeatable,
}
"""The laws by name, of any operator of any size."""

SMALL_LAWS: dict[str, Callable[[Probe], None]] = {"written out": _written_out}
"""Those that need the matrix, of operators of other libraries."""
