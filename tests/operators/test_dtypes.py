"""Precision and dtypes: half precision, parts of several precisions, scalars and weak types, devices."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend, get, on
from tests.cases import in_one_test

rng = np.random.default_rng(11)


def test_single_precision_is_not_widened() -> None:
    c = rng.standard_normal(9).astype("float32")
    C = sm.Circulant(c)
    for value in (
        C.matvec(c), C.to_spectral().matvec(c), C.inv().c, (2.5 * C).c, C.to_dense(), C.norm(), C.svdvals(),
        sm.Diagonal(c).solve(c), (C + sm.Identity(9)).c, sm.Circulant.nearest(np.outer(c, c)).c,
        sm.preconditioners.chan(sm.Toeplitz(c)).c, sm.preconditioners.strang(sm.Toeplitz(c)).c,
    ):  # fmt: skip
        assert value.dtype == "float32"
    assert sm.Circulant(c).eigvals().dtype == "complex64"


def test_lists_take_the_dtype_of_the_operator() -> None:
    for dtype in ("float32", "float64", "complex64"):
        assert (sm.Circulant(np.ones(3, dtype)) @ [1, 2.5, 3]).dtype == dtype
        assert ([[1, 2.5, 3]] @ sm.Circulant(np.ones(3, dtype))).dtype == dtype
        assert ([1, 2.5, 3] @ sm.Circulant(np.ones(3, dtype))).dtype == dtype
    assert (sm.Identity(3) @ [1, 2.5, 3]).dtype == "float64"
    for dtype in ("float64", "complex128"):
        np.testing.assert_array_equal(sm.Diagonal(np.ones(3, dtype)) @ [1j, 2.5, 3], [1j, 2.5, 3])


def test_integers_keep_their_digits_on_both_sides(backend: Backend) -> None:
    """Whatever the default dtype of the library: a matrix of float64 multiplies in float64."""
    value = 2**24 + 1
    C = sm.Circulant(backend.asarray(np.eye(3)[0]))
    x = backend.asarray(np.array([value, 0, 0]))
    X = x[None, :]
    left = [op.__rmatmul__(v) for op in (C, C.prepare()) for v in (x, X)]  # as strict arrays do not ask for it
    for product in (C @ x, (C @ X.T)[:, 0], left[0], left[1][0, :], left[2], left[3][0, :]):
        assert float(product[0]) == value
    for rows in ([[value, 0, 0]] @ C, [[value, 0, 0]] @ C.prepare()):
        assert float(rows[0, 0]) == value


def test_numpy_takes_its_own_names_of_dtypes() -> None:
    C = sm.Circulant(np.ones(3, "float32"))
    for dtype in (float, "f8", "<f8", ">f8", "double", np.float64, np.dtype("float64")):
        assert C.astype(dtype).dtype == "float64"
    assert C.astype(complex).dtype == "complex128"


def test_the_order_of_bytes_does_not_matter() -> None:
    c, x = rng.standard_normal((2, 300))
    swapped = sm.Circulant(c.astype(">f8"))
    assert swapped.dtype == "float64"
    for op in (swapped, swapped.prepare(), sm.Circulant(c).prepare()):
        for v in (x, np.stack([x, x])):
            np.testing.assert_allclose(op.matvec(v.astype(">f8")), sm.Circulant(c).matvec(v))
    assert sm.Circulant(c.astype(">c16")).dtype == sm.Circulant([1, 2j]).dtype == "complex128"
    np.testing.assert_array_equal(sm.Circulant((1j * c).astype(">c16")).c, 1j * c)


def test_nothing_leaves_the_device() -> None:
    strict = pytest.importorskip("array_api_strict")

    def a(values: Any) -> Any:
        return strict.asarray(np.array(values), device=strict.Device("device1"))  # refuses to meet the default one

    x = a(rng.standard_normal(4))
    T, H = (kind(a(rng.standard_normal(4)), a(rng.standard_normal(4))) for kind in (sm.Toeplitz, sm.Hankel))
    for op in (T, H, sm.Circulant(x), sm.Diagonal(x), T + sm.Identity(4), T + sm.Circulant(x)):
        results = [
            op.matvec(x),
            op.rmatvec(x),
            op.to_dense(),
            op.T.to_dense(),
            op.trace(),
            *map(op.norm, ("fro", 1, np.inf)),
        ]
        assert {str(result.device) for result in results} == {str(x.device)}
    for make in (sm.preconditioners.chan, sm.preconditioners.strang):
        assert make(T).device == x.device


def test_half_precision_does_not_overflow_on_the_way(backend: Backend, half: Any) -> None:
    if backend.compiles:
        pytest.skip("compiles too much")
    circulant = rng.standard_normal(12) + 9.0 * np.eye(12)[0]
    singles = [np.full((64, 64), 3e4), np.full((7, 64), 900.0), np.full(2000, 3e4), circulant]
    calls = [
        (0, sm.Circulant.nearest),
        (0, lambda A: sm.BlockCirculant.nearest(A, 32)),
        (1, lambda A: sm.BlockCirculant.nearest(A, 5)),
        *((which, lambda c: sm.preconditioners.chan(sm.Toeplitz(c))) for which in (2, 3)),
        *((which, lambda c: sm.preconditioners.strang(sm.Toeplitz(c))) for which in (2, 3)),
    ]
    for dtype in {backend.xp.float16, half}:
        for which, call in calls:
            narrow = backend.cast(backend.asarray(singles[which]), dtype)
            got, expected = call(narrow), call(backend.cast(narrow, backend.xp.float32))
            for a, b in zip(got._arrays(), expected._arrays(), strict=True):
                assert a.dtype == dtype
                assert bool((a == backend.cast(b, dtype)).all())
                assert bool(backend.xp.isfinite(a).all())


@in_one_test("function", ["inv", "pinv", "sqrtm", "expm", "logm"])
def test_functions_of_operators_in_half_precision_keep_it(backend: Backend, half: Any, function: str) -> None:
    if backend.compiles:
        pytest.skip("compiles too much")
    for op in (sm.Circulant(backend.asarray(np.array([4.0, 1.0, 0.0, 1.0]))), sm.Diagonal(backend.asarray(np.ones(2)))):
        assert getattr(op.astype(half), function)().dtype == half


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_autocast_does_not_lower_the_precision() -> None:
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(0)
    for n in (4, 64, 600):
        operators = [
            sm.Circulant(torch.randn(n)),
            sm.BlockCirculant(torch.randn(2, 2, n // 2)),
            sm.CDDProduct.from_vectors(*torch.randn(3, n)),
            sm.CDDProduct.from_vectors(*torch.randn(3, n), first="circulant"),
            sm.Toeplitz(torch.randn(n)),
            sm.Circulant(torch.randn(n)) @ sm.Toeplitz(torch.randn(n)),
        ]
        x, X = torch.randn(n), torch.randn(3, n)
        for op in operators:
            for P in (op, op.prepare(), op.prepare().T):
                calls = [lambda: P @ x, lambda: P.matvec(X), lambda: P @ X.T, lambda: P.rmatvec(X), P.to_dense]  # noqa: B023
                for call in calls:
                    expected = call()
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        got = call()
                    torch.testing.assert_close(got, expected)


def test_combinations_with_a_fourier_matrix_are_complex() -> None:
    for op in (
        sm.Fourier(4) @ sm.Circulant(np.ones(4, "float32")),
        sm.Circulant(np.ones(4, "float32")) + sm.Fourier(4),
    ):
        assert op.dtype == (op @ np.ones(4, "float32")).dtype == op.to_dense().dtype == np.dtype("complex64")


MAKERS: dict[str, tuple[int, Callable[..., sm.LinearOperator]]] = {
    "CDDProduct": (3, sm.CDDProduct.from_vectors),
    "Product": (2, lambda c, d: sm.Product((sm.Circulant(c), sm.Toeplitz(d)))),
    "Product of prepared ones": (2, lambda c, d: sm.Product((sm.Circulant(c).prepare(), sm.Toeplitz(d).prepare()))),
    "Sum": (2, lambda c, d: sm.Sum((sm.Circulant(c), sm.Hankel(d)))),
    "Scaled": (2, lambda c, d: sm.Scaled(sm.BlockCirculant(c[None, None, None, :]), d[:1])),  # without axes it is light
    "Toeplitz": (2, sm.Toeplitz),
    "ToeplitzInverse": (2, sm.ToeplitzInverse),
}
VECTORS = np.array([[9.0, 1.0, -2.0, 4.0, 3.0], [11.0, 2.0, 5.0, -1.0, 2.0], [8.0, -3.0, 1.0, 1.0, 2.0]])
"""Small integers, which every precision holds, so that only computations tell precisions."""


def as_double(value: Any, backend: Backend) -> np.ndarray:
    xp = backend.xp
    value = value if isinstance(value, np.generic) else xp.asarray(value)
    return np.asarray(value) if backend.name == "numpy" else np.asarray(backend.to_numpy(value.to(xp.complex128)))


@in_one_test("name", MAKERS)
@in_one_test("library, half", [("numpy", "float16"), ("torch", "bfloat16")])
def test_results_are_as_good_as_the_widest_part(library: str, half: str, name: str) -> None:
    backend, (count, make) = get(library), MAKERS[name]
    reference, x = make(*VECTORS[:count]), np.arange(5.0)
    exact = {"matvec": reference.matvec(x), "rmatvec": reference.rmatvec(x), "to_dense": reference.to_dense()}
    with suppress(NotImplementedError):
        exact |= {"solve": reference.solve(x), "det": reference.det()}
    for pair in ((half, "float32"), ("float32", half), ("float64", "float32"), ("complex64", "float64")):
        parts = [backend.xp.asarray(v, dtype=backend.dtype(pair[i % 2])) for i, v in enumerate(VECTORS[:count])]
        op, tolerance = make(*parts), 1e-12 if "float64" in pair else 1e-4
        b = backend.xp.asarray(x, dtype=op.dtype)
        for operator in (op, op.prepare()):
            for method, wanted in exact.items():
                got = as_double(getattr(operator, method)(*[b] * (method not in {"to_dense", "det"})), backend)
                assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max(), (pair, method)


def test_prepared_parts_are_as_accurate_as_wide_vectors_ask_for() -> None:
    rng = np.random.default_rng(0)
    c, t, x = rng.standard_normal((3, 40)).astype(np.float32)
    parts = sm.Circulant(c), sm.Toeplitz(t)
    first, second = (part.to_dense().astype(float) for part in parts)
    wide = x.astype(float)
    for op, exact in (
        (sm.Product(tuple(part.prepare() for part in parts)), first @ (second @ wide)),
        (sm.Sum(tuple(part.prepare() for part in parts)), first @ wide + second @ wide),
    ):
        for lifted in (op, op.prepare(), op.astype("float64"), op.astype("complex128")):
            np.testing.assert_allclose(lifted.matvec(wide), exact, rtol=0, atol=1e-13 * np.abs(exact).max())


@on("numpy", "torch")
def test_quotients_are_computed_in_the_precision_of_the_operator(backend: Backend) -> None:
    c = np.array([1.0, 2.0, 3.0])
    C = sm.Circulant(backend.xp.asarray(c))
    for factor in (np.float32(3), np.complex64(1 - 2j), np.float64(3), np.int8(7), np.float16(3)):
        quotients = [C / factor, (C @ sm.Toeplitz(C.c)) / factor @ sm.Toeplitz(C.c).inv()]
        if backend.name == "torch":
            quotients.append(C / backend.xp.asarray(np.asarray(factor)))
        for quotient in quotients:
            got, wanted = as_double(quotient.to_dense(), backend), sm.Circulant(c).to_dense() / complex(factor)
            np.testing.assert_allclose(got, wanted, rtol=1e-14, atol=1e-14)
    stack = sm.Circulant(backend.xp.asarray(np.ones((2, 3)))) / backend.xp.asarray(np.float32([3.0, 7.0]))
    np.testing.assert_allclose(as_double(stack.to_dense(), backend)[:, 0, 0], [1 / 3, 1 / 7], rtol=1e-15)
    np.testing.assert_array_equal((sm.Identity(1) / np.float32(3)).to_dense(), 1 / 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@in_one_test("kind", ["float32", "float64", "complex64", "complex128", "int8", "int64", "bool"])
def test_scalars_of_numpy_promote_as_in_numpy(dtype: str, kind: str) -> None:
    factor, values = np.dtype(kind).type(1), np.ones(4, dtype)
    for op in (*(make(values) for make in KINDS.values()), sm.Circulant(values).prepare()):
        if dtype == "float16" and kind == "complex64" and isinstance(op, sm.Product):
            continue
        for scaled in (op * factor, factor * op):
            assert scaled.dtype == (values * factor).dtype, op
            np.testing.assert_allclose(scaled.matvec(values), op.matvec(values), rtol=1e-3)
    assert (sm.Circulant(values) / factor).dtype == (values / factor).dtype
    assert (sm.Identity(3) * factor).dtype is None
    assert (2.0 * sm.Circulant(values)).dtype == dtype


@in_one_test("dtype", ["float32", "float64", "complex128"])
@on("numpy", "torch", "array_api_strict")
def test_a_multiple_of_the_identity_takes_the_precision_of_its_neighbours(backend: Backend, dtype: str) -> None:
    c = np.array([2.0, 0.1, 0.3])
    T, third = sm.Toeplitz(backend.xp.asarray(c, dtype=backend.dtype(dtype))), sm.Identity(3) / 3
    dense = sm.Toeplitz(c).to_dense()
    total, multiple = sm.Sum((T, third)), sm.Product((T, third))
    for got, wanted in (
        (total.diagonal(), 2.0 + np.ones(3) / 3),
        (total.trace(), 7.0),
        (multiple.det(), np.linalg.det(dense) / 27),
        (multiple.slogdet()[1], np.log(np.linalg.det(dense) / 27)),
    ):
        rtol = 1e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(np.asarray(backend.to_numpy(got)), wanted, rtol=rtol)
        assert dtype != "float32" or got.dtype == T.dtype


KINDS: dict[str, Callable[[Any], sm.LinearOperator]] = {
    "Circulant": sm.Circulant,
    "MultilevelCirculant": lambda c: sm.MultilevelCirculant(c, (2, 2)),
    "BandedCirculant": lambda c: sm.BandedCirculant(c[:2], 4),
    "Diagonal": sm.Diagonal,
    "BlockCirculant": lambda c: sm.BlockCirculant(c[None, None, :]),
    "Toeplitz": sm.Toeplitz,
    "Hankel": sm.Hankel,
    "CDDProduct": lambda c: sm.CDDProduct.from_vectors(c, c, c),
    "Product": lambda c: sm.Toeplitz(c) @ sm.Hankel(c),
    "Sum": lambda c: sm.Toeplitz(c) + sm.Diagonal(c),
    "Scaled": lambda c: sm.Scaled(sm.Toeplitz(c), 3),
    "Prepared": lambda c: sm.Toeplitz(c).prepare(),
}
kinds = pytest.mark.parametrize("name", KINDS)


def scalars(backend: Backend) -> list[Any]:
    """Scalars of all precisions, real and complex, and in JAX those of weak types."""
    strong = [backend.asarray(np.asarray(2, dtype)) for dtype in ("float32", "float64", "complex64", "complex128")]
    return strong + [backend.xp.full((), value) for value in (2.0, 2j)] * (backend.name == "jax")


def vectors(backend: Backend) -> list[Any]:
    dtypes = [backend.dtype(name) for name in filter(None, ("float32", backend.half, "complex64"))]
    return [backend.xp.full((4,), 2.0, dtype=dtype) for dtype in dtypes]


@kinds
def test_multiples_of_the_identity_count_for_what_their_scalars_do(backend: Backend, name: str) -> None:
    if backend.name == "array_api_strict":
        pytest.skip("mixes no precisions")
    if backend.compiles and name not in {"Circulant", "Toeplitz", "Product", "Sum"}:
        pytest.skip("traces each of all pairs of dtypes")

    def dtypes_agree(c: Any, e: Any) -> None:
        try:
            wanted = (c * e).dtype
        except NotImplementedError:  # torch 2.15 has a dtype for bfloat16 and complex numbers, and no products
            return
        op, multiple = KINDS[name](c), e * sm.Identity(4)
        sums = {"K + eI": op + multiple, "eI + K": multiple + op, "K @ eI": op @ multiple, "eI @ K": multiple @ op}
        sums |= {"Sum": sm.Sum((op, multiple)), "-": op - multiple, "K / e": op / e}
        sums |= {"I / e": op + multiple / e, "Product": sm.Product((multiple, op))}
        sums |= {"Scaled": sm.Scaled(sm.Toeplitz(c), e), "e * K": e * op, "K * e": op * e}
        got = {label: {total.dtype, total.matvec(c).dtype, total.to_dense().dtype} for label, total in sums.items()}
        assert got == {label: {wanted} for label in sums}, (c.dtype, e)
        assert (multiple @ c).dtype == (multiple @ c[:, None]).dtype == (c @ multiple).dtype == wanted, (c.dtype, e)

    for c in vectors(backend):
        for e in scalars(backend):
            if backend.compiles:
                importlib.import_module("jax").eval_shape(dtypes_agree, c, e)  # which compiles nothing
            else:
                dtypes_agree(c, e)


def test_a_sum_with_a_traced_multiple_of_the_identity_can_be_carried() -> None:
    """In JAX a loop takes nothing that changes its dtype."""
    jax: Any = pytest.importorskip("jax")
    c = get("jax").xp.arange(4.0, dtype="bfloat16")

    def shifted(_: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        op, e = state
        return op + e * sm.Identity(4), e / 2

    for make in KINDS.values():
        op = make(c)
        if type(op + sm.Identity(4)) is type(op) and not isinstance(op, sm.Sum):  # else each step adds a term
            last, _ = jax.jit(lambda op, e: jax.lax.fori_loop(0, 3, shifted, (op, e)))(op, 0.5)
            np.testing.assert_allclose(last.to_dense(), op.to_dense() + 0.875 * np.eye(4), rtol=2e-2)
            assert last.dtype == "bfloat16"


@kinds
def test_weak_types_of_jax_count_for_their_kind_only(name: str) -> None:
    backend = get("jax")
    jnp = backend.xp
    weak = [jnp.full(4, value) for value in (2.0, 2j)]
    assert all(vector.weak_type for vector in weak)

    def dtypes_agree(strong: Any, light: Any) -> None:
        wanted = (strong * light).dtype
        for op, x in ((KINDS[name](strong), light), (KINDS[name](light), strong)):
            got = {(op @ x).dtype, (op @ x[:, None]).dtype, (x @ op).dtype, op.rmatvec(x).dtype}
            assert got == {wanted}, (op, x)
        for total in (KINDS[name](strong) + KINDS[name](light), KINDS[name](strong) @ KINDS[name](light)):
            assert (total.dtype, total.to_dense().dtype, (total @ strong).dtype) == (wanted,) * 3, total

    for strong in vectors(backend):
        for light in weak:
            importlib.import_module("jax").eval_shape(dtypes_agree, strong, light)  # which compiles nothing
    assert (KINDS[name](weak[0]) @ weak[0]).dtype == weak[0].dtype


def test_parameters_of_weak_types_take_the_dtype_of_the_others() -> None:
    jnp = get("jax").xp
    strong, light = jnp.ones(4, "float32"), jnp.full(4, 2.0)
    for op in (
        sm.Toeplitz(strong, light),
        sm.Toeplitz(light, strong),
        sm.CDDProduct.from_vectors(strong, light, strong),
        sm.ToeplitzInverse(strong, light),
    ):
        assert (op.dtype, (op @ strong).dtype) == ("float32", "float32"), op
