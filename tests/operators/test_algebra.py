"""Products and sums of operators: closed in their families where mathematics allows, lazy elsewhere, always right."""

from __future__ import annotations

import operator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

import structmat as sm
from structmat.testing._drawing import Vectors
from structmat.testing._references import circulant_matrix
from tests.backends import Backend, on
from tests.cases import in_one_test
from tests.operator_registry import PLAIN, REGISTRY, Entry
from tests.operators.outsiders import ToeplitzPlusHankel

n = 6
rng = np.random.default_rng(0)
C, D = sm.Circulant(rng.standard_normal(n)), sm.Diagonal(rng.standard_normal(n))
S = sm.Circulant(rng.standard_normal(n)).to_spectral()
banded = sm.BandedCirculant(rng.standard_normal(3), n)
B = sm.BlockCirculant(rng.standard_normal((2, 2, 3)))
R = sm.BlockCirculant(rng.standard_normal((2, 3, 3)), (5, 9))
DCD = sm.CDDProduct.from_vectors(*rng.standard_normal((3, n)))
T, H = sm.Toeplitz(rng.standard_normal(n), rng.standard_normal(n)), sm.Hankel(*rng.standard_normal((2, n)))
L = sm.MultilevelToeplitz(rng.standard_normal(15), (2, 3))
M = sm.MultilevelToeplitz(rng.standard_normal(16), (2, 3), (3, 2))
K = sm.MultilevelCirculant(rng.standard_normal(n), (2, 3))
W = sm.Toeplitz(rng.standard_normal(4), rng.standard_normal(n))
Q = sm.BlockToeplitz(*rng.standard_normal((2, 2, 3, 3)))
V = sm.BlockToeplitz(*rng.standard_normal((2, 3, 2, 1)))
CDC = sm.CDDProduct.from_vectors(*rng.standard_normal((3, n)), first="circulant")


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (C @ C, sm.Circulant),
        (C @ S, sm.SpectralCirculant),
        (S @ S, sm.SpectralCirculant),
        (D @ D, sm.Diagonal),
        (B @ B, sm.BlockCirculant),
        (B.T @ B, sm.BlockCirculant),
        (R @ R.T, sm.BlockCirculant),  # inner size 9 is whole blocks
        (R.T @ R, sm.Product),  # inner size 5 is cropped
        (C + C, sm.Circulant),
        (S @ banded, sm.SpectralCirculant),
        (C @ banded, sm.Circulant),
        (S + C, sm.SpectralCirculant),
        (D + D, sm.Diagonal),
        (B + B, sm.BlockCirculant),
        (R + R, sm.BlockCirculant),
        (C + sm.Identity(n), sm.Circulant),
        (0.5 * sm.Identity(n) + D, sm.Diagonal),
        (B + 2 * sm.Identity(n), sm.BlockCirculant),
        (C + D, sm.Sum),
        (D @ S @ D, sm.CDDProduct),
        (D @ B @ D, sm.CDDProduct),
        (C @ DCD, sm.CDDProduct),
        (2 * DCD, sm.CDDProduct),
        (DCD.T, sm.CDDProduct),
        (DCD.inv(), sm.CDDProduct),
        (C @ B, sm.Product),
        (DCD + C, sm.Sum),
        (3 * sm.Identity(n), sm.Scaled),
        (2 * (C @ B), sm.Product),
        (2 * (C + D), sm.Sum),
        (sm.Fourier(n) @ C, sm.Product),
        (T + T, sm.Toeplitz),
        (T + C, sm.Toeplitz),
        (2 * sm.Identity(n) - T, sm.Toeplitz),
        (W.T, sm.Toeplitz),
        (L + L, sm.MultilevelToeplitz),
        (M + M, sm.MultilevelToeplitz),
        (L + M, sm.Sum),
        (L + K, sm.MultilevelToeplitz),
        (K @ K, sm.MultilevelCirculant),
        (K - L, sm.MultilevelToeplitz),
        (M + K, sm.Sum),
        (L + 2 * sm.Identity(n), sm.MultilevelToeplitz),
        (M + sm.Identity(n), sm.Sum),
        (L @ L, sm.Product),
        (H + H, sm.Hankel),
        (H.T, sm.Hankel),
        (H + T, sm.Sum),
        (H + sm.Identity(n), sm.Sum),
        (T @ T, sm.Product),
        (T @ D, sm.Product),
        (W @ H, sm.Product),
        (Q + Q.T, sm.BlockToeplitz),
        (V + V, sm.BlockToeplitz),
        (Q + T, sm.BlockToeplitz),
        (C - Q, sm.BlockToeplitz),
        (Q + S, sm.BlockToeplitz),
        (banded + Q, sm.BlockToeplitz),
        (Q + L, sm.BlockToeplitz),
        (K - Q, sm.BlockToeplitz),
        (Q + 2 * sm.Identity(n), sm.BlockToeplitz),
        (Q + D, sm.Sum),
        (Q + B, sm.Sum),  # the same components in another order
        (sm.BlockToeplitz.from_block_circulant(B) + sm.BlockToeplitz(rng.standard_normal((3, 2, 2))), sm.BlockToeplitz),
        (Q @ Q, sm.Product),
        (Q + sm.Kronecker(sm.Identity(2), rng.standard_normal((3, 3))), sm.BlockToeplitz),
        (sm.Kronecker(sm.Toeplitz(rng.standard_normal(2)), rng.standard_normal((3, 3))) - Q, sm.BlockToeplitz),
        (sm.Kronecker(sm.Identity(2), rng.standard_normal((1, 3))) @ Q, sm.BlockToeplitz),
        (V @ sm.Kronecker(sm.Identity(3), rng.standard_normal((1, 2))), sm.BlockToeplitz),
    ],
)
def test_closure(result: sm.LinearOperator, kind: type) -> None:
    assert type(result) is kind


