"""What `structmat.extend` offers is all that an operator needs: the package's own import nothing else of the base."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat import extend
from structmat.operators import Constant
from structmat.operators._base.hooks import HOOKS, Hooks
from structmat.testing._drawing import Vectors
from tests import backends
from tests.cases import in_one_test
from tests.operators import outsiders
from tests.operators.outsiders import DirectSum, ToeplitzPlusHankel

FOLDER = Path(sm.__file__).parent / "operators"
BASE = {
    *("arithmetic", "closed_forms", "combination", "determinants", "hooks", "linear_operator", "operands", "parts"),
    *("spectral_functions", "storage", "wrapper"),
}
"""The modules of the folder `_base` of which `structmat.extend` offers what operators need, with those of `Chain`."""
OFFERED = {"structmat.operators._composed.chain", *(f"structmat.operators._base.{name}" for name in BASE)}

PUBLIC = {name: getattr(sm, name) for name in sm.__all__}
OPERATORS = {n for n, kind in PUBLIC.items() if isinstance(kind, type) and issubclass(kind, sm.LinearOperator)}
OPERATORS -= {"LinearOperator"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> dict[str, set[str]]:
    """The names that a module imports from others, by the modules."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def answers_for_any(tree: ast.Module) -> bool:
    """Whether a module registers what two operators of any types are, as a product, a sum or a multiple is."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    rules = [call for call in calls if call.func.attr == "rule"]  # type: ignore[attr-defined]
    return any([getattr(of, "id", None) for of in rule.args] == ["object", "object"] for rule in rules)


def own_operators() -> list[str]:
    """The modules of the package's own operators, without those that say what `@`, `+`, `*` and `[]` mean."""
    found = []
    for path in sorted(FOLDER.glob("_*/[a-z]*.py")):
        tree = tree_of(path)
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        if classes & OPERATORS and not answers_for_any(tree):
            found.append(f"{path.parent.name}.{path.stem}")
    return found


def test_the_own_operators_are_found() -> None:
    blocks = {"_blocks.block_circulant", "_blocks.block_toeplitz", "_cdd.product"}
    families = {f"_families.{name}" for name in ("circulants", "dense", "diagonal", "grid_convolution", "multilevel")}
    families |= {f"_families.{name}" for name in ("spectral_multiplier", "toeplitz", "transforms")}
    composed = {f"_composed.{name}" for name in ("eigendecomposition", "kronecker", "kronecker_sum")}
    assert blocks | families | composed == {*own_operators()}


BASES = [f"_families.{name}" for name in ("any_circulant", "diagonal_by_transforms", "spectral")]
"""What several families share."""


@in_one_test("module", [*own_operators(), *BASES])
def test_an_own_operator_takes_of_the_base_what_anyone_is_offered(module: str) -> None:
    needed = {
        name
        for source, names in imports(tree_of(FOLDER / f"{module.replace('.', '/')}.py")).items()
        if source in OFFERED
        for name in names
    }
    assert needed or module == "_families.spectral_multiplier"  # which takes all by its own bases
    assert needed <= {*extend.__all__}


def test_the_documentation_lists_every_hook() -> None:
    """And nothing else: what its lists name is what `Hooks` has, and the attributes that a subclass may override."""
    lists = str(extend.__doc__).partition("Required\n")[2].partition("To call in hooks\n")[0]
    documented = re.findall(r"``(_\w+|shape|dtype)\b", lists)
    others = {"shape", "dtype", "_forces_complex", "_prepares_matrix"}
    assert sorted(documented) == sorted({*HOOKS, *others})


@pytest.mark.parametrize("kind", [sm.Prepared, Constant])
def test_an_operator_that_stands_for_another_has_every_hook(kind: type) -> None:
    """One that is forgotten would silently take its default, which may be an error or the wrong answer."""
    assert [hook for hook in HOOKS if getattr(kind, hook) is getattr(Hooks, hook)] == []


def test_outsiders_import_nothing_else() -> None:
    found = imports(tree_of(Path(outsiders.__file__)))
    assert {source for source in found if source.startswith("structmat")} == {"structmat.extend"}
    text = Path(outsiders.__file__).read_text("utf-8")
    assert "sm._" not in text


@backends.on("numpy", "torch", "array_api_strict")
@in_one_test("dtype", ["float64", "complex128"])
@in_one_test("n", [1, 2, 3, 6, 7])
def test_the_circulant_near_a_toeplitz_plus_hankel_matrix_is_the_nearest(
    backend: backends.Backend, n: int, dtype: str
) -> None:
    t, h = Vectors(n, dtype, (2,))(2, 2 * n - 1), Vectors(n, dtype)(2 * n - 1)
    op = ToeplitzPlusHankel(backend.asarray(t), backend.asarray(h), n)
    found: Any = op._near(op.t, op._own_namespace()).circulant()
    assert found.sizes == (n,)
    want = sm.Circulant.nearest(ToeplitzPlusHankel(t, h, n).to_dense()).c
    np.testing.assert_allclose(backend.to_numpy(found.c), want, atol=1e-13)


