"""Which family of matrices holds which, and the sums, products and multiples that follow from it.

The arrays of a family depend linearly on the matrix, so that a sum of members has the sums of their arrays. Operands of
different types are brought to the narrowest family that holds both. A new family of this package is one entry of
`HOLDS`, and one of `PRODUCTS` if products of members are members; one of your own is a call of `register_family`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

from structmat._arrays.arithmetic import Reciprocal, scale_array
from structmat._arrays.dtypes import is_complex_scalar
from structmat._arrays.shapes import concat_last, windows
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat._errors import ArgumentTypeError
from structmat.operators._base.arithmetic import add, compose, scale
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._blocks.block_toeplitz import BlockToeplitz
from structmat.operators._composed.kronecker import Kronecker
from structmat.operators._composed.scaled import identity_factor
from structmat.operators._families.circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._families.dense import Dense
from structmat.operators._families.diagonal import Diagonal, Identity
from structmat.operators._families.grid_convolution import GridConvolution
from structmat.operators._families.multilevel import MultilevelCirculant, MultilevelToeplitz
from structmat.operators._families.spectral_multiplier import SpectralMultiplier
from structmat.operators._families.toeplitz import Hankel, Toeplitz, toeplitz_entries

_WIDEST_BAND = 64
"""The largest number of diagonals of a sum of bands that is a band.

With more diagonals it is a circulant, whose product takes the same time for any number of them.
"""


def _unit(like: Any, array: Array, position: int) -> Array:
    """Return the unit vector with its one at a position, of the length of the last axis of an array."""
    xp = like._own_namespace()
    return xp.astype(xp.arange(array.shape[-1], device=like.device) == position, like.dtype)


def _times(array: Array, operator: LinearOperator, like: Any, axes: int = 1) -> Array:
    """Return an array times s, where the operator is ``s * Identity``; `axes` is the number of core axes."""
    factor: Any = identity_factor(operator)
    return scale_array(array, factor, axes, like._own_namespace())


def _identity_as_spectrum(operator: Any, like: Any) -> Any:
    xp = like._own_namespace()
    factor: Any = identity_factor(operator)
    like = like._with_full_spectrum() if is_complex_scalar(factor, xp) else like
    return like._replaced(spectrum=_times(xp.ones_like(like.spectrum), operator, like))


def _identity_as_blocks(operator: Any, like: Any) -> Any:
    (p, q), b, xp = like.grid, like.block_size, like._own_namespace()
    if p != q:
        return None
    eye = xp.eye(p, dtype=like.dtype, device=like.device)[..., None]
    first = xp.astype(xp.arange(b, device=like.device) == 0, like.dtype)
    return BlockCirculant(_times(eye * first, operator, like, 3), like.shape)


def _identity_as_dense(operator: Any, like: Any) -> Dense:
    eye = like._own_namespace().eye(like.shape[0], dtype=like.dtype, device=like.device)
    return Dense(_times(eye, operator, like, 2))


def _identity_as_grid(operator: Any, like: Any) -> Any:
    if like.row_sizes != like.col_sizes:
        return None
    return like._replaced(t=_times(_unit(like, like.t, like.t.shape[-1] // 2), operator, like))


def _circulant_as_multiplier(operator: Any, like: Any) -> Any:
    if not isinstance(like, SpectralMultiplier):  # another one of those that multipliers hold
        return None
    if like.sizes != operator._sizes or like.transforms != operator._kinds:
        return None
    spectrum = operator._grid_spectrum(operator._own_namespace())
    return SpectralMultiplier(spectrum.values, like.sizes, like.transforms, spectrum.real)


def _circulant_as_grid(operator: Any, like: Any) -> Any:
    if not (isinstance(like, MultilevelToeplitz) and like.row_sizes == like.col_sizes == operator.sizes):
        return None
    return operator._as_toeplitz(operator._own_namespace())


def _identity_by_block_rows(operator: Any, like: Any) -> Any:
    p, q = like.block_shape
    if p != q or like.shape[0] != like.shape[1]:
        return None
    xp = like._own_namespace()
    unit = BlockToeplitz.block_diagonal(xp.eye(p, dtype=like.dtype, device=like.device), like.grid[0])
    return BlockToeplitz(_times(unit.c, operator, like, 3), unit.r)


def _toeplitz_by_block_rows(operator: Any, like: Any) -> Any:
    """Return a Toeplitz matrix, or a circulant, by blocks of the size of another matrix's where they are square."""
    if (
        not isinstance(like, BlockToeplitz)
        or operator.shape != like.shape
        or like.block_shape != like.block_shape[::-1]
    ):
        return None
    xp = operator._own_namespace()
    p = like.block_shape[0]
    T = operator if isinstance(operator, Toeplitz) else operator._as_toeplitz(xp)
    lines = windows(T._constants(xp), 2 * p - 1, xp)[..., ::p, :]  # the constants of one block after the other
    return BlockToeplitz.from_offsets(toeplitz_entries(lines, p, xp), like.grid[0])


