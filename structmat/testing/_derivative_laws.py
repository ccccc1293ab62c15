"""The laws of derivatives and traces: gradients by every parameter, ``jit`` and ``vmap``, in torch and JAX."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from structmat._arrays.libraries import library_of
from structmat.operators import LinearOperator, Prepared
from structmat.testing._probe import Probe, Values
from structmat.testing._views import values_of

_Function = Callable[[Any], Any]


def _with_parameters(operator: LinearOperator, arrays: list[Any]) -> LinearOperator:
    """Return an operator with other parameter arrays, in their order; what was prepared is prepared anew."""
    remaining = iter(arrays)

    def rebuilt(part: Any) -> Any:
        if isinstance(part, Prepared):  # which holds values that depend on its parameters
            return rebuilt(part.operator).prepare()
        return part._rebuilt(lambda *_: next(remaining), rebuilt)

    made: LinearOperator = rebuilt(operator)
    return made


def _in_double(operator: LinearOperator, xp: Any) -> LinearOperator:
    """Return the operator in double precision, where its library has it."""
    widest = xp.zeros(0, dtype=xp.float64).dtype
    return operator._in_precision(widest, xp) if widest == xp.float64 else operator


def _gradients(probe: Probe) -> None:
    """The gradients by every parameter are the differences of the dense reference."""
    xp = probe.view.xp
    gradients_of = _GRADIENTS.get(library_of(xp))
    A = _in_double(probe.operator, xp)
    parameters = [values_of(array) for array in A._arrays()]
    if gradients_of is None or not all(array.size for array in parameters):
        return
    is_double = all(array.dtype.name in {"float64", "complex128"} for array in parameters)
    for name, (function, reference) in _functions(probe, A).items():
        try:
            result = values_of(function(A))
        except NotImplementedError:
            continue
        W = probe.rng.standard_normal(result.shape)
        if np.iscomplexobj(result):
            W = W + 1j * probe.rng.standard_normal(result.shape)
        gradients = gradients_of(A, parameters, function, W)
        for index, value in enumerate(parameters):
            step = probe.rng.standard_normal(value.shape)
            if np.iscomplexobj(value):
                step = step + 1j * probe.rng.standard_normal(value.shape)
            step *= _size_of_each(value)
            h = 1e-5 if is_double else 1e-2
            operators = [_moved(A, parameters, index, value + sign * h * step) for sign in (1, -1)]
            matrices = [_matrix(other) for other in operators]
            moved = [reference(matrix) for matrix in matrices]
            change = (moved[0] - moved[1]) / (2 * h)
            expected = float(np.sum((np.conj(W) * change).real))
            given = gradients[index]
            parts = np.zeros(1) if given is None else (given * step).real
            found = float(np.sum(parts))
            size = float(np.linalg.norm(W) * np.linalg.norm(change) + np.sum(np.abs(parts)))  # before they cancel
            noise = np.linalg.norm(W) * max(np.linalg.norm(values) for values in (*moved, *matrices)) / h
            allowed = (1e-5 if is_double else 2e-2) * size + (1e-14 if is_double else 1e-5) * float(noise)
            if not abs(found - expected) <= allowed and _is_free(function, operators[0], moved[0], h):
                text = f"the gradient of {name} by parameter {index} of shape {value.shape}"
                raise probe.fail(f"{text} is {found:.3g} along a direction where differences are {expected:.3g}")


def _size_of_each(value: Values) -> Values:
    """Return the largest modulus of each vector: members of a stack may have sizes of their own."""
    moduli = np.abs(value)
    largest = np.max(moduli, axis=-1, keepdims=True) if value.ndim else moduli
    return np.where(largest > 0, largest, np.max(moduli) or 1.0)


def _is_free(function: _Function, moved: LinearOperator, expected: Values, h: float) -> bool:
    """Tell whether a closed form holds for the parameters moved by h, which need not be so where they obey conditions.

    Such are the columns of a unitary matrix.
    """
    off = np.max(np.abs(values_of(function(moved)) - expected), initial=0.0)
    return bool(off <= 1e-2 * h * np.max(np.abs(expected), initial=0.0))


def _functions(probe: Probe, A: LinearOperator) -> dict[str, tuple[_Function, _Function]]:
    """Return functions of the operator, each beside that of its dense matrix."""
    dtype = values_of(A._arrays()[0]).real.dtype if A._arrays() else np.dtype(np.float64)
    batch = A.batch_shape
    x, y, X = (
        probe.rng.standard_normal(shape).astype(dtype)
        for shape in ((*batch, A.shape[1]), (*batch, A.shape[0]), (*batch, A.shape[1], 2))
    )
    array = probe.view.array
    found: dict[str, tuple[_Function, _Function]] = {
        "matvec": (lambda op: op.matvec(array(x)), lambda M: np.einsum("...ij,...j->...i", M, x)),
        "rmatvec": (lambda op: op.rmatvec(array(y)), lambda M: np.einsum("...ij,...i->...j", M.conj(), y)),
        "matmat": (lambda op: op.matmat(array(X)), lambda M: M @ X),
        "to_dense": (lambda op: op.to_dense(), lambda M: M),
        "diagonal": (lambda op: op.diagonal(), lambda M: np.diagonal(M, axis1=-2, axis2=-1)),
    }
    if A.shape[0] == A.shape[1] and np.all(np.linalg.cond(probe.dense) < 30):
        found["inv_matvec"] = (
            lambda op: op.inv_matvec(array(y)),
            lambda M: np.linalg.solve(M, y[..., None])[..., 0],
        )
        found["slogdet"] = (lambda op: op.slogdet().logabsdet, lambda M: np.linalg.slogdet(M)[1])
    return found


def _moved(A: LinearOperator, parameters: list[Values], index: int, value: Values) -> LinearOperator:
    """Return the operator with another value of one parameter, without gradients."""
    xp = A._own_namespace()
    arrays = [value if k == index else kept for k, kept in enumerate(parameters)]
    return _with_parameters(
        A,
        [
            xp.asarray(np.array(array, kept.dtype), device=A.device)
            for array, kept in zip(arrays, parameters, strict=True)
        ],
    )


def _matrix(A: LinearOperator) -> Values:
    """Return the matrix by the products with unit vectors."""
    xp = A._own_namespace()
    kind = values_of(A._arrays()[0]).real.dtype
    unit = np.eye(A.shape[1], dtype=kind)
    unit = unit.reshape(A.shape[1], *(1,) * len(A.batch_shape), A.shape[1])
    return np.moveaxis(values_of(A.matvec(xp.asarray(unit, device=A.device))), 0, -1)


def _torch_gradients(A: LinearOperator, parameters: list[Values], function: _Function, W: Values) -> list[Any]:
    """Return the gradients as complex numbers g with ``dL = Re(sum(g dp))``, None where there is none."""
    import torch  # noqa: PLC0415  # which is imported already where an operator holds its arrays

    leaves = [torch.tensor(value, device=A.device, requires_grad=True) for value in parameters]
    result = function(_with_parameters(A, leaves))
    if not result.requires_grad:
        return [None] * len(leaves)
    loss = (torch.tensor(np.conj(W), device=A.device) * result).sum().real
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [None if gradient is None else np.conj(values_of(gradient)) for gradient in gradients]


def _jax_gradients(A: LinearOperator, parameters: list[Values], function: _Function, W: Values) -> list[Any]:
    """Return the same by JAX, whose gradients are conjugate to those of torch."""
    import jax  # noqa: PLC0415  # which is imported already where an operator holds its arrays
    import jax.numpy as jnp  # noqa: PLC0415

    def loss(leaves: list[Any]) -> Any:
        return jnp.real(jnp.sum(jnp.asarray(np.conj(W)) * function(_with_parameters(A, leaves))))

    return [values_of(gradient) for gradient in jax.grad(loss)([jnp.asarray(value) for value in parameters])]


_GRADIENTS: dict[str, Callable[..., list[Any]]] = {"torch": _torch_gradients, "jax": _jax_gradients}
"""How gradients are computed in the libraries that differentiate."""

_JIT = {"jax": "jax"}
"""The modules whose `jit` compiles functions of operators, by library."""

_VMAP = {"torch": "torch.func", "jax": "jax"}
"""The modules whose `vmap` maps over functions, by library. They are imported already where an operator is of it."""


def _compiled(probe: Probe) -> None:
    """A product under ``jax.jit``, with the operator as an argument, is that outside of it."""
    if (module := _JIT.get(library_of(probe.view.xp))) is None:
        return
    x, y = probe.right(), probe.left()
    products = import_module(module).jit(lambda op, x, y: (op.matvec(x), op.rmatvec(y)))
    found = products(probe.operator, probe.view.array(x), probe.view.array(y))
    probe.near("matvec under jit", found[0], probe.times(x), x)
    probe.near("rmatvec under jit", found[1], probe.adjoint_times(y), y)


def _mapped(probe: Probe) -> None:
    """The products under ``vmap`` are those with each vector."""
    if (module := _VMAP.get(library_of(probe.view.xp))) is None:
        return
    vmap = import_module(module).vmap
    for name, product, vectors, single in (
        ("matvec", probe.operator.matvec, [probe.right() for _ in range(2)], probe.times),
        ("rmatvec", probe.operator.rmatvec, [probe.left() for _ in range(2)], probe.adjoint_times),
    ):
        found = values_of(vmap(product)(probe.view.array(np.stack(vectors))))
        for k, vector in enumerate(vectors):
            probe.near(f"{name} under vmap", found[k], single(vector), vector)


DERIVATIVE_LAWS: dict[str, Callable[[Probe], None]] = {"jit": _compiled, "vmap": _mapped}
"""The laws of traces by name, of operators of torch and JAX of any size."""

SMALL_DERIVATIVE_LAWS: dict[str, Callable[[Probe], None]] = {"gradients": _gradients}
"""Those that need the matrix."""
