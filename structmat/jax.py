"""Operators in JAX. Needs the extra ``jax``. The first array of JAX in an operator registers all operators as pytrees.

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

from typing import Any, TypeVar

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    raise ImportError('structmat.jax needs the extra "jax": pip install "structmat[jax]"') from error

from structmat._arrays.libraries import rules_of
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._jax_rules import register, rules  # which registers all operators of this package
from structmat._parametrised import Parametrised
from structmat.operators import LinearOperator  # and so all of them

__all__ = ["as_lineax", "register_operator"]


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
    register(cls)
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
    if operator.dtype is not None and rules_of(operator._own_namespace()) is not rules:
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
