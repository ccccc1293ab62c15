"""What JAX needs: operators as pytrees. Needs the extra ``jax``. The first array of JAX in an operator imports it.

Arrays of operators are leaves, sizes are static, so they pass through ``jit``, ``vmap``, ``grad`` and ``lax.scan``:

>>> import jax
>>> import jax.numpy as jnp
>>> import structmat as sm
>>> C = sm.Circulant(jnp.array([1.0, 2.0, 3.0]))
>>> jax.jit(lambda op, x: op.matvec(x))(C, jnp.array([1.0, 0.0, 0.0])).round(4).tolist()
[1.0, 2.0, 3.0]

Where the first operators that reach JAX hold arrays of NumPy, or none, as `structmat.Identity`, import it yourself.

A tree made from one, by ``jax.tree.map`` or by a library such as Equinox, may hold anything in place of the arrays:
masks, axes, names. Only the Python number that scales an operator, as in ``2 * (A @ B)``, is static.

The leaves of a `structmat.Prepared` operator are those of the operator and of what was computed from it: its gradient
lies where its products read, in ``plan`` or ``matrix``, for `rmatvec` in ``operator``. To learn the vectors, prepare
inside of the function that is differentiated. Count parameters by ``P.operator``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import numpy as np

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    raise ImportError('structmat.jax needs the extra "jax": pip install "structmat[jax]"') from error

from structmat._arrays.libraries import library_of
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._parametrised import Parametrised
from structmat._toeplitz_systems.schur import one_less_square
from structmat._toeplitz_systems.stacks import products, solutions_on_host, tangents, transposed, vectors_on_host
from structmat.operators import LinearOperator  # and so all of them, to be registered

__all__ = ["as_lineax", "register_operator"]


_LEAVES: dict[type, type] = {kind: type("Leaf", (kind,), {}) for kind in (int, float, complex)}
"""Types of leaves that are Python numbers, apart from a number that is no leaf."""

Op = TypeVar("Op", bound=Parametrised)
"""An operator, or a plan."""


def register_operator(cls: type[Op]) -> type[Op]:
    """Register an operator class as a JAX pytree; for operators of your own.

    Parameters
    ----------
    cls : type
        A frozen dataclass derived from `structmat.LinearOperator`.

    Returns
    -------
    type
        The class itself, so that it serves as a decorator.

    Raises
    ------
    ValueError
        If the class is registered already.

    Examples
    --------
    An operator that is derived from another one is a class of its own to JAX:

    >>> from dataclasses import dataclass
    >>> import jax
    >>> import structmat as sm
    >>> from structmat.jax import register_operator
    >>> @register_operator
    ... @dataclass(frozen=True, eq=False, repr=False)
    ... class Damping(sm.Diagonal):
    ...     pass
    >>> jax.jit(lambda op, x: op.matvec(x))(Damping(jax.numpy.ones(2) / 2), jax.numpy.ones(2)).tolist()
    [0.5, 0.5]
    """
    names = cls._field_names()

    def flatten(op: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        # A Python number that scales an operator stays one: as a leaf it would come back from jit as an array.
        numbers = {n for n in cls._static_numbers if type(getattr(op, n)) in _LEAVES}
        dynamic = tuple(n for n in names if n in cls._core_axes and n not in numbers)
        static = tuple((n, getattr(op, n)) for n in names if n not in dynamic)
        values = [getattr(op, n) for n in dynamic]
        given = [+value if type(value) in _LEAVES.values() else value for value in values]
        return [*zip(map(jax.tree_util.GetAttrKey, dynamic), given, strict=True)], (dynamic, static)

    def unflatten(structure: tuple[Any, ...], children: Any) -> Any:
        # not the constructor: JAX rebuilds operators with placeholders, which its checks would refuse
        dynamic, static = structure
        op = object.__new__(cls)
        for name, value in zip(dynamic, children, strict=True):
            leaf = _LEAVES.get(type(value)) if name in cls._static_numbers else None
            object.__setattr__(op, name, value if leaf is None else leaf(value))
        for name, value in static:
            object.__setattr__(op, name, value)
        return op

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


def as_lineax(operator: LinearOperator, tags: Any = ()) -> Any:
    """Return an operator as one of lineax, for its solvers and for libraries that are built on these.

    Parameters
    ----------
    operator : LinearOperator
        One matrix whose parameters are JAX arrays.
    tags : object or iterable of objects, optional
        What is known of the matrix, such as ``lineax.positive_semidefinite_tag``. lineax believes them unchecked.

    Returns
    -------
    lineax.FunctionLinearOperator
        Its ``mv`` is `LinearOperator.matvec`. Gradients reach the parameters.

    Raises
    ------
    ImportError
        If lineax is not installed.
    TypeError
        If `operator` is not a structmat operator, or holds arrays of another library than JAX.
    ValueError
        If `operator` is a stack of matrices; for these call it inside of ``jax.vmap``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import lineax as lx
    >>> import structmat as sm
    >>> T = sm.Toeplitz(jnp.array([2.0, 1.0, 0.0]))
    >>> A = sm.jax.as_lineax(T, lx.positive_semidefinite_tag)
    >>> x = lx.linear_solve(A, jnp.ones(3), lx.CG(rtol=1e-6, atol=1e-6)).value
    >>> bool(jnp.allclose(T @ x, 1, atol=1e-5))
    True
    """
    owner = "as_lineax"
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(owner, "operator", f"must be a structmat operator, got {type(operator).__name__}")
    if operator.dtype is not None and library_of(operator._own_namespace()) != "jax":
        raise ArgumentTypeError(owner, "operator", f"must hold JAX arrays, got {operator!r}")
    if operator.batch_shape:
        text = f"must be one matrix, got a stack of shape {operator.batch_shape}"
        raise ArgumentValueError(owner, "operator", text)
    try:
        import lineax  # noqa: PLC0415  # which is not in the extra
    except ModuleNotFoundError as error:
        raise ImportError('structmat.jax.as_lineax needs lineax: pip install "structmat[jax]" lineax') from error
    dtype = operator.dtype or jnp.result_type(complex if operator._forces_complex else float)
    vector = jax.ShapeDtypeStruct(operator.shape[1:], dtype)
    return lineax.FunctionLinearOperator(operator.matvec, vector, tags)


def _derived(cls: type[Parametrised]) -> set[type[Parametrised]]:
    """Return a class and all that are derived from it, each once."""
    return {cls}.union(*map(_derived, cls.__subclasses__()))


for _kind in _derived(Parametrised):
    if _kind.__module__.startswith("structmat.") and "__match_args__" in _kind.__dict__:
        register_operator(_kind)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def inverse_vectors(c: Any, r: Any, determinant: bool) -> tuple[Any, ...]:
    """Return what determines inverse and determinant of Toeplitz matrices, found by NumPy."""
    batch, real = c.shape[:-1], jnp.real(c).dtype
    shapes = ((c.shape, c.dtype), (c.shape, c.dtype), (batch, real), (batch, c.dtype))
    return jax.pure_callback(
        lambda c, r: vectors_on_host(np.asarray(c), np.asarray(r), determinant=determinant),
        tuple(jax.ShapeDtypeStruct(*s) for s in shapes),
        c,
        r,
        vmap_method="broadcast_all",
    )


_compiled_tangents = jax.jit(partial(tangents, xp=jnp))  # whose many transforms would else be compiled one by one


def _changes(determinant: bool, primals: Any, changes: Any) -> tuple[Any, Any]:
    x, y, sign, logdet = inverse_vectors(*primals, determinant)
    dc, dr = changes
    dx, dy, dlog = _compiled_tangents(x, y, dc, dr)
    return (x, y, sign, logdet), (dx, dy, jnp.zeros_like(sign), dlog)


inverse_vectors.defjvp(_changes)


def toeplitz_solutions(c: Any, r: Any, b: Any) -> Any:
    """Return solutions of Toeplitz systems, found by NumPy; JAX differentiates the products."""
    b = jnp.broadcast_to(b, jnp.broadcast_shapes(c.shape, r.shape, b.shape)).astype(jnp.result_type(c, b))

    def solve(_: Any, right: Any) -> Any:
        # of equal rank, as vmap puts its axes in front of all
        column, row = (v.reshape((1,) * (right.ndim - v.ndim) + v.shape) for v in (c, r))
        return jax.pure_callback(
            lambda c, r, b: solutions_on_host(np.asarray(c), np.asarray(r), np.asarray(b)),
            jax.ShapeDtypeStruct(right.shape, right.dtype),
            column,
            row,
            right,
            vmap_method="expand_dims",
        )

    def solve_transposed(_: Any, right: Any) -> Any:
        return transposed(lambda v: solve(None, v), jnp)(right)

    return jax.lax.custom_linear_solve(products(c, r, jnp), b, solve, solve_transposed)


@jax.jit  # type: ignore[untyped-decorator]
def schur(u: Any) -> tuple[Any, Any]:
    """Take the steps of Schur's algorithm, all of the same size, so that one is compiled."""
    index = jnp.arange(u.shape[-1])

    def step(pair: tuple[Any, Any], m: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        u, v = pair
        u = jnp.roll(u, 1, axis=-1)
        corner, below = (jax.lax.dynamic_slice_in_dim(w, m, 1, axis=-1) for w in (u, v))
        k = below / corner
        square = one_less_square(k, jnp)
        root = jnp.sqrt(square)
        u = jnp.where(index == m, square * corner, jnp.where(index > m, u - k.conj() * v, 0)) / root
        v = jnp.where(index <= m, 0, root * v - k * u)
        return (u, v), (k[..., 0], u)

    _, (coefficients, columns) = jax.lax.scan(step, (u, u), index[1:])
    return jnp.moveaxis(coefficients, 0, -1), jnp.moveaxis(jnp.concatenate([u[None], columns]), 0, -1)