def _grid_by_block_rows(operator: Any, like: Any) -> Any:
    """Return a matrix of two levels by the blocks of its second level, where another one has blocks of that size."""
    xp = operator._own_namespace()
    T = operator if isinstance(operator, MultilevelToeplitz) else operator._as_toeplitz(xp)
    sizes = list(zip(like.grid, like.block_shape, strict=True)) if isinstance(like, BlockToeplitz) else None
    if sizes != [T.row_sizes, T.col_sizes]:
        return None
    (m, p), (n, q) = sizes
    lines = xp.reshape(T.t, (*T.batch_shape, m + n - 1, p + q - 1))
    return BlockToeplitz.from_offsets(toeplitz_entries(lines, q, xp), m)


def _kronecker_by_block_rows(operator: Any, like: Any) -> Any:
    """Return the Kronecker product of the identity, or of a Toeplitz matrix, and of a block, by its blocks."""
    outer, *inner = operator.factors
    if not isinstance(like, BlockToeplitz) or [outer.shape, *(f.shape for f in inner)] != [like.grid, like.block_shape]:
        return None
    xp = like._own_namespace()
    block = inner[0]._to_dense(Context(xp, like.dtype, like.device))
    if identity_factor(outer) is not None:
        unit = BlockToeplitz.block_diagonal(block, like.grid[0])
        return BlockToeplitz(_times(unit.c, outer, like, 3), unit.r)
    if not isinstance(outer, (Toeplitz, *HOLDS[Toeplitz])):
        return None
    T = cast("Any", outer)._as_toeplitz(xp)
    return BlockToeplitz(*(constants[..., :, None, None] * block[..., None, :, :] for constants in (T.c, T.r)))


Held: TypeAlias = Mapping[type, Callable[[Any, Any], Any]]
"""The narrower families that one family holds, and how a member of them is written in it."""

