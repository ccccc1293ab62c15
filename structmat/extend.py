"""For operators of your own: the base class and its hooks, the rules for pairs of operators, helpers for arrays.

An operator is a frozen dataclass with ``eq=False``, derived from `LinearOperator`. The class attribute
``_core_axes`` maps each field that holds parameters to the number of an array's own axes after the batch axes, or to
None where it holds operators; all other fields are plain hashable values. The public methods check and prepare their
arguments and call these hooks, which contain only mathematics on arrays of one namespace `xp`: they do not check
arguments and do not inspect values. ``structmat/operators/_base/hooks.py`` has each of them with its default.

Required
    the property ``shape``; ``_matvec(x, xp)``, along the last axis; ``_transpose()``.
With a default
    ``_conj()``, by the conjugates of all parameters and of the operators it is made of, a real operator itself;
    ``dtype``, that of these, and ``_forces_complex``, whether products are complex although no parameter says so;
    ``_rmatvec(y, xp)``, ``_matmat(X, xp)``, ``_to_dense(like)`` with a `Context`, ``_row_sums(xp)``,
    ``_squared_moduli_times(X, xp)``, the product of all ``|A[i, j]|^2`` with real columns;
    ``_details()`` for the repr; for errors ``_described()`` and ``_hint_for_shape(method, argument, shape, length)``;
    ``_block(rows, cols, xp)``, of two ranges: a block as an operator, or None where it has no structure of its own;
    for `prepare` ``_plan(xp)`` and ``_solver(xp)``: the plan of an operator with the same products, and of its inverse,
    None by default, and ``_prepares_matrix``, whether a small one gets its dense matrix too.
Without a closed form unless given
    ``_inv(xp)``, ``_solve(b, xp)``, ``_determinant_factors(xp)``, ``_det(xp)``, ``_slogdet(xp)``, ``_pinv(rtol, xp)``,
    ``_damped_pinv(damp, xp)``, ``_eig(xp)``, ``_eigvals(xp)``, ``_svdvals(xp)``, ``_diagonal(xp)``, ``_norm(ord, xp)``,
    ``_frobenius(xp)``, ``_modulus(xp)``, ``_spectral_function(function, xp)``, and ``_orthonormal_eig(xp)``, by which
    Kronecker products, and operators to which a multiple of the identity is added, have closed forms;
    ``_rounding(xp)``, the relative error of singular values, has a default, and so has ``_slogdet_and_error(xp)``,
    which tells how far off the logarithm may be as well, by default no further than the rounding of its sum.
    `closed_forms` returns which methods ask which of them. A hook that has none for this case raises
    ``NoClosedFormError(self)``; the method that was called names itself and the alternative.
For those who solve systems, with a default
    ``_near(like, xp)``, a `Near` of what is near this matrix, or another form of it: by default nothing. A circulant or
    eigenvectors near it precondition `structmat.solve` and `structmat.slogdet`; of a Toeplitz matrix plus a diagonal,
    and of chosen rows and columns of such a sum, `structmat.Superfast` makes a factor.
To call in hooks
    ``_own_namespace()`` of the parameters; ``_map(function)``, the operator with a function of each of them, and
    ``_replaced(**fields)``, with other fields, both without the checks of the constructor;
    ``_in_columns(function, X, xp)``, a function of the operator and vectors along the last axis, for columns;
    ``_with_batch_axis(xp)``, the operator for vectors that have one more axis in front of them;
    and the hooks of its parts.

Rules for pairs of types, such as ``@add.rule(Mine, Mine)``, return the combined operator, or ``NotImplemented``;
without rules products, sums and multiples are kept as `Product`, `Sum` and `Scaled`. A rule of `scale` gets a number,
an array of one for each member of a stack, or a `Reciprocal` for ``operator / number``: `scale_array` takes them all.
Where arrays depend linearly on the matrix, `register_family` has the rules for sums and multiples.

Bases in place of `LinearOperator` are `Planned`, with ``_plan`` in place of ``_matvec``, `Wrapper` of one operator, and
`Chain`, a product of operators. An operator made of others checks them with `require_operators`, and takes their values
with `values_of`. It is prepared by preparing them, unless it has a plan; where they are made of its parameters and not
kept in its fields, `plan_of_parts` has their plan.

`structmat.testing.check_operator` checks every law; the guide has an example. The package's own operators take of its
base what is here, and nothing else.
"""

from __future__ import annotations

from structmat._arguments import as_floating, as_vectors
from structmat._arrays.arithmetic import (
    Reciprocal,
    conjugate,
    damped_reciprocal,
    euclidean_norm,
    reciprocal_above,
    require_nonzero,
    scale_array,
)
from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex
from structmat._arrays.libraries import device_of, namespace_of
from structmat._arrays.shapes import concat_last
from structmat._fourier.plans import Plan
from structmat._fourier.products import Products
from structmat.operators import (
    Chain,
    ClosedForm,
    Context,
    LinearOperator,
    Near,
    NearCirculant,
    NoClosedFormError,
    NormOrder,
    PairRules,
    Planned,
    SlogdetResult,
    SpectralFunction,
    Wrapper,
    add,
    closed_forms,
    combined,
    compose,
    error_of_eigenvalues,
    function_of_entries,
    identity_factor,
    is_real_at,
    plan_of_parts,
    register_family,
    require_operators,
    scale,
    sign_and_log,
    spectral_rounding,
    values_of,
)

__all__ = [
    "Chain",
    "ClosedForm",
    "Context",
    "LinearOperator",
    "Near",
    "NearCirculant",
    "NoClosedFormError",
    "NormOrder",
    "PairRules",
    "Plan",
    "Planned",
    "Products",
    "Reciprocal",
    "SlogdetResult",
    "SpectralFunction",
    "Wrapper",
    "add",
    "as_floating",
    "as_vectors",
    "closed_forms",
    "combined",
    "common_dtype",
    "complex_partner",
    "compose",
    "concat_last",
    "conjugate",
    "damped_reciprocal",
    "device_of",
    "error_of_eigenvalues",
    "euclidean_norm",
    "function_of_entries",
    "identity_factor",
    "is_complex",
    "is_real_at",
    "namespace_of",
    "plan_of_parts",
    "reciprocal_above",
    "register_family",
    "require_nonzero",
    "require_operators",
    "scale",
    "scale_array",
    "sign_and_log",
    "spectral_rounding",
    "values_of",
]