def test_nothing_is_written_out_for_a_family_that_holds_one_of_both_alone() -> None:
    n = 1 << 20  # a dense matrix would have 8 TiB
    total = sm.Toeplitz(np.ones(n)) + sm.Diagonal(np.ones(n))
    assert isinstance(total, sm.Sum)


def test_neighbouring_factors_merge() -> None:
    assert (DCD @ DCD).n_factors == 5
    assert (DCD @ CDC).n_factors == 6
    assert (CDC @ CDC).n_factors == 5
    assert (D @ DCD).n_factors == 3
    assert (C @ B @ B).factors[1].shape == B.shape
    assert len((C @ B @ B @ C @ C).factors) == 3
    assert len((C + D + C + D).terms) == 2
    assert len((C + D + T + C).terms) == 2


class Composition(RuleBasedStateMachine):
    """Composes random operators of one size and holds every result against its dense matrix."""

    pool = Bundle("pool")

    def checked(self, op: Any, dense: np.ndarray) -> tuple[Any, np.ndarray]:
        assert op.shape == dense.shape
        assume(np.all(np.isfinite(dense)) and np.max(np.abs(dense)) < 1e8)
        x = np.random.default_rng(1).standard_normal(dense.shape[1])
        scale = 1 + np.max(np.abs(dense))
        actual = np.asarray(op.to_dense())
        assert np.max(np.abs(actual - dense)) <= 1e-9 * scale
        assert np.max(np.abs(np.asarray(op.matvec(x)) - dense @ x)) <= 1e-9 * scale * n
        assert np.max(np.abs(np.asarray(op.rmatvec(x)) - dense.conj().T @ x)) <= 1e-9 * scale * n
        return op, dense

    @initialize(target=pool)
    def start(self) -> Any:
        return self.checked(C, C.to_dense())

    @rule(
        target=pool,
        seed=st.integers(0, 2**16),
        kind=st.sampled_from(["c", "d", "s", "b", "p", "i", "f", "t", "q", "h", "kronecker", "toeplitz plus hankel"]),
        dtype=st.sampled_from(["float64", "complex128"]),
    )
    def new(self, seed: int, kind: str, dtype: str) -> Any:
        v = Vectors(seed, dtype)
        op: Any = {
            "c": lambda: sm.Circulant(v(n)),
            "d": lambda: sm.Diagonal(v(n)),
            "s": lambda: sm.Circulant(v(n)).to_spectral(),
            "b": lambda: sm.BlockCirculant(v(2, 2, 3)),
            "p": lambda: sm.CDDProduct.from_vectors(v(n), v(n), v(n)),
            "i": lambda: sm.Identity(n),
            "f": lambda: sm.Fourier(3, 2),
            "t": lambda: sm.Toeplitz(v(n), v(n)),
            "q": lambda: sm.BlockToeplitz(v(2, 3, 3), v(2, 3, 3)),
            "h": lambda: sm.Hankel(v(n), v(n)),
            "kronecker": lambda: sm.Kronecker(sm.Circulant(v(2)), sm.Toeplitz(v(3), v(3))),
            "toeplitz plus hankel": lambda: ToeplitzPlusHankel(v(2 * n - 1), v(2 * n - 1), n),
        }[kind]()
        return op, np.asarray(op.to_dense())

    @rule(target=pool, left=pool, right=pool)
    def multiply(self, left: Any, right: Any) -> Any:
        return self.checked(left[0] @ right[0], left[1] @ right[1])

    @rule(target=pool, left=pool, right=pool)
    def add(self, left: Any, right: Any) -> Any:
        return self.checked(left[0] + right[0], left[1] + right[1])

    @rule(target=pool, left=pool, right=pool)
    def subtract(self, left: Any, right: Any) -> Any:
        return self.checked(left[0] - right[0], left[1] - right[1])

    @rule(target=pool, pair=pool, factor=st.sampled_from([2, -0.5, 1j, 0.5 + 0.5j]))
    def scale(self, pair: Any, factor: complex) -> Any:
        return self.checked(factor * pair[0], factor * pair[1])

    @rule(target=pool, pair=consumes(pool), how=st.sampled_from(["T", "H", "conj"]))
    def turn(self, pair: Any, how: str) -> Any:
        op, dense = pair
        if how == "conj":
            return self.checked(op.conj(), dense.conj())
        return self.checked(getattr(op, how), dense.T if how == "T" else dense.conj().T)

    @rule(target=pool, pair=pool)
    def invert(self, pair: Any) -> Any:
        op, dense = pair
        assume(np.linalg.cond(dense) < 1e4 and np.max(np.abs(dense)) > 1e-4)  # no difference that is rounding alone
        try:
            inverse = op.inv()
        except NotImplementedError as error:
            assert "use" in str(error)  # noqa: PT017 - either answer is right, as long as it is clear
            return pair
        except np.linalg.LinAlgError:
            assert any(np.linalg.cond(np.asarray(f.to_dense())) > 1e10 for f in op.factors)
            return pair
        assume(all(np.linalg.cond(np.asarray(f.to_dense())) < 1e4 for f in getattr(op, "factors", ())))
        return self.checked(inverse, np.linalg.inv(dense))


