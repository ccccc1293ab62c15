"""Operators of the tests' own, written against `structmat.extend` alone, as anyone may write them.

`structmat` is used as its users do: for operators as parts, and for errors. The registry has them beside the package's
own operators, so that every law holds for them too, with every other operator, on every library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import structmat as sm
from structmat.extend import (
    ByHooks,
    CombinedPlan,
    LinearOperator,
    NoClosedFormError,
    Planned,
    Step,
    add,
    as_vectors,
    common_dtype,
    compose,
    concat_last,
    device_of,
    namespace_of,
    plan_of_parts,
    register_family,
    require_operators,
    scale,
    values_of,
)


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerPlan(CombinedPlan):
    """The plans of the two factors, each for all vectors that its side of the matrix of entries has."""

    @property
    def shape(self) -> tuple[int, int]:
        left, right = self.parts
        return (left.shape[0] * right.shape[0], left.shape[1] * right.shape[1])

    @property
    def cost(self) -> float:
        left, right = self.parts
        return left.shape[1] * right.cost + right.shape[0] * left.cost

    def step(self, xp: Any, dtype: str, *, batched: bool) -> Step:  # both factors take batches
        if self.is_real is None or self.is_stack:
            return Step(lambda x: self.product(x, xp))
        left, right = (_of_rows(part.step(xp, dtype, batched=True), part.shape, xp) for part in self.parts)
        return Step(lambda x: self._by(left, right, x, xp))

    def product(self, x: Any, xp: Any) -> Any:
        left, right = self.parts
        return self._by(lambda y: left.apply(y, xp), lambda y: right.apply(y, xp), x, xp)

    def _by(self, left: Callable[[Any], Any], right: Callable[[Any], Any], x: Any, xp: Any) -> Any:
        """Return the products of vectors by those of the factors with rows of matrices."""
        rows = xp.reshape(x, (*x.shape[:-1], *(part.shape[1] for part in self.parts)))
        outer = left(xp.matrix_transpose(right(rows)))
        return xp.reshape(xp.matrix_transpose(outer), (*outer.shape[:-2], self.shape[0]))


def _of_rows(step: Step, shape: tuple[int, int], xp: Any) -> Callable[[Any], Any]:
    """Return the products of stacks of matrices of vectors, where a step takes two axes at most."""

    def product(rows: Any) -> Any:
        vectors = xp.reshape(rows, (prod(rows.shape[:-1]), shape[1]))
        return xp.reshape(step.product(vectors), (*rows.shape[:-1], shape[0]))

    return product


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(LinearOperator):
    """The Kronecker product of two operators, ``K[i p + k, j q + l] = left[i, j] right[k, l]``.

    It has the closed forms that both have, but for the pseudo-inverse, whose cut-off knows the products of singular
    values alone, and for functions of the eigenvalues.
    """

    _core_axes = {"left": None, "right": None}

    left: Any
    right: Any

    def __post_init__(self) -> None:
        require_operators("Kronecker", "left and right", (self.left, self.right))

    @property
    def shape(self) -> tuple[int, int]:
        (m, n), (p, q) = self.left.shape, self.right.shape
        return (m * p, n * q)

    def _described(self) -> str:
        return f"the Kronecker product of {self.left._described()} and {self.right._described()}"

    def _matvec(self, x: Any, xp: Any) -> Any:
        rows = xp.reshape(x, (*x.shape[:-1], self.left.shape[1], self.right.shape[1]))
        inner = self.right._matmat(xp.matrix_transpose(rows), xp)
        outer = self.left._matmat(xp.matrix_transpose(inner), xp)
        return xp.reshape(outer, (*outer.shape[:-2], self.shape[0]))

    def _transpose(self) -> Kronecker:
        return Kronecker(self.left._transpose(), self.right._transpose())

    def _to_dense(self, like: Any) -> Any:
        left, right = self.left._to_dense(like), self.right._to_dense(like)
        entries = left[..., :, None, :, None] * right[..., None, :, None, :]
        return like.xp.reshape(entries, (*entries.shape[:-4], *self.shape))

    def _plan(self, xp: Any) -> KroneckerPlan | None:
        parts = (self.left, self.right)
        if self.batch_shape:  # vectors have one more axis in front of them
            parts = tuple(part._with_batch_axis(xp) for part in parts)
        plans = [part._plan(xp) for part in parts]
        if plans == [None, None]:
            return None
        return KroneckerPlan(tuple(plan or ByHooks(part) for plan, part in zip(plans, parts, strict=True)), False)

    def _circulant_levels(self) -> tuple[int, ...]:
        return (*self.left._circulant_levels(), *self.right._circulant_levels())

    def _nearest_circulant(self, sizes: tuple[int, ...], like: Any, xp: Any) -> Any:
        if sizes != self._circulant_levels() or any(part.shape[0] != part.shape[1] for part in (self.left, self.right)):
            return None
        of_left = len(self.left._circulant_levels())
        left = self.left._nearest_circulant(sizes[:of_left], like, xp)
        right = self.right._nearest_circulant(sizes[of_left:], like, xp)
        return None if left is None or right is None else _of_pairs(left, right, xp)

    # Closed forms: those of the factors, of which values belong to each pair.

    def _require_square(self) -> None:
        """Raise an error where a factor is not square: the rank of a square product is too small for an inverse."""
        if any(part.shape[0] != part.shape[1] for part in (self.left, self.right)):
            raise NoClosedFormError(self)

    def _each(self, xp: Any, hook: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        return values_of(self.left, self, xp, hook), values_of(self.right, self, xp, hook)

    def _of_pairs(self, xp: Any, hook: Callable[[Any, Any], Any]) -> Any:
        """Return the products of the values of either factor."""
        return _of_pairs(*self._each(xp, hook), xp)

    def _inv(self, xp: Any) -> Kronecker:
        self._require_square()
        return Kronecker(self.left._inv(xp), self.right._inv(xp))

    def _solve(self, b: Any, xp: Any) -> Any:
        self._require_square()
        rows = xp.reshape(b, (*b.shape[:-1], self.left.shape[0], self.right.shape[0]))
        solve = lambda op, x: op._solve(x, xp)
        inner = self.right._in_columns(solve, xp.matrix_transpose(rows), xp)
        outer = self.left._in_columns(solve, xp.matrix_transpose(inner), xp)
        return xp.reshape(outer, (*outer.shape[:-2], self.shape[1]))

    def _determinant_factors(self, xp: Any) -> Any:
        self._require_square()
        left, right = self._each(xp, lambda part, own: part._determinant_factors(own))
        return concat_last([left] * self.right.shape[0] + [right] * self.left.shape[0], xp)

    def _slogdet(self, xp: Any) -> tuple[Any, Any]:
        self._require_square()
        (left_sign, left), (right_sign, right) = self._each(xp, lambda part, own: part._slogdet(own))
        p, m = self.right.shape[0], self.left.shape[0]
        return left_sign**p * right_sign**m, p * left + m * right

    def _eigvals(self, xp: Any) -> Any:
        self._require_square()
        return self._of_pairs(xp, lambda part, own: part._eigvals(own))

    def _eig(self, xp: Any) -> tuple[Any, LinearOperator]:
        self._require_square()
        vectors = (part._eig(xp if part._arrays() else part._own_namespace())[1] for part in (self.left, self.right))
        return self._eigvals(xp), Kronecker(*vectors)

    def _svdvals(self, xp: Any) -> Any:
        values = self._of_pairs(xp, lambda part, own: part._svdvals(own))
        missing = min(self.shape) - values.shape[-1]
        zeros = xp.zeros((*values.shape[:-1], missing), dtype=values.dtype, device=device_of(values))
        return concat_last([values, zeros], xp) if missing else values

    def _rounding(self, xp: Any) -> float:
        return self.left._rounding(xp) + self.right._rounding(xp)

    def _diagonal(self, xp: Any) -> Any:
        self._require_square()
        return self._of_pairs(xp, lambda part, own: part._diagonal(own))

    def _norm(self, ord: Any, xp: Any) -> Any:
        left, right = self._each(xp, lambda part, own: part._norm(ord, own))
        return left * right

    def _modulus(self, xp: Any) -> Kronecker:
        return Kronecker(self.left._modulus(xp), self.right._modulus(xp))


def _of_pairs(left: Any, right: Any, xp: Any) -> Any:
    """Return the products of each of one vector with each of another one."""
    pairs = left[..., :, None] * right[..., None, :]
    return xp.reshape(pairs, (*pairs.shape[:-2], prod(pairs.shape[-2:])))


@compose.rule(Kronecker, Kronecker)
def _compose(left: Kronecker, right: Kronecker) -> Any:
    if left.left.shape[1] != right.left.shape[0]:
        return NotImplemented
    return Kronecker(compose(left.left, right.left), compose(left.right, right.right))


@scale.rule(Kronecker, object)
def _scale(operator: Kronecker, factor: Any) -> Kronecker:
    return Kronecker(scale(operator.left, factor), operator.right)


@dataclass(frozen=True, eq=False, repr=False)
class ToeplitzPlusHankel(Planned):
    """The sum of a Toeplitz and a Hankel matrix, ``A[i, j] = t[n - 1 + i - j] + h[i + j]``.

    `t` has the constants of the m + n - 1 diagonals, from the upper right corner to the lower left one, and `h` those
    of the anti-diagonals from the upper left corner on; `rows` is m.
    """

    _core_axes = {"t": 1, "h": 1}

    t: Any
    h: Any
    rows: int

    def __post_init__(self) -> None:
        t = as_vectors(self.t, "ToeplitzPlusHankel", "t", "m + n - 1")
        h = as_vectors(self.h, "ToeplitzPlusHankel", "h", "m + n - 1")
        if t.shape[-1] != h.shape[-1]:
            text = f"must be as long as t, {t.shape[-1]}, got {h.shape[-1]}"
            raise sm.ArgumentValueError("ToeplitzPlusHankel", "h", text)
        if not 1 <= self.rows <= t.shape[-1]:
            text = f"must be from 1 to {t.shape[-1]}, got {self.rows}"
            raise sm.ArgumentValueError("ToeplitzPlusHankel", "rows", text)
        xp = namespace_of("ToeplitzPlusHankel", t, h)
        dtype = common_dtype(xp, t, h)
        object.__setattr__(self, "t", xp.astype(t, dtype))
        object.__setattr__(self, "h", xp.astype(h, dtype))

    @property
    def shape(self) -> tuple[int, int]:
        return (self.rows, self.t.shape[-1] - self.rows + 1)

    def _parts(self, xp: Any) -> tuple[sm.Toeplitz, sm.Hankel]:
        m, n = self.shape
        T = sm.Toeplitz(self.t[..., n - 1 :], xp.flip(self.t[..., :n], axis=-1))
        return T, sm.Hankel(self.h[..., :m], self.h[..., m - 1 :])

    def _plan(self, xp: Any) -> Any:
        return plan_of_parts(self._parts(xp), xp, is_sum=True)

    def _transpose(self) -> ToeplitzPlusHankel:
        return ToeplitzPlusHankel(self._own_namespace().flip(self.t, axis=-1), self.h, self.shape[1])

    def _to_dense(self, like: Any) -> Any:
        T, H = self._parts(like.xp)
        return T._to_dense(like) + H._to_dense(like)

    def _block(self, rows: range, cols: range, xp: Any) -> ToeplitzPlusHankel:
        last = self.shape[1] - 1
        t = self.t[..., last + rows.start - cols.stop + 1 : last + rows.stop - cols.start]
        return ToeplitzPlusHankel(t, self.h[..., rows.start + cols.start : rows.stop + cols.stop - 1], len(rows))

    def _nearest_circulant(self, sizes: tuple[int, ...], like: Any, xp: Any) -> Any:
        T, _ = self._parts(xp)
        c = T._nearest_circulant(sizes, like, xp)
        return None if c is None else c + _means_of_anti_diagonals(self.h, sizes[0], xp)

    def _diagonal(self, xp: Any) -> Any:
        T, H = self._parts(xp)
        return T._diagonal(xp) + H._diagonal(xp)


def _means_of_anti_diagonals(h: Any, n: int, xp: Any) -> Any:
    """Return the first column of the circulant that is nearest to a square Hankel matrix.

    Its cyclic diagonal k has the entries ``h[k], h[k + 2], ..., h[2 n - 2 - k]`` and ``h[n - k], ..., h[n + k - 2]``:
    differences of sums of every other constant.
    """
    pairs = xp.reshape(concat_last([h, xp.zeros_like(h[..., :1])], xp), (*h.shape[:-1], n, 2))
    sums = xp.reshape(xp.cumulative_sum(pairs, axis=-2), (*h.shape[:-1], 2 * n))
    before = concat_last([xp.zeros_like(h[..., :1]), xp.zeros_like(h[..., :1]), sums], xp)
    last = xp.flip(before[..., n + 1 : 2 * n + 1], axis=-1) + before[..., n : 2 * n]
    first = before[..., :n] + xp.flip(before[..., 1 : n + 1], axis=-1)
    return (last - first) / n


def _hankel_as_member(H: sm.Hankel, like: Any) -> ToeplitzPlusHankel:
    h = concat_last([H.c, H.r[..., 1:]], H._own_namespace())
    return ToeplitzPlusHankel(H._own_namespace().zeros_like(h), h, H.shape[0])


def _toeplitz_as_member(T: sm.Toeplitz, like: Any) -> ToeplitzPlusHankel:
    xp = T._own_namespace()
    t = concat_last([xp.flip(T.r[..., 1:], axis=-1), T.c], xp)
    return ToeplitzPlusHankel(t, xp.zeros_like(t), T.shape[0])


def _as_member(operator: LinearOperator, like: ToeplitzPlusHankel) -> ToeplitzPlusHankel:
    """Return a member of what is a Toeplitz matrix together with one of zeros."""
    xp = like._own_namespace()
    zeros, _ = like._map(lambda array, _: xp.zeros_like(array))._parts(xp)
    return _toeplitz_as_member(add(operator, zeros), like)


register_family(
    ToeplitzPlusHankel,
    {
        sm.Toeplitz: _toeplitz_as_member,
        sm.Hankel: _hankel_as_member,
        **dict.fromkeys((sm.Identity, sm.Circulant, sm.SpectralCirculant, sm.BandedCirculant), _as_member),
    },
)

OUTSIDERS = (Kronecker, KroneckerPlan, ToeplitzPlusHankel)
"""The classes that JAX is told of by `structmat.jax.register_operator`."""
