"""The registry of operators: which linear algebra each kind that `structmat.testing` draws has in closed form.

To add an operator, add one entry, beside how it is drawn in `structmat/testing/_kinds.py`: every law of
`tests/operators/test_laws.py` then holds it to its reference on every backend, and the capability table of the docs
gains a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import structmat as sm
from structmat.extend import closed_forms
from structmat.testing._drawing import Sample, Vectors
from structmat.testing._kinds import KINDS, Kind
from structmat.testing._references import diagonal_matrix, wide
from structmat.testing.strategies import samples
from tests.backends import COMPILE, ENGINES, SLOW, TESTED, by_engine
from tests.cases import in_one_test
from tests.operators.outsiders import DirectSum, ToeplitzPlusHankel

FIXED = (("float32", (), 1), ("complex128", (2,), 2))
"""Dtype, batch and seed of the shapes, for a library that compiles each operation anew for each of them."""

CLOSED_FORMS = frozenset(closed_forms())


def by(*hooks: str) -> frozenset[str]:
    """Return the methods for which one of these hooks suffices."""
    return frozenset(name for name, form in closed_forms().items() if form.hooks[0] in hooks)


THROUGH_FACTORS = by("_inv", "_determinant_factors")
ENTRYWISE = by("_diagonal")
OF_ENTRIES: frozenset[Any] = frozenset({"fro", 1, np.inf})
"""Norms that need no singular values."""
FUNCTIONS = by("_spectral_function")
SPECTRAL = CLOSED_FORMS - FUNCTIONS
UNITARY = by("_inv", "_pinv", "_svdvals", "_norm")
NEED_SQUARE = THROUGH_FACTORS | FUNCTIONS | by("_eig")


def arguments_of(method: str, right: Any) -> tuple[Any, ...]:
    """Return what a method with a closed form is called with, a right-hand side if it takes one."""
    given = dict.fromkeys(("solve", "inv_matvec", "lstsq"), (right,)) | {
        "fractional_matrix_power": (0.5,),
        "funm": (lambda values: values * values,),
    }
    return given.get(method, ())


@dataclass(frozen=True)
class Entry:
    """How to draw an operator of one kind, and which linear algebra it claims to have in closed form."""

    name: str
    draw: Callable[..., Sample]
    closed_forms: frozenset[str]
    norms: frozenset[Any] = frozenset({"fro", "nuc", 1, 2, np.inf})
    is_variant: bool = False
    """Whether another entry shows the same class, in the table of the docs and to what compiles each shape."""
    is_own: bool = False
    """Whether it is an operator of the tests' own, which the table of the docs does not show."""
    keeps_identity: bool = True
    """Whether it takes in multiples of the identity, if it has eigenvalues and an inverse."""

    def samples(self, *, dtype: str | None = None) -> st.SearchStrategy[Sample]:
        """Operators of this kind."""
        return samples([Kind(self.draw, sm.LinearOperator)], dtype=dtype)

    def fixed_sample(self, seed: int, which: int, *, dtype: str | None = None) -> Sample:
        """An operator of one of the fixed shapes and dtypes; the seed is that of its values."""
        own, batch, shapes = FIXED[which % len(FIXED)]
        return self.draw(Vectors(seed, dtype or own, batch, integers=np.random.default_rng(shapes).integers))


def of_package(name: str, *claims: frozenset[Any], **options: bool) -> Entry:
    """Return the entry of an operator that the package draws, by its name there."""
    return Entry(name, KINDS[name].draw, *claims, **options)


def _trigonometric_transform(v: Vectors) -> Sample:
    return KINDS[v.choice(("CosineTransform", "SineTransform"))].draw(v)


def _direct_sum(v: Vectors) -> Sample:
    """Of a circulant and a diagonal matrix, which have closed forms of all kinds."""
    first, d = KINDS["Circulant"].draw(v), v(v.integer(1, 5))
    D = diagonal_matrix(d)
    m, k = first.dense.shape[-1], d.shape[-1]
    batch = np.broadcast_shapes(first.dense.shape[:-2], D.shape[:-2])
    dense = np.zeros((*batch, m + k, m + k), np.result_type(first.dense, D))
    dense[..., :m, :m], dense[..., m:, m:] = first.dense, D
    return Sample(lambda a: DirectSum(first.make(a), sm.Diagonal(a(d))), dense, v.dtype)


def _toeplitz_plus_hankel(v: Vectors, *, square: bool) -> Sample:
    m = v.size()
    n = m if square else m + v.integer(1, 4)
    if v.chance(0.5):
        m, n = n, m
    t, h = v(m + n - 1), v(m + n - 1)
    i, j = np.arange(m)[:, None], np.arange(n)
    dense = wide(t)[..., n - 1 + i - j] + wide(h)[..., i + j]
    return Sample(lambda a: ToeplitzPlusHankel(a(t), a(h), m), dense, v.dtype)


def prepared(entry: Entry) -> Entry:
    """The same operators prepared, by any engine, with their dense matrix for small products or without."""

    def draw(v: Vectors) -> Sample:
        sample = entry.draw(v)
        engine, direct = v.choice(ENGINES), v.chance(0.5)

        def make(a: Callable[[np.ndarray], Any]) -> sm.LinearOperator:
            with by_engine(engine):
                P = sample.make(a).prepare()
            return P if direct else replace(P, most_dense=0)

        return replace(sample, make=make)

    return replace(entry, name=f"Prepared {entry.name}", draw=draw, is_variant=True)