class TestComposition(Composition.TestCase):
    settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


class TestManyCompositions(Composition.TestCase):
    settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


@settings(max_examples=60)
@given(st.data())
def test_products_and_sums_of_any_two_entries(data: Any) -> None:
    """Every pair of kinds, with batch axes; the middle size is forced by cropping to a common one."""
    left, right = (data.draw(st.sampled_from(REGISTRY)) for _ in range(2))
    a, b = data.draw(left.samples(dtype="float64")), data.draw(right.samples(dtype="complex128"))
    A, M = a.make(np.array), b.make(np.array)
    try:
        np.broadcast_shapes(A.batch_shape, M.batch_shape)
    except ValueError:
        with pytest.raises(ValueError, match=r"inner sizes differ|do not broadcast"):
            A @ M
        return
    if A.shape[1] == M.shape[0]:
        expected = a.dense @ b.dense
        np.testing.assert_allclose(
            np.asarray((A @ M).to_dense()), expected, atol=1e-11 * (1 + np.max(np.abs(expected)))
        )
    else:
        with pytest.raises(ValueError, match="inner sizes differ"):
            A @ M
    if A.shape == M.shape:
        expected = a.dense + b.dense
        np.testing.assert_allclose(
            np.asarray((A + M).to_dense()), expected, atol=1e-11 * (1 + np.max(np.abs(expected)))
        )
    else:
        with pytest.raises(ValueError, match="shapes differ"):
            A + M


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_real_and_complex_spectra_mix(backend: Backend, size: int) -> None:
    v, w = Vectors(size, "float64", (2,)), Vectors(size, "complex128")
    a, b = v(size), w(size)
    A, B = (circulant_matrix(c) for c in (a, b))
    real, full = (sm.Circulant(backend.asarray(c)) for c in (a, b))
    for left, right in (
        (real.to_spectral(), full.to_spectral()),
        (real.to_spectral(), full),
        (real, full.to_spectral()),
    ):
        for found, expected in (
            (left @ right, A @ B),
            (right @ left, B @ A),
            (left + right, A + B),
            (right - left, B - A),
            (left.conj() @ right.H, A @ B.conj().T),
            (left.T @ right.conj() + left, np.swapaxes(A, -1, -2) @ B.conj() + A),
        ):
            assert type(found) is sm.SpectralCirculant
            assert not found.real
            np.testing.assert_allclose(backend.to_numpy(found.to_dense()), expected, atol=1e-12)
    for found, expected in (
        (real.to_spectral() * 2j, 2j * A),
        (real.to_spectral() + 2j * sm.Identity(size), A + 2j * np.eye(size)),
        (real.to_spectral().astype("complex128") @ real.to_spectral(), A @ A),
    ):
        np.testing.assert_allclose(backend.to_numpy(found.to_dense()), expected, atol=1e-12)