HOLDS: dict[type, Held] = {
    # Each family with the narrower ones, and how a member of these is written in it: from the operator and the one
    # that it is added to. `Identity` stands for its multiples. Narrow families come first.
    Diagonal: {Identity: lambda op, like: Diagonal(_times(like._own_namespace().ones_like(like.d), op, like))},
    BandedCirculant: {
        Identity: lambda op, like: BandedCirculant(_times(_unit(like, like.entries[..., :1], 0), op, like), like.n)
    },
    Circulant: {
        Identity: lambda op, like: Circulant(_times(_unit(like, like.c, 0), op, like)),
        BandedCirculant: lambda op, like: op.to_circulant(),  # noqa: ARG005
    },
    SpectralCirculant: {
        Identity: _identity_as_spectrum,
        BandedCirculant: lambda op, like: op.to_circulant().to_spectral(),  # noqa: ARG005
        Circulant: lambda op, like: op.to_spectral(),  # noqa: ARG005
    },
    Toeplitz: {
        Identity: lambda op, like: Toeplitz(
            _times(_unit(like, like.c, 0), op, like), like._own_namespace().zeros_like(like.r)
        ),
        BandedCirculant: lambda op, like: op._as_toeplitz(op._own_namespace()),  # noqa: ARG005
        Circulant: lambda op, like: op._as_toeplitz(op._own_namespace()),  # noqa: ARG005
        SpectralCirculant: lambda op, like: op._as_toeplitz(op._own_namespace()),  # noqa: ARG005
    },
    Hankel: {},
    MultilevelCirculant: {
        Identity: lambda op, like: MultilevelCirculant(_times(_unit(like, like.c, 0), op, like), like.sizes)
    },
    MultilevelToeplitz: {Identity: _identity_as_grid, MultilevelCirculant: _circulant_as_grid},
    BlockCirculant: {Identity: _identity_as_blocks},
    BlockToeplitz: {
        Identity: _identity_by_block_rows,
        BandedCirculant: _toeplitz_by_block_rows,
        Circulant: _toeplitz_by_block_rows,
        SpectralCirculant: _toeplitz_by_block_rows,
        Toeplitz: _toeplitz_by_block_rows,
        MultilevelCirculant: _grid_by_block_rows,
        MultilevelToeplitz: _grid_by_block_rows,
        Kronecker: _kronecker_by_block_rows,
    },
    Dense: {Identity: _identity_as_dense, Diagonal: lambda op, like: Dense(op.to_dense())},  # noqa: ARG005
    GridConvolution: {
        Identity: lambda op, like: like._replaced(
            kernel=_times(_unit(like, like.kernel, like.kernel.shape[-1] // 2), op, like)
        )
    },
    SpectralMultiplier: {
        Identity: _identity_as_spectrum,
        **dict.fromkeys((BandedCirculant, Circulant, SpectralCirculant, MultilevelCirculant), _circulant_as_multiplier),
    },
}


def _product_of_spectra(left: Any, right: Any) -> Any:
    xp = left._own_namespace()
    return left._replaced(spectrum=left._grid_spectrum(xp).values * right._grid_spectrum(xp).values)


PRODUCTS: dict[type, Callable[[Any, Any], Any]] = {
    Diagonal: lambda left, right: Diagonal(left.d * right.d),
    Circulant: lambda left, right: Circulant(left.matvec(right.c)),
    SpectralCirculant: _product_of_spectra,
    MultilevelCirculant: lambda left, right: MultilevelCirculant(left.matvec(right.c), left.sizes),
    SpectralMultiplier: _product_of_spectra,
}


def _same_band(left: BandedCirculant, right: BandedCirculant) -> tuple[Any, Any] | None:
    """Return both bands over all diagonals of either band, or None where these are too many."""
    start = min(left.start, right.start)
    stop = max(op.start + op.entries.shape[-1] for op in (left, right))
    if stop - start > _WIDEST_BAND:
        return None

    def over_all(op: BandedCirculant) -> BandedCirculant:
        zero = op._own_namespace().zeros_like(op.entries[..., :1])
        before = op.start - start
        after = stop - op.start - op.entries.shape[-1]
        entries = concat_last([*[zero] * before, op.entries, *[zero] * after], op._own_namespace())
        return BandedCirculant(entries, op.n, start)

    return over_all(left), over_all(right)


def _same_spectra(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both matrices by half spectra if both are real, else by full spectra."""
    if left.real == right.real:
        return left, right
    return left._with_full_spectrum(), right._with_full_spectrum()


_ALIGNED: dict[type, Callable[[Any, Any], tuple[Any, Any] | None]] = {
    BandedCirculant: _same_band,
    SpectralCirculant: _same_spectra,
    SpectralMultiplier: _same_spectra,
}


def _kind(operator: Any) -> type:
    """Return the type that stands for an operator in `HOLDS`: `Identity` for the multiples of that, else its own."""
    return type(operator) if identity_factor(operator) is None else Identity


def _as_member(operator: Any, like: Any, family: type, held: Held) -> Any:
    """Return an operator as a member of a family that holds it, beside another operator."""
    return operator if type(operator) is family else held[_kind(operator)](operator, like)


def _in_common(
    left: Any, right: Any, families: Iterable[type], holds: Mapping[type, Held] = HOLDS
) -> tuple[Any, Any] | None:
    """Return both operators as members of the narrowest of the families that holds them, or None."""
    kinds = {_kind(left), _kind(right)}
    for family in families:
        held = holds[family]
        if not kinds <= {family, *held}:  # known before anything is computed, such as a dense matrix
            continue
        a = _as_member(left, right, family, held)
        b = None if a is None else _as_member(right, a, family, held)
        if b is None:
            continue
        pair = _ALIGNED[family](a, b) if family in _ALIGNED else (a, b)
        if pair is not None and _structure(pair[0]) == _structure(pair[1]):
            return pair
    return None


def _structure(operator: Any) -> list[Any]:
    """Return the static fields of an operator, and the shapes of its arrays without the batch axes."""
    axes = operator._core_axes
    values = ((name, getattr(operator, name)) for name in operator._field_names())
    return [value.shape[value.ndim - axes[name] :] if name in axes else value for name, value in values]


def _sum(left: Any, right: Any, holds: Mapping[type, Held] = HOLDS) -> Any:
    if identity_factor(left) is not None:
        left, right = right, left  # a multiple of the identity is written as the other one is
    if (pair := _in_common(left, right, holds, holds)) is None:
        return NotImplemented
    a, b = pair
    fields = {n: getattr(a, n) + getattr(b, n) if n in a._core_axes else getattr(a, n) for n in a._field_names()}
    return type(a)(**fields)


def _product(left: Any, right: Any) -> Any:
    if identity_factor(right) is not None or (pair := _in_common(left, right, PRODUCTS)) is None:
        return NotImplemented  # the other rules know what to do
    return PRODUCTS[type(pair[0])](*pair)


def _multiple(operator: Any, factor: Any) -> Any:
    xp: Namespace = operator._own_namespace()
    return operator._map(lambda array, axes: scale_array(array, factor, axes, xp))


def _spectral_multiple(operator: Any, factor: Scalar | Reciprocal) -> Any:
    xp = operator._own_namespace()
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    operator = operator._with_full_spectrum() if is_complex_scalar(number, xp) else operator
    return operator._replaced(spectrum=scale_array(operator.spectrum, factor, 1, xp))


for _family in HOLDS:
    add.rule(_family, object)(_sum)
    scale.rule(_family, object)(_spectral_multiple if _family in {SpectralCirculant, SpectralMultiplier} else _multiple)
for _family in (*PRODUCTS, BandedCirculant):
    compose.rule(_family, object)(_product)


def register_family(family: type[LinearOperator], holds: Held | None = None) -> None:
    """Let sums of members of a family, and multiples of them, be members again; for operators of your own.

    Parameters
    ----------
    family : type
        A class of operators whose arrays depend linearly on the matrix. Members that differ in fields without arrays,
        or in the shapes of one matrix, are not of one family, and their sum is kept as its terms.
    holds : mapping of type to callable, optional
        Types of operators that are members as well, each with a function of such an operator, and of the member that it
        is added to, which returns it as a member, or None where it is none. `structmat.Identity` stands for its
        multiples, of which `identity_factor` returns the number.

    Raises
    ------
    TypeError
        If `family`, or a key of `holds`, is no class of operators.

    See Also
    --------
    PairRules : For any other rule.

    Notes
    -----
    What two operators of other types add up to does not change, even where the family holds both. A product of members
    that is a member is a rule of `compose`.

    Examples
    --------
    Matrices with equal rows take in nothing but each other:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from structmat.extend import LinearOperator, register_family
    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class EqualRows(LinearOperator):
    ...     row: np.ndarray
    ...     rows: int
    ...     _core_axes = {"row": 1}
    ...     shape = property(lambda self: (self.rows, self.row.shape[-1]))
    ...     def _matvec(self, x, xp):
    ...         return xp.sum(self.row * x, axis=-1, keepdims=True) * xp.ones(self.rows, dtype=self.dtype)
    ...     def _transpose(self):
    ...         raise NotImplementedError
    >>> register_family(EqualRows)
    >>> A = EqualRows(np.array([1.0, 2.0]), 3)
    >>> 2 * A + A
    EqualRows(shape=(3, 2), dtype=float64, device=cpu)
    >>> (2 * A + A).row
    array([3., 6.])
    """
    _require_operators("family", [family])
    _require_operators("holds", holds or {})
    add.rule(family, object)(partial(_sum, holds={family: holds or {}}))
    scale.rule(family, object)(_multiple)


def _require_operators(argument: str, kinds: Iterable[Any]) -> None:
    """Check the classes of an argument of `register_family`."""
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, LinearOperator)):
            text = f"must be a class of structmat operators, or hold such classes, got {kind!r}"
            raise ArgumentTypeError("register_family", argument, text)