REGISTRY = [
    of_package("Circulant", CLOSED_FORMS),
    of_package("SpectralCirculant", CLOSED_FORMS),
    of_package("BandedCirculant", CLOSED_FORMS),
    of_package("MultilevelCirculant", CLOSED_FORMS),
    of_package("SpectralMultiplier", CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    of_package("GridConvolution", ENTRYWISE, frozenset()),
    of_package("Diagonal", CLOSED_FORMS),
    of_package("BlockCirculant, square", SPECTRAL),
    of_package("BlockCirculant, p x q", SPECTRAL - NEED_SQUARE),
    of_package("BlockCirculant, cropped", ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("CDDProduct, D C D", THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("CDDProduct, longer", THROUGH_FACTORS, frozenset()),
    of_package("CDDProduct, rectangular", ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("Toeplitz, square", THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("Toeplitz, m x n", ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("MultilevelToeplitz", ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package(
        "BlockToeplitz, square",
        THROUGH_FACTORS | ENTRYWISE | {"norm"},
        OF_ENTRIES,
    ),
    of_package(
        "BlockToeplitz, p x q",
        ENTRYWISE | {"norm"},
        OF_ENTRIES,
        is_variant=True,
    ),
    of_package("Hankel, square", THROUGH_FACTORS | ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("Hankel, m x n", ENTRYWISE | {"norm"}, OF_ENTRIES),
    of_package("ToeplitzInverse", ENTRYWISE),
    of_package("ToeplitzInverse, transposed", ENTRYWISE, is_variant=True),
    of_package("ToeplitzInverse, of Hankel", frozenset(), is_variant=True),
    of_package("Identity", CLOSED_FORMS),
    of_package(
        "Fourier",
        UNITARY,
        frozenset({"fro", 2, "nuc"}),
    ),
    Entry("CosineTransform, SineTransform", _trigonometric_transform, UNITARY, frozenset({"fro", 2, "nuc"})),
    of_package("Product", THROUGH_FACTORS, frozenset()),
    of_package("Sum", ENTRYWISE, frozenset()),
    of_package("Scaled", THROUGH_FACTORS, frozenset()),
    of_package("Submatrix, the same rows and columns", ENTRYWISE, frozenset()),
    of_package("Submatrix", frozenset(), frozenset()),
    of_package("Scaled identity", CLOSED_FORMS, is_variant=True),
    of_package("Dense", SPECTRAL),
    of_package("Dense, m x n", SPECTRAL - NEED_SQUARE, is_variant=True),
    of_package("Eigendecomposition", CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    of_package("Kronecker", CLOSED_FORMS, keeps_identity=False),
    of_package("Kronecker, rectangular", by("_norm"), OF_ENTRIES, is_variant=True),
    of_package("Kronecker plus identity", CLOSED_FORMS, frozenset({"fro", 2, "nuc"}), is_variant=True),
    of_package("KroneckerSum", CLOSED_FORMS, frozenset({"fro", 2, "nuc"})),
    Entry(
        "DirectSum",
        _direct_sum,
        CLOSED_FORMS - FUNCTIONS - by("_pinv"),
        is_variant=True,
        is_own=True,
        keeps_identity=False,
    ),
    Entry("ToeplitzPlusHankel", partial(_toeplitz_plus_hankel, square=True), ENTRYWISE, frozenset(), is_own=True),
    Entry(
        "ToeplitzPlusHankel, m x n",
        partial(_toeplitz_plus_hankel, square=False),
        ENTRYWISE,
        frozenset(),
        is_variant=True,
        is_own=True,
    ),
]
PREPARED = {
    "Circulant", "MultilevelCirculant", "BlockCirculant, cropped", "CDDProduct, D C D",
    "Toeplitz, square", "ToeplitzInverse", "Submatrix", "Kronecker", "ToeplitzPlusHankel",
}  # fmt: skip
PLAIN = REGISTRY.copy()
REGISTRY += [prepared(entry) for entry in REGISTRY if entry.name in PREPARED]


def each(entries: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


def on_libraries(
    entries: list[Entry], *, libraries: Collection[str] = TESTED, compiled: Collection[str] | None = None
) -> pytest.MarkDecorator:
    """Run a test with libraries on entries, without variants where that takes long.

    Where a test takes many small steps, `compiled` names the entries on which it runs with libraries that compile each
    of these for each shape: of JAX this would take minutes, and the laws of linear algebra hold it to the rest.
    """
    cases = [
        pytest.param(library, entry, id=f"{library}-{entry.name}")
        for library in TESTED
        if library in libraries
        for entry in entries
        if library not in SLOW or not entry.is_variant or entry.name == "Prepared Circulant"
        if compiled is None or library not in COMPILE or entry.name in compiled
    ]
    return pytest.mark.parametrize(("backend", "entry"), cases, indirect=["backend"])


def every_entry(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test on all entries as one item: for what takes milliseconds for each of them."""
    return pytest.mark.quick(in_one_test("entry", REGISTRY)(test))


every_entry_of_few_compiled = on_libraries(REGISTRY, compiled=["Circulant"])

every_entry_where_nothing_compiles = on_libraries(REGISTRY, compiled=())

every_class = each([entry for entry in REGISTRY if not entry.is_variant])
"""For what takes seconds for each of them, and depends on the class alone."""

every_entry_of_the_package = each([entry for entry in REGISTRY if not entry.is_own])
"""For descriptions of files, which hold operators of the package alone."""