def test_batches_broadcast_through_products() -> None:
    stack = sm.Circulant(rng.standard_normal((4, n)))
    product = stack @ D @ stack
    assert product.batch_shape == (4,)
    assert (product @ rng.standard_normal((n, 3))).shape == (4, n, 3)
    with pytest.raises(ValueError, match="do not broadcast"):
        stack @ sm.Circulant(rng.standard_normal((3, n)))


def test_one_scalar_for_each_member_of_a_stack_that_one_vector_spans() -> None:
    factors = np.array([2.0, -1.0])
    for op in (sm.Toeplitz(W.c, rng.standard_normal((2, n))), sm.Hankel(rng.standard_normal((2, 4)), W.r)):
        scaled = op * factors
        assert type(scaled) is type(op)
        np.testing.assert_allclose(scaled.T.to_dense(), factors[:, None, None] * op.T.to_dense())


def test_a_closed_form_method_goes_through_products_and_regularised_sums() -> None:
    A = (C.T @ C + 0.1 * sm.Identity(n)) @ D
    b = rng.standard_normal((3, n))
    np.testing.assert_allclose(A.matvec(A.inv_matvec(b)), b, atol=1e-11)


@in_one_test("op", [C, D, S, banded, B, R, DCD, T, H, L, K, C + D, T @ H, T.inv(), sm.Identity(n)])
def test_signs_and_fractions_do_what_they_do_to_arrays(op: sm.LinearOperator) -> None:
    dense, third = op.to_dense(), Fraction(1, 3)
    assert +op is op
    for result, wanted in ((third * op, dense / 3), (op * third, dense / 3), (op / third, 3 * dense), (-op, -dense)):
        np.testing.assert_allclose(result.to_dense(), wanted, atol=1e-14)
        assert result.dtype == op.dtype


def test_negative_powers_without_eigenvalues_are_those_of_the_inverse() -> None:
    T = sm.Toeplitz(np.array([3.0, 1.0, 0.5]), np.array([3.0, 0.2, 0.1]))
    for k in (-1, -2, -3):
        np.testing.assert_allclose((T**k).to_dense(), np.linalg.matrix_power(T.to_dense(), k), rtol=1e-12)


