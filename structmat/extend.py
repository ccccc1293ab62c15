"""For operators of your own: the base class and its hooks, the rules for pairs of operators, helpers for arrays.

An operator is a frozen dataclass with ``eq=False``, derived from `LinearOperator`. The class attribute
``_core_axes`` maps each field that holds parameters to the number of an array's own axes after the batch axes, or to
None where it holds operators; all other fields are plain hashable values. The public methods check and prepare their
arguments and call these hooks, which contain only mathematics on arrays of one namespace `xp`: they do not check
arguments and do not inspect values.

Required
    the property ``shape``; ``_matvec(x, xp)``, along the last axis; ``_transpose()``.
With a default
    ``_conj()``, by the conjugates of all parameters and of the operators it is made of, a real operator itself;
    ``dtype``, that of these; ``_rmatvec(y, xp)``, ``_matmat(X, xp)``,
    ``_to_dense(like)`` with a `Context`, ``_row_sums(xp)``, ``_details()`` for the repr, ``_described()`` for errors,
    ``_block(rows, cols, xp)``, of two ranges: a block as an operator, or None where it has no structure of its own, and
    for `prepare` ``_plan(xp)`` and ``_solver(xp)``: the plan of an operator with the same products, and of its inverse,
    None by default.
Without a closed form unless given
    ``_inv(xp)``, ``_solve(b, xp)``, ``_determinant_factors(xp)``, ``_det(xp)``, ``_slogdet(xp)``, ``_pinv(rtol, xp)``,
    ``_damped_pinv(damp, xp)``, ``_eig(xp)``, ``_eigvals(xp)``, ``_svdvals(xp)``, ``_diagonal(xp)``, ``_norm(ord, xp)``,
    ``_frobenius(xp)``, ``_modulus(xp)``, ``_spectral_function(function, xp)``; ``_rounding(xp)``, the relative error of
    singular values, has a default. `closed_forms` returns which methods ask which of them. A hook that has none for
    this case raises ``NoClosedFormError(self)``; the method that was called names itself and the alternative.
For iteration, asked for nothing
    ``_nearest_circulant(sizes, like, xp)``, the first column of a circulant near a square matrix, cyclic on a grid of
    these sizes, which preconditions `structmat.solve` and `structmat.slogdet`, or None, the default;
    ``_circulant_levels()``, the sizes of the grid: ``(n,)`` unless the matrix has levels.
To call in hooks
    ``_own_namespace()`` of the parameters, ``_map(function)`` of each of them without the checks of the constructor.

Rules for pairs of types, such as ``@add.rule(Mine, Mine)``, return the combined operator, or ``NotImplemented``;
without rules products, sums and multiples are kept as `Product`, `Sum` and `Scaled`. A rule of `scale` gets a number,
an array of one for each member of a stack, or a `Reciprocal` for ``operator / number``: `scale_array` takes them all.
`structmat.testing.check_operator` checks every law; the guide has an example.
"""

from __future__ import annotations

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import Reciprocal, scale_array
from structmat._arrays.dtypes import is_complex
from structmat._arrays.shapes import concat_last
from structmat.operators import (
    ClosedForm,
    Context,
    LinearOperator,
    NoClosedFormError,
    PairRules,
    SpectralFunction,
    add,
    closed_forms,
    compose,
    scale,
)

__all__ = [
    "ClosedForm",
    "Context",
    "LinearOperator",
    "NoClosedFormError",
    "PairRules",
    "Reciprocal",
    "SpectralFunction",
    "add",
    "as_floating",
    "closed_forms",
    "compose",
    "concat_last",
    "is_complex",
    "scale",
    "scale_array",
]
