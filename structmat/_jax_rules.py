"""The rules of JAX: its transformations and its compiler, and objects with parameters as its pytrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from structmat._rules import Elimination, LogDeterminant, Matrix, Rules, Solver, for_each_class


class JaxRules(Rules):
    """The rules of JAX, for derivatives in any mode and of any order."""

    compiles = True
    transforms_single_points = False  # some of these XLA does not compile
    scales_quotients = False  # there are no subnormal numbers, and a weak type has to stay one

    def constant(self, value: Any) -> Any:
        return jax.lax.stop_gradient(value)

    def concrete(self, array: Any) -> Any:
        return None if self.is_traced(array) else array

    def evaluated(self, arrays: Iterable[Any]) -> AbstractContextManager[Any]:
        return nullcontext() if any(map(self.is_traced, arrays)) else jax.ensure_compile_time_eval()

    def is_differentiated(self, arrays: Iterable[Any]) -> bool:
        return any(map(self.is_traced, arrays))  # an array that is not traced is not differentiated either

    def must_be_differentiable(self, arrays: Iterable[Any]) -> bool:
        return True  # results are the same with and without a tracer

    def is_traced(self, array: Any) -> bool:
        return isinstance(array, jax.core.Tracer)

    def is_plain(self, arrays: Sequence[Any]) -> bool:
        return all(isinstance(array, jax.Array) and not self.is_traced(array) for array in arrays)

    def result_type(self, arrays: Sequence[Any], dtypes: Sequence[Any]) -> Any:
        return jnp.result_type(*arrays)  # which tell a weak type

    def copied(self, array: Any) -> Any:
        return array

    def without_derivative(self, value: Any, arrays: Sequence[Any], why: str) -> Any:
        return _without_derivative(value, list(arrays), why)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _compiled(function)

    def scan(self, step: Callable[..., Any], carry: Any, elements: Any) -> Any:
        """Return the last carry of a loop over the elements, and the results of all of its steps, stacked."""
        return jax.lax.scan(step, carry, elements)

    def loop(self, goes_on: Callable[..., Any], step: Callable[..., Any], state: Any) -> Any:
        """Return the state after as many steps as `goes_on` says; one step is traced."""
        return jax.lax.while_loop(goes_on, step, state)

    def branch(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """Return what one of two functions gives; both are traced."""
        return jax.lax.cond(condition, yes, no)

    def least(self, first: Any, second: Any) -> Any:
        """Return the smaller of two whole numbers, which may be traced."""
        return jnp.minimum(first, second)

    def first(self, count: Any) -> slice:
        """Return the index of all entries, as their number may be traced."""
        return slice(None)

    def put(self, array: Any, index: tuple[Any, ...], value: Any) -> Any:
        """Return a new array, for which the compiler takes the place of the old one."""
        return array.at[(..., *index)].set(value)

    def add(self, array: Any, other: Any) -> Any:
        """Return a new array."""
        return array + other

    def on_host(
        self,
        function: Callable[..., Sequence[Any]],
        results: Sequence[tuple[tuple[int, ...], Any]],
        arrays: Sequence[Any],
        device: Any,
    ) -> tuple[Any, ...]:
        shapes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results)
        constants = map(jax.lax.stop_gradient, arrays)
        return jax.pure_callback(
            lambda *arrays: tuple(function(*arrays)), shapes, *constants, vmap_method="expand_dims"
        )

    def has_double_precision(self, device: Any) -> bool:
        # The device itself is not known under a tracer. TPUs have no elimination in double precision.
        return jax.default_backend() in {"cpu", "gpu"} and bool(jax.config.jax_enable_x64)

    def computes_in_double_precision(self, device: Any) -> bool:
        # Where arrays have single precision, a context widens them in versions that have one.
        return self.has_double_precision(device) or (
            jax.default_backend() in {"cpu", "gpu"} and hasattr(jax, "enable_x64")
        )

    def has_values(self, array: Any) -> bool:
        return False  # where they can be read, they are not: results are the same with and without a tracer

    def in_double_precision(
        self, function: Callable[..., Sequence[Any]], results: Sequence[tuple[tuple[int, ...], Any]], arrays: Any
    ) -> tuple[Any, ...]:
        dtypes = [dtype for _, dtype in results]
        constants = map(jax.lax.stop_gradient, arrays)
        if jax.config.jax_enable_x64:
            return _in_double_precision(function, dtypes, constants)

        # The types of double precision are there only while this function is traced. So is a transformation of what it
        # traced: under `vmap` it is traced anew, and derivatives are those of the rules.
        @jax.custom_batching.custom_vmap
        def computed(*arrays: Any) -> tuple[Any, ...]:
            with jax.enable_x64(True):
                return _in_double_precision(function, dtypes, arrays)

        @computed.def_vmap
        def _(size: int, are_mapped: list[bool], *arrays: Any) -> Any:  # noqa: ARG001
            mapped = computed(*(v if is_mapped else v[None] for v, is_mapped in zip(arrays, are_mapped, strict=True)))
            return mapped, (True,) * len(dtypes)

        return computed(*constants)

    def elimination(self, matrices: Any) -> Elimination:
        factors, pivots, permutation = jax.lax.linalg.lu(matrices)
        solve = partial(jax.lax.linalg.triangular_solve, factors, left_side=True)

        def slogdet() -> tuple[Any, Any]:
            diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
            odd = jnp.sum(pivots != jnp.arange(pivots.shape[-1], dtype=pivots.dtype), axis=-1) % 2
            return (1 - 2 * odd) * jnp.prod(jnp.sign(diagonal), axis=-1), jnp.sum(jnp.log(jnp.abs(diagonal)), axis=-1)

        def solutions(b: Any) -> Any:
            in_order = jnp.take_along_axis(b, permutation[..., None], axis=-2)
            return solve(solve(in_order, lower=True, unit_diagonal=True), lower=False)

        return Elimination(solutions, slogdet)

    def triangular_solutions(self, L: Any, b: Any) -> Any:
        return jax.lax.linalg.triangular_solve(L, b, left_side=True, lower=True)

    def solution(self, solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
        return _implicit_solve(solver, A, jax.lax.stop_gradient(M), b)

    def log_determinant(self, rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
        return _log_determinant(rule, A, given, value)


def _in_double_precision(
    function: Callable[..., Sequence[Any]], dtypes: Sequence[Any], arrays: Iterable[Any]
) -> tuple[Any, ...]:
    """Return the results of a function of arrays in double precision, in these dtypes."""
    wide = (v.astype(jnp.complex128 if jnp.iscomplexobj(v) else jnp.float64) for v in arrays)
    return tuple(v.astype(dtype) for v, dtype in zip(function(*wide), dtypes, strict=True))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _without_derivative(value: Any, arrays: Any, why: str) -> Any:  # noqa: ARG001
    """Return a value that depends on arrays, by which it has no derivatives."""
    return value


@_without_derivative.defjvp
def _(why: str, primals: Any, tangents: Any) -> tuple[Any, Any]:
    raise NotImplementedError(why)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _implicit_solve(solver: Solver, A: Any, M: Any, b: Any) -> Any:
    """Return the result of a solver, x and further information, where x has the derivative ``A^-1 (db - dA x)``."""
    return solver(A, M, b, jnp)


@_implicit_solve.defjvp
def _(solver: Solver, primals: Any, tangents: Any) -> tuple[Any, Any]:
    A, M, b = primals
    dA, _, db = tangents
    x, information = _implicit_solve(solver, A, M, b)
    dx = _derivative_of_solve(solver.for_changes, A, M, x, dA, db)
    return (x, information), (dx, jax.custom_derivatives.zero_from_primal(information))


@partial(jax.jit, static_argnums=0)  # without it the many transforms would be compiled one by one
def _derivative_of_solve(solver: Solver, A: Any, M: Any, x: Any, dA: Any, db: Any) -> Any:
    """Return ``A^-1 (db - dA x)`` in a form that JAX can transpose; ``dA x`` is the derivative of the product."""
    _, dA_times_x = jax.jvp(lambda A: A._matvec(x, jnp), (A,), (dA,))

    def solve(_: Any, right: Any) -> Any:
        return solver(A, M, right, jnp)[0]

    def solve_transposed(_: Any, right: Any) -> Any:
        adjoint = None if M is None else M.H
        return jnp.conj(solver(A.H, adjoint, jnp.conj(right), jnp)[0])

    return jax.lax.custom_linear_solve(lambda v: A._matvec(v, jnp), db - dA_times_x, solve, solve_transposed)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_determinant(rule: LogDeterminant, A: Any, given: Any, value: Any) -> Any:  # noqa: ARG001
    """Return `value`, the logarithm of the determinant of A, with the derivative ``tr(A^-1 dA)``."""
    return value


@_log_determinant.defjvp
def _(rule: LogDeterminant, primals: Any, tangents: Any) -> tuple[Any, Any]:
    A, given, value = primals
    dA, _, _ = tangents
    inverse = rule.inverse(A, given, jnp)
    return _log_determinant(rule, A, given, value), _derivative_of_trace(rule, A, dA, inverse, given)


@partial(jax.jit, static_argnums=0)
def _derivative_of_trace(rule: LogDeterminant, A: Any, dA: Any, inverse: Any, given: Any) -> Any:
    return jax.jvp(lambda A: rule.trace(A, inverse, given, jnp), (A,), (dA,))[1]


# Objects with parameters as pytrees

_LEAVES: dict[type, type] = {kind: type("Leaf", (kind,), {}) for kind in (int, float, complex)}
"""For each type of Python numbers a subclass: a number of it was a leaf of a tree, not a static value."""


def register(cls: Any) -> None:
    """Register a class of objects with parameters, an operator or a plan, as a pytree."""

    def flatten(op: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        # A Python number that scales an operator is a static value: as a leaf it would return from jit as an array.
        names = cls._field_names()
        numbers = {n for n in cls._static_numbers if type(getattr(op, n)) in _LEAVES}
        dynamic = tuple(n for n in names if n in cls._core_axes and n not in numbers)
        static = tuple((n, getattr(op, n)) for n in names if n not in dynamic)
        values = [getattr(op, n) for n in dynamic]
        leaves = [+value if type(value) in _LEAVES.values() else value for value in values]  # a plain number again
        return [*zip(map(jax.tree_util.GetAttrKey, dynamic), leaves, strict=True)], (dynamic, static)

    def unflatten(structure: tuple[Any, ...], children: Any) -> Any:
        # JAX rebuilds operators with placeholders in them, which the checks of the constructor would refuse.
        dynamic, static = structure
        op = object.__new__(cls)
        for name, value in zip(dynamic, children, strict=True):
            leaf = _LEAVES.get(type(value)) if name in cls._static_numbers else None
            object.__setattr__(op, name, value if leaf is None else leaf(value))
        for name, value in static:
            object.__setattr__(op, name, value)
        return op

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)


def _register_own(cls: type) -> None:
    """Register a class if it is of this package: other packages register their own classes as they want them."""
    if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
        register(cls)


for_each_class(_register_own)

rules = JaxRules(jnp)
"""The rules of JAX."""