@on("numpy", "array_api_strict", "torch", "jax")
def test_the_power_zero_keeps_library_batch_and_dtype(backend: Backend) -> None:
    ones = lambda *shape: backend.asarray(np.ones(shape, np.float32))
    for op in (
        sm.Toeplitz(ones(2, 3)),
        sm.Hankel(ones(3)),
        sm.BlockCirculant(ones(0, 2, 2, 3)),
        sm.CDDProduct.from_vectors(ones(3), ones(2, 3), ones(3)),
        sm.Circulant(ones(2, 3)),
        sm.Circulant(ones(2, 3)) + sm.Diagonal(ones(3)),
    ):
        one, zero = op.to_dense(), (op**0).to_dense()
        assert type(zero) is type(one)
        assert (zero.shape, zero.dtype) == (one.shape, one.dtype)
        np.testing.assert_array_equal(backend.to_numpy(zero), np.broadcast_to(np.eye(op.shape[0]), one.shape))


@in_one_test("widths", [(1, 3), (3, 1), (2, 4), (2, 2)])
@in_one_test("starts", [(0, 0), (-1, -1), (0, 2)])
def test_sums_of_bands_of_any_width(widths: tuple[int, int], starts: tuple[int, int]) -> None:
    """Bands that begin at the same diagonal may still end at different ones, and entries of one would be broadcast."""
    A, B = (sm.BandedCirculant(np.arange(1.0, m + 1), 5, start) for m, start in zip(widths, starts, strict=True))
    np.testing.assert_array_equal((A + B).to_dense(), A.to_dense() + B.to_dense())


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(-15, 15),
    st.booleans(),
    st.sampled_from([1, 300, 5000]),
)
def test_products_of_bands_are_shifts(n: int, m: int, start: int, is_complex: bool, blocks: int) -> None:
    """Short vectors are convolved and long ones shifted: sizes on both sides of each limit, more entries than rows."""
    v = np.random.default_rng([n, m, start + 15, blocks])
    n *= blocks
    entries, x = v.integers(-5, 6, m).astype(float), v.integers(-5, 6, n).astype(float)
    if is_complex:
        entries = entries + 1j * v.integers(-5, 6, m)
    expected = sum(entry * np.roll(x, start + k) for k, entry in enumerate(entries))
    B = sm.BandedCirculant(entries, n, start)
    np.testing.assert_array_equal(B @ x, expected)
    np.testing.assert_array_equal(B.prepare() @ x, expected)


def operators_of_all_kinds() -> dict[str, sm.LinearOperator]:
    """One or more of each family, real and complex, of one shape."""
    v = np.random.default_rng(5)
    kinds: dict[str, sm.LinearOperator] = {
        "circulant": sm.Circulant(v.standard_normal(6)),
        "complex circulant": sm.Circulant(v.standard_normal(6) + 1j),
        "spectral": sm.Circulant(v.standard_normal(6)).to_spectral(),
        "complex spectral": sm.Circulant(v.standard_normal(6) + 1j).to_spectral(),
        "band": sm.BandedCirculant(v.standard_normal(2), 6),
        "other band": sm.BandedCirculant(v.standard_normal(1), 6, 3),
        "far band": sm.BandedCirculant(v.standard_normal(2), 6, 10**6),
        "diagonal": sm.Diagonal(v.standard_normal(6)),
        "toeplitz": sm.Toeplitz(v.standard_normal(6), v.standard_normal(6)),
        "hankel": sm.Hankel(v.standard_normal(6), v.standard_normal(6)),
        "multilevel circulant": sm.MultilevelCirculant(v.standard_normal(6), (2, 3)),
        "other grid": sm.MultilevelCirculant(v.standard_normal(6), (3, 2)),
        "multilevel toeplitz": sm.MultilevelToeplitz(v.standard_normal(15), (2, 3)),
        "blocks": sm.BlockCirculant(v.standard_normal((2, 2, 3))),
        "other blocks": sm.BlockCirculant(v.standard_normal((3, 3, 2))),
        "identity": sm.Identity(6),
        "multiple": 2.5 * sm.Identity(6),
        "complex multiple": 2j * sm.Identity(6),
        "product": sm.Circulant(v.standard_normal(6)) @ sm.Diagonal(v.standard_normal(6)),
        "transform": sm.Fourier(6),
        "kronecker": sm.Kronecker(sm.Circulant(v.standard_normal(2)), sm.Toeplitz(v.standard_normal(3))),
        "toeplitz plus hankel": ToeplitzPlusHankel(v.standard_normal(11), v.standard_normal(11), 6),
    }
    return kinds