def test_the_circulant_near_a_kronecker_product_is_that_of_the_factors() -> None:
    """Of two levels, and the nearest: no other one of these levels is nearer to the matrix."""
    v = Vectors(0, "float64")
    op = sm.Kronecker(sm.Toeplitz(v(3), v(3)), sm.Kronecker(sm.Identity(2), sm.Circulant(v(2))))
    found = op._near(v(12), np).circulant()
    assert found is not None
    c, sizes = found
    assert sizes == (3, 2, 2)
    off = op.to_dense() - sm.MultilevelCirculant(c, sizes).to_dense()
    for k in range(12):
        unit = sm.MultilevelCirculant(np.eye(12)[k], sizes).to_dense()
        np.testing.assert_allclose(np.sum(off * unit), 0, atol=1e-13)
    levels = sm.Kronecker(sm.Toeplitz(v(3), v(3)), sm.MultilevelCirculant(v(4), (2, 2)), sm.Diagonal(v(2)))
    found = levels._near(v(24), np).circulant()
    assert found is not None
    assert found.sizes == (3, 2, 2, 2)
    for unknown in (op + sm.Toeplitz(v(12)), sm.Kronecker(sm.Toeplitz(v(3), v(2)), sm.Toeplitz(v(2), v(3)))):
        assert unknown._near(v(12), np).circulant() is None


def test_the_circulant_near_a_combination_is_that_of_the_circulants_near_its_parts() -> None:
    v = Vectors(1, "float64")
    op, T, D = ToeplitzPlusHankel(v(9), v(9), 5), sm.Toeplitz(v(5), v(5)), sm.Diagonal(v(5))

    def near(A: sm.LinearOperator) -> Any:
        c, sizes = A._near(v(5), np).circulant()  # type: ignore[misc]
        assert sizes in {(5,), None}
        return sm.Circulant(c).to_dense()

    for combination, want in (
        (sm.Scaled(op, 3.0), 3 * near(op)),
        (sm.Sum((op, T, D)), near(op) + near(T) + near(D)),
        (sm.Product((op, D, T)), near(op) @ near(D) @ near(T)),
        (op.prepare(), near(op)),
    ):
        np.testing.assert_allclose(near(combination), want, atol=1e-13)


def test_a_submatrix_tells_of_which_matrix_it_has_rows_and_columns() -> None:
    T, D = sm.Toeplitz(np.arange(6.0)), sm.Diagonal(np.arange(3.0))
    inner = sm.Submatrix(T, [0, 2, 3, 5], [0, 2, 3, 5])
    for op in (sm.Submatrix(inner, [1, 2, 3], [1, 2, 3]), sm.Submatrix(T, [2, 3, 5], [2, 3, 5]) + D):
        near = op._near(np.ones(3), np)
        np.testing.assert_array_equal(near.chosen.array, [2, 3, 5])
        np.testing.assert_allclose(near.whole[[2, 3, 5]][:, [2, 3, 5]].to_dense(), op.to_dense(), atol=1e-12)
    assert sm.Submatrix(T, [1, 2], [1, 3])._near(np.ones(2), np).chosen is None


def systems() -> dict[str, sm.LinearOperator]:
    def near_toeplitz(n: int) -> ToeplitzPlusHankel:
        k = np.arange(2 * n - 1)
        return ToeplitzPlusHankel(0.9 ** np.abs(k - n + 1), 0.01 * np.cos(k), n)

    T = sm.Toeplitz(0.8 ** np.arange(16))
    return {"Toeplitz plus Hankel": near_toeplitz(64), "Kronecker": sm.Kronecker(T, near_toeplitz(16))}


@pytest.mark.parametrize("name", systems())
def test_a_circulant_near_an_operator_of_ones_own_speeds_up_iterations(name: str) -> None:
    A = systems()[name]
    b = np.cos(np.arange(A.shape[0]) ** 2)
    steps = {}
    for preconditioner in (None, "nearest"):
        found = sm.solve(A, b, method=sm.GMRES(), preconditioner=preconditioner)
        np.testing.assert_allclose(A @ found.x, b, atol=1e-6)
        steps[preconditioner] = found.iterations
    assert 0 < steps["nearest"] < steps[None] / 2, steps


def test_a_family_takes_in_those_that_it_says_and_changes_no_other() -> None:
    v = Vectors(3, "float64")
    A, T, H = ToeplitzPlusHankel(v(7), v(7), 4), sm.Toeplitz(v(4)), sm.Hankel(v(4))
    assert type(A + T) is type(A + H) is type(A + A) is ToeplitzPlusHankel
    assert type(T + H) is sm.Sum
    other = ToeplitzPlusHankel(v(7), v(7), 4)
    stack = ToeplitzPlusHankel(v(2, 7), v(7), 4)
    np.testing.assert_allclose((stack + other).to_dense(), stack.to_dense() + other.to_dense())


def test_a_family_is_a_class_of_operators() -> None:
    T: Any = sm.Toeplitz(np.ones(2))
    with pytest.raises(TypeError, match=r"register_family: family must be a class.*got Toeplitz"):
        extend.register_family(T)
    with pytest.raises(TypeError, match=r"register_family: holds must be a class.*got <class 'int'>"):
        extend.register_family(ToeplitzPlusHankel, {int: lambda op, like: None})  # type: ignore[dict-item]


def test_a_file_holds_operators_of_the_package_alone(tmp_path: Path) -> None:
    """As it is read by those who do not have the class."""
    pytest.importorskip("safetensors")
    op: Any = ToeplitzPlusHankel(np.ones(7), np.ones(7), 4)
    for saved in (op, op.prepare(), 2 * op @ sm.Identity(4), DirectSum(sm.Identity(2), sm.Identity(2))):
        with pytest.raises(TypeError, match="must be made of operators of structmat itself, got"):
            sm.io.save(saved, tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())
