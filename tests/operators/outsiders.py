"""Operators of the tests' own, written against `structmat.extend` alone, as anyone may write them.

`structmat` is used as its users do: for operators as parts, and for errors. The registry has them beside the package's
own operators, so that every law holds for them too, with every other operator, on every library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structmat as sm
from structmat.extend import (
    LinearOperator,
    Near,
    NearCirculant,
    NoClosedFormError,
    add,
    as_vectors,
    common_dtype,
    compose,
    concat_last,
    euclidean_norm,
    namespace_of,
    plan_of_parts,
    register_family,
    require_operators,
    scale,
    values_of,
)


@dataclass(frozen=True, eq=False, repr=False)
class DirectSum(LinearOperator):
    """The direct sum of two operators: a block-diagonal matrix of both.

    It has the closed forms that both have, but for the pseudo-inverse, whose cut-off knows all singular values, and for
    functions of the eigenvalues.
    """

    _core_axes = {"first": None, "second": None}

    first: Any
    second: Any

    def __post_init__(self) -> None:
        require_operators("DirectSum", "first and second", (self.first, self.second))

    @property
    def shape(self) -> tuple[int, int]:
        (m, n), (p, q) = self.first.shape, self.second.shape
        return (m + p, n + q)

    def _described(self) -> str:
        return f"the direct sum of {self.first._described()} and {self.second._described()}"

    def _by_blocks(self, hook: Callable[[Any, Any], Any], x: Any, split: int, xp: Any) -> Any:
        """Return a function of each block and its part of vectors, of which the first one has `split` entries."""
        return concat_last([hook(self.first, x[..., :split]), hook(self.second, x[..., split:])], xp)

    def _matvec(self, x: Any, xp: Any) -> Any:
        return self._by_blocks(lambda block, part: block._matvec(part, xp), x, self.first.shape[1], xp)

    def _transpose(self) -> DirectSum:
        return DirectSum(self.first._transpose(), self.second._transpose())

    # Closed forms: those of the blocks, whose values follow each other.

    def _require_square(self) -> None:
        """Raise an error where a block is not square."""
        if any(block.shape[0] != block.shape[1] for block in (self.first, self.second)):
            raise NoClosedFormError(self)

    def _each(self, xp: Any, hook: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        return values_of(self.first, self, xp, hook), values_of(self.second, self, xp, hook)

    def _joined(self, xp: Any, hook: Callable[[Any, Any], Any]) -> Any:
        """Return the values of the first block, and those of the second one."""
        return concat_last(list(self._each(xp, hook)), xp)

    def _inv(self, xp: Any) -> DirectSum:
        self._require_square()
        return DirectSum(self.first._inv(xp), self.second._inv(xp))

    def _solve(self, b: Any, xp: Any) -> Any:
        self._require_square()
        return self._by_blocks(lambda block, part: block._solve(part, xp), b, self.first.shape[0], xp)

    def _determinant_factors(self, xp: Any) -> Any:
        self._require_square()
        return self._joined(xp, lambda part, own: part._determinant_factors(own))

    def _slogdet(self, xp: Any) -> tuple[Any, Any]:
        self._require_square()
        (sign, log), (other_sign, other_log) = self._each(xp, lambda part, own: part._slogdet(own))
        return sign * other_sign, log + other_log

    def _eigvals(self, xp: Any) -> Any:
        self._require_square()
        return self._joined(xp, lambda part, own: part._eigvals(own))

    def _eig(self, xp: Any) -> tuple[Any, LinearOperator]:
        self._require_square()
        vectors = (part._eig(xp if part._arrays() else part._own_namespace())[1] for part in (self.first, self.second))
        return self._eigvals(xp), DirectSum(*vectors)

    def _svdvals(self, xp: Any) -> Any:
        self._require_square()
        return self._joined(xp, lambda part, own: part._svdvals(own))

    def _rounding(self, xp: Any) -> float:
        return max(self.first._rounding(xp), self.second._rounding(xp))

    def _diagonal(self, xp: Any) -> Any:
        self._require_square()
        return self._joined(xp, lambda part, own: part._diagonal(own))

    def _frobenius(self, xp: Any) -> Any:
        return euclidean_norm(self._joined(xp, lambda part, own: part._frobenius(own)[..., None]), xp)

    def _modulus(self, xp: Any) -> DirectSum:
        return DirectSum(self.first._modulus(xp), self.second._modulus(xp))


@compose.rule(DirectSum, DirectSum)
def _compose(left: DirectSum, right: DirectSum) -> Any:
    if left.first.shape[1] != right.first.shape[0]:
        return NotImplemented
    return DirectSum(compose(left.first, right.first), compose(left.second, right.second))


@scale.rule(DirectSum, object)
def _scale(operator: DirectSum, factor: Any) -> DirectSum:
    return DirectSum(scale(operator.first, factor), scale(operator.second, factor))


@dataclass(frozen=True, eq=False, repr=False)
class ToeplitzPlusHankel(LinearOperator):
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

    def _matvec(self, x: Any, xp: Any) -> Any:
        T, H = self._parts(xp)
        return T._matvec(x, xp) + H._matvec(x, xp)

    def _plan(self, xp: Any) -> Any:
        return plan_of_parts(sm.Sum(self._parts(xp)))

    def _transpose(self) -> ToeplitzPlusHankel:
        return ToeplitzPlusHankel(self._own_namespace().flip(self.t, axis=-1), self.h, self.shape[1])

    def _to_dense(self, like: Any) -> Any:
        T, H = self._parts(like.xp)
        return T._to_dense(like) + H._to_dense(like)

    def _block(self, rows: range, cols: range, xp: Any) -> ToeplitzPlusHankel:
        last = self.shape[1] - 1
        t = self.t[..., last + rows.start - cols.stop + 1 : last + rows.stop - cols.start]
        return ToeplitzPlusHankel(t, self.h[..., rows.start + cols.start : rows.stop + cols.stop - 1], len(rows))

    def _near(self, like: Any, xp: Any) -> Near:
        def circulant() -> NearCirculant | None:
            T, _ = self._parts(xp)
            near = T._near(like, xp).circulant()
            return None if near is None else near._replace(c=near.c + _means_of_anti_diagonals(self.h, self.rows, xp))

        return Near(self, circulant=circulant)

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

OUTSIDERS = (DirectSum, ToeplitzPlusHankel)
"""The classes that JAX is told of by `structmat.jax.register_operator`."""