@pytest.mark.parametrize("first", list(operators_of_all_kinds()))
@pytest.mark.parametrize("combine", [operator.add, operator.matmul])
def test_the_type_of_combinations_does_not_depend_on_brackets(combine: Any, first: str) -> None:
    kinds = operators_of_all_kinds()
    matrices = {name: op.to_dense() for name, op in kinds.items()}
    A = kinds[first]
    for second, B in kinds.items():
        pair, dense_pair = combine(A, B), combine(matrices[first], matrices[second])
        for third, C in kinds.items():
            left, right = combine(pair, C), combine(A, combine(B, C))
            assert type(left) is type(right), (first, B, C)
            dense = combine(dense_pair, matrices[third])
            np.testing.assert_allclose(left.to_dense(), dense, atol=1e-11)
            np.testing.assert_allclose(right.to_dense(), dense, atol=1e-11)
            if isinstance(left, sm.Sum):
                assert sorted(type(t).__name__ for t in left.terms) == sorted(type(t).__name__ for t in right.terms)


def assert_brackets_do_not_matter(combine: Any, *operators: sm.LinearOperator) -> None:
    """The combination of three is of one type in either order, prepared or not, and of the same parts."""
    A, B, C = operators
    left, right = combine(combine(A, B), C), combine(A, combine(B, C))
    assert type(left) is type(right), (combine, operators)
    if any(isinstance(op, sm.Prepared) for op in operators):
        assert isinstance(left, sm.Prepared), (combine, operators)
        left_source, right_source = left.operator, right.operator
        assert type(left_source) is type(right_source)
        if isinstance(left_source, sm.Sum):
            terms = (sorted(type(t).__name__ for t in source.terms) for source in (left_source, right_source))
            assert next(terms) == next(terms)
    dense = combine(combine(A.to_dense(), B.to_dense()), C.to_dense())
    for found in (left, right):
        np.testing.assert_allclose(found.to_dense(), dense, atol=1e-10 * (1 + np.max(np.abs(dense))))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("combine", [operator.add, operator.matmul])
def test_combinations_with_a_prepared_operand_are_prepared_whatever_the_brackets(combine: Any, place: int) -> None:
    kinds = operators_of_all_kinds()
    few = [kinds[name] for name in ("circulant", "diagonal", "toeplitz", "blocks", "complex multiple", "transform")]
    few += [kinds["blocks"] @ kinds["circulant"], kinds["circulant"] + kinds["diagonal"]]
    for triple in product(few, repeat=3):
        operands = list(triple)
        operands[place] = operands[place].prepare()
        if isinstance(operands[place], sm.Prepared):
            assert_brackets_do_not_matter(combine, *operands)


@settings(max_examples=200)
@given(
    entry=st.sampled_from(PLAIN),
    seed=st.integers(0, 2**32 - 1),
    others=st.tuples(*[st.sampled_from([sm.Circulant, sm.Diagonal, sm.Toeplitz, "transform", "sum"])] * 2),
    order=st.permutations(range(3)),
    prepared=st.sets(st.integers(0, 2), min_size=1),
    combine=st.sampled_from([operator.add, operator.matmul]),
)
def test_no_kind_depends_on_brackets_beside_a_prepared_one(
    entry: Entry, seed: int, others: Any, order: Any, prepared: set[int], combine: Any
) -> None:
    op = entry.draw(Vectors(seed, "float64")).make(np.asarray)
    n, v = op.shape[0], Vectors(seed, "float64")
    assume(op.shape == (n, n))

    def other(kind: Any) -> sm.LinearOperator:
        if kind == "transform":
            return sm.Fourier(n)
        return sm.Circulant(v(n)) + sm.Diagonal(v(n)) if kind == "sum" else kind(v(n))

    operands = [op, *map(other, others)]
    operands = [operands[k] for k in order]
    operands = [A.prepare() if k in prepared else A for k, A in enumerate(operands)]
    assume(any(isinstance(A, sm.Prepared) for A in operands))
    assert_brackets_do_not_matter(combine, *operands)
